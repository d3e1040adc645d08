"""The hybrid step as a learning problem, opened: pairs of frames, loss, rollouts, what is tested.

`problem.py` makes one from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.problem import Place, Row, Splits, Statistics
from physics_hybrid.problems.burgers.data.source import Source
from physics_hybrid.problems.burgers.data.trajectories import SPLITS, Trajectories
from physics_hybrid.problems.burgers.metrics import (
    COLUMNS,
    Forecast,
    Metrics,
    frame_errors,
    nrmse,
    paired_ratio,
)
from physics_hybrid.problems.burgers.rivals import (
    Persistence,
    SteadyState,
    Stepper,
    Transport,
    compiled_advance,
    compiled_step,
    forecast,
)
from physics_hybrid.problems.burgers.step import HybridStep, beyond, refuse_beyond
from physics_hybrid.problems.burgers.stepper import CFL
from physics_hybrid.report.markdown import table
from physics_hybrid.training.order import Done, Stored


@dataclass(frozen=True)
class Pairs:
    """States to step from, and what they become.

    start, target : (B, N). nu : (B,).
    ahead : (B,), true where the model itself makes a step from `start` first, without gradient.
    names : of the trajectories.
    """

    start: Tensor
    target: Tensor
    nu: Tensor
    ahead: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class TestedTrajectories:
    """Test trajectories of a problem, in batches: what its test sets have in common."""

    problem: Any
    name: str
    trajectories: Trajectories
    batch_size: int

    def __len__(self) -> int:
        return len(self.trajectories)

    def batches(self) -> Iterator[Trajectories]:
        for first in range(0, len(self), self.batch_size):
            yield self.trajectories.rows(range(first, min(first + self.batch_size, len(self))))


@dataclass(frozen=True)
class Viscosity(TestedTrajectories):
    """Test trajectories of one viscosity. Implements `physics_hybrid.problem.TestSet`."""

    problem: Evolution

    def rivals(
        self, model: nn.Module, batch: Trajectories, reference: nn.Module | None
    ) -> dict[str, Forecast]:
        larger = beyond(cast(Any, model).statistics, batch.u)
        self.problem.larger[self.name] = self.problem.larger.get(self.name, 0) + larger
        others: dict[str, Any] = dict(self.problem.rivals)
        if self.problem.compiled:
            others |= self.problem.fused(model)
        if reference is not None:
            others["reference_"] = reference
        return {who: self.problem.forecast(rival, batch) for who, rival in others.items()}

    def measure(
        self, predictions: Mapping[str, Forecast], batch: Trajectories
    ) -> dict[str, list[Row]]:
        self.problem.tested.setdefault(self.name, []).append(Tested.of(predictions, batch))
        return {who: self.problem.metrics(f, batch.u) for who, f in predictions.items()}

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path:
        """Space and time of the sample of median error."""
        from physics_hybrid.problems.burgers import figures

        sample = self.trajectories.rows([index])
        path = cast(Any, model).path(sample.u[:, 0], sample.nu, sample.frames - 1)[0].cpu()
        title = (
            f"{self.problem.model_name}, median test sample of {label(self.name)}: nRMSE"
            f" {row['nrmse_from_start']:.2g} from t = 0"
        )
        file = folder / f"space_time_{self.name}.png"
        return figures.space_time(sample.u[0].cpu(), path, sample.dt, file, title)


@dataclass(frozen=True)
class Tested:
    """Of a batch, by contender: errors of each frame from t = 0, nRMSE, spectra of the last frame.

    true : spectrum of the truth.
    """

    frames: dict[str, Tensor]
    nrmse: dict[str, Tensor]
    spectra: dict[str, Tensor]
    true: Tensor

    @classmethod
    def of(cls, predictions: Mapping[str, Forecast], batch: Trajectories) -> Tested:
        first = batch.frames - next(iter(predictions.values())).late.shape[1]
        whole = {who: frame_errors(f.whole, batch.u[:, 1:]) for who, f in predictions.items()}
        late = {who: frame_errors(f.late, batch.u[:, first:]) for who, f in predictions.items()}
        return cls(
            frames=whole,
            nrmse={who: error.mean(dim=1) for who, error in late.items()},
            spectra={who: spectrum(f.whole[:, -1]) for who, f in predictions.items()},
            true=spectrum(batch.u[:, -1]),
        )


def label(name: str) -> str:
    """nu = 0.001, of nu0.001."""
    return name.replace("nu", "nu = ")


def spectrum(u: Tensor) -> Tensor:
    """|u_k|^2 / 2 of states (B, N): (B, N / 2 + 1)."""
    modes: Tensor = torch.fft.rfft(u.double(), dim=1) / u.shape[1]
    return modes.abs().square() / 2


class OnTrajectories:
    """What problems on trajectories have in common: an order in which they train, and the life of
    their data.

    source : of the trajectories. order, seed : what trains when.
    """

    source: Source
    order: Stored
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_left(0, ())

    def steps_left(self, epoch: int, done: Done) -> int:
        return len(self.order.batches((self.seed, epoch), done))

    def prepare(self) -> None:
        """Make the files that are missing."""
        for split in SPLITS[:2]:
            self.source.split(split)

    def ready(self) -> None: ...

    def splits(self) -> Splits:
        if not self.source.own:
            return {}
        return {name: self.source.split(name).contents() for name in SPLITS}

    def notes(self, model: nn.Module) -> Sequence[str]:
        return []


@dataclass
class Evolution(OnTrajectories):
    """Implements `physics_hybrid.problem.Problem`.

    source : of the trajectories.
    order : in which they train; each gives one pair of frames an epoch.
    epochs : of the whole training.
    pushforward : share of it, at its end, in which half of the pairs start from the model's own
        step (Brandstetter et al., Message passing neural PDE solvers, ICLR 2022, section 3.2).
    metrics : and the frames that are given.
    larger : of the trajectories tested, by test set, those beyond what the model was trained on.
    rivals : anything with `step(u, nu)`, by prefix of its metrics; contenders : who they are.
    compiled : whether steppers and model are tested compiled, too.
    """

    source: Source
    order: Stored
    seed: int
    epochs: int
    pushforward: float
    metrics: Metrics
    rivals: Mapping[str, Any]
    contenders: Mapping[str, str]
    place: Place
    batch_size: int
    model_name: str
    tested_split: str = "test"
    said: Sequence[str] = ()
    compiled: bool = False
    monitor: str = "nrmse"
    varies: str = "viscosity"
    alone: str = "persistence_"
    columns: Sequence[tuple[str, str]] = COLUMNS
    tested: dict[str, list[Tested]] = field(default_factory=dict)
    larger: dict[str, int] = field(default_factory=dict)
    _open: dict[str, Trajectories] = field(default_factory=dict)
    _fused: dict[str, Any] = field(default_factory=dict)

    def trajectories(self, split: str) -> Trajectories:
        """On the device; read when they are first asked for."""
        if split not in self._open:
            self._open[split] = self.source.split(split).to(self.place.device)
        return self._open[split]

    # --- training

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Pairs]:
        """Frame of each trajectory, and whether it is pushed, follow from (seed, epoch)."""
        train = self.trajectories("train")
        random = np.random.default_rng([self.seed, epoch, 1])
        pushing = epoch >= self.epochs * (1 - self.pushforward)
        ahead = (random.random(len(train)) < 0.5) & pushing
        frame = (random.random(len(train)) * (train.frames - 1 - ahead)).astype(int)
        for rows in self.order.batches((self.seed, epoch), done)[start:]:
            yield self._pairs(train.rows(rows), frame[rows], ahead[rows])

    def _pairs(self, batch: Trajectories, frame: Any, ahead: Any) -> Pairs:
        device = batch.u.device
        each = torch.arange(len(batch), device=device)
        first = torch.as_tensor(frame, device=device)
        pushed = torch.as_tensor(ahead, device=device)
        return Pairs(
            start=batch.u[each, first],
            target=batch.u[each, first + 1 + pushed.long()],
            nu=batch.nu,
            ahead=pushed,
            names=batch.names,
        )

    def loss(self, model: nn.Module, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over samples of |e|^2 / |u|^2."""
        start = batch.start
        if bool(batch.ahead.any()):
            with torch.no_grad():
                moved = model(start[batch.ahead], batch.nu[batch.ahead])
            start = start.clone()
            start[batch.ahead] = moved.to(start.dtype)
        error = model(start, batch.nu).float() - batch.target
        squares = error.square().mean(dim=1) / batch.target.square().mean(dim=1)
        loss = squares.mean()
        return loss, {"relative": loss.detach()}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """nRMSE of rollouts, and of single steps; so few that every rank makes all of them."""
        known, step = self.trajectories("validation"), cast(Any, model)
        first = self.metrics.initial_step
        path = step.path(known.u[:, first - 1], known.nu, known.frames - first)
        starts, targets = known.u[:, :-1:4].flatten(0, 1), known.u[:, 1::4].flatten(0, 1)
        nu = known.nu.repeat_interleave(len(starts) // len(known), dim=0)
        single = step.step(starts, nu)
        return {
            "nrmse": nrmse(path[:, 1:], known.u[:, first:]),
            "one_step": nrmse(single[:, None], targets[:, None]),
        }

    @torch.no_grad()
    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        from physics_hybrid.problems.burgers import figures

        known = self.trajectories("validation")
        known = known.rows(range(min(3, len(known))))
        path = cast(Any, model).path(known.u[:, 0], known.nu, known.frames - 1)
        title = f"validation split, t = {(known.frames - 1) * known.dt:g}, from t = 0"
        file = folder / f"{tag}_validation.png"
        return {"figures/validation": figures.profiles(known.u[:, -1], path[:, -1], file, title)}

    # --- the life of the data

    def statistics(self) -> Statistics:
        """What the model will know that it was trained on."""
        return self.source.statistics

    def check_model(self, model: nn.Module) -> None:
        if not isinstance(model, HybridStep):
            raise ValueError(f"{type(model).__name__} is no hybrid step: choose model=burgers_unet")
        known = self.source.statistics
        refuse_beyond(model.statistics, known["dt"], known["points"], known["nu"])

    def notes(self, model: nn.Module) -> Sequence[str]:
        return self.said

    # --- evaluation

    def fused(self, model: nn.Module) -> dict[str, Any]:
        """The steppers and the model, compiled; made when they are first asked for."""
        if not self._fused:
            steppers = {k: r for k, r in self.rivals.items() if k.startswith("stepper")}
            for who, stepper in steppers.items():
                self._fused[f"compiled_{who}"] = replace(stepper, advance=compiled_advance())
            self._fused["compiled_"] = compiled_step(model)
        return self._fused

    def forecast(self, contender: Any, batch: Trajectories) -> Forecast:
        return forecast(contender, batch.u, batch.nu, self.metrics.initial_step)

    def predict(self, model: nn.Module, batch: Trajectories) -> Forecast:
        return self.forecast(model, batch)

    def test_sets(self) -> list[Viscosity]:
        self.tested.clear()
        self.larger.clear()
        apart = self.trajectories(self.tested_split).of_viscosity()
        return [Viscosity(self, f"nu{nu:g}", part, self.batch_size) for nu, part in apart.items()]

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        """The model's error over that of each contender, sample by sample, and figures."""
        lines: list[list[str]] = []
        pictures: dict[str, Path] = {}
        for name, batches in self.tested.items():
            ours = _all(batches, "nrmse", "").numpy()
            for who, label in self.contenders.items():
                if who and who in batches[0].nrmse:
                    theirs = _all(batches, "nrmse", who).numpy()
                    ratio, low, high = paired_ratio(ours, theirs)
                    better = int((ours < theirs).sum())
                    interval = f"{low:.3g} to {high:.3g}"
                    lines.append([name, label, f"{ratio:.3g}", interval, f"{better}/{len(ours)}"])
            pictures |= self._figures(name, batches, folder)
        heads = [self.varies, "over", "ratio of nRMSE", "95 % (paired bootstrap)", "better on"]
        about = (
            f"Frames {self.metrics.initial_step} to the last count, from the true frame before."
            " Times are those of this program, eager unless it says compiled."
        )
        title = f"## {self.model_name} over each contender"
        return "\n\n".join([about, *self._beyond(), title, table(heads, lines)]), pictures

    def _beyond(self) -> list[str]:
        """What a reader must know of test trajectories that are larger than any that trained."""
        return [
            f"{count} of the test trajectories of {label(name)} reach a larger |u| than any that"
            " the model was trained on: there it extrapolates."
            for name, count in self.larger.items()
            if count
        ]

    def _figures(self, name: str, batches: list[Tested], folder: Path) -> dict[str, Path]:
        from physics_hybrid.problems.burgers import figures

        shown = _shown(self, batches)
        limits = (Persistence, SteadyState, Transport)
        drawn = [who for who in shown if not isinstance(self.rivals.get(who), limits)]
        energies = {"truth": torch.cat([part.true for part in batches]).mean(dim=0)}
        energies |= {self.contenders[w]: _all(batches, "spectra", w).mean(dim=0) for w in drawn}
        time = self.source.statistics["dt"] * batches[0].frames[""].shape[1]
        title, file = f"t = {time:g}, {label(name)}", folder / f"spectra_{name}.png"
        return {
            **growth_of(self, name, batches, folder),
            f"spectra_{name}": figures.spectra(energies, file, title),
        }


def _shown(problem: Evolution, batches: Sequence[Tested]) -> list[str]:
    """Contenders that were tested, the model last: on top."""
    there = [who for who in problem.contenders if who in batches[0].nrmse]
    return sorted(there, key=lambda who: who == "")


def growth_of(
    problem: Evolution, name: str, batches: Sequence[Tested], folder: Path
) -> dict[str, Path]:
    """The figure of errors against time."""
    from physics_hybrid.problems.burgers import figures

    shown = _shown(problem, batches)
    errors = {problem.contenders[w]: _all(batches, "frames", w).mean(dim=0) for w in shown}
    count = batches[0].frames[""].shape[1]
    times = problem.source.statistics["dt"] * torch.arange(1, count + 1)
    title, file = f"rollouts from t = 0, {label(name)}", folder / f"growth_{name}.png"
    return {f"growth_{name}": figures.growth(times, errors, file, title)}


def _all(batches: Sequence[Tested], what: str, who: str) -> Tensor:
    """Of all samples, one after the other."""
    return torch.cat([getattr(part, what)[who] for part in batches]).cpu()


def rivals_of(
    cells: Sequence[int], dt: float, twice: bool = False, cfl: float = CFL
) -> tuple[dict[str, Any], dict[str, str]]:
    """Contenders by prefix, and who they are.

    twice : the finest stepper again, with twice the substeps. cfl : of all steppers.
    """
    rivals: dict[str, Any] = {
        "persistence_": Persistence(),
        "steady_": SteadyState(),
        "transport_": Transport(dt),
    }
    names = {
        "persistence_": "persistence",
        "steady_": "steady state (the mean)",
        "transport_": "transport with the mean flow",
    }
    fine = {f"stepper{count}_": count for count in cells}
    for who, count in fine.items():
        rivals[who] = Stepper(count, dt, cfl=cfl)
        names[who] = f"stepper, {count} cells"
    if cells and twice:
        finest = max(cells)
        rivals["half_"] = Stepper(finest, dt, cfl=cfl / 2)
        names["half_"] = f"stepper, {finest} cells, twice the substeps"
    names |= {f"compiled_{who}": f"{name}, compiled" for who, name in names.items() if who in fine}
    names["compiled_"] = "the model, compiled"
    return rivals, {**names, "reference_": "reference"}
