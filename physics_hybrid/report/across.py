"""A metric across runs: a line a run, a column a test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from physics_hybrid.report.plots import pyplot, save

#: Of the model, and of its baseline alone.
MODEL, ALONE = "#0072B2", "#666666"

#: Name of a run -> test set -> (mean of the metric, that of the baseline alone or None).
Values = Mapping[str, Mapping[str, tuple[float, float | None]]]


def across(runs: Values, metric: str, path: Path) -> Path | None:
    """Dots for the runs in their order, hollow ones for the baseline; None where nothing is known.

    A column for each test set that a run has, in the order in which they come.
    """
    tested: Sequence[str] = list(dict.fromkeys(name for sets in runs.values() for name in sets))
    if not tested:
        return None
    size = (3.0 * len(tested) + 2.6, 0.3 * len(runs) + 1.5)
    figure, axes = pyplot().subplots(
        1, len(tested), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for axis, name in zip(axes[0], tested, strict=True):
        for place, sets in enumerate(runs.values()):
            value, alone = sets.get(name, (None, None))
            if alone is not None:
                axis.plot(alone, place, "D", mfc="none", color=ALONE, ms=7, label="baseline alone")
            if value is not None:
                axis.plot(value, place, "o", color=MODEL, ms=5, label="model")
        axis.set_title(name.replace("x", "×") if name[0].isdigit() else name, fontsize=10)
        axis.set_xlabel(metric.replace("_", " "))
        axis.set_xlim(left=0)
        axis.grid(True, axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(runs)), [*runs])
    axes[0, 0].set_ylim(len(runs) - 0.5, -0.5)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(
        once.values(), once.keys(), loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    return save(figure, path)
