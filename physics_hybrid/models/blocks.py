"""Layers that more than one network uses, and the residual blocks that deep networks are made of.

    zero_linear     y = x + V GELU(S x),       V = 0 at the start
    post_gelu       y = x + GELU(S x)
    norm_last_zero  y = x + Norm(GELU(S x)),   gain 0 at the start
    norm_last_one   y = x + Norm(GELU(S x)),   gain 1
    layerscale      y = x + l * GELU(S x),     l = 0.1 in each channel
    rezero          y = x + a GELU(S x),       a = 0 at the start
    pre_norm        y = x + GELU(S Norm(x))

with S x = K x + W x + b, K a spectral convolution, W a convolution beside it. GELU has a positive
mean: what `post_gelu` adds at every block does not cancel, and activations grow with depth.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from physics_hybrid.checks import among
from physics_hybrid.models.spectral import SpectralConv2d, SpectralConv3d

Layer = TypeVar("Layer", bound=nn.Module)


class Pointwise(nn.Conv3d):
    """A convolution of one voxel, for fields whose channels lie last: one matrix product.

    Forward: x (B, grid, in) -> (B, grid, out); a grid has any number of axes.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "B *grid I"]) -> Float[Tensor, "B *grid O"]:
        return F.linear(x, self.weight.flatten(1), self.bias)

    def product(self, x: Float[Tensor, "B *grid I"]) -> Float[Tensor, "B *grid O"]:
        """Without the bias."""
        return F.linear(x, self.weight.flatten(1))


class Local2d(nn.Conv2d):
    """A convolution of several pixels, for fields whose channels lie last.

    Forward: x (B, H, W, in) -> (B, H, W, out).
    """

    def forward(self, x: Float[Tensor, "B H W I"]) -> Float[Tensor, "B H W O"]:
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)

    def product(self, x: Float[Tensor, "B H W I"]) -> Float[Tensor, "B H W O"]:
        """Without the bias."""
        return F.conv2d(x.movedim(-1, 1), self.weight, padding=self.padding).movedim(1, -1)


class Local3d(nn.Conv3d):
    """A convolution of several voxels, for fields whose channels lie last.

    Forward: x (B, D, H, W, in) -> (B, D, H, W, out).
    """

    def forward(self, x: Float[Tensor, "B D H W I"]) -> Float[Tensor, "B D H W O"]:
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)

    def product(self, x: Float[Tensor, "B D H W I"]) -> Float[Tensor, "B D H W O"]:
        """Without the bias."""
        return F.conv3d(x.movedim(-1, 1), self.weight, padding=self.padding).movedim(1, -1)


# --- residual blocks

#: What `model.backbone.block` may be; the first is the default.
BLOCKS = (
    "zero_linear",
    "post_gelu",
    "norm_last_zero",
    "norm_last_one",
    "layerscale",
    "rezero",
    "pre_norm",
)
#: Those that are the identity at the start.
IDENTITIES = ("zero_linear", "norm_last_zero", "rezero")
#: Layer scale at the start: that of Touvron et al. up to 18 blocks.
LAYER_SCALE = 0.1


class Norm(nn.Module):
    """gain (x - mean) / std + shift, mean and std over all of a sample, gain and shift by channel.

    Group normalisation of one group (Wu and He, ECCV 2018, eq. 7), for channels that lie last. One
    group: normalised channel by channel, a field that is constant would be lost.

    Forward: x (B, grid, C) -> the same shape.
    """

    def __init__(self, width: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), gain))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "B *grid C"]) -> Float[Tensor, "B *grid C"]:
        return F.layer_norm(x, x.shape[1:]) * self.weight + self.bias


class Scale(nn.Module):
    """s x, s a number, or one for each channel. Forward: x (B, grid, C) -> the same shape."""

    def __init__(self, shape: tuple[int, ...], start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full(shape, start))

    def forward(self, x: Float[Tensor, "B *grid C"]) -> Float[Tensor, "B *grid C"]:
        return x * self.weight


