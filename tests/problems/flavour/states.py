"""States that tests share."""

from __future__ import annotations

import torch
from torch import Tensor

from physics_hybrid.problems.flavour.physics.fluxes import total


def random_states(count: int, sharpest: float = 0.95, seed: int = 0, alike: bool = False) -> Tensor:
    """(count, 6, 4) divided by N_tot, float64; `alike`: mu and tau are the same."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(count, 6, dtype=torch.float64, generator=generator)
    factor = sharpest * torch.rand(count, 6, dtype=torch.float64, generator=generator)
    direction = torch.randn(count, 6, 3, dtype=torch.float64, generator=generator)
    direction /= direction.norm(dim=-1, keepdim=True)
    F = torch.cat([direction * (factor * density)[..., None], density[..., None]], dim=-1)
    if alike:
        F[:, (2, 5)] = F[:, (1, 4)]
    return F / total(F)


def beams(electron: float, anti: float, flux: list[float], anti_flux: list[float]) -> Tensor:
    """nu_e and nubar_e alone, (6, 4)."""
    F = torch.zeros(6, 4, dtype=torch.float64)
    F[0] = electron * torch.tensor([*flux, 1.0])
    F[3] = anti * torch.tensor([*anti_flux, 1.0])
    return F


def rotations(count: int, seed: int = 1) -> Tensor:
    """(count, 3, 3)"""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(count, 3, 3, dtype=torch.float64, generator=generator))
    return Q * torch.linalg.det(Q)[:, None, None]


def rotated(F: Tensor, Q: Tensor) -> Tensor:
    return torch.cat([F[..., :3] @ Q.transpose(-1, -2), F[..., 3:]], dim=-1)
