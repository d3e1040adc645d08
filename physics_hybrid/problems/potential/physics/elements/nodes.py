"""Between voxels and nodes: nodes are the corners of voxels, one more than voxels on each axis."""

from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def corners(nodes: Float[Tensor, "B *nodes"]) -> Float[Tensor, "B corners *voxels"]:  # noqa: F821
    """Node values at the corners of every voxel.

    (B, D+1, H+1, W+1) -> (B, 8, D, H, W), or of every face of a plane,
    (B, H+1, W+1) -> (B, 4, H, W).
    """
    voxels = [n - 1 for n in nodes.shape[1:]]
    each = product((0, 1), repeat=len(voxels))
    return torch.stack([nodes[(slice(None), *_window(c, voxels))] for c in each], dim=1)


def gather_at_nodes(
    values: Float[Tensor, "B corners *voxels"],
) -> Float[Tensor, "B *nodes"]:  # noqa: F821
    """The transpose of `corners`: what the voxels round a node bring to it, added up.

    (B, 8, D, H, W) -> (B, D+1, H+1, W+1), or (B, 4, H, W) -> (B, H+1, W+1).
    """
    voxels = values.shape[2:]
    out = values.new_zeros(len(values), *(n + 1 for n in voxels))
    for c, corner in enumerate(product((0, 1), repeat=len(voxels))):
        out[(slice(None), *_window(corner, voxels))] += values[:, c]
    return out


def voxels_round_nodes(marked: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D+1 H+1 W+1"]:
    """How many of the eight voxels round every node are marked (1, not 0)."""
    return gather_at_nodes(marked[:, None].expand(-1, 8, -1, -1, -1))


def lift(
    field: Float[Tensor, "B D H W"], tissue: Bool[Tensor, "B D H W"]
) -> Float[Tensor, "B D+1 H+1 W+1"]:
    """From voxel centres to nodes: the mean over the tissue voxels round a node, else 0."""
    count = voxels_round_nodes(tissue.to(field.dtype))
    return voxels_round_nodes(torch.where(tissue, field, 0.0)) / count.clamp_min(1)


def _window(corner: tuple[int, ...], voxels: list[int] | torch.Size) -> tuple[slice, ...]:
    """The nodes that are this corner of a voxel."""
    return tuple(slice(i, i + n) for i, n in zip(corner, voxels, strict=True))
