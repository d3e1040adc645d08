"""Selection among candidates while a rollout goes on, with the controls that show what it is worth.

At each step K candidates start from slightly perturbed states, and one goes on:

    mass        the smallest change of the mean
    energy      the smallest rise of the energy
    residual    the nearest to what a stepper makes of the same state

beside them random (any one), mean (of all K), oracle (the nearest to the truth, which nobody has)
and deterministic (one step, unperturbed). An experiment, in no default path: a stepper that serves
as a reward may as well be used alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.burgers.guards import energy_excess
from physics_hybrid.problems.burgers.metrics import frame_errors
from physics_hybrid.problems.burgers.stepper import advance, resample

#: From candidates (K, B, N), the state before (B, N), what a stepper makes of it and the truth, to
#: a cost of each candidate (K, B); the least is chosen.
Cost = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Selection:
    """candidates : K. perturbation : standard deviation of what is added to a state, over its root
    mean square. cells : of the stepper in `residual`.
    """

    candidates: int = 8
    perturbation: float = 0.003
    cells: int = 256


@dataclass(frozen=True)
class Chosen:
    """path : (B, T, N), without the start. evaluations : of the network, a step and sample."""

    path: Float[Tensor, "B T N"]
    evaluations: int

    def error(self, true: Float[Tensor, "B T N"]) -> Float[Tensor, " B"]:
        """Mean |e| / |u| over frames."""
        return frame_errors(self.path, true).mean(dim=1)


def _mass(candidates: Tensor, before: Tensor, stepped: Tensor, true: Tensor) -> Tensor:
    return (candidates.mean(dim=2) - before.mean(dim=1)).abs()


def _energy(candidates: Tensor, before: Tensor, stepped: Tensor, true: Tensor) -> Tensor:
    return energy_excess(candidates, before.expand_as(candidates))


def _residual(candidates: Tensor, before: Tensor, stepped: Tensor, true: Tensor) -> Tensor:
    return (candidates - stepped).square().mean(dim=2)


def _oracle(candidates: Tensor, before: Tensor, stepped: Tensor, true: Tensor) -> Tensor:
    return (candidates - true).square().mean(dim=2)


REWARDS: dict[str, Cost] = {
    "mass": _mass,
    "energy": _energy,
    "residual": _residual,
    "oracle": _oracle,
}


@torch.no_grad()
def compare(
    step: Any,
    frames: Float[Tensor, "B T N"],
    nu: Float[Tensor, " B"],
    settings: Selection,
    generator: torch.Generator,
) -> dict[str, Chosen]:
    """Rollouts from frame 0, one for each reward and each control.

    step : anything with `step(u, nu)` and `dt`.
    """
    K, count = settings.candidates, frames.shape[1] - 1
    out = {"deterministic": Chosen(_path(step, frames, nu, lambda u, _: step.step(u, nu)), 1)}

    def draw(u: Tensor) -> Tensor:
        """K candidates for what follows u."""
        size = settings.perturbation * u.square().mean(dim=1, keepdim=True).sqrt()
        noise = torch.randn(K, *u.shape, generator=generator).to(u)
        starts = (u + size * noise).flatten(0, 1)
        later: Tensor = step.step(starts, nu.repeat(K))
        return later.reshape(K, *u.shape)

    def mean(u: Tensor, _: Tensor) -> Tensor:
        return draw(u).mean(dim=0)

    def random(u: Tensor, _: Tensor) -> Tensor:
        return draw(u)[0]

    out["mean"] = Chosen(_path(step, frames, nu, mean), K)
    out["random"] = Chosen(_path(step, frames, nu, random), K)
    for name, cost in REWARDS.items():

        def best(u: Tensor, true: Tensor, cost: Cost = cost) -> Tensor:
            candidates = draw(u)
            stepped = advance(resample(u, settings.cells), step.dt, nu)
            costs = cost(candidates, u, resample(stepped, u.shape[1]), true)
            chosen = costs.argmin(dim=0)
            return candidates[chosen, torch.arange(len(u))]

        out[name] = Chosen(_path(step, frames, nu, best), K)
    assert all(chosen.path.shape[1] == count for chosen in out.values())
    return out


def _path(
    step: Any, frames: Tensor, nu: Tensor, follow: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    u, path = frames[:, 0], []
    for k in range(1, frames.shape[1]):
        u = follow(u, frames[:, k])
        path.append(u)
    return torch.stack(path, dim=1)
