"""A conservative stepper for advection and diffusion on a periodic square, axis by axis.

    u' = u - (F_{i+1/2} - F_{i-1/2}),      c = a dt / h
    F_{i+1/2} = c+ (u_i + (1 - c) s_i / 2) + c- (u_{i+1} - (1 + c) s_{i+1} / 2)

second order with van Leer's limited slopes s (Toro, section 13.9), half a sweep along x before and
after one along y (Strang, SIAM J. Numer. Anal. 5 (1968) 506), and central diffusion.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.burgers.stepper import harmonic

#: Share of the limit of stability that a substep uses.
CFL = 0.8


def advance(
    u: Float[Tensor, "B N N"], velocity: Float[Tensor, "B 2"], dt: float, nu: float
) -> Float[Tensor, "B N N"]:
    """Cell means one time dt later, each sample in equal substeps of its own.

    Examples
    --------
    >>> u = torch.rand(1, 8, 8)
    >>> bool((advance(u, torch.ones(1, 2), 0.1, 0.001).mean() - u.mean()).abs() < 1e-6)
    True
    """
    cells, eps = u.shape[1], nu / math.pi
    rate = velocity.abs().amax(dim=1) * cells + 4 * eps * cells**2
    count = torch.ceil(dt * rate / CFL).clamp_min(1)[:, None, None]
    c = velocity[:, :, None] * (dt * cells) / count
    diffusion = eps * dt * cells**2 / count
    for k in range(int(count.max())):
        going = k < count  # a sample that has arrived takes steps of size 0
        u = sweep(u, c[:, :1] * going / 2, 1)
        u = sweep(u, c[:, 1:] * going, 2)
        u = sweep(u, c[:, :1] * going / 2, 1)
        u = u + diffusion * going * laplacian(u)
    return u


def sweep(
    u: Float[Tensor, "B N N"], c: Float[Tensor, "B 1 1"], axis: int
) -> Float[Tensor, "B N N"]:
    """Advection along one axis, |c| <= 1."""
    difference = u - torch.roll(u, 1, dims=axis)
    slope = harmonic(difference, torch.roll(difference, -1, dims=axis))
    right = (u + 0.5 * (1 - c) * slope) * c.clamp_min(0)
    left = torch.roll(u - 0.5 * (1 + c) * slope, -1, dims=axis) * c.clamp_max(0)
    flux = right + left
    return u - flux + torch.roll(flux, 1, dims=axis)


def laplacian(u: Float[Tensor, "B N N"]) -> Float[Tensor, "B N N"]:
    """Times h^2."""
    around = [torch.roll(u, s, dims=axis) for axis in (1, 2) for s in (1, -1)]
    return torch.stack(around).sum(dim=0) - 4 * u


def restrict(u: Float[Tensor, "B N N"], cells: int) -> Float[Tensor, "B M M"]:
    """Means over blocks; `cells` along an edge, a divisor of N."""
    block = u.shape[1] // cells
    return u.reshape(len(u), cells, block, cells, block).mean(dim=(2, 4))


def prolong(c: Float[Tensor, "B N N"], factor: int) -> Float[Tensor, "B M M"]:
    """Means over finer cells: limited and linear along each axis; each coarse mean is kept."""
    if factor == 1:
        return c
    offset = (torch.arange(factor, dtype=c.dtype, device=c.device) + 0.5) / factor - 0.5
    for axis in (1, 2):
        difference = c - torch.roll(c, 1, dims=axis)
        slope = harmonic(difference, torch.roll(difference, -1, dims=axis))
        fine = c.unsqueeze(axis + 1) + slope.unsqueeze(axis + 1) * _along(offset, axis + 1)
        c = fine.flatten(axis, axis + 1)
    return c


def _along(offset: Tensor, axis: int) -> Tensor:
    shape = [1, 1, 1, 1]
    shape[axis] = len(offset)
    return offset.view(shape)


def resample(u: Float[Tensor, "B N N"], cells: int) -> Float[Tensor, "B M M"]:
    """To `cells` along an edge, a divisor or a multiple of N."""
    if cells > u.shape[1]:
        return prolong(u, cells // u.shape[1])
    return restrict(u, cells)
