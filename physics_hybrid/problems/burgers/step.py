"""One step of the simulator: what a coarse stepper makes of a state, and what a network adds.

    u' = B(u) + scale NN([u, B(u), log10 nu + 2.5]),      B = prolong(advance(restrict(u, cells)))

`direct` has no baseline: B(u) = u. The viscosity is a constant channel: to modulate features by it
was four times worse. The last layer of the network is zero at the start: the step begins as B, to
the bit.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn

from physics_hybrid.checks import one_of
from physics_hybrid.problems.burgers.guards import keep_mean
from physics_hybrid.problems.burgers.stepper import UNSAID, advance, prolong, restrict

COMPOSITIONS = ("additive", "direct")
#: Of the network's output: the size of what is missing where the stepper has all cells, and where
#: it has fewer or is not there.
FINE_SCALE, COARSE_SCALE = 0.02, 0.1


class Rolled:
    """What steps have in common: what they know of their training, and their rollouts.

    dt, points, nu, largest : what it is trained on. guards : applied after each step.
    """

    dt: float
    points: int
    nu: list[float]
    largest: float | None = None
    guards: list[str]

    @property
    def statistics(self) -> dict[str, Any]:
        """What it was trained on."""
        known = {"dt": self.dt, "points": self.points, "nu": self.nu}
        return known if self.largest is None else {**known, "largest": self.largest}

    def path(
        self, u: Float[Tensor, "B N"], known: Float[Tensor, "B ..."], count: int
    ) -> Float[Tensor, "B T N"]:
        """Frames 0 (u itself) to `count`. known : the viscosity of each sample, or a velocity."""
        return rollout(self, u, known, count)

    def step(self, u: Float[Tensor, "B N"], known: Float[Tensor, "B ..."]) -> Float[Tensor, "B N"]:
        """Forward, and the guards."""
        forward: Any = self
        after: Tensor = forward(u, known)
        return keep_mean(after, u) if "mean" in self.guards else after


def scale_of(scale: float | None, fine: bool) -> float:
    """Of the network's output: what is asked for, else by whether the stepper has all cells."""
    return float(scale) if scale else (FINE_SCALE if fine else COARSE_SCALE)


class HybridStep(Module, Rolled):  # type: ignore[misc]  # PhysicsNeMo has no types
    """From u(t) to u(t + dt). It knows what it was trained on, and refuses anything else.

    Parameters
    ----------
    backbone : Module
        (B, 3, N) -> (B, 1, N); without a baseline (B, 2, N).
    cells : int
        Of the stepper, a divisor of `points`.
    composition : str
        additive or direct.
    scale : float or None
        Of the network's output; None: 0.02 where cells = points, else 0.1.
    dt : float
        The time of a step.
    points : int
        Cells of u.
    nu : list of float
        Viscosities that it is trained on.
    guards : list of str
        Of `guards.GUARDS`, applied after each step of a rollout.
    largest : float or None
        |u| in what it is trained on; None: not known.
    cfl : float
        Share of the limit of stability that a substep of the stepper uses: a network corrects the
        stepper that it was trained beside.

    Forward: u (B, N), nu (B,) -> (B, N).

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
        largest: float | None = None,
        cfl: float = UNSAID,
    ):
        super().__init__()
        one_of(COMPOSITIONS, "model.composition", composition)
        if composition == "additive" and (cells < 4 or points % cells):
            raise ValueError(
                f"model.cells must be a divisor of the {points} cells of the data; got {cells}"
            )
        self.backbone, self.cells, self.composition = backbone, cells, composition
        self.dt, self.points, self.nu = float(dt), int(points), [float(v) for v in nu]
        self.guards, self.largest, self.advance = list(guards), largest, advance
        self.cfl = float(cfl)
        self.scale = scale_of(scale, composition == "additive" and cells == points)

    def baseline(self, u: Float[Tensor, "B N"], nu: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
        """B(u): the stepper on its own grid; u itself where there is none."""
        if self.composition == "direct":
            return u
        coarse: Tensor = self.advance(restrict(u, self.cells), self.dt, nu, self.cfl)
        return prolong(coarse, u.shape[1] // self.cells)

    def forward(self, u: Float[Tensor, "B N"], nu: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
        with torch.no_grad():  # states of a training are data
            base = self.baseline(u, nu)
        viscosity = (nu.log10() + 2.5)[:, None].expand_as(u)
        fields = [u, viscosity] if self.composition == "direct" else [u, base, viscosity]
        correction: Tensor = self.backbone(torch.stack(fields, dim=1))[:, 0]
        return base + self.scale * correction


@torch.no_grad()
def rollout(
    step: Any, u: Float[Tensor, "B N"], nu: Float[Tensor, "B ..."], count: int
) -> Float[Tensor, "B T N"]:
    """`count` steps from u: frames 0 (u itself) to count, by anything with `step(u, nu)`.

    nu : what else is known of each sample: the viscosity, or a velocity.
    """
    frames = [u]
    for _ in range(count):
        frames.append(step.step(frames[-1], nu))
    return torch.stack(frames, dim=1)


def refuse_beyond(trained: dict[str, Any], dt: float, points: int, nu: Sequence[float]) -> None:
    """Raise ValueError where a step would be used for what it was not trained on.

    trained : `statistics`. A viscosity between two that were trained is taken.
    """
    if abs(dt - trained["dt"]) > 1e-6 * dt:
        raise ValueError(
            f"this model makes steps of {trained['dt']:g}, and {dt:g} is asked for: train one with"
            f" data.dt={dt:g}"
        )
    if points != trained["points"]:
        raise ValueError(
            f"this model was trained on {trained['points']} cells, and {points} are given: bring u"
            f" to {trained['points']}, or train one with data.cells={points}"
        )
    low, high = min(trained["nu"]), max(trained["nu"])
    for value in nu:
        if not low * (1 - 1e-6) <= value <= high * (1 + 1e-6):
            raise ValueError(
                f"this model was trained with nu = {', '.join(f'{v:g}' for v in trained['nu'])},"
                f" and {value:g} lies beyond: train one with data.nu=[{value:g}]"
            )


def beyond(trained: dict[str, Any], u: Float[Tensor, "B ..."]) -> int:
    """How many of some states or trajectories are larger than any that were trained.

    trained : `statistics`; 0 where it does not know how large those were.
    """
    largest = trained.get("largest")
    return 0 if largest is None else int((u.abs().flatten(1).amax(dim=1) > largest).sum())


def steps_to(times: Any, dt: float) -> list[int]:
    """How many steps of dt each time is; times: numbers, as a user gives them.

    Raises
    ------
    ValueError
        One is no multiple of dt, or they do not increase, or are no list of numbers.
    """
    try:
        asked = [float(t) for t in times]
    except (TypeError, ValueError):
        asked = []
    if not asked or not all(map(math.isfinite, asked)):
        raise ValueError("times must be a list of numbers, one at least, such as [0.05, 0.5]")
    counts = [round(t / dt) for t in asked]
    for t, count in zip(asked, counts, strict=True):
        if count < 0 or not math.isclose(count * dt, t, rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"times must be multiples >= 0 of the model's step {dt:g}; got {t:g}")
    if any(b <= a for a, b in zip(counts[:-1], counts[1:], strict=True)):
        raise ValueError(f"times must increase; got {asked}")
    return counts
