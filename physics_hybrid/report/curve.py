"""The curve of a training."""

from __future__ import annotations

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
