"""What an error is made of, by wavelength."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.grid import along


def wavelength_names(edges: Sequence[float]) -> list[str]:
    """Names of the bands between falling wavelengths in metres: longer than the first, ..., shorter
    than the last.
    """
    mm = [f"{1e3 * e:g}" for e in edges]
    between = [f"{short}-{long}mm" for long, short in itertools.pairwise(mm)]
    return [f"{mm[0]}mm+", *between, f"0-{mm[-1]}mm"]


def by_wavelength(
    error: Float[Tensor, "B D H W"],
    truth: Float[Tensor, "B D H W"],
    mask: Bool[Tensor, "B D H W"],
    spacing: Float[Tensor, "B 3"],
    edges: Sequence[float],
) -> dict[str, Float[Tensor, " B"]]:
    """Relative L2 error in bands of the wavelength 1 / |k|, |k|^2 = k_D^2 + k_H^2 + k_W^2 in cycles
    per metre.

        sqrt( sum_band |FFT(error)|^2 / sum_all |FFT(truth)|^2 )      both fields 0 outside the mask

    Squares of all bands add up to the square of the relative L2 error (Parseval). Edges fall, in m;
    so is spacing.
    """
    square = _square_frequency(error, spacing.to(error.dtype))
    wrong, total = _power(error, mask), _power(truth, mask).sum(dim=(1, 2, 3))
    limits = [0.0, *(1 / edge**2 for edge in edges), math.inf]
    bands = {}
    for name, (low, high) in zip(wavelength_names(edges), itertools.pairwise(limits), strict=True):
        inside = (square >= low) & (square < high)
        band = torch.where(inside, wrong, 0.0).sum(dim=(1, 2, 3))
        bands[name] = (band / total).sqrt()
    return bands


def _power(
    field: Float[Tensor, "B D H W"], mask: Bool[Tensor, "B D H W"]
) -> Float[Tensor, "B D H W"]:
    """|FFT|^2 of a field that is 0 outside the mask."""
    power: Tensor = torch.fft.fftn(torch.where(mask, field, 0.0), dim=(1, 2, 3)).abs() ** 2
    return power


def _square_frequency(
    field: Float[Tensor, "B D H W"], spacing: Float[Tensor, "B 3"]
) -> Float[Tensor, "B D H W"]:
    """|k|^2 of the coefficients of a field, 1/m^2."""
    square = field.new_zeros(())
    for axis, size in enumerate(field.shape[1:]):
        cycles = torch.fft.fftfreq(size, device=field.device).to(field.dtype)
        square = square + along(cycles / spacing[:, axis, None], axis) ** 2
    return square
