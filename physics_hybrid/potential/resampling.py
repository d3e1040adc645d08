r"""Fields from one grid to another, and what an error is made of by wavelength.

Voxel centres lie at (i + 1/2) / N of the box on every grid, so that grids of different size line up. Fourier interpolation of a field that does
not repeat rings at the ends of the box; here the field is continued by its mirror image, which turns the Fourier series into one of cosines,

    f(x) = sum_k a_k cos(pi k x),   a_k = (2 - [k = 0]) / N sum_i f_i cos(pi k (i + 1/2) / N),   k < min(N, M),

exact for every field that N samples can tell (Strang, The discrete cosine transform, SIAM Review 41 (1999) 135).
"""

from __future__ import annotations

import math
from typing import Sequence

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

Grid = tuple[int, int, int]


def trilinear(field: Tensor, tissue: Tensor, grid: Grid) -> Tensor:
    """Trilinear interpolation of a field (B, D, H, W) to another grid; air does not count as 0."""
    resize = lambda f: F.interpolate(f[:, None].float(), size=grid, mode="trilinear", align_corners=False)[:, 0]
    weight = resize(tissue)
    return resize(field * tissue) / weight.clamp_min(1e-6)


def cosine(field: Tensor, tissue: Tensor, grid: Grid) -> Tensor:
    """Fourier interpolation of a field (B, D, H, W) continued by its mirror image; voxels in air take the value of the nearest tissue."""
    field = into_air(field, tissue)
    for axis, size in enumerate(grid):
        matrix = _cosines(field.shape[axis + 1], size).to(field)
        field = torch.movedim(torch.movedim(field, axis + 1, -1) @ matrix.T, -1, axis + 1)
    return field


def _cosines(n: int, m: int) -> Tensor:
    """The interpolation from n to m samples as a matrix (m, n)."""
    k = torch.arange(min(n, m), dtype=torch.float64)
    basis = lambda size: torch.cos(math.pi * k * (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) / size)
    return basis(m) * torch.where(k == 0, 1.0, 2.0) / n @ basis(n).T


def into_air(field: Tensor, tissue: Tensor) -> Tensor:
    """The field in tissue, and elsewhere its value at the nearest voxel of tissue. (B, D, H, W)"""
    out = field.clone()
    for b, inside in enumerate(tissue.cpu().numpy()):
        if not inside.all():
            nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
            out[b] = field[b][tuple(torch.from_numpy(nearest).long().to(field.device))]
    return out


def wavelength_names(edges: Sequence[float]) -> list[str]:
    """Names of the bands between falling wavelengths in metres: longer than the first, ..., shorter than the last."""
    mm = [f"{1e3 * e:g}" for e in edges]
    return [f"{mm[0]}mm+", *(f"{b}-{a}mm" for a, b in zip(mm, mm[1:])), f"0-{mm[-1]}mm"]


def by_wavelength(error: Tensor, truth: Tensor, mask: Tensor, spacing: Tensor, edges: Sequence[float]) -> dict[str, Tensor]:
    """Relative L2 error in bands of the wavelength 1 / |k|, |k|^2 = k_D^2 + k_H^2 + k_W^2 in cycles per metre.

        sqrt( sum_band |FFT(error)|^2 / sum_all |FFT(truth)|^2 )      both fields 0 outside the mask

    Squares of all bands add up to the square of the relative L2 error (Parseval). error, truth, mask (B, D, H, W), spacing (B, 3) in m, edges
    falling, in m -> {name of band: (B,)}.
    """
    power = lambda field: torch.fft.fftn(torch.where(mask, field, 0.0), dim=(1, 2, 3)).abs() ** 2
    square = 0
    for axis, size in enumerate(error.shape[1:]):
        view = [len(error), 1, 1, 1]
        view[axis + 1] = size
        square = square + (torch.fft.fftfreq(size, device=error.device).to(error.dtype) / spacing[:, axis, None].to(error.dtype)).view(view) ** 2
    wrong, total = power(error), power(truth).sum(dim=(1, 2, 3))
    limits = [0.0, *(1 / e**2 for e in edges), math.inf]
    band = lambda low, high: torch.where((square >= low) & (square < high), wrong, 0.0).sum(dim=(1, 2, 3))
    return {name: (band(low, high) / total).sqrt() for name, low, high in zip(wavelength_names(edges), limits, limits[1:])}
