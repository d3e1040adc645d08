"""Four-fluxes of six species, and what conserves and bounds them.

    F^a = (F_x, F_y, F_z, N)        [1/cm^3]: number flux / c, and number density

A state is a tensor (..., 6, 4): nu_e, nu_mu, nu_tau, nubar_e, nubar_mu, nubar_tau, each (x, y, z,
t). It is physical where N >= 0 and |F| <= N. The metric is (+, +, +, -):

    F_a . F_b = F_a^x F_b^x + F_a^y F_b^y + F_a^z F_b^z - N_a N_b
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SPECIES = ("nu_e", "nu_mu", "nu_tau", "nubar_e", "nubar_mu", "nubar_tau")
COMPONENTS = ("x", "y", "z", "t")
FLAVOURS = 3

#: Signs of the metric.
METRIC = (1.0, 1.0, 1.0, -1.0)
#: Four-velocity of a fluid at rest.
AT_REST = (0.0, 0.0, 0.0, 1.0)
#: Pairs of species i <= j, and where the tau takes the place of the mu.
PAIRS = tuple((i, j) for i in range(6) for j in range(i, 6))
SWAP = (0, 2, 1, 3, 5, 4)
#: A step towards the edge of what is physical ends before it, by this share.
MARGIN = 0.999
#: And before |F| = N by this share, so that rounding to float32 does not carry it over.
ROUNDING = 1e-6


def total(F: Float[Tensor, "*B 6 4"]) -> Float[Tensor, "*B 1 1"]:
    """N_tot, the sum of the six densities."""
    return F[..., 3].sum(-1)[..., None, None]


def dot(a: Float[Tensor, "... 4"], b: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """The Minkowski product over the last axis."""
    return (a * b * a.new_tensor(METRIC)).sum(-1)


def invariants(F: Float[Tensor, "B 6 4"], u: Float[Tensor, "B 4"]) -> Float[Tensor, "B 27"]:
    """The 21 products F_i . F_j, i <= j, and the 6 products F_i . u.

    F : divided by N_tot. u : four-velocity of the fluid.
    """
    products = F @ (F * F.new_tensor(METRIC)).transpose(-1, -2)
    first, second = zip(*PAIRS, strict=True)
    return torch.cat([products[..., first, second], dot(F, u[..., None, :])], dim=-1)


def swapped_invariants() -> list[int]:
    """Where each of the 27 invariants comes from when mu and tau change places."""
    place = {pair: k for k, pair in enumerate(PAIRS)}
    moved = [place[tuple(sorted((SWAP[i], SWAP[j])))] for i, j in PAIRS]  # type: ignore[index]
    return moved + [len(PAIRS) + k for k in SWAP]


def boost(u: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 4 4"]:
    """The pure Lorentz boost that brings a fluid of four-velocity u to rest.

    It is the identity, to the bit, for u at rest; that of -u (space part) is its inverse.
    """
    velocity, gamma = u[..., :3], u[..., 3]
    one = torch.eye(3, dtype=u.dtype, device=u.device)
    along = velocity[..., :, None] * velocity[..., None, :] / (1 + gamma)[..., None, None]
    upper = torch.cat([one + along, -velocity[..., :, None]], dim=-1)
    lower = torch.cat([-velocity, gamma[..., None]], dim=-1)
    return torch.cat([upper, lower[..., None, :]], dim=-2)


def reversed_velocity(u: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 4"]:
    """The four-velocity of the opposite motion."""
    return u * u.new_tensor((-1.0, -1.0, -1.0, 1.0))


def excess(F: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B"]:
    """How far |F| is above N; positive is unphysical, as is N < 0."""
    difference: Tensor = F[..., :3].norm(dim=-1) - F[..., 3]
    return difference


def is_physical(F: Float[Tensor, "*B 6 4"], tolerance: float = 0.0) -> Bool[Tensor, "*B"]:
    """Whether all species of a state have N >= 0 and |F| <= N, within a share of N_tot."""
    slack = tolerance * total(F)[..., 0]
    fits = (excess(F) <= slack) & (F[..., 3] >= -slack)
    return fits.all(dim=-1)


def physical_share(
    F: Float[Tensor, "B 6 4"], step: Float[Tensor, "B 6 4"]
) -> Float[Tensor, "B 1 1"]:
    """The largest lambda <= 1 for which F + lambda step is physical, all species alike.

        lambda = min(1, 0.999 x smallest positive root of (N + l dN)^2 = |F + l dF|^2)

    F : physical.

    The quadratic is solved in float64: near its edge float32 has lost the difference.
    """
    wider = F.new_tensor((1 + ROUNDING, 1 + ROUNDING, 1 + ROUNDING, 1.0), dtype=torch.float64)
    F, step = F.double() * wider, step.double() * wider
    first = _first_root(-dot(step, step), -dot(F, step), (-dot(F, F)).clamp_min(0.0))
    at_apex = (F[..., 3] <= 0) & ((step[..., 3] < 0) | (dot(step, step) > 0))
    nearest = torch.where(at_apex, 0.0, first).amin(dim=-1)
    share = torch.where(MARGIN * nearest >= 1.0, 1.0, MARGIN * nearest)
    return share[..., None, None]


def _first_root(
    a: Float[Tensor, "B 6"], b: Float[Tensor, "B 6"], c: Float[Tensor, "B 6"]
) -> Float[Tensor, "B 6"]:
    """Smallest positive root of a l^2 + 2 b l + c, c >= 0; infinity where there is none."""
    discriminant = b**2 - a * c
    # the form that does not cancel: l = c / (sqrt(b^2 - a c) - b)
    below = discriminant.clamp_min(0.0).sqrt() - b
    root = torch.where(below > 0, c / below.clamp_min(1e-300), torch.inf)
    # on the edge already, and inwards: the other root
    inwards = (c == 0) & (b > 0)
    root = torch.where(inwards, torch.where(a < 0, -2 * b / a, torch.inf), root)
    return torch.where(discriminant < 0, torch.inf, root)
