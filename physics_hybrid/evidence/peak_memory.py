"""Peak memory of one training step at a given grid, for each backbone with and without activation
checkpointing.

Each case runs in a process of its own. On a GPU: what the allocator held at most; on a CPU: the
resident size of the process at its peak, libraries included, so that the figure is an upper bound.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from physics_hybrid.evidence.bench import bench, seconds
from physics_hybrid.grid import name_of
from physics_hybrid.run.provenance import peak_memory

#: Model, precision, whether activations are checkpointed.
CASES = tuple(itertools.product(("fno_residual", "unet"), ("float32", "bf16"), (False, True)))

HEAD = """\
| model | precision | activation checkpointing | peak, GB | step, s |
|---|---|---|---|---|"""


def one_step(overrides: list[str]) -> dict[str, Any]:
    """Two optimiser steps in this process; seconds of the second, and the peak."""
    b = bench(overrides)
    b.trainer.step([b.batch])
    step = seconds(partial(b.trainer.step, [b.batch]), b.machine)
    parameters = sum(p.numel() for p in b.trainer.model.parameters())
    return {
        "peak_GB": peak_memory(b.machine.device) / 1e3,
        "step_s": step,
        "device": str(b.machine),
        "parameters": parameters,
    }


def measure(grid: list[int], batch: int, overrides: list[str]) -> Iterator[dict[str, Any]]:
    """What `one_step` says of each case, as they finish; `error` instead where one failed."""
    for model, precision, checkpointing in CASES:
        row = {
            "model": model,
            "precision": precision,
            "checkpointing": checkpointing,
            "grid": name_of(tuple(grid)),
            "batch": batch,
        }
        words = [
            f"model={model}",
            f"data.grid=[{','.join(map(str, grid))}]",
            f"data.batch_size={batch}",
            f"training.precision={precision}",
            f"model.backbone.activation_checkpointing={str(checkpointing).lower()}",
        ]
        yield {**row, **_in_a_process([*words, *overrides])}


def _in_a_process(overrides: list[str]) -> dict[str, Any]:
    program = [sys.executable, "-m", "physics_hybrid", "peak-memory", "--one"]
    done = subprocess.run([*program, *overrides], capture_output=True, text=True)
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result
    said = done.stderr.strip().splitlines()
    return {"error": said[-1] if said else f"killed, exit {done.returncode}"}


def line(row: dict[str, Any]) -> str:
    """A row of the table below `HEAD`."""
    checkpointing = "yes" if row["checkpointing"] else "no"
    case = f"| {row['model']} | {row['precision']} | {checkpointing} |"
    if "error" in row:
        return f"{case} {row['error']} | |"
    return f"{case} {row['peak_GB']:.1f} | {row['step_s']:.1f} |"


def table(rows: list[dict[str, Any]]) -> str:
    """All rows, with the parameters of the models, as Markdown."""
    lines = [
        "| model | parameters | precision | activation checkpointing | peak, GB | step, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        parameters = f"{row['parameters'] / 1e6:.2f} M"
        checkpointing = "yes" if row["checkpointing"] else "no"
        lines.append(
            f"| {row['model']} | {parameters} | {row['precision']} | {checkpointing} |"
            f" {row['peak_GB']:.1f} | {row['step_s']:.1f} |"
        )
    first = rows[0]
    return "\n".join(lines) + f"\n\n{first['grid']}, batch {first['batch']}; {first['device']}."
