r"""Conjugate gradients with a multigrid preconditioner, batched: A x = b in every sample.

(Saad, Iterative Methods for Sparse Linear Systems, 2003, alg. 9.1)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.multigrid import Multigrid, dot
from physics_hybrid.problems.potential.physics.stencil import Stencil


class SolverError(RuntimeError):
    """A solve that did not reach its tolerance. Names the samples and how far they came."""


@dataclass(frozen=True)
class Solution:
    """phi in volts, 0 in air; iterations of CG; relative residual |b - A x| / |b| of every
    sample."""

    phi: Float[Tensor, "K D H W"]
    iterations: int
    residual: Float[Tensor, " K"]


@runtime_checkable
class Symmetric(Protocol):
    """A symmetric positive operator on fields. diagonal : 0 in air."""

    @property
    def diagonal(self) -> Tensor: ...

    def __call__(self, phi: Tensor) -> Tensor:
        """A phi."""
        ...


def conjugate_gradients(
    operator: Symmetric,
    rhs: Float[Tensor, "K D H W"],
    tolerance: float,
    max_iterations: int = 200,
    preconditioner: FluxOperator | None = None,
    phi_end: Float[Tensor, "K 2 H W"] | None = None,
    start: Float[Tensor, "K D H W"] | None = None,
    report: Callable[[Tensor], None] | None = None,
) -> Solution:
    """Solve A x = rhs to |rhs - A x| <= tolerance |rhs| in every sample; the true residual is
    checked, not the recursion.

    A sample that has converged is frozen while the others go on. rhs may have many sources for one
    conductor: the operator and its multigrid levels are set up once. Where no current passes the
    ends, A has the constants as its null space: rhs must sum to zero, and x is any of the
    solutions.

    preconditioner : whose multigrid cycle to use, where the operator itself has none.
    phi_end : what rhs holds of the ends (`Subtraction.phi_end`): the iteration then starts from a
        nested one (`Multigrid.start`) instead of 0.
    start : a guess of x to begin with instead; one that is good enough is the answer, after 0
        iterations.
    report : called after every iteration with the relative residuals (K,).

    Raises
    ------
    SolverError
        If a sample is not there after `max_iterations`, or turns non-finite.
    """
    A = Stencil.of(operator, rhs.dtype) if isinstance(operator, FluxOperator) else operator
    precondition = _cycle_of(operator, preconditioner)
    size = _norm(rhs)
    goal = tolerance * size
    x, residual = torch.zeros_like(rhs), rhs
    done, restart = size == 0, True
    if start is not None:
        x = torch.where((size > 0) & (A.diagonal > 0), start, 0.0)
        residual = rhs - A(x)
        done = done | (_norm(residual) <= goal)
    elif phi_end is not None:
        x = torch.where(size > 0, precondition.start(rhs, phi_end), 0.0)
        residual = rhs - A(x)
    direction, rz_before = x, size  # read only after the first iteration
    iterations = 0
    while iterations < max_iterations and not (start is not None and bool(done.all())):
        iterations += 1
        z = precondition(residual)
        rz = dot(residual, z)
        if restart:
            direction = z
        else:
            direction = torch.addcmul(z, torch.where(done, 0.0, rz / rz_before), direction)
        image = A(direction)
        alpha = torch.where(done, 0.0, rz / dot(direction, image))
        x = torch.addcmul(x, alpha, direction)
        residual = torch.addcmul(residual, alpha, image, value=-1)
        rz_before, restart = rz, False
        done = done | (_norm(residual) <= goal)
        if report is not None:
            report(_relative(residual, size))
        if bool(done.all()):
            residual = rhs - A(x)
            done = _norm(residual) <= goal
            if bool(done.all()):
                break
            restart = True
    relative = _relative(residual, size)
    if not bool(done.all()):
        raise SolverError(_unreached(done.flatten(), relative, tolerance, max_iterations))
    phi = torch.where(A.diagonal > 0, x, 0.0)  # coarse corrections spill into air
    return Solution(phi, iterations, relative)


def _cycle_of(operator: Symmetric, preconditioner: FluxOperator | None) -> Multigrid:
    """The multigrid cycle of the preconditioner, or of an operator that has one itself."""
    if preconditioner is not None:
        return Multigrid(preconditioner)
    if not isinstance(operator, FluxOperator):
        raise ValueError(
            "a 27-point operator has no multigrid cycle of its own: give the 7-point one of the "
            "same conductor as `preconditioner`"
        )
    return Multigrid(operator)


def _norm(u: Float[Tensor, "K D H W"]) -> Float[Tensor, "K 1 1 1"]:
    """Euclidean norm in every sample."""
    return dot(u, u).sqrt()


def _relative(
    residual: Float[Tensor, "K D H W"], size: Float[Tensor, "K 1 1 1"]
) -> Float[Tensor, " K"]:
    """Norm of the residual over that of the right-hand side."""
    return (_norm(residual) / size.clamp_min(torch.finfo(size.dtype).tiny)).flatten()


def _unreached(
    done: Bool[Tensor, " K"], relative: Float[Tensor, " K"], tolerance: float, max_iterations: int
) -> str:
    """What to say of samples that are not done."""
    bad = (~done).nonzero().flatten().tolist()
    where = ", ".join(f"sample {b} is at {float(relative[b]):.2e}" for b in bad[:8])
    return (
        f"conjugate gradients did not reach a relative residual of {tolerance:g} in "
        f"{max_iterations} iterations: {where} ({relative.dtype}; a tolerance near the rounding of "
        "the type cannot be reached; tissue round the source that is cut off from the way out has "
        "no solution)"
    )
