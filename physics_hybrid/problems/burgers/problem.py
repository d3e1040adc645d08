"""Burgers as a learning problem: the recipe, from the configuration.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from physics_hybrid.checks import among, at_least, one_of, positive, within
from physics_hybrid.problem import (
    Config,
    Excerpt,
    Place,
    Statistics,
    refuse_foreign,
    refuse_options,
)
from physics_hybrid.problems.burgers.data import pdebench
from physics_hybrid.problems.burgers.data.generate import Generated
from physics_hybrid.problems.burgers.data.source import Made, Read, Source
from physics_hybrid.problems.burgers.data.trajectories import SPLITS
from physics_hybrid.problems.burgers.guards import GUARDS
from physics_hybrid.problems.burgers.learning import Evolution, rivals_of
from physics_hybrid.problems.burgers.metrics import Metrics
from physics_hybrid.problems.burgers.predictor import Predictor
from physics_hybrid.problems.burgers.stepper import UNSAID
from physics_hybrid.training.order import Stored

#: Keys of trajectories.
DATA_KEYS = {
    "kind",
    "path",
    "folder",
    "seed",
    "nu",
    "dt",
    "stride",
    "reduce",
    "cells",
    "frames",
    "train",
    "validation",
    "test",
    "initial_step",
    "batch_size",
}
#: Keys of conf that are this problem's.
KEYS = {
    "problem": {"_target_", "guards", "cfl"},
    "model": {"backbone", "cells", "composition", "scale", "learning_rate"},
    "loss": {"pushforward"},
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
#: Who a backbone is, in the table.
NAMES = {"PeriodicUNet": "U-Net", "PeriodicFNO": "FNO"}


@dataclass(frozen=True)
class TrajectoryRecipe:
    """What the recipes of trajectories have in common.

    config : the whole resolved configuration. tested : the split that is tested. whole : a file is
        tested from its first sample to its last: nothing of it trains.
    """

    config: Config
    tested: str = "test"
    whole: bool = False

    #: Of conf/problem, and the keys of conf that are its own.
    name: ClassVar[str]
    keys: ClassVar[Mapping[str, set[str]]]

    def __post_init__(self) -> None:
        for group, known in self.keys.items():
            refuse_foreign(self.config, group, known, self.name)

    def excerpt(self, samples: int, folder: Path) -> Excerpt:
        return excerpt_of(self, samples, folder)

    def for_evaluation(self, options: Config, model: nn.Module) -> Self:
        """Data of conf/evaluate.yaml where it has any, else those of the run."""
        one_of(("all", *SPLITS), "split", options["split"])
        return type(self)(*for_evaluation(self.config, options))


def check_kind(config: Config) -> None:
    """Raise ValueError for trajectories of a kind that there is not."""
    one_of(("generated", "pdebench"), "data.kind", config["data"].get("kind"))


@dataclass(frozen=True)
class BurgersRecipe(TrajectoryRecipe):
    """Implements `physics_hybrid.problem.Recipe`."""

    name = "burgers"
    keys = KEYS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind(self.config)

    def open(self, place: Place) -> Evolution:
        config, data = self.config, self.config["data"]
        self._check()
        source = source_of(config, place, self.whole)
        rivals, names = rivals_of(
            config["evaluation"]["steppers"],
            source.statistics["dt"],
            config["evaluation"].get("twice_substeps", False),
            cfl_of(config["problem"]),
        )
        return Evolution(
            source=source,
            order=Stored.of(place, count=trained(source), batch_size=data["batch_size"]),
            seed=config["seed"],
            epochs=config["training"]["epochs"],
            pushforward=config["loss"]["pushforward"],
            metrics=Metrics(data["initial_step"]),
            rivals=rivals,
            contenders={**names, "": self.model_name},
            place=place,
            batch_size=config["evaluation"]["batch_size"],
            model_name=self.model_name,
            tested_split=self.tested,
            said=self._notes(),
            compiled=config["evaluation"]["compiled"],
            alone=alone(config["model"]),
        )

    def _check(self) -> None:
        data, evaluation = self.config["data"], self.config["evaluation"]
        at_least(1, "evaluation.batch_size", evaluation["batch_size"])
        within(0, 1, "loss.pushforward", self.config["loss"]["pushforward"])
        check_steppers(evaluation["steppers"], data["cells"])
        for guard in self.config["problem"]["guards"]:
            among(GUARDS, "problem.guards", guard)

    @property
    def guards(self) -> list[str]:
        """Sampled values have no mean that is conserved: then none."""
        if self.config["data"].get("reduce") == "sample":
            return []
        return list(self.config["problem"]["guards"])

    def _notes(self) -> list[str]:
        if list(self.config["problem"]["guards"]) == self.guards:
            return []
        return ["data.reduce=sample keeps no mean: problem.guards are off"]

    @property
    def model_name(self) -> str:
        return model_name(self.config["model"])

    def build_model(self, statistics: Statistics) -> nn.Module:
        from hydra.utils import instantiate

        from physics_hybrid.problems.burgers.step import HybridStep

        model = self.config["model"]
        channels = 2 if model["composition"] == "direct" else 3
        backbone = instantiate(model["backbone"], in_channels=channels, _convert_="all")
        step: nn.Module = HybridStep(
            backbone=backbone,
            cells=model["cells"],
            composition=model["composition"],
            scale=model["scale"],
            guards=self.guards,
            cfl=cfl_of(self.config["problem"]),
            **statistics,
        )
        return step

    def statistics_of(self, model: nn.Module) -> Statistics:
        step: Any = model
        known: Statistics = step.statistics
        return known

    def predictor(self, model: nn.Module) -> Predictor:
        return Predictor(model)


def model_name(model: Config) -> str:
    """U-Net + stepper 256, say."""
    target = str(model["backbone"]["_target_"]).rsplit(".", 1)[-1]
    name = NAMES.get(target, target)
    if model["composition"] == "direct":
        return f"{name} alone"
    return f"{name} + stepper {model['cells']}"


def alone(model: Config) -> str:
    """Prefix of the contender that a model corrects: its stepper; of `direct` the state itself."""
    return "persistence_" if model["composition"] == "direct" else f"stepper{model['cells']}_"


def for_evaluation(config: Config, options: Config) -> tuple[Config, str, bool]:
    """The configuration to test a model with, the split, and whether that is the whole file: one
    that the run was not trained on. options: conf/evaluate.yaml.

    Raises
    ------
    ValueError
        An option that would have no effect.
    """
    refuse_options(options, {"samples", "split"}, "burgers")
    if options["samples"] is not None and options["split"] not in ("all", "test"):
        raise ValueError(
            f"samples={options['samples']} counts test trajectories: leave split={options['split']}"
            " out"
        )
    evaluation = dict(config["evaluation"])
    if options["batch_size"] is not None:
        evaluation["batch_size"] = options["batch_size"]
    other, split = options.get("data"), options["split"]
    data = dict(other or config["data"])
    whole = bool(other) and split == "all" and data["kind"] == "pdebench"
    if whole:
        data["test"] = None
    if options["samples"] is not None:
        data["test"] = options["samples"]
    tested = "test" if split == "all" else split
    return {**config, "evaluation": evaluation, "data": data}, tested, whole


def before_of(source: Any, wanted: str, experiment: str, needed: bool = True) -> Any:
    """The best model of the run of the stage before, or of a .mdlus file.

    wanted : its class. experiment : that trains one. needed : whether None is no answer.

    Raises
    ------
    ValueError
        There is none and it is needed, or it is of another stage.
    """
    from physics_hybrid.models.model_files import load_model

    path = Path(str(source or "")).expanduser()
    model = next((load_model(p) for p in (path / "best", path) if source and p.exists()), None)
    if model is None and not needed:
        return None
    if type(model).__name__ != wanted:
        there = "is not there" if model is None else f"holds a {type(model).__name__}"
        raise ValueError(
            f"model.from={source} {there}: train the stage before first (python train.py"
            f" experiment={experiment} run=NAME), and give model.from=runs/NAME"
        )
    return model


def cfl_of(problem: Config) -> float:
    """Share of the limit that substeps of the baseline use. Raises ValueError beyond (0, 1]."""
    cfl = problem.get("cfl", UNSAID)
    within(0, 1, "problem.cfl", cfl, ends="(]")
    return float(cfl)


def check_steppers(steppers: Sequence[int], cells: int) -> None:
    """Raise ValueError for a grid that the states cannot be brought to."""
    for count in steppers:
        at_least(4, "each of evaluation.steppers", count)
        if cells % count and count % cells:
            raise ValueError(
                f"evaluation.steppers: {count} is no divisor and no multiple of data.cells={cells}"
            )


def source_of(config: Config, place: Place, whole: bool = False) -> Source:
    """Trajectories as configured: nothing is made yet, a file is read. whole : it is tested from
    its first sample to its last.

    Raises
    ------
    ValueError
        A choice that cannot be meant, or a file that breaks a rule.
    """
    data = config["data"]
    for key in ("train", "validation", "test", "batch_size", "initial_step"):
        if not (whole and data[key] is None):
            at_least(1, f"data.{key}", data[key])
    at_least(8, "data.cells", data["cells"])
    frames, needed = data["frames"], data["initial_step"] + 2
    all_of_them = frames is None and data["kind"] == "pdebench"
    if not all_of_them and (frames is None or frames < needed):
        raise ValueError(
            f"data.frames must be at least data.initial_step + 2 = {needed}; got {frames}"
        )
    if data["kind"] == "pdebench":
        return _read(data, place, whole)
    positive("data.dt", data["dt"])
    viscosities = data["nu"] if isinstance(data["nu"], list) else [data["nu"]]
    if not viscosities or len({*viscosities}) < len(viscosities):
        raise ValueError(f"data.nu must be different viscosities, one at least; got {data['nu']}")
    sets = {
        split: [
            Generated(
                split=split,
                count=data[split],
                seed=data["seed"],
                nu=nu,
                dt=data["dt"],
                frames=data["frames"],
                cells=data["cells"],
            )
            for nu in viscosities
        ]
        for split in SPLITS
    }
    return Made(sets, Path(data["folder"]).expanduser())


def _read(data: Config, place: Place, whole: bool) -> Read:
    if not data["path"]:
        raise ValueError("data=pdebench needs data.path=FILE.hdf5 (see docs/burgers.md)")
    at_least(1, "data.stride", data["stride"])
    if not isinstance(data["nu"], int | float | None):
        raise ValueError(f"data.nu must be one number, that of the file; got {data['nu']}")
    layout = pdebench.Layout(
        cells=data["cells"],
        stride=data["stride"],
        frames=data["frames"],
        reduce=data["reduce"],
        nu=data["nu"],
    )
    path = Path(place.stage(str(Path(data["path"]).expanduser())))
    if whole:
        splits = pdebench.read_whole(path, layout, data["test"])
    else:
        splits = pdebench.read(path, layout, data["train"], data["validation"], data["test"])
    frames, needed = splits["train"].frames, data["initial_step"] + 2
    if frames < needed:
        raise ValueError(
            f"{path} has {frames} frames at data.stride={data['stride']}, and data.initial_step + 2"
            f" = {needed} are needed: lower one of the two"
        )
    return Read(splits)


def excerpt_of(recipe: Any, samples: int, folder: Path) -> Excerpt:
    """A recipe of this package with fewer trajectories, made in `folder`; a file stays as it is.

    Those that the whole recipe would find in its own folder cost nothing there.
    """
    config, data = recipe.config, dict(recipe.config["data"])
    if data["kind"] != "generated":
        return Excerpt(recipe)
    source: Any = source_of(config, Place(torch.device("cpu")))
    folder_there = Path(data["folder"]).expanduser()
    missing = {
        split: sum(s.count for s in sets if not s.path(folder_there).exists())
        for split, sets in source.sets.items()
    }
    few = {
        "train": min(data["train"], 2 * data["batch_size"]),
        "validation": min(data["validation"], samples),
        "test": min(data["test"], config["evaluation"]["batch_size"]),
    }
    viscosities = len(source.sets["train"])
    made = {split: viscosities * count for split, count in few.items()}
    cut = {**config, "data": {**data, **few, "folder": str(folder)}}
    if config["problem"].get("cache"):
        cut["problem"] = {**config["problem"], "cache": str(folder)}
    trained_on = SPLITS[:2]
    return Excerpt(
        recipe=replace(recipe, config=cut),
        prepare=sum(missing[s] for s in trained_on) / sum(made[s] for s in trained_on),
        validate=data["validation"] / few["validation"],
        tested=missing["test"] / made["test"],
        samples=data["test"],
    )


def trained(source: Source) -> int:
    """Trajectories that train, without making them."""
    if isinstance(source, Made):
        return sum(settings.count for settings in source.sets["train"])
    return len(source.split("train"))
