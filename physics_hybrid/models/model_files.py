"""Models in PhysicsNeMo's own format: `.mdlus` files, and folders of its `save_checkpoint`.

PhysicsNeMo's writer is not atomic (issue 2012): here it writes into a temporary folder, which is
then renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from physics_hybrid.reading import meaning


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or does not fit. Names the file and what to do."""


def save_model(folder: Path, model: Any, epoch: int, metadata: dict[str, Any]) -> Path:
    """Write a model with PhysicsNeMo's `save_checkpoint` into `folder`, replaced as a whole.

    Raises
    ------
    CheckpointError
        Disk full, folder not writable: the model that was there is untouched.
    """
    from physicsnemo.utils.checkpoint import save_checkpoint

    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    try:
        # killed between the two renames below: this is the only copy
        if old.exists() and not folder.exists():
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


def export_model(path: Path, model: Any) -> Path:
    """Write one `.mdlus` file, renamed into place.

    Raises
    ------
    CheckpointError
        Disk full, folder not writable.
    """
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
def _corrected_save() -> Iterator[None]:
    """PhysicsNeMo's Module.save, put right.

    It asks git for a commit it then does not store, and raises ValueError in a repository without
    one; and it takes brackets in TMPDIR, which PBS gives to array jobs, for a pattern of file
    names.
    """
    import physicsnemo.core.module as module

    original = module.get_physicsnemo_pkg_info, module._get_fs
    about = {"version": version("nvidia-physicsnemo"), "git_hash": ""}
    files = SimpleNamespace(put=shutil.copyfile)
    module.get_physicsnemo_pkg_info = lambda: about
    module._get_fs = lambda _path: files
    try:
        yield
    finally:
        module.get_physicsnemo_pkg_info, module._get_fs = original


def load_model(path: Path) -> Any:
    """A model from a `.mdlus` file, or from a folder: the only one there, or that of the highest
    epoch of `save_checkpoint`.

    Raises
    ------
    CheckpointError
        Nothing there, not readable, or several that are no epochs of one model.
    """
    from physicsnemo.core.module import Module

    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.is_dir():
        path = _newest(path)
    try:
        return Module.from_checkpoint(str(path))
    except Exception as error:
        rule = meaning(error, "a PhysicsNeMo model", str(path))
        raise CheckpointError(f"{path} {rule}") from error


def _newest(folder: Path) -> Path:
    """The model that a folder stands for. Name.0.12.mdlus is of epoch 12."""
    files = sorted(p for p in folder.iterdir() if p.suffix == ".mdlus" and p.name[0] != ".")
    if not files:
        raise CheckpointError(f"{folder} holds no .mdlus file")
    if len(files) == 1:
        return files[0]
    epochs = {path: re.fullmatch(r"(.+)\.(\d+)", path.stem) for path in files}
    models = {match[1] if match else path.stem for path, match in epochs.items()}
    if len(models) > 1:
        raise CheckpointError(
            f"{folder} holds several models: {', '.join(p.name for p in files)}. Give one of the"
            " files instead of the folder"
        )
    return max(files, key=lambda path: int(path.stem.rsplit(".", 1)[1]))
