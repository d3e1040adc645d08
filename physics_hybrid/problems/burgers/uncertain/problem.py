"""The uncertain start: the recipe, from the configuration.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from physics_hybrid.checks import among, at_least, positive
from physics_hybrid.problem import Config, Place, Statistics
from physics_hybrid.problems.burgers.problem import (
    DATA_KEYS,
    TrajectoryRecipe,
    before_of,
    cfl_of,
    check_kind,
    source_of,
    trained,
)
from physics_hybrid.problems.burgers.stepper import UNSAID
from physics_hybrid.problems.burgers.uncertain.learning import Uncertain
from physics_hybrid.problems.burgers.uncertain.observation import Observation, frames_ahead
from physics_hybrid.problems.burgers.uncertain.stages import LOSSES
from physics_hybrid.training.order import Stored

#: Keys of conf that are this problem's.
KEYS = {
    "problem": {"_target_", "cells", "noise", "ahead", "starts", "stepper", "cfl"},
    "model": {"form", "from", "width", "levels", "steps", "learning_rate"},
    "loss": set[str](),
    "data": DATA_KEYS,
    "evaluation": {"after_training", "pictures", "batch_size", "members"},
}

#: Of them, what says how a start is seen, and what is made of it.
SEEN = ("cells", "noise", "ahead", "stepper", "cfl")

#: The model that a stage needs, and the experiment that trains it.
STAGES = {
    "diffusion": ("MeanForecast", "burgers_mean"),
    "consistency": ("ResidualDiffusion", "burgers_diffusion"),
}


@dataclass(frozen=True)
class UncertainRecipe(TrajectoryRecipe):
    """Implements `physics_hybrid.problem.Recipe`."""

    name = "burgers_uncertain"
    keys = KEYS

    def __post_init__(self) -> None:
        super().__post_init__()
        among(LOSSES, "model.form", self.config["model"].get("form"))
        check_kind(self.config)

    def open(self, place: Place) -> Uncertain:
        config, data = self.config, self.config["data"]
        at_least(2, "evaluation.members", config["evaluation"]["members"])
        at_least(1, "evaluation.batch_size", config["evaluation"]["batch_size"])
        source = source_of(config, place, self.whole)
        known = source.statistics
        if len(known["nu"]) > 1:
            raise ValueError(f"problem=burgers_uncertain takes one data.nu; got {known['nu']}")
        first, last = self._starts(known["dt"], source.frames)
        return Uncertain(
            source=source,
            observation=self._observation(known),
            starts=(first, last),
            tested_start=data["initial_step"] - 1,
            order=Stored.of(place, count=trained(source), batch_size=data["batch_size"]),
            seed=config["seed"],
            form=self.form,
            members=config["evaluation"]["members"],
            place=place,
            batch_size=config["evaluation"]["batch_size"],
            model_name=self.model_name,
            previous=None if self.form == "mean" else self._previous,
            tested_split=self.tested,
        )

    def _starts(self, dt: float, frames: int) -> tuple[int, int]:
        first, last = self.config["problem"]["starts"]
        ahead, tested = self.config["problem"]["ahead"], self.config["data"]["initial_step"] - 1
        count = frames_ahead(ahead, dt)
        if not 0 <= first <= last or last + count >= frames:
            raise ValueError(
                f"problem.starts must be two frames, the first not after the last, with"
                f" problem.ahead={ahead:g} more in a trajectory of {frames} frames; got"
                f" {[first, last]}"
            )
        if tested + count >= frames:
            raise ValueError(
                f"data.initial_step - 1 = {tested} is the start that is tested, and"
                f" problem.ahead={ahead:g} later is beyond a trajectory of {frames} frames"
            )
        return first, last

    def _observation(self, known: dict[str, Any]) -> Observation:
        problem = self.config["problem"]
        positive("problem.noise", problem["noise"])
        points = known["points"]
        for key in ("cells", "stepper"):
            at_least(4, f"problem.{key}", problem[key])
            if points % problem[key] or problem["stepper"] % problem["cells"]:
                raise ValueError(
                    f"problem.{key} must divide data.cells={points}, and problem.cells"
                    f" problem.stepper; got {problem[key]}"
                )
        return Observation(
            cells=problem["cells"],
            noise=problem["noise"],
            ahead=frames_ahead(problem["ahead"], known["dt"]),
            dt=known["dt"],
            nu=known["nu"][0],
            stepper=problem["stepper"],
            cfl=cfl_of(problem),
        )

    @property
    def form(self) -> str:
        return str(self.config["model"]["form"])

    @property
    def model_name(self) -> str:
        model = self.config["model"]
        if self.form == "mean":
            return "mean (U-Net)"
        if self.form == "diffusion":
            return f"diffusion, Heun {model['steps']}"
        return f"consistency, {model['steps']} step{'s' if model['steps'] > 1 else ''}"

    def _previous(self) -> Any:
        """The model of the stage before.

        Raises
        ------
        ValueError
            There is none, or its run was given other observations.
        """
        source = self.config["model"]["from"]
        before = before_of(source, *STAGES[self.form])
        path = Path(str(source)).expanduser() / "config.yaml"
        if path.exists():
            self._refuse_other_observations(yaml.safe_load(path.read_text()), source)
        return before

    def _refuse_other_observations(self, config: Config, source: str) -> None:
        problem, earlier = self.config["problem"], {"cfl": UNSAID, **config["problem"]}
        for key in SEEN:
            if earlier.get(key) != {"cfl": UNSAID, **problem}[key]:
                raise ValueError(
                    f"model.from={source} was trained with problem.{key}={earlier.get(key)}, and"
                    f" this is {problem.get(key)}: stages must see the same"
                )

    def build_model(self, statistics: Statistics) -> nn.Module:
        """Parts of earlier stages take the weights of their run where it is still there, and still
        of that size; a state that is loaded brings its own.
        """
        from physics_hybrid.problems.burgers.uncertain import networks

        model = self.config["model"]
        if self.form == "mean":
            mean: nn.Module = networks.MeanForecast(model["width"], model["levels"])
            return mean
        before = before_of(model["from"], *STAGES[self.form], needed=False)
        if self.form == "diffusion":
            diffusion = networks.ResidualDiffusion(
                **statistics, width=model["width"], levels=model["levels"], steps=model["steps"]
            )
            if before is not None and before.arguments == statistics["mean"]:
                diffusion.mean.load_state_dict(before.state_dict())
            return _frozen(diffusion, "mean")
        student = networks.Consistency(**statistics, steps=model["steps"])
        if before is not None and before.arguments == statistics["teacher"]:
            student.teacher.load_state_dict(before.state_dict())
            student.begin()
        return _frozen(student, "teacher")

    def statistics_of(self, model: nn.Module) -> Statistics:
        known: Any = model
        if self.form == "mean":
            return {}
        if self.form == "diffusion":
            return {"mean": known.arguments["mean"], "std": known.std}
        return {"teacher": known.teacher.arguments}

    def predictor(self, model: nn.Module) -> Any:
        return model


def _frozen(model: nn.Module, part: str) -> nn.Module:
    getattr(model, part).requires_grad_(False)
    return model
