"""The flavour closure as a learning problem: the recipe, from the configuration.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from physics_hybrid.checks import at_least, not_negative, one_of, positive
from physics_hybrid.problem import Config, Place, Statistics, refuse_foreign, refuse_options
from physics_hybrid.problems.flavour.control import ControlSettings, train_control
from physics_hybrid.problems.flavour.data.files import Layout, read
from physics_hybrid.problems.flavour.data.states import SPLITS, States, split
from physics_hybrid.problems.flavour.learning import Flavour, feature_statistics
from physics_hybrid.problems.flavour.losses import TERMS, FlavourLoss
from physics_hybrid.problems.flavour.metrics import Metrics
from physics_hybrid.problems.flavour.physics.sphere import quadrature
from physics_hybrid.problems.flavour.predictor import Predictor
from physics_hybrid.training.order import Stored

#: Keys of conf that are this problem's.
KEYS = {
    "problem": {"_target_", "quadrature"},
    "model": {"network", "guard", "target_scale", "learning_rate"},
    "loss": {*TERMS, "floor"},
    "data": {
        "kind",
        "path",
        "axes",
        "species",
        "components",
        "families",
        "tolerance",
        "batch_size",
        "splits",
        "hold_out",
    },
    "evaluation": {"after_training", "pictures", "batch_size", "floor", "control"},
}
#: The generated set, inside the package.
SHIPPED = Path(__file__).parent / "data" / "generated.h5"
NAMES = {"FlavourMLP": "MLP", "FlavourEquivariant": "equivariant"}


@dataclass(frozen=True)
class FlavourRecipe:
    """Implements `physics_hybrid.problem.Recipe`.

    config : the whole resolved configuration.
    tested : the split that is tested, or all.
    """

    config: Config
    tested: str = "test"

    def __post_init__(self) -> None:
        for group, known in KEYS.items():
            refuse_foreign(self.config, group, known, "flavour")
        kind = self.config["data"].get("kind")
        one_of(("flavour", "emu"), "data.kind", kind)

    def open(self, place: Place) -> Flavour:
        config, data = self.config, self.config["data"]
        at_least(1, "data.batch_size", data["batch_size"])
        at_least(1, "evaluation.batch_size", config["evaluation"]["batch_size"])
        states = read(Path(place.stage(str(_path(data)))), _layout(data)).to(place.device)
        splits = self._splits(states)
        order = None
        if len(splits["train"]):
            order = Stored.of(place, count=len(splits["train"]), batch_size=data["batch_size"])
        rule = quadrature(**config["problem"]["quadrature"])
        return Flavour(
            samples=splits,
            own=data["path"] is not None,
            order=order,
            seed=config["seed"],
            criterion=self._loss(),
            metrics=Metrics(config["evaluation"]["floor"], rule),
            rule=rule,
            place=place,
            batch_size=config["evaluation"]["batch_size"],
            target_scale=_target_scale(config["model"]["target_scale"]),
            train_control=self._train_control if self._has_control(splits["train"]) else None,
            model_name=NAMES.get(self._network().rsplit(".", 1)[-1], "closure"),
        )

    def _splits(self, states: States) -> dict[str, States]:
        data = self.config["data"]
        rows = split(states.families, data["splits"], data["hold_out"], self.config["seed"])
        if self.tested == "all":
            rows["test"] = list(range(len(states)))
        elif self.tested != "test":
            rows["test"] = rows[self.tested]
        parts = {name: states.rows(rows[name]) for name in SPLITS}
        if data["splits"].get("train", 0) > 0:
            for name in ("train", "validation"):
                if not len(parts[name]):
                    raise ValueError(
                        f"{_path(data)} has {len(states)} samples, and none is left to"
                        f" {name}: set a larger data.splits.{name}, or bring more"
                    )
        return parts

    def _loss(self) -> FlavourLoss:
        loss = self.config["loss"]
        positive("loss.floor", loss["floor"])
        for name in TERMS:
            not_negative(f"loss.{name}.weight", loss[name]["weight"])
        return FlavourLoss({name: loss[name]["weight"] for name in TERMS}, loss["floor"])

    def _network(self) -> str:
        return str(self.config["model"]["network"]["_target_"])

    def _has_control(self, train: States) -> bool:
        epochs = self.config["evaluation"]["control"]["epochs"]
        not_negative("evaluation.control.epochs", epochs)
        return epochs > 0 and len(train) > 0 and not self._network().endswith("FlavourMLP")

    def _train_control(self, train: States) -> nn.Module:
        from physics_hybrid.problems.flavour.networks import FlavourMLP

        control = self.config["evaluation"]["control"]
        settings = ControlSettings(
            epochs=control["epochs"],
            batch_size=self.config["data"]["batch_size"],
            learning_rate=control["learning_rate"],
            seed=self.config["seed"],
        )
        rule = quadrature(**self.config["problem"]["quadrature"])
        scale = _target_scale(self.config["model"]["target_scale"])
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            network = FlavourMLP(
                quadrature=dict(self.config["problem"]["quadrature"]),
                guard=control["guard"],
                width=control["width"],
                depth=control["depth"],
                **feature_statistics(train, rule, scale),
            )
            return train_control(network, train, self._loss(), settings)

    def build_model(self, statistics: Statistics) -> nn.Module:
        from hydra.utils import instantiate

        model = self.config["model"]
        network: nn.Module = instantiate(
            model["network"],
            quadrature=dict(self.config["problem"]["quadrature"]),
            guard=model["guard"],
            **statistics,
            _convert_="all",
        )
        return network

    def statistics_of(self, model: nn.Module) -> Statistics:
        closure: Any = model
        return {
            "mean": closure.mean.tolist(),
            "std": closure.std.tolist(),
            "target_scale": closure.target_scale,
        }

    def for_evaluation(self, options: Config, model: nn.Module) -> FlavourRecipe:
        """Data of conf/evaluate.yaml where it has any, else those of the run."""
        asked = options["split"]
        one_of(("all", *SPLITS), "split", asked)
        refuse_options(options, {"split"}, "flavour")
        other = options.get("data")
        evaluation = dict(self.config["evaluation"])
        if options["batch_size"] is not None:
            evaluation["batch_size"] = options["batch_size"]
        config = {**self.config, "evaluation": evaluation}
        if other:
            return FlavourRecipe({**config, "data": dict(other)}, asked)
        return FlavourRecipe(config, "test" if asked == "all" else asked)

    def predictor(self, model: nn.Module) -> Predictor:
        return Predictor(model)


def _path(data: Config) -> Path:
    if data["path"]:
        return Path(data["path"]).expanduser()
    if data["kind"] == "emu":
        raise ValueError("data=emu needs data.path=FILE.h5 (see docs/flavour.md)")
    return SHIPPED


def _layout(data: Config) -> Layout:
    axes = data["axes"]
    not_negative("data.tolerance", data["tolerance"])
    return Layout(
        axes=None if axes is None else tuple(axes),
        species=tuple(data["species"]),
        components=tuple(data["components"]),
        families=data["families"],
        tolerance=data["tolerance"],
    )


def _target_scale(value: Any) -> float | None:
    """A number, or None: from the training split."""
    if value == "p99":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"model.target_scale must be p99 or a number > 0; got {value!r}")
    return float(value)
