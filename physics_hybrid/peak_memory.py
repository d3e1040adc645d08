"""Peak memory of one training step at a given grid, for each backbone with and without activation checkpointing.

    python -m physics_hybrid.peak_memory [--grid 192 96 96] [--batch 1] [--output peak_memory.json]

Each case runs in a process of its own. On a GPU: what the allocator held at most; on a CPU: the resident size of the process at its
peak, libraries included, so that the figure is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

CASES = tuple(
    (model, precision, checkpointing)
    for model in ("fno_residual", "unet") for precision in ("float32", "bf16") for checkpointing in (False, True)
)


def one_step(overrides: list[str]) -> dict:
    """Two optimiser steps in this process; seconds of the second, and the peak."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    conf = Path(__file__).resolve().parents[1] / "conf"
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        config = OmegaConf.to_container(compose("config", overrides=["run=memory", *overrides]), resolve=True)
    import torch

    from physics_hybrid.launch import initialize
    from physics_hybrid.potential.problem import build_data, build_model, build_problem, sigma_statistics
    from physics_hybrid.session import settings_of
    from physics_hybrid.training.tracker import Tracker
    from physics_hybrid.training.trainer import Trainer

    machine = initialize(config["training"]["device"])
    data = build_data(config, machine.device)
    problem = build_problem(config, data)
    model = build_model(config, sigma_statistics(data, config["model"]["sigma_input"], config["model"]["sigma_eps"], 1))
    trainer = Trainer(model, problem, settings_of(config["training"]), machine, Path("."), Tracker(), config, {})
    batch = next(problem.train_batches(0, 0))
    for _ in range(2):
        started = time.perf_counter()
        loss = trainer._update([batch])["loss"]
        seconds = time.perf_counter() - started
    if machine.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    return {"peak_GB": peak, "step_s": seconds, "loss": loss, "device": str(machine), "parameters": sum(p.numel() for p in model.parameters())}


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
        grid = "x".join(map(str, arguments.grid))
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
