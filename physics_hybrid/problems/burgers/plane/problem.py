"""The square: the recipe, from the configuration.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from physics_hybrid.checks import among, at_least, positive, within
from physics_hybrid.problem import Place, Statistics
from physics_hybrid.problems.burgers.data.trajectories import SPLITS
from physics_hybrid.problems.burgers.guards import GUARDS
from physics_hybrid.problems.burgers.metrics import Metrics
from physics_hybrid.problems.burgers.plane.learning import PlaneEvolution, Squares, rivals_of
from physics_hybrid.problems.burgers.problem import (
    KEYS as LINE_KEYS,
)
from physics_hybrid.problems.burgers.problem import (
    TrajectoryRecipe,
    alone,
    check_steppers,
    model_name,
)
from physics_hybrid.training.order import Stored

#: Keys of conf that are this problem's.
KEYS = {
    **LINE_KEYS,
    "data": {
        "kind",
        "folder",
        "seed",
        "nu",
        "dt",
        "cells",
        "frames",
        "train",
        "validation",
        "test",
        "initial_step",
        "batch_size",
    },
}


@dataclass(frozen=True)
class PlaneRecipe(TrajectoryRecipe):
    """Implements `physics_hybrid.problem.Recipe`."""

    name = "burgers_plane"
    keys = KEYS

    def open(self, place: Place) -> PlaneEvolution:
        config, data, evaluation = (self.config, self.config["data"], self.config["evaluation"])
        for key in ("train", "validation", "test", "batch_size", "initial_step"):
            at_least(1, f"data.{key}", data[key])
        at_least(data["initial_step"] + 2, "data.frames", data["frames"])
        for key in ("dt", "nu"):
            positive(f"data.{key}", data[key])
        within(0, 1, "loss.pushforward", config["loss"]["pushforward"])
        check_steppers(evaluation["steppers"], data["cells"])
        for guard in config["problem"]["guards"]:
            among(GUARDS, "problem.guards", guard)
        for key in ("compiled", "twice_substeps"):
            if evaluation.get(key):
                raise ValueError(f"evaluation.{key} is of one dimension: leave it out")
        source = Squares(
            count={split: data[split] for split in SPLITS},
            seed=data["seed"],
            nu=data["nu"],
            dt=data["dt"],
            frames=data["frames"],
            cells=data["cells"],
            folder=Path(data["folder"]).expanduser(),
        )
        rivals, names = rivals_of(evaluation["steppers"], data["dt"], data["nu"])
        who = model_name(config["model"])
        return PlaneEvolution(
            source=source,
            order=Stored.of(place, count=data["train"], batch_size=data["batch_size"]),
            seed=config["seed"],
            epochs=config["training"]["epochs"],
            pushforward=config["loss"]["pushforward"],
            metrics=Metrics(data["initial_step"]),
            rivals=rivals,
            contenders={**names, "": who},
            place=place,
            batch_size=evaluation["batch_size"],
            model_name=who,
            tested_split=self.tested,
            alone=alone(config["model"]),
        )

    def build_model(self, statistics: Statistics) -> nn.Module:
        from hydra.utils import instantiate

        from physics_hybrid.problems.burgers.plane.step import PlaneStep

        model = self.config["model"]
        channels = 3 if model["composition"] == "direct" else 4
        backbone = instantiate(
            model["backbone"], in_channels=channels, dimension=2, _convert_="all"
        )
        step: nn.Module = PlaneStep(
            backbone=backbone,
            cells=model["cells"],
            composition=model["composition"],
            scale=model["scale"],
            guards=list(self.config["problem"]["guards"]),
            **statistics,
        )
        return step

    def statistics_of(self, model: nn.Module) -> Statistics:
        step: Any = model
        known: Statistics = step.statistics
        return known

    def predictor(self, model: nn.Module) -> Any:
        return model
