"""The potential in tissue as a learning problem: the recipe, and what the run is given.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.grid import Grid, is_grid, name_of
from physics_hybrid.problem import Config, Place, Row, Statistics, refuse_foreign
from physics_hybrid.problems.potential.data.sources import FileData, Files, LimbData
from physics_hybrid.problems.potential.losses import PotentialLoss
from physics_hybrid.problems.potential.metrics import COLUMNS, CONTENDERS, Metrics, by_part
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.predictor import Predictor
from physics_hybrid.problems.potential.resample import upsample
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.problems.potential.surrogate import Surrogate
from physics_hybrid.training.order import Done

#: Metrics that are averaged over the validation split and logged.
VALIDATED = ("relative_l2", "rdm", "mag", "field_error", "pde_residual", "charge_defect")

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
        out = {"baseline_": self.problem.baseline(model, batch.fine)}
        if batch.coarse is not None:
            small = self.problem.surrogate(model)(batch.coarse)
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

        addresses = [a for addresses in self.files.rows() for a in addresses]
        entries = [e for e in self.files.entries if e.address == addresses[index]]
        batch = next(dataclasses.replace(self.files, entries=entries, workers=0).batches())
        title = (
            f"median test sample on {self.name}: relative L2 {row['relative_l2']:.3f}, "
            f"baseline alone {row['baseline_relative_l2']:.3f}"
        )
        surrogate, path = self.problem.surrogate(model), folder / f"slices_{self.name}.png"
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


# --- the problem, opened


@dataclass
class Potential:
    """Implements `physics_hybrid.problem.Problem`.

    grids, samples, test_batch_size : what is tested. stage : see `Place`. sigma_settings : of
        `sigma_statistics`.
    """

    data: LimbData | FileData
    criterion: PotentialLoss
    metrics: Metrics
    place: Place
    grids: Sequence[Grid] = ()
    samples: int = ALL
    test_batch_size: int = 1
    sigma_settings: tuple[str, float, int] = ("log10", 1e-3, 64)
    coordinates: str = "cell"
    ends: Ends = dataclasses.field(default_factory=Ends)
    monitor: str = "relative_l2"
    varies: str = "grid"
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
        surrogate, rows = self.surrogate(model), []
        for batch in self.data.validation().batches(start=rank, stride=ranks):
            rows += self.metrics(surrogate(batch), batch)
        if ranks > 1:
            everyone: list[Any] = [None] * ranks
            torch.distributed.all_gather_object(everyone, rows)
            rows = [row for part in everyone for row in part]
        return {
            name: float(np.mean([r[name] for r in rows])) for name in VALIDATED if name in rows[0]
        }

    @torch.no_grad()
    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        """Sections through one fixed training and one fixed validation sample."""
        from physics_hybrid.problems.potential import figures

        model.eval()
        surrogate, out = self.surrogate(model), {}
        fixed = {
            "train": self.data.sample_train(),
            "validation": next(self.data.validation().batches()),
        }
        for split, batch in fixed.items():
            phi = surrogate(batch)
            error = self.metrics(phi, batch)[0]["relative_l2"]
            title = f"{split} sample {batch.names[0].rsplit('/', 1)[-1]}: relative L2 {error:.3f}"
            path = folder / f"{tag}_{split}.png"
            out[f"figures/{split}"] = figures.slices(
                batch, phi, surrogate.baseline(batch), path, title
            )
        return out

    # --- the life of the data

    def statistics(self) -> Statistics:
        return sigma_statistics(self.data, *self.sigma_settings)

    def prepare(self) -> None:
        self.data.prepare()

    def ready(self) -> None:
        if isinstance(self.data, LimbData) and self.data.train_samples:
            self.data.read_training_from(self.place.stage(str(self.data.training_file())))

    def check_model(self, model: nn.Module) -> None:
        for grid in {*self.data.training_grids(), *self.grids}:
            model.check_grid(grid)

    # --- evaluation

    def test_sets(self) -> list[OnGrid]:
        """Raises ValueError for a grid without test samples."""
        return [self._on(grid) for grid in self.grids]

    def _on(self, grid: Grid) -> OnGrid:
        files = self._tested(grid)
        if not files.entries:
            there = ", ".join(map(name_of, self.data.test_grids()))
            raise ValueError(f"no test sample on grid {name_of(grid)}; there are {there}")
        home = self.data.grid if isinstance(self.data, LimbData) else None
        finer = (
            home is not None
            and grid != home
            and all(a >= b for a, b in zip(grid, home, strict=True))
        )
        return OnGrid(self, grid, files, self._tested(home) if home and finer else None)

    def _tested(self, grid: Grid) -> Files:
        return dataclasses.replace(
            self.data.test(grid, self.samples), batch_size=self.test_batch_size
        )

    def predict(self, model: nn.Module, batch: Tested) -> Tensor:
        return self.surrogate(model)(batch.fine)

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        """Errors by tissue and by distance from the source."""
        from physics_hybrid.problems.potential import figures

        curve = figures.errors_by_distance(dict(tables), folder / "errors_by_distance.png")
        return by_part(tables), {"errors_by_distance": curve}


def sigma_statistics(data: LimbData | FileData, kind: str, eps: float, samples: int) -> Statistics:
    """Mean and standard deviation of the transformed sigma over all voxels of the first training
    samples.
    """
    from physics_hybrid.problems.potential.hybrid import transform_sigma

    if samples < 1:
        raise ValueError(f"model.statistics_samples must be at least 1; got {samples}")
    total = square = torch.zeros(())
    count = 0
    for sigma in itertools.islice(data.sigma_fields(samples), samples):
        field = torch.as_tensor(sigma, dtype=torch.float64)[None]
        values = transform_sigma(field, kind, eps)[0].flatten(1)
        total, square = total + values.sum(dim=1), square + (values**2).sum(dim=1)
        count += values.shape[1]
    mean = total / count
    std = (square / count - mean**2).clamp_min(0).sqrt()
    return {"sigma_mean": mean.tolist(), "sigma_std": torch.where(std > 1e-12, std, 1.0).tolist()}


# --- the recipe: from the configuration

#: Keys of conf/problem, conf/loss and conf/model that are this problem's.
PROBLEM_KEYS = {"_target_", "ends", "beta", "coordinates"}
LOSS_KEYS = {"mse", "gradient", "pde", "charge", "mask", "exclude_radius"}
MODEL_KEYS = {
    "backbone",
    "baseline",
    "composition",
    "geometry",
    "learning_rate",
    "sigma_input",
    "sigma_eps",
    "spacing_hidden",
    "statistics_samples",
}
DATA_KINDS = ("limbs", "files", "labels")


@dataclass(frozen=True)
class PotentialRecipe:
    """Implements `physics_hybrid.problem.Recipe`.

    split : of a user's files, the one that is tested.
    """

    config: Config
    split: str = "test"

    def __post_init__(self):
        for group, known in (("problem", PROBLEM_KEYS), ("loss", LOSS_KEYS), ("model", MODEL_KEYS)):
            refuse_foreign(self.config, group, known, "potential")
        if self.config["data"].get("kind") not in DATA_KINDS:
            raise ValueError(
                f"problem=potential needs data.kind to be one of {', '.join(DATA_KINDS)}; got "
                f"{self.config['data'].get('kind')!r}: data=... names a file of another problem"
            )

    def open(self, place: Place) -> Potential:
        config = self.config
        data = build_data(config, place)
        if isinstance(data, FileData):
            data.check_ranks()
            data.entries["test"] = data.entries[self.split]
        evaluation = config["evaluation"]
        grids = grids_of(evaluation, data)
        data.check_loss(config["loss"]["mask"])
        model = config["model"]
        return Potential(
            data=data,
            criterion=build_loss(config),
            metrics=build_metrics(config),
            place=place,
            grids=grids,
            samples=evaluation["samples"],
            test_batch_size=evaluation["batch_size"],
            sigma_settings=(model["sigma_input"], model["sigma_eps"], model["statistics_samples"]),
            coordinates=config["problem"]["coordinates"],
            ends=build_ends(config),
        )

    def build_model(self, statistics: Statistics) -> nn.Module:
        return build_model(self.config, statistics)

    def statistics_of(self, model: nn.Module) -> Statistics:
        return {
            name: getattr(model, name).flatten().tolist() for name in ("sigma_mean", "sigma_std")
        }

    def predictor(self, model: nn.Module) -> Predictor:
        return Predictor(model, build_ends(self.config), self.config["problem"]["coordinates"])

    def for_evaluation(self, options: Config, model: nn.Module) -> PotentialRecipe:
        """Data, grids and samples of conf/evaluate.yaml where it has any, else those of the run.

        Raises
        ------
        ValueError
            split is none that there is.
        """
        if options["split"] not in ("all", "train", "validation", "test"):
            raise ValueError(
                f"split must be all, train, validation or test; got {options['split']!r}"
            )
        other = options.get("data")  # Hydra leaves the key out where no data=... was chosen
        data = dict(other or self.config["data"])
        evaluation, split = dict(self.config["evaluation"]), self.split
        if other:  # other data: their grids, all of their samples
            evaluation["resolutions"] = None
        if other and other["kind"] == "files":
            evaluation["samples"] = ALL
            split = options["split"] if options["split"] in ("train", "validation") else "test"
        if other and other["kind"] in ("files", "labels") and options["split"] == "all":
            data["splits"] = {"train": 0.0, "validation": 0.0, "test": 1.0}
        for key in ("resolutions", "samples", "batch_size"):
            if options[key] is not None:
                evaluation[key] = options[key]
        data |= {"sigma_components": model.sigma_components, "batch_size": evaluation["batch_size"]}
        return PotentialRecipe({**self.config, "data": data, "evaluation": evaluation}, split)


def build_ends(config: Config) -> Ends:
    """problem.ends and, where it is robin, problem.beta (ValueError for what has no solution)."""
    kind = config["problem"]["ends"]
    return Ends(kind, config["problem"]["beta"] if kind == "robin" else None)


def build_data(config: Config, place: Place) -> LimbData | FileData:
    """The data of a configuration, or one rank's share of it."""
    from physics_hybrid.problems.potential.bodies.limb import LimbDistribution
    from physics_hybrid.problems.potential.data.sample import Conventions
    from physics_hybrid.problems.potential.data.stream import Solver

    data = dict(config["data"])
    common = {
        "rank": place.rank,
        "world_size": place.world_size,
        "batch_size": data["batch_size"],
        "seed": config["seed"],
        "device": place.device,
        "workers": place.workers,
        "sigma_components": data["sigma_components"],
    }
    if data["kind"] == "files":
        if not data["path"]:
            raise ValueError(
                "data=files needs data.path=FILE_OR_FOLDER: .npz, .h5, or folders of .npy (see"
                " README)"
            )
        ends = build_ends(config)
        conventions = Conventions(data["source_units"], data["source_point"], ends)
        return FileData(
            path=place.stage(data["path"]),
            splits=data["splits"],
            conventions=conventions,
            on_error=data["on_error"],
            **common,
        )
    if data["kind"] == "labels":
        limbs = _segmentations(data, config, place.rank == 0)
        data["grid"] = data["grid"] or limbs.native_grid()
    else:
        limbs = LimbDistribution.of(data["phantom"])
    return LimbData(
        limbs=limbs,
        solver=Solver(data["solver"], ends=build_ends(config), **data["solve"]),
        grid=tuple(data["grid"] or ()),
        folder=data["folder"],
        samples_per_epoch=data["samples_per_epoch"],
        validation_samples=data["validation_samples"],
        train_samples=data["train_samples"],
        solve_together=data["solve_together"],
        grids=data.get("grids") or (),
        **common,
    )


