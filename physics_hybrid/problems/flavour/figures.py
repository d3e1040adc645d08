"""Figures: predicted against true, error by crossing depth, angular distributions."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from physics_hybrid.problems.flavour.data.states import States
from physics_hybrid.problems.flavour.physics.fluxes import COMPONENTS
from physics_hybrid.problems.flavour.physics.minerbo import distribution
from physics_hybrid.problems.flavour.physics.sphere import frame
from physics_hybrid.report.plots import plain_ticks, pyplot, save

#: Species that are drawn: mu stands for tau.
DRAWN = {"nu_e": 0, "nu_x": 1, "nubar_e": 3, "nubar_x": 4}


def against_truth(batch: States, F: Tensor, path: Path, title: str) -> Path:
    """Predicted against true change, a panel a component, a colour a species."""
    figure, axes = pyplot().subplots(2, 2, figsize=(8, 7.4), layout="constrained")
    figure.suptitle(title)
    for k, axis in enumerate(axes.flat):
        for name, species in DRAWN.items():
            true = (batch.after - batch.before)[:, species, k].cpu()
            change = (F - batch.before)[:, species, k].cpu()
            axis.plot(true, change, ".", markersize=4, label=name)
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        axis.set_xlabel(f"true change of {COMPONENTS[k]} / N_tot")
        axis.set_ylabel("predicted")
        axis.grid(True, alpha=0.3)
    axes[0, 0].legend()
    return save(figure, path)


def by_depth(crossing: Tensor, errors: dict[str, Tensor], path: Path) -> Path:
    """Error against I_small / I_large, a colour a contender."""
    figure, axis = pyplot().subplots(figsize=(6.4, 4.4), layout="constrained")
    there = crossing > 0
    for name, error in errors.items():
        axis.plot(crossing[there].cpu(), error[there].cpu(), ".", markersize=4, label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_ticks(axis)
    axis.set_xlabel("depth of the crossing, I_small / I_large")
    axis.set_ylabel("error / largest change")
    axis.grid(True, which="both", alpha=0.3)
    axis.legend()
    return save(figure, path)


def angles(sample: States, F: Tensor, path: Path, title: str) -> Path:
    """Distributions in the plane of the lepton flux: before, true after, predicted after."""
    axes = frame(sample.before)[0]
    theta = torch.linspace(0, math.pi, 91, dtype=torch.float64, device=axes.device)
    directions = theta.sin()[:, None] * axes[0] + theta.cos()[:, None] * axes[2]
    figure, panels = pyplot().subplots(2, 2, figsize=(8, 6.4), layout="constrained", sharex=True)
    figure.suptitle(title)
    drawn = {"before": (sample.before, ":"), "true": (sample.after, "-"), "predicted": (F, "--")}
    for (name, species), axis in zip(DRAWN.items(), panels.flat, strict=True):
        for label, (state, style) in drawn.items():
            g = distribution(state[0, species].double(), directions)
            axis.plot(theta.cpu() * 180 / math.pi, g.cpu(), style, label=label)
        axis.set_title(name)
        axis.set_xlabel("angle to the lepton number flux (degrees)")
        axis.set_ylabel("per N_tot and steradian")
        axis.grid(True, alpha=0.3)
    panels[0, 0].legend()
    return save(figure, path)
