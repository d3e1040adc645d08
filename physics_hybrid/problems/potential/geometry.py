"""What every backbone shares: an encoder of the conductivity, and conditioning on the spacing."""

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn


class GeometryEncoder(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """Convolutional encoder from conductivity to a feature volume on the same grid.

    Parameters
    ----------
    in_channels : int
        Channels of the normalised conductivity (its components and the tissue indicator).
    channels : int
        Features given to the backbone.
    depth : int
        Residual convolutions after the first.
    kernel_size : int
        Odd. 1 is pointwise: the same map at every resolution. Larger kernels see a fixed number of
        voxels, which is half the distance on a grid twice as fine.

    Forward
    -------
    x : Tensor (B, in_channels, D, H, W)

    Outputs
    -------
    Tensor (B, channels, D, H, W)
    """

    def __init__(self, in_channels: int, channels: int, depth: int, kernel_size: int):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"model.geometry.kernel_size must be odd; got {kernel_size}")
        self.in_channels, self.channels = in_channels, channels
        self.first = nn.Conv3d(in_channels, channels, kernel_size, padding=kernel_size // 2)
        self.rest = nn.ModuleList(
            nn.Conv3d(channels, channels, kernel_size, padding=kernel_size // 2)
            for _ in range(depth)
        )
        self.activation = nn.GELU()

    def forward(self, x: Float[Tensor, "B in D H W"]) -> Float[Tensor, "B out D H W"]:
        x = self.first(x)
        for layer in self.rest:
            x = x + layer(self.activation(x))
        return x


class SpacingModulation(nn.Module):
    """Multiply every channel by 1 + m(spacing), m learned and zero at the start.

    The ratio of two potentials does not change when all lengths are scaled, and coordinates are
    normalised to the box; so what remains of (dD, dH, dW) is the shape of the box, log(N_a d_a /
    geometric mean). It is the same on every grid: a network conditioned on it can be used at
    another resolution.

    Forward: features, spacing in metres -> features.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        first, last = nn.Linear(3, hidden), nn.Linear(hidden, channels)
        self.net = nn.Sequential(first, nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, x: Float[Tensor, "B C D H W"], spacing: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "B C D H W"]:
        edges = torch.log(spacing * torch.tensor(x.shape[-3:], device=x.device))
        shape = edges - edges.mean(dim=1, keepdim=True)
        factor: Tensor = 1 + self.net(shape)
        return x * factor[:, :, None, None, None]