def _segmentations(data: dict, config: Config, report: bool):
    """The label volumes of conf/data/labels.yaml; what a user should know about them goes to
    standard error.
    """
    from physics_hybrid.problems.potential.bodies.body import Cut
    from physics_hybrid.problems.potential.bodies.label_files import volumes
    from physics_hybrid.problems.potential.bodies.segmentation import Segmentations, Sources
    from physics_hybrid.problems.potential.bodies.tissue_table import read_table

    if not data["path"]:
        raise ValueError(
            "data=labels needs data.path=FILE_OR_FOLDER: label volumes .nii, .nii.gz or .npy (see"
            " README)"
        )
    sources = Sources(
        positions=data["sources"],
        tissues=data["source_tissues"],
        margin=data["source_margin"],
        pair_distance=data["pair_distance"],
        current=data["current"],
    )
    bodies = Segmentations(
        volumes(data["path"], data["spacing"], data["long_axis"]),
        read_table(data["tissues"]),
        seed=config["seed"],
        splits=data["splits"],
        sources=sources,
        ends=config["problem"]["ends"],
        cut=Cut(slices=data["slices"], air=data["air"], keep_largest=data["keep_largest"]),
    )
    if report:
        print("\n".join(bodies.notes), file=sys.stderr, flush=True)
    return bodies


