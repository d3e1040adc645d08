r"""What the faces under an electrode conduct near its edge, where the current crowds.

At the edge of a perfect conductor on an insulating plane, s inside of it, the current density is
that of the plane problem phi ~ Re sqrt(x + i z):

    J(s) ~ 1 / (2 sqrt(s)),        phi ~ sqrt(r) cos(theta / 2)

r and theta round the edge, from the insulating side. A face that conducts area sigma / (h / 2), as
one far inside does, gets too little of it: the resistance of a disk of 5 voxels a radius is 4.5 %
too high. So a face conducts what this solution sends through it over the voltage to its centre,

    g = sqrt(sigma_n) int J dA / phi(centre)                                                   [S]

(the idea of Peaceman, Soc. Pet. Eng. J. 18 (1978) 183, for wells), and the face that holds the edge
m times that. m makes up for what the lattice behind it gets wrong: with it, an electrode that is a
strip on a lattice, again and again, has exactly the resistance of the strip that it is, against the
mean potential of the surface,

    R = ln(1 / sin(pi a / P)) / (pi sigma)                                                [ohm m]

(half-width a, period P: conformal map, Smythe, Static and Dynamic Electricity, 1968, ch. 4). On the
lattice a wave exp(i k x) dies away as q^n from row to row, so that the strip is a small dense
system.

Lengths are stretched, x' = x / sqrt(sigma_x): the medium is then isotropic.
"""

from functools import cache

import numpy as np

#: Voxels in a period of the lattice, and in half of the strip, that the factor m is found with.
PERIOD, HALF = 512, 20
#: Places of the edge in its face for which m is tabulated, 0 to 1, and ratios of h_n' / h_t' in
#: steps of this part of a factor of e.
PLACES = np.array([0.01, 0.02, 0.05, *np.linspace(0.1, 1.0, 19)])
STEP = 0.05
#: An edge between two faces may be so far from there, in voxels.
ROUNDED = 1e-6
#: The largest m: where cells are flat the lattice cannot take up enough at any.
LARGEST = 10.0


def edge_conductance(
    inside: np.ndarray,
    covered: np.ndarray,
    width: np.ndarray,
    centre: np.ndarray,
    size: np.ndarray,
    depth: np.ndarray,
) -> np.ndarray:
    """Mean over each face of sqrt(sigma_n)^-1 g / area: what the faces of an electrode conduct.

    (sigma / (h / 2) is 2 / depth here, far inside.)

    Parameters
    ----------
    inside : (F, Q)
        How far inside the edge samples of a face are; negative outside.
    covered : (F, Q)
        What other edges leave of them, 0 to 1.
    width : (F,)
        Of a sample along the way to the edge.
    centre : (F,)
        `inside` of the middle of the face.
    size : (F,)
        Of a face along the way to the edge, h_t'.
    depth : (F,)
        Of a voxel, h_n'.
    """
    half = width[:, None] / 2
    roots = np.sqrt(np.maximum(inside + half, 0)) - np.sqrt(np.maximum(inside - half, 0))
    flux = (roots / width[:, None] * covered).mean(axis=1)
    conductance: np.ndarray = flux / _voltage(centre, depth)
    place = centre / size + 0.5
    steps = np.round(np.log(depth / size) / STEP).astype(int)
    for step in np.unique(steps):
        at = (steps == step) & (place > 0) & (place < 1 + ROUNDED)
        conductance[at] *= np.interp(place[at], PLACES, _factors(int(step)))
    return conductance


def _voltage(centre: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """phi at the centre of a voxel behind a face."""
    r, theta = np.hypot(centre, depth / 2), np.arctan2(depth / 2, -centre)
    phi: np.ndarray = np.sqrt(r) * np.cos(theta / 2)
    return phi


@cache
def _factors(step: int) -> np.ndarray:
    """m at `PLACES`, for h_n' / h_t' = exp(STEP step): of the edge faces of strips of which 2 HALF
    voxels are covered in full and two by `place`.

    With K f = 1 for the currents f at 1 V, and r more of resistance in both edge faces, the sum of
    f is S - (r / 2) b^2 / (1 + (r / 2) c): S, b, c of r = 0.
    """
    ratio = float(np.exp(STEP * step))
    inner = np.arange(HALF) + PLACES[:, None]
    outer = np.maximum(inner - 1, 0)
    flux = np.sqrt(inner) - np.sqrt(outer)
    face = flux / _voltage(inner - 0.5, np.full(inner.shape, ratio))
    middle = np.full((len(face), 2), 2 / ratio)
    conductance = np.concatenate([face, middle, face[:, ::-1]], axis=1)
    count = conductance.shape[1]
    resistance = 1 / conductance
    resistance[:, [0, -1]] = 0.0
    between = np.arange(count)[:, None] - np.arange(count)
    K = _green(ratio)[between % PERIOD] + resistance[:, None] * np.eye(count)
    one, edges = np.ones(count), np.zeros(count)
    edges[[0, -1]] = 1.0
    found = np.linalg.solve(K, np.stack([one, edges], axis=1))
    f, e = found[..., 0], found[..., 1]
    half_width = (count - 2) / 2 + PLACES
    exact = np.pi / np.log(1 / np.sin(np.pi * half_width / PERIOD))
    missing = f.sum(axis=1) - exact
    left = (f @ edges) ** 2 - missing * (e @ edges)
    fits = (missing > 0) & (left > 0)
    more = np.where(fits, left / np.where(fits, 2 * missing, 1.0), np.inf)
    factors: np.ndarray = np.minimum(LARGEST, more / conductance[:, 0])
    return factors


def _green(ratio: float) -> np.ndarray:
    """Potential of the first row of a half plane of lattice from 1 A into one voxel of a period,
    whose mean comes out far away, against the mean potential on the surface. (PERIOD,)"""
    wave = ratio**2 * (2 - 2 * np.cos(2 * np.pi * np.arange(PERIOD) / PERIOD))
    q = 1 + wave / 2 - np.sqrt(wave + wave**2 / 4)
    conductance = (wave + 1 - q) / ratio
    inverse = np.divide(1.0, conductance, out=np.zeros(PERIOD), where=conductance > 0)
    inverse[0] = -ratio / 2
    potential: np.ndarray = np.fft.ifft(inverse).real
    return potential
