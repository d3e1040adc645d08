"""Figures: space and time, error against time, spectra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from physics_hybrid.report.plots import plain_ticks, pyplot, save


def space_time(true: Tensor, predicted: Tensor, dt: float, path: Path, title: str) -> Path:
    """Truth, prediction and error of one rollout (T, N), from t = 0."""
    error = predicted - true
    largest, wrong = float(true.abs().max()), float(error.abs().max()) or 1e-12
    figure, axes = pyplot().subplots(1, 3, figsize=(10, 3.6), layout="constrained", sharey=True)
    figure.suptitle(title)
    extent = (0.0, 1.0, -0.5 * dt, (len(true) - 0.5) * dt)
    panels = (("truth", true, largest), ("prediction", predicted, largest))
    for axis, (name, u, limit) in zip(axes, (*panels, ("error", error, wrong)), strict=True):
        image = axis.imshow(
            u.cpu(),
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="RdBu_r" if name != "error" else "PuOr_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
        )
        axis.set_title(name)
        axis.set_xlabel("x / box")
        label = "u" if name != "error" else "prediction - truth"
        figure.colorbar(image, ax=axis, label=label, shrink=0.9)
    axes[0].set_ylabel("t (box / velocity)")
    return save(figure, path)


def profiles(true: Tensor, predicted: Tensor, path: Path, title: str) -> Path:
    """A few states (B, N), true and predicted."""
    x = (torch.arange(true.shape[1]) + 0.5) / true.shape[1]
    figure, axes = pyplot().subplots(
        1, len(true), figsize=(3.2 * len(true), 3), layout="constrained", squeeze=False
    )
    figure.suptitle(title)
    for axis, u, v in zip(axes[0], true, predicted, strict=True):
        axis.plot(x, u.cpu(), color="black", label="true")
        axis.plot(x, v.cpu(), "--", label="predicted")
        axis.set_xlabel("x / box")
        axis.grid(True, alpha=0.3)
    axes[0, 0].set_ylabel("u")
    axes[0, 0].legend()
    return save(figure, path)


def growth(times: Tensor, errors: Mapping[str, Tensor], path: Path, title: str) -> Path:
    """Mean |e| / |u| against time, a line a contender; the last is the model."""
    figure, axis = pyplot().subplots(figsize=(6.8, 4.4), layout="constrained")
    last = [*errors][-1]
    for name, error in errors.items():
        model = name == last
        style = {"color": "black", "linewidth": 2} if model else {"linewidth": 1.2}
        axis.plot(times, error.cpu(), label=name, **style)
    axis.set_yscale("log")
    plain_ticks(axis)
    axis.set_xlabel("t (box / velocity)")
    axis.set_ylabel("|e| / |u|, mean over samples")
    axis.set_title(title)
    axis.grid(True, which="both", alpha=0.3)
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


def spectra(energies: Mapping[str, Tensor], path: Path, title: str) -> Path:
    """Mean of |u_k|^2 / 2 against wavenumber k; `energies` has the truth first."""
    figure, axis = pyplot().subplots(figsize=(6.8, 4.4), layout="constrained")
    for i, (name, energy) in enumerate(energies.items()):
        style = {"color": "black", "linewidth": 2.5, "alpha": 0.5} if i == 0 else {"linewidth": 1.2}
        k = torch.arange(len(energy))
        axis.plot(k[1:], energy[1:].cpu(), label=name, **style)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("wavenumber k (waves in the box)")
    axis.set_ylabel("|u_k|^2 / 2, mean over samples")
    axis.set_title(title)
    axis.grid(True, which="both", alpha=0.3)
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)
