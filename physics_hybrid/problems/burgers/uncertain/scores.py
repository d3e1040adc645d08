"""How good an ensemble is.

crps        mean over points of E|X - u| - E|X - X'| / 2 with pairs of different members (the fair
            score: Ferro, Q. J. R. Meteorol. Soc. 140 (2014) 1917, eq. 8); |X - u| of one member
rmse        of the ensemble's mean
spread      sqrt(variance (K + 1) / K), which an ideal ensemble has as large as rmse (Fortin et
            al., J. Hydrometeorol. 15 (2014) 1708)
roughness   total variation of the members over that of the truth
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problem import Row

COLUMNS = (
    ("crps", "CRPS"),
    ("rmse", "RMSE of the mean"),
    ("spread", "spread"),
    ("roughness", "total variation / truth"),
    ("milliseconds", "ms a sample"),
)


@dataclass(frozen=True)
class Ensemble:
    """members : (K, B, N); milliseconds : a sample, all members."""

    members: Float[Tensor, "K B N"]
    milliseconds: float


def fair_crps(members: Float[Tensor, "K B N"], u: Float[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """Mean over points, by PhysicsNeMo's kernel form; one member: the absolute error.

    Examples
    --------
    Two members at 0 and 1, truth 0: (0 + 1) / 2 - 1 / 2 = 0.

    >>> members = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    >>> fair_crps(members, torch.zeros(1, 1)).tolist()
    [0.0]
    """
    from physicsnemo.metrics.general.crps import kcrps

    if len(members) == 1:
        return (members[0] - u).abs().mean(dim=1)
    score: Tensor = kcrps(members, u, dim=0, biased=False)
    return score.mean(dim=1)


def total_variation(u: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
    total: Tensor = (u - torch.roll(u, 1, dims=-1)).abs().sum(dim=-1)
    return total


def variance(members: Float[Tensor, "K B N"]) -> Float[Tensor, "B N"]:
    """Of the members, times (K + 1) / K; 0 of one."""
    if len(members) == 1:
        return torch.zeros_like(members[0])
    return members.var(dim=0) * (len(members) + 1) / len(members)


def scores(ensemble: Ensemble, u: Float[Tensor, "B N"]) -> list[Row]:
    """One dict a sample."""
    members = ensemble.members
    error = (members.mean(dim=0) - u).square().mean(dim=1)
    columns = {
        "crps": fair_crps(members, u),
        "rmse": error.sqrt(),
        "spread": variance(members).mean(dim=1).sqrt(),
        "roughness": total_variation(members).mean(dim=0) / total_variation(u),
        "square_error": error,
        "variance": variance(members).mean(dim=1),
    }
    values = {name: column.tolist() for name, column in columns.items()}
    rows = [{name: values[name][i] for name in values} for i in range(len(u))]
    return [{**row, "milliseconds": ensemble.milliseconds} for row in rows]