def grids_of(evaluation: Config, data: LimbData | FileData) -> list[Grid]:
    """The grids to evaluate on.

    Raises
    ------
    ValueError
        Anything but a list of three sizes; a number of samples below 1; files without test samples
        there.
    """
    wanted = evaluation["resolutions"]
    if wanted is not None and not (
        isinstance(wanted, list) and wanted and all(map(is_grid, wanted))
    ):
        raise ValueError(
            "evaluation.resolutions must be a list of grids such as [[48,24,24],[96,48,48]]; got"
            f" {wanted}"
        )
    samples, batch_size = evaluation["samples"], evaluation["batch_size"]
    if not isinstance(samples, int) or samples < 1 or batch_size < 1:
        raise ValueError(
            f"evaluation.samples and batch_size must be at least 1; got {samples} and {batch_size}"
        )
    grids = [tuple(g) for g in wanted or default_grids(data)]
    if isinstance(data, FileData):
        if not data.entries["test"]:
            raise ValueError("data.splits leaves no sample for the test split")
        missing = [g for g in grids if g not in data.test_grids()]
        if missing:
            raise ValueError(
                f"no test sample has the grid {name_of(missing[0])} (evaluation.resolutions); "
                f"the test split has {', '.join(map(name_of, data.test_grids()))}"
            )
    return grids


