"""From the amplitude of a far field to a patch of the object.

    o = (1 + a) exp(i pi tanh(c2)),    a = softplus(c1 + log(e - 1)) - 1

(c1, c2) is the network's answer to asinh(A / mean A), which is linear where A is small. Its output
is zero at the start: the baseline is an empty object, o = 1.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from physicsnemo.core.module import Module
from torch import Tensor, nn

#: softplus(ONE) = 1.
ONE = math.log(math.e - 1)


class Inverse(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """A backbone between an amplitude and a patch.

    Parameters
    ----------
    backbone : Module
        (B, 1, N, N) -> (B, 2, N, N), any that `conf/model` names for two axes; (B, 1, N, N) ->
        (B, 1, N, N) where there is no phase.
    mean_amplitude : float
        Of the training frames.
    set_phase : bool
        Whether the object has a phase; without, o is real and positive.

    Forward: amplitude (B, N, N) -> patch (B, N, N), complex.
    """

    def __init__(self, backbone: Any, mean_amplitude: float, set_phase: bool = True):
        super().__init__()
        self.backbone: nn.Module = backbone
        self.mean_amplitude, self.set_phase = mean_amplitude, set_phase

    def forward(self, amplitude: Float[Tensor, "B N N"]) -> Complex[Tensor, "B N N"]:
        x = torch.asinh(amplitude / self.mean_amplitude)
        out: Tensor = self.backbone(x[:, None])
        size = F.softplus(out[:, 0].float() + ONE)
        if not self.set_phase:
            return torch.complex(size, torch.zeros_like(size))
        return torch.polar(size, math.pi * torch.tanh(out[:, 1].float()))
