"""The equations of many sources in one body, solved as many at once as there is memory for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.door.progress import Progress
from physics_hybrid.problems.potential.door.sources import Sources
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.krylov import Solution, SolverError
from physics_hybrid.problems.potential.physics.solve import solve as solve_finite_volumes

#: Bytes that a solve takes for each voxel and source at its peak, float64.
SOLVE_BYTES = 400
#: Of the memory that is free, what sources that are solved together may take.
SHARE = 0.5
#: Voxels times sources beyond which more at once is not faster.
TOGETHER = 2_000_000
#: Relative residuals that float32 reaches.
SINGLE = 1e-3
MAX_ITERATIONS = 300


@dataclass(frozen=True)
class Found:
    """volts : (K, D, H, W). iterations, residual : the largest."""

    volts: Float[Tensor, "K D H W"]
    iterations: int
    residual: float


@dataclass(frozen=True)
class Equations:
    """What is solved: a conductor, its sources, how well, from where (V, or None)."""

    conductor: Conductor
    sources: Sources
    tolerance: float
    singularity: str
    guess: Float[Tensor, "K D H W"] | None

    def solved(self, progress: bool) -> Found:
        """All sources."""
        volts: list[Tensor] = []
        iterations, residual = self.each(lambda _, phi: volts.append(phi), progress)
        return Found(torch.cat(volts) if len(volts) > 1 else volts[0], iterations, residual)

    def each(self, take: Callable[[slice, Tensor], None], progress: bool) -> tuple[int, float]:
        """Call `take` with the rows of sources that are solved together and their phi, group by
        group; the most iterations and the largest residual.
        """
        box = Box.of(self.conductor)
        inner = Equations(
            conductor=box.conductor(self.conductor),
            sources=self.sources.within(box, self.conductor.spacing[0]),
            tolerance=self.tolerance,
            singularity=self.singularity,
            guess=None if self.guess is None else box.within(self.guess),
        )
        iterations, residual = 0, 0.0
        with Progress(len(self.sources), self.tolerance, "solving", progress) as bar:
            for rows in inner._groups():
                count = rows.stop - rows.start

                def seen(relative: Tensor, count: int = count) -> None:
                    bar.within(relative, count)

                solution = inner._solution(rows, seen)
                take(rows, box.whole(solution.phi.double()))
                iterations = max(iterations, solution.iterations)
                residual = max(residual, float(solution.residual.max()))
                bar.finished(count)
        return iterations, residual

    def _solution(self, rows: slice, seen: Any) -> Solution:
        """Some of the sources: float32 where that is enough and comes there, else float64."""
        source = self.sources.part(self.conductor, rows)
        start = None if self.guess is None else self.guess[rows]
        derivatives = self.conductor.sigma.requires_grad or self.sources.differentiable
        types = [torch.float64]
        if self.tolerance >= SINGLE and not derivatives:
            types.insert(0, torch.float32)
        for dtype in types:
            try:
                return solve_finite_volumes(
                    self.conductor,
                    source,
                    self.tolerance,
                    dtype,
                    self.singularity,
                    MAX_ITERATIONS,
                    start=start,
                    report=seen,
                )
            except SolverError:
                if dtype == torch.float64:
                    raise
        raise AssertionError("float64 returns or raises")

    def _groups(self) -> Iterator[slice]:
        """Rows that are solved together. Raises ValueError where one is too much."""
        together = at_once(self.conductor)
        for first in range(0, len(self.sources), together):
            yield slice(first, min(first + together, len(self.sources)))


def at_once(conductor: Conductor) -> int:
    """How many right-hand sides are solved together. Raises ValueError where one is too much."""
    voxels = math.prod(conductor.shape)
    each = voxels * SOLVE_BYTES
    if conductor.oblique:
        each *= 10
    free = require_memory(voxels, each, "solve")
    return max(1, min(int(SHARE * free / each), TOGETHER // voxels))


def require_memory(voxels: int, needed: float, task: str) -> int:
    """Bytes that are free. Raises ValueError where a task on so many voxels needs more."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"{voxels / 1e6:.3g} million voxels take about {needed / 1e9:.2g} GB to {task}, and"
            f" {free / 1e9:.2g} GB are free: crop the air, or take coarser voxels"
        )
    return int(free)