def default_grids(data: LimbData | FileData) -> list[Grid]:
    """The training grid and the one twice as fine; the grids found, for files."""
    grids = data.test_grids()
    if isinstance(data, FileData):
        return grids
    D, H, W = grids[0]
    return [grids[0], (2 * D, 2 * H, 2 * W)]


def build_loss(config: Config) -> PotentialLoss:
    loss = config["loss"]
    return PotentialLoss(
        {name: loss[name]["weight"] for name in ("mse", "gradient", "pde", "charge")},
        mask=loss["mask"],
        exclude_radius=loss["exclude_radius"],
        normalise=loss["mse"]["normalise"],
        sigma_threshold=loss["pde"]["sigma_threshold"],
        boxes=loss["charge"]["boxes"],
        ends=build_ends(config),
    )


def build_metrics(config: Config) -> Metrics:
    evaluation = config["evaluation"]
    return Metrics(
        evaluation["exclude_radius"],
        tuple(evaluation["distance_bins"]),
        evaluation["charge_boxes"],
        build_ends(config),
    )


def build_model(config: Config, statistics: Statistics) -> nn.Module:
    """HybridWrapper of the configuration, with the statistics of the training split."""
    from hydra.utils import instantiate

    from physics_hybrid.problems.potential.baseline import build_baseline
    from physics_hybrid.problems.potential.geometry import GeometryEncoder
    from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels

    model = config["model"]
    components = config["data"]["sigma_components"]
    if components not in (1, 3, 6):
        raise ValueError(f"data.sigma_components must be 1, 3 or 6; got {components}")
    encoder = GeometryEncoder(components + 1, **model["geometry"])
    home = config["data"].get("grid")
    baseline = build_baseline(ends=build_ends(config), home=home, **model["baseline"])
    channels = feature_channels(components, encoder.channels)
    backbone = instantiate(model["backbone"], in_channels=channels, out_channels=1, _convert_="all")
    return HybridWrapper(
        backbone,
        encoder,
        baseline,
        composition=model["composition"],
        sigma_components=components,
        sigma_input=model["sigma_input"],
        sigma_eps=model["sigma_eps"],
        spacing_hidden=model["spacing_hidden"],
        **statistics,
    )
