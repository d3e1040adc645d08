"""The latent simulator as learning problems, opened: first the autoencoder, then the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.problem import Place, Row, Statistics
from physics_hybrid.problems.burgers.data.source import Source
from physics_hybrid.problems.burgers.data.trajectories import Trajectories
from physics_hybrid.problems.burgers.latent.autoencoder import Autoencoder, centres
from physics_hybrid.problems.burgers.latent.cache import encoded, key_of, latents
from physics_hybrid.problems.burgers.latent.step import LatentStep
from physics_hybrid.problems.burgers.learning import (
    Evolution,
    OnTrajectories,
    TestedTrajectories,
)
from physics_hybrid.problems.burgers.metrics import frame_errors, nrmse
from physics_hybrid.problems.burgers.rivals import clock
from physics_hybrid.problems.burgers.step import refuse_beyond
from physics_hybrid.problems.burgers.stepper import resample, restrict
from physics_hybrid.training.order import Done, Stored

#: Points of a frame that the decoder is trained at, beside the cells.
QUERIES = 256
#: Frames that are decoded together.
TOGETHER = 1024


# --- the autoencoder


@dataclass(frozen=True)
class Frames:
    """States on a fine grid (B, N), and the points of it that are asked for (Q,)."""

    u: Tensor
    asked: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Decoded:
    """cells : (B, T, P). points : (B, T, N), at all points of the fine grid."""

    cells: Tensor
    points: Tensor
    milliseconds: float


@dataclass(frozen=True)
class Reconstructed(TestedTrajectories):
    """Test trajectories. Implements `physics_hybrid.problem.TestSet`."""

    problem: Reconstruction

    def rivals(
        self, model: nn.Module, batch: Trajectories, reference: nn.Module | None
    ) -> dict[str, Decoded]:
        network = cast(Autoencoder, model)
        coarse = network.tokens * max(network.means, 1)
        return {
            "means_": self.problem.decoded(batch, lambda u: resample(u, coarse), network.points),
            "linear_": self.problem.decoded(batch, lambda u: u, network.points),
        }

    def measure(
        self, predictions: Mapping[str, Decoded], batch: Trajectories
    ) -> dict[str, list[Row]]:
        out = {}
        late = batch.u[:, self.problem.first :]
        for who, made in predictions.items():
            cells = _restricted(late, made.cells.shape[2])
            on_cells = frame_errors(made.cells, cells).mean(dim=1).tolist()
            at_points = frame_errors(made.points, late).mean(dim=1).tolist()
            out[who] = [
                {"nrmse": a, "points": b, "milliseconds": made.milliseconds}
                for a, b in zip(on_cells, at_points, strict=True)
            ]
        return out

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path:
        from physics_hybrid.problems.burgers import figures

        sample = self.trajectories.rows([index])
        made = self.problem.predict(model, sample)
        title = f"median test sample: nRMSE {row['nrmse']:.2g} at the cells, reconstructed"
        first = self.problem.first
        true = _restricted(sample.u[:, first:], made.cells.shape[2])
        path = folder / f"reconstruction_{self.name}.png"
        return figures.space_time(true[0].cpu(), made.cells[0].cpu(), sample.dt, path, title, first)


def _restricted(u: Tensor, cells: int) -> Tensor:
    """(B, T, N) -> (B, T, cells)."""
    return restrict(u.flatten(0, 1), cells).reshape(*u.shape[:2], cells)


@dataclass
class Reconstruction(OnTrajectories):
    """States through the autoencoder. Implements `physics_hybrid.problem.Problem`.

    source : trajectories on the fine grid. points : cells that the encoder sees.
    first : frame from which errors count.
    """

    source: Source
    order: Stored
    seed: int
    points: int
    first: int
    place: Place
    batch_size: int
    model_name: str
    tested_split: str = "test"
    monitor: str = "nrmse"
    varies: str = "viscosity"
    alone: str = "linear_"
    columns: Sequence[tuple[str, str]] = (
        ("nrmse", "nRMSE, cells"),
        ("points", "nRMSE, points of the fine grid"),
        ("milliseconds", "ms a frame"),
    )
    contenders: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.contenders = {
            "means_": "limited linear, from the coarse means",
            "linear_": "limited linear, from the cells",
            "": self.model_name,
        }

    def _split(self, name: str) -> Trajectories:
        return self.source.split(name).to(self.place.device)

    @cached_property
    def training(self) -> Trajectories:
        return self._split("train")

    @cached_property
    def validation(self) -> Trajectories:
        return self._split("validation")

    # --- training

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Frames]:
        """Every frame once an epoch; points of the fine grid follow from (seed, epoch, batch)."""
        train = self.training
        batches = self.order.batches((self.seed, epoch), done)
        for number in range(start, len(batches)):
            random = np.random.default_rng([self.seed, epoch, number])
            asked = random.permutation(train.cells)[:QUERIES]
            rows = torch.as_tensor(batches[number])
            sample, frame = rows // train.frames, rows % train.frames
            yield Frames(
                u=train.u[sample, frame],
                asked=torch.as_tensor(asked, device=train.u.device),
                names=tuple(train.names[i] for i in sample.tolist()),
            )

    def loss(self, model: nn.Module, batch: Frames) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean |e|^2 / |u|^2 at the cells, and at points between them."""
        x = centres(batch.u.shape[1]).to(batch.u)[batch.asked]
        cells, values = model(restrict(batch.u, self.points), x)
        terms = {
            "cells": _relative(cells, restrict(batch.u, self.points)),
            "between": _relative(values, batch.u[:, batch.asked]),
        }
        loss = terms["cells"] + terms["between"]
        return loss, {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        made = self.predict(model, self.validation)
        late = self.validation.u[:, self.first :]
        return {
            "nrmse": nrmse(made.cells, _restricted(late, self.points)),
            "points": nrmse(made.points, late),
        }

    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        return {}

    # --- the life of the data

    def statistics(self) -> Statistics:
        return {}

    def check_model(self, model: nn.Module) -> None:
        if not isinstance(model, Autoencoder):
            raise ValueError(
                f"{type(model).__name__} is no autoencoder: choose model=burgers_autoencoder"
            )

    # --- evaluation

    def predict(self, model: nn.Module, batch: Trajectories) -> Decoded:
        network = cast(Autoencoder, model)
        x = centres(batch.cells).to(batch.u)
        started, parts = clock(batch.u.device), []
        flat = batch.u[:, self.first :].flatten(0, 1)
        with torch.no_grad():
            for k in range(0, len(flat), TOGETHER):
                z = network.encode(flat[k : k + TOGETHER])
                parts.append((network.on_grid(z, self.points), network.decode(z, x)))
        seconds = clock(batch.u.device) - started
        cells, points = (torch.cat(each) for each in zip(*parts, strict=True))
        count = len(batch)
        return Decoded(
            cells=cells.reshape(count, -1, self.points),
            points=points.reshape(count, -1, batch.cells),
            milliseconds=1e3 * seconds / len(flat),
        )

    def decoded(self, batch: Trajectories, kept: Callable[[Tensor], Tensor], cells: int) -> Decoded:
        """What limited linear reconstruction makes of what is kept of the cells."""
        started = clock(batch.u.device)
        flat = batch.u[:, self.first :].flatten(0, 1)
        known = kept(restrict(flat, cells))
        on_cells, points = resample(known, cells), resample(known, batch.cells)
        seconds = clock(batch.u.device) - started
        return Decoded(
            cells=on_cells.reshape(len(batch), -1, cells),
            points=points.reshape(len(batch), -1, batch.cells),
            milliseconds=1e3 * seconds / len(flat),
        )

    def test_sets(self) -> list[Reconstructed]:
        apart = self._split(self.tested_split).of_viscosity()
        return [
            Reconstructed(self, f"nu{nu:g}", part, self.batch_size) for nu, part in apart.items()
        ]

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        return f"Frames {self.first} to the last; the encoder sees {self.points} cells.", {}


def _relative(value: Tensor, true: Tensor) -> Tensor:
    squares = (value - true).square().mean(dim=-1) / true.square().mean(dim=-1)
    return squares.mean()


# --- the step


@dataclass(frozen=True)
class Latents:
    """Latents to step from, and what they become after `ahead` + 1 steps.

    z, later : (B, L, D), not normalised. u : (B, N), the state that `later` stands for.
    latent : the share of the latent error in the loss; decoded : of the decoded error.
    """

    z: Tensor
    later: Tensor
    u: Tensor
    nu: Tensor
    ahead: int
    latent: float
    decoded: float
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


#: Shares of the latent and the decoded error at first, and later.
EARLY, LATE = (1.0, 0.0), (0.1, 30.0)
#: Steps of its own that the model goes without gradient before the one that is trained.
MOST_AHEAD = 4
#: The share of a training that is early.
FIRST_PART = 0.4


@dataclass
class LatentEvolution(Evolution):
    """The step in the latent space: as `Evolution`, and trained on latents.

    autoencoder : makes that of the stage before. cache : folder of latents, or None for none.
    """

    autoencoder: Callable[[], Any] | None = None
    cache: Path | None = None

    @cached_property
    def _latents(self) -> Tensor:
        """Of the training split, (n, T, L, D)."""
        assert self.autoencoder is not None
        network, train = self.autoencoder().to(self.place.device), self.trajectories("train")
        if self.cache is None:
            return encoded(network, train.u)
        path = self.cache / f"burgers_latents_{key_of(network, train)[:12]}.h5"
        return latents(network, train, path)

    def statistics(self) -> Statistics:
        """Of the learned channels, and of how much each channel changes in a step."""
        assert self.autoencoder is not None
        network, z = self.autoencoder(), self._latents
        learned = z[..., network.means :]
        mean, std = learned.mean(dim=(0, 1, 2)), learned.std(dim=(0, 1, 2)).clamp_min(1e-6)
        change = (z[:, 1:] - z[:, :-1]).square().mean(dim=(0, 1, 2))
        change[network.means :] /= std.square()
        return {
            "autoencoder": network.arguments,
            "mean": mean.tolist(),
            "std": std.tolist(),
            "weight": (1 / (change + 1e-6)).tolist(),
            **super().statistics(),
        }

    def prepare(self) -> None:
        super().prepare()
        _ = self._latents

    def check_model(self, model: nn.Module) -> None:
        if not isinstance(model, LatentStep):
            raise ValueError(
                f"{type(model).__name__} is no latent step: choose burgers_latent_step"
            )
        known = self.source.statistics
        refuse_beyond(model.statistics, known["dt"], known["points"], known["nu"])

    def train_batches(  # type: ignore[override]
        self, epoch: int, start: int, done: Done = ()
    ) -> Iterator[Latents]:
        """Frame of each trajectory, and how far it is pushed, follow from (seed, epoch)."""
        train, z = self.trajectories("train"), self._latents
        early = epoch < FIRST_PART * self.epochs
        random = np.random.default_rng([self.seed, epoch, 1])
        place = random.random(len(train))
        batches = self.order.batches((self.seed, epoch), done)
        pushes = random.integers(0, MOST_AHEAD + 1, len(batches))
        for number in range(start, len(batches)):
            rows = batches[number]
            ahead = 0 if early else int(pushes[number])
            frame = (place[rows] * (train.frames - 1 - ahead)).astype(int)
            index, first = torch.as_tensor(rows), torch.as_tensor(frame)
            last = first + ahead + 1
            latent, decoded = EARLY if early else LATE
            yield Latents(
                z=z[index, first],
                later=z[index, last],
                u=train.u[index, last],
                nu=train.nu[index],
                ahead=ahead,
                latent=latent,
                decoded=decoded,
                names=tuple(train.names[i] for i in rows),
            )

    def loss(  # type: ignore[override]
        self, model: nn.Module, batch: Latents
    ) -> tuple[Tensor, dict[str, Tensor]]:
        step = cast(LatentStep, getattr(model, "module", model))
        z = _normalised(step, batch.z)
        with torch.no_grad():
            for _ in range(batch.ahead):
                z = model(z, batch.nu)
        z = model(z, batch.nu)
        error = (z - _normalised(step, batch.later)).square()
        terms = {"latent": (error * step.weight).mean()}
        loss = batch.latent * terms["latent"]
        if batch.decoded:
            terms["decoded"] = _relative(step.decode(z, batch.u.shape[1]), batch.u)
            loss = loss + batch.decoded * terms["decoded"]
        return loss, {name: term.detach() for name, term in terms.items()}


def _normalised(step: LatentStep, z: Tensor) -> Tensor:
    means = step.autoencoder.means
    return torch.cat([z[..., :means], (z[..., means:] - step.mean) / step.std], dim=-1)
