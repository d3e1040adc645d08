"""The potential in tissue as a learning problem, opened: data, losses and metrics, and what is
tested.

`problem.py` makes one from the configuration.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.checks import at_least
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problem import Place, Row, Splits, Statistics
from physics_hybrid.problems.potential.data.loading import Files
from physics_hybrid.problems.potential.data.protocol import Data
from physics_hybrid.problems.potential.losses import PotentialLoss
from physics_hybrid.problems.potential.metrics import COLUMNS, CONTENDERS, Metrics, by_part
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.resample import upsample
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.problems.potential.surrogate import Surrogate
from physics_hybrid.report.plots import spared
from physics_hybrid.training.order import Done

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.hybrid import HybridWrapper

#: Metrics that are averaged over the validation split and logged.
VALIDATED = ("relative_l2", "rdm", "mag", "field_error", "pde_residual", "charge_defect")

#: By what factor a baseline may miss the truth without a word.
FAR_OFF = 10.0

#: Everything of a test split.
ALL = sys.maxsize


# --- what is tested


@dataclass(frozen=True)
class OnGrid:
    """The test samples of one grid. Implements `physics_hybrid.problem.TestSet`.

    coarse : the same samples on the training grid, where this one is finer; else None.
    """

    problem: Potential
    grid: Grid
    files: Files
    coarse: Files | None = None

    @property
    def name(self) -> str:
        return name_of(self.grid)

    def __len__(self) -> int:
        return len(self.files.entries)

    def batches(self) -> Iterator[Tested]:
        fine = self.files.batches()
        if self.coarse is None:
            return (Tested(batch, None) for batch in fine)
        return itertools.starmap(Tested, zip(fine, self.coarse.batches(), strict=True))

    def rivals(
        self, model: nn.Module, batch: Tested, reference: nn.Module | None
    ) -> dict[str, Tensor]:
        """Baseline alone; the prediction on the training grid, upsampled; a model trained at this
        grid.
        """
        surrogate = self.problem.surrogate(model)
        out = {"baseline_": surrogate.baseline(batch.fine)}
        if batch.coarse is not None:
            small = surrogate(batch.coarse)
            out["upsampled_"] = upsample(small, batch.coarse.tissue, self.grid)
        if reference is not None:
            out["reference_"] = self.problem.predict(reference, batch)
        return out

    def measure(self, predictions: Mapping[str, Tensor], batch: Tested) -> dict[str, list[Row]]:
        metrics = self.problem.metrics
        physics = metrics.physics(batch.fine)
        return {who: metrics(phi, batch.fine, physics) for who, phi in predictions.items()}

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path:
        """Sections through the sample of median error: neither the best nor the worst."""
        from physics_hybrid.problems.potential import figures

        address = list(itertools.chain(*self.files.rows()))[index]
        entries = [entry for entry in self.files.entries if entry.address == address]
        batch = next(dataclasses.replace(self.files, entries=entries, workers=0).batches())
        title = (
            f"median test sample on {self.name}: relative L2 {row['relative_l2']:.3f}, "
            f"baseline alone {row['baseline_relative_l2']:.3f}"
        )
        surrogate = self.problem.surrogate(model)
        path = folder / f"slices_{self.name}.png"
        return figures.slices(batch, surrogate(batch), surrogate.baseline(batch), path, title)


@dataclass(frozen=True)
class Tested:
    """Samples on the grid that is tested, and on the training grid where that is coarser."""

    fine: Batch
    coarse: Batch | None

    @property
    def names(self) -> tuple[str, ...]:
        return self.fine.names

    def __len__(self) -> int:
        return len(self.fine)


@dataclass(frozen=True)
class TestPlan:
    """Grids that are tested, how many samples of each at most, and how many of them at once."""

    grids: Sequence[Grid] = ()
    samples: int = ALL
    batch_size: int = 1


# --- the problem, opened


@dataclass(frozen=True)
class SigmaInput:
    """How a network sees sigma.

    kind, eps : see `hybrid.transform_sigma`.
    samples : of the training split, that are taken for mean and standard deviation.
    """

    kind: str = "log10"
    eps: float = 1e-3
    samples: int = 64


@dataclass
class Potential:
    """Implements `physics_hybrid.problem.Problem`.

    data, criterion, metrics : what is learned, and what it is held to.
    place : see `Place`.
    tested : what is tested.
    sigma_input : see `sigma_statistics`.
    coordinates, ends : see `Surrogate`.
    """

    data: Data
    criterion: PotentialLoss
    metrics: Metrics
    place: Place
    tested: TestPlan = field(default_factory=TestPlan)
    sigma_input: SigmaInput = field(default_factory=SigmaInput)
    coordinates: str = "cell"
    ends: Ends = field(default_factory=Ends)
    monitor: str = "relative_l2"
    varies: str = "grid"
    alone: str = "baseline_"
    columns: Sequence[tuple[str, str]] = COLUMNS

    @property
    def contenders(self) -> Mapping[str, str]:
        return CONTENDERS

    # --- training

    @property
    def steps_per_epoch(self) -> int:
        return self.data.steps_per_epoch

    def steps_left(self, epoch: int, done: Done) -> int:
        return self.data.steps_left(epoch, done)

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Batch]:
        return self.data.train_batches(epoch, start, done)

    def surrogate(self, model: nn.Module) -> Surrogate:
        return Surrogate(model, self.ends, self.coordinates)

    def baseline(self, model: nn.Module, batch: Batch) -> Tensor:
        """phi_a (B, D, H, W) in volts, 0 in air."""
        return self.surrogate(model).baseline(batch)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        phi = self.surrogate(model)(batch)
        with torch.autocast(phi.device.type, enabled=False):
            total, terms = self.criterion(phi.float(), batch)
        return total, terms

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Means over the validation split; ranks share the work and all get the same figures."""
        rank, ranks = self.place.rank, self.place.world_size
        surrogate = self.surrogate(model)
        rows: list[Row] = []
        for batch in self.data.validation().batches(start=rank, stride=ranks):
            rows += self.metrics(surrogate(batch), batch)
        if ranks > 1:
            everyone: list[Any] = [None] * ranks
            torch.distributed.all_gather_object(everyone, rows)
            rows = list(itertools.chain(*everyone))
        names = [name for name in VALIDATED if name in rows[0]]
        return {name: float(np.mean([row[name] for row in rows])) for name in names}

    @torch.no_grad()
    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        """Sections through one fixed training and one fixed validation sample."""
        from physics_hybrid.problems.potential import figures

        model.eval()
        surrogate = self.surrogate(model)
        out: dict[str, Path] = {}
        fixed = {
            "train": self.data.sample_train(),
            "validation": next(self.data.validation().batches()),
        }
        for split, batch in fixed.items():
            phi = surrogate(batch)
            error = self.metrics(phi, batch)[0]["relative_l2"]
            name = batch.names[0].rsplit("/", 1)[-1]
            title = f"{split} sample {name}: relative L2 {error:.3f}"
            path, phi_a = folder / f"{tag}_{split}.png", surrogate.baseline(batch)
            out[f"figures/{split}"] = figures.slices(batch, phi, phi_a, path, title)
        return out

    # --- the life of the data

    def statistics(self) -> Statistics:
        return sigma_statistics(self.data, self.sigma_input)

    def prepare(self) -> None:
        self.data.prepare()

    def ready(self) -> None:
        self.data.stage(self.place.stage)

    def check_model(self, model: nn.Module) -> None:
        hybrid = cast("HybridWrapper", model)
        for grid in {*self.data.training_grids(), *self.tested.grids}:
            hybrid.check_grid(grid)

    def splits(self) -> Splits:
        return self.data.contents()

    @torch.no_grad()
    def notes(self, model: nn.Module) -> list[str]:
        """Whether the baseline is of the size of the truth, in the first validation samples.

        MAG, the ratio of their norms: a reference of the wrong size (metal in the mean) makes a
        correction of many powers of ten, which no network learns.
        """
        files = dataclasses.replace(self.data.validation(), workers=0)
        batch = next(files.batches())
        sizes = [row["mag"] for row in self.metrics(self.baseline(model, batch), batch)]
        if any(1 / FAR_OFF < size < FAR_OFF for size in sizes):
            return []
        size, name = max((abs(np.log(size)), size) for size in sizes)[1], batch.names[0]
        highest = float(batch.sigma[:, :3].max())
        return [
            f"WARNING: the baseline is {size:.2g} times the truth ({Path(name).name}; sigma goes up"
            f" to {highest:.3g} S/m), and a network does not learn so large a correction. Try "
            f"{cast('HybridWrapper', model).baseline.remedy}"
        ]

    # --- evaluation

    def test_sets(self) -> list[OnGrid]:
        """Raises ValueError for a grid without test samples."""
        return [self._on(grid) for grid in self.tested.grids]

    def _on(self, grid: Grid) -> OnGrid:
        files = self._files(grid)
        if not files.entries:
            there = ", ".join(map(name_of, self.data.test_grids()))
            raise ValueError(f"no test sample on grid {name_of(grid)}; there are {there}")
        coarse = self.data.coarse_of(grid)
        return OnGrid(self, grid, files, None if coarse is None else self._files(coarse))

    def _files(self, grid: Grid) -> Files:
        files = self.data.test(grid, self.tested.samples)
        return dataclasses.replace(files, batch_size=self.tested.batch_size)

    def predict(self, model: nn.Module, batch: Tested) -> Tensor:
        return self.surrogate(model)(batch.fine)

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        """Errors by tissue and by distance from the source."""
        from physics_hybrid.problems.potential import figures

        drawn: dict[str, Path] = {}
        with spared("errors by distance"):
            path = folder / "errors_by_distance.png"
            drawn["errors_by_distance"] = figures.errors_by_distance(dict(tables), path)
        return by_part(tables), drawn


def sigma_statistics(data: Data, how: SigmaInput) -> Statistics:
    """Mean and standard deviation of the transformed sigma over all voxels of the first training
    samples.
    """
    from physics_hybrid.problems.potential.hybrid import transform_sigma

    at_least(1, "model.statistics_samples", how.samples)
    total = square = torch.zeros(())
    count = 0
    for sigma in itertools.islice(data.sigma_fields(how.samples), how.samples):
        voxels = torch.as_tensor(sigma, dtype=torch.float64)[None]
        values = transform_sigma(voxels, how.kind, how.eps)[0].flatten(1)
        total = total + values.sum(dim=1)
        square = square + (values**2).sum(dim=1)
        count += values.shape[1]
    mean = total / count
    std = (square / count - mean**2).clamp_min(0).sqrt()
    std = torch.where(std > 1e-12, std, 1.0)
    return {"sigma_mean": mean.tolist(), "sigma_std": std.tolist()}
