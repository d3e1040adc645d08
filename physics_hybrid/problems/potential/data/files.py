"""Files of samples: where they lie, in which order, and how `.npz`, `.h5` and `.npy` are opened.

Whatever is wrong with a file is a `SampleError` that names it. Pickles are never loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physics_hybrid.problems.potential.data.checks import check
from physics_hybrid.problems.potential.data.sample import (
    ATTRIBUTES,
    OPTIONAL,
    OURS,
    REQUIRED,
    SCHEMA_VERSION,
    SHARED,
    Conventions,
    Sample,
    SampleError,
)
from physics_hybrid.reading import Dataset, Group, failures, open_h5, read_npy, read_npz, text_of

H5 = (".h5", ".hdf5")
#: What a file may hold for a sample.
ARRAYS = (*REQUIRED, *OPTIONAL)
KEYS = (*ARRAYS, *ATTRIBUTES)
#: Folders inside each other that are looked through for samples: subject, session, kind, sample.
DEPTH = 4
#: Folders of these names are no subjects.
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")


@dataclass(frozen=True)
class Address:
    """Where a sample lies: a file or folder, and for `.h5` the row, or the name of its group.

    subject : whose folder that is in, '' where there are none.
    """

    path: Path
    row: int | None = None
    group: str = ""
    subject: str = ""

    def __str__(self) -> str:
        if self.group:
            return f"{self.path}[{self.group}]"
        return str(self.path) if self.row is None else f"{self.path}[{self.row}]"

    def read(self, conventions: Conventions = OURS) -> Sample:
        """Read and check. Raises SampleError."""
        if _format(self.path) in H5:
            held = _load_h5(self)
        elif self.path.is_dir():
            held = _Held(_load_folder(self.path))
        else:
            held = _Held(read_npz(self.path, KEYS, SampleError))
        phantom = held.phantom or self.subject or None
        return check(held.arrays, str(self), conventions, phantom, held.notes)


@dataclass(frozen=True)
class _Held:
    """What a file holds for a sample: arrays and words by key, its phantom, how it was read."""

    arrays: dict[str, Any]
    phantom: str = ""
    notes: tuple[str, ...] = ()


def _load_folder(path: Path) -> dict[str, Any]:
    arrays = [p for p in sorted(path.glob("*.npy")) if p.stem in KEYS]
    return {p.stem: read_npy(p, SampleError) for p in arrays}


# --- .h5


def _load_h5(address: Address) -> _Held:
    """The arrays, attributes and phantom of one sample of an .h5 file."""
    with open_h5(address.path, SampleError) as file:
        if address.group:
            return _load_group(file, file.group(address.group))
        return _load_row(file, address.row or 0)


def _load_row(file: Group, row: int) -> _Held:
    """One row of datasets that hold a sample each row, or one value for all."""
    arrays, notes = _words(file, file), []
    for key in [key for key in ARRAYS if key in file]:
        data = file.dataset(key)
        if _is_shared(key, data):
            arrays[key] = data[()]
            notes.append(f"one {key} is taken for all samples of the file")
        else:
            arrays[key] = data[row]
    phantom = text_of(file.dataset("phantom")[row]) if "phantom" in file else ""
    notes += _of_the_file(file, arrays)
    return _Held(arrays, phantom, tuple(notes))


def _load_group(file: Group, group: Group) -> _Held:
    """One group with the arrays of one sample; what it lacks may stand at the file."""
    arrays = _words(file, group)
    arrays |= {key: group.dataset(key)[()] for key in ARRAYS if key in group}
    shared = [key for key in SHARED if key not in group and key in file]
    arrays |= {key: file.dataset(key)[()] for key in shared}
    notes = ["each group of the file is taken for a sample"]
    notes += [f"one {key} is taken for all samples of the file" for key in shared]
    notes += _of_the_file(group, arrays)
    notes += _of_the_file(file, arrays)
    phantom = group.attribute("phantom")
    if phantom is None and "phantom" in group:
        phantom = group.dataset("phantom")[()]
    return _Held(arrays, "" if phantom is None else text_of(phantom), tuple(notes))


def _words(file: Group, group: Group) -> dict[str, Any]:
    """What a file says in attributes, of a group or of itself."""
    values = {key: group.attribute(key) for key in ATTRIBUTES}
    values = {key: file.attribute(key) if v is None else v for key, v in values.items()}
    return {key: value for key, value in values.items() if value is not None}


def _of_the_file(node: Group, arrays: dict[str, Any]) -> list[str]:
    """Fill in what stands in an attribute of a file or group; what was filled in."""
    notes = []
    for key in SHARED:
        value = None if key in arrays else node.attribute(key)
        if value is not None:
            arrays[key] = value
            notes.append(f"the attribute {key} is taken for {key}")
    return notes


def _is_shared(key: str, data: Dataset) -> bool:
    """Whether a dataset has one value for the whole file: its shape is that of one sample's."""
    return key in SHARED and data.shape in ((), (1,), SHARED[key])


