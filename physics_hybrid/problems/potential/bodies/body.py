"""Bodies: label volumes that are fit to be solved, on the grid of their file and on others.

    LabelVolume, table of tissues  ->  fit (checked, cut, cropped)  ->  Body  ->  Body.on(grid)

Positions are metres from the outer corner of a body's box, in the order (D, H, W).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.bodies.label_files import LabelVolume
from physics_hybrid.problems.potential.bodies.tissue_table import NONE, Tissue
from physics_hybrid.problems.potential.data.sample import SampleError

#: Ends that current leaves through: tissue must reach both cut faces.
OPEN_ENDS = ("grounded", "robin")

#: How many unknown labels, and how many pieces, a message names.
NAMED_LABELS, NAMED_PIECES = 10, 4

#: On how many grids a body is kept once it has been resampled.
KEPT_GRIDS = 16


@dataclass(frozen=True)
class Cut:
    """What of a volume becomes a body.

    slices : [first, last) along D to keep; None keeps all.
    air : margin in metres kept round the tissue along H and W, where the rest of the box is cropped
        or padded; None leaves it.
    keep_largest : of several pieces, keep the largest.
    """

    slices: Sequence[int] | None = None
    air: float | None = None
    keep_largest: bool = False


#: All of a volume.
WHOLE = Cut()


@dataclass(frozen=True, eq=False)
class Body:
    """A volume that is fit to be solved.

    index : (D, H, W) uint8 into the table of tissues, 0 is air.
    spacing : (3,) m.
    origin : (3,) m, its outer corner in the file.
    name, checksum : of the file.
    ends : boundary condition at the two faces along D.
    """

    index: np.ndarray
    spacing: np.ndarray
    origin: np.ndarray
    name: str
    checksum: str
    ends: str

    @property
    def extent(self) -> np.ndarray:
        """Edges of the box, (3,) m."""
        return self.spacing * self.index.shape

    def on(self, grid: Grid) -> np.ndarray:
        """`index` on another grid over the same box, by volume. (grid)

        Tissue where it fills at least half of a voxel, and the one that fills most. Crumbs that
        resampling cuts off become air.

        Raises
        ------
        SampleError
            A grid so coarse that more than 1 % of the tissue is cut off, or an end is no longer
            reached.
        """
        return self._kept(grid)

    @functools.cached_property
    def _kept(self) -> Callable[[Grid], np.ndarray]:
        """`on` with its last results, which go when the body goes."""
        return functools.lru_cache(maxsize=KEPT_GRIDS)(self._resampled)

    def _resampled(self, grid: Grid) -> np.ndarray:
        out = resample(self.index, grid)
        pieces, sizes = numbered_pieces(out)
        if not sizes.size or sizes.max() < 0.99 * sizes.sum():
            rule = (
                f"falls into {sizes.size} pieces on the grid {name_of(grid)}: "
                "use a finer one (data.grid)"
            )
            raise SampleError(self.name, "labels", rule)
        out[pieces != sizes.argmax() + 1] = 0
        _reaches_ends(out, self.ends, f"{self.name} on the grid {name_of(grid)}")
        return out

    def row_at(self, point: np.ndarray) -> int:
        """Index of the tissue at a point (m, of this box); 0 outside."""
        voxel = np.floor(point / self.spacing).astype(int)
        if not ((voxel >= 0) & (voxel < self.index.shape)).all():
            return 0
        return int(self.index[tuple(voxel)])


def resample(index: np.ndarray, grid: Grid) -> np.ndarray:
    """Rows of a table (D, H, W) on another grid over the same box, uint8. (grid)

    Tissue where at least half of a voxel's volume is tissue: the one that fills most of it. Air
    elsewhere.
    """
    d, h, w = (_overlap(old, new) for old, new in zip(index.shape, grid, strict=True))
    shares = []
    for row in range(1, int(index.max()) + 1):
        along_w = (index == row).astype(np.float32) @ w.T
        shares.append(np.tensordot(d, h @ along_w, 1).round(5))
    share = np.stack(shares)
    tissue = share.sum(axis=0) >= 0.5 - 1e-4
    return np.where(tissue, 1 + share.argmax(axis=0), 0).astype(np.uint8)


def _overlap(old: int, new: int) -> np.ndarray:
    """Share of each new voxel that each old one fills, along one axis. (new, old)"""
    fine, coarse = _edges(old), _edges(new)[:, None]
    low = np.maximum(coarse[:-1], fine[:-1])
    high = np.minimum(coarse[1:], fine[1:])
    share: np.ndarray = new * np.clip(high - low, 0, None)
    return share.astype(np.float32)


def _edges(count: int) -> np.ndarray:
    """Where voxels begin and end along an axis of length 1. (count + 1,)"""
    return np.arange(count + 1) / count


def numbered_pieces(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of tissue that share faces, numbered from 1 (D, H, W), and their sizes in voxels."""
    pieces, _ = ndimage.label(index > 0)
    return pieces, np.bincount(pieces.ravel())[1:]


