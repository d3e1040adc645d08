"""A residual U-Net for any grid size, in three dimensions and in two.

Ronneberger et al., MICCAI 2015; residual blocks as in He et al., ECCV 2016.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from physics_hybrid.models.blocks import zero_

#: Convolution by the number of axes, and how a grid is refined along them.
CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
INTERPOLATIONS = {2: "bilinear", 3: "trilinear"}


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))).

    norm is group normalisation; the last convolution is zero at the start.
    """

    #: `training/monitor.py` watches what comes out of such layers.
    monitored = True

    def __init__(self, in_channels: int, out_channels: int, groups: int, axes: int = 3):
        super().__init__()
        convolution = CONVOLUTIONS[axes]
        self.body = nn.Sequential(
            nn.GroupNorm(_groups(groups, in_channels), in_channels),
            nn.SiLU(),
            convolution(in_channels, out_channels, 3, padding=1),
            nn.GroupNorm(_groups(groups, out_channels), out_channels),
            nn.SiLU(),
            zero_(convolution(out_channels, out_channels, 3, padding=1)),
        )
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = convolution(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "B in_channels *grid"]
    ) -> Float[Tensor, "B out_channels *grid"]:
        y: Tensor = self.skip(x) + self.body(x)
        return y


def _groups(wanted: int, channels: int) -> int:
    while channels % wanted:
        wanted -= 1
    return wanted


def _resize(x: Float[Tensor, "B C *grid"], size: Sequence[int]) -> Float[Tensor, "B C *finer"]:
    """Linear to `size`; twice the grid by scale_factor: bitwise the same, and the only form that
    PhysicsNeMo's ShardTensor knows (2.2.2).
    """
    mode = INTERPOLATIONS[x.ndim - 2]
    if list(size) == [2 * n for n in x.shape[2:]]:
        return F.interpolate(x, scale_factor=2, mode=mode, align_corners=False)
    return F.interpolate(x, size=list(size), mode=mode, align_corners=False)


class UNet3D(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """Residual U-Net whose levels halve the grid (rounded up) and double the channels.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Channels at full resolution.
    levels : int
        How often the grid is halved.
    blocks : int
        Residual blocks per level and side.
    groups : int
        Groups of the normalisation (lowered to a divisor of the channels).
    activation_checkpointing : bool
        Recompute blocks in the backward pass: memory for time.

    Forward: x (B, in_channels, D, H, W) -> (B, out_channels, D, H, W), any D, H, W > 2^levels.

    Raises
    ------
    ValueError
        Where a side of the grid is too small to be halved `levels` times.
    """

    #: Axes of the grid.
    axes = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 16,
        levels: int = 3,
        blocks: int = 1,
        groups: int = 8,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        self.levels, self.activation_checkpointing = levels, activation_checkpointing
        convolution = CONVOLUTIONS[self.axes]
        widths = [width * 2**i for i in range(levels + 1)]

        def stage(first: int, rest: int) -> nn.Sequential:
            widths_in = [first] + [rest] * (blocks - 1)
            return nn.Sequential(*(ResidualBlock(w, rest, groups, self.axes) for w in widths_in))

        self.lift = convolution(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(stage(widths[i], widths[i]) for i in range(levels))
        self.shrink = nn.ModuleList(
            convolution(widths[i], widths[i + 1], 3, stride=2, padding=1) for i in range(levels)
        )
        self.bottom = stage(widths[-1], widths[-1])
        self.grow = nn.ModuleList(convolution(widths[i + 1], widths[i], 1) for i in range(levels))
        self.up = nn.ModuleList(stage(2 * widths[i], widths[i]) for i in range(levels))
        self.head = nn.Sequential(
            nn.GroupNorm(_groups(groups, width), width),
            nn.SiLU(),
            zero_(convolution(width, out_channels, 1)),
        )

    def _run(self, stage: nn.Module, x: Float[Tensor, "B C *grid"]) -> Float[Tensor, "B _ *grid"]:
        y: Tensor
        if self.activation_checkpointing and torch.is_grad_enabled():
            y = checkpoint(stage, x, use_reentrant=False)
        else:
            y = stage(x)
        return y

    def check_grid(self, grid: Sequence[int]) -> None:
        if min(grid) <= 2**self.levels:
            raise ValueError(
                f"grid {tuple(grid)} is too small to be halved {self.levels} times (each side needs"
                f" more than {2**self.levels} voxels): lower model.backbone.levels or use a finer"
                " grid"
            )

    def forward(
        self, x: Float[Tensor, "B in_channels *grid"]
    ) -> Float[Tensor, "B out_channels *grid"]:
        self.check_grid(x.shape[2:])
        x = self.lift(x)
        skips = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            x = self._run(stage, x)
            skips.append(x)
            x = shrink(x)
        x = self._run(self.bottom, x)
        for i in reversed(range(self.levels)):
            x = _resize(self.grow[i](x), skips[i].shape[2:])
            x = self._run(self.up[i], torch.cat([x, skips[i]], dim=1))
        y: Tensor = self.head(x)
        return y


class UNet2D(UNet3D):
    """The same on two axes.

    Forward: x (B, in_channels, H, W) -> (B, out_channels, H, W), any H, W > 2^levels.
    """

    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 16,
        levels: int = 3,
        blocks: int = 1,
        groups: int = 8,
        activation_checkpointing: bool = False,
    ):
        super().__init__(
            in_channels,
            out_channels,
            width=width,
            levels=levels,
            blocks=blocks,
            groups=groups,
            activation_checkpointing=activation_checkpointing,
        )


class PlainUNet(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """PhysicsNeMo's U-Net as it is: a rival to measure against.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Channels at full resolution; doubled at each of `levels` halvings of the grid.
    levels : int
        How often the grid is halved.
    blocks : int
        Convolutions a level.

    Forward: x (B, in_channels, D, H, W) -> (B, out_channels, D, H, W).

    Raises
    ------
    ValueError
        Where a side of the grid cannot be halved `levels` times.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 16,
        levels: int = 2,
        blocks: int = 2,
    ):
        from physicsnemo.models.unet import UNet

        super().__init__()
        self.levels = levels
        self.net = UNet(
            in_channels,
            out_channels,
            model_depth=levels + 1,
            feature_map_channels=[width * 2**i for i in range(levels + 1) for _ in range(blocks)],
            num_conv_blocks=blocks,
            gradient_checkpointing=False,
        )

    def check_grid(self, grid: Sequence[int]) -> None:
        step = 2**self.levels
        if any(n % step or n < 2 * step for n in grid):
            raise ValueError(
                f"PhysicsNeMo's U-Net halves the grid {self.levels} times, so each side must be a"
                f" multiple of {step}, and at least {2 * step}; got {tuple(grid)}: lower"
                " model.backbone.levels or use another grid"
            )

    def forward(
        self, x: Float[Tensor, "B in_channels D H W"]
    ) -> Float[Tensor, "B out_channels D H W"]:
        self.check_grid(x.shape[2:])
        y: Tensor = self.net(x)
        return y
