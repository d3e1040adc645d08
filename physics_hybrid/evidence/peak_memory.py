"""Peak memory of one training step at a given grid, for each backbone with and without activation
checkpointing.

    python -m physics_hybrid peak-memory [--grid 192 96 96] [--batch 1] [--output peak_memory.json]

Each case runs in a process of its own. On a GPU: what the allocator held at most; on a CPU: the
resident size of the process at its peak, libraries included, so that the figure is an upper bound.
"""

from __future__ import annotations

from physics_hybrid.evidence.bench import bench, seconds
from physics_hybrid.run.provenance import peak_memory

CASES = tuple(
    (model, precision, checkpointing)
    for model in ("fno_residual", "unet")
    for precision in ("float32", "bf16")
    for checkpointing in (False, True)
)


def one_step(overrides: list[str]) -> dict:
    """Two optimiser steps in this process; seconds of the second, and the peak."""
    b = bench(overrides)
    b.trainer.step([b.batch])
    step = seconds(lambda: b.trainer.step([b.batch]), b.machine)
    parameters = sum(p.numel() for p in b.trainer.model.parameters())
    return {
        "peak_GB": peak_memory(b.machine.device) / 1e3,
        "step_s": step,
        "device": str(b.machine),
        "parameters": parameters,
    }