def _reaches_ends(index: np.ndarray, ends: str, where: str) -> None:
    """Raises SampleError where current cannot leave: a cut face without tissue."""
    if ends not in OPEN_ENDS:
        return
    first, last = index[0].any(), index[-1].any()
    if not (first and last):
        rule = (
            f"tissue must reach both cut faces along D (problem.ends={ends}), "
            f"and the {'last' if first else 'first'} has none; cut the volume with "
            "data.slices=[first, last], or choose the long axis with data.long_axis"
        )
        raise SampleError(where, "labels", rule)


def fit(
    volume: LabelVolume, tissues: list[Tissue], ends: str = "grounded", cut: Cut = WHOLE
) -> tuple[Body, list[str]]:
    """A conductor from a label volume, and what a user should know about it.

    ends : boundary condition at the two faces along D.

    Raises
    ------
    SampleError
        Unknown labels (named and counted), no tissue, tissue in several pieces, an end without
        tissue, slices out of range.
    ValueError
        A margin of air below 0.
    """
    where = volume.name
    labels, origin = volume.labels, np.zeros(3)
    if cut.slices is not None:
        first, last = _range(cut.slices, len(labels), where)
        labels, origin[0] = labels[first:last], first * volume.spacing[0]
    index = _rows(labels, tissues, where)
    notes = _one_piece(index, cut.keep_largest, where)
    _reaches_ends(index, ends, where)
    if cut.air is not None:
        if cut.air < 0:
            raise ValueError(f"data.air must be null or >= 0 (m); got {cut.air}")
        for axis in (1, 2):
            margin = math.ceil(cut.air / volume.spacing[axis] - 1e-6)
            index, low = _framed(index, axis, margin)
            origin[axis] = low * volume.spacing[axis]
    body = Body(
        np.ascontiguousarray(index), volume.spacing, origin, volume.name, volume.checksum, ends
    )
    return body, notes


def _range(slices: Sequence[int], length: int, where: str) -> tuple[int, int]:
    """[first, last) of a volume with so many slices. Raises SampleError where it is none."""
    first, last = -1, -1
    pair = isinstance(slices, (list, tuple)) and len(slices) == 2
    if pair and all(isinstance(i, int) for i in slices):
        first, last = slices
    if not 0 <= first < last - 1 or last > length:
        rule = (
            f"data.slices must be [first, last] with 0 <= first < last - 1 and last <= {length}; "
            f"got {slices}"
        )
        raise SampleError(where, None, rule)
    return first, last


def _rows(labels: np.ndarray, tissues: list[Tissue], where: str) -> np.ndarray:
    """Labels (D, H, W) as rows of the table, uint8. Raises SampleError for unknown ones, or air."""
    index = np.full(labels.shape, NONE, dtype=np.uint8)
    for row, tissue in enumerate(tissues):
        index[np.isin(labels, tissue.labels)] = row
    if (index == NONE).any():
        found, counts = np.unique(labels[index == NONE], return_counts=True)
        unknown = [f"{n} ({count} voxels)" for n, count in zip(found, counts, strict=True)]
        more = ", ..." if len(unknown) > NAMED_LABELS else ""
        rule = (
            "holds labels that data.tissues does not name: "
            f"{', '.join(unknown[:NAMED_LABELS])}{more}; "
            f"add them, such as '+data.tissues.NAME={{label: [{found[0]}], sigma: [0.3]}}', "
            "or to air"
        )
        raise SampleError(where, "labels", rule)
    if not index.any():
        rule = "holds air only: no tissue of data.tissues occurs in it"
        raise SampleError(where, "labels", rule)
    return index


def _one_piece(index: np.ndarray, keep_largest: bool, where: str) -> list[str]:
    """Turn all but the largest piece of tissue into air, in place, and say so.

    Raises SampleError for several pieces where that is not asked for.
    """
    pieces, sizes = numbered_pieces(index)
    if len(sizes) < 2:
        return []
    largest = [str(n) for n in np.sort(sizes)[::-1][:NAMED_PIECES]]
    more = ", ..." if len(sizes) > NAMED_PIECES else ""
    found = f"tissue in {len(sizes)} pieces that share no face ({', '.join(largest)}{more} voxels)"
    if not keep_largest:
        rule = (
            f"holds {found}, and no current flows between them; "
            "data.keep_largest=true turns all but the largest into air"
        )
        raise SampleError(where, "labels", rule)
    index[pieces != sizes.argmax() + 1] = 0
    share = sizes.max() / sizes.sum()
    return [f"{where}: {found}; kept the largest ({share:.1%} of the tissue)"]


def _framed(index: np.ndarray, axis: int, margin: int) -> tuple[np.ndarray, int]:
    """Rows (D, H, W) cropped or padded to tissue and a margin of voxels of air along an axis.

    Also where, in voxels along this axis, the new box begins in the old one.
    """
    size = index.shape[axis]
    used = np.flatnonzero(index.any(axis=tuple(a for a in range(3) if a != axis)))
    low, high = int(used[0]) - margin, int(used[-1]) + 1 + margin
    cropped = np.take(index, range(max(low, 0), min(high, size)), axis=axis)
    added = [(0, 0), (0, 0), (0, 0)]
    added[axis] = (max(-low, 0), max(high - size, 0))
    return np.pad(cropped, added), low
