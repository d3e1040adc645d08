"""What a user holds: frames in, object out."""

from typing import Any

import torch
from jaxtyping import Complex
from torch import Tensor, nn

from physics_hybrid.problems.ptychography.data.scan import Scan
from physics_hybrid.problems.ptychography.physics.assemble import assemble, in_phase


class Predictor:
    """A network that makes objects: `predictor(scan)`.

    model : a `networks.Inverse`. batch_size : frames at a time.
    """

    def __init__(self, model: nn.Module, batch_size: int = 64):
        self.model, self.batch_size = model.eval(), batch_size

    @torch.no_grad()
    def __call__(self, scan: Scan) -> Complex[Tensor, "H W"]:
        """The object of a scan; 1 where no light fell.

        Raises
        ------
        ValueError
            Frames of a size that the model cannot take.
        """
        return reconstruct(self.model, scan, self.batch_size)


def reconstruct(model: Any, scan: Scan, batch_size: int) -> Complex[Tensor, "H W"]:
    """Patches frame by frame, brought into phase and assembled."""
    parts = [model(frames) for frames in torch.split(scan.amplitude, batch_size)]
    patch = in_phase(torch.cat(parts), scan.probe, scan.positions, scan.shape)
    return assemble(patch, scan.probe, scan.positions, scan.shape)
