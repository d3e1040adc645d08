r"""Conductivity from diffusion: tensors that are checked, interpolated and mapped.

    volume     sigma = sigma_t D / (det D)^(1/3)                                          [S/m]
    direct     sigma = s D,  s in S s/mm^3 where D is in mm^2/s: s D is in S/mm
    direction  sigma = across 1 + (along - across) v v^T,  v the main eigenvector of D

with sigma_t = (det sigma)^(1/3) of the tissue's own conductivity. Volume-normalised: Opitz et al.,
NeuroImage 58 (2011) 849. Direct: Tuch et al., PNAS 98 (2001) 11697, who found s = 0.844 S s/mm^3 in
brain; Rullmann et al., NeuroImage 44 (2009) 399, who take the s that fits the tissues,

    s = sum_t sigma_t d_t / sum_t d_t^2,   d_t the mean of (det D)^(1/3) over a tissue.

Between voxels tensors are averaged by their logarithms, which neither swells nor loses positivity
(Arsigny et al., Magn. Reson. Med. 56 (2006) 411):  D = exp(sum_i w_i log D_i).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: S/m that no tissue reaches: what a tensor in other units is told by.
LEAST, MOST = 1e-4, 20.0

#: Main eigenvalues nearer to each other than this, relatively, have no direction.
NO_DIRECTION = 1e-3

#: mm in a metre: S/mm -> S/m.
PER_METRE = 1e3


@dataclass(frozen=True)
class Fault:
    """A kind of tensor that is none of a conductor.

    what : in words. where : (n,) which of the tensors.
    """

    what: str
    where: np.ndarray


def eigenvalues(tensors: np.ndarray) -> np.ndarray:
    """In rising order; NaN for a tensor that is not finite. (n, 3, 3) -> (n, 3)"""
    finite = np.isfinite(tensors).all(axis=(1, 2))
    found = np.full((len(tensors), 3), np.nan)
    found[finite] = np.linalg.eigvalsh(tensors[finite])
    return found


def faults(tensors: np.ndarray, outside: np.ndarray, max_ratio: float) -> list[Fault]:
    """What is wrong with tensors, each under the first that applies. (n, 3, 3)

    outside : (n,) where the image has none. max_ratio : largest over smallest eigenvalue.
    """
    values = eigenvalues(tensors)
    kinds = {
        "outside the image": outside,
        "not finite": np.isnan(values[:, 0]),
        "zero": ~tensors.any(axis=(1, 2)),
        "not positive": ~(values[:, 0] > 0),
        f"with eigenvalues more than {max_ratio:g} apart": values[:, 2] > max_ratio * values[:, 0],
    }
    left = np.ones(len(tensors), dtype=bool)
    found = []
    for what, where in kinds.items():
        mine = left & where
        if mine.any():
            found.append(Fault(what, mine))
        left &= ~where
    return found


def log_euclidean(tensors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """exp(sum_i w_i log D_i), weights that add up to 1. (n, k, 3, 3), (n, k) -> (n, 3, 3)"""
    values, vectors = np.linalg.eigh(tensors)
    logs = (vectors * np.log(values)[..., None, :]) @ vectors.swapaxes(-1, -2)
    values, vectors = np.linalg.eigh(np.einsum("nk,nkij->nij", weights, logs))
    out: np.ndarray = (vectors * np.exp(values)[..., None, :]) @ vectors.swapaxes(-1, -2)
    return out


def geometric_mean(tensors: np.ndarray) -> np.ndarray:
    """(det D)^(1/3). (..., 3, 3) -> (...)"""
    out: np.ndarray = np.cbrt(np.linalg.det(tensors))
    return out


def volume_normalised(tensors: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """sigma_t D / (det D)^(1/3), S/m: shape and direction of D, the volume of the tissue's own.

    (n, 3, 3) positive, (n,) S/m -> (n, 3, 3)
    """
    out: np.ndarray = (sigma / geometric_mean(tensors))[:, None, None] * tensors
    return out


def fitted_scale(tensors: np.ndarray, tissue: np.ndarray, sigma: np.ndarray) -> float:
    """s, S s/mm^3, with which s D is in the mean what the tissues conduct: Rullmann et al. 2009.

    tensors : (n, 3, 3) mm^2/s. tissue : (n,) whole numbers. sigma : (n,) S/m.
    """
    size = geometric_mean(tensors)
    above, below = 0.0, 0.0
    for number in np.unique(tissue):
        mine = tissue == number
        mean = float(size[mine].mean())
        above += float(sigma[mine][0]) * mean
        below += mean**2
    return above / below / PER_METRE


def direct(tensors: np.ndarray, scale: float) -> np.ndarray:
    """s D, S/m. (n, 3, 3) mm^2/s, s in S s/mm^3

    Raises
    ------
    ValueError
        A conductivity that no tissue has: tensors in another unit.
    """
    sigma: np.ndarray = PER_METRE * scale * tensors
    size = geometric_mean(sigma)
    low, high = float(size.min()), float(size.max())
    if low < LEAST or high > MOST:
        raise ValueError(
            f"scale={scale:g} S s/mm^3 makes conductivities of {low:.3g} to {high:.3g} S/m of these"
            f" tensors, and tissue has {LEAST:g} to {MOST:g}: are they in mm^2/s? Another scale, or"
            " None, which fits it to the table of tissues, takes any unit"
        )
    return sigma


def main_direction(tensors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvector of the largest eigenvalue, (n, 3), and whether there is one, (n,)."""
    values, vectors = np.linalg.eigh(tensors)
    plain = values[:, 2] - values[:, 1] > NO_DIRECTION * values[:, 2]
    return vectors[:, :, 2], plain
