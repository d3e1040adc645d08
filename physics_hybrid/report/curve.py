"""The curve of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from physics_hybrid.report.plots import plain_ticks, pyplot, save

#: Values of a record that are no part of the loss.
NO_LOSS = {"train/gradient_norm", "train/parameter_norm", "train/learning_rate"}


def training_curve(records: list[dict[str, Any]], monitor: str, path: Path) -> Path | None:
    """Loss terms and the validation metric over optimiser steps, from log.jsonl.

    None where there is nothing to draw.
    """
    if not records:
        return None
    figure, axis = pyplot().subplots(figsize=(7.4, 4.2), layout="constrained")
    names = [k for k in records[-1] if k.startswith("train/") and k not in NO_LOSS]
    for name in names:
        points = [(r["step"], r[name]) for r in records if r.get(name, 0) > 0]
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, marker=".", label=f"training {name.removeprefix('train/')}")
    key = f"validation/{monitor}"
    points = [(r["step"], r[key]) for r in records if key in r]
    if points:
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, marker="o", color="black", label=f"validation {monitor}")
    axis.set_yscale("log")
    plain_ticks(axis)
    axis.set_xlabel("optimiser step")
    axis.set_ylabel("mean over the epoch (dimensionless)")
    axis.grid(True, which="both", alpha=0.3)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


#: Colours of runs that are drawn together, told apart by everybody (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path | None:
    """Training loss, and the validation metrics that all have, of several runs over their steps.

    runs : name -> records of its log.jsonl. None where there is nothing to draw.
    """
    runs = {name: records for name, records in runs.items() if records}
    keys = ["train/loss", *_validated(list(runs.values()))]
    if not runs:
        return None
    figure, axes = pyplot().subplots(
        1, len(keys), figsize=(4.2 * len(keys), 3.8), squeeze=False, layout="constrained"
    )
    for axis, key in zip(axes[0], keys, strict=True):
        for number, (name, records) in enumerate(runs.items()):
            points = [(r["step"], r[key]) for r in records if r.get(key, 0) > 0]
            if points:
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(*zip(*points, strict=True), ".-", color=colour, label=name)
        axis.set_yscale("log")
        plain_ticks(axis)
        axis.set_xlabel("optimiser step")
        axis.set_title(key.replace("/", " "), fontsize=10)
        axis.grid(True, which="major", alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1, fontsize=8, frameon=False)
    return save(figure, path)


def _validated(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """The first validation metric that every run has: the one that a problem names first."""
    first = [next((r for r in records if _has_validation(r)), {}) for records in runs]
    names = [name for name in (first[0] if first else {}) if name.startswith("validation/")]
    return [name for name in names if all(name in record for record in first)][:1]


def _has_validation(record: Mapping[str, Any]) -> bool:
    return any(name.startswith("validation/") for name in record)
