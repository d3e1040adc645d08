"""Box3D: the fast flavour instability, to its end, in closed form.

    G(n) = (g_e - g_ebar) - (g_x - g_xbar),   I+ = int max(G, 0),   I- = int max(-G, 0)

    P = 1 / 3                      on the side with the smaller integral
    P = 1 - (2 / 3) I_small / I_large     on the other;   P = 1 where G has one sign

    D = int (1 - P) (g_e - g_x) (n, 1),   F_e' = F_e - D,   F_mu' = F_mu + D / 2, F_tau likewise

(Richers, Froustey et al. 2024, arXiv:2409.04405: the box-like scheme in three dimensions). g are
Minerbo distributions, x the mean of mu and tau, the same P for neutrinos and antineutrinos. In this
form, the change rather than the new distribution, number and lepton number of each flavour are kept
to rounding, whatever the directions, and what mu and tau differ by stays.

Two things are ours. Directions are those of the state's own frame (`sphere.py`). And a direction
with |G| below a hundredth of its side's largest counts in part: P would jump there between 1/3 and
its other value, and the rounding of a rotation with it; the other side's P is the one that keeps
lepton number with that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from physics_hybrid.problems.flavour.physics.fluxes import FLAVOURS, physical_share, total
from physics_hybrid.problems.flavour.physics.minerbo import exponents
from physics_hybrid.problems.flavour.physics.sphere import Quadrature, frame
from physics_hybrid.problems.flavour.physics.units import RATE_OF_DENSITY

#: Of the largest |G| on the smaller side: a direction below counts in part.
SOFT_EDGE = 0.01
#: Share of N_tot below which |G| is rounding, and no crossing.
NOTHING = 1e-6
#: States at a time: their distributions stay in the cache.
TOGETHER = 128


@dataclass(frozen=True)
class Conversion:
    """What Box3D says of states (B, 6, 4) divided by N_tot.

    increment : (B, 6, 4), what it adds.
    plus, minus : I+ and I-, (B,).
    """

    increment: Tensor
    plus: Tensor
    minus: Tensor

    @property
    def size(self) -> Tensor:
        """Norm of what the electron flavours lose. (B,)"""
        size: Tensor = self.increment[:, (0, 3)].flatten(1).norm(dim=1)
        return size

    @property
    def crossing(self) -> Tensor:
        """I_small / I_large, 0 to 1: how deep the crossing is. (B,)"""
        large = torch.maximum(self.plus, self.minus)
        return torch.minimum(self.plus, self.minus) / large.clamp_min(1e-30)


def convert(F: Tensor, rule: Quadrature) -> Conversion:
    """Box3D of states (B, 6, 4) divided by N_tot, in the precision of F; float64 in between, since
    the exponents of beams and the edge of the crossing lose digits.
    """
    q, axes = turned(F)
    directions, moments = rule.with_one().to(q).T.contiguous(), rule.moments().to(q)
    parts = [_leaving(part, directions, moments) for part in torch.split(q, TOGETHER)]
    change, plus, minus = (torch.cat(column) for column in zip(*parts, strict=True))
    increment = share_out(turned_back(change, axes))
    increment = increment * physical_share(F, increment)
    return Conversion(increment.to(F), plus.to(F), minus.to(F))


def box3d(F: Tensor, rule: Quadrature) -> Tensor:
    """States before -> states after, (B, 6, 4), in any unit of density."""
    scale = total(F)
    unit = F / scale
    return F + convert(unit, rule).increment * scale


def growth_rate(F: Tensor, rule: Quadrature) -> Tensor:
    """sqrt(I+ I-) as a rate in 1/s: F (B, 6, 4) in 1/cm^3 -> (B,)."""
    scale = total(F)
    found = convert(F / scale, rule)
    return (found.plus * found.minus).sqrt() * scale[:, 0, 0] * RATE_OF_DENSITY


def electron_minus_heavy(g: Tensor) -> Tensor:
    """G of the four kinds e, x, ebar, xbar: (B, 4, A) -> (B, A)"""
    return (g[:, 0] - g[:, 1]) - (g[:, 2] - g[:, 3])


def kinds(F: Tensor) -> Tensor:
    """e, x, ebar, xbar; x the mean of mu and tau: (B, 6, 4) -> (B, 4, 4)"""
    heavy = 0.5 * (F[:, (1, 4)] + F[:, (2, 5)])
    return torch.stack([F[:, 0], heavy[:, 0], F[:, 3], heavy[:, 1]], dim=1)


def share_out(leaving: Tensor) -> Tensor:
    """The increments of all species when D leaves the electron flavour: (B, 2, 4) -> (B, 6, 4)"""
    half = leaving / (FLAVOURS - 1)
    return torch.stack([-leaving, half, half], dim=2).flatten(1, 2)


def turned(F: Tensor) -> tuple[Tensor, Tensor]:
    """Exponents of the four kinds in the frame of the state, (B, 4, 4), and its axes, (B, 3, 3);
    float64.
    """
    axes = frame(F)
    q = exponents(kinds(F))
    return torch.cat([q[..., :3] @ axes.transpose(1, 2), q[..., 3:]], dim=-1), axes


def turned_back(change: Tensor, axes: Tensor) -> Tensor:
    """Four-fluxes (B, K, 4) from the frame of the state to that of its axes."""
    return torch.cat([change[..., :3] @ axes.to(change), change[..., 3:]], dim=-1)


def distributions(F: Tensor, rule: Quadrature) -> tuple[Tensor, Tensor]:
    """g of the four kinds in the frame of the state, (B, 4, A), and its axes; float64."""
    q, axes = turned(F)
    return torch.exp(q @ rule.with_one().T), axes


def _leaving(q: Tensor, directions: Tensor, moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """D of neutrinos and antineutrinos, (B, 2, 4), in the frame of the state; I+ and I-, (B,)."""
    g = torch.exp(q @ directions)
    excess_of_electrons = g[:, 0::2] - g[:, 1::2]
    G, weights = excess_of_electrons[:, 0] - excess_of_electrons[:, 1], moments[:, 3]
    plus = G.clamp_min(0) @ weights
    minus = (-G).clamp_min(0) @ weights
    leaves = 1 - survival(G, weights, plus, minus)
    return (excess_of_electrons * leaves[:, None]) @ moments, plus, minus


def survival(G: Tensor, weights: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
    """P of each direction, (B, A), that keeps lepton number: sum w (1 - P) G = 0."""
    sign = torch.where(plus < minus, 1.0, -1.0)[:, None].to(G)
    small, large = torch.minimum(plus, minus), torch.maximum(plus, minus)
    on_small = (sign * G).clamp_min(0)
    edge = (SOFT_EDGE * on_small.amax(dim=1, keepdim=True)).clamp_min(1e-30)
    full = (on_small / edge).clamp_max(1.0)
    counted = (on_small * full) @ weights
    all_of_it = 1 - 1 / FLAVOURS
    rest = all_of_it * counted / (large - small + counted).clamp_min(1e-30)
    rest = rest[:, None]
    leaves = rest + (all_of_it - rest) * full
    return 1 - leaves * ((plus + minus) / NOTHING).clamp_max(1.0)[:, None]
