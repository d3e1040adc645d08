"""The hybrid step on the square, and its rivals. States are flat, (B, N N): everything that knows
only samples and cells (losses, metrics, rollouts) is that of one dimension.

    u' = B(u) + scale NN([u, B(u), a_x, a_y]),      B = prolong(advance(restrict(u, cells)))
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn

from physics_hybrid.checks import one_of
from physics_hybrid.problems.burgers.plane.stepper import advance, prolong, resample, restrict
from physics_hybrid.problems.burgers.rivals import Stepping
from physics_hybrid.problems.burgers.step import (
    COMPOSITIONS,
    Rolled,
    rollout,
    scale_of,
)


class PlaneStep(Module, Rolled):  # type: ignore[misc]  # PhysicsNeMo has no types
    """From u(t) to u(t + dt) on a square.

    Parameters
    ----------
    backbone : Module
        (B, 4, N, N) -> (B, 1, N, N); without a baseline (B, 3, N, N).
    cells : int
        Of the stepper, along an edge.
    composition : str
        additive or direct.
    scale : float or None
        Of the network's output; None: 0.02 where the stepper has all cells, else 0.1.
    dt, points, nu
        What it is trained on; points is N N.
    guards : list of str
        Applied after each step of a rollout.

    Forward: u (B, N N), velocity (B, 2) -> (B, N N).

    Raises
    ------
    ValueError
        A choice that cannot be meant.
    """

    def __init__(
        self,
        backbone: nn.Module,
        cells: int,
        composition: str,
        scale: float | None,
        dt: float,
        points: int,
        nu: Sequence[float],
        guards: Sequence[str] = (),
    ):
        super().__init__()
        one_of(COMPOSITIONS, "model.composition", composition)
        side = math.isqrt(points)
        if side**2 != points or (composition == "additive" and (cells < 4 or side % cells)):
            raise ValueError(f"model.cells must be a divisor of the {side} cells; got {cells}")
        self.backbone, self.cells, self.composition = backbone, cells, composition
        self.dt, self.points, self.nu = float(dt), int(points), [float(v) for v in nu]
        self.side, self.guards = side, list(guards)
        self.scale = scale_of(scale, composition == "additive" and cells == side)

    def baseline(
        self, u: Float[Tensor, "B N N"], velocity: Float[Tensor, "B 2"]
    ) -> Float[Tensor, "B N N"]:
        if self.composition == "direct":
            return u
        coarse = advance(restrict(u, self.cells), velocity, self.dt, self.nu[0])
        return prolong(coarse, self.side // self.cells)

    def forward(
        self, u: Float[Tensor, "B P"], velocity: Float[Tensor, "B 2"]
    ) -> Float[Tensor, "B P"]:
        square = u.view(-1, self.side, self.side)
        with torch.no_grad():
            base = self.baseline(square, velocity)
        constant = velocity[:, :, None, None].expand(-1, -1, self.side, self.side)
        fields = [square] if self.composition == "direct" else [square, base]
        inputs = torch.cat([torch.stack(fields, dim=1), constant], dim=1)
        correction: Tensor = self.backbone(inputs)[:, 0]
        return (base + self.scale * correction).flatten(1)


@dataclass(frozen=True)
class PlaneStepper(Stepping):
    """The stepper alone on `cells` x `cells`, which it keeps to over a whole rollout."""

    cells: int
    dt: float
    nu: float

    def step(self, u: Tensor, velocity: Tensor) -> Tensor:
        square = u.view(len(u), self.cells, self.cells)
        return advance(square, velocity, self.dt, self.nu).flatten(1)

    def path(self, u: Tensor, velocity: Tensor, count: int) -> Tensor:
        """On its own grid; the frames are brought back to that of u."""
        side = math.isqrt(u.shape[1])
        start = resample(u.view(-1, side, side), self.cells).flatten(1)
        frames = rollout(self, start, velocity, count).flatten(0, 1)
        back = resample(frames.view(-1, self.cells, self.cells), side)
        return back.reshape(len(u), count + 1, side * side)
