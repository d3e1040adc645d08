"""Formats of label volumes: how each is opened, one function a format.

| suffix, in any case | read by | spacing | axes |
|---|---|---|---|
| `.nii`, `.nii.gz` | nibabel | header | affine |
| `.img` with `.hdr` | nibabel | header | affine; of Analyze, which has none, the third is up |
| `.mgz`, `.mgh` (FreeSurfer) | nibabel | header | affine |
| `.nrrd`, `.seg.nrrd` (3D Slicer) | pynrrd | header | space directions |
| `.npy` | NumPy | not held | the first is D |
| `.npz` | NumPy | `spacing`, m, if held | the first is D |
| `.mat` (MATLAB) | SciPy; 7.3: h5py | `spacing`, m, if held | the first is D |

`.npz` and `.mat` hold the volume as `labels`, or as their only array of three axes; one number as
`spacing` is that of cubes. To add a format: a function that gives `Raw`, and its suffix in
`FORMATS`. Pickles are never loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from physics_hybrid.problems.potential.data.sample import SampleError
from physics_hybrid.reading import failures, open_h5, read_npy, read_npz, unpacked

#: A file's axis is its long one where it is so nearly inferior-superior; where none is, the user
#: says.
UPRIGHT_DEGREES = 30.0

#: Metres in a unit of a header. Many programs leave it unset and mean millimetres.
UNITS = {
    "mm": 1e-3,
    "millimeter": 1e-3,
    "millimeters": 1e-3,
    "unknown": 1e-3,
    "": 1e-3,
    "m": 1.0,
    "meter": 1.0,
    "meters": 1.0,
    "cm": 1e-2,
    "centimeter": 1e-2,
    "micron": 1e-6,
    "um": 1e-6,
    "µm": 1e-6,
}

#: What an array of too few axes is told.
NOT_A_VOLUME = "must be a volume of three axes with at least 2 voxels each"

#: Spaces of a .nrrd whose third axis is inferior-superior.
PATIENT = ("superior", "inferior", "las", "ras", "lps")


#: The worlds of a .nrrd, and the signs that turn them to right, anterior, superior.
WORLDS = {
    "right anterior superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left anterior superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left posterior superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class Raw:
    """What a file holds, in the order of its own axes.

    array : the volume as stored, three axes or more.
    spacing : (3,) m; None where the file does not say.
    upright : its axis that is nearly inferior-superior, or that counts as D; None: nobody knows.
    notes : what was understood, where that is not plain.
    affine : (4, 4), from the index of a voxel to its centre in the world (right, anterior,
        superior), mm; None where the file knows no world.
    """

    array: np.ndarray
    spacing: np.ndarray | None
    upright: int | None
    notes: tuple[str, ...] = ()
    affine: np.ndarray | None = None


def _opened_as(what: str, path: Path) -> failures:
    """Whatever a library says of a file becomes one SampleError that names it."""
    return failures(str(path), what, raises=SampleError)


def image(path: Path, trusted: bool) -> Raw:
    """NIfTI, Analyze or MGH, by nibabel.

    trusted : the header's spacing is what will be used, so that the affine must agree.
    """
    where = str(path)
    loaded, array, affine = opened(path)
    with _opened_as("an image", path):
        zooms: np.ndarray = np.asarray(loaded.header.get_zooms()[:3], dtype=float)
    nifti = hasattr(loaded.header, "get_xyzt_units")
    oriented = nifti or path.suffix.lower() in (".mgz", ".mgh")
    if array.ndim < 3:
        raise SampleError(where, "labels", f"{NOT_A_VOLUME}; got {array.shape}")
    metres = metres_of(loaded, where)
    sizes, upright = axes_of(affine[:3, :3] / (1e3 * metres), where)
    if trusted and not np.allclose(sizes, zooms, rtol=1e-3):
        rule = (
            f"the affine says {sizes.tolist()}, the header {zooms.tolist()}: "
            "repair the file, or give data.spacing (m)"
        )
        raise SampleError(where, "spacing", rule)
    notes = [] if oriented else ["an Analyze file, which has no orientation: the third axis is up"]
    return Raw(array, zooms * metres, upright, tuple(notes), affine if oriented else None)


def opened(path: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """An image by nibabel, whole: as loaded, its values, and from index to the world, mm (4, 4).

    Raises SampleError for what cannot be read.
    """
    import nibabel

    what = "NIfTI" if ".nii" in path.name.lower() else "an image"
    unpacked(path, SampleError)  # nibabel stops before it comes to the checksum
    with _opened_as(what, path):
        loaded: Any = nibabel.load(path)
        array = np.asanyarray(loaded.dataobj)
        affine = np.array(loaded.affine, dtype=float)
    affine[:3] *= 1e3 * metres_of(loaded, str(path))
    return loaded, array, affine


def metres_of(loaded: Any, where: str) -> float:
    """Metres in the unit of an image's header. Raises SampleError for one that is unknown."""
    if not hasattr(loaded.header, "get_xyzt_units"):
        return _unit("mm", where)
    with _opened_as("NIfTI", Path(where)):
        name = loaded.header.get_xyzt_units()[0]
    return _unit(name, where)


