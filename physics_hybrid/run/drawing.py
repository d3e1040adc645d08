"""Figures of several runs, from their files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from physics_hybrid.kinds import UsageError
from physics_hybrid.report.across import across
from physics_hybrid.report.curve import curves
from physics_hybrid.run.ledger import COMPARISONS, Run, find, ordered, runs_below
from physics_hybrid.training import log


def draw(
    words: Sequence[str],
    place: Path,
    metric: str | None = None,
    sets: Sequence[str] | None = None,
    output: Path | None = None,
) -> list[Path]:
    """metrics.png and curves.png of runs; what was written.

    words : names of runs below `place`, or folders; none: all that were tested.
    metric : else the main one of the first run that was tested. sets : test sets; None: all.

    Raises
    ------
    UsageError
        No such run, or no run has the metric.
    """
    if words:
        runs = [find(word, place) for word in words]
    else:
        runs = ordered([run for run in runs_below(place) if run.tables])
    tested = [run for run in runs if run.tables]
    if not runs:
        raise UsageError(f"no run below {place} was tested: name the runs")
    folder = Path(output or place / COMPARISONS)
    drawn = []
    if tested:
        name = metric or tested[0].monitor
        values = {run.name: _values(run, name, sets) for run in tested}
        path = across(values, name, folder / "metrics.png")
        if path is None:
            known = ", ".join(tested[0].own_metrics(tested[0].tested))
            raise UsageError(f"no run has --metric {name} on these test sets; there are {known}")
        drawn.append(path)
    logs = {run.name: log.records(run.folder) for run in runs if (run.folder / log.LOG).exists()}
    curve = curves(logs, folder / "curves.png")
    return [*drawn, *([curve] if curve else [])]


def _values(
    run: Run, metric: str, sets: Sequence[str] | None
) -> dict[str, tuple[float, float | None]]:
    out = {}
    for tested in sets or run.tables:
        value = run.mean(tested, metric)
        if value is not None:
            out[tested] = value, run.mean(tested, run.alone + metric)
    return out
