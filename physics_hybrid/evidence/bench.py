"""What the measuring scripts share: a trainer and one batch, built from configuration overrides,
with nothing written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.command_line import CONF
from physics_hybrid.configuration import check_overrides, composing, resolved


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
    """conf/config.yaml with overrides, resolved: what train.py would use.

    Raises
    ------
    UsageError
        For what train.py refuses.
    """
    from hydra import compose

    words = check_overrides(CONF, "config", overrides)
    with composing(CONF):
        return resolved(CONF, "config", compose("config", overrides=words), words)


def configuration_for(model: Any) -> dict[str, Any]:
    """conf/ for a model that carries none: that of the problem whose package its class lies in.

    A problem NAME has conf/problem/NAME.yaml and, where its groups are not those of config.yaml,
    conf/experiment/NAME.yaml.
    """
    for path in sorted((CONF / "problem").glob("[!_]*.yaml")):
        package = yaml.safe_load(path.read_text())["_target_"].rsplit(".", 2)[0]
        if type(model).__module__.startswith(f"{package}."):
            if (CONF / "experiment" / path.name).exists():
                return configuration([f"experiment={path.stem}"])
            return configuration([f"problem={path.stem}"])
    return configuration([])


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
    if statistics_samples is not None and "statistics_samples" in config["model"]:
        config = {**config, "model": {**config["model"], "statistics_samples": statistics_samples}}
    machine = initialize(config["training"]["device"])
    recipe = recipe_of(config)
    problem = recipe.open(Place(machine.device, machine.rank, machine.world_size))
    statistics = problem.statistics()
    trainer = Trainer(
        recipe.build_model(statistics),
        problem,
        settings_of(config["training"]),
        machine,
        Path("."),
        Tracker(),
        config,
        statistics,
    )
    started = time.perf_counter()
    batch = next(problem.train_batches(0, 0, ()))
    solve_s = time.perf_counter() - started
    return Bench(
        config=config,
        machine=machine,
        problem=problem,
        trainer=trainer,
        batch=batch,
        statistics=statistics,
        solve_s=solve_s,
    )


def seconds(step: Callable[[], object], machine: Machine) -> float:
    """Wall time of one call, the GPU's work included."""
    _wait(machine)
    started = time.perf_counter()
    step()
    _wait(machine)
    return time.perf_counter() - started


def _wait(machine: Machine) -> None:
    """Until the GPU has done what it was told."""
    import torch

    if machine.device.type == "cuda":
        torch.cuda.synchronize()
