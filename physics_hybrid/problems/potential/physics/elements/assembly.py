"""The matrix of the weak form put together, from element matrices that scikit-fem integrates.

All voxels are the same box: one is integrated, and scattered into a sparse matrix over the nodes
that touch tissue. Independent of the matrix-free operator in torch, but for the order of corners
and components.
"""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from skfem import Basis, BilinearForm, ElementHex1, ElementQuad1, MeshHex1, MeshQuad1

from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.elements.hexahedron import AXES, CORNERS
from physics_hybrid.problems.potential.physics.ends import Ends

#: The corners of a face of an end, axes H and W.
FACE_CORNERS = tuple(corner[1:] for corner in CORNERS[:4])


def element_matrices(spacing: np.ndarray) -> np.ndarray:
    """int d_a N_i d_b N_j dV on one voxel for the six components of sigma, by scikit-fem.

    (3,) -> (6, 8, 8), metres. Where a != b both orders are in it.
    """
    mesh = MeshHex1.init_tensor(*(np.array([0.0, h]) for h in spacing))
    basis = Basis(mesh, ElementHex1(), intorder=3)
    order = _order_of(mesh.p.T / spacing, CORNERS)
    out = []
    for a, b in AXES:
        K = _stiffness(a, b).assemble(basis).toarray()
        out.append(K[np.ix_(order, order)])
    return np.stack(out)


def end_matrix(spacing: np.ndarray) -> np.ndarray:
    """int N_i N_j dS on one voxel face of an end, by scikit-fem. (3,) -> (4, 4), m^2."""
    mesh = MeshQuad1.init_tensor(*(np.array([0.0, h]) for h in spacing[1:]))
    basis = Basis(mesh, ElementQuad1(), intorder=3)
    order = _order_of(mesh.p.T / spacing[1:], FACE_CORNERS)
    mass: np.ndarray = BilinearForm(_product).assemble(basis).toarray()
    return mass[np.ix_(order, order)]


def _stiffness(a: int, b: int) -> BilinearForm:
    def same(u, v, w):  # type: ignore[no-untyped-def]
        return u.grad[a] * v.grad[a]

    def both_orders(u, v, w):  # type: ignore[no-untyped-def]
        return u.grad[a] * v.grad[b] + u.grad[b] * v.grad[a]

    return BilinearForm(same if a == b else both_orders)


def _product(u, v, w):  # type: ignore[no-untyped-def]
    return u * v


def _order_of(points: np.ndarray, corners: tuple[tuple[int, ...], ...]) -> list[int]:
    """The number scikit-fem gives to each of our corners; points : its nodes, in voxels."""
    rounded = np.round(points)
    return [int(np.flatnonzero((rounded == corner).all(axis=1))[0]) for corner in corners]


def assemble(conductor: Conductor, b: int = 0) -> csr_matrix:
    """The matrix over the free nodes of conductor b, A/V.

    Those that touch tissue and are not grounded, in C order. Nodes of a voxel grid have 27
    neighbours: entries are summed up on the grid, one array for each neighbour, and then put in
    rows.
    """
    ends = Ends.of(conductor.ends)
    sigma = torch.where(conductor.tissue[b], conductor.sigma[b], 0.0).double().numpy()
    spacing = conductor.spacing[b].double().numpy()
    entries = np.zeros((3, 3, 3, *(n + 1 for n in sigma.shape[1:])))
    _add_stiffness(entries, sigma, spacing)
    if ends.kind == "robin":
        _add_exchange(entries, sigma, ends.exchange * end_matrix(spacing))
    free = entries[1, 1, 1] > 0
    if ends.kind == "grounded":
        free[[0, -1]] = False
    return _in_rows(entries, free)


def _add_stiffness(entries: np.ndarray, sigma: np.ndarray, spacing: np.ndarray) -> None:
    """Every voxel's element matrix; entries : (3, 3, 3, D+1, H+1, W+1), by neighbour and node."""
    K, components, voxels = element_matrices(spacing), len(sigma), sigma.shape[1:]
    K = K[:3].sum(axis=0, keepdims=True) if components == 1 else K[:components]
    for i, row in enumerate(CORNERS):
        for j, column in enumerate(CORNERS):
            neighbour = entries[_offset(row, column)]
            neighbour[_window(row, voxels)] += np.tensordot(K[:, i, j], sigma, axes=1)


def _add_exchange(entries: np.ndarray, sigma: np.ndarray, M: np.ndarray) -> None:
    """The boundary mass of both ends; M : (4, 4), m."""
    face = sigma.shape[2:]
    for end in (0, -1):
        for i, row in enumerate(FACE_CORNERS):
            for j, column in enumerate(FACE_CORNERS):
                neighbour = entries[1][_offset(row, column)][end]
                neighbour[_window(row, face)] += M[i, j] * sigma[0, end]


def _offset(row: tuple[int, ...], column: tuple[int, ...]) -> tuple[int, ...]:
    """Which of the neighbours (0, 1 or 2 along each axis) of a corner another corner is."""
    return tuple(1 + q - p for p, q in zip(row, column, strict=True))


def _window(corner: tuple[int, ...], voxels: tuple[int, ...]) -> tuple[slice, ...]:
    """The nodes that are this corner of a voxel."""
    return tuple(slice(i, i + n) for i, n in zip(corner, voxels, strict=True))


def _in_rows(entries: np.ndarray, free: np.ndarray) -> csr_matrix:
    """The entries of the free nodes (D+1, H+1, W+1) as a sparse matrix, zeros left out."""
    number = np.full(tuple(n + 2 for n in free.shape), -1, dtype=np.int32)
    number[1:-1, 1:-1, 1:-1][free] = np.arange(free.sum(), dtype=np.int32)
    neighbours = list(np.ndindex(3, 3, 3))
    columns = np.stack([number[_window(one, free.shape)][free] for one in neighbours], axis=1)
    values = np.stack([entries[one][free] for one in neighbours], axis=1)
    kept = (columns >= 0) & (values != 0)
    rows = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return csr_matrix((values[kept], columns[kept], rows), shape=(len(columns), len(columns)))
