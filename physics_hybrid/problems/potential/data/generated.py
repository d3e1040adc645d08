"""Solved limbs into an `.h5` file: with a progress bar, resumable, the same bits every time.

A few samples at a time are written to a small file of their own and renamed into place; a run that
is killed goes on from the last whole one. The parts are joined into the final file at the end,
which appears under its name only when complete. Two programs that make the same file at once share
the parts: whoever is first finishes it for both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor
from tqdm import tqdm

from physics_hybrid.grid import name_of
from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.data.sample import AXES, SCHEMA_VERSION, UNITS
from physics_hybrid.problems.potential.data.stream import LimbStream
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.reading import FileError, Group, open_h5
from physics_hybrid.writing import STORED, create_h5

#: Samples solved and written together. Part of the format: runs that go on from each other's parts
#: must agree on it.
PART = 4


def settings(stream: LimbStream) -> dict[str, Any]:
    """All that decides what the stream holds, as JSON-ready values."""
    return {
        "limbs": stream.limbs.settings(),
        "grid": list(stream.grid),
        "seed": stream.seed,
        "split": stream.split,
        "solver": dataclasses.asdict(stream.solver),
    }


def dataset_path(folder: str | Path, stream: LimbStream, count: int) -> Path:
    """data/limbs_test_96x48x48_32_1f0c.h5: other settings, other file."""
    known = json.dumps(settings(stream), sort_keys=True)
    digest = hashlib.sha256(known.encode()).hexdigest()[:8]
    return Path(folder) / f"limbs_{stream.split}_{name_of(stream.grid)}_{count}_{digest}.h5"


def generate(path: Path, stream: LimbStream, count: int, progress: bool = True) -> Path:
    """Write `count` solved limbs to `path` unless it is there already; returns `path`.

    Raises
    ------
    OSError
        Folder not writable, disk full: what was finished stays and is used by the next run.
    """
    path = Path(path)
    if path.exists():
        return path
    parts = path.with_name(path.name + ".parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"writing {path} failed ({error})") from error
    try:
        _join(path, _solved(path, parts, stream, count, progress))
    except (OSError, FileError) as error:
        if path.exists():  # another program was faster, and has cleared the parts away
            return path
        if isinstance(error, FileError):
            raise OSError(f"{error}. Remove it: the next run solves it again") from error
        kept = f"finished parts stay in {parts} and the next run goes on from them"
        raise OSError(f"{error}; {kept}") from error
    shutil.rmtree(parts, ignore_errors=True)
    return path


def _solved(path: Path, parts: Path, stream: LimbStream, count: int, progress: bool) -> list[Path]:
    """The part files of `path`, those solved that are not there."""
    numbers = {
        parts / f"{start:06d}.h5": range(start, min(start + PART, count))
        for start in range(0, count, PART)
    }
    have = sum(len(limbs) for part, limbs in numbers.items() if part.exists())
    kept = f" ({have} kept from an earlier run)" if have else ""
    print(f"{path} is not there: solving {count} limbs{kept}", flush=True)
    with tqdm(total=count, unit="limb", desc=path.stem, disable=not progress) as bar:
        for part, limbs in numbers.items():
            if not part.exists():
                _write(part, limbs, stream)
            bar.update(len(limbs))
    return list(numbers)


def _datasets(batch: Batch) -> dict[str, np.ndarray]:
    """What is stored of each sample, by key, in the order of the file."""
    assert batch.labels is not None  # streams label all tissue
    arrays = {
        "sigma": np.moveaxis(_array(batch.sigma), 1, -1),
        "source": _array(batch.source),
        "u": _array(batch.u),
        "mask": _array(batch.tissue).astype(np.uint8),
        "spacing": _array(batch.spacing).astype(np.float64),
        "source_point": _array(batch.source_point).astype(np.float64),
        "labels": _array(batch.labels),
    }
    if batch.return_point is not None:
        arrays["return_point"] = _array(batch.return_point).astype(np.float64)
    if batch.nodes is not None:
        arrays["u_nodes"] = _array(batch.nodes)
    return arrays


def _array(value: Tensor) -> np.ndarray:
    return value.cpu().numpy()


def _write(path: Path, numbers: range, stream: LimbStream) -> None:
    """Solve the limbs with these numbers, and write them to a file of their own."""
    batch = stream.batch(numbers)
    phantoms = [stream.phantom(n) for n in numbers]
    provenance = {"program": f"physics_hybrid {_version()}", **settings(stream)}
    with create_h5(path) as file:
        for key, values in _datasets(batch).items():
            data = _dataset(file, key, values.shape, values.dtype)
            data.attrs["units"] = np.bytes_(UNITS[key])
            data[...] = values
        file.create_dataset("phantom", data=np.array(phantoms, dtype="S"), **STORED)
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["axes"] = np.bytes_(AXES)
        file.attrs["ends"] = np.bytes_(stream.solver.ends.kind)
        if stream.solver.ends.beta is not None:
            file.attrs["beta"] = stream.solver.ends.beta
        file.attrs["singularity"] = np.bytes_(batch.singularity)
        file.attrs["tissues"] = np.bytes_(json.dumps(TISSUES))
        file.attrs["provenance"] = np.bytes_(json.dumps(provenance, sort_keys=True))


def _dataset(
    file: h5py.File, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> h5py.Dataset:
    """An empty dataset for samples (N, ...), one a chunk."""
    return file.create_dataset(key, shape=shape, dtype=dtype, chunks=(1, *shape[1:]), **STORED)


def _join(path: Path, parts: list[Path]) -> None:
    """Concatenate part files, one sample in memory at a time."""
    with create_h5(path) as out, ExitStack() as opened:
        sources = [opened.enter_context(open_h5(p)) for p in parts]
        for name in sources[0].attributes:
            out.attrs[name] = sources[0].attribute(name)
        phantoms = np.concatenate([source.dataset("phantom")[:] for source in sources])
        out.create_dataset("phantom", data=phantoms, **STORED)
        # A dataset is let go when the next one is there: that decides the layout, so the bytes.
        for key in [key for key in UNITS if key in sources[0]]:
            first = sources[0].dataset(key)
            data = _dataset(out, key, (len(phantoms), *first.shape[1:]), first.dtype)
            data.attrs["units"] = np.bytes_(UNITS[key])
            for row, values in enumerate(_rows(sources, key)):
                data[row] = values


def _rows(sources: list[Group], key: str) -> Iterator[np.ndarray]:
    for source in sources:
        stored = source.dataset(key)
        for i in range(len(stored)):
            yield stored[i]


def _version() -> str:
    try:
        return version("physics_hybrid")
    except PackageNotFoundError:
        return "from source"
