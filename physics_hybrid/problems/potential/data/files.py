"""Files of samples: where they lie, in which order, and how `.npz`, `.h5` and `.npy` are opened.

Whatever is wrong with a file is a `SampleError` that names it. Pickles are never loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from physics_hybrid.problems.potential.data.checks import check, word
from physics_hybrid.problems.potential.data.sample import (
    ATTRIBUTES,
    OPTIONAL,
    OURS,
    REQUIRED,
    SCHEMA_VERSION,
    Conventions,
    Sample,
    SampleError,
)

#: How a .zip (so an .npz) and an .npy begin.
MAGIC = (b"PK\x03\x04", b"\x93NUM")
H5 = (".h5", ".hdf5")
#: What a file may hold for a sample.
KEYS = (*REQUIRED, *OPTIONAL, *ATTRIBUTES)


@dataclass(frozen=True)
class Address:
    """Where a sample lies: a file or folder, and the row for `.h5`."""

    path: Path
    row: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.row is None else f"{self.path}[{self.row}]"

    def read(self, conventions: Conventions = OURS) -> Sample:
        """Read and check. Raises SampleError."""
        phantom = None
        if self.row is not None:
            arrays, phantom = _load_row(self.path, self.row, str(self))
        elif self.path.is_dir():
            arrays = _load_folder(self.path)
        else:
            arrays = _load(self.path, str(self.path))
        return check(arrays, str(self), conventions, phantom)


def _load_row(path: Path, row: int, where: str) -> tuple[dict[str, Any], str | None]:
    """The arrays and attributes of one sample of an .h5 file, and its phantom."""
    with _open_h5(path) as file:
        keys = [key for key in (*REQUIRED, *OPTIONAL) if key in file]
        arrays = {key: _read_row(file, key, row, where) for key in keys}
        arrays |= {key: file.attrs[key] for key in ATTRIBUTES if key in file.attrs}
        phantom = None
        if "phantom" in file:
            phantom = word(_read_row(file, "phantom", row, where))
    return arrays, phantom


def _load_folder(path: Path) -> dict[str, Any]:
    arrays = [p for p in sorted(path.glob("*.npy")) if p.stem in KEYS]
    return {p.stem: _load(p, str(p)) for p in arrays}


def _load(path: Path, where: str) -> Any:
    """The array of an .npy, the arrays of an .npz by key, without pickles.

    Whatever is wrong with the file becomes a SampleError.
    """
    try:
        return _load_numpy(path, where)
    except SampleError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower():
            rule = "holds Python objects (a pickle), which are never loaded: they could run code"
        else:
            rule = f"cannot be read ({error}): truncated or not a NumPy file"
        raise SampleError(where, None, rule) from error
    except Exception as error:  # zipfile, zlib and struct each have their own way to say it
        said = f"{type(error).__name__}: {error}"
        rule = f"cannot be read ({said}): truncated or not a NumPy file"
        raise SampleError(where, None, rule) from error


def _load_numpy(path: Path, where: str) -> Any:
    with open(path, "rb") as file:
        if file.read(4) not in MAGIC:
            raise SampleError(where, None, "is empty, truncated or not a NumPy file")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            return {key: loaded[key] for key in loaded.files if key in KEYS}
    if path.suffix == ".npz":
        raise SampleError(where, None, "is not an .npz archive")
    return loaded


def _open_h5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        rule = f"cannot be opened as HDF5 ({error}): truncated or another format"
        raise SampleError(str(path), None, rule) from error


def _read_row(file: h5py.File, key: str, row: int, where: str) -> Any:
    try:
        return file[key][row]
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise SampleError(where, key, f"cannot be read ({error}): the file is damaged") from error


def h5_length(path: Path) -> int:
    """Number of samples in an .h5 file, after the checks that concern the whole file.

    Raises
    ------
    SampleError
        If the file cannot be opened, is of a later schema, lacks a key or has one without a sample
        axis, or its keys differ in their number of samples.
    """
    with _open_h5(path) as file:
        version = file.attrs.get("schema_version", SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            rule = f"has schema version {version}; this program reads up to {SCHEMA_VERSION}"
            raise SampleError(str(path), None, rule)
        for key in REQUIRED:
            _has_sample_axis(path, file, key)
        keys = [key for key in (*REQUIRED, *OPTIONAL, "phantom") if key in file]
        lengths = {key: len(file[key]) for key in keys}
        if len(set(lengths.values())) > 1:
            rule = f"keys differ in their number of samples: {lengths}"
            raise SampleError(str(path), None, rule)
        return lengths["u"]


def _has_sample_axis(path: Path, file: h5py.File, key: str) -> None:
    if key not in file:
        held = ", ".join(sorted(file)) or "nothing"
        raise SampleError(str(path), key, f"is missing; the file has {held}")
    if not isinstance(file[key], h5py.Dataset) or file[key].ndim < 4:
        rule = "must be a dataset with a leading sample axis: (N, D, H, W, ...)"
        raise SampleError(str(path), key, rule)


def find(path: str | Path) -> list[Address]:
    """All samples under a file or folder, in a fixed order.

    Raises
    ------
    SampleError
        If the path does not exist, holds nothing that we read, or an .h5 file there is broken as a
        whole.
    """
    return [address for place in places(path) for address in expand(place)]


def expand(place: Path) -> list[Address]:
    """The samples of one file or folder: one for each row of an .h5 file. Raises SampleError."""
    if place.suffix in H5:
        return [Address(place, row) for row in range(h5_length(place))]
    return [Address(place)]


def places(path: str | Path) -> list[Path]:
    """Files and folders of samples under a path, none of them opened yet. Raises SampleError."""
    path = Path(path).expanduser()
    if not path.exists():
        raise SampleError(str(path), None, "does not exist (data.path)")
    if path.is_file() or (path / "sigma.npy").exists() or (path / "u.npy").exists():
        candidates = [path]
    else:
        candidates = sorted(p for p in path.iterdir() if _looks_like_samples(p))
    for candidate in candidates:
        if not (candidate.is_dir() or candidate.suffix in (*H5, ".npz")):
            raise SampleError(
                str(candidate),
                None,
                "is not a format we read: .npz, .h5, or a folder with sigma.npy, source.npy, u.npy",
            )
    if not candidates:
        raise SampleError(
            str(path),
            None,
            "holds no samples: looked for *.npz, *.h5 and folders of .npy (data.path)",
        )
    return candidates


def _looks_like_samples(path: Path) -> bool:
    if path.suffix in (".npz", *H5):
        return True
    return path.is_dir() and any(path.glob("*.npy"))
