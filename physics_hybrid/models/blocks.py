"""Layers that more than one network uses."""

from collections.abc import Sequence
from typing import TypeVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from physics_hybrid.grid import Grid

Layer = TypeVar("Layer", bound=nn.Module)


class Pointwise(nn.Conv3d):
    """A convolution of one voxel, for fields whose channels lie last: one matrix product.

    Forward: x (B, D, H, W, in) -> (B, D, H, W, out).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "B D H W I"]) -> Float[Tensor, "B D H W O"]:
        return F.linear(x, self.weight.flatten(1), self.bias)

    def product(self, x: Float[Tensor, "B D H W I"]) -> Float[Tensor, "B D H W O"]:
        """Without the bias."""
        return F.linear(x, self.weight.flatten(1))


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
    x: Float[Tensor, "B D H W C"], fraction: float
) -> Float[Tensor, "B _ _ _ C"]:
    """Zeros after the end of each spatial axis, `fraction` of its length.

    In proportion to the grid, not in voxels: the padded box is then the same at every resolution.
    Fixed-voxel padding breaks zero-shot super-resolution.
    """
    if fraction == 0:
        return x
    D, H, W = (round(fraction * n) for n in x.shape[1:4])
    return F.pad(x, [0, 0, 0, W, 0, H, 0, D])


def crop(x: Float[Tensor, "B D H W C"], grid: Grid) -> Float[Tensor, "B _ _ _ C"]:
    """The first voxels of each axis: what `proportional_padding` has put behind them goes."""
    D, H, W = grid
    return x[:, :D, :H, :W]


def zero_(layer: Layer) -> Layer:
    """Set all parameters of a layer to zero: a branch that ends in it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
