"""Fourier neural operators: PhysicsNeMo's own, and a residual one on a spectral convolution
of the same modes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from physics_hybrid.grid import Grid, grid_of
from physics_hybrid.models.blocks import (
    BLOCKS,
    Pointwise,
    SpectralBlock,
    check_modes,
    checked_modes,
    crop,
    proportional_padding,
    zero_,
)
from physics_hybrid.models.spectral import ChannelsFirst


class PlainFNO(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """PhysicsNeMo's FNO (Li et al., ICLR 2021) for volumes, usable on any grid and under autocast.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Latent channels.
    depth : int
        Spectral layers.
    modes : list of 3 int
        Fourier modes kept along D, H, W.
    padding : float
        Zeros after each axis as a fraction of its length; 0 for none.
    decoder_layers, decoder_width : int
        Pointwise decoder.

    Forward: x (B, in_channels, D, H, W) -> (B, out_channels, D, H, W).

    Raises
    ------
    ValueError
        Where the grid holds fewer modes than `modes`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 24,
        depth: int = 4,
        modes: Sequence[int] = (8, 6, 6),
        padding: float = 0.0,
        decoder_layers: int = 1,
        decoder_width: int = 32,
    ):
        # here: the import takes 8 s of a processor, and our own FNO does without
        from physicsnemo.models.fno import FNO as PhysicsNeMoFNO

        super().__init__()
        self.modes, self.padding = checked_modes(modes), padding
        self.net = PhysicsNeMoFNO(
            in_channels,
            out_channels,
            decoder_layers=decoder_layers,
            decoder_layer_size=decoder_width,
            dimension=3,
            latent_channels=width,
            num_fno_layers=depth,
            num_fno_modes=self.modes,
            padding=0,
            coord_features=False,
        )
        layers = self.net.spec_encoder.spconv_layers
        for i in range(len(layers)):
            layers[i] = ChannelsFirst(width, width, self.modes)

    def check_grid(self, grid: Grid) -> None:
        check_modes(self.modes, grid, self.padding)

    def forward(
        self, x: Float[Tensor, "B in_channels D H W"]
    ) -> Float[Tensor, "B out_channels D H W"]:
        grid = grid_of(x)
        self.check_grid(grid)
        x = proportional_padding(x.movedim(1, -1), self.padding)
        y: Tensor = self.net(x.movedim(-1, 1))
        return crop(y.movedim(1, -1), grid).movedim(-1, 1)


class ResidualFNO(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """FNO of residual blocks (`blocks.BLOCKS`), channels last inside (`spectral.py`).

    The output is zero at the start.

    Parameters as `PlainFNO`; activation_checkpointing trades a second forward pass for the memory
    of all blocks but one; block is one of `BLOCKS`.

    Forward: x (B, in_channels, D, H, W) -> (B, out_channels, D, H, W).

    Raises
    ------
    ValueError
        Where the grid holds fewer modes than `modes`; no such block.
    """

    #: Axes of the grid.
    axes = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 24,
        depth: int = 4,
        modes: Sequence[int] = (8, 6, 6),
        padding: float = 0.0,
        activation_checkpointing: bool = False,
        block: str = BLOCKS[0],
    ):
        super().__init__()
        self.modes, self.padding = checked_modes(modes, self.axes), padding
        self.activation_checkpointing = activation_checkpointing
        self.lift = nn.Sequential(Pointwise(in_channels, width), nn.GELU(), Pointwise(width, width))
        self.blocks = nn.ModuleList(SpectralBlock(width, self.modes, block) for _ in range(depth))
        self.head = nn.Sequential(
            Pointwise(width, width), nn.GELU(), zero_(Pointwise(width, out_channels))
        )

    def check_grid(self, grid: Sequence[int]) -> None:
        check_modes(self.modes, grid, self.padding)

    def forward(
        self, x: Float[Tensor, "B in_channels *grid"]
    ) -> Float[Tensor, "B out_channels *grid"]:
        grid = x.shape[2:]
        self.check_grid(grid)
        last = x.movedim(1, -1)
        x = proportional_padding(self.lift(last), self.padding)
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        y: Tensor = self.head(crop(x, grid))
        return y.movedim(-1, 1)


class ResidualFNO2D(ResidualFNO):
    """The same on two axes.

    Forward: x (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 24,
        depth: int = 4,
        modes: Sequence[int] = (8, 8),
        padding: float = 0.0,
        activation_checkpointing: bool = False,
        block: str = BLOCKS[0],
    ):
        super().__init__(
            in_channels,
            out_channels,
            width=width,
            depth=depth,
            modes=modes,
            padding=padding,
            activation_checkpointing=activation_checkpointing,
            block=block,
        )
