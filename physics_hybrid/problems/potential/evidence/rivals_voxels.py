"""Solvers on limbs on voxels: seconds to an error, from the same voxels and the same electrode.

What a solve takes has three parts, in seconds of the processor:

    setup    matrix and multigrid levels, once for a body
    source   closed form and right-hand side, once for an electrode
    solve    the iteration, for an electrode, to a relative residual

The error is the relative L2 in tissue beyond 3 voxels of the electrode, from the converged
solution of the same discretisation: of ours and of everything on our matrix, finite volumes to
1e-10; of finite elements their own to 1e-10 (how far the two are apart: docs/truth.md).

Down to a relative residual of `FLOAT32` ours is in float32, and so is the right-hand side of
everybody on our matrix; below it all is in float64, as the others always are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyamg
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import cg
from torch import Tensor

from physics_hybrid.problems.potential.evidence.rivals_clock import clocked
from physics_hybrid.problems.potential.evidence.rivals_matrix import matrix_of, solve_by_hypre
from physics_hybrid.problems.potential.physics.conductor import Conductor, outside_sphere
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.amg import conjugate_gradients, v_cycle
from physics_hybrid.problems.potential.physics.elements.assembly import assemble
from physics_hybrid.problems.potential.physics.elements.source import ElementSource
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.multigrid import Multigrid
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

#: The loosest relative residual that is asked for in float64.
FLOAT32 = 1e-4

#: Relative residual of a converged solution.
CONVERGED = 1e-10

#: Voxels round the electrode in which nothing is compared.
NEAR = 3

#: Errors that are worth a column; no contender goes on below the smaller one.
GOALS = (1e-2, 1e-6)

MAX_ITERATIONS = 500

#: Electrodes of one body that ours takes at once, in a row of its own.
TOGETHER = 4

OURS = "multigrid, ours"
OURS_TOGETHER = f"multigrid, ours, each of {TOGETHER} electrodes at once"
ELEMENTS = "finite elements, scikit-fem + pyamg"
PYAMG = {
    "our matrix, pyamg smoothed aggregation": pyamg.smoothed_aggregation_solver,
    "our matrix, pyamg Ruge-Stüben": pyamg.ruge_stuben_solver,
}


@dataclass(frozen=True)
class Rung:
    """One solver at one tolerance on one limb: seconds of setup, source and solve."""

    solver: str
    tolerance: float
    error: float
    iterations: int
    setup: float
    source: float
    solve: float


@dataclass(frozen=True)
class Limb:
    """One conductor (B = 1) with one electrode, in float64."""

    conductor: Conductor
    source: PointSource

    @classmethod
    def of(cls, conductor: Conductor, source: PointSource) -> Limb:
        """The same in float64.

        Raises
        ------
        ValueError
            Where no current passes the ends, or fibres are oblique: our matrix is then singular,
            or has 27 points.
        """
        if conductor.ends.floating or conductor.oblique:
            raise ValueError(
                "solvers are compared on the 7-point matrix of a limb whose ends let the current "
                "out: set problem.ends=grounded, and leave fibres along D"
            )
        exactly = Conductor(conductor.sigma.double(), conductor.spacing.double(), conductor.ends)
        return cls(exactly, source.to(torch.float64))

    def at(self, tolerance: float) -> tuple[Conductor, PointSource]:
        """In the precision that a relative residual asks for."""
        dtype = precision(tolerance)
        body = self.conductor
        rounded = Conductor(body.sigma.to(dtype), body.spacing.to(dtype), body.ends)
        return rounded, self.source.to(dtype)

    @cached_property
    def compared(self) -> Tensor:
        """Tissue beyond 3 voxels of the electrode. (1, D, H, W)"""
        body = self.conductor
        away = outside_sphere(self.source.point, body.shape, body.spacing, NEAR)
        return away & body.tissue

    @cached_property
    def converged(self) -> Tensor:
        """Finite volumes, V. (1, D, H, W)"""
        return solve(self.conductor, self.source, CONVERGED, warn=False).phi

    def error(self, phi: Tensor, truth: Tensor) -> float:
        """Relative L2 of phi where it is compared."""
        right = truth[self.compared]
        return float((phi.double()[self.compared] - right).norm() / right.norm())


def precision(tolerance: float) -> torch.dtype:
    return torch.float32 if tolerance >= FLOAT32 else torch.float64


#: (tolerance) -> phi in V, iterations, and the seconds of setup, source and solve.
Solver = Callable[[float], tuple[Tensor, int, float, float, float]]


def rungs(
    limb: Limb, tolerances: Sequence[float], repeats: int, python: str | None
) -> Iterator[Rung]:
    """Every solver from the loosest tolerance down, until it is as good as the best goal.

    python : one that has petsc4py, or None.
    """
    with torch.no_grad():
        for name, together in ((OURS, 1), (OURS_TOGETHER, TOGETHER)):
            ours = ours_in_parts(limb, repeats, together)
            yield from _descend(name, limb, limb.converged, tolerances, ours)
        if python is not None:
            yield from _by_hypre(limb, tolerances, repeats, python)
        for name, levels_of in PYAMG.items():
            solver = _by_pyamg(limb, repeats, levels_of)
            yield from _descend(name, limb, limb.converged, tolerances, solver)
        solver = elements_in_parts(limb, repeats)
        yield from _descend(ELEMENTS, limb, solver(CONVERGED)[0], tolerances, solver)


def _descend(
    name: str, limb: Limb, truth: Tensor, tolerances: Iterable[float], solver: Solver
) -> Iterator[Rung]:
    for tolerance in tolerances:
        phi, iterations, setup, source, took = solver(tolerance)
        error = limb.error(phi, truth)
        yield Rung(name, tolerance, error, iterations, setup, source, took)
        if error <= min(GOALS):
            return


# --- ours


def ours_in_parts(limb: Limb, repeats: int, together: int = 1) -> Solver:
    """The whole of `solve`; its setup and source are clocked beside it, and the rest is its
    solve.

    together : so many electrodes (here the same one) share a solve; source and solve are a share
    of its seconds.
    """

    def run(tolerance: float) -> tuple[Tensor, int, float, float, float]:
        body, one = limb.at(tolerance)
        source = PointSource(one.point.repeat(together, 1), one.current.repeat(together))
        dtype = precision(tolerance)

        def levels() -> FluxOperator:
            operator = FluxOperator.of(body, dtype)
            Multigrid(operator)
            return operator

        setup, operator = clocked(levels, repeats)
        right, _ = clocked(lambda: Subtraction.of(body, operator, source), repeats)
        whole, found = clocked(lambda: solve(body, source, tolerance, dtype, warn=False), repeats)
        rest = max(0.0, whole - setup - right)
        return found.phi[:1], found.iterations, setup, right / together, rest / together

    return run


# --- on our matrix


@dataclass(frozen=True)
class Posed:
    """A x = b of one limb.

    unknowns : the voxels of x, in C order.
    seconds : of the right-hand side, by its precision.
    """

    A: csr_matrix
    rhs: np.ndarray
    phi_inf: Tensor
    unknowns: Tensor
    seconds: dict[torch.dtype, float]

    @classmethod
    def of(cls, limb: Limb, repeats: int) -> Posed:
        seconds = {}
        for tolerance in GOALS:
            body, source = limb.at(tolerance)
            operator = FluxOperator.of(body, precision(tolerance))
            took, known = clocked(lambda: Subtraction.of(body, operator, source), repeats)  # noqa: B023
            seconds[precision(tolerance)] = took
        # the last one is in float64
        unknowns = operator.diagonal > 0
        rhs = known.rhs[unknowns].numpy()
        return cls(matrix_of(operator), rhs, known.phi_inf, unknowns, seconds)

    def potential(self, x: np.ndarray) -> Tensor:
        """phi in V of a solution. (1, D, H, W)"""
        phi = self.phi_inf.clone()
        phi[self.unknowns] += torch.from_numpy(x)
        return phi


def _matrix(limb: Limb) -> csr_matrix:
    return matrix_of(FluxOperator.of(limb.conductor))


def _by_pyamg(limb: Limb, repeats: int, levels_of: Callable[..., Any]) -> Solver:
    """Conjugate gradients with one V-cycle."""
    posed = Posed.of(limb, repeats)
    setup, levels = clocked(lambda: levels_of(_matrix(limb)), repeats)
    cycle = levels.aspreconditioner(cycle="V")

    def run(tolerance: float) -> tuple[Tensor, int, float, float, float]:
        count = 0

        def seen(_: np.ndarray) -> None:
            nonlocal count
            count += 1

        def iterate() -> np.ndarray:
            nonlocal count
            count = 0
            x, _ = cg(
                posed.A, posed.rhs, rtol=tolerance, maxiter=MAX_ITERATIONS, M=cycle, callback=seen
            )
            found: np.ndarray = x
            return found

        took, x = clocked(iterate, repeats)
        source = posed.seconds[precision(tolerance)]
        return posed.potential(x), count, setup, source, took

    return run


def _by_hypre(limb: Limb, tolerances: Sequence[float], repeats: int, python: str) -> Iterator[Rung]:
    """Its setup has ours before it: the operator, put in rows."""
    posed = Posed.of(limb, repeats)
    rows, _ = clocked(lambda: _matrix(limb), repeats)
    found = solve_by_hypre(python, posed.A, posed.rhs, list(tolerances), repeats)
    column = {tolerance: t for t, tolerance in enumerate(tolerances)}

    def solver_with(o: int) -> Solver:
        def look_up(tolerance: float) -> tuple[Tensor, int, float, float, float]:
            t = column[tolerance]
            return (
                posed.potential(found.x[o, t]),
                int(found.iterations[o, t]),
                rows + float(found.setup[o]),
                posed.seconds[precision(tolerance)],
                float(found.solve[o, t]),
            )

        return look_up

    for o, options in enumerate(found.names):
        name = f"our matrix, PETSc + hypre {options}"
        yield from _descend(name, limb, limb.converged, tolerances, solver_with(o))


# --- finite elements


def elements_in_parts(limb: Limb, repeats: int) -> Solver:
    """`solve_elements` in its parts, so that matrix and levels are made once."""
    body = limb.conductor

    def levels() -> tuple[ElementOperator, csr_matrix, Any]:
        A = assemble(body)
        return ElementOperator.of(body), A, v_cycle(A)

    setup, (operator, A, cycle) = clocked(levels, repeats)
    free = operator.free[0]

    def known() -> tuple[ElementSource, Tensor, np.ndarray]:
        source = ElementSource.of(body, operator, limb.source)
        start = torch.where(operator.free, source.phi_inf, 0.0)
        rhs: np.ndarray = -source.residual(operator, start)[0][free].numpy()
        return source, start, rhs

    right, (source, start, rhs) = clocked(known, repeats)

    def run(tolerance: float) -> tuple[Tensor, int, float, float, float]:
        took, (x, count) = clocked(
            lambda: conjugate_gradients(A, rhs, cycle, tolerance, MAX_ITERATIONS), repeats
        )
        nodes = start.clone()
        nodes[0][free] += torch.from_numpy(x)
        return source.at_centres(nodes) * body.tissue, count, setup, right, took

    return run


# --- what limbs have in common


def as_rows(limbs: Sequence[Sequence[Rung]]) -> list[dict[str, Any]]:
    """A row for each solver and tolerance that every limb has: medians of the seconds, mean and
    largest error."""
    rows = []
    first = limbs[0]
    for rung in first:
        alike = [
            other
            for limb in limbs
            for other in limb
            if (other.solver, other.tolerance) == (rung.solver, rung.tolerance)
        ]
        if len(alike) == len(limbs):
            rows.append({**asdict(rung), **_together(alike)})
    return rows


def to_goals(limbs: Sequence[Sequence[Rung]]) -> list[dict[str, Any]]:
    """For each solver and goal, the loosest tolerance that reaches it, limb by limb: medians of the
    seconds. None where a limb does not get there."""
    rows = []
    for solver in dict.fromkeys(rung.solver for rung in limbs[0]):
        for goal in GOALS:
            reaching = []
            for limb in limbs:
                there = [r for r in limb if r.solver == solver and r.error <= goal]
                reaching += there[:1]
            row: dict[str, Any] = {"solver": solver, "goal": goal}
            if len(reaching) == len(limbs):
                row |= {"tolerance": min(r.tolerance for r in reaching), **_together(reaching)}
            rows.append(row)
    return rows


def _together(alike: Sequence[Rung]) -> dict[str, Any]:
    median = {
        key: float(np.median([getattr(rung, key) for rung in alike]))
        for key in ("iterations", "setup", "source", "solve")
    }
    errors = [rung.error for rung in alike]
    return {**median, "error": float(np.mean(errors)), "largest_error": max(errors)}
