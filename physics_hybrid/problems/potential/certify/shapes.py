"""Trilinear functions on voxels: their values, slopes and waves."""

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.rules import Points

Mode = tuple[int, int, int]

#: Values on the edges of voxels along D, H and W: (D, nH, nW), (nD, H, nW), (nD, nH, W).
Edges = list[Float[Tensor, "_ _ _"]]

CORNERS: tuple[Mode, ...] = tuple(product((0, 1), repeat=3))  # type: ignore[arg-type]


def haar(
    nodes: Float[Tensor, "_ _ _"], axes: tuple[int, ...] = (0, 1, 2)
) -> dict[Mode, Float[Tensor, "D H W"]]:
    """Coefficients of a function that is linear between nodes along some axes in P_m1 P_m2 P_m3 of
    every voxel; constant along the others."""
    fields: dict[tuple[int, ...], Tensor] = {(): nodes}
    for axis in range(3):
        split: dict[tuple[int, ...], Tensor] = {}
        for m, values in fields.items():
            if axis not in axes:
                split[(*m, 0)] = values
                continue
            n = values.shape[axis] - 1
            low, high = values.narrow(axis, 0, n), values.narrow(axis, 1, n)
            split[(*m, 0)] = (low + high) / 2
            split[(*m, 1)] = (high - low) / 2
        fields = split
    return {(m[0], m[1], m[2]): values for m, values in fields.items()}


def flat_haar(plane: Float[Tensor, "nH nW"]) -> dict[tuple[int, int], Float[Tensor, "H W"]]:
    """The same for a bilinear function on a plane."""
    mean_h, step_h = (plane[1:] + plane[:-1]) / 2, (plane[1:] - plane[:-1]) / 2
    out = {}
    for i, values in enumerate((mean_h, step_h)):
        out[(i, 0)] = (values[:, 1:] + values[:, :-1]) / 2
        out[(i, 1)] = (values[:, 1:] - values[:, :-1]) / 2
    return out


def prolonged(nodes: Float[Tensor, "nD nH nW"], factor: int) -> Float[Tensor, "_ _ _"]:
    """The same trilinear function at the nodes of voxels that are `factor` times smaller."""
    size = [(n - 1) * factor + 1 for n in nodes.shape]
    finer: Tensor = F.interpolate(nodes[None, None], size, mode="trilinear", align_corners=True)
    return finer[0, 0]


def trilinear(nodes: Float[Tensor, "nD nH nW"], points: Points) -> Float[Tensor, "n _ _ _"]:
    """Values of a trilinear function at points."""
    values = _corners(nodes, points)
    for axis in range(3):
        values = _between(values, points, axis)
    return values


def gradient(
    nodes: Float[Tensor, "nD nH nW"], points: Points, spacing: Float[Tensor, " 3"]
) -> list[Float[Tensor, "n _ _ _"]]:
    """The components of its gradient at points, V/m; each has one place along its own axis."""
    corners = _corners(nodes, points)
    out = []
    for axis in range(3):
        slope = _step(corners, axis) / spacing[axis]
        for other in others(axis):
            slope = _between(slope, points, other)
        out.append(slope)
    return out


def bent(edges: Edges, points: Points) -> Float[Tensor, "n _ _ _"]:
    """Values of the sum over axes a of c_a (1 - X_a^2) at points, X_a from -1 to 1 along the axis
    and c_a bilinear across it, from its values on the edges."""
    total = torch.zeros(())
    for axis, values in enumerate(edges):
        c = _corners(values, points, axis)
        for other in others(axis):
            c = _between(c, points, other)
        total = total + c * (1 - (2 * points.xi(axis) - 1) ** 2)
    return total


def bent_gradient(
    edges: Edges, points: Points, spacing: Float[Tensor, " 3"]
) -> list[Float[Tensor, "n _ _ _"]]:
    """The components of its gradient at points, V/m."""
    total = [torch.zeros(())] * 3
    for axis, values in enumerate(edges):
        X = 2 * points.xi(axis) - 1
        corners = _corners(values, points, axis)
        u, v = others(axis)
        along_u, along_v = _between(corners, points, u), _between(corners, points, v)
        total[axis] = total[axis] - _between(along_u, points, v) * (4 * X / spacing[axis])
        total[u] = total[u] + _step(along_v, u) * ((1 - X**2) / spacing[u])
        total[v] = total[v] + _step(along_u, v) * ((1 - X**2) / spacing[v])
    return total


def others(axis: int) -> tuple[int, int]:
    """The two other axes."""
    u, v = (other for other in range(3) if other != axis)
    return u, v


def _corners(values: Tensor, points: Points, along: int | None = None) -> Float[Tensor, "n _ _ _"]:
    """Values at the corners of the voxels, or on their edges along an axis."""
    indices = []
    for axis, i in enumerate(points.voxels.view(-1, 3, 1, 1, 1).unbind(dim=1)):
        shape = [1, 1, 1]
        shape[axis] = 1 if axis == along else 2
        indices.append(i + torch.arange(shape[axis]).view(shape))
    d, h, w = indices
    return values[d, h, w]


def _step(values: Tensor, axis: int) -> Tensor:
    """From the lower to the upper side of an axis."""
    return values.narrow(axis + 1, 1, 1) - values.narrow(axis + 1, 0, 1)


def _between(values: Tensor, points: Points, axis: int) -> Tensor:
    """From both sides of an axis to the places along it."""
    return values.narrow(axis + 1, 0, 1) + _step(values, axis) * points.xi(axis)
