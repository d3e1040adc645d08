"""How good a closure is, a number a sample.

    error         max |F - F*| / max(max |F* - F_before|, floor N_tot)     over species, components
    over_number   max |F - F*| / N_tot
    electron      |N_e - N_e*| / N_e*
    unphysical    1 where a species has N < 0 or |F| > N
    number        |sum N - sum N_before| / N_tot
    lepton        largest |change of N_nu - N_nubar| of a flavour / N_tot
    growth        sqrt(I+ I-) after / before: 0 where the crossing is gone

`error` is 1 where a prediction leaves the state as it is, and as wrong as no closure at all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from physics_hybrid.problem import Row
from physics_hybrid.problems.flavour.data.states import States
from physics_hybrid.problems.flavour.physics.box3d import convert
from physics_hybrid.problems.flavour.physics.fluxes import is_physical, total
from physics_hybrid.problems.flavour.physics.sphere import Quadrature

COLUMNS = (
    ("error", "error / largest change"),
    ("over_number", "error / N_tot"),
    ("electron", "nu_e density"),
    ("unphysical", "unphysical"),
    ("number", "number"),
    ("lepton", "lepton number"),
    ("growth", "growth left"),
)


@dataclass(frozen=True)
class Metrics:
    """floor : share of N_tot that the largest change counts as at least; rule : for the growth."""

    floor: float
    rule: Quadrature

    def error(self, F: Float[Tensor, "B 6 4"], batch: States) -> Float64[Tensor, " B"]:
        """The first column."""
        largest = _largest(batch.after - batch.before).clamp_min(self.floor)
        return _largest(F - batch.after) / largest

    def __call__(self, F: Float[Tensor, "B 6 4"], batch: States) -> list[Row]:
        """One dict a sample; F divided by N_tot."""
        change = (F.double() - batch.before.double())[..., 3]
        true = batch.after[:, 0, 3].double()
        columns = {
            "error": self.error(F, batch),
            "over_number": _largest(F - batch.after),
            "electron": (F[:, 0, 3].double() - true).abs() / true.clamp_min(1e-6),
            "unphysical": (~is_physical(F)).double(),
            "number": change.sum(dim=1).abs(),
            "lepton": (change[:, :3] - change[:, 3:]).abs().amax(dim=1),
            "growth": self.growth(F) / self.growth(batch.before).clamp_min(1e-9),
        }
        values = {name: column.tolist() for name, column in columns.items()}
        return [{name: values[name][i] for name in values} for i in range(len(batch))]

    def growth(self, F: Float[Tensor, "B 6 4"]) -> Float64[Tensor, " B"]:
        """sqrt(I+ I-) of states, as a share of N_tot; what is unphysical is cut to what is not."""
        N = F[..., 3:].clamp_min(0)
        size = F[..., :3].norm(dim=-1, keepdim=True).clamp_min(1e-12)
        flux = F[..., :3] * (N / size).clamp_max(1.0)
        fits = torch.cat([flux, N], dim=-1)
        found = convert(fits / total(fits), self.rule)
        return (found.plus * found.minus).sqrt().double()


def _largest(difference: Float[Tensor, "B 6 4"]) -> Float64[Tensor, " B"]:
    return difference.double().abs().amax(dim=(1, 2))


def equipartition(F: Float[Tensor, "B 6 4"]) -> Float[Tensor, "B 6 4"]:
    """Every flavour the mean of all, neutrinos and antineutrinos apart."""
    pairs = F.reshape(-1, 2, 3, 4).mean(dim=2, keepdim=True)
    return pairs.expand(-1, 2, 3, 4).reshape(-1, 6, 4)
