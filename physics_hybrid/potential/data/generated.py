"""Solved limbs into an `.h5` file: with a progress bar, resumable, the same bits from the same settings.

A few samples at a time are written to a small file of their own and renamed into place; a run that is killed goes on from the
last whole one. The parts are joined into the final file at the end, which appears under its name only when complete. Two programs that
make the same file at once share the parts: whoever is first finishes it for both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from physics_hybrid.grid import name_of
from physics_hybrid.potential.bodies.limb import TISSUES
from physics_hybrid.potential.data.sample import AXES, SCHEMA_VERSION, UNITS
from physics_hybrid.potential.data.stream import LimbStream
from physics_hybrid.potential.scene import Batch

#: Samples solved and written together. Part of the format: runs that go on from each other's parts must agree on it.
PART = 4


def settings(stream: LimbStream) -> dict:
    """All that decides what the stream holds, as JSON-ready values."""
    return {
        "limbs": stream.limbs.settings(),
        "grid": list(stream.grid), "seed": stream.seed, "split": stream.split, "solver": dataclasses.asdict(stream.solver),
    }


def dataset_path(folder: str | Path, stream: LimbStream, count: int) -> Path:
    """data/limbs_test_96x48x48_32_1f0c.h5: other settings, other file."""
    digest = hashlib.sha256(json.dumps(settings(stream), sort_keys=True).encode()).hexdigest()[:8]
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
        starts = list(range(0, count, PART))
        have = sum(min(PART, count - s) for s in starts if (parts / f"{s:06d}.h5").exists())
        print(f"{path} is not there: solving {count} limbs" + (f" ({have} kept from an earlier run)" if have else ""), flush=True)
        with tqdm(total=count, unit="limb", desc=path.stem, disable=not progress) as bar:
            for start in starts:
                part = parts / f"{start:06d}.h5"
                numbers = range(start, min(start + PART, count))
                if not part.exists():
                    _write(part, stream.batch(numbers), [stream.phantom(n) for n in numbers], stream)
                bar.update(len(numbers))
        _join(path, [parts / f"{s:06d}.h5" for s in starts])
    except OSError as error:
        if path.exists():  # another program was faster, and has cleared the parts away
            return path
        kept = f"; finished parts stay in {parts} and the next run goes on from them" if parts.exists() else ""
        raise OSError(f"writing {path} failed ({error}){kept}") from error
    shutil.rmtree(parts, ignore_errors=True)
    return path


def _datasets(batch: Batch) -> dict[str, np.ndarray]:
    def array(value):
        return value.cpu().numpy()
    return {
        "sigma": np.moveaxis(array(batch.sigma), 1, -1), "source": array(batch.source), "u": array(batch.u),
        "mask": array(batch.tissue).astype(np.uint8), "spacing": array(batch.spacing).astype(np.float64),
        "source_point": array(batch.source_point).astype(np.float64), "labels": array(batch.labels),
        **({} if batch.return_point is None else {"return_point": array(batch.return_point).astype(np.float64)}),
        **({} if batch.nodes is None else {"u_nodes": array(batch.nodes)}),
    }


def _write(path: Path, batch: Batch, phantoms: list[str], stream: LimbStream) -> None:
    with _Atomic(path) as file:
        for key, values in _datasets(batch).items():
            _dataset(file, key, values)
        file.create_dataset("phantom", data=np.array(phantoms, dtype="S"), track_times=False)
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["axes"] = AXES
        file.attrs["ends"] = stream.solver.ends.kind
        if stream.solver.ends.beta is not None:
            file.attrs["beta"] = stream.solver.ends.beta
        file.attrs["singularity"] = batch.singularity
        file.attrs["tissues"] = json.dumps(TISSUES)
        file.attrs["provenance"] = json.dumps({"program": f"physics_hybrid {_version()}", **settings(stream)}, sort_keys=True)


def _dataset(file: h5py.File, key: str, values: np.ndarray) -> None:
    data = file.create_dataset(
        key, data=values, chunks=(1, *values.shape[1:]), compression="gzip", compression_opts=1, shuffle=True, track_times=False
    )
    data.attrs["units"] = UNITS[key]


def _join(path: Path, parts: list[Path]) -> None:
    """Concatenate part files, one sample in memory at a time."""
    with _Atomic(path) as out:
        sources = [h5py.File(p, "r") for p in parts]
        try:
            total = sum(len(s["u"]) for s in sources)
            for name, value in sources[0].attrs.items():
                out.attrs[name] = value
            out.create_dataset("phantom", data=np.concatenate([s["phantom"][:] for s in sources]), track_times=False)
            for key in (k for k in UNITS if k in sources[0]):
                first = sources[0][key]
                data = out.create_dataset(
                    key, shape=(total, *first.shape[1:]), dtype=first.dtype, chunks=(1, *first.shape[1:]),
                    compression="gzip", compression_opts=1, shuffle=True, track_times=False,
                )
                data.attrs["units"] = UNITS[key]
                row = 0
                for source in sources:
                    for i in range(len(source[key])):
                        data[row] = source[key][i]
                        row += 1
        finally:
            for source in sources:
                source.close()


class _Atomic:
    """An h5py file that gets its name only when it is complete and on disk."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> h5py.File:
        self.file = h5py.File(self.temporary, "w")
        return self.file

    def __exit__(self, kind, *_):
        try:
            self.file.close()
            if kind is None:
                with open(self.temporary, "rb+") as handle:
                    os.fsync(handle.fileno())
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def _version() -> str:
    try:
        return version("physics_hybrid")
    except PackageNotFoundError:
        return "from source"
