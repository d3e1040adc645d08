"""What is known of a state, and what physics alone makes of it.

    y = restrict(u(t), 32) + 0.1 noise  ->  u(t + 1)

    B = prolong(advance^20(prolong(y, 4)), 2)      the stepper on 128 cells, from the observation

Two ensembles are made without training a generator: the observation perturbed with its own noise,
and the start drawn from a Gaussian posterior. For the latter, with training states of mean m and
covariance P, and H the restriction,

    K = P H^T (H P H^T + s^2)^-1,     u ~ N(m + K (y - H m), (1 - K H) P)

(Wiener; Tarantola, Inverse Problem Theory, 2005, eq. 3.38). States are as likely wherever they lie
in the box: P depends on distances alone.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.burgers.stepper import CFL, advance, prolong, resample, restrict


@dataclass(frozen=True)
class Observation:
    """How a state is observed, and how far ahead it is asked for.

    cells, noise : means over so many cells, each with noise of this standard deviation.
    ahead : frames. dt : of each. nu : viscosity.
    stepper : cells of the stepper that makes B. cfl : share of the limit that its substeps use.
    """

    cells: int
    noise: float
    ahead: int
    dt: float
    nu: float
    stepper: int
    cfl: float = CFL

    def observe(self, u: Float[Tensor, "B N"], generator: torch.Generator) -> Float[Tensor, "B C"]:
        means = restrict(u, self.cells)
        noise = torch.randn(means.shape, generator=generator).to(means)
        return means + self.noise * noise

    def forecast(self, y: Float[Tensor, "B C"], points: int) -> Float[Tensor, "B N"]:
        """B: what the stepper makes of an observation, on `points` cells."""
        return self.advanced(resample(y, self.stepper), points)

    def advanced(self, u: Float[Tensor, "B M"], points: int) -> Float[Tensor, "B N"]:
        """A state on any grid, `ahead` frames later, on `points` cells."""
        for _ in range(self.ahead):
            u = advance(u, self.dt, self.nu, self.cfl)
        return resample(u, points)

    def features(self, y: Float[Tensor, "B C"], points: int) -> Float[Tensor, "B 2 N"]:
        """[the observation, B], on `points` cells."""
        return torch.stack([prolong(y, points // self.cells), self.forecast(y, points)], dim=1)

    def perturbed(
        self, y: Float[Tensor, "B C"], members: int, points: int, generator: torch.Generator
    ) -> Float[Tensor, "K B N"]:
        """The physics ensemble: each member forecasts from an observation with fresh noise."""
        noise = torch.randn(members, *y.shape, generator=generator).to(y)
        starts = (y + self.noise * noise).flatten(0, 1)
        return self.forecast(starts, points).reshape(members, len(y), points)


@dataclass(frozen=True)
class Posterior:
    """Starts drawn from a Gaussian posterior, each forecast by the stepper on its own grid.

    mean : of all training states. covariance : by distance in cells, (N,).
    """

    observation: Observation
    mean: float
    covariance: Float[Tensor, " N"]

    @classmethod
    def of(cls, observation: Observation, states: Float[Tensor, "B N"]) -> "Posterior":
        """Of training states, wherever they lie in the box."""
        mean = float(states.mean())
        power = torch.fft.rfft(states.double() - mean, dim=1).abs().square().mean(dim=0)
        covariance = torch.fft.irfft(power, n=states.shape[1]) / states.shape[1]
        return cls(observation, mean, covariance)

    def starts(
        self, y: Float[Tensor, "B C"], members: int, generator: torch.Generator
    ) -> Float[Tensor, "K B N"]:
        points, cells = len(self.covariance), y.shape[1]
        index = torch.arange(points)
        P = self.covariance.cpu()[(index[:, None] - index).abs()]
        H = restrict(torch.eye(points, dtype=P.dtype), cells).T
        seen = H @ P @ H.T + self.observation.noise**2 * torch.eye(cells, dtype=P.dtype)
        K = torch.linalg.solve(seen, H @ P).T
        left = P - K @ H @ P
        values, vectors = torch.linalg.eigh((left + left.T) / 2)
        root = vectors * values.clamp_min(0).sqrt()
        centre = self.mean + (y.cpu().double() - self.mean) @ K.T
        noise = torch.randn(members, len(y), points, generator=generator, dtype=P.dtype)
        starts: Tensor = centre + noise @ root.T
        return starts.to(y)

    def __call__(
        self, y: Float[Tensor, "B C"], members: int, generator: torch.Generator
    ) -> Float[Tensor, "K B N"]:
        starts = self.starts(y, members, generator)
        later = self.observation.advanced(starts.flatten(0, 1), starts.shape[2])
        return later.reshape(starts.shape)


def frames_ahead(time: float, dt: float) -> int:
    """How many frames a time is. Raises ValueError where it is no multiple."""
    count = round(time / dt)
    if count < 1 or not math.isclose(count * dt, time, rel_tol=1e-6):
        raise ValueError(f"problem.ahead must be a multiple of data.dt={dt:g}; got {time:g}")
    return count
