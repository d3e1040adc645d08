"""The card of a model, from the files of its run: what it is, what it was trained on, how good it
is, where the numbers come from.

The headings are those of Mitchell et al., Model Cards for Model Reporting, FAT* (2019) 220.
"""

from __future__ import annotations

from pathlib import Path

from physics_hybrid.kinds import flat, written
from physics_hybrid.report.markdown import table
from physics_hybrid.run.ledger import Run, in_words, read
from physics_hybrid.writing import write_text

FILE = "model_card.md"
#: Keys of the data that say how they are read, and not what they are.
OF_READING = ("data.workers", "data.folder", "data.stage_to", "data.solve_together")


def write_card(folder: Path) -> Path:
    """model_card.md beside the report of a run that was tested. Raises OSError."""
    path = Path(folder) / "evaluation" / FILE
    write_text(path, card(read(folder)))
    return path


def card(run: Run) -> str:
    """Markdown."""
    size = in_words("parameters", run.parameters)
    about = run.metrics
    return (
        "\n\n".join(
            [
                f"# {run.model}: {run.problem}",
                "## Model details",
                f"Run {run.name}, seed {run.seed}, epoch {about.get('epoch', run.epoch)} of"
                f" {run.epochs}; {size} parameters; commit {run.commit or 'unknown'}, torch"
                f" {about.get('torch', 'unknown')}, {about.get('date', '')}.",
                "## Intended use",
                f"As the problem `{run.problem}` defines it, on inputs like those below. Its error"
                " on others is not known.",
                "## Training data",
                _keys(run, "data"),
                "## Training",
                _keys(run, "training"),
                "## Metrics",
                _metrics(run),
            ]
        )
        + "\n"
    )


def _keys(run: Run, group: str) -> str:
    leaves = flat({group: dict(run.config.get(group) or {})})
    rows = [
        [key, written(value)]
        for key, value in leaves.items()
        if not isinstance(value, dict) and value is not None and key not in OF_READING
    ]
    return table(["key", "value"], rows)


def _metrics(run: Run) -> str:
    """The main metric on each test set, beside the baseline."""
    rows = []
    for tested in run.tables:
        ours, alone = (run.mean(tested, p + run.monitor) for p in ("", run.alone))
        rows.append([tested, _number(ours), _number(alone)])
    return table(["tested on", f"{run.monitor}, mean", "baseline alone"], rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
