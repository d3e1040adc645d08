r"""A current that a solver's tolerance has lost or invented, carried off exactly.

Given R, amperes too few in every voxel, finds currents c through faces between tissue with

    net current out of every voxel = R                                                          [A]

none through the skin, none through sealed ends. Tissue falls into runs along D. A run that touches
an end that conducts carries its own R there; another hands its sum on to the run beside it, along a
tree of runs. c is not small because a system was solved well, but because R is; its energy is
counted in the bound.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph

#: The share of the current that the sum over a piece of tissue may be: rounding.
BALANCED = 1e-10


@dataclass(frozen=True)
class Runs:
    """The runs of one body. Columns have D last: (H, W, D).

    starts, ends : flat index of the first and last voxel of every run.
    open : faces above voxels along D that let current pass, (D, H, W).
    first, last : whether a run conducts to the first or the last end.
    parent : the run that a run hands on to; itself where none is needed.
    order : runs that hand on, from the root on. voxel, axis, sign : of the face towards the
    parent: the flat index of the voxel below it, 0 for H and 1 for W, and which way.
    """

    starts: np.ndarray
    ends: np.ndarray
    open: np.ndarray
    first: np.ndarray
    last: np.ndarray
    parent: np.ndarray
    order: np.ndarray
    voxel: np.ndarray
    axis: np.ndarray
    sign: np.ndarray

    @classmethod
    def of(cls, tissue: np.ndarray, open_ends: bool) -> "Runs":
        """tissue (D, H, W); open_ends : whether current may leave through the ends."""
        above = np.zeros_like(tissue)
        above[:-1] = tissue[1:]
        above[-1] = open_ends
        columns = np.ascontiguousarray(np.moveaxis(tissue, 0, -1))
        start, end = columns.copy(), columns.copy()
        start[..., 1:] &= ~columns[..., :-1]
        end[..., :-1] &= ~columns[..., 1:]
        starts, ends = np.flatnonzero(start), np.flatnonzero(end)
        depth = len(tissue)
        first, last = starts % depth == 0, ends % depth == depth - 1
        if not open_ends:
            first[:], last[:] = False, False
        tree = _tree(len(starts), first | last, _faces(columns, starts, ends, ~(first | last)))
        return cls(starts, ends, tissue & above, first, last, *tree)

    def carry(self, R: np.ndarray, current: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c through the faces normal to D, H and W, amperes, positive along the axis. R (D, H, W)
        is 0 in air.

        current : what flows at all, A: sums that are rounding beside it are 0.

        Raises
        ------
        ValueError
            Where R of a piece of tissue without a way out does not add up to zero.
        """
        D, H, W = R.shape
        to_h, to_w = np.zeros((D, H + 1, W)), np.zeros((D, H, W + 1))
        if self.straight:
            return self._along(_sums(R)), to_h, to_w
        handed = self._hand_on(self._of_runs(R, _sums(R)), current)
        moved = np.flatnonzero(handed)
        h, w, d = np.unravel_index(self.voxel[moved], (H, W, D))
        amount = self.sign[moved] * handed[moved]
        in_h = self.axis[moved] == 0
        np.add.at(to_h, (d[in_h], h[in_h] + 1, w[in_h]), amount[in_h])
        np.add.at(to_w, (d[~in_h], h[~in_h], w[~in_h] + 1), amount[~in_h])
        R = R.copy()
        np.subtract.at(R, (d, h, w), amount)
        np.add.at(R, (d, h + in_h, w + ~in_h), amount)
        return self._along(_sums(R)), to_h, to_w

    @property
    def straight(self) -> bool:
        """Whether all runs conduct to an end: none hands on."""
        return not len(self.order)

    def _of_runs(self, R: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """R of every run."""
        starts, ends = self._places(self.starts, R), self._places(self.ends, R)
        total: np.ndarray = sums[ends] - sums[starts] + R[starts]
        return total

    def _places(self, voxels: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, ...]:
        """Flat indices with D last, as those of (D, H, W)."""
        D, H, W = R.shape
        h, w, d = np.unravel_index(voxels, (H, W, D))
        return d, h, w

    def _hand_on(self, total: np.ndarray, current: float) -> np.ndarray:
        """What every run hands on to its parent, A."""
        handed = np.zeros(len(total))
        lost = 0.0
        for run in self.order[::-1].tolist():
            above = self.parent[run]
            if above == run:
                lost = max(lost, abs(total[run]))
                continue
            handed[run] = total[run]
            total[above] += total[run]
        if lost > BALANCED * current:
            raise ValueError(
                "a piece of tissue that reaches no end takes in or gives off a net current of "
                f"{lost:.3g} A: no potential belongs to that. Set sigma = 0 there, or join it"
            )
        return handed

    def _along(self, sums: np.ndarray) -> np.ndarray:
        """Currents along D that carry off R, whose sums along D these are: to the last end, but out
        of a run that reaches only the first end through that. (D+1, H, W)

        Of other runs R adds up to zero, so that each begins where the first one has ended."""
        base = np.zeros(sums.shape[1:])
        back = self._places(self.ends[self.first & ~self.last], sums)
        base[back[1:]] = sums[back]
        c = np.empty((len(sums) + 1, *base.shape))
        np.multiply(sums - base, self.open, out=c[1:])
        c[0] = -base
        return c


def _sums(R: np.ndarray) -> np.ndarray:
    """Sums along D."""
    sums: np.ndarray = np.empty_like(R)
    torch.cumsum(torch.from_numpy(R), dim=0, out=torch.from_numpy(sums))
    return sums


def _faces(
    tissue: np.ndarray, starts: np.ndarray, ends: np.ndarray, lone: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Pairs of runs that share faces normal to H (0) or W (1): the runs below and above, the flat
    index of the voxel below, the axis. Only where one of both is lone; some pairs more than
    once."""
    H, W, D = tissue.shape
    runs = np.flatnonzero(lone)
    lengths = (ends - starts + 1)[runs]
    run = np.repeat(runs, lengths)
    begin = np.cumsum(lengths) - lengths
    voxel = np.arange(len(run)) + np.repeat(starts[runs] - begin, lengths)
    flat, out = tissue.ravel(), []
    for axis, size, step in ((0, H, W * D), (1, W, D)):
        place = voxel // step % size
        for side in (-1, 1):
            inside = (place + side >= 0) & (place + side < size)
            mine, own = voxel[inside], run[inside]
            other = mine + side * step
            joined = flat[other]
            mine, own, other = mine[joined], own[joined], other[joined]
            their = np.searchsorted(starts, other, side="right") - 1
            new = np.ones(len(mine), bool)  # not the same two runs as a voxel before
            new[1:] = (own[1:] != own[:-1]) | (their[1:] != their[:-1])
            mine, own, other, their = mine[new], own[new], other[new], their[new]
            if side == 1:
                out.append((own, their, mine, axis))
            else:
                out.append((their, own, other, axis))
    return out


def _tree(
    count: int,
    keeps: np.ndarray,
    faces: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """parent, order, voxel, axis, sign of `Runs`."""
    parent = np.arange(count)
    voxel, axis_of, sign = (np.zeros(count, np.int64) for _ in range(3))
    lone_ones = np.flatnonzero(~keeps)
    a = np.concatenate([f[0] for f in faces])
    b = np.concatenate([f[1] for f in faces])
    if not len(a):
        return parent, lone_ones, voxel, axis_of, sign
    place = np.concatenate([f[2] for f in faces])
    axis = np.concatenate([np.full(len(f[0]), f[3]) for f in faces])
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count))
    pieces, piece = csgraph.connected_components(graph, directed=False)
    # one root beside all runs: it touches those that keep, and one of every piece that has none
    kept = np.zeros(pieces, bool)
    kept[piece[keeps]] = True
    lone = np.array([i for i in np.unique(piece, return_index=True)[1] if not kept[piece[i]]], int)
    roots = np.concatenate([np.flatnonzero(keeps), lone])
    rows = np.concatenate([a, np.full(len(roots), count)])
    columns = np.concatenate([b, roots])
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count + 1, count + 1))
    order, before = csgraph.breadth_first_order(graph.tocsr(), count, directed=False)
    order = order[1:]
    below = before[order] != count
    parent[order[below]] = before[order[below]]
    key = np.concatenate([a * count + b, b * count + a])
    keys, which = np.unique(key, return_index=True)
    child = order[below]
    found = which[np.searchsorted(keys, child * count + parent[child])]
    one_way = found < len(a)
    edge = np.where(one_way, found, found - len(a))
    voxel[child], axis_of[child] = place[edge], axis[edge]
    sign[child] = np.where(one_way, 1, -1)
    return parent, order[~keeps[order]], voxel, axis_of, sign
