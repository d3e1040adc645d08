"""The angular distribution of least information that has a given density and flux.

    g(n) = N / (4 pi)  Z / sinh Z  exp(Z n . F / |F|),    coth Z - 1 / Z = f = |F| / N

(Minerbo, J. Quant. Spectrosc. Radiat. Transfer 20 (1978) 541). Z follows from f by Newton's method
from a closed form good to 8e-4 (Jedynak, Rheol. Acta 54 (2015) 29).
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

#: Below this Z, coth Z - 1 / Z is summed: the difference has lost digits.
SERIES_BELOW = 0.1
#: Flux factors are taken as no larger: a beam sharper than any rule of directions can see.
SHARPEST = 1.0 - 1e-6
NEWTON_STEPS = 3


def langevin(Z: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """coth Z - 1 / Z, Z >= 0."""
    large = Z.clamp_min(SERIES_BELOW)
    direct = 1 / torch.tanh(large) - 1 / large
    square = Z**2
    inner = 2 / 945 - square * (1 / 4725 - square * 2 / 93555)
    series = Z * (1 / 3 - square * (1 / 45 - square * inner))
    return torch.where(Z < SERIES_BELOW, series, direct)


def _slope(Z: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """1 / Z^2 - 1 / sinh^2 Z"""
    large = Z.clamp(SERIES_BELOW, 300.0)
    direct = 1 / Z.clamp_min(SERIES_BELOW) ** 2 - 1 / torch.sinh(large) ** 2
    square = Z**2
    series = 1 / 3 - square * (1 / 15 - square * (2 / 189 - square / 675))
    return torch.where(Z < SERIES_BELOW, series, direct)


def inverse_langevin(f: Float[Tensor, "*B"]) -> Float64[Tensor, "*B"]:
    """Z of a flux factor in [0, 1), to 1e-12."""
    f = f.double().clamp(0.0, SHARPEST)
    top = 2 * (1 - f) * (1 + 1.01524 * f)
    bottom = 3 - 1.00651 * f**2 - 0.962251 * f**4 + 1.47353 * f**6 - 0.48953 * f**8
    Z = 2 * f / (top / bottom)
    for _ in range(NEWTON_STEPS):
        Z = Z - (langevin(Z) - f) / _slope(Z)
    return Z.clamp_min(0.0)


def exponents(F: Float[Tensor, "*B 4"]) -> Float64[Tensor, "*B 4"]:
    """The four numbers q of each species with g(n) = exp(q . (n, 1)).

    With them all distributions of a state on all directions are one product of matrices.
    """
    F = F.double()
    size, density = F[..., :3].norm(dim=-1), F[..., 3]
    Z = inverse_langevin(size / density.clamp_min(1e-300))
    direction = F[..., :3] / size.clamp_min(1e-300)[..., None]
    # Z / sinh Z = 2 Z exp(-Z) / (1 - exp(-2 Z))
    small = Z < 1e-8
    safe = torch.where(small, 1.0, Z)
    scale = torch.where(small, 1.0, 2 * safe / -torch.expm1(-2 * safe))
    height = torch.log(density.clamp_min(0.0) / (4 * math.pi)) + torch.log(scale) - Z
    return torch.cat([Z[..., None] * direction, height[..., None]], dim=-1)


def distribution(
    F: Float[Tensor, "*B 4"], directions: Float[Tensor, "A 3"]
) -> Float64[Tensor, "*B A"]:
    """g on directions, 1/cm^3 per steradian if F is in 1/cm^3."""
    q = exponents(F)
    return torch.exp(q[..., :3] @ directions.to(q).T + q[..., 3:])
