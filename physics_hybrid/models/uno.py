"""A U-shaped neural operator: spectral blocks, half the grid and half the modes at each level.

    lift -> [blocks -> shrink] x levels -> blocks -> [grow, skip -> merge] x levels -> head

U-NO (Rahman, Ross and Azizzadenesheli, TMLR 2023) with a 3-wide convolution beside every spectral
one (U-FNO: Wen et al., Adv. Water Resour. 163 (2022) 104180), and the decoder of a U-Net.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn

from physics_hybrid.models.blocks import (
    BLOCKS,
    Pointwise,
    SpectralBlock,
    check_modes,
    checked_modes,
    crop,
    zero_,
)
from physics_hybrid.models.unet import CONVOLUTIONS

TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


class UNO3D(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """U-shaped operator of residual blocks; the output is zero at the start.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Channels, on all levels.
    depth : int
        Spectral blocks in all: as many on each level and in the bottleneck, which has the rest.
    modes : list of int
        Fourier modes along each axis at full resolution; each level below has half of them.
    levels : int
        How often the grid is halved.
    block : str
        One of `blocks.BLOCKS`.
    kernel_size : int
        Of the convolution beside the spectral one.

    Forward: x (B, in_channels, D, H, W) -> (B, out_channels, D, H, W), of any grid that holds the
    modes.

    Raises
    ------
    ValueError
        Where a grid holds fewer modes than `modes`; fewer blocks than places; no such block.
    """

    #: Axes of the grid.
    axes = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 16,
        depth: int = 4,
        modes: Sequence[int] = (8, 6, 6),
        levels: int = 1,
        block: str = BLOCKS[0],
        kernel_size: int = 3,
    ):
        super().__init__()
        self.modes, self.levels = checked_modes(modes, self.axes), levels
        if depth < levels + 1:
            raise ValueError(
                f"model.backbone.depth={depth} blocks are too few for {levels} levels and a"
                f" bottleneck: at least {levels + 1}"
            )
        share = depth // (levels + 1)
        counts = [share] * levels + [depth - share * levels]

        def stage(level: int) -> nn.Sequential:
            kept = [max(1, m // 2**level) for m in self.modes]
            blocks = (SpectralBlock(width, kept, block, kernel_size) for _ in range(counts[level]))
            return nn.Sequential(*blocks)

        convolution, transposed = CONVOLUTIONS[self.axes], TRANSPOSED[self.axes]
        self.lift = nn.Sequential(Pointwise(in_channels, width), nn.GELU(), Pointwise(width, width))
        self.down = nn.ModuleList(stage(level) for level in range(levels))
        self.shrink = nn.ModuleList(
            convolution(width, width, 3, stride=2, padding=1) for _ in range(levels)
        )
        self.bottom = stage(levels)
        self.grow = nn.ModuleList(transposed(width, width, 2, stride=2) for _ in range(levels))
        self.merge = nn.ModuleList(
            nn.Sequential(convolution(2 * width, width, 3, padding=1), nn.GELU())
            for _ in range(levels)
        )
        self.head = nn.Sequential(
            Pointwise(width, width), nn.GELU(), zero_(Pointwise(width, out_channels))
        )

    def check_grid(self, grid: Sequence[int]) -> None:
        for level in range(self.levels + 1):
            kept = [max(1, m // 2**level) for m in self.modes]
            check_modes(kept, [-(-n // 2**level) for n in grid])

    def forward(
        self, x: Float[Tensor, "B in_channels *grid"]
    ) -> Float[Tensor, "B out_channels *grid"]:
        self.check_grid(x.shape[2:])
        x = self.lift(x.movedim(1, -1))
        skips = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            x = stage(x)
            skips.append(x)
            x = _first(shrink, x)
        x = self.bottom(x)
        for level in reversed(range(self.levels)):
            skip = skips[level]
            x = _first(self.grow[level], x)  # an odd side comes back one longer
            x = crop(x, skip.shape[1:-1])
            x = _first(self.merge[level], torch.cat([x, skip], dim=-1))
        y: Tensor = self.head(x)
        return y.movedim(-1, 1)


def _first(layer: nn.Module, x: Float[Tensor, "B *grid I"]) -> Float[Tensor, "B *other O"]:
    """A layer that has channels first, on a field that has them last."""
    y: Tensor = layer(x.movedim(-1, 1))
    return y.movedim(1, -1)


class UNO2D(UNO3D):
    """The same on two axes.

    Forward: x (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 16,
        depth: int = 4,
        modes: Sequence[int] = (8, 8),
        levels: int = 1,
        block: str = BLOCKS[0],
        kernel_size: int = 3,
    ):
        super().__init__(
            in_channels,
            out_channels,
            width=width,
            depth=depth,
            modes=modes,
            levels=levels,
            block=block,
            kernel_size=kernel_size,
        )
