"""Amplitude and phase beside the truth and ePIE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.report.plots import pyplot, save


def objects(shown: Mapping[str, Tensor], path: Path, title: str, *, phase: bool) -> Path:
    """A column each, amplitude above phase; colours are those of the first.

    shown : name -> object (H, W), complex, already aligned.
    """
    rows = 2 if phase else 1
    count = len(shown)
    figure, axes = pyplot().subplots(
        rows, count, figsize=(2.9 * count + 0.7, 2.9 * rows + 0.5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    figure.suptitle(title, fontsize=10)
    first = next(iter(shown.values()))
    _row(axes[0], {k: v.abs() for k, v in shown.items()}, _limits(first.abs()), "viridis")
    figure.colorbar(axes[0, -1].images[0], ax=list(axes[0]), label="amplitude / its mean")
    for axis, name in zip(axes[0], shown, strict=True):
        axis.set_title(name, fontsize=10)
    if phase:
        angles = {k: torch.angle(v) for k, v in shown.items()}
        _row(axes[1], angles, _limits(angles[next(iter(shown))]), "twilight_shifted")
        figure.colorbar(axes[1, -1].images[0], ax=list(axes[1]), label="phase, rad")
    axes[-1, 0].set_xlabel("pixels")
    for row in axes:
        row[0].set_ylabel("pixels")
    return save(figure, path)


def _limits(values: Tensor) -> tuple[float, float]:
    """Of the colours: of a phase the same on both sides of 0."""
    low, high = float(values.min()), float(values.max())
    if low < 0:
        high = min(max(-low, high), math.pi)
        return -high, high
    return 0.0, high


def _row(axes: Any, images: Mapping[str, Tensor], limits: tuple[float, float], map_: str) -> None:
    low, high = limits
    for axis, image in zip(axes, images.values(), strict=True):
        axis.imshow(np.asarray(image.cpu()), vmin=low, vmax=high, cmap=map_)
        if axis is not axes[0]:
            axis.set_yticklabels([])


def frames(measured: Tensor, predicted: Tensor, path: Path, title: str) -> Path:
    """Far fields measured and predicted, logarithms of some frames."""
    count = len(measured)
    figure, axes = pyplot().subplots(
        2, count, figsize=(2.1 * count + 0.9, 4.6), squeeze=False, layout="constrained"
    )
    figure.suptitle(title, fontsize=10)
    floor = float(measured.max()) * 1e-4
    for column, pair in enumerate(zip(measured, predicted, strict=True)):
        for axis, image in zip(axes[:, column], pair, strict=True):
            shown = axis.imshow(
                np.log10(np.asarray(image.detach().cpu()).clip(floor)),
                vmin=math.log10(floor),
                vmax=math.log10(float(measured.max())),
                cmap="magma",
            )
            axis.set_xticks([])
            axis.set_yticks([])
    axes[0, 0].set_ylabel("measured")
    axes[1, 0].set_ylabel("predicted")
    figure.colorbar(shown, ax=axes, label="log10 of the amplitude")
    return save(figure, path)
