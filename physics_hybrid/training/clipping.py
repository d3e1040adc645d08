"""Gradient clipping: none, by global norm, by value, or adaptive.

    AGC:  G_i <- G_i lambda max(|W_i|, eps) / |G_i|   where   |G_i| / max(|W_i|, eps) > lambda

in every output unit i of every layer but the last linear one (Brock, De, Smith, Simonyan, NFNets,
ICML 2021, eq. 3 and section 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from physics_hybrid.checks import among, positive
from physics_hybrid.models.spectral import SpectralConv
from physics_hybrid.training.sharding import total_norm

MODES = ("none", "norm", "value", "agc")
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
#: Names of the part that an output comes from, and of PhysicsNeMo's spectral weights.
HEADS = ("head", "decoder_net")
PHYSICSNEMO = re.compile(r"\.spconv_layers\.\d+\.weights\d$")


def clipper(model: nn.Module, mode: str, threshold: float, eps: float) -> Callable[[], Tensor]:
    """A function to call between backward and step: clips in place, returns the global gradient
    norm before clipping.

    Parameters
    ----------
    mode : none, norm, value or agc, which leaves the last linear layer (`last_linear`) alone.
    threshold : global norm; largest absolute value; or, for agc, the ratio |G_i| / max(|W_i|, eps)
        allowed in every output unit i.

    Raises
    ------
    ValueError
        Unknown mode or a threshold that is not positive.
    """
    check_clipping(mode, threshold)
    parameters = [p for p in model.parameters() if p.requires_grad]
    axes = unit_axes(model)
    last = last_linear(model)
    left_out = set() if last is None else {*last.parameters()}

    def clip() -> Tensor:
        live = [p for p in parameters if p.grad is not None]
        norm = total_norm([p.grad for p in live if p.grad is not None])
        if mode == "norm":
            nn.utils.clip_grads_with_norm_(live, threshold, norm)
        elif mode == "value":
            nn.utils.clip_grad_value_(live, threshold)
        elif mode == "agc":
            for p in live:
                if p not in left_out:
                    adaptive(p, axes[p], threshold, eps)
        return norm

    return clip


def check_clipping(mode: str, threshold: float) -> None:
    """Raise ValueError for an unknown mode, or a threshold that is not positive."""
    among(MODES, "training.clipping.mode", mode)
    if mode != "none":
        positive("training.clipping.threshold", threshold)


def unit_axes(model: nn.Module) -> dict[nn.Parameter, int | None]:
    """The axis of each parameter that counts output units; None where the whole tensor is one unit.

    PyTorch layers have it first, transposed convolutions (in, out, ...) second, spectral weights
    (modes, in, 2, out) last, those of PhysicsNeMo (in, out, modes, 2) second. Biases, gains and
    single numbers are one unit.
    """
    axes = {p: 0 if p.ndim > 1 else None for p in model.parameters()}
    axes |= {p: 1 for name, p in model.named_parameters() if PHYSICSNEMO.search(name)}
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and isinstance(layer, SpectralConv):
            axes[weight] = 3
        elif isinstance(weight, nn.Parameter) and isinstance(layer, TRANSPOSED):
            axes[weight] = 1
    return axes


def last_linear(model: nn.Module) -> nn.Module | None:
    """The linear layer that the output comes from: the last one of a part called `head` (or
    `decoder_net`, in PhysicsNeMo's FNO), else the last of the model.
    """
    heads = [part for name, part in model.named_modules() if name.split(".")[-1] in HEADS]
    linear = [part for part in (heads or [model])[-1].modules() if isinstance(part, LINEAR)]
    return linear[-1] if linear else None


@torch.no_grad()
def adaptive(p: nn.Parameter, axis: int | None, ratio: float, eps: float) -> None:
    """Scale p.grad so that in every unit |G_i| <= ratio max(|W_i|, eps).

    axis None: the whole tensor is one unit. Without a gradient there is nothing to do.
    """
    if p.grad is None:
        return
    limit = ratio * _unit_norms(p, axis).clamp_min(eps)
    size = _unit_norms(p.grad, axis)
    p.grad.mul_(torch.where(size > limit, limit / size.clamp_min(1e-12), 1.0))


def _unit_norms(t: Tensor, axis: int | None) -> Tensor:
    """Norm of each unit, shaped to meet the tensor."""
    others = [a for a in range(t.ndim) if a != axis]
    norms: Tensor = torch.linalg.vector_norm(t, dim=others, keepdim=True)
    return norms
