"""Layers that more than one network uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from physicsnemo.nn import SpectralConv3d
from torch import Tensor, nn


class Float32SpectralConv3d(SpectralConv3d):
    """PhysicsNeMo's spectral convolution, kept in float32 under autocast.

    cuFFT refuses bfloat16 always, and float16 on sizes such as 96x48x48 (PhysicsNeMo issue 1737).
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def check_modes(modes: list[int], grid: tuple[int, int, int]) -> None:
    """Raise ValueError where Fourier modes exceed what a (padded) grid holds.

    The first two axes keep m positive and m negative frequencies: m <= N / 2; the last is a half spectrum:
    m <= N // 2 + 1. Above that PhysicsNeMo's layer overlaps silently or fails inside einsum.
    """
    limits = (grid[0] // 2, grid[1] // 2, grid[2] // 2 + 1)
    for axis, mode, limit in zip("DHW", modes, limits):
        if mode > limit:
            raise ValueError(
                f"{mode} Fourier modes along {axis} exceed what the grid {tuple(grid)} holds (at most {limit}): "
                "lower model.backbone.modes or use a finer grid"
            )


def proportional_padding(x: Tensor, fraction: float) -> Tensor:
    """Zeros after the end of each spatial axis, `fraction` of its length.

    In proportion to the grid, not in voxels: the padded box is then the same at every resolution. Fixed-voxel
    padding breaks zero-shot super-resolution.
    """
    if fraction == 0:
        return x
    widths: list[int] = []
    for n in reversed(x.shape[-3:]):
        widths += [0, round(fraction * n)]
    return F.pad(x, widths)


def crop(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    return x[..., : grid[0], : grid[1], : grid[2]]


def zero_(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to zero: a branch that ends in it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
