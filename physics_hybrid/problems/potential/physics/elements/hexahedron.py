"""The reference element: one trilinear hexahedron, the box that all voxels of a body are.

All voxels are alike, so that one 8 x 8 matrix for each component of sigma makes the operator.
"""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

#: The corners of a voxel, in the order of all 8 x 8 matrices here.
CORNERS = tuple(product((0, 1), repeat=3))

#: Axes (a, b) of the components of sigma.
AXES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def element_matrices(spacing: Float[Tensor, "B 3"]) -> Float[Tensor, "B 6 8 8"]:
    """int d_a N_i d_b N_j dV over one voxel for the six components of sigma, metres.

    Where a != b both orders are in it. spacing : metres.
    """
    h = spacing[:, :, None, None]
    mass = h * _like(spacing, [[2.0, 1.0], [1.0, 2.0]]) / 6
    stiffness = _like(spacing, [[1.0, -1.0], [-1.0, 1.0]]) / h
    slope = _like(spacing, [[-0.5, -0.5], [0.5, 0.5]]).expand_as(mass)  # int N_i' N_j
    out = []
    for a, b in AXES:
        factor = [mass[:, axis] for axis in range(3)]
        if a == b:
            factor[a] = stiffness[:, a]
        else:
            factor[a], factor[b] = slope[:, a], slope[:, b].mT
        K = torch.einsum("zil,zjm,zkn->zijklmn", *factor).reshape(-1, 8, 8)
        out.append(K if a == b else K + K.mT)
    return torch.stack(out, dim=1)


def end_matrix(spacing: Float[Tensor, "B 3"]) -> Float[Tensor, "B 4 4"]:
    """int N_i N_j dS over one voxel face of an end, m^2. spacing : metres."""
    line = _like(spacing, [[2.0, 1.0], [1.0, 2.0]]) / 6
    return torch.kron(line, line) * (spacing[:, 1] * spacing[:, 2]).view(-1, 1, 1)


def _like(spacing: Tensor, rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=spacing.dtype, device=spacing.device)
