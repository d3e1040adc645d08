"""Trilinear functions on voxels: their values, slopes and waves."""

from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
    return {m: values / 2 ** len(axes) for m, values in sums(nodes, axes).items()}


def sums(
    nodes: Float[Tensor, "_ _ _"], axes: tuple[int, ...] = (0, 1, 2)
) -> dict[Mode, Float[Tensor, "D H W"]]:
    """The same, twice as large for every axis."""
    fields: dict[tuple[int, ...], Tensor] = {(): nodes}
    for axis in range(3):
        split: dict[tuple[int, ...], Tensor] = {}
        for m, values in fields.items():
            if axis not in axes:
                split[(*m, 0)] = values
                continue
            n = values.shape[axis] - 1
            low, high = values.narrow(axis, 0, n), values.narrow(axis, 1, n)
            split[(*m, 0)] = low + high
            split[(*m, 1)] = high - low
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
    values = corners_of(nodes, points.voxels)
    for axis in range(3):
        values = _between(values, points, axis)
    return values


def gradient(
    corners: Float[Tensor, "n 2 2 2"], points: Points, spacing: Float[Tensor, " 3"]
) -> list[Float[Tensor, "n _ _ _"]]:
    """The components of the gradient of a trilinear function at points, V/m, from its values at the
    corners of voxels; each has one place along its own axis."""
    if points.alike:
        x = points.places[0][0]
        P = len(x)
        shapes = _gradients(tuple(x.tolist())) / spacing[:, None]
        found = (corners.flatten(1) @ shapes.flatten(1)).view(-1, 3, P, P)
        return [found[:, axis].unsqueeze(axis + 1) for axis in range(3)]
    out = []
    for axis in range(3):
        slope = _step(corners, axis) / spacing[axis]
        for other in others(axis):
            slope = _between(slope, points, other)
        out.append(slope)
    return out


@cache
def _gradients(places: tuple[float, ...]) -> Float[Tensor, "8 3 PP"]:
    """Slopes of the functions of the eight corners of a unit cube, each along an axis, at places
    across it."""
    x = torch.tensor(places, dtype=torch.float64)
    value, slope = torch.stack([1 - x, x]), torch.tensor([-1.0, 1.0], dtype=torch.float64)
    lines = ("a,bp,cq->abcpq", "b,ap,cq->abcpq", "c,ap,bq->abcpq")
    parts = [torch.einsum(line, slope, value, value) for line in lines]
    return torch.stack(parts, dim=3).view(8, 3, -1)


def bent(edges: Edges, points: Points) -> Float[Tensor, "n _ _ _"]:
    """Values of the sum over axes a of c_a (1 - X_a^2) at points, X_a from -1 to 1 along the axis
    and c_a bilinear across it, from its values on the edges."""
    total = torch.zeros(())
    for axis, values in enumerate(edges):
        c = corners_of(values, points.voxels, axis)
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
        corners = corners_of(values, points.voxels, axis)
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


def corners_of(
    values: Tensor, voxels: Int[Tensor, "n 3"], along: int | None = None
) -> Float[Tensor, "n _ _ _"]:
    """Values at the corners of voxels, or on their edges along an axis."""
    d, h, w = ([0] if axis == along else [0, 1] for axis in range(3))
    values = values.contiguous()
    strides = values.stride()
    steps = [i * strides[0] + j * strides[1] + k * strides[2] for i in d for j in h for k in w]
    first = voxels @ torch.tensor(strides)
    flat = values.flatten().take(first[:, None] + torch.tensor(steps))
    return flat.view(-1, len(d), len(h), len(w))


def _step(values: Tensor, axis: int) -> Tensor:
    """From the lower to the upper side of an axis."""
    return values.narrow(axis + 1, 1, 1) - values.narrow(axis + 1, 0, 1)


def _between(values: Tensor, points: Points, axis: int) -> Tensor:
    """From both sides of an axis to the places along it."""
    return values.narrow(axis + 1, 0, 1) + _step(values, axis) * points.xi(axis)
