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
from scipy import sparse
from scipy.sparse import csgraph

#: The share of the current that the sum over a piece of tissue may be: rounding.
BALANCED = 1e-10


@dataclass(frozen=True)
class Runs:
    """The runs of one body. All arrays have D last: (H, W, D).

    tissue : where there is any. number : of the run that holds a voxel, 0 in air, too.
    count : of runs. first, last : whether a run conducts to the first or the last end.
    parent : the run that a run hands on to; itself where none is needed.
    order : runs from the root on. voxel, axis, sign : of the face towards the parent: the flat
    index of the voxel below it, 0 for H and 1 for W, and which way.
    """

    tissue: np.ndarray
    number: np.ndarray
    count: int
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
        tissue = np.ascontiguousarray(np.moveaxis(tissue, 0, -1))
        start = tissue.copy()
        start[..., 1:] &= ~tissue[..., :-1]
        number = np.where(tissue, np.cumsum(start).reshape(tissue.shape) - 1, 0)
        count = int(start.sum())
        first, last = np.zeros(count, bool), np.zeros(count, bool)
        if open_ends:
            first[number[..., 0][tissue[..., 0]]] = True
            last[number[..., -1][tissue[..., -1]]] = True
        faces = _faces(tissue, number, first | last)
        tree = _tree(count, first | last, faces)
        return cls(tissue, number, count, first, last, *tree)

    def carry(self, R: np.ndarray, current: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c through the faces normal to D, H and W, amperes, positive along the axis.

        current : what flows at all, A: sums that are rounding beside it are 0.

        Raises
        ------
        ValueError
            Where R of a piece of tissue without a way out does not add up to zero.
        """
        R = np.where(self.tissue, np.moveaxis(R, 0, -1), 0.0)
        total = np.bincount(self.number.ravel(), R.ravel(), minlength=self.count)
        handed = self._hand_on(total, current)
        H, W, D = R.shape
        to_h, to_w = np.zeros((H + 1, W, D)), np.zeros((H, W + 1, D))
        moved = np.flatnonzero(handed)
        h, w, d = np.unravel_index(self.voxel[moved], R.shape)
        amount = self.sign[moved] * handed[moved]
        in_h = self.axis[moved] == 0
        np.add.at(to_h, (h[in_h] + 1, w[in_h], d[in_h]), amount[in_h])
        np.add.at(to_w, (h[~in_h], w[~in_h] + 1, d[~in_h]), amount[~in_h])
        np.subtract.at(R, (h, w, d), amount)
        np.add.at(R, (h + in_h, w + ~in_h, d), amount)
        along = self._along_runs(R)
        d, h, w = (np.moveaxis(c, -1, 0) for c in (along, to_h, to_w))
        return d, h, w

    def _hand_on(self, total: np.ndarray, current: float) -> np.ndarray:
        """What every run hands on to its parent, A."""
        handed = np.zeros(self.count)
        keeps = self.first | self.last
        lost = 0.0
        for run in self.order[::-1].tolist():
            if keeps[run]:
                continue
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

    def _along_runs(self, R: np.ndarray) -> np.ndarray:
        """Currents along D that carry R of every run to its open end. (H, W, D+1)"""
        H, W, D = R.shape
        sums = np.cumsum(R, axis=-1)
        starts = self.tissue.copy()
        starts[..., 1:] &= ~self.tissue[..., :-1]
        base = (sums - R)[starts]  # runs are numbered in this order
        total = np.bincount(self.number.ravel(), R.ravel(), minlength=self.count)
        back = self.first & ~self.last
        base = np.where(back, base + total, base)
        c = np.zeros((H, W, D + 1))
        c[..., 1:] = np.where(self.tissue, sums - base[self.number], 0.0)
        closed = self.tissue.copy()
        closed[..., :-1] &= ~self.tissue[..., 1:]
        closed[..., -1] &= ~self.last[self.number[..., -1]]
        c[..., 1:][closed] = 0.0
        at_first = self.tissue[..., 0] & back[self.number[..., 0]]
        c[..., 0] = np.where(at_first, -total[self.number[..., 0]], 0.0)
        return c


def _faces(
    tissue: np.ndarray, number: np.ndarray, keeps: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Pairs of runs that share faces normal to H (0) or W (1), one face each: the runs below and
    above, the flat index of the voxel below, the axis. Only where one of both hands on."""
    out = []
    index = np.arange(tissue.size).reshape(tissue.shape)
    for axis in (0, 1):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        both = tissue[low] & tissue[high]
        both &= ~(keeps[number[low]] & keeps[number[high]])
        again = both[..., 1:] & both[..., :-1]  # the same two runs as a voxel before
        both[..., 1:] &= ~again
        out.append((number[low][both], number[high][both], index[low][both], axis))
    return out


def _tree(
    count: int,
    keeps: np.ndarray,
    faces: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """parent, order, voxel, axis, sign of `Runs`."""
    parent = np.arange(count)
    voxel, axis_of, sign = (np.zeros(count, np.int64) for _ in range(3))
    a = np.concatenate([f[0] for f in faces])
    b = np.concatenate([f[1] for f in faces])
    if not len(a):
        return parent, np.arange(count), voxel, axis_of, sign
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
    return parent, order, voxel, axis_of, sign
