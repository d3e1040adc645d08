"""Three models, each from the one before: the mean, a diffusion of what is left, one step of it.

    M = B + NN(y, B)                                            mean square error
    r = (u - M) / s:  D(r + sigma noise, sigma | y, B, M) ~ r   EDM (Karras et al. 2022)
    f(x, sigma) = c_skip x + c_out NN(...),  f(x, sigma_min) = x   consistency (Song et al. 2023)

Diffusion is PhysicsNeMo's: its preconditioner, schedule and Heun's sampler. Two of Heun's steps
diverge and one is no number: fewer than four are refused.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from physicsnemo.diffusion.noise_schedulers import EDMNoiseScheduler
from physicsnemo.diffusion.preconditioners import EDMPreconditioner
from physicsnemo.diffusion.samplers import sample
from torch import Tensor, nn

from physics_hybrid.checks import at_least
from physics_hybrid.problems.burgers.networks import PeriodicUNet

SMALLEST, LARGEST, RHO = 0.01, 20.0, 7.0
#: Levels of noise on the teacher's grid.
LEVELS = 18
FEWEST_HEUN = 4
#: Levels of noise that a consistency model goes back to after its first step, by its steps.
RETURNS: dict[int, tuple[float, ...]] = {1: (), 2: (1.0,), 3: (2.0, 0.5)}
#: Sizes of the embedding of the noise level: waves, and what blocks are modulated with.
WAVES, EMBEDDED = 16, 64


def schedule() -> EDMNoiseScheduler:
    """PhysicsNeMo's, for residuals of standard deviation 1."""
    return EDMNoiseScheduler(
        sigma_min=SMALLEST,
        sigma_max=LARGEST,
        rho=RHO,
        sigma_data=1.0,
        P_mean=-0.4,
        P_std=1.2,
    )


