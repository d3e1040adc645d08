"""Trilinear functions on voxels: their values, slopes and waves."""

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

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


def trilinear(
    nodes: Float[Tensor, "nD nH nW"], voxels: Int[Tensor, "n 3"], xi: Float[Tensor, "n P 3"]
) -> Float[Tensor, "n P"]:
    """Values of a trilinear function at places of voxels."""
    d, h, w = voxels.unbind(dim=1)
    total = torch.zeros_like(xi[..., 0])
    for i, j, k in CORNERS:
        shape = _hat(xi[..., 0], i) * _hat(xi[..., 1], j) * _hat(xi[..., 2], k)
        total = total + nodes[d + i, h + j, w + k][:, None] * shape
    return total


def gradient(
    nodes: Float[Tensor, "nD nH nW"],
    voxels: Int[Tensor, "n 3"],
    xi: Float[Tensor, "n P 3"],
    spacing: Float[Tensor, " 3"],
) -> Float[Tensor, "n P 3"]:
    """Its gradient, V/m."""
    d, h, w = voxels.unbind(dim=1)
    total = torch.zeros_like(xi)
    for corner in CORNERS:
        i, j, k = corner
        value = nodes[d + i, h + j, w + k][:, None]
        hats = [_hat(xi[..., axis], corner[axis]) for axis in range(3)]
        for axis in range(3):
            u, v = (a for a in range(3) if a != axis)
            slope = (2 * corner[axis] - 1) / spacing[axis]
            total[..., axis] += value * slope * hats[u] * hats[v]
    return total


def _hat(xi: Tensor, corner: int) -> Tensor:
    """1 at a corner and 0 at the other one."""
    return xi if corner else 1 - xi
