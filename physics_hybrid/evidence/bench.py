"""What the measuring scripts share: a trainer and one batch, built from configuration overrides,
with nothing written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.command_line import CONF


@dataclass
class Bench:
    """config: resolved; trainer: ready for `step([batch])`; solve_s: seconds to draw and solve the
    batch.
    """

    config: dict[str, Any]
    machine: Machine
    problem: Any
    trainer: Any
    batch: Any
    statistics: dict[str, Any]
    solve_s: float


def configuration(overrides: list[str]) -> dict[str, Any]:
    """conf/config.yaml with overrides, resolved: what train.py would use."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)


def bench(overrides: list[str], statistics_samples: int | None = 1) -> Bench:
    """Raises what train.py raises for the same overrides. statistics_samples: of
    model.statistics_samples; None: as configured.
    """
    from physics_hybrid.cluster.machine import initialize
    from physics_hybrid.problem import Place
    from physics_hybrid.run.load import recipe_of
    from physics_hybrid.run.train import settings_of
    from physics_hybrid.training.tracker import Tracker
    from physics_hybrid.training.trainer import Trainer

    config = configuration(["run=measure", *overrides])
    if statistics_samples is not None:
        config = {**config, "model": {**config["model"], "statistics_samples": statistics_samples}}
    machine = initialize(config["training"]["device"])
    recipe = recipe_of(config)
    problem = recipe.open(Place(machine.device, machine.rank, machine.world_size))
    statistics = problem.statistics()
    model, settings = recipe.build_model(statistics), settings_of(config["training"])
    trainer = Trainer(model, problem, settings, machine, Path("."), Tracker(), config, statistics)
    started = time.perf_counter()
    batch = next(problem.train_batches(0, 0, ()))
    return Bench(
        config, machine, problem, trainer, batch, statistics, time.perf_counter() - started
    )


def seconds(step, machine: Machine) -> float:
    """Wall time of one call, the GPU's work included."""
    import torch

    wait = torch.cuda.synchronize if machine.device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - started
