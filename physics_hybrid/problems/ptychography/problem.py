"""Ptychography as a learning problem: the recipe, from the configuration.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from physics_hybrid.checks import at_least, not_negative, one_of, within
from physics_hybrid.problem import Config, Place, Statistics, refuse_foreign, refuse_options
from physics_hybrid.problems.ptychography.data.files import read
from physics_hybrid.problems.ptychography.data.scan import Frames, Scan, together
from physics_hybrid.problems.ptychography.data.simulate import Setting, simulate
from physics_hybrid.problems.ptychography.learning import Ptychography
from physics_hybrid.problems.ptychography.losses import TERMS
from physics_hybrid.problems.ptychography.metrics import has_phase
from physics_hybrid.problems.ptychography.predictor import Predictor
from physics_hybrid.training.order import Stored

#: Keys of conf that are this problem's.
KEYS = {
    "problem": {"_target_"},
    "model": {"backbone", "learning_rate"},
    "loss": set(TERMS),
    "data": {
        "kind",
        "path",
        "measured",
        "set_phase",
        "frame",
        "size",
        "lines",
        "radius",
        "edge",
        "curvature",
        "step",
        "jitter",
        "photons",
        "train_objects",
        "test_objects",
        "validation",
        "batch_size",
    },
    "evaluation": {"after_training", "batch_size", "epie_iterations", "pictures"},
}
#: Second number of the key of everything random.
SPLITS = {"train": 0, "test": 1}


@dataclass(frozen=True)
class PtychographyRecipe:
    """Implements `physics_hybrid.problem.Recipe`.

    config : the whole resolved configuration.
    """

    config: Config

    def __post_init__(self) -> None:
        for group, known in KEYS.items():
            refuse_foreign(self.config, group, known, "ptychography")
        if self.config["data"].get("kind") != "scans":
            raise ValueError(
                "problem=ptychography needs data=ptychography; data=... names a file of another"
                " problem"
            )

    def open(self, place: Place) -> Ptychography:
        config, data = self.config, self.config["data"]
        evaluation = config["evaluation"]
        at_least(1, "data.batch_size", data["batch_size"])
        at_least(1, "evaluation.batch_size", evaluation["batch_size"])
        not_negative("evaluation.epie_iterations", evaluation["epie_iterations"])
        within(0, 1, "data.validation", data["validation"], ends="()")
        own = data["path"] is not None
        trained, tested = self._own(place) if own else self._simulated()
        frames = _split(together([scan.frames() for scan in trained]), data, config["seed"])
        order = Stored.of(place, count=len(frames["train"]), batch_size=data["batch_size"])
        set_phase = data["set_phase"]
        if own and trained[0].truth is not None:
            set_phase = set_phase and has_phase(trained[0].truth)
        return Ptychography(
            frames={name: _on(part, place) for name, part in frames.items()},
            scans=[scan.to(place.device) for scan in tested],
            order=order,
            seed=config["seed"],
            weights=self._weights(),
            probe=trained[0].probe.to(place.device),
            place=place,
            batch_size=evaluation["batch_size"],
            epie_iterations=evaluation["epie_iterations"],
            set_phase=set_phase,
            own=own,
        )

    def _own(self, place: Place) -> tuple[list[Scan], list[Scan]]:
        """One scan: the network is trained on its frames and makes its object. No truth is used."""
        data = self.config["data"]
        one_of(("amplitude", "intensity"), "data.measured", data["measured"])
        scan = read(Path(place.stage(str(Path(data["path"]).expanduser()))), data["measured"])
        return [scan], [scan]

    def _simulated(self) -> tuple[list[Scan], list[Scan]]:
        data = self.config["data"]
        names = Setting.__dataclass_fields__
        setting = Setting(**{name: data[name] for name in names})
        scans = {}
        for split, number in SPLITS.items():
            count = data[f"{split}_objects"]
            at_least(1, f"data.{split}_objects", count)
            scans[split] = [
                simulate(setting, f"{split}-{i}", (self.config["seed"], number, i))
                for i in range(count)
            ]
        return scans["train"], scans["test"]

    def _weights(self) -> dict[str, float]:
        weights = {name: self.config["loss"][name]["weight"] for name in TERMS}
        for name, weight in weights.items():
            not_negative(f"loss.{name}.weight", weight)
        if not any(weights.values()):
            raise ValueError(f"all of loss.{', loss.'.join(TERMS)} have weight 0: nothing is left")
        return {name: float(weight) for name, weight in weights.items()}

    def build_model(self, statistics: Statistics) -> nn.Module:
        from hydra.utils import instantiate

        from physics_hybrid.problems.ptychography.networks import Inverse

        set_phase = self.config["data"]["set_phase"]
        backbone = instantiate(
            self.config["model"]["backbone"],
            in_channels=1,
            out_channels=2 if set_phase else 1,
            _convert_="all",
        )
        return Inverse(backbone, set_phase=set_phase, **statistics)

    def statistics_of(self, model: nn.Module) -> Statistics:
        inverse: Any = model
        return {"mean_amplitude": inverse.mean_amplitude}

    def for_evaluation(self, options: Config, model: nn.Module) -> PtychographyRecipe:
        """Data of conf/evaluate.yaml where it has any, else those of the run; `samples` are
        simulated objects.
        """
        config = dict(self.config)
        if options.get("data"):
            config["data"] = dict(options["data"])
        simulated = config["data"].get("path") is None
        refuse_options(options, {"samples"} if simulated else set(), "ptychography")
        if options.get("samples") is not None:
            config["data"] = {**config["data"], "test_objects": options["samples"]}
        if options["batch_size"] is not None:
            config["evaluation"] = {
                **self.config["evaluation"],
                "batch_size": options["batch_size"],
            }
        return PtychographyRecipe(config)

    def predictor(self, model: nn.Module) -> Predictor:
        return Predictor(model, self.config["evaluation"]["batch_size"])


def _split(frames: Frames, data: Config, seed: int) -> dict[str, Frames]:
    """Frames that train, and a share that chooses the best weights."""
    count = len(frames)
    kept = max(1, round(data["validation"] * count))
    if kept >= count:
        raise ValueError(f"there are {count} frames, and data.validation leaves none to train on")
    order = np.random.default_rng([seed, 2]).permutation(count).tolist()
    return {
        "train": frames.rows(sorted(order[kept:])),
        "validation": frames.rows(sorted(order[:kept])),
    }


def _on(frames: Frames, place: Place) -> Frames:
    return Frames(frames.amplitude.to(place.device), frames.photon_scale, frames.names)
