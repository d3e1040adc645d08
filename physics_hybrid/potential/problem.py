"""The potential in tissue as a learning problem: what the trainer and `evaluate.py` are given.

Configuration enters here (`build`); below, everything takes plain arguments.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.potential.data.sources import Done, FileData, LimbData
from physics_hybrid.potential.losses import PotentialLoss
from physics_hybrid.potential.metrics import Metrics
from physics_hybrid.potential.physics.conductor import Ends
from physics_hybrid.potential.scene import Batch
from physics_hybrid.potential.surrogate import Surrogate


@dataclass
class PotentialProblem:
    """Implements `training.trainer.Problem`."""

    data: LimbData | FileData
    criterion: PotentialLoss
    metrics: Metrics
    coordinates: str = "cell"
    ends: Ends = Ends()
    monitor: str = "relative_l2"

    @property
    def steps_per_epoch(self) -> int:
        return self.data.steps_per_epoch

    def steps_left(self, epoch: int, done: Done) -> int:
        return self.data.steps_left(epoch, done)

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Batch]:
        return self.data.train_batches(epoch, start, done)

    def surrogate(self, model: nn.Module) -> Surrogate:
        return Surrogate(model, self.ends, self.coordinates)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.surrogate(model)(batch)

    def baseline(self, model: nn.Module, batch: Batch) -> Tensor:
        """phi_a (B, D, H, W) in volts, 0 in air."""
        return self.surrogate(model).baseline(batch)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        phi = self.predict(model, batch)
        with torch.autocast(phi.device.type, enabled=False):
            return self.criterion(phi.float(), batch)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Means over the validation split; ranks share the work and all get the same figures."""
        rank, ranks = self.data.rank, self.data.world_size
        rows = [row for batch in self.data.validation().batches(start=rank, stride=ranks) for row in self.metrics(self.predict(model, batch), batch)]
        if ranks > 1:
            everyone: list = [None] * ranks
            torch.distributed.all_gather_object(everyone, rows)
            rows = [row for part in everyone for row in part]
        names = ("relative_l2", "rdm", "mag", "field_error", "pde_residual", "charge_defect")
        return {name: float(np.mean([r[name] for r in rows])) for name in names if name in rows[0]}

    @torch.no_grad()
    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        """Sections through one fixed training and one fixed validation sample."""
        from physics_hybrid.potential.figures import slices

        model.eval()
        out = {}
        for split, batch in (("train", self.data.sample_train()), ("validation", next(self.data.validation().batches()))):
            phi = self.predict(model, batch)
            error = self.metrics(phi, batch)[0]["relative_l2"]
            title = f"{split} sample {batch.names[0].rsplit('/', 1)[-1]}: relative L2 {error:.3f}"
            out[f"figures/{split}"] = slices(batch, phi, self.baseline(model, batch), folder / f"{tag}_{split}.png", title)
        return out


def sigma_statistics(data: LimbData | FileData, kind: str, eps: float, samples: int) -> dict[str, list[float]]:
    """Mean and standard deviation of the transformed sigma over all voxels of the first training samples."""
    from physics_hybrid.models.hybrid import transform_sigma

    if samples < 1:
        raise ValueError(f"model.statistics_samples must be at least 1; got {samples}")
    total = square = 0.0
    count = 0
    for sigma in itertools.islice(data.sigma_fields(samples), samples):
        values = transform_sigma(torch.as_tensor(sigma, dtype=torch.float64)[None], kind, eps)[0].flatten(1)
        total, square, count = total + values.sum(dim=1), square + (values**2).sum(dim=1), count + values.shape[1]
    mean = total / count
    std = (square / count - mean**2).clamp_min(0).sqrt()
    return {"sigma_mean": mean.tolist(), "sigma_std": torch.where(std > 1e-12, std, 1.0).tolist()}


def build_ends(config: Any) -> Ends:
    """problem.ends and, where it is robin, problem.beta (ValueError for what has no solution)."""
    kind = config["problem"]["ends"]
    return Ends(kind, config["problem"]["beta"] if kind == "robin" else None)


