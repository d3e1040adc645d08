"""A step in the latent space: the stepper on the coarse means inside z, and fluxes that an operator
adds, so that the mean is kept exactly; the learned channels come new from the operator.

    c' = advance(c) + 0.1 (f_i - f_{i-1}),      (f, learned') = operator([z, advance(c)]; nu, dt)

Without means in z (the control) the operator gives an increment of z.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor

from physics_hybrid.problems.burgers.latent.autoencoder import Autoencoder, WindowOperator
from physics_hybrid.problems.burgers.stepper import UNSAID, advance

#: Of the operator's fluxes.
FLUX = 0.1


class LatentStep(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """From z(t) to z(t + dt), and from u to u by way of it.

    Parameters
    ----------
    autoencoder : dict
        Arguments of the `Autoencoder`, whose weights are frozen.
    mean, std : list of float
        Of the learned channels over the training split: they are normalised.
    weight : list of float
        Of each channel of z in the loss.
    dt, points, nu, largest
        What it is trained on.
    width, depth, heads, window : int
        Of the operator.
    cfl : float
        Share of the limit of stability that a substep of the stepper uses.

    Forward: z (B, L, D), nu (B,) -> (B, L, D).
    """

    def __init__(
        self,
        autoencoder: Mapping[str, Any],
        mean: Sequence[float],
        std: Sequence[float],
        weight: Sequence[float],
        dt: float,
        points: int,
        nu: Sequence[float],
        largest: float | None = None,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        window: int = 8,
        cfl: float = UNSAID,
    ):
        super().__init__()
        self.autoencoder = Autoencoder(**autoencoder).requires_grad_(False)
        means, channels = self.autoencoder.means, self.autoencoder.channels
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.register_buffer("weight", torch.tensor(weight))
        self.dt, self.points, self.nu = float(dt), int(points), [float(v) for v in nu]
        self.largest, self.cfl = largest, float(cfl)
        self.operator = WindowOperator(channels + means, channels, width, depth, heads, window)

    @property
    def statistics(self) -> dict[str, Any]:
        """What it was trained on."""
        known = {"dt": self.dt, "points": self.points, "nu": self.nu}
        return known if self.largest is None else {**known, "largest": self.largest}

    def encode(self, u: Float[Tensor, "B N"]) -> Float[Tensor, "B L D"]:
        z = self.autoencoder.encode(u)
        means = self.autoencoder.means
        return torch.cat([z[:, :, :means], (z[:, :, means:] - self.mean) / self.std], dim=2)

    def raw(self, z: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """As the autoencoder has it."""
        means = self.autoencoder.means
        return torch.cat([z[:, :, :means], z[:, :, means:] * self.std + self.mean], dim=2)

    def decode(self, z: Float[Tensor, "B L D"], cells: int) -> Float[Tensor, "B N"]:
        u: Tensor = self.autoencoder.on_grid(self.raw(z), cells)
        return u

    def forward(self, z: Float[Tensor, "B L D"], nu: Float[Tensor, " B"]) -> Float[Tensor, "B L D"]:
        condition = torch.stack([nu.log10(), torch.full_like(nu, self.dt).log10()], dim=1)
        means = self.autoencoder.means
        if not means:
            change: Tensor = self.operator(z, condition)
            return z + change
        c = self.autoencoder.coarse(z)
        with torch.no_grad():
            base = advance(c, self.dt, nu, self.cfl)
        out = self.operator(torch.cat([z, base.reshape(*z.shape[:2], means)], dim=2), condition)
        flux = FLUX * out[:, :, :means].flatten(1)
        later = base + flux - torch.roll(flux, 1, dims=1)
        return torch.cat([later.reshape(*z.shape[:2], means), out[:, :, means:]], dim=2)

    # --- as a contender

    def step(self, u: Float[Tensor, "B N"], nu: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
        """Encode, step, decode."""
        return self.decode(self(self.encode(u), nu), u.shape[1])

    @torch.no_grad()
    def path(
        self, u: Float[Tensor, "B N"], nu: Float[Tensor, " B"], count: int
    ) -> Float[Tensor, "B T N"]:
        """Frames 0 (u itself) to `count`: encoded once, stepped in the latent space."""
        z, frames = self.encode(u), [u]
        for _ in range(count):
            z = self(z, nu)
            frames.append(self.decode(z, u.shape[1]))
        return torch.stack(frames, dim=1)
