"""Trilinear functions on voxels: their values, slopes and waves."""

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.rules import Points

Mode = tuple[int, int, int]
CORNERS: tuple[Mode, ...] = tuple(product((0, 1), repeat=3))  # type: ignore[arg-type]


def haar(nodes: Float[Tensor, "nD nH nW"]) -> dict[Mode, Float[Tensor, "D H W"]]:
    """Coefficients of a trilinear function in P_m1 P_m2 P_m3 of every voxel."""
    fields: dict[tuple[int, ...], Tensor] = {(): nodes}
    for axis in range(3):
        split: dict[tuple[int, ...], Tensor] = {}
        for m, values in fields.items():
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
        low, high = corners.narrow(axis + 1, 0, 1), corners.narrow(axis + 1, 1, 1)
        slope = (high - low) / spacing[axis]
        for other in range(3):
            if other != axis:
                slope = _between(slope, points, other)
        out.append(slope)
    return out


def _corners(nodes: Tensor, points: Points) -> Float[Tensor, "n 2 2 2"]:
    """Values at the corners of the voxels."""
    d, h, w = points.voxels.view(-1, 3, 1, 1, 1).unbind(dim=1)
    step = torch.arange(2)
    return nodes[d + step.view(2, 1, 1), h + step.view(2, 1), w + step]


def _between(values: Tensor, points: Points, axis: int) -> Tensor:
    """From both sides of an axis to the places along it."""
    low, high = values.narrow(axis + 1, 0, 1), values.narrow(axis + 1, 1, 1)
    return low + (high - low) * points.xi(axis)