def nrrd(path: Path, trusted: bool) -> Raw:
    """NRRD, and the segmentations of 3D Slicer, by pynrrd."""
    try:
        import nrrd as pynrrd
    except ImportError as error:
        rule = "needs pynrrd, which is not installed: pip install pynrrd"
        raise SampleError(str(path), None, rule) from error
    with _opened_as("NRRD", path):
        array, header = pynrrd.read(str(path))
    where = str(path)
    array, layer = _one_layer(np.asarray(array), header, where)
    spacing, upright = _nrrd_axes(header, layer, where)
    names = _segments(header)
    notes = (f"segments {', '.join(names)}",) if names else ()
    return Raw(array, spacing, upright, notes, _nrrd_affine(header, where))


def _one_layer(array: np.ndarray, header: Mapping[str, Any], where: str) -> tuple[np.ndarray, int]:
    """A volume of three axes, and how many axes of layers were in front of it."""
    if array.ndim != 4 or "list" not in _words(header.get("kinds")):
        return array, 0
    if array.shape[0] > 1:
        rule = (
            f"holds {array.shape[0]} layers of segments that overlap: let no segment overlap "
            "another (3D Slicer: Collapse labelmap layers), and save it again"
        )
        raise SampleError(where, "labels", rule)
    return array[0], 1


def _nrrd_axes(
    header: Mapping[str, Any], skip: int, where: str
) -> tuple[np.ndarray | None, int | None]:
    """Spacing (3,) in m and the axis that is up, of a header whose first axes are no space."""
    units = _words(header.get("space units") or header.get("units"))
    unit = _unit(units[-1] if units else "unknown", where)
    given = header.get("space directions")
    if given is None:
        edges = header.get("spacings")
        return None if edges is None else np.asarray(edges, dtype=float)[skip:] * unit, None
    with _opened_as("NRRD", Path(where)):
        directions = np.array([row for row in given if row is not None], dtype=float)
        directions = directions[np.isfinite(directions).all(axis=1)]
    if directions.shape != (3, 3):
        rule = f"must have three directions of three numbers; got {directions.tolist()}"
        raise SampleError(where, "space directions", rule)
    sizes, upright = axes_of(directions.T, where)
    space = str(header.get("space", "")).lower()
    return sizes * unit, upright if any(word in space for word in PATIENT) else None


def _nrrd_affine(header: Mapping[str, Any], where: str) -> np.ndarray | None:
    """From a voxel to the world, mm; None where a header does not say all of it."""
    towards = WORLDS.get(str(header.get("space", "")).lower().replace("-", " "))
    origin, given = header.get("space origin"), header.get("space directions")
    if towards is None or origin is None or given is None:
        return None
    units = _words(header.get("space units"))
    directions = np.array([row for row in given if row is not None], dtype=float)
    affine = np.eye(4)
    affine[:3, :3] = directions[np.isfinite(directions).all(axis=1)].T
    affine[:3, 3] = np.asarray(origin, dtype=float)
    millimetres = 1e3 * _unit(units[-1] if units else "unknown", where)
    affine[:3] *= millimetres * np.array(towards)[:, None]
    return affine


def _segments(header: Mapping[str, Any]) -> list[str]:
    """`3 muscle` for each segment that a header names, as 3D Slicer does."""
    found = []
    for key, name in header.items():
        if key.startswith("Segment") and key.endswith("_Name"):
            label = header.get(key.replace("_Name", "_LabelValue"), "?")
            found.append(f"{label} {name}")
    return found


