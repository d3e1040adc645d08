"""The folder of a run: made once, written only by its owner, found again by its name.

runs/<run>/config.yaml                     resolved configuration
           origin.json                     commit, hardware, group that it was begun with
           splits.json                     which samples it is trained on, where they are files
           latest_checkpoint.pt            everything to go on from (.previous.pt: the one before)
           best/  final/                   models in PhysicsNeMo's format (.mdlus)
           log.jsonl  figures/             a line an epoch; sections, loss curve
           evaluation/                     metrics.json, samples.csv, report.md, pictures
           evaluations/<time>/             the same, by later calls of evaluate.py
           owner.<n>.json                  who trains here at present (owner.py)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from physics_hybrid.kinds import flat
from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.problem import Config
from physics_hybrid.run import splits as run_splits
from physics_hybrid.run.ledger import METRICS
from physics_hybrid.run.owner import FolderTaken, owned
from physics_hybrid.training import checkpoint

CONFIG = "config.yaml"

#: Settings that may change when a run goes on: they do not touch the weights.
FREE = (
    "problem._target_",
    "tracker.",
    "evaluation.",
    "runs_folder",
    "run",
    "training.log_every",
    "training.monitor_every",
    "training.figures_every",
    "training.checkpoint_every",
    "training.device",
    "training.parallel",
    "data.workers",
    "data.folder",
    "data.stage_to",
    "training.lost_rank_seconds",
    "training.owner_silent_seconds",
    "training.requeue_exit_code",
)

#: Settings that may change when a run goes on, and touch the weights from there on: it is said, the
#: log has it, and the schedule of the learning rate is laid anew.
TAKEN = (
    "training.epochs",
    "training.learning_rate",
    "model.learning_rate",
    "data.batch_size",
)


#: What a run started from, which it has in its state: that may lie elsewhere now.
START = "training.init_from"
#: Settings that older runs had without a key for them.
UNSAID = {
    "model.backbone.block": "zero_linear",
    "model.evaluate_at": "native",
    "problem.cfl": 0.8,
}


@contextlib.contextmanager
def opened(config: dict[str, Any]) -> Iterator[Path]:
    """Make (or find) runs/<run>, and own it.

    Raises
    ------
    FolderTaken
        Another training owns it.
    OSError
        The folder cannot be written.
    """
    place, name = Path(config["runs_folder"]), config["run"]
    with contextlib.ExitStack() as stack:
        try:
            folder = place / str(name) if name else fresh(place)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(owned(folder, config["training"]["owner_silent_seconds"]))
        except FolderTaken:
            raise
        except OSError as error:
            raise OSError(
                f"the run folder {place / str(name or '')} cannot be written"
                f" ({error.strerror or error}): choose another place with runs_folder=FOLDER"
            ) from error
        yield folder


@contextlib.contextmanager
def report_folder(home: Path, output: str | None) -> Iterator[Path]:
    """Where an evaluation writes: `output`, or a new folder of <home>/evaluations.

    One that was made here and got nothing goes again.

    Raises
    ------
    OSError
        The folder cannot be written: known before anything is evaluated.
    """
    folder = Path(output) if output else home / "evaluations"
    made = output is None or not folder.exists()
    try:
        if output is None:
            folder = fresh(folder)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_test.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"the report cannot be written to {folder} ({error.strerror or error}): choose another"
            " place with output=FOLDER"
        ) from error
    try:
        yield folder
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds a report
                folder.rmdir()


def fresh(parent: Path) -> Path:
    """A new folder named after the time: of programs that ask in the same second each gets its
    own.
    """
    parent.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


#: Files that samples are made of, free to lie elsewhere where a run knows samples by their content
#: (`run/splits.py`).
PLACES = ("data.path", "data.tissues")


def changed(old: Config, new: Config, free: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every setting that differs, matters to the weights and is not free, by
    key.
    """
    a, b = leaves(old), leaves(new)
    a = {key: value for key, value in UNSAID.items() if key in b} | a
    differ = [key for key in sorted({*a, *b} - {*free}) if a.get(key) != b.get(key)]
    return {key: (a.get(key), b.get(key)) for key in differ if not is_free(key)}


def leaves(config: Config) -> dict[str, Any]:
    """A nested configuration as `group.key: value`."""
    return {key: value for key, value in flat(config).items() if not isinstance(value, dict)}


def is_free(key: str) -> bool:
    """Whether a setting, or its whole group, may change when a run goes on."""
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE)


@dataclass(frozen=True)
class Resumed:
    """What a run goes on from.

    state : of its training. changes : old and new value by key, of those in `TAKEN`.
    """

    state: dict[str, Any]
    changes: dict[str, tuple[Any, Any]]


def resume(folder: Path, config: dict[str, Any]) -> Resumed | None:
    """What to go on from, or None for a new run.

    Raises
    ------
    CheckpointError
        The configuration differs from that of the run in the folder in more than `TAKEN`, no epoch
        is left that a change could touch, no checkpoint there can be read, or the run was tested
        and its state is gone: begun anew it would lose its weights.
    """
    state = checkpoint.load_latest(folder)
    if state is None and (folder / METRICS).exists():
        raise CheckpointError(
            f"{folder} holds a run that was trained and tested, and {checkpoint.LATEST} is gone."
            f" Use another run=NAME to start afresh, or training.init_from={folder} to start from"
            " its weights"
        )
    if state is None:
        return None
    known = bool(run_splits.recall(folder))
    changes = changed(state["config"], config, free=PLACES if known else ())
    if _moved(*changes.get(START, (None, None))):
        del changes[START]
    refused = [f"{k}: {old} -> {new}" for k, (old, new) in changes.items() if k not in TAKEN]
    if refused:
        more = ["..."] if len(refused) > 6 else []
        raise CheckpointError(
            f"{folder} holds a run with other settings ({'; '.join([*refused[:6], *more])}). Use"
            f" its settings to go on, another run=NAME to start afresh, or"
            f" training.init_from={folder} to start from its weights"
        )
    done, epochs = state["progress"]["epoch"], config["training"]["epochs"]
    if changes and epochs <= done:
        raise CheckpointError(
            f"{folder} has trained {done} epochs, and training.epochs={epochs} leaves none for"
            f" {', '.join(changes)}: ask for more"
        )
    return Resumed(state, changes)


def _moved(old: str | None, new: str | None) -> bool:
    """Whether two paths may be those of one run, which was moved."""
    return old is not None and new is not None and Path(old).name == Path(new).name


def save_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.yaml; the one before is replaced as a whole."""
    temporary = folder / f".{CONFIG}"
    temporary.write_text(yaml.safe_dump(config, sort_keys=False))
    os.replace(temporary, folder / CONFIG)


def load_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a run; None where the folder has none."""
    path = Path(folder) / CONFIG
    if not path.exists():
        return None
    config: dict[str, Any] | None = yaml.safe_load(path.read_text())
    return config