def _samples(path: Path, subject: str) -> list[Address]:
    """The samples of an .h5 file, after the checks that concern it as a whole.

    Raises
    ------
    SampleError
        If the file cannot be opened, is of a later schema, lacks a key or has one without a sample
        axis, or its keys differ in their number of samples.
    """
    with open_h5(path, SampleError) as file:
        _check_version(file)
        groups = _groups(file)
        if groups:
            return [Address(path, group=name, subject=subject) for name in groups]
        length = _length(file)
    return [Address(path, row, subject=subject) for row in range(length)]


def _check_version(file: Group) -> None:
    stored = file.attribute("schema_version")
    if stored is None:
        return
    try:
        version = float(text_of(stored))
    except ValueError:
        raise file.error(f"must be a number; got {stored!r}", "schema_version") from None
    if version > SCHEMA_VERSION:
        rule = f"has schema version {version:g}; this program reads up to {SCHEMA_VERSION}"
        raise file.error(rule)


def _groups(file: Group) -> list[str]:
    """Names of the groups that hold a sample each; none where the file has rows."""
    if any(key in file for key in ("sigma", "u", "phi")):
        return []
    groups = [name for name in file if file.is_group(name)]
    held = ("sigma", "source", "u", "phi")
    return [name for name in groups if any(key in file.group(name) for key in held)]


def _length(file: Group) -> int:
    """The number of samples, which all keys have."""
    truth = "phi" if "phi" in file and "u" not in file else "u"
    needed = ["sigma", truth]
    if "source" in file or not ("source_point" in file and _has(file, "current")):
        needed.append("source")
    for key in needed:
        if key not in file:
            held = ", ".join(file.keys()) or "nothing"
            raise file.error(f"is missing; the file has {held}", key)
        if file.is_group(key) or file.dataset(key).ndim < 4:
            raise file.error("must be a dataset with a leading sample axis: (N, D, H, W, ...)", key)
    there = {key: file.dataset(key) for key in (*ARRAYS, "phantom") if key in file}
    lengths = {key: len(data) for key, data in there.items() if not _is_shared(key, data)}
    if len(set(lengths.values())) > 1:
        raise file.error(f"keys differ in their number of samples: {lengths}")
    return lengths[truth]


def _has(file: Group, key: str) -> bool:
    """Whether a file has a key, be it as an attribute."""
    return key in file or file.attribute(key) is not None


# --- where they lie


def find(path: str | Path) -> list[Address]:
    """All samples under a file or folder, in a fixed order.

    Raises
    ------
    SampleError
        If the path does not exist, holds nothing that we read, or an .h5 file there is broken as a
        whole.
    """
    return [address for place in places(path) for address in expand(place)]


def expand(place: Address) -> list[Address]:
    """The samples of one file or folder: one a row or group of an .h5. Raises SampleError."""
    if _format(place.path) in H5:
        return _samples(place.path, place.subject)
    return [place]


def places(path: str | Path) -> list[Address]:
    """Files and folders of samples under a path, none of them opened yet.

    A folder without samples of its own may hold one for each subject, with folders inside
    (sub-01/ses-1/...). Hidden files, such as the `._*` of macOS, are no samples.

    Raises
    ------
    SampleError
        If the path does not exist, is of a format that we do not read, or holds no samples.
    """
    path = Path(path).expanduser()
    with failures(str(path), "a folder of samples", raises=SampleError):
        if not path.exists():
            raise SampleError(str(path), None, "does not exist (data.path)")
        if path.is_file() or (path / "sigma.npy").exists() or (path / "u.npy").exists():
            if not (path.is_dir() or _format(path) in (*H5, ".npz")):
                known = ".npz, .h5, or a folder with sigma.npy, source.npy, u.npy"
                raise SampleError(str(path), None, f"is not a format we read: {known}")
            return [Address(path)]
        found = list(_below(path, DEPTH))
    if not found:
        raise SampleError(
            str(path),
            None,
            "holds no samples: looked for *.npz, *.h5 and folders of .npy, in it and in its "
            "folders (data.path)",
        )
    subjects = _subjects(path, found)
    return [Address(p, subject=who) for p, who in zip(found, subjects, strict=True)]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Files and folders of samples in a folder; where there are none, in those inside."""
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    samples = [p for p in inside if _looks_like_samples(p)]
    yield from samples
    if not samples and depth:
        for other in inside:
            if other.is_dir():
                yield from _below(other, depth - 1)


def _format(path: Path) -> str:
    """The suffix of a file, whatever its case."""
    return path.suffix.lower()


def _looks_like_samples(path: Path) -> bool:
    if _format(path) in (".npz", *H5):
        return True
    return path.is_dir() and any(not p.name.startswith(".") for p in path.glob("*.npy"))


def _subjects(root: Path, found: list[Path]) -> list[str]:
    """Whose each sample is, '' where folders do not say: sub-NAME (BIDS), or else the folder below
    which the samples part.
    """
    folders = [p.relative_to(root).parts[:-1] for p in found]
    common = len(os.path.commonprefix(folders))
    return [_subject(names, common) for names in folders]


def _subject(folders: tuple[str, ...], common: int) -> str:
    bids = [name for name in folders if name.startswith("sub-")]
    other = [name for name in folders[common:] if name.lower() not in SPLIT_NAMES]
    return next(iter([*bids, *other]), "")
