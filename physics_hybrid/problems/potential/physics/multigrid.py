r"""A geometric multigrid cycle as a preconditioner, batched, for `FluxOperator`.

Restriction and interpolation between the grids of `stencil` are each other's transpose and
piecewise constant. One V-cycle with symmetric Jacobi-Chebyshev smoothing is symmetric positive
definite and preconditions conjugate gradients. (Wesseling, An Introduction to Multigrid Methods,
1992, ch. 8: cell-centred multigrid; Braess, Computing 55 (1995) 379, on the factor 1/2.)

The cycle may run in float32 inside a float64 iteration: it is only a preconditioner.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.stencil import Stencil, pair_sum

#: Chebyshev smoothing: degree, and the part [2 / EIGENVALUE_RATIO, 2] of the spectrum of D^-1 A it
#: damps. The upper end is Gershgorin's bound for a diagonally dominant matrix. 3 and 8 gave the
#: fewest operator applications on limbs.
SMOOTHING_DEGREE = 3
EIGENVALUE_RATIO = 8.0

#: The last grid has no more voxels than this along any axis.
COARSEST = 4


class Multigrid:
    """One symmetric V-cycle as a preconditioner: `Multigrid(operator)(r)` approximates A^-1 r."""

    def __init__(self, operator: FluxOperator, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        d, h, w = operator.conductance
        self.levels = [Stencil((d.to(dtype), h.to(dtype), w.to(dtype)))]
        while max(self.levels[-1].n) > COARSEST:
            self.levels.append(self.levels[-1].coarsen())

    def __call__(self, residual: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """About A^-1 r, in volts for r in A/m^3."""
        return self._cycle(residual.to(self.dtype), 0).to(residual.dtype)

    def _cycle(self, rhs: Float[Tensor, "K D H W"], depth: int) -> Float[Tensor, "K D H W"]:
        """One V-cycle from this level down, starting at 0."""
        A = self.levels[depth]
        x = _smooth(A, rhs)
        if depth == len(self.levels) - 1:
            for _ in range(3):
                x = x + _smooth(A, rhs - A(x))
            return x
        correction = self._cycle(_restrict(rhs - A(x)), depth + 1)
        x = x + _interpolate(correction, A.n)
        return x + _smooth(A, rhs - A(x))


def _restrict(residual: Float[Tensor, "K D H W"]) -> Float[Tensor, "K _ _ _"]:
    """Mean over 2 x 2 x 2 voxels."""
    for axis in range(3):
        residual = pair_sum(residual, axis)
    return residual / 8


def _interpolate(coarse: Float[Tensor, "K _ _ _"], n: Grid) -> Float[Tensor, "K _ _ _"]:
    """The value of a coarse voxel in each of its fine ones."""
    for axis in range(3):
        fine = coarse.repeat_interleave(2, dim=axis + 1)
        coarse = fine.narrow(axis + 1, 0, n[axis])
    return coarse


def _smooth(A: Stencil, rhs: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
    """Chebyshev iteration for D^-1 A x = D^-1 rhs from x = 0 (Saad, Iterative Methods, 2003,
    alg. 12.1)."""
    high, low = 2.0, 2.0 / EIGENVALUE_RATIO
    centre, half = (high + low) / 2, (high - low) / 2
    sigma = centre / half
    rho = 1 / sigma
    step = A.inverse * rhs / centre
    x = step.clone()
    for _ in range(SMOOTHING_DEGREE - 1):
        rhs = rhs - A(step)
        rho_next = 1 / (2 * sigma - rho)
        momentum = (rho_next * rho) * step
        step = torch.addcmul(momentum, A.inverse, rhs, value=2 * rho_next / half)
        x += step
        rho = rho_next
    return x
