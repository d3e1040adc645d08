"""Layers that more than one network uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from physicsnemo.nn import SpectralConv3d
from torch import Tensor, nn

from physics_hybrid.grid import Grid


class PrunedSpectralConv3d(SpectralConv3d):
    """PhysicsNeMo's spectral convolution with the same weights and result, but only the kept modes
    are computed.

    After the transform of each axis the frequencies that would be thrown away are dropped, so that
    the next axis transforms less; the way back likewise. The four corners of the spectrum are
    multiplied at once, in real arithmetic, as one batched matrix product over modes.

    Stays in float32 under autocast: cuFFT refuses bfloat16 always, and float16 on sizes such as
    96x48x48 (PhysicsNeMo issue 1737).
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._forward(x.float())

    def _forward(self, x: Tensor) -> Tensor:
        D, H, W = x.shape[-3:]
        m1, m2, m3 = self.modes1, self.modes2, self.modes3
        y = torch.fft.rfft(x, dim=-1)[..., :m3]
        y = _ends(torch.fft.fft(y, dim=-2), m2, -2)
        y = _ends(torch.fft.fft(y, dim=-3), m1, -3)
        y = self._multiply(y)
        y = torch.fft.ifft(_spread(y, D, m1, -3), dim=-3)
        y = torch.fft.ifft(_spread(y, H, m2, -2), dim=-2)
        return torch.fft.irfft(y, n=W, dim=-1)

    def _multiply(self, y: Tensor) -> Tensor:
        """sum_i y[b, i, mode] w[i, o, mode] for complex y (B, I, 2 m1, 2 m2, m3)."""
        shape = y.shape
        low = torch.cat([self.weights1, self.weights3], dim=3)
        high = torch.cat([self.weights2, self.weights4], dim=3)
        w = torch.cat([low, high], dim=2).flatten(2, 4)  # (I, O, modes, 2)
        real, imaginary = w[..., 0].permute(2, 0, 1), w[..., 1].permute(2, 0, 1)
        # (modes, 2 I, 2 O)
        block = torch.cat(
            [torch.cat([real, imaginary], dim=2), torch.cat([-imaginary, real], dim=2)], dim=1
        )
        y = torch.view_as_real(y.flatten(2)).permute(2, 0, 3, 1).flatten(2)  # (modes, B, 2 I)
        out = torch.bmm(y, block).unflatten(2, (2, -1)).permute(1, 3, 0, 2).contiguous()
        return torch.view_as_complex(out).unflatten(2, shape[2:])


def _ends(y: Tensor, m: int, dim: int) -> Tensor:
    """The m lowest non-negative and m negative frequencies of an axis."""
    return torch.cat([y.narrow(dim, 0, m), y.narrow(dim, y.shape[dim] - m, m)], dim=dim)


def _spread(y: Tensor, n: int, m: int, dim: int) -> Tensor:
    """Inverse of `_ends` on an axis of n frequencies: zeros in between."""
    shape = list(y.shape)
    shape[dim] = n - 2 * m
    return torch.cat([y.narrow(dim, 0, m), y.new_zeros(shape), y.narrow(dim, m, m)], dim=dim)


def checked_modes(modes: list[int]) -> list[int]:
    """Three positive whole numbers, or ValueError."""
    if len(modes) != 3 or not all(isinstance(m, int) and m >= 1 for m in modes):
        raise ValueError(
            f"model.backbone.modes must be three whole numbers >= 1 (D, H, W); got {list(modes)}"
        )
    return list(modes)


def check_modes(modes: list[int], grid: Grid, padding: float = 0.0) -> None:
    """Raise ValueError where Fourier modes exceed what a grid holds once it is padded.

    The first two axes keep m positive and m negative frequencies: m <= N / 2; the last is a half
    spectrum: m <= N // 2 + 1. Above that PhysicsNeMo's layer overlaps silently or fails inside
    einsum.
    """
    D, H, W = (n + round(padding * n) for n in grid)
    limits = (D // 2, H // 2, W // 2 + 1)
    for axis, mode, limit in zip("DHW", modes, limits):
        if mode > limit:
            raise ValueError(
                f"{mode} Fourier modes along {axis} exceed what the grid {tuple(grid)} holds (at"
                f" most {limit}): lower model.backbone.modes or use a finer grid"
            )


def proportional_padding(x: Tensor, fraction: float) -> Tensor:
    """Zeros after the end of each spatial axis, `fraction` of its length.

    In proportion to the grid, not in voxels: the padded box is then the same at every resolution.
    Fixed-voxel padding breaks zero-shot super-resolution.
    """
    if fraction == 0:
        return x
    widths: list[int] = []
    for n in reversed(x.shape[-3:]):
        widths += [0, round(fraction * n)]
    return F.pad(x, widths)


def crop(x: Tensor, grid: Grid) -> Tensor:
    return x[..., : grid[0], : grid[1], : grid[2]]


def zero_(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to zero: a branch that ends in it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
