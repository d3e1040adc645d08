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

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
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
    """What Box3D says of states divided by N_tot.

    increment : what it adds.
    plus, minus : I+ and I-.
    """

    increment: Float[Tensor, "B 6 4"]
    plus: Float[Tensor, " B"]
    minus: Float[Tensor, " B"]

    @property
    def size(self) -> Float[Tensor, " B"]:
        """Norm of what the electron flavours lose."""
        size: Tensor = self.increment[:, (0, 3)].flatten(1).norm(dim=1)
        return size

    @property
    def crossing(self) -> Float[Tensor, " B"]:
        """I_small / I_large, 0 to 1: how deep the crossing is."""
        large = torch.maximum(self.plus, self.minus)
        return torch.minimum(self.plus, self.minus) / large.clamp_min(1e-30)


def convert(F: Float[Tensor, "B 6 4"], rule: Quadrature) -> Conversion:
    """Box3D of states divided by N_tot, in the precision of F; float64 in between, since
    the exponents of beams and the edge of the crossing lose digits.
    """
    q, axes = turned(F)
    directions, moments = rule.with_one().to(q).T.contiguous(), rule.moments().to(q)
    parts = [_leaving(part, directions, moments) for part in torch.split(q, TOGETHER)]
    change, plus, minus = (torch.cat(column) for column in zip(*parts, strict=True))
    increment = share_out(turned_back(change, axes))
    increment = increment * physical_share(F, increment)
    return Conversion(increment.to(F), plus.to(F), minus.to(F))


def box3d(F: Float[Tensor, "B 6 4"], rule: Quadrature) -> Float[Tensor, "B 6 4"]:
    """States before -> states after, in any unit of density."""
    scale = total(F)
    unit = F / scale
    return F + convert(unit, rule).increment * scale


def growth_rate(F: Float[Tensor, "B 6 4"], rule: Quadrature) -> Float[Tensor, " B"]:
    """sqrt(I+ I-) as a rate in 1/s; F in 1/cm^3."""
    scale = total(F)
    found = convert(F / scale, rule)
    return (found.plus * found.minus).sqrt() * scale[:, 0, 0] * RATE_OF_DENSITY


def electron_minus_heavy(g: Float[Tensor, "B 4 A"]) -> Float[Tensor, "B A"]:
    """G of the four kinds e, x, ebar, xbar."""
    return (g[:, 0] - g[:, 1]) - (g[:, 2] - g[:, 3])


def kinds(F: Float[Tensor, "B 6 4"]) -> Float[Tensor, "B 4 4"]:
    """e, x, ebar, xbar; x the mean of mu and tau."""
    heavy = 0.5 * (F[:, (1, 4)] + F[:, (2, 5)])
    return torch.stack([F[:, 0], heavy[:, 0], F[:, 3], heavy[:, 1]], dim=1)


def share_out(leaving: Float[Tensor, "B 2 4"]) -> Float[Tensor, "B 6 4"]:
    """The increments of all species when D leaves the electron flavour."""
    half = leaving / (FLAVOURS - 1)
    return torch.stack([-leaving, half, half], dim=2).flatten(1, 2)


def turned(
    F: Float[Tensor, "B 6 4"],
) -> tuple[Float64[Tensor, "B 4 4"], Float64[Tensor, "B 3 3"]]:
    """Exponents of the four kinds in the frame of the state, and its axes."""
    axes = frame(F)
    q = exponents(kinds(F))
    return torch.cat([q[..., :3] @ axes.transpose(1, 2), q[..., 3:]], dim=-1), axes


def turned_back(
    change: Float[Tensor, "B K 4"], axes: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B K 4"]:
    """Four-fluxes from the frame of the state to that of its axes."""
    return torch.cat([change[..., :3] @ axes.to(change), change[..., 3:]], dim=-1)


def distributions(
    F: Float[Tensor, "B 6 4"], rule: Quadrature
) -> tuple[Float64[Tensor, "B 4 A"], Float64[Tensor, "B 3 3"]]:
    """g of the four kinds in the frame of the state, and its axes."""
    q, axes = turned(F)
    return torch.exp(q @ rule.with_one().T), axes


def _leaving(
    q: Float[Tensor, "B 4 4"], directions: Float[Tensor, "4 A"], moments: Float[Tensor, "A 4"]
) -> tuple[Float[Tensor, "B 2 4"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    """D of neutrinos and antineutrinos, in the frame of the state; I+ and I-."""
    g = torch.exp(q @ directions)
    excess_of_electrons = g[:, 0::2] - g[:, 1::2]
    G, weights = excess_of_electrons[:, 0] - excess_of_electrons[:, 1], moments[:, 3]
    plus = G.clamp_min(0) @ weights
    minus = (-G).clamp_min(0) @ weights
    leaves = 1 - survival(G, weights, plus, minus)
    return (excess_of_electrons * leaves[:, None]) @ moments, plus, minus


def survival(
    G: Float[Tensor, "B A"],
    weights: Float[Tensor, " A"],
    plus: Float[Tensor, " B"],
    minus: Float[Tensor, " B"],
) -> Float[Tensor, "B A"]:
    """P of each direction that keeps lepton number: sum w (1 - P) G = 0."""
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
