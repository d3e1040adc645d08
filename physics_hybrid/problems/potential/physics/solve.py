"""The potential of a source in a conductor, by finite volumes.

-div(sigma grad phi) = f                                                       [A/m^3]
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor, zero_mean
from physics_hybrid.problems.potential.physics.electrodes import (
    PointSource,
    check_source,
    nodal_source,
)
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.implicit import with_derivatives
from physics_hybrid.problems.potential.physics.krylov import Solution, conjugate_gradients
from physics_hybrid.problems.potential.physics.multipoint import MultipointOperator, operator_of
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

#: An electrode so many voxels from tissue that conducts so much better than its own earns a
#: warning.
BESIDE_VOXELS, BETTER = 0.4, 2.0


def solve(
    conductor: Conductor,
    source: PointSource | Float[Tensor, "..."],
    tolerance: float = 1e-8,
    dtype: torch.dtype = torch.float64,
    singularity: str = "subtraction",
    max_iterations: int = 200,
    warn: bool = True,
    start: Float[Tensor, "K D H W"] | None = None,
    report: Callable[[Tensor], None] | None = None,
) -> Solution:
    """Potential of a source in a conductor, finite volumes. With zero flux on the whole surface
    (ends: sink, pair) its mean over tissue is 0. Tissue that shares no face with the rest and
    reaches no end has no potential of its own: what is found there means nothing (elements refuse
    it).

    Warns (UserWarning) of an electrode just inside a poor conductor, unless told not to.
    Differentiable in sigma (not an oblique one), in the place and the current of a source and in a
    current density, for the price of one more solve (`implicit.py`).

    Parameters
    ----------
    source : PointSource, or Tensor (K, D, H, W)
        Point electrodes, or any current density in A/m^3. A conductor of one body may be given with
        many sources.
    singularity : "subtraction" or "nodal"
        Closed form plus a smooth correction, or the whole current in the voxel that holds the
        source.
    start : phi in V to begin with, such as a network's; None: a nested iteration.
    report : called after every iteration with the relative residuals (K,).

    Raises
    ------
    SolverError
        Tolerance not reached.
    ValueError
        Source in air or outside; a limb that does not reach its ends; a pair without its second
        electrode.

    Source
    ------
    Subtraction: Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24, for dipoles; here by the flux
    of the closed form through every voxel face (`subtraction.py`).

    Examples
    --------
    A block of fat, grounded at both ends; 1 mA in its middle. A voxel from the electrode the
    potential is that of an infinite medium, I / (4 pi sigma r), less what the ends take away.

    >>> import math, torch
    >>> from physics_hybrid.problems.potential.physics.conductor import Conductor
    >>> from physics_hybrid.problems.potential.physics.electrodes import PointSource
    >>> sigma = torch.full((1, 1, 24, 24, 24), 0.05, dtype=torch.float64)       # S/m
    >>> spacing = torch.full((1, 3), 0.004, dtype=torch.float64)                # m
    >>> point = torch.full((1, 3), 12.5 * 0.004, dtype=torch.float64)           # m
    >>> current = torch.tensor([1e-3], dtype=torch.float64)                     # A
    >>> phi = solve(Conductor(sigma, spacing), PointSource(point, current)).phi # V
    >>> tuple(phi.shape)
    (1, 24, 24, 24)
    >>> ratio = float(phi[0, 12, 13, 12]) / (1e-3 / (4 * math.pi * 0.05 * 0.004))
    >>> 0.9 < ratio < 1.0
    True
    """
    if singularity not in ("subtraction", "nodal"):
        raise ValueError(f"singularity must be 'subtraction' or 'nodal'; got {singularity!r}")
    if isinstance(source, PointSource):
        check_source(conductor, source)  # in coordinates that its owner knows
        if warn and singularity == "subtraction":
            warn_beside_better(conductor, source)
        box = Box.of(conductor)
        if box.size != conductor.shape:
            inside = box.source(source, conductor.spacing)
            begin = None if start is None else box.within(start)
            iteration = _Iteration(tolerance, max_iterations, begin, report)
            found = _solved(box.conductor(conductor), inside, dtype, singularity, iteration)
            return dataclasses.replace(found, phi=box.whole(found.phi))
    iteration = _Iteration(tolerance, max_iterations, start, report)
    return _solved(conductor, source, dtype, singularity, iteration)


@dataclass(frozen=True)
class _Iteration:
    """How far it goes, where it begins (phi in V, or None), and who is told."""

    tolerance: float
    max_iterations: int
    start: Float[Tensor, "K D H W"] | None
    report: Callable[[Tensor], None] | None


def _solved(
    conductor: Conductor,
    source: PointSource | Float[Tensor, "..."],
    dtype: torch.dtype,
    singularity: str,
    iteration: _Iteration,
) -> Solution:
    """phi on the whole grid of the conductor."""
    operator, preconditioner = operator_of(conductor, dtype), None
    if isinstance(operator, MultipointOperator):
        # the part of the tensors along the axes: as good as the fibres are along one
        diagonal = dataclasses.replace(conductor, sigma=conductor.sigma[:, :3])
        preconditioner = FluxOperator.of(diagonal, dtype)
    if not isinstance(source, PointSource):
        known = Subtraction.density(conductor, operator, source)
    elif singularity == "nodal":
        density = nodal_source(conductor, source.to(dtype))
        known = Subtraction.density(conductor, operator, density)
    else:
        known = Subtraction.of(conductor, operator, source)
    # the coarse grids of the cycle have ends that are grounded, or let nothing pass
    nested = preconditioner is None and conductor.ends.kind != "robin"

    inverse = functools.partial(
        conjugate_gradients,
        operator,
        tolerance=iteration.tolerance,
        max_iterations=iteration.max_iterations,
        preconditioner=preconditioner,
    )
    with torch.no_grad():
        begin = None if iteration.start is None else iteration.start.to(known.phi_inf)
        rest = inverse(
            known.rhs,
            phi_end=known.phi_end if nested else None,
            start=None if begin is None else begin - known.phi_inf,
            report=iteration.report,
        )
    phi = with_derivatives(
        operator, known.rhs, rest.phi, lambda g: inverse(g).phi, conductor.ends.floating
    )
    phi = phi + known.phi_inf
    if conductor.ends.floating:
        phi = zero_mean(phi, conductor.tissue.expand_as(phi))
    return Solution(phi, rest.iterations, rest.residual)


def warn_beside_better(conductor: Conductor, source: PointSource, level: int = 3) -> None:
    """Finite volumes see no difference between places in a voxel: just inside a poor conductor this
    shows.

    level : of the stack, whose line the warning names."""
    for electrode in source.electrodes:
        point = conductor.in_tissue(electrode.point)
        own = conductor.sigma_at(point).detach()[:, :3].mean(dim=1)
        best = conductor.best_near(point, BESIDE_VOXELS).detach()[:, :3].mean(dim=1)
        beside = best > BETTER * own
        if bool(beside.any()):
            k = int(beside.nonzero()[0])
            warnings.warn(
                f"the electrode of sample {k} lies within {BESIDE_VOXELS:g} voxels of tissue that "
                f"conducts {float(best[k] / own[k]):.2g} times better than its own. Finite volumes "
                "were wrong by 2 to 50 % beyond 3 voxels of such sources (docs/truth.md): "
                "use finite elements, or the centre of the voxel",
                stacklevel=level,
            )
