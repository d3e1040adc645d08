"""What a step is compared with, on the same trajectories: no change, the limit, steppers."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.burgers.metrics import Forecast
from physics_hybrid.problems.burgers.step import rollout
from physics_hybrid.problems.burgers.stepper import advance, resample

#: Single steps that are made together.
TOGETHER = 512


@dataclass(frozen=True)
class Persistence:
    """No change."""

    def step(self, u: Float[Tensor, "B N"], nu: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
        return u


@dataclass(frozen=True)
class SteadyState:
    """The limit t -> infinity: the mean, at once."""

    def step(self, u: Float[Tensor, "B N"], nu: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
        return u.mean(dim=1, keepdim=True).expand_as(u)


@dataclass(frozen=True)
class Stepper:
    """The stepper alone on `cells` cells, which it keeps to over a whole rollout.

    advance : what makes a step of dt.
    """

    cells: int
    dt: float
    advance: Callable[..., Any] = field(default=advance)

    def step(self, u: Float[Tensor, "B N"], nu: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
        after: Tensor = self.advance(u, self.dt, nu)
        return after


def forecast(
    contender: Any, u: Float[Tensor, "B T N"], nu: Float[Tensor, " B"], initial_step: int
) -> Forecast:
    """Rollouts of anything with `step(u, nu)`; a `Stepper` rolls out on its own grid.

    u : the true frames.
    """
    frames, points = u.shape[1:]

    def run(first: Tensor, count: int, viscosity: Tensor) -> Tensor:
        if not isinstance(contender, Stepper):
            return rollout(contender, first, viscosity, count)[:, 1:]
        path = rollout(contender, resample(first, contender.cells), viscosity, count)[:, 1:]
        back = resample(path.flatten(0, 1), points)
        return back.reshape(*path.shape[:2], points)

    started = time.perf_counter()
    late = run(u[:, initial_step - 1], frames - initial_step, nu)
    seconds = time.perf_counter() - started
    starts = u[:, :-1].flatten(0, 1)
    each = nu.repeat_interleave(frames - 1)
    parts = range(0, len(starts), TOGETHER)
    single = [run(starts[k : k + TOGETHER], 1, each[k : k + TOGETHER])[:, 0] for k in parts]
    return Forecast(
        late=late,
        whole=run(u[:, 0], frames - 1, nu),
        single=torch.cat(single).reshape(len(u), frames - 1, points),
        milliseconds=1e3 * seconds / late[:, :, 0].numel(),
    )
