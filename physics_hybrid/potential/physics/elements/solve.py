r"""Truth by finite elements: trilinear hexahedra from scikit-fem, algebraic multigrid from pyamg. Independent of the finite volumes.

The problem is that of `element_operator`; here its matrix is put together and solved. Element matrices are those that scikit-fem integrates
on one voxel, since all voxels are the same box, scattered into a sparse matrix over the nodes that touch tissue. Conjugate gradients
are preconditioned by one V-cycle of smoothed aggregation (Vanek, Mandel and Brezina, Computing 56 (1996) 179; Bell, Olson and Schroder,
PyAMG, JOSS 8 (2023) 5495). The residual that is reported is that of the matrix-free operator in torch: two codes must agree before a
solve counts.

Full tensors (oblique fibres), all `ends`, closed-form subtraction or a nodal source. One multigrid setup for each conductor, shared by all its sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyamg
import torch
from scipy import ndimage
from scipy.sparse import csr_matrix
from skfem import Basis, BilinearForm, ElementHex1, ElementQuad1, MeshHex1, MeshQuad1
from torch import Tensor

from physics_hybrid.potential.physics.conductor import Conductor, zero_mean
from physics_hybrid.potential.physics.elements.operator import (
    AXES,
    CORNERS,
    ElementOperator,
    ElementSource,
)
from physics_hybrid.potential.physics.multigrid import SolverError
from physics_hybrid.potential.physics.point_source import PointSource, matrix

#: Eigenvalues of the coarsest matrix below this share of the finest diagonal are its null space: of a floating body the constants, to rounding only.
COARSE_NULL_SPACE = 1e-10


@dataclass(frozen=True)
class ElementSolution:
    """phi (K, D, H, W) in volts at voxel centres and nodes (K, D+1, H+1, W+1) at voxel corners, float64 on the CPU, 0 in air; iterations of CG (the
    most of any source); residual |b - A x| / |b| of every source (K,)."""

    phi: Tensor
    nodes: Tensor
    iterations: int
    residual: Tensor


def solve_elements(
    conductor: Conductor, source: PointSource, tolerance: float = 1e-8, singularity: str = "subtraction", max_iterations: int = 200
) -> ElementSolution:
    """Potential of point electrodes in a conductor, finite elements. With zero flux on the whole surface (ends: sink, pair) phi has zero mean over tissue.

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
        Several conductors with another number of sources; electrode in air or outside; tissue without a way out for the current; a tensor with a negative eigenvalue; a pair without its second electrode.
    """
    conductor = Conductor(conductor.sigma.detach().cpu().double(), conductor.spacing.detach().cpu().double(), conductor.ends)
    source = PointSource(*(None if t is None else t.detach().cpu().double() for t in (source.point, source.current, source.returns)))
    _check_tensors(conductor)
    operator = ElementOperator.of(conductor)
    for b in range(len(conductor.sigma)):
        _check_pieces(conductor.tissue[b].numpy(), conductor.ends, b)
    known = ElementSource.of(conductor, operator, source, singularity)
    start = torch.where(operator.free, known.phi_inf, 0.0)
    rhs = -known.residual(operator, start)

    correction, iterations, bodies = torch.zeros_like(start), 0, len(conductor.sigma)
    for b in range(bodies):
        free = operator.free[b]
        A = assemble(conductor, b)
        precondition = _preconditioner(A)
        for k in range(len(rhs)) if bodies == 1 else (b,):
            x, count = _conjugate_gradients(A, rhs[k][free].numpy(), precondition, tolerance, max_iterations)
            correction[k][free] = torch.from_numpy(x)
            iterations = max(iterations, count)
    nodes = start + correction
    def norm(field):
        return field.flatten(1).norm(dim=1)
    size = norm(rhs)
    relative = norm(known.residual(operator, nodes)) / size.clamp_min(torch.finfo(torch.float64).tiny)
    if not bool((relative <= tolerance).all()):
        bad = (~(relative <= tolerance)).nonzero().flatten().tolist()
        raise SolverError(
            f"finite elements did not reach a relative residual of {tolerance:g} in {max_iterations} iterations: "
            + ", ".join(f"sample {k} is at {float(relative[k]):.2e}" for k in bad[:8])
            + " (a tolerance near 1e-12 cannot be reached in float64; raise max_iterations or the tolerance)"
        )
    phi = known.at_centres(nodes) * conductor.tissue
    if conductor.ends.floating:
        centred = zero_mean(phi, conductor.tissue.expand_as(phi))
        shift = (torch.where(conductor.tissue, phi - centred, 0.0).sum(dim=(1, 2, 3)) / conductor.tissue.sum(dim=(1, 2, 3))).view(-1, 1, 1, 1)
        phi, nodes = centred, torch.where(operator.in_tissue, nodes - shift, 0.0)
    return ElementSolution(phi, nodes, iterations, relative)


def _check_tensors(conductor: Conductor) -> None:
    if conductor.sigma.shape[1] < 6:
        return
    smallest = torch.linalg.eigvalsh(matrix(conductor.sigma.movedim(1, -1)))[..., 0]
    bad = conductor.tissue & (smallest < -1e-6 * conductor.sigma[:, 0])  # what rounding to float32 leaves is allowed
    if bool(bad.any()):
        index = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"sigma of sample {index[0]}, voxel {index[1:]} is not positive semi-definite (smallest eigenvalue {float(smallest[index]):g} S/m): "
            "check the order of the components, DD, HH, WW, DH, DW, HW"
        )


def _check_pieces(tissue: np.ndarray, ends, sample: int) -> None:
    """Voxels that share a corner share a node; every such piece needs a way out, or its potential is not defined."""
    pieces, count = ndimage.label(tissue, structure=np.ones((3, 3, 3)))
    open_pieces = {1} if ends.floating else set(np.unique(pieces[[0, -1]]).tolist())
    lost = int((~np.isin(pieces, list(open_pieces | {0}))).sum())
    if lost:
        rest = "the rest of the body" if ends.floating else "an end of the limb"
        raise ValueError(
            f"sample {sample}: tissue falls into {count} pieces, and {lost} of its {int(tissue.sum())} voxels are not joined to {rest} (ends={ends.kind}): no current "
            "can leave them and their potential is not defined. Set sigma = 0 there, or join them"
        )


def element_matrices(spacing: np.ndarray) -> np.ndarray:
    """int d_a N_i d_b N_j dV on one voxel for the six components of sigma, integrated by scikit-fem. (3,) -> (6, 8, 8), metres."""
    mesh = MeshHex1.init_tensor(*(np.array([0.0, h]) for h in spacing))
    basis = Basis(mesh, ElementHex1(), intorder=3)
    order = [int(np.flatnonzero((np.round(mesh.p.T / spacing) == corner).all(axis=1))[0]) for corner in CORNERS]
    out = []
    for a, b in AXES:
        form = BilinearForm(lambda u, v, w: u.grad[a] * v.grad[b] + (u.grad[b] * v.grad[a] if a != b else 0.0))
        out.append(form.assemble(basis).toarray()[np.ix_(order, order)])
    return np.stack(out)


def end_matrix(spacing: np.ndarray) -> np.ndarray:
    """int N_i N_j dS on one voxel face of an end, integrated by scikit-fem. (3,) -> (4, 4), m^2."""
    mesh = MeshQuad1.init_tensor(*(np.array([0.0, h]) for h in spacing[1:]))
    order = [int(np.flatnonzero((np.round(mesh.p.T / spacing[1:]) == corner[1:]).all(axis=1))[0]) for corner in CORNERS[:4]]
    mass = BilinearForm(lambda u, v, w: u * v).assemble(Basis(mesh, ElementQuad1(), intorder=3))
    return mass.toarray()[np.ix_(order, order)]


def assemble(conductor: Conductor, b: int = 0) -> csr_matrix:
    """The matrix over the free nodes of conductor b (those that touch tissue and are not grounded, in C order), A/V.

    Nodes of a voxel grid have 27 neighbours: entries are summed up on the grid, one array for each neighbour, and then put in rows.
    """
    sigma = torch.where(conductor.tissue[b], conductor.sigma[b], 0.0).double().numpy()
    spacing = conductor.spacing[b].double().numpy()
    K = element_matrices(spacing)
    K = K[:3].sum(axis=0, keepdims=True) if len(sigma) == 1 else K[: len(sigma)]
    size = sigma.shape[1:]
    entries = np.zeros((3, 3, 3, *(n + 1 for n in size)))
    def at(corner):
        return tuple(slice(i, i + n) for i, n in zip(corner, size))
    for i, row in enumerate(CORNERS):
        for j, column in enumerate(CORNERS):
            offset = tuple(1 + q - p for p, q in zip(row, column))
            entries[offset][at(row)] += np.tensordot(K[:, i, j], sigma, axes=1)
    if conductor.ends.kind == "robin":
        M = conductor.ends.beta * end_matrix(spacing)
        for end in (0, -1):
            for i, row in enumerate(CORNERS[:4]):
                for j, column in enumerate(CORNERS[:4]):
                    offset = tuple(1 + q - p for p, q in zip(row, column))
                    entries[offset][end][at(row)[1:]] += M[i, j] * sigma[0, end]

    free = entries[1, 1, 1] > 0
    if conductor.ends.kind == "grounded":
        free[[0, -1]] = False
    number = np.full(tuple(n + 2 for n in free.shape), -1, dtype=np.int32)
    number[1:-1, 1:-1, 1:-1][free] = np.arange(free.sum(), dtype=np.int32)
    columns = np.stack([number[tuple(slice(o, o + n) for o, n in zip(offset, free.shape))][free] for offset in np.ndindex(3, 3, 3)], axis=1)
    values = np.stack([entries[offset][free] for offset in np.ndindex(3, 3, 3)], axis=1)
    kept = (columns >= 0) & (values != 0)
    rows = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return csr_matrix((values[kept], columns[kept], rows), shape=(len(columns), len(columns)))


def _preconditioner(A: csr_matrix):
    """One V-cycle as a function of the residual; the same for the same matrix, though pyamg estimates eigenvalues from NumPy's global random numbers."""
    smallest = COARSE_NULL_SPACE * A.diagonal().max()

    def coarsest(A, b):
        values, vectors = np.linalg.eigh(A.toarray())
        kept = values > smallest
        return vectors[:, kept] @ (vectors[:, kept].T @ b / values[kept, *[None] * (b.ndim - 1)])

    state = np.random.get_state()
    np.random.seed(0)
    try:
        levels = pyamg.smoothed_aggregation_solver(A, symmetry="symmetric", coarse_solver=coarsest)
    finally:
        np.random.set_state(state)
    cycle = levels.aspreconditioner(cycle="V")
    return lambda residual: cycle @ residual


def _conjugate_gradients(A: csr_matrix, rhs: np.ndarray, precondition, tolerance: float, max_iterations: int) -> tuple[np.ndarray, int]:
    """x with |rhs - A x| <= tolerance |rhs| by the recursion, held to half of it; the caller checks the true residual. (Saad, 2003, alg. 9.1)"""
    x, residual = np.zeros_like(rhs), rhs.copy()
    goal = 0.5 * tolerance * np.linalg.norm(rhs)
    direction, before = np.zeros_like(rhs), 1.0
    for iteration in range(max_iterations):
        if np.linalg.norm(residual) <= goal:
            return x, iteration
        z = precondition(residual)
        now = residual @ z
        direction = z + (now / before if iteration else 0.0) * direction
        image = A @ direction
        step = now / (direction @ image)
        x += step * direction
        residual -= step * image
        before = now
    return x, max_iterations
