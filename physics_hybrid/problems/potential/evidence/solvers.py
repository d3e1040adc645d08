"""The two solvers that are held to exact solutions and to each other."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from physics_hybrid.problems.potential.exact.cases import FE, FV
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.solve import solve_elements
from physics_hybrid.problems.potential.physics.solve import solve

#: phi (K, D, H, W) in volts, of K electrodes.
Solver = Callable[[Conductor, PointSource], Tensor]


def finite_volumes(body: Conductor, source: PointSource) -> Tensor:
    return solve(body, source, 1e-9).phi


def finite_elements(body: Conductor, source: PointSource) -> Tensor:
    return solve_elements(body, source, 1e-8).phi


SOLVERS: dict[str, Solver] = {FV: finite_volumes, FE: finite_elements}
