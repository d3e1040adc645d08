"""Label volumes, read from files: NIfTI (.nii, .nii.gz) and .npy.

Positions are metres from the outer corner of voxel (0, 0, 0) of the file, in the order (D, H, W).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from physics_hybrid.problems.potential.data.sample import SampleError
from physics_hybrid.reading import unpacked

#: A file's axis is its long one where it is so nearly inferior-superior; where none is, the user
#: says.
UPRIGHT_DEGREES = 30.0
SUFFIXES = (".nii", ".nii.gz", ".npy")

#: Metres in a unit of a NIfTI header. Many programs leave it unset and mean millimetres.
UNITS = {"mm": 1e-3, "unknown": 1e-3, "meter": 1.0, "micron": 1e-6}

#: The longest edge of a box, m: outside, the spacing is in other units.
SMALLEST_BOX, LARGEST_BOX = 1e-3, 5

#: What an array of too few axes is told.
NOT_A_VOLUME = "must be a volume of three axes with at least 2 voxels each"


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """A segmentation as its file has it.

    labels : (D, H, W) whole numbers.
    spacing : (3,) m.
    name : of the file.
    checksum : SHA-256 of its bytes.
    """

    labels: np.ndarray
    spacing: np.ndarray
    name: str
    checksum: str


def volumes(
    path: str | Path, spacing: Sequence[float] | None = None, long_axis: int | None = None
) -> list[LabelVolume]:
    """The label volume at `path`, or all those in a folder in the order of their names.

    Raises SampleError for a folder without any, and for what `read_labels` refuses.
    """
    path = Path(path).expanduser()
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES))
    if not files:
        rule = f"holds no label volume ({', '.join(SUFFIXES)}) (data.path)"
        raise SampleError(str(path), None, rule)
    return [read_labels(file, spacing, long_axis) for file in files]


def read_labels(
    path: str | Path, spacing: Sequence[float] | None = None, long_axis: int | None = None
) -> LabelVolume:
    """Read a segmentation; its axes become (D, H, W), the other two keep their order.

    No axis is flipped. A volume turned against the scanner (oblique affine) is taken in its own
    axes, since nothing here depends on the scanner's.

    Parameters
    ----------
    path : .nii or .nii.gz (nibabel; spacing from the header), .npy (whole numbers, no pickles).
    spacing : edges of a voxel in metres, in the order of the file's axes. Needed for .npy;
        overrides the header of a NIfTI file.
    long_axis : which axis of the file (0, 1 or 2) is D. None: for NIfTI the one nearest to
        inferior-superior, for .npy the first.

    Raises
    ------
    SampleError
        File missing, of another format, damaged, not three-dimensional, not whole numbers; spacing
        missing, not positive, implausible (a box under 1 mm or over 5 m: millimetres taken for
        metres); an affine that shears, or disagrees with the spacing of the header.
    """
    path = Path(path).expanduser()
    where = str(path)
    try:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        rule = f"cannot be read ({error.strerror or error}) (data.path)"
        raise SampleError(where, None, rule) from error
    header: np.ndarray | None = None
    nearest: int | None = 0
    if path.name.endswith((".nii", ".nii.gz")):
        array, header, nearest = _nifti(path, trusted=spacing is None)
    elif path.suffix == ".npy":
        array = _npy(path)
    else:
        rule = f"is not a label volume that we read: {', '.join(SUFFIXES)}"
        raise SampleError(where, None, rule)
    labels = _whole_numbers(array, where)
    edges = _spacing(header if spacing is None else spacing, labels.shape, where)
    axis = _long_axis(nearest if long_axis is None else long_axis, where)
    order = [axis, *(a for a in range(3) if a != axis)]
    return LabelVolume(
        np.ascontiguousarray(labels.transpose(order)), edges[order], path.name, checksum
    )


def _nifti(path: Path, trusted: bool) -> tuple[np.ndarray, np.ndarray, int | None]:
    """The array, its spacing in metres, and its axis that is nearly inferior-superior, or None.

    trusted : the header's spacing is what will be used, so that the affine must agree.
    """
    import nibabel

    where = str(path)
    unpacked(path, SampleError)  # nibabel stops before it comes to the checksum
    try:
        image: Any = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
        affine = image.affine
        zooms: np.ndarray = np.asarray(image.header.get_zooms()[:3], dtype=float)
        unit = image.header.get_xyzt_units()[0]
    except Exception as error:  # nibabel, gzip and zlib each have their own way to say 'damaged'
        rule = f"cannot be read as NIfTI ({type(error).__name__}: {error})"
        raise SampleError(where, None, rule) from error
    if array.ndim < 3:
        raise SampleError(where, "labels", f"{NOT_A_VOLUME}; got {array.shape}")
    sizes = nibabel.affines.voxel_sizes(affine)  # type: ignore[no-untyped-call]
    if not (np.isfinite(affine).all() and (sizes > 0).all()):
        raise SampleError(where, "affine", f"is not one of a volume: {affine.tolist()}")
    if trusted and not np.allclose(sizes, zooms, rtol=1e-3):
        rule = (
            f"the affine says {sizes.tolist()}, the header {zooms.tolist()}: "
            "repair the file, or give data.spacing (m)"
        )
        raise SampleError(where, "spacing", rule)
    axes = affine[:3, :3] / sizes
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        rule = (
            "is sheared: its axes are not at right angles. "
            "Resample the volume to a rectangular grid first"
        )
        raise SampleError(where, "affine", rule)
    if unit not in UNITS:
        rule = f"has the unit {unit!r}; known: {', '.join(UNITS)}"
        raise SampleError(where, "spacing", rule)
    return array, zooms * UNITS[unit], _upright(axes)


def _upright(axes: np.ndarray) -> int | None:
    """Which column of the unit vectors (3, 3) is nearly inferior-superior; None for none."""
    upright = np.abs(axes[2])
    if upright.max() > np.cos(np.radians(UPRIGHT_DEGREES)):
        return int(upright.argmax())
    return None


def _npy(path: Path) -> np.ndarray:
    """The array of a .npy file. Raises SampleError where there is none."""
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except Exception as error:  # ValueError, EOFError, zipfile's
        rule = f"cannot be read ({error}): truncated, a pickle, or not a NumPy file"
        raise SampleError(str(path), None, rule) from error
    return array


def _whole_numbers(array: np.ndarray, where: str) -> np.ndarray:
    """An array as a volume of integers or booleans. Raises SampleError where it is none."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or min(array.shape) < 2:
        raise SampleError(where, "labels", f"{NOT_A_VOLUME}; got {array.shape}")
    if array.dtype.kind in "iub":
        return array
    real = array.dtype.kind == "f"
    if not real or not np.isfinite(array).all() or (array != np.rint(array)).any():
        rule = "must hold whole numbers: this is an image, not a segmentation"
        raise SampleError(where, "labels", rule)
    size = np.abs(array)
    if size.max() >= 2**31:
        rule = f"must be whole numbers below 2^31; found {array.flat[size.argmax()]:g}"
        raise SampleError(where, "labels", rule)
    return array.astype(np.int32)


def _spacing(
    given: np.ndarray | Sequence[float] | None, shape: tuple[int, ...], where: str
) -> np.ndarray:
    """Edges of a voxel, (3,) m, of a volume of this shape. Raises SampleError."""
    if given is None:
        rule = (
            "is not in a .npy file: give data.spacing=[.., .., ..] in metres, "
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
    longest = (edges * shape).max()
    if longest < SMALLEST_BOX or longest > LARGEST_BOX:
        rule = (
            f"{edges.tolist()} m makes a box of {longest:.3g} m; is it in other units? "
            "Give data.spacing in metres"
        )
        raise SampleError(where, "spacing", rule)
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
