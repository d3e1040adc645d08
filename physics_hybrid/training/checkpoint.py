"""Checkpoints that cannot be lost.

`latest_checkpoint.pt` holds everything a training needs to go on; it is written beside, flushed to disk and renamed, and
the one before stays as `latest_checkpoint.previous.pt`. Every file is checked against its checksums before it is believed,
and read with `weights_only=True`. Models are also written in PhysicsNeMo's own format (`best/`, `final/`), whose
writer is not atomic (PhysicsNeMo issue 2012): into a temporary folder that is then renamed.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

LATEST = "latest_checkpoint.pt"
PREVIOUS = "latest_checkpoint.previous.pt"


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or does not fit. Names the file and what to do."""


def save_state(folder: Path, state: dict) -> Path:
    """Write `latest_checkpoint.pt` atomically; the one it replaces is kept.

    Raises
    ------
    CheckpointError
        Disk full, folder not writable: the files that were there are untouched.
    """
    folder = Path(folder)
    latest, previous, temporary = folder / LATEST, folder / PREVIOUS, folder / f".{LATEST}.new"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if latest.exists():
            os.replace(latest, previous)
        os.replace(temporary, latest)
        _sync_folder(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = latest if latest.exists() else previous
        raise CheckpointError(
            f"could not write {latest} ({len(buffer.getbuffer()) / 1e6:.1f} MB): {error}. "
            + (f"{kept} from before is intact; make room and start again to go on from it" if kept.exists() else "nothing was saved yet")
        ) from error
    return latest


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # a rename is on disk only once its folder is; Windows has no such call
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_state(path: Path) -> dict:
    """Read one state file.

    Raises
    ------
    CheckpointError
        Missing, truncated, or a checksum does not match.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise CheckpointError(f"{path} is damaged: the checksum of its part {damaged} does not match")
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile, zlib, struct, pickle: each has its own way to say 'truncated'
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({type(error).__name__}: {error})") from error


def load_latest(folder: Path) -> dict | None:
    """The newest state in a run folder that is whole; None where there is none at all.

    A damaged latest file is reported on standard error and the one before is used.

    Raises
    ------
    CheckpointError
        If files are there and none can be read.
    """
    # the last one is there only where a kill hit the moment between two renames of `save_state`
    files = [p for p in (Path(folder) / LATEST, Path(folder) / PREVIOUS, Path(folder) / f".{LATEST}.new") if p.exists()]
    problems = []
    for path in files:
        try:
            state = load_state(path)
        except CheckpointError as error:
            problems.append(str(error))
            print(f"WARNING: {error}", file=sys.stderr, flush=True)
            continue
        if problems:
            print(f"WARNING: going on from {path} (epoch {state['progress']['epoch']}, step {state['progress']['step']}) instead", file=sys.stderr, flush=True)
        return state
    if problems:
        raise CheckpointError("no checkpoint can be read: " + "; ".join(problems) + ". Choose another run=NAME to start afresh")
    return None


def rng_state() -> dict:
    """All random states of this process, in types that `weights_only` loading accepts."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(words), gauss],
    }


def set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def save_model(folder: Path, model, epoch: int, metadata: dict) -> Path:
    """Write a model with PhysicsNeMo's `save_checkpoint` into `folder`, which is replaced as a whole.

    Raises
    ------
    CheckpointError
        Disk full, folder not writable: the model that was there is untouched.
    """
    from physicsnemo.utils.checkpoint import save_checkpoint

    folder = Path(folder)
    temporary, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        if old.exists() and not folder.exists():  # killed between the two renames below: this is the only copy
            os.replace(old, folder)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        with _corrected_save():
            save_checkpoint(str(temporary), models=model, epoch=epoch, metadata=metadata)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"could not write the model to {folder}: {error}") from error
    return folder


def export_model(path: Path, model) -> Path:
    """Write one `.mdlus` file, renamed into place. Raises CheckpointError where that is not possible."""
    path = Path(path)
    temporary = path.with_name(f".new.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _corrected_save():
            model.save(str(temporary))
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"could not write the model to {path}: {error}") from error
    return path


@contextlib.contextmanager
def _corrected_save():
    """PhysicsNeMo's Module.save asks git for a commit it then does not store, and raises ValueError in a repository without one; and it takes
    brackets in TMPDIR, which PBS gives to array jobs, for a pattern of file names."""
    import physicsnemo.core.module as module

    original = module.get_physicsnemo_pkg_info, module._get_fs
    module.get_physicsnemo_pkg_info = lambda: {"version": version("nvidia-physicsnemo"), "git_hash": ""}
    module._get_fs = lambda _path: SimpleNamespace(put=shutil.copyfile)
    try:
        yield
    finally:
        module.get_physicsnemo_pkg_info, module._get_fs = original


def load_model(path: Path):
    """A model from a `.mdlus` file or a folder that PhysicsNeMo's `save_checkpoint` wrote (the highest epoch).

    Raises
    ------
    CheckpointError
        Nothing there, or not readable.
    """
    from physicsnemo.core.module import Module

    path = Path(path)
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if p.suffix == ".mdlus"), key=lambda p: int(p.stem.split(".")[-1]))
        if not files:
            raise CheckpointError(f"{path} holds no .mdlus file")
        path = files[-1]
    try:
        return Module.from_checkpoint(str(path))
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or not a PhysicsNeMo model ({type(error).__name__}: {error})") from error
