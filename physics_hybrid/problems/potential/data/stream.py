"""Endless solved batches: limbs are drawn, voxelised and solved on the training device.

None is stored. PhysicsNeMo's Darcy example trains in the same way. Every sample is a function of
(seed, split, number): the stream can be entered anywhere, restarted, shared out over ranks, and no
limb is in two splits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.checks import one_of, within
from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.bodies.voxel_body import VoxelBody
from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.problems.potential.scene import Batch

SPLITS = {"train": 0, "validation": 1, "test": 2}

#: Limbs are drawn by so many threads at most, and small ones by one: with 16 threads a limb of
#: 48x24x24 took three times as long, waiting for the interpreter's lock.
THREADS, ALONE = 8, 2**16


@dataclass(frozen=True)
class Solver:
    """How truth is made.

    kind : 'finite_volume' or 'finite_element'.
    tolerance : relative residual.
    dtype : 'float64' or 'float32'.
    singularity : 'subtraction' or 'nodal'.
    ends : how the current leaves.

    Raises
    ------
    ValueError
        For another word, a tolerance outside (0, 1), or elements in float32.
    """

    kind: str = "finite_volume"
    tolerance: float = 1e-6
    dtype: str = "float64"
    singularity: str = "subtraction"
    ends: Ends = Ends()
    max_iterations: int = 200

    def __post_init__(self) -> None:
        one_of(("finite_volume", "finite_element"), "data.solver", self.kind)
        one_of(("float32", "float64"), "data.solve.dtype", self.dtype)
        if self.kind == "finite_element" and self.dtype != "float64":
            raise ValueError(
                f"data.solve.dtype={self.dtype} is for data.solver=finite_volume: "
                "finite elements are solved in float64"
            )
        within(0, 1, "data.solve.tolerance", self.tolerance, ends="()")


class Drawn(Protocol):
    """One body with its electrodes, in metres."""

    def voxelise(self, grid: Grid) -> VoxelBody: ...


class Bodies(Protocol):
    """What samples are drawn from: `limb.LimbDistribution`, or `segmentation.Segmentations`."""

    @property
    def tissues(self) -> tuple[str, ...]: ...

    @property
    def oblique(self) -> bool: ...

    def draw(self, seed: int, split: int, number: int, electrodes: int = 1) -> Drawn: ...
    def phantom(self, seed: int, split: str, number: int) -> str: ...
    def available(self, split: str) -> float: ...
    def content(self, split: str) -> Sequence[tuple[str, str]]: ...
    def settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class LimbStream:
    """Solved limbs of one split on one grid (D, H, W)."""

    limbs: Bodies
    grid: Grid
    seed: int
    split: str
    solver: Solver
    device: torch.device
    sigma_components: int = 3

    def phantom(self, number: int) -> str:
        return self.limbs.phantom(self.seed, self.split, number)

    def batch(self, numbers: Iterable[int]) -> Batch:
        """Draw, voxelise and solve the limbs with these numbers.

        Raises
        ------
        ValueError
            If sigma_components are too few for these limbs.
        SolverError
            If a solve does not reach its tolerance.
        """
        numbers = list(numbers)
        names = tuple(self.phantom(n) for n in numbers)
        paired = self.solver.ends.kind == "pair"
        bodies = self._voxelised(numbers, 1 + paired)
        tables = self._given_tables(bodies, names)  # refused before it is solved

        dtype = getattr(torch, self.solver.dtype)
        # Apple's MPS has no float64
        device = torch.device("cpu") if self.device.type == "mps" else self.device
        rows = torch.from_numpy(np.stack([b.index for b in bodies])).to(device).long()
        sigma = _by_row(_stack([b.table for b in bodies], device, dtype), rows)
        spacing = _stack([b.spacing for b in bodies], device, dtype)
        returns = [b.return_point for b in bodies if b.return_point is not None]
        source = PointSource(
            point=_stack([b.source_point for b in bodies], device, dtype),
            current=_stack([np.asarray(b.current) for b in bodies], device, dtype),
            returns=_stack(returns, device, dtype) if paired else None,
        )
        phi, nodes = self._solved(Conductor(sigma, spacing, self.solver.ends), source)

        given = sigma
        if self.sigma_components != sigma.shape[1]:
            given = _by_row(_stack(tables, device, dtype), rows)
        tissues = torch.from_numpy(np.stack([b.names for b in bodies])).to(device)
        return Batch(
            sigma=given.float(),
            source=self._source(bodies, device),
            u=phi.float(),
            spacing=spacing.float(),
            source_point=source.point.float(),
            current=source.current.float(),
            labels=tissues[_sample(rows), rows],
            names=names,
            return_point=None if source.returns is None else source.returns.float(),
            nodes=None if nodes is None else nodes.float(),
            singularity=self.solver.singularity,
        ).to(self.device)

    def _given_tables(self, bodies: Sequence[VoxelBody], names: Sequence[str]) -> list[np.ndarray]:
        """Conductivities (rows, C) of each body, S/m, with as many components as are asked for."""
        return [
            components(body.table.T, self.sigma_components, name).T
            for body, name in zip(bodies, names, strict=True)
        ]

    def _solved(self, conductor: Conductor, source: PointSource) -> tuple[Tensor, Tensor | None]:
        """phi at voxel centres, and at voxel corners where finite elements make it; V."""
        how = self.solver
        if how.kind == "finite_element":
            from physics_hybrid.problems.potential.physics.elements.solve import solve_elements

            elements = solve_elements(
                conductor, source, how.tolerance, how.singularity, how.max_iterations
            )
            return elements.phi, elements.nodes
        dtype = getattr(torch, how.dtype)
        volumes = solve(
            conductor, source, how.tolerance, dtype, how.singularity, how.max_iterations
        )
        return volumes.phi, None

    def _voxelised(self, numbers: Sequence[int], electrodes: int) -> list[VoxelBody]:
        def make(number: int) -> VoxelBody:
            split = SPLITS[self.split]
            body = self.limbs.draw(self.seed, split, number, electrodes=electrodes)
            return body.voxelise(self.grid)

        threads = min(torch.get_num_threads(), THREADS)
        if len(numbers) == 1 or threads == 1 or math.prod(self.grid) < ALONE:
            return [make(n) for n in numbers]
        with ThreadPoolExecutor(threads) as pool:  # NumPy works outside the interpreter's lock
            return list(pool.map(make, numbers))

    def _source(self, bodies: Sequence[VoxelBody], device: torch.device) -> Tensor:
        """Current density of the electrodes, A/m^3, float32. (B, D, H, W)"""
        where, density = [], []
        for b, body in enumerate(bodies):
            for voxels, share in body.deposits():
                where.append(np.column_stack([np.full(len(voxels), b), voxels]))
                density.append(share)
        index = torch.from_numpy(np.concatenate(where).T).to(device)
        values = torch.from_numpy(np.concatenate(density)).float().to(device)
        f = torch.zeros(len(bodies), *self.grid, device=device)
        # electrodes are 3 voxels apart: no voxel has two
        return f.index_put(tuple(index), values)


def _stack(values: Sequence[np.ndarray], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.stack(values)).to(device, dtype)


def _sample(rows: Tensor) -> Tensor:
    """The number of each sample, to index tables beside their rows. (B, 1, 1, 1)"""
    return torch.arange(len(rows), device=rows.device).view(-1, 1, 1, 1)


def _by_row(tables: Tensor, rows: Tensor) -> Tensor:
    """Tables (B, rows, C) of the rows (B, D, H, W) that voxels have: (B, C, D, H, W)."""
    return tables[_sample(rows), rows].movedim(-1, 1).contiguous()
