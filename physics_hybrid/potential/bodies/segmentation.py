r"""Segmentations: label volumes and a table of tissues become conductors, with sources in them.

    file (.nii, .nii.gz, .npy)  ->  LabelVolume  ->  Body (checked, cropped)  ->  Segmentations.draw(...).voxelise(grid)

`Segmentations` stands where `LimbDistribution` stands for limbs: a stream draws from it, solves, trains. Several volumes are
split over training, validation and test as wholes. One volume (or fewer than there are splits) is in all of them, and its sources are split.

Positions are metres from the outer corner of voxel (0, 0, 0) of the file, in the order (D, H, W).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.potential.bodies.limb import (
    TISSUES,
    VoxelLimb,
    apart,
    held,
    inject,
    nearest_centre,
)
from physics_hybrid.potential.data.sample import SampleError, split_by_phantom

#: A file's axis is its long one where it is so nearly inferior-superior; where none is, the user says.
UPRIGHT_DEGREES = 30.0
SUFFIXES = (".nii", ".nii.gz", ".npy")

#: Metres in a unit of a NIfTI header. Many programs leave it unset and mean millimetres.
UNITS = {"mm": 1e-3, "unknown": 1e-3, "meter": 1.0, "micron": 1e-6}

#: Ends that current leaves through: tissue must reach both cut faces.
OPEN_ENDS = ("grounded", "robin")

SPLITS = ("train", "validation", "test")

#: Of no tissue of the table (which has fewer).
NONE = 255


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """labels (D, H, W) whole numbers; spacing (3,) m; name of the file; checksum (SHA-256) of its bytes."""

    labels: np.ndarray
    spacing: np.ndarray
    name: str
    checksum: str


def read_labels(path: str | Path, spacing: Sequence[float] | None = None, long_axis: int | None = None) -> LabelVolume:
    """Read a segmentation; its axes become (D, H, W), the other two keep their order. No axis is flipped.

    Parameters
    ----------
    path : .nii or .nii.gz (nibabel; spacing from the header), .npy (whole numbers, no pickles).
    spacing : edges of a voxel in metres, in the order of the file's axes. Needed for .npy; overrides the header of a NIfTI file.
    long_axis : which axis of the file (0, 1 or 2) is D. None: for NIfTI the one nearest to inferior-superior, for .npy the first.

    A volume turned against the scanner (oblique affine) is taken in its own axes, since nothing here depends on the scanner's.

    Raises
    ------
    SampleError
        File missing, of another format, damaged, not three-dimensional, not whole numbers; spacing missing, not positive, implausible
        (a box under 1 mm or over 5 m: millimetres taken for metres); an affine that shears, or disagrees with the spacing of the header.
    """
    path = Path(path).expanduser()
    where = str(path)
    try:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SampleError(where, None, f"cannot be read ({error.strerror or error}) (data.path)") from error
    if path.name.endswith((".nii", ".nii.gz")):
        labels, in_header, nearest = _nifti(path, spacing is None)
    elif path.suffix == ".npy":
        labels, in_header, nearest = _npy(path), None, 0
    else:
        raise SampleError(where, None, f"is not a label volume that we read: {', '.join(SUFFIXES)}")
    while labels.ndim > 3 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3 or min(labels.shape) < 2:
        raise SampleError(where, "labels", f"must be a volume of three axes with at least 2 voxels each; got {labels.shape}")
    if labels.dtype.kind not in "iub":
        if labels.dtype.kind != "f" or not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise SampleError(where, "labels", "must hold whole numbers: this is an image, not a segmentation")
        if np.abs(labels).max() >= 2**31:
            raise SampleError(where, "labels", f"must be whole numbers below 2^31; found {labels.flat[np.abs(labels).argmax()]:g}")
        labels = labels.astype(np.int32)
    try:
        h = np.asarray(spacing if spacing is not None else in_header, dtype=float)
    except (TypeError, ValueError):
        raise SampleError(where, "spacing", f"must be three positive numbers in metres (data.spacing); got {spacing}") from None
    if spacing is None and in_header is None:
        raise SampleError(where, "spacing", "is not in a .npy file: give data.spacing=[.., .., ..] in metres, in the order of the file's axes")
    if h.shape != (3,) or not (np.isfinite(h).all() and (h > 0).all()):
        raise SampleError(where, "spacing", f"must be three positive numbers in metres (data.spacing); got {h.tolist()}")
    box = h * labels.shape
    if box.max() < 1e-3 or box.max() > 5:
        raise SampleError(where, "spacing", f"{h.tolist()} m makes a box of {box.max():.3g} m; is it in other units? Give data.spacing in metres")
    axis = nearest if long_axis is None else long_axis
    if axis is None:
        raise SampleError(where, "affine", f"has no axis within {UPRIGHT_DEGREES:g} degrees of inferior-superior: say which one is the long axis D (data.long_axis=0, 1 or 2)")
    if isinstance(axis, bool) or axis not in (0, 1, 2):
        raise SampleError(where, None, f"data.long_axis must be 0, 1, 2 or null; got {axis!r}")
    order = (axis, *(a for a in range(3) if a != axis))
    return LabelVolume(np.ascontiguousarray(labels.transpose(order)), h[list(order)], path.name, checksum)


def _nifti(path: Path, trusted: bool) -> tuple[np.ndarray, np.ndarray, int | None]:
    """(array, spacing in metres, axis that is inferior-superior, None where none is nearly); `trusted`: the header's spacing is what will be used."""
    import nibabel

    where = str(path)
    try:
        image = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
        affine, zooms, unit = image.affine, np.asarray(image.header.get_zooms()[:3], dtype=float), image.header.get_xyzt_units()[0]
    except Exception as error:  # nibabel, gzip and zlib each have their own way to say 'damaged'
        raise SampleError(where, None, f"cannot be read as NIfTI ({type(error).__name__}: {error})") from error
    if array.ndim < 3:
        raise SampleError(where, "labels", f"must be a volume of three axes with at least 2 voxels each; got {array.shape}")
    sizes = nibabel.affines.voxel_sizes(affine)
    if not (np.isfinite(affine).all() and (sizes > 0).all()):
        raise SampleError(where, "affine", f"is not one of a volume: {affine.tolist()}")
    if trusted and not np.allclose(sizes, zooms, rtol=1e-3):
        raise SampleError(where, "spacing", f"the affine says {sizes.tolist()}, the header {zooms.tolist()}: repair the file, or give data.spacing (m)")
    axes = affine[:3, :3] / sizes
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise SampleError(where, "affine", "is sheared: its axes are not at right angles. Resample the volume to a rectangular grid first")
    if unit not in UNITS:
        raise SampleError(where, "spacing", f"has the unit {unit!r}; known: {', '.join(UNITS)}")
    upright = np.abs(axes[2])
    return array, zooms * UNITS[unit], int(upright.argmax()) if upright.max() > np.cos(np.radians(UPRIGHT_DEGREES)) else None


