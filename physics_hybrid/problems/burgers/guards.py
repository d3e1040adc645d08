"""What a prediction is held to after each step, whoever made it."""

import torch
from jaxtyping import Float
from torch import Tensor

#: Names of conf/problem/burgers.yaml.
GUARDS = ("mean",)


def keep_mean(u: Float[Tensor, "B N"], before: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """The prediction, moved to the mean of the state before: the integral of u is conserved."""
    return u + (before.mean(dim=1) - u.mean(dim=1))[:, None]


def energy_excess(
    after: Float[Tensor, "*batch N"], before: Float[Tensor, "*batch N"]
) -> Float[Tensor, "*batch"]:
    """By how much the energy, the mean of u^2 / 2, has risen, over that before; 0 where it fell.

    Viscous Burgers loses energy. This is reported and not enforced: to enforce it changed nothing.
    """
    energy = before.square().mean(dim=-1)
    excess: Tensor = (after.square().mean(dim=-1) - energy) / energy.clamp_min(
        torch.finfo(energy.dtype).tiny
    )
    return excess.clamp_min(0)
