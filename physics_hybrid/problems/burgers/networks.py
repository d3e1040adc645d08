"""Backbones for fields on a periodic grid: (B, in, N) -> (B, out, N). The last layer is zero at the
start, so that a hybrid begins as its baseline.

`embedding` modulates each block with a vector, feature by feature (Perez et al., FiLM, 2018), as
the noise level does in a diffusion model.
"""

import torch.nn.functional as F
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn

from physics_hybrid.models.blocks import zero_

#: Groups of the normalisation.
GROUPS = 4


def circular(in_channels: int, out_channels: int, kernel: int, dimension: int) -> nn.Module:
    """A convolution that keeps a periodic grid."""
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[dimension]
    layer: nn.Module = kind(
        in_channels, out_channels, kernel, padding=kernel // 2, padding_mode="circular"
    )
    return layer


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(norm(x)))), periodic; the last convolution is zero at the start.

    embedding : size of the vector that modulates the normalised x; 0: none.
    """

    def __init__(self, channels: int, kernel: int, dimension: int = 1, embedding: int = 0):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.first = circular(channels, channels, kernel, dimension)
        self.last = zero_(circular(channels, channels, kernel, dimension))
        self.modulation = nn.Linear(embedding, 2 * channels) if embedding else None

    def forward(
        self, x: Float[Tensor, "B C *grid"], embedded: Float[Tensor, "B E"] | None = None
    ) -> Float[Tensor, "B C *grid"]:
        y = self.norm(x)
        if self.modulation is not None:
            shape = (*x.shape[:2], *[1] * (x.ndim - 2))
            scale, shift = self.modulation(embedded).chunk(2, dim=1)
            y = y * (1 + scale.view(shape)) + shift.view(shape)
        out: Tensor = x + self.last(F.gelu(self.first(y)))
        return out


class PeriodicUNet(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """U-Net for periodic grids (Ronneberger et al. 2015), with zero-initialised residual blocks.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Channels at full resolution; twice as many below.
    levels : int
        How often the grid is halved.
    kernel : int
        Of all convolutions, odd.
    dimension : int
        Of the grid, 1 or 2.
    embedding : int
        Size of a vector that modulates all blocks; 0: none.

    Forward: x (B, in_channels, N) or (B, in_channels, N, M) -> (B, out_channels, ...).

    Raises
    ------
    ValueError
        Where a side of the grid is no multiple of 2^levels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 24,
        levels: int = 2,
        kernel: int = 5,
        dimension: int = 1,
        embedding: int = 0,
    ):
        super().__init__()
        self.levels = levels
        widths = [width, *[2 * width] * levels]
        down = {1: nn.Conv1d, 2: nn.Conv2d}[dimension]
        up = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}[dimension]

        def blocks(channels: list[int]) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(c, kernel, dimension, embedding) for c in channels)

        self.lift = circular(in_channels, width, kernel, dimension)
        self.encode = blocks(widths[:-1])
        self.shrink = nn.ModuleList(
            down(widths[i], widths[i + 1], 2, stride=2) for i in range(levels)
        )
        self.bottom = blocks(widths[-1:])[0]
        self.grow = nn.ModuleList(
            up(widths[i + 1], widths[i], 2, stride=2) for i in reversed(range(levels))
        )
        self.decode = blocks(widths[-2::-1])
        self.head = zero_(circular(width, out_channels, kernel, dimension))

    def forward(
        self, x: Float[Tensor, "B I *grid"], embedded: Float[Tensor, "B E"] | None = None
    ) -> Float[Tensor, "B O *grid"]:
        if any(n % 2**self.levels for n in x.shape[2:]):
            raise ValueError(
                f"a grid of {tuple(x.shape[2:])} cells cannot be halved {self.levels} times: lower"
                f" model.backbone.levels or take a multiple of {2**self.levels}"
            )
        x = self.lift(x)
        skips = []
        for block, shrink in zip(self.encode, self.shrink, strict=True):
            x = block(x, embedded)
            skips.append(x)
            x = shrink(x)
        x = self.bottom(x, embedded)
        for grow, block in zip(self.grow, self.decode, strict=True):
            x = block(grow(x) + skips.pop(), embedded)
        y: Tensor = self.head(x)
        return y


class PeriodicFNO(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """PhysicsNeMo's Fourier neural operator (Li et al., ICLR 2021) for periodic grids: no padding,
    no coordinates.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Latent channels.
    depth : int
        Spectral layers.
    modes : int
        Fourier modes kept along each axis.
    decoder_width : int
        Of the pointwise decoder.
    dimension : int
        Of the grid, 1 or 2.

    Forward: x (B, in_channels, N) or (B, in_channels, N, M) -> (B, out_channels, ...).

    Raises
    ------
    ValueError
        Where the grid holds fewer modes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 32,
        depth: int = 4,
        modes: int = 64,
        decoder_width: int = 64,
        dimension: int = 1,
    ):
        from physicsnemo.models.fno import FNO  # here: the import takes seconds

        super().__init__()
        self.modes = modes
        self.operator = FNO(
            in_channels=in_channels,
            out_channels=out_channels,
            dimension=dimension,
            latent_channels=width,
            num_fno_layers=depth,
            num_fno_modes=modes,
            padding=0,
            coord_features=False,
            decoder_layers=1,
            decoder_layer_size=decoder_width,
        )
        zero_(self.operator.decoder_net.final_layer.linear)

    def forward(self, x: Float[Tensor, "B I *grid"]) -> Float[Tensor, "B O *grid"]:
        fewest = min(x.shape[2:]) // 2
        if self.modes > fewest:
            raise ValueError(
                f"{self.modes} Fourier modes are more than a grid of {tuple(x.shape[2:])} cells"
                f" holds ({fewest}): lower model.backbone.modes"
            )
        y: Tensor = self.operator(x)
        return y
