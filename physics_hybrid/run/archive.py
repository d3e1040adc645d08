"""Runs out of the way: moved to FOLDER/archive, where they are runs as before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from physics_hybrid.kinds import UsageError
from physics_hybrid.run.ledger import ARCHIVE, Run, find


def archive(words: Sequence[str], place: Path, sure: bool) -> list[Path]:
    """Move runs of a folder to its archive; their places there.

    sure : without it nothing is moved.

    Raises
    ------
    UsageError
        A run that there is not, that is trained at present, or of a name that the archive has
        already; or nobody said yes. Nothing is moved then.
    """
    found = [find(word, place) for word in words]
    runs = [*{run.folder.resolve(): run for run in found}.values()]
    moves = [(run.folder, place / ARCHIVE / _name(run, place)) for run in runs]
    for run, (_, target) in zip(runs, moves, strict=True):
        if run.owner is not None:
            raise UsageError(f"{run.name} is trained at present by {run.owner}: end it first")
        if target.exists():
            raise UsageError(f"{target} is there already: nothing was moved")
    if not sure:
        plan = "; ".join(f"{source} -> {target}" for source, target in moves)
        raise UsageError(f"this would move {plan}: add --yes")
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    return [target for _, target in moves]


def _name(run: Run, place: Path) -> Path:
    """Where a run lies below the folder: STUDY/CELL keeps its study."""
    folder, home = run.folder.resolve(), place.resolve()
    return folder.relative_to(home) if folder.is_relative_to(home) else Path(folder.name)
