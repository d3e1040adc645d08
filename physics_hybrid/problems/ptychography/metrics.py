"""How far a reconstruction is from the truth, on the amplitude and on the phase.

One phase and one scale of the amplitude are taken out first (`physics.assemble.aligned`): no far
field tells them. Phases are compared round the circle.
"""

import numpy as np
import torch
from jaxtyping import Complex
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from physics_hybrid.problems.ptychography.data.scan import Scan
from physics_hybrid.problems.ptychography.losses import misfit
from physics_hybrid.problems.ptychography.physics.assemble import aligned, interior

#: Smallest largest phase of an object that has one.
FLAT = 1e-9
AMPLITUDE = (
    ("amplitude_mae", "MAE of amplitude"),
    ("amplitude_ssim", "SSIM of amplitude"),
    ("amplitude_psnr", "PSNR of amplitude, dB"),
)
PHASE = (
    ("phase_mae", "MAE of phase, rad"),
    ("phase_ssim", "SSIM of phase"),
    ("phase_psnr", "PSNR of phase, dB"),
)
MISFIT = (("misfit", "misfit of far fields"), ("seconds", "s"))


def has_phase(truth: Complex[Tensor, "H W"]) -> bool:
    """Whether an object has another phase than 0 somewhere."""
    return bool(torch.angle(truth).abs().max() > FLAT)


def amplitude_errors(
    found: Complex[Tensor, "H W"], truth: Complex[Tensor, "H W"]
) -> dict[str, float]:
    """MAE, SSIM and PSNR of |O|, in units of its mean."""
    unit = float(truth.abs().mean())
    errors = _compared((found.abs() / unit).numpy(), (truth.abs() / unit).numpy())
    return {f"amplitude_{name}": value for name, value in errors.items()}


def phase_errors(found: Complex[Tensor, "H W"], truth: Complex[Tensor, "H W"]) -> dict[str, float]:
    """MAE (rad), SSIM and PSNR of the phase.

    Raises
    ------
    ValueError
        The object has no phase: a number would mean nothing.
    """
    if not has_phase(truth):
        raise ValueError(
            "the true object has no phase, so that its errors mean nothing: use"
            " data.set_phase=true, or leave phase metrics out"
        )
    true = torch.angle(truth)
    turned = true + torch.angle(found * truth.conj())
    errors = _compared(turned.numpy(), true.numpy())
    return {f"phase_{name}": value for name, value in errors.items()}


def _compared(found: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, float]:
    """MAE, SSIM and PSNR; the range of the truth is the largest value that there is.

    Source
    ------
    Wang et al., IEEE Trans. Image Process. 13 (2004) 600, eq. 13, windows of 7 pixels.
    """
    difference = found.astype(np.float64) - truth
    extent = float(truth.max() - truth.min())
    error = max(float((difference**2).mean()), 1e-30)
    ssim = structural_similarity(truth, found, data_range=extent)  # type: ignore[no-untyped-call]
    return {
        "mae": float(np.abs(difference).mean()),
        "ssim": float(ssim),
        "psnr": float(10 * np.log10(extent**2 / error)),
    }


def compare(found: Complex[Tensor, "H W"], scan: Scan) -> dict[str, float]:
    """Misfit, and where the truth is known errors of amplitude and phase inside the scan."""
    row = {"misfit": misfit(scan.expected(found), scan.amplitude)}
    if scan.truth is None:
        return row
    inside = interior(scan.positions, len(scan.probe))
    truth = scan.truth[inside].cpu()
    ours = aligned(found[inside].cpu(), truth)
    row |= amplitude_errors(ours, truth)
    if has_phase(truth):
        row |= phase_errors(ours, truth)
    return row
