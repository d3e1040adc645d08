r"""Spectral convolution without an FFT, for fields whose channels lie last in memory.

    y = F^-1 [ R(k) F[x](k) ],    -m1 <= k_D < m1, -m2 <= k_H < m2, 0 <= k_W < m3

(Li et al., Fourier Neural Operator, ICLR 2021, eq. 5). So few modes are kept that the transform of
an axis is a product with a small real matrix of cosines and sines. Of the field itself nothing is
transposed: the axes are taken as they lie, the longest first, after which little is left.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

#: PhysicsNeMo's weights, by whether k_D and k_H are negative.
CORNERS = {"weights1": (0, 0), "weights2": (1, 0), "weights3": (0, 1), "weights4": (1, 1)}


class SpectralConv(nn.Module):
    """What spectral convolutions of two and of three axes share.

    weight : (modes, in, 2, out), real and imaginary parts.
    """

    weight: nn.Parameter
    out_channels: int

    def _multiply(self, y: Float[Tensor, "B M1 M2 M3 I"]) -> Float[Tensor, "B M1 M2 M3 O"]:
        """sum_i y[b, i, mode] w[i, o, mode]; M1 counts real parts, then imaginary ones."""
        B, _, M2, M3, _ = y.shape
        y = torch.unflatten(y, 1, (2, -1)).flatten(2, 4)  # (B, re im, modes, I)
        y = y.permute(2, 1, 0, 3).flatten(1, 2)  # (modes, re im of B, I)
        z = torch.bmm(y, self.weight.flatten(2))  # (modes, re im of B, re im of O)
        z = torch.unflatten(torch.unflatten(z, 2, (2, -1)), 1, (2, B))
        real = z[:, 0, :, 0] - z[:, 1, :, 1]
        imaginary = z[:, 1, :, 0] + z[:, 0, :, 1]
        z = torch.stack([real, imaginary]).permute(2, 0, 1, 3)  # (B, re im, modes, O)
        return z.reshape(B, -1, M2, M3, self.out_channels)


class SpectralConv3d(SpectralConv):
    """Spectral convolution with the modes of PhysicsNeMo's `SpectralConv3d`, and its result.

    The weights lie as they are multiplied: `weight` (modes, in, 2, out), real and imaginary parts.
    `load_state_dict` takes PhysicsNeMo's `weights1` to `weights4`, too; `to_physicsnemo` gives them
    back. Both are exact.

    Forward: x (B, D, H, W, in) -> (B, D, H, W, out). `add`, of the result's shape, and `bias`
    (out,) are added on the way, where it costs least.

    Examples
    --------
    >>> layer = SpectralConv3d(2, 3, modes=(4, 3, 3))
    >>> tuple(layer(torch.zeros(1, 16, 12, 12, 2)).shape)
    (1, 16, 12, 12, 3)
    """

    def __init__(self, in_channels: int, out_channels: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        m1, m2, m3 = modes
        self.modes = m1, m2, m3
        scale = 1 / (in_channels * out_channels)
        shape = (in_channels, out_channels, m1, m2, m3, 2)
        self.weight = nn.Parameter(
            from_physicsnemo({name: scale * torch.rand(shape) for name in CORNERS})
        )
        self.register_load_state_dict_pre_hook(_take_physicsnemo)  # type: ignore[no-untyped-call]

    def forward(
        self,
        x: Float[Tensor, "B D H W I"],
        add: Float[Tensor, "B D H W O"] | None = None,
        bias: Float[Tensor, " O"] | None = None,
    ) -> Float[Tensor, "B D H W O"]:
        D, H, W = x.shape[1:4]
        m1, m2, m3 = self.modes
        like = (x.dtype, x.device)

        # sums with cosines, then with -sines: real axis by axis, complex after the last
        y = along(waves(D, m1 + 1, *like) / D, x, 1)
        y = along(waves(H, m2 + 1, *like) / H, y, 2)
        y = torch.unflatten(along(waves(W, m3, *like) / W, y, 3), 3, (2, m3))
        # (B, cos sin m1, cos sin m2, re im, m3, I) -> (B, cos sin m1, re im, +- m2, m3, I)
        y = along(signs(m2, *like), y.transpose(2, 3).flatten(2, 3), 2)
        y = torch.unflatten(y, 2, (2, -1))
        # -> (B, re im +- m1, +- m2, m3, I)
        y = along(signs(m1, *like), y.transpose(1, 2).flatten(1, 2), 1)

        y = self._multiply(y)

        # the same way back: all matrices transposed
        y = torch.unflatten(along(signs(m1, *like).T, y, 1), 1, (2, -1))
        y = along(signs(m2, *like).T, y.transpose(1, 2).flatten(2, 3), 2)
        y = torch.unflatten(y, 2, (2, -1))
        y = along(half(W, m3, *like).T, y.transpose(2, 3).flatten(3, 4), 3)
        y = along(waves(H, m2 + 1, *like).T, y, 2)
        if bias is not None:  # the cosine of k_D = 0 is 1 everywhere
            constant = F.pad(bias[None], (0, 0, 0, y.shape[1] - 1))
            y = y + constant[:, None, None].to(y.dtype)
        return along(waves(D, m1 + 1, *like).T, y, 1, add)

    def to_physicsnemo(self) -> dict[str, Tensor]:
        """The weights as PhysicsNeMo's layer has them: four of (in, out, m1, m2, m3, 2)."""
        m1, m2, m3 = self.modes
        w = torch.unflatten(self.weight.detach(), 0, (2, m1, 2, m2, m3))
        return {
            name: _mirrored(w[d, :, h], d, h).permute(3, 5, 0, 1, 2, 4).contiguous()
            for name, (d, h) in CORNERS.items()
        }


