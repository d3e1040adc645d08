"""Peak memory of one training step at a given grid, for each backbone."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    from physics_hybrid.evidence import peak_memory as about
    from physics_hybrid.evidence.peak_memory import CASES, one_step
    from physics_hybrid.grid import name_of

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", type=int, nargs=3, default=[192, 96, 96])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--output", default="peak_memory.json")
    parser.add_argument("--one", nargs="*", default=None, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    given = parser.parse_args(arguments)
    if given.one is not None:
        print(json.dumps(one_step(given.one)))
        return
    rows = []
    print(
        "| model | precision | activation checkpointing | peak, GB | step, s"
        " |\n|---|---|---|---|---|",
        flush=True,
    )
    for model, precision, checkpointing in CASES:
        grid = name_of(given.grid)
        overrides = [
            f"model={model}",
            f"data.grid=[{','.join(map(str, given.grid))}]",
            f"data.batch_size={given.batch}",
            f"training.precision={precision}",
            f"model.backbone.activation_checkpointing={str(checkpointing).lower()}",
            *given.overrides,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "physics_hybrid", "peak-memory", "--one", *overrides],
            capture_output=True,
            text=True,
        )
        row = {
            "model": model,
            "precision": precision,
            "checkpointing": checkpointing,
            "grid": grid,
            "batch": given.batch,
        }
        if done.returncode == 0:
            row |= json.loads(done.stdout.strip().splitlines()[-1])
            print(
                f"| {model} | {precision} | {'yes' if checkpointing else 'no'} |"
                f" {row['peak_GB']:.1f} | {row['step_s']:.1f} |",
                flush=True,
            )
        else:
            row["error"] = (
                done.stderr.strip().splitlines() or [f"killed, exit {done.returncode}"]
            )[-1]
            print(
                f"| {model} | {precision} | {'yes' if checkpointing else 'no'} |"
                f" {row['error']} | |",
                flush=True,
            )
        rows.append(row)
    Path(given.output).write_text(json.dumps(rows, indent=1))
