r"""Conjugate gradients with a geometric multigrid preconditioner, batched, for `FluxOperator`.

Coarse grids join 2 x 2 x 2 voxels (an odd side leaves one thin coarse voxel: any size works). Between coarse
voxels the conductance is the sum of the fine ones over half the distance, so that every level is again a
7-point operator of the same family, with air, interfaces and grounded ends inherited; restriction and
interpolation are each other's transpose and piecewise constant. One V-cycle with symmetric Jacobi-Chebyshev smoothing is
symmetric positive definite and preconditions CG. (Wesseling, An Introduction to Multigrid Methods, 1992,
ch. 8: cell-centred multigrid; Braess, Computing 55 (1995) 379, on the factor 1/2; Saad, Iterative Methods, 2003, alg. 9.1.)

The cycle may run in float32 inside a float64 iteration: it is only a preconditioner.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.potential.physics.conductor import Conductor, zero_mean
from physics_hybrid.potential.physics.multipoint import MultipointOperator, operator_of
from physics_hybrid.potential.physics.operator import FluxOperator, Subtraction, nodal_source
from physics_hybrid.potential.physics.point_source import PointSource

#: An electrode so many voxels from tissue that conducts so much better than its own earns a warning.
BESIDE_VOXELS, BETTER = 0.4, 2.0


class SolverError(RuntimeError):
    """A solve that did not reach its tolerance. Names the samples and how far they came."""


class Stencil:
    """A phi for the solver: the operator's conductances as six neighbour weights and a diagonal, applied in place.

    Algebraically `FluxOperator.__call__` (a test holds them equal); half the memory traffic, no gradient.
    """

    def __init__(self, conductance, diagonal: Tensor | None = None):
        n = tuple(conductance[a].shape[a + 1] - 1 for a in range(3))
        self.inner = [conductance[a].narrow(a + 1, 1, n[a] - 1) for a in range(3)]
        if diagonal is None:
            diagonal = sum(k.narrow(a + 1, 0, n[a]) + k.narrow(a + 1, 1, n[a]) for a, k in enumerate(conductance))
        self.conductance = conductance
        self.diagonal = diagonal
        self.inverse = torch.where(diagonal > 0, 1 / diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny), 0.0)
        self.n = n

    def __call__(self, phi: Tensor) -> Tensor:
        out = self.diagonal * phi
        for a, k in enumerate(self.inner):
            m = self.n[a] - 1
            out.narrow(a + 1, 1, m).addcmul_(k, phi.narrow(a + 1, 0, m), value=-1)
            out.narrow(a + 1, 0, m).addcmul_(k, phi.narrow(a + 1, 1, m), value=-1)
        return out

    def coarsen(self) -> Stencil:
        out = []
        for a, k in enumerate(self.conductance):
            last = k.shape[a + 1] - 1
            index = list(range(0, last, 2)) + [last]
            k = k.index_select(a + 1, torch.tensor(index, device=k.device))
            for b in range(3):
                if b != a:
                    k = _pair_sum(k, b)
            # conductances here are per volume (sigma / h^2): eight times the volume, half of the summed conductance
            out.append(k / 16)
        return Stencil(tuple(out))


def _pair_sum(field: Tensor, axis: int) -> Tensor:
    n = field.shape[axis + 1]
    if n % 2:
        widths = [0] * 6
        widths[2 * (2 - axis) + 1] = 1
        field = F.pad(field, widths)
    return field.unflatten(axis + 1, (-1, 2)).sum(dim=axis + 2)


def _restrict(residual: Tensor) -> Tensor:
    """Mean over 2 x 2 x 2 voxels."""
    for axis in range(3):
        residual = _pair_sum(residual, axis)
    return residual / 8


def _interpolate(coarse: Tensor, n: Grid) -> Tensor:
    for axis in range(3):
        coarse = coarse.repeat_interleave(2, dim=axis + 1).narrow(axis + 1, 0, n[axis])
    return coarse


#: Chebyshev smoothing: degree, and the part [2 / EIGENVALUE_RATIO, 2] of the spectrum of D^-1 A it damps. The upper
#: end is Gershgorin's bound for a diagonally dominant matrix. 3 and 8 gave the fewest operator applications on limbs.
SMOOTHING_DEGREE = 3
EIGENVALUE_RATIO = 8.0
COARSEST = 4


class Multigrid:
    """One symmetric V-cycle as a preconditioner: `Multigrid(operator)(r)` approximates A^-1 r. (B, D, H, W)"""

    def __init__(self, operator: FluxOperator, dtype: torch.dtype = torch.float32):
        self.dtype = dtype
        self.levels = [Stencil(tuple(k.to(dtype) for k in operator.conductance))]
        while max(self.levels[-1].n) > COARSEST:
            self.levels.append(self.levels[-1].coarsen())

    def __call__(self, residual: Tensor) -> Tensor:
        return self._cycle(residual.to(self.dtype), 0).to(residual.dtype)

    def _cycle(self, rhs: Tensor, depth: int) -> Tensor:
        A = self.levels[depth]
        x = _smooth(A, rhs)
        if depth == len(self.levels) - 1:
            for _ in range(3):
                x = x + _smooth(A, rhs - A(x))
            return x
        x = x + _interpolate(self._cycle(_restrict(rhs - A(x)), depth + 1), A.n)
        return x + _smooth(A, rhs - A(x))


def _smooth(A: Stencil, rhs: Tensor) -> Tensor:
    """Chebyshev iteration for D^-1 A x = D^-1 rhs from x = 0 (Saad, 2003, alg. 12.1)."""
    high, low = 2.0, 2.0 / EIGENVALUE_RATIO
    centre, half = (high + low) / 2, (high - low) / 2
    sigma = centre / half
    rho = 1 / sigma
    step = A.inverse * rhs / centre
    x = step.clone()
    for _ in range(SMOOTHING_DEGREE - 1):
        rhs = rhs - A(step)
        rho_next = 1 / (2 * sigma - rho)
        step = torch.addcmul((rho_next * rho) * step, A.inverse, rhs, value=2 * rho_next / half)
        x += step
        rho = rho_next
    return x


@dataclass(frozen=True)
class Solution:
    """phi in volts (B, D, H, W), 0 in air; iterations of CG; relative residual |b - A x| / |b| of every sample (B,)."""

    phi: Tensor
    iterations: int
    residual: Tensor


def conjugate_gradients(
    operator: FluxOperator | MultipointOperator, rhs: Tensor, tolerance: float, max_iterations: int = 200, preconditioner: FluxOperator | None = None
) -> Solution:
    """Solve A x = rhs to |rhs - A x| <= tolerance |rhs| in every sample; the true residual is checked, not the recursion.

    A sample that has converged is frozen while the others go on. rhs (K, D, H, W) may have many sources for one conductor: the
    operator and its multigrid levels are set up once. Where no current passes the ends, A has the constants as its null space: rhs
    must sum to zero, and x is any of the solutions. preconditioner : whose multigrid cycle to use, where the operator itself has none.

    Raises
    ------
    SolverError
        If a sample is not there after `max_iterations`, or turns non-finite.
    """
    A = Stencil(operator.conductance) if isinstance(operator, FluxOperator) else operator
    precondition = Multigrid(preconditioner or operator)
    def dot(u, v):
        return (u * v).sum(dim=(1, 2, 3), keepdim=True)
    size = dot(rhs, rhs).sqrt()
    goal = tolerance * size
    x = torch.zeros_like(rhs)
    residual, done, restart = rhs, size == 0, True
    for iteration in range(1, max_iterations + 1):
        z = precondition(residual)
        rz = dot(residual, z)
        direction = z if restart else torch.addcmul(z, torch.where(done, 0.0, rz / rz_before), direction)
        image = A(direction)
        alpha = torch.where(done, 0.0, rz / dot(direction, image))
        x = torch.addcmul(x, alpha, direction)
        residual = torch.addcmul(residual, alpha, image, value=-1)
        rz_before, restart = rz, False
        done = done | (dot(residual, residual).sqrt() <= goal)
        if bool(done.all()):
            residual = rhs - A(x)
            done = dot(residual, residual).sqrt() <= goal
            if bool(done.all()):
                break
            restart = True
    relative = (dot(residual, residual).sqrt() / size.clamp_min(torch.finfo(rhs.dtype).tiny)).flatten()
    if not bool(done.all()):
        bad = (~done.flatten()).nonzero().flatten().tolist()
        raise SolverError(
            f"conjugate gradients did not reach a relative residual of {tolerance:g} in {max_iterations} iterations: "
            + ", ".join(f"sample {b} is at {float(relative[b]):.2e}" for b in bad[:8])
            + f" ({rhs.dtype}; a tolerance near the rounding of the type cannot be reached; tissue round the source that is cut off from the way out has no solution)"
        )
    return Solution(torch.where(A.diagonal > 0, x, 0.0), iteration, relative)  # coarse corrections spill into air


def _warn_beside_better(conductor: Conductor, source: PointSource) -> None:
    """Finite volumes see no difference between places in a voxel: just inside a poor conductor this shows."""
    for electrode in source.electrodes:
        point = conductor.in_tissue(electrode.point)
        own, best = (sigma[:, :3].mean(dim=1) for sigma in (conductor.sigma_at(point), conductor.best_near(point, BESIDE_VOXELS)))
        beside = best > BETTER * own
        if bool(beside.any()):
            k = int(beside.nonzero()[0])
            warnings.warn(
                f"the electrode of sample {k} lies within {BESIDE_VOXELS:g} voxels of tissue that conducts {float(best[k] / own[k]):.2g} times better than its own. Finite volumes were wrong by "
                "2 to 50 % beyond 3 voxels of such sources (README: How right is the truth?): use finite elements, or the centre of the voxel", stacklevel=3,
            )


def solve(
    conductor: Conductor,
    source: PointSource | Tensor,
    tolerance: float = 1e-8,
    dtype: torch.dtype = torch.float64,
    singularity: str = "subtraction",
    max_iterations: int = 200,
    warn: bool = True,
) -> Solution:
    """Potential of a source in a conductor, finite volumes. With zero flux on the whole surface (ends: sink, pair) its mean over tissue is 0.
    Tissue that shares no face with the rest and reaches no end has no potential of its own: what is found there means nothing (elements refuse it).

    Warns (UserWarning) of an electrode just inside a poor conductor, unless told not to. Differentiable in sigma and in a current density, through every iteration (memory grows with them).

    Parameters
    ----------
    source : PointSource, or Tensor (B, D, H, W)
        Point electrodes, or any current density in A/m^3. A conductor of one body may be given with many sources.
    singularity : "subtraction" or "nodal"
        Closed form plus a smooth correction, or the whole current in the voxel that holds the source.

    Raises
    ------
    SolverError
        Tolerance not reached.
    ValueError
        Source in air or outside; a limb that does not reach its ends; a pair without its second electrode.
    """
    if singularity not in ("subtraction", "nodal"):
        raise ValueError(f"singularity must be 'subtraction' or 'nodal'; got {singularity!r}")
    operator, preconditioner = operator_of(conductor, dtype), None
    if isinstance(operator, MultipointOperator):  # the part of the tensors along the axes: as good as the fibres are along one
        preconditioner = FluxOperator.of(dataclasses.replace(conductor, sigma=conductor.sigma[:, :3]), dtype)
    if isinstance(source, PointSource) and singularity == "subtraction":
        known = Subtraction.of(conductor, operator, source)
        if warn:
            _warn_beside_better(conductor, source)
    else:
        density = nodal_source(conductor, source.to(dtype)) if isinstance(source, PointSource) else source
        known = Subtraction.density(conductor, operator, density)
    correction = conjugate_gradients(operator, known.rhs, tolerance, max_iterations, preconditioner)
    phi = correction.phi + known.phi_inf
    if conductor.ends.floating:
        phi = zero_mean(phi, conductor.tissue.expand_as(phi))
    return Solution(phi, correction.iterations, correction.residual)
