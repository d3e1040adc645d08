"""What a study, a chain and a sweep have in common: their runs are one group, and end in one table.

    OUTPUT/runs.md     the leaderboard (`run/ledger.py`); study.md and study.png besides

Weights & Biases and TensorBoard, where the runs have them, get the same table in a run of its own
in the group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from physics_hybrid.report.plots import spared
from physics_hybrid.run.ledger import COLUMNS, Run, in_words, leaderboard, value_of
from physics_hybrid.training.tracker import GROUP
from physics_hybrid.writing import write_text

#: What the run of the table is called in the group.
TABLE = "table"


@contextlib.contextmanager
def grouped(name: str) -> Iterator[None]:
    """Runs that are started inside belong to a group: this variable is handed to them."""
    before = os.environ.get(GROUP)
    os.environ[GROUP] = name
    try:
        yield
    finally:
        os.environ.pop(GROUP)
        if before is not None:
            os.environ[GROUP] = before


def conclude(runs: Sequence[Run], name: str, output: Path | None) -> str:
    """The table of a group's runs: written to OUTPUT/runs.md, given to their tracker, returned."""
    if output is not None:
        write_text(output / "runs.md", leaderboard(runs, markdown=True) + "\n")
    with spared("table in the tracker"), grouped(name):
        _track(runs, name, output)
    return leaderboard(runs)


def _track(runs: Sequence[Run], name: str, output: Path | None) -> None:
    """Give the table to the tracker that the runs have."""
    settings = next((t for t in map(_tracker, runs) if t), None)
    if settings is None:
        return
    output = output or runs[0].folder.parent
    from hydra.utils import instantiate

    if "name" in settings:
        settings = {**settings, "name": f"{name} {TABLE}"}
    tracker = instantiate(settings)
    tracker.start(output, {"group": name})
    rows = [[in_words(head, value_of(run, head)) for head in COLUMNS] for run in runs]
    tracker.table("runs", [*COLUMNS], rows)
    for picture in sorted(output.glob("study.png")):
        tracker.figure(picture.stem, picture, 0)
    tracker.finish()


def _tracker(run: Run) -> dict[str, Any] | None:
    """conf/tracker of a run; None where it has none."""
    settings: dict[str, Any] = dict(run.config.get("tracker") or {})
    nothing = str(settings.get("_target_", ".Tracker")).endswith(".Tracker")
    return None if nothing else settings