class SpectralBlock(nn.Module):
    """One of `BLOCKS`, on a field whose channels lie last.

    Parameters
    ----------
    width : int
        Channels.
    modes : sequence of 2 or 3 int
        Fourier modes; as many as the grid has axes.
    block : str
        Where the branch is held down, see the module.
    kernel_size : int
        Of W, the convolution beside the spectral one.

    Forward: x (B, grid, width) -> the same shape.

    Raises
    ------
    ValueError
        No such block.

    Source
    ------
    zero_linear: Zhang, Dauphin and Ma, Fixup, ICLR 2019, section 3. norm_last_zero: Goyal et al.,
    arXiv:1706.02677 (2017), section 5.1. layerscale: Touvron et al., ICCV 2021, eq. 5. rezero:
    Bachlechner et al., UAI 2021, eq. 2. pre_norm: He et al., ECCV 2016, section 4.1.

    Examples
    --------
    >>> x = torch.randn(1, 16, 16, 4)
    >>> bool((SpectralBlock(4, (3, 3), "rezero")(x) == x).all())
    True
    """

    #: `training/monitor.py` watches what comes out of such layers.
    monitored = True

    def __init__(
        self,
        width: int,
        modes: Sequence[int],
        block: str = BLOCKS[0],
        kernel_size: int = 1,
    ) -> None:
        super().__init__()
        among(BLOCKS, "model.backbone.block", block)
        self.before = Norm(width) if block == "pre_norm" else nn.Identity()
        self.spectral = spectral_convolution(width, modes)
        self.pointwise = _beside(width, len(modes), kernel_size)
        self.activation = nn.GELU()
        self.out = _tail(block, width)

    def forward(self, x: Float[Tensor, "B *grid C"]) -> Float[Tensor, "B *grid C"]:
        inside: Tensor = self.before(x)
        there = self.pointwise.product(inside)
        both: Tensor = self.spectral(inside, add=there, bias=self.pointwise.bias)
        correction: Tensor = self.out(self.activation(both))
        return x + correction


def spectral_convolution(width: int, modes: Sequence[int]) -> SpectralConv2d | SpectralConv3d:
    """Of two or of three axes, as there are modes."""
    if len(modes) == 2:
        return SpectralConv2d(width, width, modes)
    return SpectralConv3d(width, width, modes)


def _beside(width: int, axes: int, kernel_size: int) -> Pointwise | Local2d | Local3d:
    if kernel_size == 1:
        return Pointwise(width, width)
    local = Local2d if axes == 2 else Local3d
    return local(width, width, kernel_size, padding=kernel_size // 2)


def _tail(block: str, width: int) -> nn.Module:
    """What stands between the activation and the sum."""
    if block == "zero_linear":
        return zero_(Pointwise(width, width))
    if block == "norm_last_zero":
        return Norm(width, gain=0.0)
    if block == "norm_last_one":
        return Norm(width)
    if block == "layerscale":
        return Scale((width,), LAYER_SCALE)
    if block == "rezero":
        return Scale((), 0.0)
    return nn.Identity()


# --- grids

#: Names of the axes of a grid, by how many it has.
AXES = {2: "HW", 3: "DHW"}


def checked_modes(modes: Sequence[int], axes: int = 3) -> list[int]:
    """Positive whole numbers, one for each axis, or ValueError."""
    if len(modes) != axes or not all(isinstance(m, int) and m >= 1 for m in modes):
        count = {2: "two", 3: "three"}[axes]
        raise ValueError(
            f"model.backbone.modes must be {count} whole numbers >= 1 ({', '.join(AXES[axes])});"
            f" got {list(modes)}"
        )
    return list(modes)


def check_modes(modes: Sequence[int], grid: Sequence[int], padding: float = 0.0) -> None:
    """Raise ValueError where Fourier modes exceed what a grid holds once it is padded.

    All axes but the last keep m positive and m negative frequencies: m <= N / 2; the last is a half
    spectrum: m <= N // 2 + 1. Above that PhysicsNeMo's layer overlaps silently or fails inside
    einsum.
    """
    *whole, last = (n + round(padding * n) for n in grid)
    limits = [*(n // 2 for n in whole), last // 2 + 1]
    for axis, mode, limit in zip(AXES[len(grid)], modes, limits, strict=True):
        if mode > limit:
            raise ValueError(
                f"{mode} Fourier modes along {axis} exceed what the grid {tuple(grid)} holds (at"
                f" most {limit}): lower model.backbone.modes or use a finer grid"
            )


def proportional_padding(
    x: Float[Tensor, "B *grid C"], fraction: float
) -> Float[Tensor, "B *larger C"]:
    """Zeros after the end of each spatial axis, `fraction` of its length.

    In proportion to the grid, not in voxels: the padded box is then the same at every resolution.
    Fixed-voxel padding breaks zero-shot super-resolution.
    """
    if fraction == 0:
        return x
    widths = [0, 0]  # torch counts from the last axis, the channels
    for n in reversed(x.shape[1:-1]):
        widths += [0, round(fraction * n)]
    return F.pad(x, widths)


def crop(x: Float[Tensor, "B *larger C"], grid: Sequence[int]) -> Float[Tensor, "B *grid C"]:
    """The first voxels of each axis: what `proportional_padding` has put behind them goes."""
    return x[(slice(None), *(slice(n) for n in grid))]


def zero_(layer: Layer) -> Layer:
    """Set all parameters of a layer to zero: a branch that ends in it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