def _words(value: Any) -> list[str]:
    """A list of words, or one, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def npy(path: Path, trusted: bool) -> Raw:
    """The array of a .npy file."""
    return Raw(read_npy(path, SampleError), None, 0)


def npz(path: Path, trusted: bool) -> Raw:
    """The volume in a .npz archive."""
    return _by_name(read_npz(path, None, SampleError), str(path))


def mat(path: Path, trusted: bool) -> Raw:
    """The volume in a file of MATLAB: 7.3 (HDF5, axes in reverse), or older."""
    import scipy.io

    if h5py.is_hdf5(path):
        with open_h5(path, SampleError) as file:
            datasets = [file.dataset(key) for key in file if not file.is_group(key)]
            arrays = {d.key: d[()].T for d in datasets if d.dtype.kind in "fiub"}
        return _by_name(arrays, str(path))
    with _opened_as("a .mat file", path):
        names = [name for name, _, kind in scipy.io.whosmat(path) if kind in NUMERIC]
        held = scipy.io.loadmat(path, variable_names=names) if names else {}
        arrays = {name: held[name] for name in names}
    return _by_name(arrays, str(path))


#: Kinds of MATLAB's variables that are numbers.
NUMERIC = (
    "double",
    "single",
    "logical",
    *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
)


def _by_name(arrays: Mapping[str, np.ndarray], where: str) -> Raw:
    """The volume `labels`, or the only one of three axes; `spacing` in m beside it, if there."""
    volumes = [name for name, array in arrays.items() if array.squeeze().ndim == 3]
    if "labels" in arrays:
        volumes = ["labels"]
    if len(volumes) != 1:
        held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        rule = f"is missing: the only array of three axes would do, and the file holds {held}"
        raise SampleError(where, "labels", rule)
    spacing = _edges(arrays.get("spacing"), where)
    edges = "no spacing" if spacing is None else f"spacing {spacing.tolist()} m"
    note = f"labels are {volumes[0]!r}, its first axis is D; {edges}"
    return Raw(arrays[volumes[0]], spacing, 0, (note,))


def _edges(given: np.ndarray | None, where: str) -> np.ndarray | None:
    """`spacing` of a file, flat, m; one number stands for three. Raises SampleError for words."""
    if given is None:
        return None
    if given.dtype.kind not in "fiu":
        rule = f"must be numbers of metres; got {given.tolist()!r}"
        raise SampleError(where, "spacing", rule)
    edges = given.astype(float).ravel()
    return np.full(3, edges[0]) if edges.size == 1 else edges


def axes_of(columns: np.ndarray, where: str) -> tuple[np.ndarray, int | None]:
    """Lengths of the columns of an affine (3, 3), and which is nearly inferior-superior.

    Raises SampleError for what is no affine of a volume, and for axes that are not at right angles.
    """
    sizes = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(columns).all() and (sizes > 0).all()):
        raise SampleError(where, "affine", f"is not one of a volume: {columns.tolist()}")
    units = columns / sizes
    if np.abs(units.T @ units - np.eye(3)).max() > 1e-3:
        rule = (
            "is sheared: its axes are not at right angles. "
            "Resample the volume to a rectangular grid first"
        )
        raise SampleError(where, "affine", rule)
    upright = np.abs(units[2])
    if upright.max() > np.cos(np.radians(UPRIGHT_DEGREES)):
        return sizes, int(upright.argmax())
    return sizes, None


def _unit(name: str, where: str) -> float:
    """Metres in a unit. Raises SampleError for one that is unknown."""
    unit = name.strip().strip('"').lower()
    if unit not in UNITS:
        known = ", ".join(filter(None, UNITS))
        raise SampleError(where, "spacing", f"has the unit {name!r}; known: {known}")
    return UNITS[unit]


#: How each format is opened; the longest suffix that fits counts.
FORMATS: dict[str, Callable[[Path, bool], Raw]] = {
    ".nii": image,
    ".nii.gz": image,
    ".img": image,
    ".hdr": image,
    ".mgz": image,
    ".mgh": image,
    ".nrrd": nrrd,
    ".npy": npy,
    ".npz": npz,
    ".mat": mat,
}
SUFFIXES = tuple(FORMATS)


def suffix_of(path: Path) -> str | None:
    """The suffix of a label volume, in small letters; None for another file."""
    found = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return max(found, key=len) if found else None


def files_of(path: Path) -> list[Path]:
    """The files that hold one volume: an .img goes with its .hdr, in either case."""
    pair = {".img": ".hdr", ".hdr": ".img"}.get(path.suffix.lower())
    if pair is None:
        return [path]
    others = [path.with_suffix(pair), path.with_suffix(pair.upper())]
    return sorted({path, *(other for other in others if other.exists())})


def volumes_in(folder: Path) -> Sequence[Path]:
    """The label volumes of a folder in the order of their names; an .hdr goes with its .img."""
    found = sorted(p for p in folder.iterdir() if suffix_of(p) and not p.name.startswith("."))
    return [p for p in found if p.suffix.lower() != ".hdr" or len(files_of(p)) == 1]