class SpectralConv2d(SpectralConv):
    """Spectral convolution of two axes, -m1 <= k_H < m1 and 0 <= k_W < m2.

    `weight` (modes, in, 2, out): k_H = 0 ... m1 - 1, then -1 ... -m1, each with all k_W.

    Forward: x (B, H, W, in) -> (B, H, W, out). `add` and `bias` as in `SpectralConv3d`.

    Source
    ------
    Li et al., Fourier Neural Operator, ICLR 2021, eq. 5.

    Examples
    --------
    >>> layer = SpectralConv2d(2, 3, modes=(4, 3))
    >>> tuple(layer(torch.zeros(1, 16, 12, 2)).shape)
    (1, 16, 12, 3)
    """

    def __init__(self, in_channels: int, out_channels: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        m1, m2 = modes
        self.modes = m1, m2
        scale = 1 / (in_channels * out_channels)
        shape = (2 * m1 * m2, in_channels, 2, out_channels)
        self.weight = nn.Parameter(scale * torch.rand(shape))

    def forward(
        self,
        x: Float[Tensor, "B H W I"],
        add: Float[Tensor, "B H W O"] | None = None,
        bias: Float[Tensor, " O"] | None = None,
    ) -> Float[Tensor, "B H W O"]:
        H, W = x.shape[1:3]
        m1, m2 = self.modes
        like = (x.dtype, x.device)

        y = along(waves(H, m1 + 1, *like) / H, x, 1)
        y = torch.unflatten(along(waves(W, m2, *like) / W, y, 2), 2, (2, m2))
        # (B, cos sin m1, re im, m2, I) -> (B, re im +- m1, m2, I)
        y = along(signs(m1, *like), y.transpose(1, 2).flatten(1, 2), 1)

        y = self._multiply(y[:, :, None])[:, :, 0]

        # the same way back: all matrices transposed
        y = torch.unflatten(along(signs(m1, *like).T, y, 1), 1, (2, -1))
        y = along(half(W, m2, *like).T, y.transpose(1, 2).flatten(2, 3), 2)
        if bias is not None:  # the cosine of k_H = 0 is 1 everywhere
            constant = F.pad(bias[None], (0, 0, 0, y.shape[1] - 1))
            y = y + constant[:, None].to(y.dtype)
        return along(waves(H, m1 + 1, *like).T, y, 1, add)


class ChannelsFirst(SpectralConv3d):
    """The same for x (B, in, D, H, W), where PhysicsNeMo's FNO has its own layer."""

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B I D H W"]
    ) -> Float[Tensor, "B O D H W"]:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


# --- PhysicsNeMo's weights


def from_physicsnemo(weights: Mapping[str, Tensor]) -> Float[Tensor, "modes I 2 O"]:
    """`SpectralConv3d.weight` of PhysicsNeMo's `weights1` to `weights4`."""
    corners = {
        signs: _mirrored(weights[name].permute(2, 3, 4, 0, 5, 1), *signs)
        for name, signs in CORNERS.items()
    }
    halves = [torch.stack([corners[d, 0], corners[d, 1]], dim=1) for d in (0, 1)]
    return torch.stack(halves).flatten(0, 4).contiguous()


