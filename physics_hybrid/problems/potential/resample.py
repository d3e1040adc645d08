r"""From one grid to another over the same box: conductivity to a coarse one, potentials to a fine
one. Any sizes, odd ones too.

Voxel centres lie at (i + 1/2) / N of the box on every grid. Fourier interpolation of a field that
does not repeat rings at the ends of the box; here the field is continued by its mirror image, which
turns the Fourier series into one of cosines,

    f(x) = sum_k a_k cos(pi k x),                                               k < min(N, M)
    a_k = (2 - [k = 0]) / N sum_i f_i cos(pi k (i + 1/2) / N)

from N to M samples, exact for every field that both can tell (Strang, The discrete cosine
transform, SIAM Review 41 (1999) 135).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from physics_hybrid.grid import Grid


def tissue_mean(sigma: Float[Tensor, "B C D H W"], grid: Grid) -> Float[Tensor, "B C _ _ _"]:
    """Mean of sigma over the tissue in every voxel of a coarser grid, by volume; 0 where there is
    none. S/m

    A coarse voxel that holds any tissue is tissue: the body stays in one piece, reaches its ends
    and holds its source.
    """
    field = mean(torch.cat([(sigma[:, :1] > 0).to(sigma.dtype), sigma], dim=1), grid)
    tissue, total = field[:, :1], field[:, 1:]
    return torch.where(tissue > 0, total / tissue, 0.0)


def mean(field: Float[Tensor, "*n D H W"], grid: Grid) -> Float[Tensor, "*n _ _ _"]:
    """Mean of a field over every voxel of a coarser grid, by volume."""
    for axis, coarse in zip((-3, -2, -1), grid, strict=True):
        fine = field.shape[axis]
        share = (_overlap(coarse, fine, field.device) / fine).to(field.dtype)
        field = (field.movedim(axis, -1) @ share.T).movedim(-1, axis)
    return field


def _overlap(coarse: int, fine: int, device: torch.device) -> Tensor:
    """How much of each coarse voxel along an axis lies in each fine one. (coarse, fine)

    In whole numbers, 1 / (coarse fine) of the box: an overlap of 0 is exactly 0.
    """
    a = torch.arange(coarse + 1, device=device)[:, None] * fine
    b = torch.arange(fine + 1, device=device) * coarse
    ends, begins = torch.minimum(a[1:], b[1:]), torch.maximum(a[:-1], b[:-1])
    return (ends - begins).clamp_min(0)


def upsample(
    field: Float[Tensor, "B D H W"], tissue: Bool[Tensor, "B D H W"], grid: Grid
) -> Float[Tensor, "B _ _ _"]:
    """Trilinear interpolation to a finer grid, float32; what a field holds in air does not
    count.
    """
    weight = _trilinear(tissue, grid)
    return _trilinear(torch.where(tissue, field, 0.0), grid) / weight.clamp_min(1e-6)


def _trilinear(field: Tensor, grid: Grid) -> Tensor:
    channels = field[:, None].float()
    return F.interpolate(channels, size=grid, mode="trilinear", align_corners=False)[:, 0]


def cosine(
    field: Float[Tensor, "B D H W"], tissue: Bool[Tensor, "B D H W"], grid: Grid
) -> Float[Tensor, "B _ _ _"]:
    """Fourier interpolation of a field continued by its mirror image; voxels in air take the value
    of the nearest tissue.
    """
    field = into_air(field, tissue)
    for axis, size in enumerate(grid):
        matrix = _cosines(field.shape[axis + 1], size).to(field)
        field = torch.movedim(torch.movedim(field, axis + 1, -1) @ matrix.T, -1, axis + 1)
    return field


def _cosines(n: int, m: int) -> Float[Tensor, "m n"]:
    """The interpolation from n to m samples as a matrix."""
    k = torch.arange(min(n, m), dtype=torch.float64)
    weight = torch.where(k == 0, 1.0, 2.0)
    matrix: Tensor = _basis(k, m) * weight / n @ _basis(k, n).T
    return matrix


def _basis(k: Float[Tensor, " k"], size: int) -> Float[Tensor, "size k"]:
    """cos(pi k x) at the centres of `size` voxels."""
    i = torch.arange(size, dtype=torch.float64)[:, None]
    return torch.cos(math.pi * k * (i + 0.5) / size)


def into_air(
    field: Float[Tensor, "B D H W"], tissue: Bool[Tensor, "B D H W"]
) -> Float[Tensor, "B D H W"]:
    """The field in tissue, and elsewhere its value at the nearest voxel of tissue."""
    out = field.clone()
    for b, inside in enumerate(tissue.cpu().numpy()):
        if not inside.all():
            nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
            out[b] = field[b][tuple(torch.from_numpy(nearest).long().to(field.device))]
    return out
