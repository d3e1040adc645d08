"""What a step is compared with, on the same trajectories: no change, the limit, steppers."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.burgers.metrics import Forecast
from physics_hybrid.problems.burgers.step import rollout
from physics_hybrid.problems.burgers.stepper import CFL, advance, muscl_hancock, resample


class Stepping:
    """Anything with `step(u, nu)` has a path on its grid."""

    def path(
        self, u: Float[Tensor, "B N"], nu: Float[Tensor, "B ..."], count: int
    ) -> Float[Tensor, "B T N"]:
        """Frames 0 (u itself) to `count`."""
        return rollout(self, u, nu, count)


@dataclass(frozen=True)
class Persistence(Stepping):
    """No change."""

    def step(self, u: Float[Tensor, "B N"], nu: Float[Tensor, "B ..."]) -> Float[Tensor, "B N"]:
        return u


@dataclass(frozen=True)
class SteadyState(Stepping):
    """The limit t -> infinity: the mean, at once."""

    def step(self, u: Float[Tensor, "B N"], nu: Float[Tensor, "B ..."]) -> Float[Tensor, "B N"]:
        return u.mean(dim=1, keepdim=True).expand_as(u)


@dataclass(frozen=True)
class Stepper(Stepping):
    """The stepper alone on `cells` cells, which it keeps to over a whole rollout.

    cfl : share of the limit of stability that a substep uses. advance : what makes a step of dt.
    """

    cells: int
    dt: float
    cfl: float = CFL
    advance: Callable[..., Any] = field(default=advance)

    def step(self, u: Float[Tensor, "B N"], nu: Float[Tensor, "B ..."]) -> Float[Tensor, "B N"]:
        after: Tensor = self.advance(u, self.dt, nu, self.cfl)
        return after

    def path(
        self, u: Float[Tensor, "B N"], nu: Float[Tensor, "B ..."], count: int
    ) -> Float[Tensor, "B T N"]:
        """On its own grid; the frames are brought back to that of u."""
        fine = super().path(resample(u, self.cells), nu, count)
        back = resample(fine.flatten(0, 1), u.shape[1])
        return back.reshape(len(u), count + 1, u.shape[1])


def compiled_advance(backend: str = "inductor") -> Callable[..., Tensor]:
    """`stepper.advance` with a substep that torch.compile fuses: one pass over memory."""
    substep = torch.compile(muscl_hancock, dynamic=False, backend=backend)
    return partial(advance, substep=substep)


def compiled_step(step: Any, backend: str = "inductor") -> Any:
    """A twin of a hybrid step, network and stepper compiled."""
    twin = copy.deepcopy(step)
    twin.advance = compiled_advance(backend)
    twin.backbone = torch.compile(twin.backbone, dynamic=False, backend=backend)
    return twin


def forecast(
    contender: Any, u: Float[Tensor, "B T N"], nu: Float[Tensor, "B ..."], initial_step: int
) -> Forecast:
    """Rollouts of anything with `path(u, nu, count)`.

    u : the true frames.
    """
    frames, points = u.shape[1:]

    def run(first: Tensor, count: int, viscosity: Tensor) -> Tensor:
        path: Tensor = contender.path(first, viscosity, count)
        return path[:, 1:]

    run(u[:, 0], 1, nu)  # what is compiled, or allocated once, is not timed
    started = time.perf_counter()
    late = run(u[:, initial_step - 1], frames - initial_step, nu)
    seconds = time.perf_counter() - started
    starts = u[:, :-1].flatten(0, 1)
    each = nu.repeat_interleave(frames - 1, dim=0)
    parts = range(0, len(starts), len(u))
    single = [run(starts[k : k + len(u)], 1, each[k : k + len(u)])[:, 0] for k in parts]
    return Forecast(
        late=late,
        whole=run(u[:, 0], frames - 1, nu),
        single=torch.cat(single).reshape(len(u), frames - 1, points),
        milliseconds=1e3 * seconds / late[:, :, 0].numel(),
    )
