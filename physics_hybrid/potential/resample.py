"""From one grid to another over the same box: conductivity to a coarse one, potentials to a fine one. Any sizes, odd ones too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def tissue_mean(sigma: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Mean of sigma over the tissue in every voxel of a coarser grid, by volume; 0 where there is none. (B, C, D, H, W) -> (B, C, *grid), S/m.

    A coarse voxel that holds any tissue is tissue: the body stays in one piece, reaches its ends and holds its source.
    """
    field = torch.cat([(sigma[:, :1] > 0).to(sigma.dtype), sigma], dim=1)
    for axis, coarse in enumerate(grid, start=2):
        fine = field.shape[axis]
        edges = lambda n, width: torch.arange(n + 1, device=sigma.device) * width  # whole numbers: an overlap of 0 is exactly 0
        a, b = edges(coarse, fine)[:, None], edges(fine, coarse)[None]
        overlap = (torch.minimum(a[1:], b[:, 1:]) - torch.maximum(a[:-1], b[:, :-1])).clamp_min(0)
        field = (field.movedim(axis, -1) @ (overlap / fine).to(sigma.dtype).T).movedim(-1, axis)
    share, total = field[:, :1], field[:, 1:]
    return torch.where(share > 0, total / share, 0.0)


def upsample(field: Tensor, tissue: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Trilinear interpolation of (B, D, H, W) to a finer grid; what it holds in air does not count."""
    resize = lambda f: F.interpolate(f[:, None].float(), size=grid, mode="trilinear", align_corners=False)[:, 0]
    weight = resize(tissue)
    return resize(torch.where(tissue, field, 0.0)) / weight.clamp_min(1e-6)
