r"""What numbers mean: a box of a plausible size, air that is air, a potential in volts.

Numbers in other units break no rule of shape or sign. What tells them is physics:

    box         1 mm to 10 m along its longest edge
    air         no tissue conducts less than 1e-4 S/m (dry skin: 2e-4, Gabriel et al., 1996)
    potential   Gauss's law: through any box round an electrode flows what the electrode gives,

                I = -sum over faces of sigma_h (u_out - u_in) / h * area                    [A]

sigma_h as in `physics/flux.py`. Readers of files, label volumes and `Predictor.predict` ask here;
every function says what is wrong, in words, or None, and the caller says where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from physics_hybrid.problems.potential.data.sample import Sample

#: The longest edge of a box, m: outside, the spacing is in other units.
SMALLEST_BOX, LARGEST_BOX = 1e-3, 10.0
#: What conducts less is hardly tissue, S/m.
HARDLY_TISSUE = 1e-4
#: A right potential gives the current within a factor of 3 or so, the nearest slip of a unit is a
#: factor of 100: half-way between.
WRONG_UNIT = 30.0
#: How far a factor may lie from that of a unit which is named, and boxes from each other.
NEAR = 3.0
#: Voxels between an electrode and the boxes round it.
MARGINS = (1, 2, 3)
#: Of u, by rounding and the tolerance of a solver.
ROUNDING = 1e-5

#: By what the current of `u` exceeds that of `source` where a unit is another one.
SLIPS = (
    (1e3, "u in millivolts, or sigma in mS/m"),
    (1e6, "u in microvolts"),
    (1e-2, "sigma in S/cm"),
    (1e-3, "source in milliamperes, or sigma in S/mm"),
    (1e-4, "lengths in centimetres"),
    (1e-6, "lengths in millimetres"),
)


def wrong_box(spacing: np.ndarray, shape: Sequence[int]) -> str | None:
    """What is wrong with the size of a box: spacing (3,) m, shape (D, H, W)."""
    longest = float((np.asarray(spacing) * np.asarray(shape)).max())
    if SMALLEST_BOX <= longest <= LARGEST_BOX:
        return None
    edges = np.asarray(spacing).tolist()
    return (
        f"{edges} m makes a box of {longest:.3g} m, and one of 1 mm to 10 m is expected; is it in "
        "other units?"
    )


@dataclass(frozen=True)
class NearlyAir:
    """Voxels that conduct, and less than any tissue.

    lowest : their smallest conductivity, S/m.
    share : of the box.
    """

    lowest: float
    share: float

    def __str__(self) -> str:
        return f"sigma goes down to {self.lowest:.3g} S/m in {self.share:.0%} of the box"


#: What follows from `NearlyAir`, and what to do; {key} is how a user says what is air.
COUNTS_AS_TISSUE = (
    "it counts as tissue in baseline, losses and metrics. If it is air, say so with {key}"
)


def nearly_air(sigma: np.ndarray) -> NearlyAir | None:
    """Tissue of sigma (C, D, H, W) in S/m that is hardly any; None where there is none."""
    along = sigma[0]
    low = (along > 0) & (along < HARDLY_TISSUE)
    if not low.any():
        return None
    return NearlyAir(float(along[low].min()), float(low.mean()))


def cleared(sigma: np.ndarray, air_below: float | None) -> np.ndarray:
    """sigma (..., C) in S/m with 0 where it conducts less along D than `air_below`."""
    if air_below is None:
        return sigma
    return np.where(sigma[..., :1] < air_below, sigma.dtype.type(0), sigma)


def wrong_scale(sample: Sample, source_units: str = "density") -> str | None:
    """What is wrong with the scale of `u`, or its sign: its current is far from that of `source`.

    Only a potential that is a solution up to a factor is told so: the boxes round the electrode
    agree. Boxes that touch an end of the limb, or hold another electrode, do not count.

    source_units : how the file is read, see `Conventions`.
    """
    ratios = np.array(list(_ratios(sample)))
    sizes = np.abs(ratios)
    if not len(ratios) or len({*np.sign(ratios)}) > 1 or sizes.max() > NEAR * sizes.min():
        return None
    factor = float(np.exp(np.mean(np.log(sizes))))
    if ratios[0] < 0:
        return (
            "has the other sign than source: round the electrode it carries "
            f"{-factor:.2g} times the current of source. Turn the sign of one of them"
        )
    if 1 / WRONG_UNIT < factor < WRONG_UNIT:
        return None
    likely = _likely(factor, float(np.prod(sample.spacing)), source_units)
    return (
        f"is in other units than source, sigma and spacing: round the electrode it carries "
        f"{factor:.2g} times the current of source, {sample.current:.3g} A. {likely}"
    )


def _likely(factor: float, volume: float, source_units: str) -> str:
    """Which slip makes such a factor; volume : of a voxel, m^3."""
    slips = list(SLIPS)
    if source_units == "density":
        rule = "source in amperes a voxel (data.source_units=current)"
        slips.insert(0, (1 / volume, rule))
    else:
        slips.insert(0, (volume, "source in A/m^3 (data.source_units=density)"))
    named = [words for size, words in slips if 1 / NEAR < factor / size < NEAR]
    if not named:
        return "A/m^3, S/m, m and V are expected"
    return f"Likely: {'; or '.join(named)}"


def _ratios(sample: Sample) -> Iterator[float]:
    """The current of u over that of source, in boxes round the electrode."""
    shape = np.array(sample.shape)
    voxels = np.argwhere(sample.source > 0 if (sample.source > 0).any() else sample.source < 0)
    volume = np.prod(sample.spacing)
    for margin in MARGINS:
        low, high = voxels.min(axis=0) - margin, voxels.max(axis=0) + 1 + margin
        if low[0] < 1 or high[0] > shape[0] - 1:
            continue
        low, high = low.clip(0), np.minimum(high, shape)
        inside = sample.source[tuple(map(slice, low, high))].astype(np.float64)
        given = inside.sum() * volume
        if abs(given) < 0.9 * np.abs(inside).sum() * volume:
            continue
        flows, noise = _out_of(sample, low, high)
        if noise < abs(flows):
            yield float(flows / given)


def _out_of(sample: Sample, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """The current out of a box of voxels low to high (3,), and what of it rounding may be, A.

    No current passes the walls of the grid.
    """
    flows = noise = 0.0
    for axis in range(3):
        sigma = sample.sigma[axis if len(sample.sigma) > 1 else 0]
        per_volt = np.prod(sample.spacing) / sample.spacing[axis] ** 2
        for inner, outer in ((low[axis], low[axis] - 1), (high[axis] - 1, high[axis])):
            if not 0 <= outer < sigma.shape[axis]:
                continue
            place = [slice(a, b) for a, b in zip(low, high, strict=True)]
            place[axis] = slice(inner, inner + 1)
            here = tuple(place)
            place[axis] = slice(outer, outer + 1)
            there = tuple(place)
            G = per_volt * _harmonic(sigma[here], sigma[there])
            u, beyond = sample.u[here].astype(np.float64), sample.u[there].astype(np.float64)
            flows += float((G * (u - beyond)).sum())
            noise += float((G * np.abs(u)).sum()) * ROUNDING
    return flows, noise


def _harmonic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Harmonic mean of two conductivities, S/m; 0 where one is."""
    total = a.astype(np.float64) + b
    mean: np.ndarray = 2.0 * a * b / np.where(total > 0, total, 1.0)
    return mean
