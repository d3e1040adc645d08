"""What wrapper, losses and trainer cost: one training step of the whole pipeline against the bare
backbone.

Both work on the same tensors with the same optimiser. Steps alternate, so that both see the same
machine; the figure is the ratio of medians. The time to solve a streamed batch is listed beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from physics_hybrid.evidence.bench import bench, seconds
from physics_hybrid.problems.potential.problem import build_model
from physics_hybrid.problems.potential.surrogate import model_inputs


def measure(overrides: list[str], repeats: int) -> dict[str, Any]:
    """Medians in seconds and their ratio."""
    b = bench(overrides)
    bare: Any = build_model(b.config, b.statistics).to(b.machine.device)
    with torch.no_grad():
        features = bare.features(model_inputs(b.batch), b.batch.spacing)
    target = torch.randn_like(features[:, :1])
    optimizer = torch.optim.AdamW(bare.backbone.parameters(), lr=1e-3)

    def bare_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (bare.backbone(features) - target).square().mean().backward()
        optimizer.step()

    steps: dict[str, Callable[[], object]] = {
        "bare": bare_step,
        "whole": partial(b.trainer.step, [b.batch]),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 2):  # the first two warm up
        for name, step in steps.items():
            times[name].append(seconds(step, b.machine))
    medians = {name: statistics.median(values[2:]) for name, values in times.items()}
    return {
        "ratio": medians["whole"] / medians["bare"],
        "bare_step_s": medians["bare"],
        "whole_step_s": medians["whole"],
        "solve_batch_s": b.solve_s,
        "batch": list(b.batch.u.shape),
        "backbone": b.config["model"]["backbone"]["_target_"],
        "device": str(b.machine),
        "repeats": repeats,
    }
