"""Ptychography as a learning problem, opened: scans, frames, loss, what is tested.

`problem.py` makes one from the configuration.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from physics_hybrid.problem import Place, Row, Splits, Statistics
from physics_hybrid.problems.ptychography import metrics
from physics_hybrid.problems.ptychography.data.scan import Frames, Scan
from physics_hybrid.problems.ptychography.losses import FarFieldLoss, misfit
from physics_hybrid.problems.ptychography.networks import Inverse
from physics_hybrid.problems.ptychography.physics import forward
from physics_hybrid.problems.ptychography.physics.assemble import aligned, interior
from physics_hybrid.problems.ptychography.physics.epie import epie
from physics_hybrid.problems.ptychography.predictor import reconstruct
from physics_hybrid.training.order import Done, Stored

#: Rows of the table, by prefix; '' is the model.
CONTENDERS = {"blank_": "blank object", "epie_": "ePIE", "reference_": "reference", "": "network"}
#: Frames that a training figure shows.
SHOWN = 5


@dataclass(frozen=True)
class Found:
    """A reconstruction: object (H, W), and the seconds it took."""

    object: Tensor
    seconds: float


@dataclass(frozen=True)
class Scans:
    """Implements `physics_hybrid.problem.TestSet`: scans, each tested as a whole."""

    problem: Ptychography
    name: str
    scans: Sequence[Scan]

    def __len__(self) -> int:
        return len(self.scans)

    def batches(self) -> Iterator[Scan]:
        yield from self.scans

    def rivals(
        self, model: nn.Module, batch: Scan, reference: nn.Module | None
    ) -> dict[str, Found]:
        blank = torch.ones(batch.shape, dtype=batch.probe.dtype, device=batch.probe.device)
        out = {"blank_": Found(blank, 0.0)}
        if self.problem.epie_iterations:
            out["epie_"] = self.problem.classical(batch)
        if reference is not None:
            out["reference_"] = self.problem.predict(reference, batch)
        return out

    def measure(self, predictions: Mapping[str, Found], batch: Scan) -> dict[str, list[Row]]:
        rows = {}
        for who, found in predictions.items():
            rows[who] = [{**metrics.compare(found.object, batch), "seconds": found.seconds}]
        return rows

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path:
        """Truth, network and ePIE, of the scan of median misfit."""
        from physics_hybrid.problems.ptychography import figures

        scan = self.scans[index]
        found = {"network": self.problem.predict(model, scan).object}
        if self.problem.epie_iterations:
            name = f"ePIE, {self.problem.epie_iterations} iterations"
            found[name] = self.problem.classical(scan).object
        inside = interior(scan.positions, len(scan.probe))
        truth = next(iter(found.values())) if scan.truth is None else scan.truth
        shown = {} if scan.truth is None else {"truth": truth[inside]}
        shown |= {name: aligned(o[inside], truth[inside]) for name, o in found.items()}
        title = f"{scan.name}: misfit of far fields {row['misfit']:.3g}"
        if "amplitude_mae" in row:
            title += f", MAE of amplitude {row['amplitude_mae']:.3g}"
        path = folder / f"objects_{Path(scan.name).stem}.png"
        return figures.objects(shown, path, title, phase=self.problem.set_phase)


@dataclass
class Ptychography:
    """Implements `physics_hybrid.problem.Problem`.

    frames : that train, and that choose the best weights.
    scans : that are tested.
    order : in which frames train.
    probe : of all scans.
    own : whether the scan is a user's.
    """

    frames: dict[str, Frames]
    scans: list[Scan]
    order: Stored
    seed: int
    weights: Mapping[str, float]
    probe: Tensor
    place: Place
    batch_size: int
    epie_iterations: int
    set_phase: bool
    own: bool = False
    monitor: str = "misfit"
    varies: str = "objects"
    alone: str = "blank_"
    _classical: dict[str, Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mean_amplitude = float(self.frames["train"].amplitude.mean())
        self.criterion = FarFieldLoss(self.weights, self.mean_amplitude)

    @property
    def contenders(self) -> Mapping[str, str]:
        return CONTENDERS

    @property
    def columns(self) -> Sequence[tuple[str, str]]:
        truths = [scan.truth for scan in self.scans if scan.truth is not None]
        if not truths:
            return metrics.MISFIT
        phase = all(metrics.has_phase(truth) for truth in truths)
        return (*metrics.AMPLITUDE, *(metrics.PHASE if phase else ()), *metrics.MISFIT)

    # --- training

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_left(0, ())

    def steps_left(self, epoch: int, done: Done) -> int:
        return len(self.order.batches((self.seed, epoch), done))

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Frames]:
        for rows in self.order.batches((self.seed, epoch), done)[start:]:
            yield self.frames["train"].rows(rows)

    def expected(self, model: nn.Module, frames: Frames) -> Tensor:
        """Amplitudes of the patches that the network makes of frames."""
        return forward.amplitude(self.probe, model(frames.amplitude))

    def loss(self, model: nn.Module, batch: Frames) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = self.expected(model, batch)
        return self.criterion(predicted, batch.amplitude, batch.photon_scale)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Over the validation frames; so few that every rank makes all of them."""
        frames = self.frames["validation"]
        rows = range(len(frames))
        parts = [
            self.expected(model, frames.rows(rows[i : i + self.batch_size]))
            for i in range(0, len(frames), self.batch_size)
        ]
        return {"misfit": misfit(torch.cat(parts), frames.amplitude)}

    @torch.no_grad()
    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        from physics_hybrid.problems.ptychography import figures

        model.eval()
        some = self.frames["validation"].rows(range(min(SHOWN, len(self.frames["validation"]))))
        path = folder / f"{tag}_validation.png"
        predicted = self.expected(model, some)
        title = "validation frames: far fields"
        return {"figures/validation": figures.frames(some.amplitude, predicted, path, title)}

    # --- the life of the data

    def statistics(self) -> Statistics:
        return {"mean_amplitude": self.mean_amplitude}

    def prepare(self) -> None: ...

    def ready(self) -> None: ...

    def check_model(self, model: nn.Module) -> None:
        if not isinstance(model, Inverse):
            raise ValueError(
                f"{type(model).__name__} makes no object of far fields: choose model=uno2d, fno2d"
                " or unet2d"
            )
        check: Any = getattr(model.backbone, "check_grid", None)
        if check is not None:
            check(tuple(self.probe.shape))

    def splits(self) -> Splits:
        if not self.own:
            return {}
        return {name: frames.contents() for name, frames in self.frames.items()}

    def notes(self, model: nn.Module) -> list[str]:
        return []

    # --- evaluation

    def test_sets(self) -> list[Scans]:
        name = self.scans[0].name if self.own else "lines"
        return [Scans(self, name, self.scans)]

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Scan) -> Found:
        started = time.perf_counter()
        found = reconstruct(model, batch, self.batch_size)
        return Found(found, time.perf_counter() - started)

    def classical(self, scan: Scan) -> Found:
        """ePIE, run when it is first asked for."""
        if scan.name not in self._classical:
            started = time.perf_counter()
            found = epie(
                scan.amplitude,
                scan.probe,
                scan.positions,
                scan.shape,
                iterations=self.epie_iterations,
                seed=self.seed,
            )
            self._classical[scan.name] = Found(found, time.perf_counter() - started)
        return self._classical[scan.name]

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        text = (
            "Reconstructions are compared between the centres of the outermost frames, without one"
            " phase and one scale of the amplitude. No object was shown to the network."
        )
        return text, {}
