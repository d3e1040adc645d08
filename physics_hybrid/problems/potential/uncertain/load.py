r"""What a solution is asked for, and what is asked of it: both are loads.

    b(v; mu) = constant . v + sum_m (1 / c_m) sum_p theta_p <alpha_m, D v>_p

A deposited current, and a voltage, are constants: amperes, or weights, in voxels. The closed form
of a point electrode in tissue that conducts c_m gives alpha (`physics.subtraction`: S = (sigma_h /
sigma_inf - 1) Phi), and so does a field, the mean flux through two faces over c_m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.uncertain.network import Network

#: A component that is 1, not a conductivity.
ONE = -1


@dataclass(frozen=True)
class Load:
    """constant : (n,) A in voxels of tissue, or shares of a voltage.

    parts : component c_m -> alpha_m on the faces (faces,).
    """

    constant: np.ndarray
    parts: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Offset:
    """What a value has beside its solution: values (K, J) times theta_p (or 1 where it is None)
    over the components."""

    values: np.ndarray
    group: int | None = None
    over: tuple[int, ...] = ()


@dataclass(frozen=True)
class Loads:
    """L loads together. constant : (n, L). alpha : (faces, L, M). over : component (L, M)."""

    constant: np.ndarray
    alpha: np.ndarray
    over: np.ndarray

    @classmethod
    def of(cls, network: Network, loads: Sequence[Load]) -> Loads:
        """Loads with fewer parts than others get parts of 0."""
        most = max(len(load.parts) for load in loads)
        alpha = np.zeros((len(network.axis), len(loads), most))
        over = np.full((len(loads), most), ONE)
        for number, load in enumerate(loads):
            for m, (component, values) in enumerate(load.parts.items()):
                alpha[:, number, m], over[number, m] = values, component
        return cls(np.stack([load.constant for load in loads], axis=1), alpha, over)

    def __len__(self) -> int:
        return int(self.constant.shape[1])

    def inverse(self, c: Tensor) -> Tensor:
        """1 / c_m of every part, for components (..., C): (..., L, M)."""
        one = torch.ones_like(c[..., :1])
        return 1 / torch.cat([c, one], dim=-1)[..., torch.from_numpy(self.over)]

    def rhs(self, network: Network, mu: np.ndarray) -> np.ndarray:
        """b(mu) in A, (n, L)."""
        given = torch.from_numpy(mu)
        scale = self.inverse(network.conductivities.components(given)).numpy()
        theta = network.theta(given).numpy()[network.group]
        known = np.einsum("flm,lm->fl", self.alpha, scale) * theta[:, None]
        out: np.ndarray = self.constant + network.D.T @ known
        return out
