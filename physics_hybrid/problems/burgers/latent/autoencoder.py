"""States as tokens, and values anywhere from tokens.

    z (B, L, D) = [means of the token's coarse cells, learned channels]
    u(x) = reconstruct(c, x) + MLP(the two nearest tokens, offsets of x), blended linearly

With r means a token the r L coarse means c are in z as they are: on a full grid the decoder moves
each coarse cell to its mean, so that restrict(decode(z)) = c to rounding, whatever the weights.
Without (r = 0, the control) everything is learned.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn

from physics_hybrid.models.blocks import zero_
from physics_hybrid.problems.burgers.networks import ResidualBlock, circular
from physics_hybrid.problems.burgers.stepper import reconstruct, restrict

#: Fourier pairs of an offset.
PAIRS = 4


class GridEncoder(nn.Module):
    """Cell means (B, N) -> learned channels (B, L, D'): periodic convolutions, one strided."""

    def __init__(self, points: int, tokens: int, channels: int, width: int = 32):
        super().__init__()
        patch = points // tokens
        self.network = nn.Sequential(
            circular(1, width, 5, 1),
            ResidualBlock(width, 5),
            nn.Conv1d(width, 2 * width, patch, stride=patch),
            ResidualBlock(2 * width, 3),
            nn.Conv1d(2 * width, channels, 1),
        )

    def forward(self, u: Float[Tensor, "B N"]) -> Float[Tensor, "B L D"]:
        z: Tensor = self.network(u[:, None]).transpose(1, 2)
        return z


class PointDecoder(nn.Module):
    """Values at points from the two nearest tokens: (B, L, D), x (Q,) -> (B, Q). It is zero at the
    start.
    """

    def __init__(self, channels: int, hidden: int = 64):
        super().__init__()
        self.neighbours = circular(channels, hidden, 3, 1)
        self.network = nn.Sequential(
            nn.Linear(hidden + 2 * PAIRS + 1, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            zero_(nn.Linear(hidden, 1)),
        )

    def forward(self, z: Float[Tensor, "B L D"], x: Float[Tensor, " Q"]) -> Float[Tensor, "B Q"]:
        tokens = z.shape[1]
        seen = self.neighbours(z.transpose(1, 2)).transpose(1, 2)
        place = x * tokens - 0.5
        left = torch.floor(place)
        share = place - left
        near = self._from(seen, left.long() % tokens, share)
        far = self._from(seen, (left.long() + 1) % tokens, share - 1)
        return near * (1 - share) + far * share

    def _from(self, seen: Tensor, token: Tensor, offset: Tensor) -> Tensor:
        waves = math.pi * offset[:, None] * torch.arange(1, PAIRS + 1, device=offset.device)
        features = torch.cat([offset[:, None], waves.sin(), waves.cos()], dim=1)
        repeated = features.expand(len(seen), *features.shape)
        value: Tensor = self.network(torch.cat([seen[:, token], repeated], dim=2))
        return value[..., 0]


class Autoencoder(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """Cell means to tokens, and back to any points.

    Parameters
    ----------
    points : int
        Cells that the encoder sees; states on finer grids are restricted to them.
    tokens, channels : int
        L and D.
    means : int
        Coarse means in each token; 0: none, the control.

    Forward: u (B, N), x (Q,) -> (u at the points of the grid (B, points), u at x (B, Q)).

    Raises
    ------
    ValueError
        Sizes that do not divide each other.
    """

    def __init__(self, points: int = 256, tokens: int = 32, channels: int = 16, means: int = 2):
        super().__init__()
        coarse = tokens * means
        if points % tokens or not 0 <= means < channels or (coarse and points % coarse):
            raise ValueError(
                f"model.tokens={tokens} must divide the {points} cells, and so must model.means"
                f" x model.tokens, with model.means below model.channels={channels}; got {means}"
            )
        self.arguments: dict[str, Any] = {
            "points": points,
            "tokens": tokens,
            "channels": channels,
            "means": means,
        }
        self.points, self.tokens, self.channels, self.means = points, tokens, channels, means
        self.encoder = GridEncoder(points, tokens, channels - means)
        self.decoder = PointDecoder(channels)

    @property
    def learned(self) -> int:
        """Channels that are."""
        return self.channels - self.means

    def encode(self, u: Float[Tensor, "B N"]) -> Float[Tensor, "B L D"]:
        u = restrict(u, self.points)
        learned: Tensor = self.encoder(u)
        if not self.means:
            return learned
        coarse = restrict(u, self.tokens * self.means)
        return torch.cat([coarse.reshape(len(u), self.tokens, self.means), learned], dim=2)

    def coarse(self, z: Float[Tensor, "B L D"]) -> Float[Tensor, "B C"]:
        """The coarse means in z."""
        return z[:, :, : self.means].flatten(1)

    def decode(self, z: Float[Tensor, "B L D"], x: Float[Tensor, " Q"]) -> Float[Tensor, "B Q"]:
        """Values at any points x in [0, 1)."""
        value: Tensor = self.decoder(z, x)
        return value + reconstruct(self.coarse(z), x) if self.means else value

    def on_grid(self, z: Float[Tensor, "B L D"], cells: int) -> Float[Tensor, "B N"]:
        """Values at the centres of a grid, each coarse cell moved to its mean."""
        u = self.decode(z, centres(cells).to(z))
        c = self.coarse(z)
        if not self.means or cells % c.shape[1]:
            return u
        blocks = u.reshape(*c.shape, -1)
        return (blocks + (c - blocks.mean(dim=2))[:, :, None]).flatten(1)

    def forward(
        self, u: Float[Tensor, "B N"], x: Float[Tensor, " Q"]
    ) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B Q"]]:
        z = self.encode(u)
        return self.on_grid(z, self.points), self.decode(z, x)


def centres(cells: int) -> Float[Tensor, " N"]:
    return (torch.arange(cells) + 0.5) / cells


class WindowBlock(nn.Module):
    """Attention within windows of periodic tokens, moved by half a window in every other block (Liu
    et al., Swin, 2021), modulated by a vector (Peebles and Xie, DiT, 2023).
    """

    def __init__(self, width: int, heads: int, window: int, shift: int, condition: int):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.modulation = zero_(nn.Linear(condition, 6 * width))
        self.bias = nn.Parameter(torch.zeros(heads, 2 * window - 1))
        i = torch.arange(window)
        self.distance: Tensor
        self.register_buffer("distance", i[:, None] - i + window - 1, persistent=False)

    def forward(
        self, x: Float[Tensor, "B L W"], condition: Float[Tensor, "B E"]
    ) -> Float[Tensor, "B L W"]:
        parts = self.modulation(condition)[:, None].chunk(6, dim=-1)
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = parts
        width = x.shape[2]
        y = F.layer_norm(x, (width,)) * (1 + scale) + shift
        x = x + (1 + gate) * self._attend(y)
        y = F.layer_norm(x, (width,)) * (1 + scale_mlp) + shift_mlp
        out: Tensor = x + (1 + gate_mlp) * self.mlp(y)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        windows = torch.roll(x, -self.shift, dims=1).reshape(-1, self.window, width)
        qkv = self.project(windows).reshape(len(windows), self.window, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.bias[:, self.distance]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y = self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return torch.roll(y, self.shift, dims=1)


class WindowOperator(nn.Module):
    """Tokens (B, L, I) and (log10 nu, log10 dt) (B, 2) -> (B, L, O); zero at the start."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        window: int = 8,
    ):
        super().__init__()
        self.lift = nn.Linear(inputs, width)
        self.embed = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.blocks = nn.ModuleList(
            WindowBlock(width, heads, window, (i % 2) * window // 2, 64) for i in range(depth)
        )
        self.head = zero_(nn.Linear(width, outputs))

    def forward(
        self, z: Float[Tensor, "B L I"], condition: Float[Tensor, "B 2"]
    ) -> Float[Tensor, "B L O"]:
        x, embedded = self.lift(z), self.embed(condition)
        for block in self.blocks:
            x = block(x, embedded)
        y: Tensor = self.head(F.layer_norm(x, x.shape[-1:]))
        return y
