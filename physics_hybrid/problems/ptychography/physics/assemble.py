"""One object from patches that overlap, and what of an object no far field tells.

O(r) = sum_j |P(r - r_j)|^2 o_j(r - r_j) / sum_j |P(r - r_j)|^2
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from physics_hybrid.problems.ptychography.physics.forward import windows

#: Share of the most illuminated pixel's light below which a pixel counts as dark.
DARK = 1e-6


def assemble(
    patch: Complex[Tensor, "frames N N"],
    probe: Complex[Tensor, "N N"],
    positions: Int[Tensor, "frames 2"],
    shape: tuple[int, int],
) -> Complex[Tensor, "H W"]:
    """The mean of overlapping patches, weighted by the light of the probe; 1 where it is dark."""
    light = probe.abs() ** 2
    rows, columns = windows(positions, len(probe))
    place = (rows * shape[1] + columns).flatten()
    weighted = torch.view_as_real(light * patch).reshape(-1, 2)
    total = weighted.new_zeros(shape[0] * shape[1], 2).index_add_(0, place, weighted)
    weight = illumination(probe, positions, shape).flatten()
    seen = weight > DARK * weight.max()
    mean = torch.view_as_complex(total) / weight.clamp_min(1e-30)
    return torch.where(seen, mean, torch.ones_like(mean)).reshape(shape)


def in_phase(
    patch: Complex[Tensor, "frames N N"],
    probe: Complex[Tensor, "N N"],
    positions: Int[Tensor, "frames 2"],
    shape: tuple[int, int],
    sweeps: int = 50,
) -> Complex[Tensor, "frames N N"]:
    """Patches turned by one phase each, so that they agree where they overlap.

    o_j <- o_j exp(i arg sum |P|^2 o_j* O),  O assembled,  again and again: no far field tells the
    phase of its patch. (Singer, Appl. Comput. Harmon. Anal. 30 (2011) 20, by power iteration.)
    """
    light = probe.abs() ** 2
    rows, columns = windows(positions, len(probe))
    for _ in range(sweeps):
        whole = assemble(patch, probe, positions, shape)
        overlap = (light * patch.conj() * whole[rows, columns]).sum(dim=(1, 2))
        patch = patch * torch.sgn(overlap)[:, None, None]
    return patch


def illumination(
    probe: Complex[Tensor, "N N"], positions: Int[Tensor, "frames 2"], shape: tuple[int, int]
) -> Float[Tensor, "H W"]:
    """sum_j |P(r - r_j)|^2."""
    rows, columns = windows(positions, len(probe))
    place = (rows * shape[1] + columns).flatten()
    light = (probe.abs() ** 2).expand(len(positions), -1, -1).flatten()
    return light.new_zeros(shape[0] * shape[1]).index_add_(0, place, light).reshape(shape)


def interior(positions: Int[Tensor, "frames 2"], size: int) -> tuple[slice, slice]:
    """The rectangle between the centres of the outermost frames: all of it is illuminated."""
    first, last = positions.amin(dim=0) + size // 2, positions.amax(dim=0) + size // 2
    (top, left), (bottom, right) = first.tolist(), last.tolist()
    return slice(top, bottom), slice(left, right)


def aligned(found: Complex[Tensor, "H W"], truth: Complex[Tensor, "H W"]) -> Complex[Tensor, "H W"]:
    """An object without what no measurement tells: one phase, and one scale of the amplitude.

    The phase is that of <found, truth>; the scale makes |found| closest to |truth|.
    """
    phase = torch.angle((found.conj() * truth).sum())
    scale = (found.abs() * truth.abs()).sum() / found.abs().square().sum().clamp_min(1e-30)
    return found * torch.polar(scale, phase)
