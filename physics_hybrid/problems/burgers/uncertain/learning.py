"""The uncertain start as a learning problem, opened: observations, ensembles, what is tested.

`problem.py` makes one from the configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.problem import Place, Row, Statistics
from physics_hybrid.problems.burgers.data.source import Source
from physics_hybrid.problems.burgers.data.trajectories import SPLITS
from physics_hybrid.problems.burgers.learning import OnTrajectories
from physics_hybrid.problems.burgers.metrics import paired_ratio
from physics_hybrid.problems.burgers.rivals import clock
from physics_hybrid.problems.burgers.uncertain.observation import Observation, Posterior
from physics_hybrid.problems.burgers.uncertain.scores import COLUMNS, Ensemble, fair_crps, scores
from physics_hybrid.problems.burgers.uncertain.stages import LOSSES, Forecasts
from physics_hybrid.report.markdown import table
from physics_hybrid.training.order import Done, Stored

#: Samples that the stepper forecasts together.
TOGETHER = 1024
#: Members of the ensembles that choose the best weights, and their samples.
CHOOSING, CHOSEN_ON = 8, 32
#: Who stands in the table, by prefix; '' is the model.
RIVALS = {
    "stepper_": "stepper on the observation",
    "physics_": "physics ensemble: perturbed observation, stepper",
    "posterior_": "Gaussian posterior of the start, stepper",
    "mean_": "mean (U-Net)",
    "heun4_": "diffusion, Heun 4",
    "heun8_": "diffusion, Heun 8",
    "heun18_": "diffusion, Heun 18",
    "two_": "consistency, 2 steps",
    "three_": "consistency, 3 steps",
}


@dataclass(frozen=True)
class Start:
    """Test samples: one start of each trajectory. Implements `physics_hybrid.problem.TestSet`."""

    problem: Uncertain
    name: str
    samples: Forecasts
    batch_size: int

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self) -> Iterator[Forecasts]:
        for first in range(0, len(self), self.batch_size):
            yield rows_of(self.samples, range(first, min(first + self.batch_size, len(self))))

    def rivals(
        self, model: nn.Module, batch: Forecasts, reference: nn.Module | None
    ) -> dict[str, Ensemble]:
        return {
            who: self.problem.timed(make, batch)
            for who, make in self.problem.makers(model).items()
            if who
        }

    def measure(
        self, predictions: Mapping[str, Ensemble], batch: Forecasts
    ) -> dict[str, list[Row]]:
        rows = {who: scores(ensemble, batch.target) for who, ensemble in predictions.items()}
        self.problem.tested.append(rows)
        return rows

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path:
        """Members and their band for the sample of median score."""
        from physics_hybrid.problems.burgers import figures

        sample = rows_of(self.samples, [index])
        ensemble = self.problem.predict(model, sample)
        title = f"median test sample: CRPS {row['crps']:.3g}, {self.problem.model_name}"
        return figures.ensemble(
            sample.observed[0],
            ensemble.members[:, 0],
            sample.target[0],
            folder / f"ensemble_{self.name}.png",
            title,
        )


@dataclass
class Uncertain(OnTrajectories):
    """Implements `physics_hybrid.problem.Problem`.

    observation : what is known of a start. starts : first and last frame that may be one.
    tested_start : the frame that is one where weights are chosen and tested.
    form : mean, diffusion or consistency. previous : makes the model of the stage before.
    members : of the ensembles that are tested.
    """

    source: Source
    observation: Observation
    starts: tuple[int, int]
    tested_start: int
    order: Stored
    seed: int
    form: str
    members: int
    place: Place
    batch_size: int
    model_name: str
    previous: Callable[[], Any] | None = None
    tested_split: str = "test"
    monitor: str = "crps"
    varies: str = "viscosity"
    alone: str = "stepper_"
    columns: Sequence[tuple[str, str]] = COLUMNS
    tested: list[dict[str, list[Row]]] = field(default_factory=list)

    @property
    def contenders(self) -> Mapping[str, str]:
        return {**RIVALS, "": self.model_name}

    # --- observations

    def observed(self, split: str, starts: Sequence[int]) -> Forecasts:
        """Of all trajectories at each start, trajectory by trajectory; the noise of each is always
        the same, whatever the seed of the training.
        """
        known = self.source.split(split).to(self.place.device)
        generator = torch.Generator().manual_seed(SPLITS.index(split))
        states = known.u[:, list(starts)].flatten(0, 1)
        y = self.observation.observe(states, generator)
        parts = [y[k : k + TOGETHER] for k in range(0, len(y), TOGETHER)]
        later = [start + self.observation.ahead for start in starts]
        return Forecasts(
            features=torch.cat([self.observation.features(p, known.cells) for p in parts]),
            observed=y,
            target=known.u[:, later].flatten(0, 1),
            names=tuple(f"{name}@{start}" for name in known.names for start in starts),
        )

    @cached_property
    def training(self) -> Forecasts:
        return self.observed("train", range(self.starts[0], self.starts[1] + 1))

    @cached_property
    def validation(self) -> Forecasts:
        known = self.observed("validation", [self.tested_start])
        return rows_of(known, range(min(CHOSEN_ON, len(known))))

    @cached_property
    def posterior(self) -> Posterior:
        """From the states that may be a start in the training split."""
        first, last = self.starts
        states = self.source.split("train").u[:, first : last + 1].flatten(0, 1)
        return Posterior.of(self.observation, states)

    # --- training

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Forecasts]:
        """One start of each trajectory an epoch."""
        count = self.starts[1] - self.starts[0] + 1
        random = np.random.default_rng([self.seed, epoch, 1])
        chosen = random.integers(0, count, self.order.count)
        for rows in self.order.batches((self.seed, epoch), done)[start:]:
            yield rows_of(self.training, [i * count + int(chosen[i]) for i in rows])

    def loss(self, model: nn.Module, batch: Forecasts) -> tuple[Tensor, dict[str, Tensor]]:
        loss = LOSSES[self.form](model, getattr(model, "module", model), batch)
        return loss, {self.form: loss.detach()}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """CRPS, with the same noise every time; so few that every rank makes all."""
        known, network = self.validation, _ensembles(model)
        generator = torch.Generator().manual_seed(0)
        members = network.ensemble(known.features, CHOOSING, generator)
        error = (members.mean(dim=0) - known.target).square().mean(dim=1)
        return {
            "crps": float(fair_crps(members, known.target).mean()),
            "rmse": float(error.sqrt().mean()),
        }

    @torch.no_grad()
    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        from physics_hybrid.problems.burgers import figures

        sample = rows_of(self.validation, [0])
        members = _ensembles(model).ensemble(sample.features, CHOOSING, torch.Generator())
        path = folder / f"{tag}_ensemble.png"
        return {
            "figures/ensemble": figures.ensemble(
                sample.observed[0], members[:, 0], sample.target[0], path, "validation split"
            )
        }

    # --- the life of the data

    @torch.no_grad()
    def statistics(self) -> Statistics:
        """The stage before, and the size of what it leaves."""
        if self.previous is None:
            return {}
        before = self.previous().to(self.place.device)
        if self.form == "consistency":
            return {"teacher": before.arguments}
        residual = [
            self.training.target[k : k + TOGETHER]
            - before(self.training.features[k : k + TOGETHER])
            for k in range(0, len(self.training), TOGETHER)
        ]
        return {"mean": before.arguments, "std": float(torch.cat(residual).std())}

    def check_model(self, model: nn.Module) -> None:
        if not hasattr(model, "ensemble"):
            raise ValueError(f"{type(model).__name__} makes no ensemble: choose model=burgers_mean")

    # --- evaluation

    def makers(self, model: nn.Module) -> dict[str, Callable[[Forecasts, torch.Generator], Tensor]]:
        """What makes the members of each contender: from samples and a source of noise."""
        network, K = _ensembles(model), self.members
        points = self.source.statistics["points"]
        out: dict[str, Callable[[Forecasts, torch.Generator], Tensor]] = {
            "stepper_": lambda s, g: self.observation.forecast(s.observed, points)[None],
            "physics_": lambda s, g: self.observation.perturbed(s.observed, K, points, g),
            "posterior_": lambda s, g: self.posterior(s.observed, K, g),
        }
        if self.form == "diffusion":
            out["mean_"] = lambda s, g: network.mean.ensemble(s.features, K, g)
            for steps in (4, 8, 18):
                if steps != network.steps:
                    out[f"heun{steps}_"] = _heun(network, K, steps)
        if self.form == "consistency":
            out["mean_"] = lambda s, g: network.teacher.mean.ensemble(s.features, K, g)
            out["heun8_"] = _heun(network.teacher, K, 8)
            for who, steps in (("two_", 2), ("three_", 3)):
                if steps != network.steps:
                    out[who] = _heun(network, K, steps)
        out[""] = lambda s, g: network.ensemble(s.features, K, g)
        return out

    @torch.no_grad()
    def timed(
        self, make: Callable[[Forecasts, torch.Generator], Tensor], batch: Forecasts
    ) -> Ensemble:
        """The same noise for the same samples; seconds with those of the stepper that makes the
        features."""
        noise = torch.Generator().manual_seed(_seed_of(batch.names))
        started = clock(batch.target.device)
        self.observation.features(batch.observed, batch.target.shape[1])
        members = make(batch, noise)
        seconds = clock(batch.target.device) - started
        return Ensemble(members, 1e3 * seconds / len(batch))

    def predict(self, model: nn.Module, batch: Forecasts) -> Ensemble:
        return self.timed(self.makers(model)[""], batch)

    def test_sets(self) -> list[Start]:
        self.tested.clear()
        nu = self.observation.nu
        return [
            Start(
                self,
                f"nu{nu:g}",
                self.observed(self.tested_split, [self.tested_start]),
                self.batch_size,
            )
        ]

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        """CRPS over that of each contender with an interval, spread over skill, and a figure."""
        from physics_hybrid.problems.burgers import figures

        rows: dict[str, list[Row]] = {}
        for part in self.tested:
            for who, of_batch in part.items():
                rows.setdefault(who, []).extend(of_batch)
        ours = _column(rows[""], "crps")
        lines, drawn = [], {}
        for who, name in self.contenders.items():
            if who not in rows:
                continue
            error, spread = (_column(rows[who], key) for key in ("square_error", "variance"))
            skill = f"{float(np.sqrt(spread.mean() / error.mean())):.3g}"
            ratio, low, high = paired_ratio(ours, _column(rows[who], "crps"))
            over = f"{ratio:.3g} ({low:.3g} to {high:.3g})" if who else ""
            lines.append([name, skill, over])
            if spread.any():
                drawn[name] = (np.sqrt(spread), np.sqrt(error))
        heads = ["what", "spread / skill", f"CRPS of {self.model_name} over it (95 %, paired)"]
        text = (
            f"{self.members} members; the start is known by {self.observation.cells} means with"
            f" noise {self.observation.noise:g}, and asked for"
            f" {self.observation.ahead * self.observation.dt:g} later.\n\n"
            f"## Spread, and what the network is worth\n\n{table(heads, lines)}"
        )
        if not drawn:
            return text, {}
        path = figures.spread_skill(drawn, folder / "spread_skill.png")
        return text, {"spread_skill": path}


def rows_of(samples: Forecasts, numbers: Sequence[int]) -> Forecasts:
    index = torch.as_tensor(list(numbers), device=samples.target.device)
    return Forecasts(
        features=samples.features[index],
        observed=samples.observed[index],
        target=samples.target[index],
        names=tuple(samples.names[i] for i in numbers),
    )


def _ensembles(model: nn.Module) -> Any:
    """A model of the three, as what has `ensemble`."""
    return model


def _heun(network: Any, members: int, steps: int) -> Callable[[Forecasts, torch.Generator], Tensor]:
    def make(samples: Forecasts, generator: torch.Generator) -> Tensor:
        drawn: Tensor = network.ensemble(samples.features, members, generator, steps)
        return drawn

    return make


def _column(rows: Sequence[Row], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([row[name] for row in rows], dtype=np.float64)


def _seed_of(names: Sequence[str]) -> int:
    """A seed that belongs to samples: other batches have other noise."""
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:6])
