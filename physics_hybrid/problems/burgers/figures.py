"""Figures: space and time, error against time, spectra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.report.plots import plain_ticks, pyplot, save


def space_time(
    true: Tensor, predicted: Tensor, dt: float, path: Path, title: str, first: int = 0
) -> Path:
    """Truth, prediction and error of one rollout (T, N), from frame `first` on."""
    error = predicted - true
    largest, wrong = float(true.abs().max()), float(error.abs().max()) or 1e-12
    figure, axes = pyplot().subplots(1, 3, figsize=(10, 3.6), layout="constrained", sharey=True)
    figure.suptitle(title)
    extent = (0.0, 1.0, (first - 0.5) * dt, (first + len(true) - 0.5) * dt)
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


def ensemble(observed: Tensor, members: Tensor, true: Tensor, path: Path, title: str) -> Path:
    """Members (K, N) with their 5 to 95 % band, truth (N,), and what was known of the start."""
    x = (torch.arange(len(true)) + 0.5) / len(true)
    seen = (torch.arange(len(observed)) + 0.5) / len(observed)
    figure, axes = pyplot().subplots(
        2, 1, figsize=(7, 5.6), layout="constrained", sharex=True, height_ratios=(1, 2)
    )
    figure.suptitle(title)
    axes[0].plot(seen, observed.cpu(), "o", color="black", markersize=3)
    axes[0].set_ylabel("observed u(t)")
    values = members.cpu()
    if len(values) > 1:
        low, high = values.quantile(torch.tensor([0.05, 0.95]), dim=0)
        axes[1].fill_between(x, low, high, color="tab:blue", alpha=0.25, label="5 to 95 %")
        axes[1].plot(x, values[:4].T, color="tab:blue", linewidth=0.6, alpha=0.7)
    axes[1].plot(x, values.mean(dim=0), color="tab:blue", label="mean of the members")
    axes[1].plot(x, true.cpu(), color="black", label="truth")
    axes[1].set_xlabel("x / box")
    axes[1].set_ylabel("u(t + 1)")
    axes[1].legend(fontsize="small")
    for axis in axes:
        axis.grid(True, alpha=0.3)
    return save(figure, path)


def spread_skill(contenders: Mapping[str, tuple[Any, Any]], path: Path) -> Path:
    """Error of the mean against spread, in bins of samples of like spread, a line a contender."""
    figure, axis = pyplot().subplots(figsize=(6, 5.4), layout="constrained")
    largest = 0.0
    for name, (spread, error) in contenders.items():
        order = np.argsort(spread)
        bins = np.array_split(order, min(6, len(order)))
        x = [float(np.sqrt(np.mean(spread[b] ** 2))) for b in bins]
        y = [float(np.sqrt(np.mean(error[b] ** 2))) for b in bins]
        axis.plot(x, y, "o-", markersize=4, linewidth=1.2, label=name)
        largest = max(largest, *x, *y)
    axis.plot([0, largest], [0, largest], color="black", linewidth=0.8, label="ideal")
    axis.set_xlabel("spread of the ensemble (root mean square in a bin of samples)")
    axis.set_ylabel("error of its mean")
    axis.grid(True, alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    return save(figure, path)


def maps(
    first: Tensor, true: Tensor, predicted: Tensor, time: float, path: Path, title: str
) -> Path:
    """A state of the square (N, N) at the start, later, predicted, and the error."""
    error = predicted - true
    largest, wrong = float(first.abs().max()), float(error.abs().max()) or 1e-12
    figure, axes = pyplot().subplots(1, 4, figsize=(12, 3.4), layout="constrained", sharey=True)
    figure.suptitle(title)
    panels = {
        "t = 0": (first, largest, "RdBu_r"),
        f"truth, t = {time:g}": (true, largest, "RdBu_r"),
        "prediction": (predicted, largest, "RdBu_r"),
        "error": (error, wrong, "PuOr_r"),
    }
    for axis, (name, (u, limit, colours)) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(
            u.T, origin="lower", extent=(0, 1, 0, 1), cmap=colours, vmin=-limit, vmax=limit
        )
        axis.set_title(name)
        axis.set_xlabel("x / box")
        figure.colorbar(image, ax=axis, shrink=0.8)
    axes[0].set_ylabel("y / box")
    return save(figure, path)
