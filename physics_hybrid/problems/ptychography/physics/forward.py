"""The forward model: what a detector in the far field records.

    A_j(k) = | F[P(r) O(r + r_j)](k) |,    counts_j ~ Poisson((s A_j)^2)

F is the unitary discrete Fourier transform, zero frequency in the middle, so that
sum A_j^2 = sum |P O|^2 (Parseval).
"""

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor


def far_field(exit_wave: Complex[Tensor, "*frames N N"]) -> Complex[Tensor, "*frames N N"]:
    """The unitary DFT of each frame, zero frequency at [N // 2, N // 2]."""
    wave: Tensor = torch.fft.fftshift(torch.fft.fft2(exit_wave, norm="ortho"), dim=(-2, -1))
    return wave


def near_field(wave: Complex[Tensor, "*frames N N"]) -> Complex[Tensor, "*frames N N"]:
    """The inverse of `far_field`."""
    exit_wave: Tensor = torch.fft.ifft2(torch.fft.ifftshift(wave, dim=(-2, -1)), norm="ortho")
    return exit_wave


def amplitude(
    probe: Complex[Tensor, "N N"], patch: Complex[Tensor, "*frames N N"]
) -> Float[Tensor, "*frames N N"]:
    """A of patches of the object, each as large as the probe.

    Source
    ------
    Maiden and Rodenburg, Ultramicroscopy 109 (2009) 1256, eq. 1.

    Examples
    --------
    >>> one = torch.ones(4, 4, dtype=torch.complex64)
    >>> amplitude(one, one)[2, 2].item()
    4.0
    """
    return far_field(probe * patch).abs()


def patches(
    whole: Complex[Tensor, "H W"], positions: Int[Tensor, "frames 2"], size: int
) -> Complex[Tensor, "frames {size} {size}"]:
    """O(r + r_j): the frames of `size` pixels whose first corner is at each position."""
    rows, columns = windows(positions, size)
    return whole[rows, columns]


def windows(
    positions: Int[Tensor, "frames 2"], size: int
) -> tuple[Int[Tensor, "frames {size} 1"], Int[Tensor, "frames 1 {size}"]]:
    """Rows and columns of the pixels of each frame, to index an object with."""
    offset = torch.arange(size, device=positions.device)
    return (positions[:, :1] + offset)[:, :, None], (positions[:, 1:] + offset)[:, None]


def photon_scale(amplitudes: NDArray[np.float64], photons: float) -> float:
    """s, with which the brightest frame has `photons` in all: s^2 max_j sum A_j^2 = photons."""
    brightest = (amplitudes**2).sum(axis=(1, 2)).max()
    return float(np.sqrt(photons / brightest))


def detected(
    amplitudes: NDArray[np.float64], scale: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """sqrt(counts) / s of counts ~ Poisson((s A)^2)."""
    counts = rng.poisson((scale * amplitudes) ** 2)
    out: NDArray[np.float64] = np.sqrt(counts) / scale
    return out
