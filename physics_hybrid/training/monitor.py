"""Activations and gradients, block by block, while a training goes on.

    mean, std, rms of what comes out of a block, gradient_rms of the loss with respect to it
    growth = product over blocks of rms(out) / rms(in)

A layer is watched where its class says `monitored = True`. Between the steps that are watched
nothing is hooked, and nothing costs anything. A record a watched step goes into activations.jsonl
of the run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

FILE = "activations.jsonl"

#: Statistics by name, of each block by the name of its module, in the order of the network.
Blocks = dict[str, dict[str, float]]


class Monitor:
    """Watches the blocks of a model.

    Parameters
    ----------
    model : nn.Module
    every : int
        Steps between those that are watched; 0: none is.

    Examples
    --------
    >>> from physics_hybrid.models.fno import ResidualFNO2D
    >>> model = ResidualFNO2D(1, width=4, depth=2, modes=[2, 2])
    >>> monitor = Monitor(model, every=1)
    >>> with monitor.watching(step=0):
    ...     model(torch.ones(1, 1, 8, 8)).sum().backward()
    >>> list(monitor.blocks())
    ['blocks.0', 'blocks.1']
    >>> growth(monitor.blocks())  # zero_linear is the identity at the start
    1.0
    """

    def __init__(self, model: nn.Module, every: int):
        self.every = every
        modules = model.named_modules() if every else iter(())
        self.layers = {n: layer for n, layer in modules if getattr(layer, "monitored", False)}
        self._seen: dict[str, dict[str, Tensor]] = {}

    def due(self, step: int) -> bool:
        return bool(self.layers) and step % self.every == 0

    @contextlib.contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Take down what the first forward pass inside makes, and its gradients."""
        self._seen = {}
        if not self.due(step):
            yield
            return
        hooks = [self._watch(name, layer) for name, layer in self.layers.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _watch(self, name: str, layer: nn.Module) -> RemovableHandle:
        def seen(_: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            if name in self._seen:  # a second batch of the step, or computed again
                return
            out = y.detach().float()
            taken = {"mean": out.mean(), "std": out.std(), "rms": _rms(out)}
            taken["rms_in"] = _rms(inputs[0].detach().float())
            self._seen[name] = taken
            if y.requires_grad:
                y.register_hook(  # type: ignore[no-untyped-call]
                    lambda g: taken.update(gradient_rms=_rms(g.float()))
                )

        return layer.register_forward_hook(seen)

    def blocks(self) -> Blocks:
        """What was seen in the step that was watched last; {} where it was not."""
        return {
            name: {key: float(value) for key, value in taken.items()}
            for name, taken in self._seen.items()
        }


def growth(blocks: Mapping[str, Mapping[str, float]]) -> float:
    """By how much the blocks make their inputs larger, all together; NaN where there is none."""
    ratios = [taken["rms"] / max(taken["rms_in"], 1e-30) for taken in blocks.values()]
    return math.prod(ratios) if ratios else math.nan


def record(step: int, blocks: Blocks) -> dict[str, Any]:
    """A line of activations.jsonl; null for what is not finite."""
    shown = {
        name: {k: value if math.isfinite(value) else None for k, value in taken.items()}
        for name, taken in blocks.items()
    }
    return {"step": step, "blocks": shown}


def _rms(x: Tensor) -> Tensor:
    """The norm over the square root of the number: the same on every grid."""
    rms: Tensor = torch.linalg.vector_norm(x) / x.numel() ** 0.5
    return rms