def _npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # ValueError, EOFError, zipfile's
        raise SampleError(str(path), None, f"cannot be read ({error}): truncated, a pickle, or not a NumPy file") from error


@dataclass(frozen=True)
class Tissue:
    """name; labels that stand for it; sigma (1, 3 or 6,) in S/m, 0 for air."""

    name: str
    labels: tuple[int, ...]
    sigma: tuple[float, ...]


def read_table(table: dict[str, Any]) -> list[Tissue]:
    """`{name: {label: 3 or [3, 4], sigma: S/m (1, 3 or 6 values)}}` as tissues; air first.

    Raises
    ------
    ValueError
        A label that is not a whole number or is given twice; a tensor that is not positive definite; a table without tissue.
    """
    tissues, owner = [], {}
    for name, entry in table.items():
        where = f"data.tissues.{name}"
        if not isinstance(entry, dict) or set(entry) != {"label", "sigma"}:
            raise ValueError(f"{where} must be {{label: .., sigma: ..}}; got {entry}")
        def several(value):
            return tuple(value) if isinstance(value, (list, tuple)) else (value,)
        labels, sigma = several(entry["label"]), several(entry["sigma"])
        if not labels or not all(isinstance(label, int) and not isinstance(label, bool) for label in labels):
            raise ValueError(f"{where}.label must be a whole number or a list of them; got {entry['label']}")
        for label in labels:
            if label in owner:
                raise ValueError(f"label {label} stands for both {owner[label]} and {name} in data.tissues")
            owner[label] = name
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in sigma) or len(sigma) not in (1, 3, 6):
            raise ValueError(f"{where}.sigma must be 1 value, 3 (DD, HH, WW) or 6 (DD, HH, WW, DH, DW, HW) in S/m; got {entry['sigma']}")
        if name == "air":
            if any(sigma):
                raise ValueError(f"{where}.sigma must be 0: air carries no current; got {entry['sigma']}")
        elif np.linalg.eigvalsh(_matrix(sigma)).min() <= 0:
            raise ValueError(f"{where}.sigma must be positive (a tensor: positive definite); got {entry['sigma']}. What carries no current belongs to air")
        tissues.append(Tissue(name, labels, tuple(float(v) for v in sigma)))
    tissues.sort(key=lambda t: t.name != "air")
    if not tissues or tissues[0].name != "air":
        tissues.insert(0, Tissue("air", (), (0.0,)))
    if not 2 <= len(tissues) <= NONE:
        raise ValueError(f"data.tissues must name 1 to {NONE - 1} tissues beside air; got {len(tissues) - 1}")
    return tissues


