r"""Truth by finite elements: trilinear hexahedra, algebraic multigrid. No finite volumes in it.

The problem is that of `weak_form`; here its matrix is put together (`assembly`) and solved (`amg`).
The residual that is reported is that of the matrix-free operator in torch: two codes must agree
before a solve counts.

Full tensors (oblique fibres), all `ends`, closed-form subtraction or a nodal source. One multigrid
setup for each conductor, shared by all its sources.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from physics_hybrid.grid import per_sample
from physics_hybrid.problems.potential.physics.conductor import Conductor, matrix, zero_mean
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.amg import conjugate_gradients, v_cycle
from physics_hybrid.problems.potential.physics.elements.assembly import (
    assemble,
)
from physics_hybrid.problems.potential.physics.elements.source import ElementSource
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.krylov import SolverError


@dataclass(frozen=True)
class ElementSolution:
    """phi in volts at voxel centres and nodes at voxel corners, float64 on the CPU, 0 in air.

    iterations : of conjugate gradients, the most of any source.
    residual : |b - A x| / |b| of every source.
    """

    phi: Float[Tensor, "K D H W"]
    nodes: Float[Tensor, "K D+1 H+1 W+1"]
    iterations: int
    residual: Float[Tensor, " K"]


def solve_elements(
    conductor: Conductor,
    source: PointSource,
    tolerance: float = 1e-8,
    singularity: str = "subtraction",
    max_iterations: int = 200,
) -> ElementSolution:
    """Potential of point electrodes in a conductor, finite elements.

    With zero flux on the whole surface (ends: sink, pair) phi has zero mean over tissue.

    Parameters
    ----------
    source : PointSource
        One electrode (or pair) for each conductor, or K of them for one conductor.
    tolerance : relative residual to be reached by every source.
    singularity : "subtraction" or "nodal"
        Closed form plus a smooth correction, or the functional I N_i(r_s).

    Raises
    ------
    SolverError
        Tolerance not reached.
    ValueError
        Several conductors with another number of sources; electrode in air or outside; tissue
        without a way out for the current; a tensor with a negative eigenvalue; a pair without its
        second electrode.
    """
    conductor = Conductor(_exactly(conductor.sigma), _exactly(conductor.spacing), conductor.ends)
    returns = None if source.returns is None else _exactly(source.returns)
    source = PointSource(_exactly(source.point), _exactly(source.current), returns)
    _check_tensors(conductor)
    operator = ElementOperator.of(conductor)
    for b in range(len(conductor.sigma)):
        _check_pieces(conductor.tissue[b].numpy(), operator.ends, b)
    known = ElementSource.of(conductor, operator, source, singularity)
    start = torch.where(operator.free, known.phi_inf, 0.0)
    rhs = -known.residual(operator, start)

    correction, iterations = _corrections(conductor, operator.free, rhs, tolerance, max_iterations)
    nodes = start + correction
    smallest = torch.finfo(torch.float64).tiny
    left, size = _norm(known.residual(operator, nodes)), _norm(rhs)
    relative = left / size.clamp_min(smallest)
    _require_convergence(relative, tolerance, max_iterations)
    phi = known.at_centres(nodes) * conductor.tissue
    if operator.ends.floating:
        centred = zero_mean(phi, conductor.tissue.expand_as(phi))
        removed = _sum(torch.where(conductor.tissue, phi - centred, 0.0))
        shift = per_sample(removed / _sum(conductor.tissue))
        phi, nodes = centred, torch.where(operator.in_tissue, nodes - shift, 0.0)
    return ElementSolution(phi, nodes, iterations, relative)


def _exactly(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def _norm(field: Tensor) -> Tensor:
    norm: Tensor = field.flatten(1).norm(dim=1)
    return norm


def _sum(field: Tensor) -> Tensor:
    return field.sum(dim=(1, 2, 3))


def _corrections(
    conductor: Conductor, free: Tensor, rhs: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, int]:
    """A x = rhs at the free nodes, 0 at others (K, D+1, H+1, W+1), and the most iterations."""
    out, most, bodies = torch.zeros_like(rhs), 0, len(conductor.sigma)
    for b in range(bodies):
        A = assemble(conductor, b)
        precondition = v_cycle(A)
        sources = range(len(rhs)) if bodies == 1 else (b,)
        for k in sources:
            b_k = rhs[k][free[b]].numpy()
            x, count = conjugate_gradients(A, b_k, precondition, tolerance, max_iterations)
            out[k][free[b]] = torch.from_numpy(x)
            most = max(most, count)
    return out, most


def _require_convergence(relative: Tensor, tolerance: float, max_iterations: int) -> None:
    reached = relative <= tolerance
    if bool(reached.all()):
        return
    bad = (~reached).nonzero().flatten().tolist()
    raise SolverError(
        f"finite elements did not reach a relative residual of {tolerance:g} in "
        f"{max_iterations} iterations: "
        + ", ".join(f"sample {k} is at {float(relative[k]):.2e}" for k in bad[:8])
        + " (a tolerance near 1e-12 cannot be reached in float64; raise max_iterations or the "
        "tolerance)"
    )


def _check_tensors(conductor: Conductor) -> None:
    """Raise ValueError where a full tensor has a negative eigenvalue."""
    if conductor.sigma.shape[1] < 6:
        return
    smallest = torch.linalg.eigvalsh(matrix(conductor.sigma.movedim(1, -1)))[..., 0]
    rounding = -1e-6 * conductor.sigma[:, 0]  # what rounding to float32 leaves is allowed
    bad = conductor.tissue & (smallest < rounding)
    if bool(bad.any()):
        index = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"sigma of sample {index[0]}, voxel {index[1:]} is not positive semi-definite "
            f"(smallest eigenvalue {float(smallest[index]):g} S/m): check the order of the "
            "components, DD, HH, WW, DH, DW, HW"
        )


def _check_pieces(tissue: np.ndarray, ends: Ends, sample: int) -> None:
    """Raise ValueError where a piece of tissue has no way out: its potential is not defined.

    Voxels that share a corner share a node.
    """
    pieces, count = ndimage.label(tissue, structure=np.ones((3, 3, 3)))
    open_pieces = {1} if ends.floating else set(np.unique(pieces[[0, -1]]).tolist())
    lost = int((~np.isin(pieces, list(open_pieces | {0}))).sum())
    if lost:
        rest = "the rest of the body" if ends.floating else "an end of the limb"
        raise ValueError(
            f"sample {sample}: tissue falls into {count} pieces, and {lost} of its "
            f"{int(tissue.sum())} voxels are not joined to {rest} (ends={ends.kind}): no current "
            "can leave them and their potential is not defined. Set sigma = 0 there, or join them"
        )
