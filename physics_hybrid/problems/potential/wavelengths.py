"""What an error is made of, by wavelength."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def wavelength_names(edges: Sequence[float]) -> list[str]:
    """Names of the bands between falling wavelengths in metres: longer than the first, ..., shorter
    than the last.
    """
    mm = [f"{1e3 * e:g}" for e in edges]
    return [f"{mm[0]}mm+", *(f"{b}-{a}mm" for a, b in zip(mm, mm[1:])), f"0-{mm[-1]}mm"]


def by_wavelength(
    error: Tensor, truth: Tensor, mask: Tensor, spacing: Tensor, edges: Sequence[float]
) -> dict[str, Tensor]:
    """Relative L2 error in bands of the wavelength 1 / |k|, |k|^2 = k_D^2 + k_H^2 + k_W^2 in cycles
    per metre.

        sqrt( sum_band |FFT(error)|^2 / sum_all |FFT(truth)|^2 )      both fields 0 outside the mask

    Squares of all bands add up to the square of the relative L2 error (Parseval). error, truth,
    mask (B, D, H, W), spacing (B, 3) in m, edges falling, in m -> {name of band: (B,)}.
    """

    def power(field):
        return torch.fft.fftn(torch.where(mask, field, 0.0), dim=(1, 2, 3)).abs() ** 2

    square = 0
    for axis, size in enumerate(error.shape[1:]):
        view = [len(error), 1, 1, 1]
        view[axis + 1] = size
        square = (
            square
            + (
                torch.fft.fftfreq(size, device=error.device).to(error.dtype)
                / spacing[:, axis, None].to(error.dtype)
            ).view(view)
            ** 2
        )
    wrong, total = power(error), power(truth).sum(dim=(1, 2, 3))
    limits = [0.0, *(1 / e**2 for e in edges), math.inf]

    def band(low, high):
        return torch.where((square >= low) & (square < high), wrong, 0.0).sum(dim=(1, 2, 3))

    return {
        name: (band(low, high) / total).sqrt()
        for name, low, high in zip(wavelength_names(edges), limits, limits[1:])
    }
