"""What each of the three models is trained on: `loss(network, model, batch)`.

`network` is what a gradient must go through (with several ranks a wrapper of `model`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from physics_hybrid.problems.burgers.uncertain.networks import LEVELS, consistent, schedule

#: Weight of the mean square error, so that its gradient is of the size that is clipped.
MEAN_SCALE = 10.0
#: Of the robust loss of consistency, and of the average that is its target.
ROBUST, TARGET_DECAY = 0.03, 0.95


@dataclass(frozen=True)
class Forecasts:
    """Observations, and what the states became.

    features : (B, 2, N), [y, B]. observed : (B, C), y. target : (B, N).
    """

    features: Tensor
    observed: Tensor
    target: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def mean_loss(network: nn.Module, model: Any, batch: Forecasts) -> Tensor:
    error: Tensor = network(batch.features) - batch.target
    return MEAN_SCALE * error.square().mean()


def diffusion_loss(network: nn.Module, model: Any, batch: Forecasts) -> Tensor:
    """Denoising score matching of the residual, PhysicsNeMo's."""
    from physicsnemo.diffusion.metrics import MSEDSMLoss

    condition, residual = _residual(model, batch)
    loss: Tensor = MSEDSMLoss(network, schedule())(residual, condition=condition)
    return loss


def consistency_loss(network: nn.Module, model: Any, batch: Forecasts) -> Tensor:
    """One answer at two levels of noise that one of the teacher's steps joins.

    Pseudo-Huber distance (Song and Dhariwal, Improved consistency training, 2024, eq. 7).
    """
    condition, residual = _residual(model.teacher, batch)
    levels = schedule().timesteps(LEVELS)[:-1].flip(0).to(residual)
    k = torch.randint(0, LEVELS - 1, (len(batch),), device=residual.device)
    high, low = levels[k + 1], levels[k]
    x = residual + high.view(-1, 1, 1) * torch.randn_like(residual)
    with torch.no_grad():
        below = _heun(model.teacher, x, high, low, condition)
        answer = consistent(model.target, below, low, condition)
    distance = (network(x, high, condition) - answer).square().mean(dim=(1, 2))
    if torch.is_grad_enabled():
        _follow(model.target, model.student)
    loss: Tensor = ((distance + ROBUST**2).sqrt() - ROBUST).mean()
    return loss


def _residual(diffusion: Any, batch: Forecasts) -> tuple[Tensor, Tensor]:
    condition = diffusion.condition(batch.features)
    return condition, ((batch.target - condition[:, 2]) / diffusion.std)[:, None]


def _heun(teacher: nn.Module, x: Tensor, high: Tensor, low: Tensor, condition: Tensor) -> Tensor:
    """One of Heun's steps of dx / dsigma = (x - D(x, sigma)) / sigma."""
    a, b = high.view(-1, 1, 1), low.view(-1, 1, 1)
    first = (x - teacher(x, high, condition=condition)) / a
    euler = x + (b - a) * first
    second = (euler - teacher(euler, low, condition=condition)) / b
    step: Tensor = x + (b - a) * 0.5 * (first + second)
    return step


@torch.no_grad()
def _follow(target: nn.Module, student: nn.Module) -> None:
    for average, weight in zip(target.parameters(), student.parameters(), strict=True):
        average.lerp_(weight, 1 - TARGET_DECAY)


#: By model.form.
LOSSES: dict[str, Callable[[nn.Module, Any, Forecasts], Tensor]] = {
    "mean": mean_loss,
    "diffusion": diffusion_loss,
    "consistency": consistency_loss,
}
