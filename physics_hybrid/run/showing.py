"""One run, as a page of words: all that its files tell."""

from __future__ import annotations

import time
from typing import Any

from physics_hybrid.report.markdown import table
from physics_hybrid.run.ledger import COLUMNS, STATES, Run, in_words, value_of


def shown(run: Run) -> str:
    """Markdown: what it is, how it came, its metrics by test set."""
    parts = [f"# {run.name}", _about(run)]
    if run.tables:
        parts.append(_metrics(run))
    parts += [_origin(run), _where(run)]
    return "\n\n".join(part for part in parts if part)


def _about(run: Run) -> str:
    state = f"{run.state}: {STATES[run.state]}" + (f" ({run.why})" if run.why else "")
    lines = [("state", state)]
    lines += [(name, in_words(name, value_of(run, name))) for name in COLUMNS if name != "state"]
    return "\n".join(f"- {name}: {value}" for name, value in lines[:1] + lines[2:] if value)


def _metrics(run: Run) -> str:
    """Mean and 95th percentile of each metric of the model, and the mean of the baseline."""
    rows: list[list[Any]] = []
    for tested, metrics in run.tables.items():
        for name in run.own_metrics(tested):
            entry, alone = metrics[name], metrics.get(run.alone + name)
            spread = "" if entry.get("p95") is None else _number(entry["p95"])
            baseline = "" if alone is None else _number(alone["mean"])
            rows.append([tested, name, _number(entry["mean"]), spread, baseline])
    return table(["tested on", "metric", "mean", "p95", "baseline alone, mean"], rows)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _origin(run: Run) -> str:
    known = {**run.origin, **{k: v for k, v in run.metrics.items() if not isinstance(v, dict)}}
    known.pop("checkpoint", None)
    return "\n".join(f"- {name}: {value}" for name, value in known.items() if value is not None)


def _where(run: Run) -> str:
    pictures = sorted(p.relative_to(run.folder).as_posix() for p in run.folder.rglob("*.png"))
    size = sum(p.stat().st_size for p in run.folder.rglob("*") if p.is_file())
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.changed))
    lines = [f"{run.folder}: {size / 1e6:.1f} MB, last changed {when}"]
    if run.report is not None and (run.report / "report.md").exists():
        lines.append(f"report: {run.report / 'report.md'}")
    if pictures:
        lines.append("pictures: " + ", ".join(pictures))
    return "\n".join(lines)
