"""The FNO and the U-NO of the neuraloperator library, as backbones: rivals to measure against."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor

from physics_hybrid.checks import at_least
from physics_hybrid.grid import Grid, grid_of
from physics_hybrid.models.blocks import check_modes, checked_modes


def _library(model: str) -> Any:
    """The models of neuraloperator. Raises ValueError where it is not installed."""
    try:
        from neuralop import models
    except ImportError as error:
        raise ValueError(
            f"model={model} needs the neuraloperator library ({error}): pip install neuraloperator"
        ) from error
    return models


def _as_counted(modes: Sequence[int]) -> tuple[int, int, int]:
    """Our modes, of either sign along D and H, as that library counts them."""
    m1, m2, m3 = modes
    return 2 * m1, 2 * m2, 2 * (m3 - 1)


class _OfTheLibrary(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """What its networks have in common. modes : as ours. net : the library's."""

    modes: list[int]
    net: Any

    def check_grid(self, grid: Grid) -> None:
        check_modes(self.modes, grid)

    def forward(
        self, x: Float[Tensor, "B in_channels D H W"]
    ) -> Float[Tensor, "B out_channels D H W"]:
        self.check_grid(grid_of(x))
        # its transforms refuse bfloat16, as PhysicsNeMo's do
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.net(x.float())
        return y


class NeuralOperatorFNO(_OfTheLibrary):
    """`neuralop.models.FNO` (Kossaifi et al., arXiv:2412.10354) with the modes of our own FNOs.

    `modes[a]` of either sign along D and H, `modes[2]` along W.

    Parameters as `fno.PlainFNO`; no positional embedding, since we bring our own coordinates.

    Forward: x (B, in_channels, D, H, W) -> (B, out_channels, D, H, W).

    Raises
    ------
    ValueError
        Where the grid holds fewer modes than `modes`, or the library is not installed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 24,
        depth: int = 4,
        modes: Sequence[int] = (8, 6, 6),
    ):
        super().__init__()
        self.modes = checked_modes(modes)
        self.net = _library("fno_neuraloperator").FNO(
            _as_counted(self.modes),
            in_channels,
            out_channels,
            width,
            n_layers=depth,
            positional_embedding=None,
        )


class NeuralOperatorUNO(_OfTheLibrary):
    """`neuralop.models.UNO` (Rahman, Ross and Azizzadenesheli, TMLR 2023): down, on half the grid
    with twice the channels and half the modes, and up again.

    Parameters as `NeuralOperatorFNO`; depth of at least 3, what is beyond 2 is done on half the
    grid.

    Forward: x (B, in_channels, D, H, W) -> (B, out_channels, D, H, W).

    Raises
    ------
    ValueError
        Where the grid holds fewer modes than `modes` or has an odd side; fewer layers than 3; or
        the library is not installed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        width: int = 16,
        depth: int = 4,
        modes: Sequence[int] = (8, 6, 6),
    ):
        super().__init__()
        at_least(3, "model.backbone.depth", depth)
        self.modes = checked_modes(modes)
        inside = depth - 2
        halved = _as_counted([max(2, m // 2) for m in self.modes])
        with contextlib.redirect_stdout(None):  # it prints its skips
            self.net = _library("uno_neuraloperator").UNO(
                in_channels,
                out_channels,
                width,
                n_layers=depth,
                uno_out_channels=[2 * width] * (1 + inside) + [width],
                uno_n_modes=[list(_as_counted(self.modes))]
                + [list(halved)] * inside
                + [list(_as_counted(self.modes))],
                uno_scalings=[[0.5] * 3] + [[1.0] * 3] * inside + [[2.0] * 3],
                horizontal_skips_map={depth - 1: 0},
                channel_mlp_skip="linear",  # the library's own takes equal widths only
                positional_embedding=None,
            )

    def check_grid(self, grid: Grid) -> None:
        super().check_grid(grid)
        if any(n % 2 for n in grid):
            raise ValueError(f"neuraloperator's U-NO needs even sides; got {tuple(grid)}")
