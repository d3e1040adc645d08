r"""A body whose tissues conduct as they are told: the parameters of a conductor.

    sigma_a(voxel) = c(mu) r_a

c one of the components of the voxel's tissue, in S/m, r_a a fixed ratio along axis a. A tissue has
one component, sigma along D, and keeps the ratios of its tensor; or two, along D and across, where
these are told apart. A component is a parameter mu_t, or fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

#: What follows the name of a tissue whose tensor is told apart, and its first axis.
PARTS = {"along": 0, "across": 1}


@dataclass(frozen=True)
class Conductivities:
    """names : of the T parameters. own : what the body has, (T,) S/m.

    index : tissue of every voxel, -1 in air (D, H, W).
    component : of every tissue along every axis (tissues, 3). ratio : r_a (tissues, 3).
    parameter : of every component, -1 where it is fixed (C,). fixed : its own value (C,) S/m.
    """

    names: tuple[str, ...]
    own: np.ndarray
    index: np.ndarray
    component: np.ndarray
    ratio: np.ndarray
    parameter: np.ndarray
    fixed: np.ndarray

    @classmethod
    def of(
        cls, index: np.ndarray, tissues: Mapping[str, np.ndarray], varied: tuple[str, ...]
    ) -> Conductivities:
        """index : tissue of every voxel, -1 in air. tissues : name -> (3,) S/m. varied : names of
        tissues, or `NAME.along`, `NAME.across`.

        Raises
        ------
        ValueError
            Another name; parts of a tissue that conducts alike in all directions; a tissue and a
            part of it.
        """
        known = _parts_of(tissues, varied)
        component, ratio, parameter = [], [], []
        values: list[float] = []
        for name, sigma in tissues.items():
            split = any(part in known for part in (f"{name}.along", f"{name}.across"))
            firsts = (0, 1, 1) if split else (0, 0, 0)
            first = len(values)
            component.append([first + a for a in firsts])
            ratio.append([sigma[axis] / sigma[a] for axis, a in enumerate(firsts)])
            for part, axis in PARTS.items() if split else (("", 0),):
                whole = f"{name}.{part}" if split else name
                parameter.append(varied.index(whole) if whole in varied else -1)
                values.append(sigma[axis])
        number = np.array(parameter)
        fixed = np.array(values, dtype=float)
        own = np.array([fixed[number == t][0] for t in range(len(varied))])
        return cls(
            names=tuple(varied),
            own=own,
            index=index,
            component=np.array(component),
            ratio=np.array(ratio, dtype=float),
            parameter=number,
            fixed=fixed,
        )

    def components(self, mu: Float[Tensor, "*n T"]) -> Float[Tensor, "*n C"]:
        """c of every component, S/m."""
        fixed = torch.from_numpy(self.fixed).expand(*mu.shape[:-1], -1)
        which = torch.from_numpy(self.parameter)
        return torch.where(which >= 0, mu[..., which.clamp_min(0)], fixed)

    def sigma(self, mu: np.ndarray) -> np.ndarray:
        """S/m along the axes in every voxel, 0 in air. (T,) -> (D, H, W, 3)"""
        c = self.components(torch.as_tensor(mu, dtype=torch.float64)).numpy()
        table = np.concatenate([c[self.component] * self.ratio, np.zeros((1, 3))])
        held: np.ndarray = table[self.index]  # -1: the last row
        return held


def _parts_of(tissues: Mapping[str, np.ndarray], varied: tuple[str, ...]) -> set[str]:
    """The names that are parts of tissues. Raises ValueError as `Conductivities.of`."""
    parts = set()
    for name in varied:
        if name in tissues:
            continue
        tissue, _, part = name.rpartition(".")
        if tissue not in tissues or part not in PARTS:
            raise ValueError(
                f"there is no tissue {name!r}; the body has {', '.join(tissues)}, and along and"
                " across of a tensor, such as 'muscle.along'"
            )
        sigma = tissues[tissue]
        if np.ptp(sigma) <= 1e-12 * sigma.max():
            raise ValueError(
                f"{name!r}: {tissue} conducts alike in all directions: its name alone, {tissue!r}"
            )
        if tissue in varied:
            raise ValueError(f"{name!r} and {tissue!r}: a tissue as a whole, or its parts")
        parts.add(name)
    return parts
