"""Endless solved batches: limbs are drawn, voxelised and solved on the training device, never stored.

PhysicsNeMo's Darcy example trains in the same way. Every sample is a function of (seed, split, number): the
stream can be entered anywhere, restarted, shared out over ranks, and no limb is in two splits.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.potential.batch import components
from physics_hybrid.potential.bodies.limb import VoxelLimb
from physics_hybrid.potential.physics.conductor import Conductor, Ends
from physics_hybrid.potential.physics.multigrid import solve
from physics_hybrid.potential.physics.point_source import PointSource
from physics_hybrid.potential.scene import Batch

SPLITS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Solver:
    """How truth is made. kind: 'finite_volume' or 'finite_element'; tolerance: relative residual; dtype: 'float64' or 'float32';
    singularity: 'subtraction' or 'nodal'; ends: how the current leaves."""

    kind: str = "finite_volume"
    tolerance: float = 1e-6
    dtype: str = "float64"
    singularity: str = "subtraction"
    ends: Ends = Ends()
    max_iterations: int = 200

    def __post_init__(self):
        if self.kind not in ("finite_volume", "finite_element"):
            raise ValueError(f"data.solver must be finite_volume or finite_element; got {self.kind!r}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"data.solve.dtype must be float32 or float64; got {self.dtype!r}")
        if self.kind == "finite_element" and self.dtype != "float64":
            raise ValueError(f"data.solve.dtype={self.dtype} is for data.solver=finite_volume: finite elements are solved in float64")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"data.solve.tolerance must lie in (0, 1); got {self.tolerance}")


class Drawn(Protocol):
    """One body with its electrodes, in metres."""

    def voxelise(self, grid: Grid) -> VoxelLimb: ...


class Bodies(Protocol):
    """What samples are drawn from: `phantom.LimbDistribution`, or `labels.Segmentations`."""

    tissues: tuple[str, ...]
    oblique: bool

    def draw(self, seed: int, split: int, number: int, electrodes: int = 1) -> Drawn: ...
    def phantom(self, seed: int, split: str, number: int) -> str: ...
    def available(self, split: str) -> float: ...
    def settings(self) -> dict: ...


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
        paired = self.solver.ends.kind == "pair"
        bodies = self._voxelised(numbers, 1 + paired)
        dtype, how = getattr(torch, self.solver.dtype), self.solver
        device = torch.device("cpu") if self.device.type == "mps" else self.device  # Apple's MPS has no float64
        def tensor(values):
            return torch.from_numpy(np.stack(values)).to(device, dtype)
        given = [components(b.table.T, self.sigma_components, self.phantom(n)).T for b, n in zip(bodies, numbers)]  # refused before it is solved
        index = torch.from_numpy(np.stack([b.index for b in bodies])).to(device)
        row = (torch.arange(len(bodies), device=device).view(-1, 1, 1, 1), index.long())
        def spread(tables):
            return tensor(tables)[row].movedim(-1, 1).contiguous()
        sigma, spacing = spread([b.table for b in bodies]), tensor([b.spacing for b in bodies])
        returns = tensor([b.return_point for b in bodies]) if paired else None
        source = PointSource(tensor([b.source_point for b in bodies]), tensor([np.asarray(b.current) for b in bodies]), returns)
        conductor = Conductor(sigma, spacing, how.ends)
        if how.kind == "finite_element":
            from physics_hybrid.potential.physics.elements.solve import solve_elements

            solution = solve_elements(conductor, source, how.tolerance, how.singularity, how.max_iterations)
        else:
            solution = solve(conductor, source, how.tolerance, dtype, how.singularity, how.max_iterations)
        return Batch(
            sigma=sigma.float() if self.sigma_components == sigma.shape[1] else spread(given).float(),
            source=self._source(bodies, device),
            u=solution.phi.float(),
            spacing=spacing.float(),
            source_point=source.point.float(),
            current=source.current.float(),
            labels=torch.from_numpy(np.stack([b.names for b in bodies])).to(device)[row],
            names=tuple(self.phantom(n) for n in numbers),
            return_point=returns.float() if paired else None,
            nodes=solution.nodes.float() if how.kind == "finite_element" else None,
            singularity=how.singularity,
        ).to(self.device)

    def _voxelised(self, numbers: list[int], electrodes: int) -> list[VoxelLimb]:
        def make(n):
            return self.limbs.draw(self.seed, SPLITS[self.split], n, electrodes=electrodes).voxelise(self.grid)
        if len(numbers) == 1 or torch.get_num_threads() == 1:
            return [make(n) for n in numbers]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy works outside the interpreter's lock
            return list(pool.map(make, numbers))

    def _source(self, bodies: list[VoxelLimb], device: torch.device) -> Tensor:
        """Current density of the electrodes, A/m^3, float32. (B, D, H, W)"""
        f = torch.zeros(len(bodies), *self.grid, device=device)
        parts = [(b, voxels, values) for b, body in enumerate(bodies) for voxels, values in body.deposits()]
        where = np.concatenate([np.column_stack([np.full(len(voxels), b), voxels]) for b, voxels, _ in parts])
        values = torch.from_numpy(np.concatenate([values for *_, values in parts])).float().to(device)
        return f.index_put(tuple(torch.from_numpy(where.T).to(device)), values)  # electrodes are 3 voxels apart: no voxel has two
