r"""From one grid to another over the same box: conductivity to a coarse one, potentials to a fine
one. Any sizes, odd ones too.

Voxel centres lie at (i + 1/2) / N of the box on every grid. Fourier interpolation of a field that
does not repeat rings at the ends of the box; here the field is continued by its mirror image, which
turns the Fourier series into one of cosines,

    f(x) = sum_k a_k cos(pi k x),   a_k = (2 - [k = 0]) / N sum_i f_i cos(pi k (i + 1/2) / N),   k < min(N, M),

from N to M samples, exact for every field that both can tell (Strang, The discrete cosine
transform, SIAM Review 41 (1999) 135).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from physics_hybrid.grid import Grid


def tissue_mean(sigma: Tensor, grid: Grid) -> Tensor:
    """Mean of sigma over the tissue in every voxel of a coarser grid, by volume; 0 where there is
    none. (B, C, D, H, W) -> (B, C, *grid), S/m.

    A coarse voxel that holds any tissue is tissue: the body stays in one piece, reaches its ends
    and holds its source.
    """
    field = torch.cat([(sigma[:, :1] > 0).to(sigma.dtype), sigma], dim=1)
    for axis, coarse in enumerate(grid, start=2):
        fine = field.shape[axis]

        def edges(n, width):
            # whole numbers: an overlap of 0 is exactly 0
            return torch.arange(n + 1, device=sigma.device) * width

        a, b = edges(coarse, fine)[:, None], edges(fine, coarse)[None]
        overlap = (torch.minimum(a[1:], b[:, 1:]) - torch.maximum(a[:-1], b[:, :-1])).clamp_min(0)
        field = (field.movedim(axis, -1) @ (overlap / fine).to(sigma.dtype).T).movedim(-1, axis)
    share, total = field[:, :1], field[:, 1:]
    return torch.where(share > 0, total / share, 0.0)


def upsample(field: Tensor, tissue: Tensor, grid: Grid) -> Tensor:
    """Trilinear interpolation of (B, D, H, W) to a finer grid; what it holds in air does not
    count.
    """

    def resize(f):
        return F.interpolate(f[:, None].float(), size=grid, mode="trilinear", align_corners=False)[
            :, 0
        ]

    weight = resize(tissue)
    return resize(torch.where(tissue, field, 0.0)) / weight.clamp_min(1e-6)


def cosine(field: Tensor, tissue: Tensor, grid: Grid) -> Tensor:
    """Fourier interpolation of a field (B, D, H, W) continued by its mirror image; voxels in air
    take the value of the nearest tissue.
    """
    field = into_air(field, tissue)
    for axis, size in enumerate(grid):
        matrix = _cosines(field.shape[axis + 1], size).to(field)
        field = torch.movedim(torch.movedim(field, axis + 1, -1) @ matrix.T, -1, axis + 1)
    return field


def _cosines(n: int, m: int) -> Tensor:
    """The interpolation from n to m samples as a matrix (m, n)."""
    k = torch.arange(min(n, m), dtype=torch.float64)

    def basis(size):
        return torch.cos(
            math.pi * k * (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) / size
        )

    return basis(m) * torch.where(k == 0, 1.0, 2.0) / n @ basis(n).T


def into_air(field: Tensor, tissue: Tensor) -> Tensor:
    """The field in tissue, and elsewhere its value at the nearest voxel of tissue. (B, D, H, W)"""
    out = field.clone()
    for b, inside in enumerate(tissue.cpu().numpy()):
        if not inside.all():
            nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
            out[b] = field[b][tuple(torch.from_numpy(nearest).long().to(field.device))]
    return out
