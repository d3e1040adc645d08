"""Layers that more than one network uses."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from physicsnemo.nn import SpectralConv3d
from torch import Tensor, nn

from physics_hybrid.grid import Grid, grid_of

Layer = TypeVar("Layer", bound=nn.Module)


class PrunedSpectralConv3d(SpectralConv3d):  # type: ignore[misc]  # PhysicsNeMo has no types
    """PhysicsNeMo's spectral convolution, same weights and result; only kept modes are computed.

    After the transform of each axis the frequencies that would be thrown away are dropped, so that
    the next axis transforms less; the way back likewise. The four corners of the spectrum are
    multiplied at once, in real arithmetic, as one batched matrix product over modes.

    Stays in float32 under autocast: cuFFT refuses bfloat16 always, and float16 on sizes such as
    96x48x48 (PhysicsNeMo issue 1737).
    """

    def forward(self, x: Float[Tensor, "B I D H W"]) -> Float[Tensor, "B O D H W"]:
        with torch.autocast(x.device.type, enabled=False):
            return self._forward(x.float())

    def _forward(self, x: Float[Tensor, "B I D H W"]) -> Float[Tensor, "B O D H W"]:
        D, H, W = grid_of(x)
        m1, m2, m3 = self.modes1, self.modes2, self.modes3
        y = torch.fft.rfft(x, dim=-1)[..., :m3]
        y = _ends(torch.fft.fft(y, dim=-2), m2, -2)
        y = _ends(torch.fft.fft(y, dim=-3), m1, -3)
        y = self._multiply(y)
        y = torch.fft.ifft(_spread(y, D, m1, -3), dim=-3)
        y = torch.fft.ifft(_spread(y, H, m2, -2), dim=-2)
        back: Tensor = torch.fft.irfft(y, n=W, dim=-1)
        return back

    def _multiply(self, y: Complex[Tensor, "B I M1 M2 M3"]) -> Complex[Tensor, "B O M1 M2 M3"]:
        """sum_i y[b, i, mode] w[i, o, mode]; M1, M2 of either sign, M3 of a half spectrum."""
        shape = y.shape
        low = torch.cat([self.weights1, self.weights3], dim=3)
        high = torch.cat([self.weights2, self.weights4], dim=3)
        w = torch.cat([low, high], dim=2).flatten(2, 4)  # (I, O, modes, 2)
        real, imaginary = w[..., 0].permute(2, 0, 1), w[..., 1].permute(2, 0, 1)
        upper = torch.cat([real, imaginary], dim=2)
        lower = torch.cat([-imaginary, real], dim=2)
        block = torch.cat([upper, lower], dim=1)  # (modes, 2 I, 2 O)
        y = torch.view_as_real(y.flatten(2)).permute(2, 0, 3, 1).flatten(2)  # (modes, B, 2 I)
        out = torch.bmm(y, block)
        out = out.reshape(*out.shape[:2], 2, -1).permute(1, 3, 0, 2).contiguous()
        return torch.view_as_complex(out).reshape(*out.shape[:2], *shape[2:])


def _ends(y: Tensor, m: int, dim: int) -> Tensor:
    """The m lowest non-negative and m negative frequencies of an axis."""
    return torch.cat([y.narrow(dim, 0, m), y.narrow(dim, y.shape[dim] - m, m)], dim=dim)


def _spread(y: Tensor, n: int, m: int, dim: int) -> Tensor:
    """Inverse of `_ends` on an axis of n frequencies: zeros in between."""
    shape = list(y.shape)
    shape[dim] = n - 2 * m
    return torch.cat([y.narrow(dim, 0, m), y.new_zeros(shape), y.narrow(dim, m, m)], dim=dim)


def checked_modes(modes: Sequence[int]) -> list[int]:
    """Three positive whole numbers, or ValueError."""
    if len(modes) != 3 or not all(isinstance(m, int) and m >= 1 for m in modes):
        raise ValueError(
            f"model.backbone.modes must be three whole numbers >= 1 (D, H, W); got {list(modes)}"
        )
    return list(modes)


def check_modes(modes: Sequence[int], grid: Grid, padding: float = 0.0) -> None:
    """Raise ValueError where Fourier modes exceed what a grid holds once it is padded.

    The first two axes keep m positive and m negative frequencies: m <= N / 2; the last is a half
    spectrum: m <= N // 2 + 1. Above that PhysicsNeMo's layer overlaps silently or fails inside
    einsum.
    """
    D, H, W = (n + round(padding * n) for n in grid)
    limits = (D // 2, H // 2, W // 2 + 1)
    for axis, mode, limit in zip("DHW", modes, limits, strict=True):
        if mode > limit:
            raise ValueError(
                f"{mode} Fourier modes along {axis} exceed what the grid {tuple(grid)} holds (at"
                f" most {limit}): lower model.backbone.modes or use a finer grid"
            )


def proportional_padding(
    x: Float[Tensor, "B C D H W"], fraction: float
) -> Float[Tensor, "B C _ _ _"]:
    """Zeros after the end of each spatial axis, `fraction` of its length.

    In proportion to the grid, not in voxels: the padded box is then the same at every resolution.
    Fixed-voxel padding breaks zero-shot super-resolution.
    """
    if fraction == 0:
        return x
    widths: list[int] = []
    for n in reversed(grid_of(x)):
        widths += [0, round(fraction * n)]
    return F.pad(x, widths)


def crop(x: Float[Tensor, "B C D H W"], grid: Grid) -> Float[Tensor, "B C _ _ _"]:
    """The first voxels of each axis: what `proportional_padding` has put behind them goes."""
    return x[..., : grid[0], : grid[1], : grid[2]]


def zero_(layer: Layer) -> Layer:
    """Set all parameters of a layer to zero: a branch that ends in it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
