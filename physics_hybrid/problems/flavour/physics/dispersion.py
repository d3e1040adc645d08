"""Linear growth: the waves of flavour coherence exp(i (k . x - Omega t)) on a distribution G.

    Omega S_i = (k . v_i - L_i) S_i + sum_j w_j G_j (1 - v_i . v_j) S_j
    L_i = sum_j w_j G_j (1 - v_i . v_j)

(Izaguirre, Raffelt and Tamborra, Phys. Rev. Lett. 118 (2017) 021101, with directions as they are
discretised here). A wave grows at the largest imaginary part of Omega.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from physics_hybrid.problems.flavour.physics.box3d import distributions, electron_minus_heavy
from physics_hybrid.problems.flavour.physics.sphere import Quadrature


def growth(
    weighted: Float64[Tensor, " A"], directions: Float64[Tensor, "A 3"], k: Float64[Tensor, "K 3"]
) -> Float64[Tensor, " K"]:
    """Largest growth rate of each wave.

    weighted : w G; the rate is in its unit, k in that unit over c.
    """
    coupling = (1 - directions @ directions.T) * weighted
    matter = coupling.sum(dim=1)
    diagonal = k @ directions.T - matter
    matrices = coupling + torch.diag_embed(diagonal)
    largest: Tensor = torch.linalg.eigvals(matrices).imag.amax(dim=-1)
    return largest


def largest_growth(
    F: Float[Tensor, "6 4"], rule: Quadrature, wavenumbers: Sequence[float]
) -> Float64[Tensor, ""]:
    """Largest growth rate of a state divided by N_tot over waves along its lepton flux.

    wavenumbers : and the rate, in units of sqrt2 G_F N_tot.
    """
    g, _ = distributions(F[None].double(), rule)
    weighted = electron_minus_heavy(g)[0] * rule.weights
    k = torch.zeros(len(wavenumbers), 3, dtype=torch.float64)
    k[:, 2] = torch.as_tensor(list(wavenumbers), dtype=torch.float64)
    return growth(weighted, rule.directions, k).amax()
