r"""A geometric multigrid cycle as a preconditioner, batched, for `FluxOperator`.

Restriction and interpolation between the grids of `stencil` are each other's transpose and
piecewise constant. One V-cycle with symmetric Jacobi-Chebyshev smoothing is symmetric positive
definite and preconditions conjugate gradients. (Wesseling, An Introduction to Multigrid Methods,
1992, ch. 8: cell-centred multigrid; Braess, Computing 55 (1995) 379, on the factor 1/2.)

The cycle may run in float32 inside a float64 iteration: it is only a preconditioner.

Nested iteration gives the first guess: the same problem on the next coarser grid, solved likewise
and improved by one cycle, interpolated linearly within the tissue (Brandt, Math. Comp. 31 (1977)
333, sec. 1). A coarse problem has the mean of the fine one's sources; but what comes from the
potential of the ends,

    b = -k_end phi_end                                                          [A/m^3]

is made anew from the coarse conductance of the ends: its mean would be twice as large.
"""

import torch
import torch.nn.functional as F
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

#: Least share of tissue that an interpolated value is divided by.
SMALL_SHARE = 1e-6


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

    def start(
        self, rhs: Float[Tensor, "K D H W"], phi_end: Float[Tensor, "K 2 H W"]
    ) -> Float[Tensor, "K D H W"]:
        """A first guess of A^-1 rhs, V: nested iteration. phi_end : potential in V that rhs holds
        as -k_end phi_end in the voxels of the two ends.
        """
        phi_end = phi_end.to(self.dtype)
        inner = rhs.to(self.dtype) - self._of_ends(phi_end, 0)
        return self._nested(inner, phi_end, 0).to(rhs.dtype)

    def _nested(
        self, inner: Float[Tensor, "K D H W"], phi_end: Float[Tensor, "K 2 H W"], depth: int
    ) -> Float[Tensor, "K D H W"]:
        """The first guess on this level. inner : right-hand side without that of the ends."""
        if depth == len(self.levels) - 1:
            return self._improved(
                torch.zeros_like(inner), inner + self._of_ends(phi_end, depth), depth
            )
        inner = _restrict(inner)
        phi_end = F.avg_pool2d(phi_end, 2, ceil_mode=True)
        x = self._nested(inner, phi_end, depth + 1)
        x = self._improved(x, inner + self._of_ends(phi_end, depth + 1), depth + 1)
        return self._linear(x, depth)

    def _of_ends(self, phi_end: Float[Tensor, "K 2 H W"], depth: int) -> Float[Tensor, "K D H W"]:
        """-k_end phi_end in the voxels of the two ends of a level, A/m^3; 0 elsewhere."""
        A = self.levels[depth]
        first, last = (A.conductance[0][:, [end]] * phi_end[:, [end]] for end in (0, -1))
        others = A.n[0] - 1
        return -F.pad(first, (0, 0, 0, 0, 0, others)) - F.pad(last, (0, 0, 0, 0, others, 0))

    def _improved(
        self, x: Float[Tensor, "K D H W"], rhs: Float[Tensor, "K D H W"], depth: int
    ) -> Float[Tensor, "K D H W"]:
        """x after one cycle, its correction as long as brings the energy down most."""
        A = self.levels[depth]
        residual = rhs - A(x)
        correction = self._cycle(residual, depth)
        along, energy = dot(residual, correction), dot(correction, A(correction))
        return x + torch.where(energy > 0, along / energy, 0.0) * correction

    def _linear(self, coarse: Float[Tensor, "K _ _ _"], depth: int) -> Float[Tensor, "K D H W"]:
        """Linear interpolation from the next coarser level in its tissue; 0 in air."""
        tissue = (self.levels[depth + 1].diagonal > 0).to(coarse.dtype)
        share = _trilinear(tissue, self.levels[depth].n).clamp_min(SMALL_SHARE)
        fine = _trilinear(coarse * tissue, self.levels[depth].n) / share
        return torch.where(self.levels[depth].diagonal > 0, fine, 0.0)

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


def dot(u: Float[Tensor, "K D H W"], v: Float[Tensor, "K D H W"]) -> Float[Tensor, "K 1 1 1"]:
    """Scalar product in every sample."""
    return (u * v).sum(dim=(1, 2, 3), keepdim=True)


def _trilinear(field: Float[Tensor, "K _ _ _"], n: Grid) -> Float[Tensor, "K _ _ _"]:
    """To voxels half as long; beyond an odd side of the fine grid there is nothing."""
    doubled = [2 * size for size in field.shape[1:]]
    fine = F.interpolate(field[:, None], size=doubled, mode="trilinear", align_corners=False)
    return fine[:, 0, : n[0], : n[1], : n[2]]


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
