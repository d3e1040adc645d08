"""Label volumes, read from files of any format of `label_formats`, and checked.

Positions are metres from the outer corner of voxel (0, 0, 0) of the file, in the order (D, H, W).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from physics_hybrid.problems.potential.bodies.label_formats import (
    FORMATS,
    NOT_A_VOLUME,
    SUFFIXES,
    UPRIGHT_DEGREES,
    files_of,
    suffix_of,
    volumes_in,
)
from physics_hybrid.problems.potential.data.plausible import wrong_box
from physics_hybrid.problems.potential.data.sample import SampleError

#: How far a label may lie from a whole number, as files that store a scale or classes make them.
WHOLE = 0.05


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """A segmentation as its file has it.

    labels : (D, H, W) whole numbers.
    spacing : (3,) m.
    name : of the file.
    checksum : SHA-256 of its bytes.
    notes : what was understood, a line each.
    order : the axes of the file that became D, H, W.
    affine : (4, 4), from the index (D, H, W) of a voxel to its centre in the world of the file
        (right, anterior, superior), mm; None where the file knows no world.
    """

    labels: np.ndarray
    spacing: np.ndarray
    name: str
    checksum: str
    notes: tuple[str, ...] = ()
    order: tuple[int, ...] = (0, 1, 2)
    affine: np.ndarray | None = None


def volumes(
    path: str | Path,
    spacing: Sequence[float] | None = None,
    long_axis: int | None = None,
    nan: int | None = None,
) -> list[LabelVolume]:
    """The label volume at `path`, or all those in a folder in the order of their names.

    Raises SampleError for a folder without any, and for what `read_labels` refuses.
    """
    path = Path(path).expanduser()
    files = volumes_in(path) if path.is_dir() else [path]
    if not files:
        rule = f"holds no label volume ({', '.join(SUFFIXES)}) (data.path)"
        raise SampleError(str(path), None, rule)
    return [read_labels(file, spacing, long_axis, nan) for file in files]


def read_labels(
    path: str | Path,
    spacing: Sequence[float] | None = None,
    long_axis: int | None = None,
    nan: int | None = None,
) -> LabelVolume:
    """Read a segmentation; its axes become (D, H, W), the other two keep their order.

    No axis is flipped. A volume turned against the scanner (oblique affine) is taken in its own
    axes, since nothing here depends on the scanner's.

    Parameters
    ----------
    path : a file of any format of `label_formats`.
    spacing : edges of a voxel in metres, in the order of the file's axes; needed where the file
        has none, overrides the one it has.
    long_axis : which axis of the file (0, 1 or 2) is D. None: the one nearest to inferior-superior,
        or the first where a format knows no directions.
    nan : the label that NaN stands for; None: NaN is refused.

    Raises
    ------
    SampleError
        File missing, of another format, damaged, not three-dimensional, not whole numbers within
        0.05; spacing missing, not positive, implausible (a box under 1 mm or over 10 m: millimetres
        taken for metres); an affine that shears, or disagrees with the spacing of the header.
    """
    path = Path(path).expanduser()
    where = str(path)
    digest = hashlib.sha256()
    try:
        for file in files_of(path):
            digest.update(file.read_bytes())
    except OSError as error:
        rule = f"cannot be read ({error.strerror or error}) (data.path)"
        raise SampleError(where, None, rule) from error
    suffix = suffix_of(path)
    if suffix is None:
        rule = f"is not a label volume that we read: {', '.join(SUFFIXES)}"
        raise SampleError(where, None, rule)
    raw = FORMATS[suffix](path, spacing is None)
    labels, notes = _whole_numbers(raw.array, nan, where)
    given = raw.spacing if spacing is None else spacing
    edges = _spacing(given, labels.shape, suffix, where)
    axis = _long_axis(raw.upright if long_axis is None else long_axis, where)
    order = [axis, *(a for a in range(3) if a != axis)]
    return LabelVolume(
        labels=np.ascontiguousarray(labels.transpose(order)),
        spacing=edges[order],
        name=path.name,
        checksum=digest.hexdigest(),
        notes=tuple(f"{path.name}: {note}" for note in (*raw.notes, *notes)),
        order=tuple(order),
        affine=None if raw.affine is None else raw.affine[:, [*order, 3]],
    )


def _whole_numbers(array: np.ndarray, nan: int | None, where: str) -> tuple[np.ndarray, list[str]]:
    """An array as a volume of integers or booleans, and what was made of it.

    nan : the label that NaN stands for, or None. Raises SampleError where there are no labels.
    """
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or min(array.shape) < 2:
        raise SampleError(where, "labels", f"{NOT_A_VOLUME}; got {array.shape}")
    if array.dtype.kind in "iub":
        return array, []
    if array.dtype.kind != "f":
        rule = f"must hold whole numbers: this is an image of {array.dtype}, not a segmentation"
        raise SampleError(where, "labels", rule)
    array, notes = _without_nan(array, nan, where)
    apart = np.abs(array - np.rint(array))
    if not np.isfinite(array).all() or apart.max() > WHOLE:
        rule = (
            f"must hold whole numbers, within {WHOLE}: this is an image, not a segmentation; "
            f"found {array.flat[np.nan_to_num(apart, nan=np.inf).argmax()]:g}"
        )
        raise SampleError(where, "labels", rule)
    size = np.abs(array)
    if size.max() >= 2**31:
        rule = f"must be whole numbers below 2^31; found {array.flat[size.argmax()]:g}"
        raise SampleError(where, "labels", rule)
    if apart.any():
        notes.append(f"labels rounded to whole numbers, from at most {apart.max():.2g} away")
    return np.rint(array).astype(np.int32), notes


def _without_nan(array: np.ndarray, nan: int | None, where: str) -> tuple[np.ndarray, list[str]]:
    """The array with a label in place of NaN. Raises SampleError where nobody asked for that."""
    missing = np.isnan(array)
    if not missing.any():
        return array, []
    found = f"NaN in {missing.mean():.0%} of the voxels"
    if nan is None:
        rule = f"holds {found}: if that is air, data.nan_is_air=true"
        raise SampleError(where, "labels", rule)
    return np.where(missing, nan, array), [f"{found} taken as air, label {nan}"]


def _spacing(
    given: np.ndarray | Sequence[float] | None, shape: tuple[int, ...], suffix: str, where: str
) -> np.ndarray:
    """Edges of a voxel, (3,) m, of a volume of this shape. Raises SampleError."""
    if given is None:
        rule = (
            f"is not in this {suffix} file: give data.spacing=[.., .., ..] in metres, "
            "in the order of the file's axes"
        )
        raise SampleError(where, "spacing", rule)
    rule = "must be three positive numbers in metres (data.spacing)"
    try:
        edges: np.ndarray = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise SampleError(where, "spacing", f"{rule}; got {given}") from None
    if edges.shape != (3,) or not (np.isfinite(edges).all() and (edges > 0).all()):
        raise SampleError(where, "spacing", f"{rule}; got {edges.tolist()}")
    wrong = wrong_box(edges, shape)
    if wrong:
        raise SampleError(where, "spacing", f"{wrong} Give data.spacing in metres")
    return edges


def _long_axis(axis: int | None, where: str) -> int:
    """The axis of the file that is D. Raises SampleError where nobody knows."""
    if axis is None:
        rule = (
            f"has no axis within {UPRIGHT_DEGREES:g} degrees of inferior-superior: "
            "say which one is the long axis D (data.long_axis=0, 1 or 2)"
        )
        raise SampleError(where, "affine", rule)
    if isinstance(axis, bool) or axis not in (0, 1, 2):
        rule = f"data.long_axis must be 0, 1, 2 or null; got {axis!r}"
        raise SampleError(where, None, rule)
    return axis
