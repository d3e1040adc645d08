r"""Where voxels should be cut so that an interval becomes narrow for few of them.

The width is sqrt(sum_K eta_K^2 sum_K eta*_K^2) / 2. Where voxels are cut into n_a parts along axis
a, eta_K^2 falls to about the mean over the axes of 1 / n_a^2 of it, and eta*_K^2 likewise. All
voxels within one of `RADII` of an electrode or of the patch can be cut into `PARTS` along every
axis; of all such steps one after another that is taken by which the logarithm of the width falls
most for the growth of that of the number of voxels. What is foretold only chooses the grid: the
bound is computed on it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.certify.closed_form import BETTER, WIDE
from physics_hybrid.problems.potential.certify.graded import Graded
from physics_hybrid.problems.potential.certify.shapes import others
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource

#: Distances in voxels within which they may be cut; the last is the whole body.
RADII = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, math.inf)

#: Into how many parts along each axis.
PARTS = (2, 4, 8, 16)

#: Parts, and voxels, on each side of an electrode that are alike, to give its closed form room: in
#: muscle eta is many times as large where it reaches 2 voxels only.
ROOM, ROOM_VOXELS = 8, 4

#: Neighbours are cut into at most so many times as many: more slows the solver down.
STEEPEST = 4

#: Voxels with one number for each axis: first and last of a box.
Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Focus:
    """Electrodes and patch of one body, and how finely it is cut round them.

    electrodes, patches : their boxes. clear : voxels from the electrodes to tissue that conducts
    far better, before which their closed form ends. levels : into how many parts along each axis
    the voxels within each of `RADII` are cut, of the electrodes and of the patches.
    """

    conductor: Conductor
    electrodes: list[Ranges]
    patches: list[Ranges]
    clear: float
    levels: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(
        cls, conductor: Conductor, source: PointSource, patches: list[Bool[Tensor, "D H W"]]
    ) -> "Focus":
        """Nothing is cut yet."""
        electrodes, clear = [], math.inf
        for electrode in source.electrodes:
            voxel = conductor.voxel_of(electrode.point)[0].tolist()
            electrodes.append([(i, i) for i in voxel])
            clear = min(clear, _clear(conductor, electrode.point[0], voxel))
        boxes = []
        for patch in patches:
            there = patch.nonzero()
            low, high = there.amin(dim=0).tolist(), there.amax(dim=0).tolist()
            boxes.append(list(zip(low, high, strict=True)))
        uncut = (1,) * len(RADII)
        return cls(conductor, electrodes, boxes, clear, (uncut, uncut))

    @property
    def graded(self) -> Graded:
        """The grid."""
        lines = []
        for axis, n in enumerate(self.conductor.shape):
            parts = torch.ones(n, dtype=torch.long)
            for boxes, levels in zip((self.electrodes, self.patches), self.levels, strict=True):
                within = _within(n, [box[axis] for box in boxes])
                parts = parts.maximum(torch.tensor(levels)[within])
            lines.append(self._smooth(parts, axis))
        return Graded((lines[0], lines[1], lines[2]))

    def _smooth(self, parts: Int[Tensor, " n"], axis: int) -> Int[Tensor, " n"]:
        """No steep steps; alike round electrodes, and on both ends where they are robin."""
        if axis == 0 and self.conductor.ends.kind == "robin":
            parts[[0, -1]] = parts[[0, -1]].max()
        for _ in PARTS:
            least = torch.div(parts, STEEPEST, rounding_mode="floor")
            parts[1:] = parts[1:].maximum(least[:-1])
            parts[:-1] = parts[:-1].maximum(least[1:])
        for box in self.electrodes:
            i, room = box[axis][0], int(self._room(max(self.levels[0])))
            there = slice(max(0, i - room), i + room + 1)
            parts[there] = parts[there].max()
        if axis == 0 and self.conductor.ends.kind == "robin":
            parts[[0, -1]] = parts[[0, -1]].max()
        return parts

    def _room(self, m: int) -> float:
        """Voxels on each side of an electrode that are to be cut alike, into m."""
        room = max(ROOM_VOXELS, math.ceil(ROOM / m))
        return max(1, min(room, math.ceil(min(self.clear, ROOM))))

    def reach(self, graded: Graded, most: int) -> int:
        """Parts on each side of the electrodes that are alike, `most` of them."""
        for box in self.electrodes:
            for (i, _), n in zip(box, graded.parts, strict=True):
                for side in (n[i:], n[: i + 1].flip(0)):
                    other = (side != side[0]).nonzero()
                    if len(other):
                        most = min(most, int(side[0]) * (int(other[0]) - 1))
        return max(1, most)

    def finer(
        self, eta: Float[Tensor, "D H W"], eta_dual: Float[Tensor, "D H W"], by: float, limit: int
    ) -> "Focus":
        """Cut so that the width should fall by the factor `by`, or until there are `limit` voxels.

        eta, eta_dual : squares of the bounds in every voxel.
        """
        now = self.graded
        shares = [_shares(one) for one in (eta, eta_dual)]
        focus, voxels, width = self, now.voxels, 1.0
        while width > by:
            best = None
            for other in focus._next():
                graded = other.graded
                foretold = math.sqrt(math.prod(_left(one, now, graded) for one in shares))
                if graded.voxels > limit or foretold >= width:
                    continue
                growth = math.log(max(graded.voxels / voxels, 1 + 1e-9))
                worth = math.log(width / foretold) / growth
                if best is None or worth > best[0]:
                    best = worth, other, graded.voxels, foretold
            if best is None:
                break
            _, focus, voxels, width = best
        return focus

    def _next(self) -> Iterator["Focus"]:
        """All that are cut once more."""
        whole = self.conductor.ends.kind == "sink"  # its current leaves evenly from equal voxels
        for which, levels in enumerate(self.levels):
            for place, radius in enumerate(RADII):
                for m in PARTS:
                    if m <= levels[place] or (whole and radius < math.inf):
                        continue
                    if which == 0 and m > max(levels) and not self._fits(radius, m):
                        continue
                    new = tuple(max(n, m) if i <= place else n for i, n in enumerate(levels))
                    both = (new, self.levels[1]) if which == 0 else (self.levels[0], new)
                    yield replace(self, levels=both)

    def _fits(self, radius: float, m: int) -> bool:
        """Whether the closed form has room in the box, and in the tissue before a better one."""
        wide = min(WIDE, max(PARTS) * self.clear)
        return radius >= self._room(m) and m * self.clear >= wide


def _shares(values: Float[Tensor, "D H W"]) -> list[Float[Tensor, " n"]]:
    """Of the sum, what the planes across each axis have."""
    total = values.sum()
    return [values.sum(dim=others(axis)) / total for axis in range(3)]


def _left(shares: list[Float[Tensor, " n"]], before: Graded, after: Graded) -> float:
    """Of a sum, what should be left on another grid."""
    lines = zip(shares, before.parts, after.parts, strict=True)
    return sum(float((share * (n / m) ** 2).sum()) for share, n, m in lines) / 3


def _within(n: int, ranges: list[tuple[int, int]]) -> Int[Tensor, " n"]:
    """Which of `RADII` the voxels along an axis lie within, of the nearest of some ranges."""
    i = torch.arange(n)
    apart = [(low - i).maximum(i - high).clamp_min(0) for low, high in ranges]
    nearest = torch.stack(apart).amin(dim=0).double()
    return torch.searchsorted(torch.tensor(RADII, dtype=torch.float64), nearest)


def _clear(conductor: Conductor, point: Float[Tensor, " 3"], voxel: list[int]) -> float:
    """Voxels from an electrode to tissue that conducts more than `BETTER` times better."""
    mean = conductor.sigma[0, :3].mean(dim=0)
    better = (mean > BETTER * mean[tuple(voxel)]).nonzero()
    x = point / conductor.spacing[0]
    apart = (better - x).maximum(x - better - 1).amax(dim=1)
    return float(apart.min().clamp_min(0)) if len(apart) else math.inf
