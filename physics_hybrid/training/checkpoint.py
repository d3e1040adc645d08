"""Checkpoints that cannot be lost.

`latest_checkpoint.pt` holds everything a training needs to go on; it is written beside, flushed to
disk and renamed, and the one before stays as `latest_checkpoint.previous.pt`. Every file is checked
against its checksums before it is believed, and read with `weights_only=True`. Models beside it
(`best/`, `final/`) are those of `models/model_files.py`.
"""

from __future__ import annotations

import io
import os
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.reading import meaning

LATEST = "latest_checkpoint.pt"
PREVIOUS = "latest_checkpoint.previous.pt"


def save_state(folder: Path, state: dict[str, Any]) -> Path:
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
        kept, what_is_left = latest if latest.exists() else previous, "nothing was saved yet"
        if kept.exists():
            what_is_left = (
                f"{kept} from before is intact; make room and start again to go on from it"
            )
        raise CheckpointError(
            f"could not write {latest} ({len(buffer.getbuffer()) / 1e6:.1f} MB): {error}."
            f" {what_is_left}"
        ) from error
    return latest


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # a rename is on disk only once its folder is; Windows has no such call
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_state(path: Path) -> dict[str, Any]:
    """Read one state file.

    Raises
    ------
    CheckpointError
        Missing, truncated, or a checksum does not match.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise CheckpointError(
                f"{path} is damaged: the checksum of its part {damaged} does not match"
            )
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    # zipfile, zlib, struct, pickle: each has its own way to say 'truncated'
    except Exception as error:
        rule = meaning(error, "a checkpoint", str(path))
        raise CheckpointError(f"{path} {rule}") from error
    return state


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest state in a run folder that is whole; None where there is none at all.

    A damaged latest file is reported on standard error and the one before is used.

    Raises
    ------
    CheckpointError
        If files are there and none can be read.
    """
    # the last one is there only where a kill hit the moment between two renames of `save_state`
    names = (LATEST, PREVIOUS, f".{LATEST}.new")
    problems: list[str] = []
    for path in [Path(folder) / name for name in names]:
        if not path.exists():
            continue
        try:
            state = load_state(path)
        except CheckpointError as error:
            problems.append(str(error))
            print(f"WARNING: {error}", file=sys.stderr, flush=True)
            continue
        if problems:
            done = state["progress"]
            print(
                f"WARNING: going on from {path} (epoch {done['epoch']}, step {done['step']})"
                " instead",
                file=sys.stderr,
                flush=True,
            )
        return state
    if problems:
        raise CheckpointError(
            f"no checkpoint can be read: {'; '.join(problems)}. Choose another run=NAME to start"
            " afresh"
        )
    return None


def rng_state() -> dict[str, Any]:
    """All random states of this process, in types that `weights_only` loading accepts."""
    legacy: Any = np.random.get_state()  # a problem may draw from it  # noqa: NPY002
    kind, keys, position, has_gauss, cached = legacy
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(words), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Take up the random states that `rng_state` gave; GPUs that are not here are left out."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    kind, keys, position, has_gauss, cached = state["numpy"]
    legacy = (kind, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    np.random.set_state(legacy)  # a problem may draw from it  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
