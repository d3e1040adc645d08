"""Figures: predicted against true, error by crossing depth, angular distributions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.flavour.data.states import States
from physics_hybrid.problems.flavour.physics.minerbo import distribution
from physics_hybrid.problems.flavour.physics.sphere import frame
from physics_hybrid.report.plots import plain_ticks, pyplot, save

#: Species that are drawn, as they are written: mu stands for tau.
DRAWN = {r"$\nu_e$": 0, r"$\nu_x$": 1, r"$\bar\nu_e$": 3, r"$\bar\nu_x$": 4}
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00")
COMPONENTS = ("$F_x$", "$F_y$", "$F_z$", "$N$")
#: Of contenders, in their order; the last is the model.
MARKS: tuple[dict[str, Any], ...] = (
    {"color": "#999999", "marker": "s"},
    {"color": "#E69F00", "marker": "^"},
    {"color": "#0072B2", "marker": "o"},
)
#: Crossings are sorted into so many groups of as many states for the medians.
GROUPS = 8


def against_truth(batch: States, F: Tensor, alone: Tensor, path: Path, title: str) -> Path:
    """Predicted against true change, a panel a component, a colour a species; Box3D alone behind.

    F, alone : states after, by the model and by Box3D, (B, 6, 4).
    """
    figure, axes = pyplot().subplots(2, 2, figsize=(7.6, 7.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    true, changes = batch.after - batch.before, {"Box3D alone": alone, "model": F}
    for k, axis in enumerate(axes.flat):
        for who, after in changes.items():
            change = after - batch.before
            for (name, species), colour in zip(DRAWN.items(), COLOURS, strict=True):
                pairs = true[:, species, k].cpu(), change[:, species, k].cpu()
                if who == "model":
                    axis.plot(*pairs, ".", markersize=4, color=colour, label=name)
                else:
                    axis.plot(*pairs, "x", markersize=3, color="#BBBBBB", zorder=1)
        largest = 1.05 * float(true[:, list(DRAWN.values()), k].abs().max())
        axis.plot([-largest, largest], [-largest, largest], color="black", linewidth=0.8, zorder=1)
        axis.set(xlim=(-largest, largest), ylim=(-largest, largest), aspect="equal")
        axis.set_xlabel(f"true change of {COMPONENTS[k]} / $N_{{tot}}$")
        axis.set_ylabel("predicted")
        axis.grid(True, alpha=0.3)
    axes[0, 0].plot([], [], "x", markersize=3, color="#BBBBBB", label="Box3D alone")
    axes[0, 0].legend(fontsize=8)
    return save(figure, path)


def by_depth(crossing: Tensor, errors: dict[str, Tensor], path: Path) -> Path:
    """Error against I_small / I_large, a colour a contender; lines are medians of neighbours."""
    figure, axis = pyplot().subplots(figsize=(6.6, 4.4), layout="constrained")
    there = crossing > 0
    depth = crossing[there].double().cpu().numpy()
    parts = np.array_split(np.argsort(depth), min(GROUPS, len(depth)))
    for (name, error), style in zip(errors.items(), MARKS[-len(errors) :], strict=True):
        values = error[there].cpu().numpy()
        axis.plot(depth, values, linestyle="", markersize=2.5, alpha=0.35, **style)
        medians = [(np.median(depth[part]), np.median(values[part])) for part in parts]
        axis.plot(*zip(*medians, strict=True), markersize=5, linewidth=1.6, label=name, **style)
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_ticks(axis)
    axis.set_xlabel(r"depth of the crossing, $I_{small} / I_{large}$")
    axis.set_ylabel("error / largest change")
    axis.grid(True, which="major", alpha=0.3)
    axis.legend(title="points: states; lines: medians", fontsize=8, title_fontsize=8)
    return save(figure, path)


def angles(sample: States, F: Tensor, path: Path, title: str) -> Path:
    """Minerbo distributions in the plane of the lepton flux: before; true and predicted after."""
    axes = frame(sample.before)[0]
    theta = torch.linspace(0, math.pi, 91, dtype=torch.float64, device=axes.device)
    directions = theta.sin()[:, None] * axes[0] + theta.cos()[:, None] * axes[2]
    figure, panels = pyplot().subplots(2, 2, figsize=(8, 6), layout="constrained", sharex=True)
    figure.suptitle(title, fontsize=10)
    drawn: dict[str, tuple[Tensor, dict[str, Any]]] = {
        "before": (sample.before, {"color": "#999999", "linestyle": ":"}),
        "true": (sample.after, {"color": "black"}),
        "predicted": (F, {"color": "#D55E00", "linestyle": "--"}),
    }
    for (name, species), axis in zip(DRAWN.items(), panels.flat, strict=True):
        for label, (state, style) in drawn.items():
            g = distribution(state[0, species].double(), directions)
            axis.plot(theta.cpu() * 180 / math.pi, g.cpu(), linewidth=1.8, label=label, **style)
        axis.set_title(name)
        axis.set_xticks(range(0, 181, 45))
        axis.set_ylim(bottom=0)
        axis.grid(True, alpha=0.3)
    for axis in panels[1]:
        axis.set_xlabel("angle to the lepton number flux (degrees)")
    for axis in panels[:, 0]:
        axis.set_ylabel(r"$g(\theta)\,/\,N_{tot}$ (1/sr)")
    panels[0, 0].legend()
    return save(figure, path)