def _full(sigma: tuple[float, ...], components: int) -> np.ndarray:
    """(components,) of a conductivity given with as many or fewer."""
    values = np.repeat(sigma, 3) if len(sigma) == 1 and components > 1 else np.asarray(sigma)
    return np.concatenate([values, np.zeros(components - len(values))])


def _matrix(sigma: tuple[float, ...]) -> np.ndarray:
    DD, HH, WW, DH, DW, HW = _full(sigma, 6)
    return np.array([[DD, DH, DW], [DH, HH, HW], [DW, HW, WW]])


@dataclass(frozen=True, eq=False)
class Body:
    """A volume that is fit to be solved: index (D, H, W) uint8 into the table of tissues, 0 is air; spacing (3,) m;
    origin (3,) m: its outer corner in the file; name; checksum."""

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

    @functools.lru_cache(maxsize=128)
    def on(self, grid: Grid) -> np.ndarray:
        """`index` on another grid over the same box, by volume: tissue where it fills at least half of a voxel, and the one that fills most.

        Crumbs that resampling cuts off become air.

        Raises
        ------
        SampleError
            A grid so coarse that more than 1 % of the tissue is cut off, or an end is no longer reached.
        """
        out = _resample(self.index, grid)
        pieces, sizes = _pieces(out)
        if not sizes.size or sizes.max() < 0.99 * sizes.sum():
            raise SampleError(self.name, "labels", f"falls into {sizes.size} pieces on the grid {name_of(grid)}: use a finer one (data.grid)")
        out[pieces != sizes.argmax() + 1] = 0
        _reaches_ends(out, self.ends, f"{self.name} on the grid {name_of(grid)}")
        return out

    def row_at(self, point: np.ndarray) -> int:
        """Index of the tissue at a point (m, of this box); 0 outside."""
        voxel = np.floor(point / self.spacing).astype(int)
        inside = ((voxel >= 0) & (voxel < self.index.shape)).all()
        return int(self.index[tuple(voxel)]) if inside else 0


