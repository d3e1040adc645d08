"""What wrapper, losses and trainer cost: one training step of the whole pipeline against the bare backbone.

    python -m physics_hybrid.step_overhead [--repeats 20] [--output step_overhead.json]

Both work on the same tensors with the same optimiser. Steps alternate, so that both see the same machine; the figure is the
ratio of medians. The time to solve a streamed batch is listed beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch


def measure(config: dict, repeats: int) -> dict:
    """Medians in seconds and their ratio, for a resolved configuration."""
    from physics_hybrid.launch import initialize
    from physics_hybrid.potential.problem import build_data, build_model, build_problem, model_inputs, sigma_statistics
    from physics_hybrid.session import settings_of
    from physics_hybrid.training.tracker import Tracker
    from physics_hybrid.training.trainer import Trainer

    machine = initialize(config["training"]["device"])
    data = build_data(config, machine.device)
    problem = build_problem(config, data)
    normalisation = sigma_statistics(data, config["model"]["sigma_input"], config["model"]["sigma_eps"], 4)
    whole, bare = (build_model(config, normalisation).to(machine.device) for _ in range(2))
    trainer = Trainer(whole, problem, settings_of(config["training"]), machine, Path("."), Tracker(), config, normalisation)
    started = time.perf_counter()
    batch = next(problem.train_batches(0, 0))
    solving = time.perf_counter() - started
    with torch.no_grad():
        features = bare.prepare(model_inputs(batch), batch.spacing)[0]
    target = torch.randn_like(features[:, :1])
    optimizer = torch.optim.AdamW(bare.backbone.parameters(), lr=1e-3)

    def bare_step():
        optimizer.zero_grad(set_to_none=True)
        (bare.backbone(features) - target).square().mean().backward()
        optimizer.step()

    times: dict[str, list[float]] = {"bare": [], "whole": []}
    for i in range(repeats + 2):
        for name, step in (("bare", bare_step), ("whole", lambda: trainer._update([batch]))):
            if machine.device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            step()
            if machine.device.type == "cuda":
                torch.cuda.synchronize()
            if i >= 2:
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "ratio": medians["whole"] / medians["bare"], "bare_step_s": medians["bare"], "whole_step_s": medians["whole"], "solve_batch_s": solving,
        "batch": list(batch.u.shape), "backbone": config["model"]["backbone"]["_target_"], "device": str(machine), "repeats": repeats,
    }


def main() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", default="step_overhead.json")
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    arguments = parser.parse_args()
    conf = Path(__file__).resolve().parents[1] / "conf"
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        config = OmegaConf.to_container(compose("config", overrides=["run=overhead", *arguments.overrides]), resolve=True)
    result = measure(config, arguments.repeats)
    Path(arguments.output).write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
