"""Trajectories: cell means of u over time, of one viscosity each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Trajectories:
    """u : (n, T, N) float32, cell means on (0, 1), periodic.

    dt : time between two frames.
    nu : (n,), PDEBench's viscosity: u_t + (u^2 / 2)_x = nu / pi u_xx.
    names : of each.
    """

    u: Tensor
    dt: float
    nu: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def frames(self) -> int:
        return self.u.shape[1]

    @property
    def cells(self) -> int:
        return self.u.shape[2]

    def rows(self, numbers: Sequence[int]) -> Trajectories:
        index = torch.as_tensor(list(numbers), dtype=torch.long, device=self.u.device)
        names = tuple(self.names[i] for i in numbers)
        return replace(self, u=self.u[index], nu=self.nu[index], names=names)

    def to(self, device: torch.device) -> Trajectories:
        return replace(self, u=self.u.to(device), nu=self.nu.to(device))

    def contents(self) -> list[tuple[str, str]]:
        """(name, fingerprint) of each."""
        values = self.u.cpu().numpy()
        prints = [hashlib.sha256(v.tobytes()).hexdigest()[:16] for v in values]
        return list(zip(self.names, prints, strict=True))

    def of_viscosity(self) -> dict[float, Trajectories]:
        """Those of each viscosity, the smallest first."""
        values = [round(v, 10) for v in self.nu.tolist()]
        return {
            nu: self.rows([i for i, value in enumerate(values) if value == nu])
            for nu in sorted(set(values))
        }


def joined(parts: Sequence[Trajectories]) -> Trajectories:
    """One after the other; all of the same frames and cells."""
    return Trajectories(
        u=torch.cat([part.u for part in parts]),
        dt=parts[0].dt,
        nu=torch.cat([part.nu for part in parts]),
        names=tuple(name for part in parts for name in part.names),
    )
