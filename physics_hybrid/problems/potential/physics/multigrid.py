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

is made anew from the coarse conductance of the ends: its mean would be twice as large. So is what
comes from electrodes that leak, by the ratio of their coarse conductance to the mean of the fine
one.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.stencil import Haloed, Stencil, mean_of_eight

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
        self.levels = [Stencil.of(operator, dtype)]
        while max(self.levels[-1].n) > COARSEST:
            self.levels.append(self.levels[-1].coarsen())

    def __call__(self, residual: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """About A^-1 r, in volts for r in A/m^3."""
        own = residual.to(self.dtype, copy=True, memory_format=torch.contiguous_format)
        return self._cycle(own, 0).to(residual.dtype)

    def start(
        self, rhs: Float[Tensor, "K D H W"], phi_end: Float[Tensor, "K 2 H W"]
    ) -> Float[Tensor, "K D H W"]:
        """A first guess of A^-1 rhs, V: nested iteration. phi_end : potential in V that rhs holds
        as -k_end phi_end in the voxels of the two ends.
        """
        phi_end = phi_end.to(self.dtype)
        inner = rhs.to(self.dtype, copy=True)
        self._add_ends(inner, phi_end, 0, -1.0)
        return self._nested(inner, phi_end, 0).to(rhs.dtype)

    def _nested(
        self, inner: Float[Tensor, "K D H W"], phi_end: Float[Tensor, "K 2 H W"], depth: int
    ) -> Float[Tensor, "K D H W"]:
        """The first guess on this level. inner : right-hand side without that of the ends."""
        if depth < len(self.levels) - 1:
            coarse_end = F.avg_pool2d(phi_end, 2, ceil_mode=True)
            coarse = self._nested(self._coarse(inner, depth), coarse_end, depth + 1)
            x = self._linear(coarse, depth)
        else:
            x = torch.zeros_like(inner)
        if depth == 0:
            return x  # conjugate gradients improve this one
        rhs = inner.clone(memory_format=torch.contiguous_format)
        self._add_ends(rhs, phi_end, depth, 1.0)
        return self._improved(x, rhs, depth)

    def _coarse(self, inner: Float[Tensor, "K D H W"], depth: int) -> Float[Tensor, "K _ _ _"]:
        """The right-hand side on the next coarser level."""
        leak = self.levels[depth].leak
        return mean_of_eight(inner if leak is None else inner / (1 + leak.inside))

    def _add_ends(
        self,
        field: Float[Tensor, "K D H W"],
        phi_end: Float[Tensor, "K 2 H W"],
        depth: int,
        sign: float,
    ) -> None:
        """Add -k_end phi_end, A/m^3, to the voxels of the two ends of a level."""
        conductance = self.levels[depth].conductance[0]
        for end in (0, -1):
            field[:, end].addcmul_(conductance[:, end], phi_end[:, end], value=-sign)

    def _improved(
        self, x: Float[Tensor, "K D H W"], rhs: Float[Tensor, "K D H W"], depth: int
    ) -> Float[Tensor, "K D H W"]:
        """x after one cycle, its correction as long as brings the energy down most."""
        A = self.levels[depth]
        residual = rhs - A(x)
        own = residual.clone(memory_format=torch.contiguous_format)
        correction = self._cycle(own, depth)
        along, energy = dot(residual, correction), dot(correction, A(correction))
        return x + torch.where(energy > 0, along / energy, 0.0) * correction

    def _linear(self, coarse: Float[Tensor, "K _ _ _"], depth: int) -> Float[Tensor, "K D H W"]:
        """Linear interpolation from the next coarser level in its tissue; 0 in air."""
        n = self.levels[depth].n
        tissue = (self.levels[depth + 1].diagonal > 0).to(coarse.dtype)
        share = _linear(tissue, n)
        inside = (self.levels[depth].diagonal > 0) & (share > SMALL_SHARE)
        weight = torch.where(inside, 1 / share.clamp_min(SMALL_SHARE), 0.0)
        return _linear(coarse * tissue, n).mul_(weight)

    def _cycle(self, residual: Float[Tensor, "K D H W"], depth: int) -> Float[Tensor, "K D H W"]:
        """One V-cycle from this level down, starting at 0. Uses `residual` up."""
        A = self.levels[depth]
        x = torch.zeros_like(residual)
        _smooth(A, x, residual)
        if depth == len(self.levels) - 1:
            for _ in range(3):
                _smooth(A, x, residual)
            return x
        correction = self._cycle(mean_of_eight(residual), depth + 1)
        step = _interpolate(correction, A.n)
        A.subtract(residual, step)
        x += step.field
        _smooth(A, x, residual)
        return x


def dot(u: Float[Tensor, "K D H W"], v: Float[Tensor, "K D H W"]) -> Float[Tensor, "K 1 1 1"]:
    """Scalar product in every sample."""
    return (u * v).sum(dim=(1, 2, 3), keepdim=True)


def _linear(field: Float[Tensor, "K _ _ _"], n: Grid) -> Float[Tensor, "K D H W"]:
    """To voxels half as long, linearly; beyond the outer centres the value there. Beyond an odd
    side of the fine grid there is nothing."""
    for axis in (2, 1, 0):  # the last one first: what is copied grows
        dim, size = axis + 1, field.shape[axis + 1]
        before = torch.cat([field.narrow(dim, 0, 1), field.narrow(dim, 0, size - 1)], dim=dim)
        after = torch.cat([field.narrow(dim, 1, size - 1), field.narrow(dim, -1, 1)], dim=dim)
        shape = [*field.shape]
        shape.insert(dim + 1, 2)
        fine = field.new_empty(shape)
        for side, neighbour in enumerate((before, after)):
            torch.lerp(field, neighbour, 0.25, out=fine.select(dim + 1, side))
        field = fine.flatten(dim, dim + 1).narrow(dim, 0, n[axis])
    return field


def _interpolate(coarse: Float[Tensor, "K _ _ _"], n: Grid) -> Haloed:
    """The value of a coarse voxel in each of its fine ones."""
    for axis in (2, 1):
        fine = coarse.repeat_interleave(2, dim=axis + 1)
        coarse = fine.narrow(axis + 1, 0, n[axis])
    step = Haloed.empty(len(coarse), n, coarse)
    step.field[:, 0::2] = coarse
    step.field[:, 1::2] = coarse[:, : n[0] // 2]
    return step


def _smooth(A: Stencil, x: Float[Tensor, "K D H W"], residual: Float[Tensor, "K D H W"]) -> None:
    """Chebyshev iteration for D^-1 A e = D^-1 residual from e = 0: x += e, residual -= A e.
    (Saad, Iterative Methods, 2003, alg. 12.1)"""
    high, low = 2.0, 2.0 / EIGENVALUE_RATIO
    centre, half = (high + low) / 2, (high - low) / 2
    sigma = centre / half
    rho = 1 / sigma
    step = Haloed.empty(len(x), A.n, x)
    torch.mul(residual, A.inverse, out=step.field).div_(centre)
    x += step.field
    for _ in range(SMOOTHING_DEGREE - 1):
        rho_next = 1 / (2 * sigma - rho)
        step = A.advance(x, residual, step, rho_next * rho, 2 * rho_next / half)
        rho = rho_next
    A.subtract(residual, step)
