"""Peak memory of one training step at a given grid, for each backbone with and without activation checkpointing.

    python -m physics_hybrid.peak_memory [--grid 192 96 96] [--batch 1] [--output peak_memory.json]

Each case runs in a process of its own. On a GPU: what the allocator held at most; on a CPU: the resident size of the process at its
peak, libraries included, so that the figure is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from physics_hybrid.grid import name_of
from physics_hybrid.measure import bench, seconds
from physics_hybrid.run.provenance import peak_memory

CASES = tuple(
    (model, precision, checkpointing)
    for model in ("fno_residual", "unet") for precision in ("float32", "bf16") for checkpointing in (False, True)
)


def one_step(overrides: list[str]) -> dict:
    """Two optimiser steps in this process; seconds of the second, and the peak."""
    b = bench(overrides)
    b.trainer.step([b.batch])
    step = seconds(lambda: b.trainer.step([b.batch]), b.machine)
    parameters = sum(p.numel() for p in b.trainer.model.parameters())
    return {"peak_GB": peak_memory(b.machine.device) / 1e3, "step_s": step, "device": str(b.machine), "parameters": parameters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, nargs=3, default=[192, 96, 96])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--output", default="peak_memory.json")
    parser.add_argument("--one", nargs="*", default=None, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one_step(arguments.one)))
        return
    rows = []
    print("| model | precision | activation checkpointing | peak, GB | step, s |\n|---|---|---|---|---|", flush=True)
    for model, precision, checkpointing in CASES:
        grid = name_of(arguments.grid)
        overrides = [
            f"model={model}", f"data.grid=[{','.join(map(str, arguments.grid))}]", f"data.batch_size={arguments.batch}", f"training.precision={precision}",
            f"model.backbone.activation_checkpointing={str(checkpointing).lower()}", *arguments.overrides,
        ]
        done = subprocess.run([sys.executable, "-m", "physics_hybrid.peak_memory", "--one", *overrides], capture_output=True, text=True)
        row = {"model": model, "precision": precision, "checkpointing": checkpointing, "grid": grid, "batch": arguments.batch}
        if done.returncode == 0:
            row |= json.loads(done.stdout.strip().splitlines()[-1])
            print(f"| {model} | {precision} | {'yes' if checkpointing else 'no'} | {row['peak_GB']:.1f} | {row['step_s']:.1f} |", flush=True)
        else:
            row["error"] = (done.stderr.strip().splitlines() or [f"killed, exit {done.returncode}"])[-1]
            print(f"| {model} | {precision} | {'yes' if checkpointing else 'no'} | {row['error']} | |", flush=True)
        rows.append(row)
    Path(arguments.output).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
