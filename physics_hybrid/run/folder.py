"""The folder of a run: made once, written only by its owner, found again by its name.

runs/<run>/config.yaml                     resolved configuration
           latest_checkpoint.pt            everything to go on from (.previous.pt: the one before)
           best/  final/                   models in PhysicsNeMo's format (.mdlus)
           log.jsonl  figures/             a line an epoch; sections, loss curve
           evaluation/                     metrics.json, samples.csv, report.md, pictures
           evaluations/<time>/             the same, by later calls of evaluate.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

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
    "training.figures_every",
    "training.checkpoint_every",
    "training.device",
    "data.workers",
    "data.folder",
    "data.stage_to",
    "training.lost_rank_seconds",
    "training.requeue_exit_code",
)


def open_run(config: dict[str, Any]) -> Path:
    """Make (or find) runs/<run>.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    folder = Path(config["runs_folder"]) / str(config["run"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_test.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"the run folder {folder} cannot be written ({error.strerror or error}): choose another"
            " place with runs_folder=FOLDER"
        ) from error
    return folder


def flat(node: dict, prefix: str = "") -> dict[str, Any]:
    """A nested configuration as `group.key: value`."""
    return {
        k: v
        for key, value in node.items()
        for k, v in (
            flat(value, f"{prefix}{key}.").items()
            if isinstance(value, dict)
            else [(f"{prefix}{key}", value)]
        )
    }


def changed(old: dict, new: dict) -> list[str]:
    """`key: old -> new` for every setting that differs and matters to the weights."""
    a, b = flat(old), flat(new)
    keys = [
        k
        for k in sorted({*a, *b})
        if a.get(k) != b.get(k)
        and not any(k == f or (f.endswith(".") and k.startswith(f)) for f in FREE)
    ]
    return [f"{k}: {a.get(k)} -> {b.get(k)}" for k in keys]


def resume(folder: Path, config: dict[str, Any]) -> dict | None:
    """The state to go on from, or None for a new run.

    Raises
    ------
    CheckpointError
        The configuration differs from that of the run in the folder, or no checkpoint there can be
        read.
    """
    state = checkpoint.load_latest(folder)
    if state is None:
        return None
    difference = changed(state["config"], config)
    if difference:
        raise checkpoint.CheckpointError(
            f"{folder} holds a run with other settings"
            f" ({'; '.join(difference[:6])}{'; ...' if len(difference) > 6 else ''}). Use its"
            f" settings to go on, another run=NAME to start afresh, or training.init_from={folder}"
            " to start from its weights"
        )
    return state


def save_config(folder: Path, config: dict[str, Any]) -> None:
    temporary = folder / f".{CONFIG}"
    temporary.write_text(yaml.safe_dump(config, sort_keys=False))
    os.replace(temporary, folder / CONFIG)


def load_config(folder: Path) -> dict[str, Any] | None:
    path = Path(folder) / CONFIG
    return yaml.safe_load(path.read_text()) if path.exists() else None