def build_data(config: Any, device: torch.device, rank: int = 0, world_size: int = 1) -> LimbData | FileData:
    """The data of `config` (the whole resolved configuration, a plain dict), or one rank's share of it."""
    from physics_hybrid.potential.bodies.limb import LimbDistribution
    from physics_hybrid.potential.data.sample import Conventions
    from physics_hybrid.potential.data.stream import Solver

    data = dict(config["data"])
    kind = data.pop("kind")
    common = {"rank": rank, "world_size": world_size, "batch_size": data["batch_size"], "seed": config["seed"], "device": device, "workers": data["workers"], "sigma_components": data["sigma_components"]}
    if kind == "files":
        if not data["path"]:
            raise ValueError("data=files needs data.path=FILE_OR_FOLDER: .npz, .h5, or folders of .npy (see README)")
        conventions = Conventions(data["source_units"], data["source_point"], build_ends(config))
        return FileData(path=data["path"], splits=data["splits"], conventions=conventions, on_error=data["on_error"], **common)
    if kind == "labels":
        limbs = _segmentations(data, config, rank == 0)
        data["grid"] = data["grid"] or limbs.native_grid()
    else:
        limbs = LimbDistribution.of(data["phantom"])
    return LimbData(
        limbs=limbs, solver=Solver(data["solver"], ends=build_ends(config), **data["solve"]), grid=tuple(data["grid"] or ()),
        folder=data["folder"], samples_per_epoch=data["samples_per_epoch"], validation_samples=data["validation_samples"],
        train_samples=data["train_samples"], solve_together=data["solve_together"], grids=data.get("grids") or (), **common,
    )


def _segmentations(data: dict, config: Any, report: bool):
    """The label volumes of conf/data/labels.yaml; what a user should know about them goes to standard error."""
    from physics_hybrid.potential.bodies.segmentation import Segmentations, read_table, volumes

    if not data["path"]:
        raise ValueError("data=labels needs data.path=FILE_OR_FOLDER: label volumes .nii, .nii.gz or .npy (see README)")
    bodies = Segmentations(
        volumes(data["path"], data["spacing"], data["long_axis"]), read_table(data["tissues"]), config["seed"], data["splits"], ends=config["problem"]["ends"],
        **{k: data[k] for k in ("sources", "source_tissues", "source_margin", "pair_distance", "current", "slices", "air", "keep_largest")},
    )
    if report:
        print("\n".join(bodies.notes), file=sys.stderr, flush=True)
    return bodies


def build_problem(config: Any, data: LimbData | FileData) -> PotentialProblem:
    ends = build_ends(config)
    loss = config["loss"]
    names = ("mse", "gradient", "pde", "charge")
    criterion = PotentialLoss(
        {name: loss[name]["weight"] for name in names}, mask=loss["mask"], exclude_radius=loss["exclude_radius"],
        normalise=loss["mse"]["normalise"], sigma_threshold=loss["pde"]["sigma_threshold"], boxes=loss["charge"]["boxes"], ends=ends,
    )
    evaluation = config["evaluation"]
    metrics = Metrics(evaluation["exclude_radius"], tuple(evaluation["distance_bins"]), evaluation["charge_boxes"], ends)
    return PotentialProblem(data, criterion, metrics, config["problem"]["coordinates"], ends)


def build_model(config: Any, normalisation: dict[str, list[float]]) -> nn.Module:
    """HybridWrapper of the configuration, with the statistics of the training split."""
    from hydra.utils import instantiate

    from physics_hybrid.models.geometry import GeometryEncoder
    from physics_hybrid.models.hybrid import HybridWrapper, feature_channels
    from physics_hybrid.potential.baseline import build_baseline

    model = config["model"]
    components = config["data"]["sigma_components"]
    if components not in (1, 3, 6):
        raise ValueError(f"data.sigma_components must be 1, 3 or 6; got {components}")
    encoder = GeometryEncoder(components + 1, **model["geometry"])
    baseline = build_baseline(ends=build_ends(config), home=config["data"].get("grid"), **model["baseline"])
    channels = feature_channels(components, encoder.channels)
    return HybridWrapper(
        instantiate(model["backbone"], in_channels=channels, out_channels=1, _convert_="all"), encoder, baseline,
        composition=model["composition"], sigma_components=components, sigma_input=model["sigma_input"], sigma_eps=model["sigma_eps"], spacing_hidden=model["spacing_hidden"],
        **normalisation,
    )