class MeanForecast(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """M: the stepper's forecast, and what a U-Net adds. It is B at the start.

    Forward: features [y, B] (B, 2, N) -> (B, N).
    """

    def __init__(self, width: int = 24, levels: int = 3):
        super().__init__()
        self.arguments = {"width": width, "levels": levels}
        self.network = PeriodicUNet(2, 1, width=width, levels=levels)

    def forward(self, features: Float[Tensor, "B 2 N"]) -> Float[Tensor, "B N"]:
        correction: Tensor = self.network(features)[:, 0]
        return features[:, 1] + correction

    def ensemble(
        self, features: Float[Tensor, "B 2 N"], members: int, generator: torch.Generator
    ) -> Float[Tensor, "K B N"]:
        """One member."""
        mean: Tensor = self(features)
        return mean[None]


class Denoiser(Module):  # type: ignore[misc]
    """A U-Net that knows the noise level. Forward: x (B, 1, N), level (B,), condition (B, 3, N)."""

    def __init__(self, width: int = 24, levels: int = 3):
        super().__init__()
        self.network = PeriodicUNet(4, 1, width=width, levels=levels, embedding=EMBEDDED)
        self.embed = nn.Sequential(
            nn.Linear(2 * WAVES, EMBEDDED), nn.SiLU(), nn.Linear(EMBEDDED, EMBEDDED), nn.SiLU()
        )
        frequencies = torch.exp(-math.log(1000.0) * torch.arange(WAVES) / WAVES)
        self.register_buffer("frequencies", 10 * frequencies)

    def forward(
        self,
        x: Float[Tensor, "B 1 N"],
        t: Float[Tensor, " *B"],
        condition: Float[Tensor, "B 3 N"],
    ) -> Float[Tensor, "B 1 N"]:
        waves = t.flatten()[:, None] * self.frequencies
        embedded = self.embed(torch.cat([waves.sin(), waves.cos()], dim=1))
        y: Tensor = self.network(torch.cat([x, condition], dim=1), embedded)
        return y


class ResidualDiffusion(Module):  # type: ignore[misc]
    """What the mean leaves, by diffusion.

    Parameters
    ----------
    mean : dict
        Arguments of the `MeanForecast` whose residual it is; its weights are frozen.
    std : float
        Of the residual over the training split.
    width, levels : int
        Of the U-Net.
    steps : int
        Of Heun's sampler, each two evaluations; 4 or more.

    Forward: x (B, 1, N), t (B,), condition (B, 3, N) -> the residual without noise (B, 1, N).

    Raises
    ------
    ValueError
        Fewer steps.
    """

    def __init__(
        self,
        mean: Mapping[str, Any],
        std: float,
        width: int = 24,
        levels: int = 3,
        steps: int = 8,
    ):
        super().__init__()
        at_least(FEWEST_HEUN, "model.steps (two of Heun's steps diverge)", steps)
        self.arguments = {
            "mean": dict(mean),
            "std": std,
            "width": width,
            "levels": levels,
            "steps": steps,
        }
        self.std, self.steps = std, steps
        self.mean = MeanForecast(**mean).requires_grad_(False)
        self.denoiser = EDMPreconditioner(Denoiser(width, levels), sigma_data=1.0)

    def forward(
        self,
        x: Float[Tensor, "B 1 N"],
        t: Float[Tensor, " *B"],
        condition: Float[Tensor, "B 3 N"],
    ) -> Float[Tensor, "B 1 N"]:
        y: Tensor = self.denoiser(x, t, condition=condition)
        return y

    @torch.no_grad()
    def condition(self, features: Float[Tensor, "B 2 N"]) -> Float[Tensor, "B 3 N"]:
        """[y, B, M]."""
        return torch.cat([features, self.mean(features)[:, None]], dim=1)

    @torch.no_grad()
    def ensemble(
        self,
        features: Float[Tensor, "B 2 N"],
        members: int,
        generator: torch.Generator,
        steps: int | None = None,
    ) -> Float[Tensor, "K B N"]:
        """Heun's method from noise, `steps` as constructed unless given. Raises ValueError."""
        count = self.steps if steps is None else steps
        at_least(FEWEST_HEUN, "steps (two of Heun's steps diverge)", count)
        condition = self.condition(features)
        repeated = condition.repeat(members, 1, 1)
        noise = LARGEST * _noise_for(repeated, generator)
        levels = schedule()

        def clean(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self(x, t, condition=repeated)
            return out

        drawn = sample(levels.get_denoiser(x0_predictor=clean), noise, levels, count, solver="heun")
        return members_of(condition, self.std * drawn)


class Consistency(Module):  # type: ignore[misc]
    """The diffusion's answer in one step, distilled.

    Parameters
    ----------
    teacher : dict
        Arguments of the `ResidualDiffusion`; its weights are frozen.
    steps : int
        1, 2 or 3 evaluations.

    Forward: x (B, 1, N), level (B,), condition (B, 3, N) -> f (B, 1, N).

    Raises
    ------
    ValueError
        Other steps.
    """

    def __init__(self, teacher: Mapping[str, Any], steps: int = 1):
        super().__init__()
        if steps not in RETURNS:
            raise ValueError(f"model.steps must be 1, 2 or 3 for consistency; got {steps}")
        self.steps = steps
        self.teacher = ResidualDiffusion(**teacher).requires_grad_(False)
        self.student = Denoiser(teacher["width"], teacher["levels"])
        self.target = copy.deepcopy(self.student).requires_grad_(False)

    def begin(self) -> None:
        """Student and target start from the teacher's weights."""
        weights = self.teacher.denoiser.model.state_dict()
        self.student.load_state_dict(weights)
        self.target.load_state_dict(weights)

    def forward(
        self,
        x: Float[Tensor, "B 1 N"],
        t: Float[Tensor, " B"],
        condition: Float[Tensor, "B 3 N"],
    ) -> Float[Tensor, "B 1 N"]:
        return consistent(self.student, x, t, condition)

    @torch.no_grad()
    def ensemble(
        self,
        features: Float[Tensor, "B 2 N"],
        members: int,
        generator: torch.Generator,
        steps: int | None = None,
    ) -> Float[Tensor, "K B N"]:
        condition = self.teacher.condition(features)
        repeated = condition.repeat(members, 1, 1)

        def clean(x: Tensor, level: float) -> Tensor:
            out: Tensor = self(x, torch.full((len(x),), level, device=x.device), repeated)
            return out

        drawn = clean(LARGEST * _noise_for(repeated, generator), LARGEST)
        for level in RETURNS[self.steps if steps is None else steps]:
            size = math.sqrt(level**2 - SMALLEST**2)
            drawn = clean(drawn + size * _noise_for(repeated, generator), level)
        return members_of(condition, self.teacher.std * drawn)


def _noise_for(
    condition: Float[Tensor, "M 3 N"], generator: torch.Generator
) -> Float[Tensor, "M 1 N"]:
    """White noise of variance 1, where the condition lies."""
    shape = (len(condition), 1, condition.shape[2])
    return torch.randn(shape, generator=generator).to(condition)


def consistent(
    network: nn.Module,
    x: Float[Tensor, "B 1 N"],
    t: Float[Tensor, " B"],
    condition: Float[Tensor, "B 3 N"],
) -> Float[Tensor, "B 1 N"]:
    """f(x, sigma), with f(x, sigma_min) = x whatever the network."""
    level = t.view(-1, 1, 1)
    skip = 1 / ((level - SMALLEST) ** 2 + 1)
    size = (level**2 + 1).sqrt()
    out: Tensor = network(x / size, t.log() / 4, condition)
    return skip * x + (level - SMALLEST) / size * out


def members_of(
    condition: Float[Tensor, "B 3 N"], residual: Float[Tensor, "M 1 N"]
) -> Float[Tensor, "K B N"]:
    """M, and a residual for each member: member by member, sample by sample."""
    batch, _, points = condition.shape
    return condition[:, 2] + residual.reshape(-1, batch, points)