def _mirrored(w: Tensor, d: int, h: int) -> Tensor:
    """PhysicsNeMo counts negative frequencies from -m to -1, we from -1 to -m."""
    return w.flip([axis for axis, negative in enumerate((d, h)) if negative])


def _take_physicsnemo(layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded: PhysicsNeMo's weights become ours."""
    if prefix + "weights1" in state:
        theirs = {name: state.pop(prefix + name) for name in CORNERS if prefix + name in state}
        if len(theirs) == len(CORNERS):
            state[prefix + "weight"] = from_physicsnemo(theirs)


def optimizer_state(model: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """State of an optimizer of a model with PhysicsNeMo's weights, as that of ours.

    A state that is of our weights is returned as it is. Moments move as the weights do: both ways
    of keeping them hold the same numbers in another order.
    """
    spectral = {m.weight for m in model.modules() if isinstance(m, SpectralConv3d)}
    parameters = list(model.parameters())
    old = list(state["param_groups"][0]["params"])
    if len(old) != len(parameters) + 3 * sum(p in spectral for p in parameters):
        return state
    moments, numbers = {}, iter(old)
    for new, parameter in enumerate(parameters):
        held = [state["state"].get(next(numbers)) for _ in CORNERS if parameter in spectral]
        if not held:
            held = [state["state"].get(next(numbers))]
        if held[0] is not None:
            moments[new] = _joined(held)
    group = {**state["param_groups"][0], "params": list(range(len(parameters)))}
    return {"state": moments, "param_groups": [group]}


def _joined(held: list[dict[str, Any]]) -> dict[str, Any]:
    """What an optimizer keeps of four weights of PhysicsNeMo's, or of one parameter."""
    if len(held) == 1:
        return held[0]
    first = held[0]
    return {
        key: from_physicsnemo({name: h[key] for name, h in zip(CORNERS, held, strict=True)})
        if torch.is_tensor(value) and value.ndim
        else value
        for key, value in first.items()
    }


# --- the transform of an axis


@functools.cache
def waves(
    n: int, count: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "waves {n}"]:
    """cos(2 pi k j / n), then -sin(2 pi k j / n), of k = 0 ... count - 1 at j = 0 ... n - 1."""
    with torch.inference_mode(False):
        turns = torch.outer(torch.arange(count), torch.arange(n)) % n
        angle = (2 * math.pi / n) * turns.double()
        return torch.cat([angle.cos(), -angle.sin()]).to(device, dtype)


@functools.cache
def half(
    n: int, count: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "waves {n}"]:
    """`waves` of a half spectrum: every k but 0 and n / 2 counts for -k, too."""
    with torch.inference_mode(False):
        weight = torch.tensor([1.0 if 2 * k % n == 0 else 2.0 for k in range(count)])
        return waves(n, count, dtype, device) * weight.repeat(2)[:, None].to(device, dtype)


@functools.cache
def signs(m: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "4*{m} 4*{m}+4"]:
    """From sums C with cosines and S with -sines of k = 0 ... m, complex, to the frequencies
    0 ... m - 1, -1 ... -m: C + i S and C - i S. Real parts come before imaginary ones.
    """
    with torch.inference_mode(False):
        low, high = torch.eye(m, m + 1), torch.eye(m + 1)[1:]
        C, S = torch.cat([low, high]), torch.cat([low, -high])
        none = torch.zeros_like(C)
        real, imaginary = (
            torch.cat([C, none, none, -S], dim=1),
            torch.cat([none, S, C, none], dim=1),
        )
        return torch.cat([real, imaginary]).to(device, dtype)


def along(matrix: Tensor, x: Tensor, axis: int, add: Tensor | None = None) -> Tensor:
    """matrix (r, n) times x (..., n, ...) along an axis, and `add`."""
    shape = (*x.shape[:axis], len(matrix), *x.shape[axis + 1 :])
    columns = x.flatten(axis + 1).flatten(0, axis - 1)  # (before, n, after)
    matrices = matrix.expand(len(columns), -1, -1)
    if add is None:
        return torch.bmm(matrices, columns).view(shape)
    return torch.baddbmm(add.reshape(len(columns), len(matrix), -1), matrices, columns).view(shape)
