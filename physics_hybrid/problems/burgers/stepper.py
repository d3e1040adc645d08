"""The baseline: a conservative stepper for viscous Burgers on a periodic grid of N cells.

    u_t + (u^2 / 2)_x = eps u_xx,      eps = nu / pi,      h = 1 / N

MUSCL-Hancock (van Leer 1984; Toro, Riemann Solvers, 3rd ed., section 14.4): slopes s limited by van
Leer's harmonic mean, a half step in time, Godunov's flux of the two values at a face, and central
diffusion:

    v = u (1 - lam s / 2),   R = v + s / 2,   L = v - s / 2,          lam = dt / h
    F_{i+1/2} = max(max(R_i, 0)^2, min(L_{i+1}, 0)^2) / 2 - eps (u_{i+1} - u_i) / h

One limit holds for both, dt (max|u| / h + 2 eps / h^2) <= cfl; two separate ones are unstable.
Each sample has substeps of its own size, so that what it becomes does not depend on what else is
in the batch.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Share of the limit of stability that a substep uses; `evidence/substeps.py` chose it on the
#: validation split.
CFL = 0.6
#: Of models and runs that do not say theirs: what it was before.
UNSAID = 0.8
#: A state so fast that it needs more substeps than this has diverged.
MOST = 100_000


def advance(
    u: Float[Tensor, "B N"],
    dt: float,
    nu: float | Float[Tensor, " B"],
    cfl: float = CFL,
    substep: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Float[Tensor, "B N"]:
    """Cell means one time dt later, whatever dt: it is divided into substeps.

    nu : PDEBench's viscosity, one or one a sample.
    substep : what makes one; None: `muscl_hancock`.

    A state that has diverged, as a rollout of a bad network may, becomes NaN: nobody would wait for
    its substeps.

    Examples
    --------
    >>> u = torch.sin(2 * torch.pi * (torch.arange(64) + 0.5) / 64)[None]
    >>> bool((advance(u, 0.05, 0.001).mean() - u.mean()).abs() < 1e-6)
    True
    """
    eps = torch.as_tensor(nu, dtype=u.dtype, device=u.device).expand(len(u)) / math.pi
    lost = dt * u.detach().abs().amax(dim=1) * u.shape[1] > MOST * cfl
    if bool(lost.any()):
        u = torch.where(lost[:, None], math.nan, u)
    count = substeps(u, dt, eps, cfl)
    width, most = 1 / u.shape[1], int(count.max())
    lam = (dt / width / count.to(u.dtype))[:, None]
    diffusion = lam * eps[:, None] / width
    substep = substep or muscl_hancock
    for k in range(most):
        going = k < count[:, None]  # a sample that has arrived takes steps of size 0
        u = substep(u, lam * going, diffusion * going)
    return u


def substeps(
    u: Float[Tensor, "B N"], dt: float, eps: Float[Tensor, " B"], cfl: float
) -> Int[Tensor, " B"]:
    """How many equal steps each sample needs to be stable."""
    cells = u.shape[1]
    rate = u.detach().abs().amax(dim=1) * cells + 2 * eps * cells**2
    return torch.ceil(dt * rate / cfl).clamp_min(1).long()


def muscl_hancock(
    u: Float[Tensor, "B N"], lam: Float[Tensor, "B 1"], diffusion: Float[Tensor, "B 1"]
) -> Float[Tensor, "B N"]:
    """One step; lam = dt / h, diffusion = eps dt / h^2."""
    padded = torch.cat([u[:, -2:], u, u[:, :2]], dim=1)
    difference = padded[:, 1:] - padded[:, :-1]
    slope = harmonic(difference[:, :-1], difference[:, 1:])
    half = padded[:, 1:-1] * (1 - 0.5 * lam * slope)
    right = (half + 0.5 * slope)[:, :-1].clamp_min(0)  # from the left of each face
    left = (half - 0.5 * slope)[:, 1:].clamp_max(0)
    flux = torch.maximum(right * right, left * left) * (0.5 * lam)
    flux = flux - diffusion * difference[:, 1:-1]
    return u - (flux[:, 1:] - flux[:, :-1])


def harmonic(a: Float[Tensor, "*cells"], b: Float[Tensor, "*cells"]) -> Float[Tensor, "*cells"]:
    """Van Leer's limited slope: 2ab / (a + b) where a and b have one sign, else 0.

    The denominator is made safe before the division: a masked 0 / 0 would give NaN gradients.
    """
    product = a * b
    agree = product > 0
    return torch.where(agree, 2 * product / torch.where(agree, a + b, 1.0), 0.0)


# --- between grids


def restrict(u: Float[Tensor, "B N"], cells: int) -> Float[Tensor, "B M"]:
    """Means over blocks: from N cells to `cells`, a divisor of N.

    Raises
    ------
    ValueError
        It is none.
    """
    if u.shape[1] % cells:
        raise ValueError(f"{u.shape[1]} cells cannot be joined to {cells}: take a divisor")
    return u.reshape(len(u), cells, -1).mean(dim=2)


def slopes(c: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """The limited slope of each cell, as a difference over its width."""
    difference = torch.diff(c, dim=1, prepend=c[:, -1:])
    return harmonic(difference, torch.roll(difference, -1, dims=1))


def reconstruct(c: Float[Tensor, "B N"], x: Float[Tensor, " Q"]) -> Float[Tensor, "B Q"]:
    """Values at points x in [0, 1): c_i + s_i (x N - i - 1/2), limited and linear in each cell."""
    cells = c.shape[1]
    place = x * cells
    cell = torch.floor(place).long() % cells
    return c[:, cell] + slopes(c)[:, cell] * (place - torch.floor(place) - 0.5)


def prolong(c: Float[Tensor, "B N"], factor: int) -> Float[Tensor, "B M"]:
    """Means over `factor` finer cells in each: limited and linear; each coarse mean is kept."""
    if factor == 1:
        return c
    offset = (torch.arange(factor, dtype=c.dtype, device=c.device) + 0.5) / factor - 0.5
    return (c[:, :, None] + slopes(c)[:, :, None] * offset).flatten(1)


def resample(u: Float[Tensor, "B N"], cells: int) -> Float[Tensor, "B M"]:
    """To `cells` cells, a divisor or a multiple of N: `restrict` or `prolong`."""
    if cells > u.shape[1] and cells % u.shape[1] == 0:
        return prolong(u, cells // u.shape[1])
    return restrict(u, cells)
