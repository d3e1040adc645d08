"""The FNO of the neuraloperator library, as a backbone: a rival to measure against."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor

from physics_hybrid.grid import Grid, grid_of
from physics_hybrid.models.blocks import check_modes, checked_modes


class NeuralOperatorFNO(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
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
        try:
            from neuralop.models import FNO
        except ImportError as error:
            raise ValueError(
                f"model=fno_neuraloperator needs the neuraloperator library ({error}): pip install"
                " neuraloperator"
            ) from error
        self.modes = checked_modes(modes)
        m1, m2, m3 = self.modes
        self.net = FNO(
            (2 * m1, 2 * m2, 2 * (m3 - 1)),
            in_channels,
            out_channels,
            width,
            n_layers=depth,
            positional_embedding=None,
        )

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
