"""The latent simulator: the recipe of its two stages, from the configuration.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from physics_hybrid.checks import at_least, one_of
from physics_hybrid.problem import Place, Statistics
from physics_hybrid.problems.burgers.latent.learning import LatentEvolution, Reconstruction
from physics_hybrid.problems.burgers.learning import rivals_of
from physics_hybrid.problems.burgers.metrics import Metrics
from physics_hybrid.problems.burgers.predictor import Predictor
from physics_hybrid.problems.burgers.problem import (
    DATA_KEYS,
    TrajectoryRecipe,
    before_of,
    cfl_of,
    check_kind,
    check_steppers,
    source_of,
    trained,
)
from physics_hybrid.training.order import Stored

#: Keys of conf that are this problem's.
KEYS = {
    "problem": {"_target_", "cache", "cfl"},
    "model": {
        "form",
        "from",
        "points",
        "tokens",
        "channels",
        "means",
        "width",
        "depth",
        "heads",
        "window",
        "learning_rate",
    },
    "loss": set[str](),
    "data": DATA_KEYS,
    "evaluation": {
        "after_training",
        "pictures",
        "batch_size",
        "steppers",
        "twice_substeps",
        "compiled",
    },
}


@dataclass(frozen=True)
class LatentRecipe(TrajectoryRecipe):
    """Implements `physics_hybrid.problem.Recipe`."""

    name = "burgers_latent"
    keys = KEYS

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(("autoencoder", "latent_step"), "model.form", self.config["model"].get("form"))
        check_kind(self.config)

    @property
    def form(self) -> str:
        return str(self.config["model"]["form"])

    def open(self, place: Place) -> Reconstruction | LatentEvolution:
        evaluation = self.config["evaluation"]
        at_least(1, "evaluation.batch_size", evaluation["batch_size"])
        if evaluation["compiled"]:
            raise ValueError("evaluation.compiled is not for the latent simulator: leave it out")
        if self.form == "autoencoder":
            return self._reconstruction(place)
        return self._evolution(place)

    def _reconstruction(self, place: Place) -> Reconstruction:
        config, data, model = self.config, self.config["data"], self.config["model"]
        source = source_of(config, place, self.whole)
        if source.statistics["points"] % model["points"]:
            raise ValueError(
                f"model.points={model['points']} must divide data.cells={data['cells']}: the"
                " encoder sees means over the cells of the data"
            )
        return Reconstruction(
            source=source,
            order=Stored.of(
                place, count=trained(source) * source.frames, batch_size=data["batch_size"]
            ),
            seed=config["seed"],
            points=model["points"],
            first=data["initial_step"] - 1,
            place=place,
            batch_size=config["evaluation"]["batch_size"],
            model_name=f"autoencoder, {model['tokens']} x {model['channels']}",
            tested_split=self.tested,
        )

    def _evolution(self, place: Place) -> LatentEvolution:
        config, data = self.config, self.config["data"]
        source = source_of(config, place, self.whole)
        check_steppers(config["evaluation"]["steppers"], data["cells"])
        rivals, names = rivals_of(
            config["evaluation"]["steppers"],
            source.statistics["dt"],
            config["evaluation"].get("twice_substeps", False),
            cfl_of(config["problem"]),
        )
        own = config["problem"]["cache"]
        return LatentEvolution(
            source=source,
            order=Stored.of(place, count=trained(source), batch_size=data["batch_size"]),
            seed=config["seed"],
            epochs=config["training"]["epochs"],
            pushforward=0.0,
            metrics=Metrics(data["initial_step"]),
            rivals=rivals,
            contenders={**names, "": "latent step"},
            place=place,
            batch_size=config["evaluation"]["batch_size"],
            model_name="latent step",
            tested_split=self.tested,
            autoencoder=self._autoencoder,
            cache=Path(own).expanduser() if own else None,
        )

    def _autoencoder(self) -> Any:
        """Of the stage before, with its weights.

        Raises
        ------
        ValueError
            There is none, or it is made for other cells.
        """
        source = self.config["model"]["from"]
        network = before_of(source, "Autoencoder", "burgers_autoencoder")
        if network.points != self.config["data"]["cells"]:
            raise ValueError(
                f"model.from={source} was trained on {network.points} cells, and data.cells is"
                f" {self.config['data']['cells']}"
            )
        return network

    def build_model(self, statistics: Statistics) -> nn.Module:
        """The autoencoder takes the weights of its run where it is still there, and still of that
        size; a state that is loaded brings its own.
        """
        from physics_hybrid.problems.burgers.latent.autoencoder import Autoencoder
        from physics_hybrid.problems.burgers.latent.step import LatentStep

        model = self.config["model"]
        if self.form == "autoencoder":
            sizes = {key: model[key] for key in ("points", "tokens", "channels", "means")}
            network: nn.Module = Autoencoder(**sizes)
            return network
        sizes = {key: model[key] for key in ("width", "depth", "heads", "window")}
        step = LatentStep(**statistics, **sizes, cfl=cfl_of(self.config["problem"]))
        before = before_of(model["from"], "Autoencoder", "burgers_autoencoder", needed=False)
        if before is not None and before.arguments == statistics["autoencoder"]:
            step.autoencoder.load_state_dict(before.state_dict())
            step.autoencoder.requires_grad_(False)
        return step

    def statistics_of(self, model: nn.Module) -> Statistics:
        known: Any = model
        if self.form == "autoencoder":
            return {}
        return {
            "autoencoder": known.autoencoder.arguments,
            "mean": known.mean.tolist(),
            "std": known.std.tolist(),
            "weight": known.weight.tolist(),
            **known.statistics,
        }

    def predictor(self, model: nn.Module) -> Predictor:
        return Predictor(model)
