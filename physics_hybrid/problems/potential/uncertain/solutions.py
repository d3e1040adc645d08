"""Full solutions of the network at any parameters, and what their residuals are worth."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from physics_hybrid.problems.potential.certify.repair import Runs
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor, zero_mean
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.krylov import conjugate_gradients
from physics_hybrid.problems.potential.uncertain.network import Network

#: Voxels times loads that are solved together.
TOGETHER = 2_000_000
ITERATIONS = 300


@dataclass(frozen=True)
class Solver:
    """tolerance : relative residual of a solve. ends : of the body."""

    network: Network
    ends: Ends
    spacing: torch.Tensor
    tolerance: float

    def conductor(self, mu: np.ndarray) -> Conductor:
        """The body at parameters (T,)."""
        sigma = torch.from_numpy(self.network.conductivities.sigma(mu)).movedim(-1, 0)[None]
        return Conductor(sigma.contiguous(), self.spacing, self.ends)

    def solved(self, mu: np.ndarray, rhs: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """u with A(mu) u = rhs in A: (n, L) V. start : to begin with.

        Raises
        ------
        SolverError
            The tolerance was not reached.
        """
        conductor = self.conductor(mu)
        box = Box.of(conductor)
        inner = box.conductor(conductor)
        operator = FluxOperator.of(inner)
        together = max(1, TOGETHER // int(np.prod(box.size)))
        found = np.empty_like(rhs)
        for first in range(0, rhs.shape[1], together):
            rows = slice(first, first + together)
            density = box.within(self.network.on_grid(rhs[:, rows])) / self.network.volume
            begin = None if start is None else box.within(self.network.on_grid(start[:, rows]))
            if self.ends.floating:
                density = zero_mean(density, inner.tissue.expand_as(density))
            with torch.no_grad():
                solution = conjugate_gradients(
                    operator, density, self.tolerance, ITERATIONS, start=begin
                )
            found[:, rows] = self.network.in_tissue(box.whole(solution.phi))
        return found

    @functools.cached_property
    def runs(self) -> Runs:
        """Where a current that is lost can go."""
        return Runs.of(self.network.conductivities.index >= 0, not self.ends.floating)

    def repaired(self, lost: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        """|d|^2 in every group, for currents d that carry off `lost` (n, L) A. (P, L)"""
        network = self.network
        scale = 1 / np.sqrt(network.volume * network.weight)
        squares = np.empty((len(network.groups), lost.shape[1]))
        fields = network.on_grid(lost).numpy()
        for number, field in enumerate(fields):
            size = float(np.abs(rhs[:, number]).sum())
            carried = network.gathered(self.runs.carry(field, size))
            squares[:, number] = network.by_group((carried * scale) ** 2)
        return squares