def _resample(index: np.ndarray, grid: Grid) -> np.ndarray:
    """Tissue where at least half of a voxel's volume is tissue: the one that fills most of it. Air elsewhere."""
    d, h, w = (_overlap(n, g) for n, g in zip(index.shape, grid))
    def share(row):
        return np.tensordot(d, h @ ((index == row).astype(np.float32) @ w.T), 1).round(5)
    shares = np.stack([share(row) for row in range(1, int(index.max()) + 1)])
    return np.where(shares.sum(axis=0) >= 0.5 - 1e-4, 1 + shares.argmax(axis=0), 0).astype(np.uint8)


def _overlap(old: int, new: int) -> np.ndarray:
    """Share of each new voxel that each old one fills, along one axis. (new, old)"""
    def edges(n):
        return np.arange(n + 1) / n
    low = np.maximum(edges(new)[:-1, None], edges(old)[:-1])
    return (new * np.clip(np.minimum(edges(new)[1:, None], edges(old)[1:]) - low, 0, None)).astype(np.float32)


def _pieces(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbered pieces of tissue that share faces, and their sizes in voxels."""
    pieces, _ = ndimage.label(index > 0)
    return pieces, np.bincount(pieces.ravel())[1:]


def _reaches_ends(index: np.ndarray, ends: str, where: str) -> None:
    if ends in OPEN_ENDS and not (index[0].any() and index[-1].any()):
        raise SampleError(where, "labels", (
            f"tissue must reach both cut faces along D (problem.ends={ends}), and the {'last' if index[0].any() else 'first'} has none; "
            "cut the volume with data.slices=[first, last], or choose the long axis with data.long_axis"
        ))


def fit(
    volume: LabelVolume, tissues: list[Tissue], ends: str = "grounded", slices: Sequence[int] | None = None, air: float | None = None,
    keep_largest: bool = False,
) -> tuple[Body, list[str]]:
    """A conductor from a label volume, and what a user should know about it.

    ends : boundary condition at the two faces along D. slices : [first, last) along D to keep. air : margin in metres kept round the tissue
    along H and W, where the rest of the box is cropped or padded; None leaves it. keep_largest : of several pieces, keep the largest.

    Raises
    ------
    SampleError
        Unknown labels (named and counted), no tissue, tissue in several pieces, an end without tissue, slices out of range.
    """
    where, notes = volume.name, []
    labels, origin = volume.labels, np.zeros(3)
    if slices is not None:
        pair = isinstance(slices, (list, tuple)) and len(slices) == 2 and all(isinstance(i, int) for i in slices)
        first, last = slices if pair else (-1, -1)
        if not 0 <= first < last - 1 or last > len(labels):
            raise SampleError(where, None, f"data.slices must be [first, last] with 0 <= first < last - 1 and last <= {len(labels)}; got {slices}")
        labels, origin[0] = labels[first:last], first * volume.spacing[0]
    index = np.full(labels.shape, NONE, dtype=np.uint8)
    for row, tissue in enumerate(tissues):
        index[np.isin(labels, tissue.labels)] = row
    if (index == NONE).any():
        unknown = [f"{label} ({count} voxels)" for label, count in zip(*np.unique(labels[index == NONE], return_counts=True))]
        raise SampleError(where, "labels", (
            f"holds labels that data.tissues does not name: {', '.join(unknown[:10])}{', ...' if len(unknown) > 10 else ''}; "
            f"add them, such as '+data.tissues.NAME={{label: [{unknown[0].split()[0]}], sigma: [0.3]}}', or to air"
        ))
    if not index.any():
        raise SampleError(where, "labels", "holds air only: no tissue of data.tissues occurs in it")
    pieces, sizes = _pieces(index)
    if len(sizes) > 1:
        found = f"tissue in {len(sizes)} pieces that share no face ({', '.join(str(n) for n in np.sort(sizes)[::-1][:4])}{', ...' if len(sizes) > 4 else ''} voxels)"
        if not keep_largest:
            raise SampleError(where, "labels", f"holds {found}, and no current flows between them; data.keep_largest=true turns all but the largest into air")
        index[pieces != sizes.argmax() + 1] = 0
        notes.append(f"{where}: {found}; kept the largest ({sizes.max() / sizes.sum():.1%} of the tissue)")
    _reaches_ends(index, ends, where)
    if air is not None:
        if air < 0:
            raise ValueError(f"data.air must be null or >= 0 (m); got {air}")
        for axis in (1, 2):
            margin = math.ceil(air / volume.spacing[axis] - 1e-6)
            used = np.flatnonzero(index.any(axis=tuple(a for a in range(3) if a != axis)))
            low, high = int(used[0]) - margin, int(used[-1]) + 1 + margin
            index = np.take(index, range(max(low, 0), min(high, index.shape[axis])), axis=axis)
            added = (max(-low, 0), max(high - labels.shape[axis], 0))
            index = np.pad(index, [added if a == axis else (0, 0) for a in range(3)])
            origin[axis] = low * volume.spacing[axis]
    return Body(np.ascontiguousarray(index), volume.spacing, origin, volume.name, volume.checksum, ends), notes


class Segmentations:
    """Bodies and the sources in them: sample `number` of a split is a function of (seed, split, number).

    Parameters
    ----------
    volumes : label volumes; a split that has several takes them in turn.
    tissues : table of `read_table`.
    seed, splits : which volumes (or, with too few volumes, which sources) belong to which split; {train, validation, test: share}.
    sources : positions (D, H, W) in metres in the file, with ends=pair two each, where the current comes in and where it is taken out; None: drawn at random, everywhere in the voxels of `source_tissues` but for a
        share `source_margin` of the length at each end.
    pair_distance : least distance in metres of two electrodes that are drawn. current : A. ends, slices, air, keep_largest : see `fit`.

    Raises
    ------
    SampleError, ValueError
        Whatever `fit` refuses; sources outside tissue, or too few for the splits; source tissues that are unknown or absent.
    """

    def __init__(
        self, volumes: Sequence[LabelVolume], tissues: list[Tissue], seed: int, splits: dict[str, float], sources: Sequence[Sequence[float]] | None = None,
        source_tissues: Sequence[str] = ("muscle",), source_margin: float = 0.15, pair_distance: float = 0.03, current: float = 1e-3, ends: str = "grounded",
        slices: Sequence[int] | None = None, air: float | None = None, keep_largest: bool = False,
    ):
        self.table, self.current, self.seed = tissues, current, seed
        components = max(len(t.sigma) for t in tissues)
        self.sigma = np.stack([_full(t.sigma, components) for t in tissues])
        self.labels = np.array([TISSUES.index(t.name) if t.name in TISSUES else 0 for t in tissues], dtype=np.uint8)
        self.notes: list[str] = []
        self.bodies: list[Body] = []
        for volume in volumes:
            body, notes = fit(volume, tissues, ends, slices, air, keep_largest)
            self.bodies.append(body)
            self.notes += notes
        if not (math.isfinite(current) and current != 0):
            raise ValueError(f"data.current must be a number of amperes other than 0; got {current}")
        if not 0 <= source_margin < 0.5:
            raise ValueError(f"data.source_margin must lie in [0, 0.5); got {source_margin}")
        unknown = [t for t in source_tissues if t not in [tissue.name for tissue in tissues[1:]]]
        if sources is None and (unknown or not source_tissues):
            raise ValueError(f"data.source_tissues must name tissues of data.tissues ({', '.join(t.name for t in tissues[1:])}); got {list(source_tissues)}")
        self._source_rows = [row for row, t in enumerate(tissues) if t.name in source_tissues]
        self._margin, self._pair_distance = source_margin, pair_distance
        self.sources = None if sources is None else self._checked(sources, 2 if ends == "pair" else 1)
        if any(share < 0 for share in splits.values()) or not 0 < sum(splits.values()) <= 1 + 1e-9:
            raise ValueError(f"data.splits must be fractions >= 0 that sum to at most 1; got {splits}")
        wanted = [name for name in SPLITS if splits.get(name, 0) > 0]
        self.shared = len(self.bodies) < len(wanted)
        self.splits = {name: splits.get(name, 0.0) for name in SPLITS}
        everything = {name: list(range(len(self.bodies))) for name in wanted}
        self._bodies_of = everything if self.shared else split_by_phantom([str(i) for i in range(len(self.bodies))], self.splits, seed)
        self._listed_of = {name: range(len(self.sources)) for name in wanted} if sources is not None else {}
        if self.shared:
            self.notes.append(
                f"NOTE: {len(self.bodies)} label volume(s) for {len(wanted)} splits: {', '.join(wanted)} share the phantom and differ in their sources only. "
                "Errors then say how well new electrode positions in this body are predicted, nothing about other bodies."
            )
            if sources is not None:
                if len(self.sources) < len(wanted):
                    raise ValueError(f"data.sources lists {len(self.sources)} position(s) for {len(wanted)} splits ({', '.join(wanted)}) of one volume: list more, or null to draw them")
                self._listed_of = split_by_phantom([f"{i:06d}" for i in range(len(self.sources))], self.splits, seed)
        self._settings = {
            "tissues": {t.name: [list(t.labels), list(t.sigma)] for t in tissues}, "splits": self.splits,
            "files": [[b.name, b.checksum, list(b.index.shape), b.spacing.tolist(), b.origin.tolist()] for b in self.bodies],
            "sources": None if sources is None else self.sources.tolist(), "source_tissues": sorted(source_tissues), "source_margin": source_margin, "pair_distance": pair_distance, "current": current,
        }

    def _checked(self, sources: Sequence, electrodes: int) -> np.ndarray:
        """The listed positions as (n, electrodes, 3)."""
        try:
            points = np.asarray(sources, dtype=float)
        except ValueError:
            points = np.empty(0)
        if points.ndim != electrodes + 1 or points.shape[-1] != 3 or points.size != len(points) * electrodes * 3 or not len(points):
            one = "[D, H, W]" if electrodes == 1 else "[[D, H, W], [D, H, W]] (in, out)"
            raise ValueError(f"data.sources must be a list of positions {one} in metres, or null; got {sources}")
        for body in self.bodies:
            for point in points.reshape(-1, 3):
                if not body.row_at(point - body.origin):
                    low, high = body.origin, body.origin + body.extent
                    raise SampleError(body.name, "source", f"{point.tolist()} m (data.sources) lies in air or outside the body's box, {low.round(4).tolist()} to {high.round(4).tolist()} m in (D, H, W)")
        return points.reshape(-1, electrodes, 3)

    @property
    def oblique(self) -> bool:
        """Whether any tissue's tensor has off-diagonal components."""
        return self.sigma.shape[1] == 6 and bool(self.sigma[:, 3:].any())

    @property
    def tissues(self) -> tuple[str, ...]:
        """The tissues that metrics and masks can name: those of the table that `phantom.TISSUES` knows."""
        return tuple(t.name for t in self.table[1:] if t.name in TISSUES)

    def native_grid(self) -> Grid:
        """The grid of the file. Raises ValueError where files differ."""
        grids = {b.index.shape for b in self.bodies}
        if len(grids) > 1:
            raise ValueError(f"data.grid=null takes the grid of the files, and theirs differ ({', '.join(sorted(name_of(g) for g in grids))} after cropping): give data.grid=[D,H,W]")
        return grids.pop()

    def settings(self) -> dict:
        """All that decides the samples, as JSON-ready values."""
        return self._settings

    def available(self, split: str) -> float:
        """How many different samples a split has."""
        return math.inf if self.sources is None else len(self._bodies_of[split]) * len(self._listed_of[split])

    def phantom(self, seed: int, split: str, number: int) -> str:
        """The file of a sample."""
        return self._body(split, number).name

    def _body(self, split: str, number: int) -> Body:
        mine = self._bodies_of.get(split)
        if not mine:
            raise ValueError(f"data.splits gives nothing to {split}: {self.splits}")
        return self.bodies[mine[number % len(mine)]]

    def draw(self, seed: int, split: int, number: int, electrodes: int = 1) -> Segmented:
        """Sample `number` of a split (0 train, 1 validation, 2 test), with one electrode or two."""
        name = SPLITS[split]
        body = self._body(name, number)
        if self.sources is not None:
            chosen = self._listed_of[name]
            turn = number // len(self._bodies_of[name])
            return Segmented(self, body, self.sources[chosen[turn % len(chosen)]] - body.origin)
        random = np.random.default_rng([seed, split, number])
        candidates = self._candidates(body, name)

        def somewhere() -> np.ndarray:
            voxel = np.unravel_index(candidates[random.integers(len(candidates))], body.index.shape)
            return (np.asarray(voxel) + random.uniform(0, 1, 3)) * body.spacing

        points = [somewhere()]
        for _ in range(1000 if electrodes == 2 else 0):
            second = somewhere()
            if math.dist(points[0], second) >= self._pair_distance:
                return Segmented(self, body, np.stack([points[0], second]))
        if electrodes == 2:
            raise SampleError(body.name, "source", f"found no second electrode {self._pair_distance:g} m from the first: lower data.pair_distance")
        return Segmented(self, body, np.stack(points))

    @functools.lru_cache(maxsize=64)
    def _candidates(self, body: Body, split: str) -> np.ndarray:
        """Flat indices of the voxels that sources of a split may lie in. Splits that share a body share no voxel of the file."""
        centre = (np.arange(len(body.index)) + 0.5) / len(body.index)
        inner = (centre > self._margin) & (centre < 1 - self._margin)
        found = np.flatnonzero(np.isin(body.index, self._source_rows) & inner[:, None, None])
        if self.shared:
            shares = np.cumsum([self.splits[name] for name in SPLITS]) / sum(self.splits.values())
            last = SPLITS.index(split)
            part = np.searchsorted(shares, np.random.default_rng(self.seed).random(len(found)), side="right")
            found = found[part == last]
        if not len(found):
            raise SampleError(body.name, "source", f"no voxel of {', '.join(self.table[r].name for r in self._source_rows)} is left for sources of the split {split}: change data.source_tissues or data.source_margin")
        return found


@dataclass(frozen=True, eq=False)
class Segmented:
    """The electrodes in one body; `points` (1 or 2, 3) in metres of the body's box."""

    of: Segmentations
    body: Body
    points: np.ndarray

    def voxelise(self, grid: Grid) -> VoxelLimb:
        """Labels (those of `phantom.TISSUES`; 0 for a tissue it does not know), conductivity and source on a grid (D, H, W).

        An electrode stays where the 8 voxels round it carry its tissue; else it moves to the nearest voxel centre of its tissue, or of any
        tissue where the grid has lost its own for 2 voxels around.
        """
        grid = tuple(grid)
        index, spacing = self.body.on(grid), self.body.extent / grid
        points = [self._seat(point, index, spacing) for point in self.points]
        if self.of.sources is None:  # those of a list stay, or are refused
            points = apart(points, index == self.body.row_at(self.points[-1]), spacing)
        return inject(points, index, self.of.sigma, self.of.labels, spacing, self.of.current)

    def _seat(self, point: np.ndarray, index: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        home = index == self.body.row_at(point)
        if held(point, home, spacing):
            return point
        if home.any():
            centre = nearest_centre(point, home, spacing)
            if (np.abs(centre - point) <= 2 * spacing).all():
                return centre
        return nearest_centre(point, index > 0, spacing)


def volumes(path: str | Path, spacing: Sequence[float] | None = None, long_axis: int | None = None) -> list[LabelVolume]:
    """The label volume at `path`, or all those in a folder in the order of their names. Raises SampleError."""
    path = Path(path).expanduser()
    files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    if not files:
        raise SampleError(str(path), None, f"holds no label volume ({', '.join(SUFFIXES)}) (data.path)")
    return [read_labels(file, spacing, long_axis) for file in files]
