r"""How good a potential is, by the figures the field uses.

    relative L2   RE  = |phi - phi*| / |phi*|
    RDM           | phi / |phi| - phi* / |phi*| |       topography error, 0 to 2
    MAG           |phi| / |phi*|                        magnitude error, 1 is right

(RDM, MAG: Meijs et al., IEEE TBME 36 (1989) 1038)

over conductive voxels outside a sphere of `exclude_radius` voxels round the electrodes. E is the
field on faces inside that set. Both potentials are in volts and share their reference, so no mean
is removed; where they have none (ends: sink, pair), the mean over the set is taken from both.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.grid import per_sample
from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.losses import (
    ChargeLoss,
    PDELoss,
    Physics,
    field_squares,
    select,
    widest,
)
from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.elements.physics import ElementPhysics
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.report.markdown import metrics_table, table

#: The main table: metrics and their headings; who stands in it, by prefix.
COLUMNS = (
    ("relative_l2", "relative L2"),
    ("rdm", "RDM"),
    ("mag", "MAG"),
    ("field_error", "field E"),
    ("charge_defect", "charge defect"),
)
CONTENDERS = {
    "": "hybrid network",
    "baseline_": "baseline alone",
    "upsampled_": "training-grid prediction, upsampled",
    "reference_": "trained at this grid",
}


def main_table(tables: Mapping[str, dict[str, Any]]) -> str:
    """Markdown; tables: grid -> aggregated metrics."""
    return metrics_table(tables, COLUMNS, CONTENDERS, "grid")


@dataclass(frozen=True)
class Compared:
    """A prediction beside the truth, V."""

    phi: Float[Tensor, "B D H W"]
    truth: Float[Tensor, "B D H W"]

    @cached_property
    def error(self) -> Float[Tensor, "B D H W"]:
        return self.phi - self.truth

    def relative_l2(self, where: Bool[Tensor, "B D H W"]) -> Float[Tensor, " B"]:
        """RE over the voxels marked; NaN where a sample has none."""
        return norm(self.error, where) / norm(self.truth, where)

    def columns(self, mask: Bool[Tensor, "B D H W"]) -> dict[str, Float[Tensor, " B"]]:
        """Everything that voxels say by themselves."""
        return {
            "relative_l2": self.relative_l2(mask),
            "mse": norm(self.error, mask) ** 2 / mask.sum(dim=(1, 2, 3)),
            "max_error": torch.where(mask, self.error.abs(), 0.0).flatten(1).amax(dim=1),
            **topography(self.phi, self.truth, mask),
        }


@dataclass(frozen=True)
class Metrics:
    """How predictions are measured.

    exclude_radius : voxels round the electrodes that do not count.
    distance_bins : edges in metres of the shells round the source that errors are listed by.
    boxes : see `ChargeLoss`.
    ends : how the current leaves.
    """

    exclude_radius: float | int = 3.0
    distance_bins: tuple[float | int, ...] = (0.0, 0.02, 0.04, 0.08)
    boxes: int = 3
    ends: Ends | str = "grounded"

    def physics(self, batch: Batch) -> Physics | ElementPhysics:
        """The discrete problem in the precision of the metrics: build it once where several
        predictions are measured.
        """
        return Physics.of(batch, self.ends, widest(batch.u.device))

    def __call__(
        self,
        phi: Float[Tensor, "B D H W"],
        batch: Batch,
        physics: Physics | ElementPhysics | None = None,
    ) -> list[dict[str, float]]:
        """One dict for each sample; phi in volts. A tissue or shell that a sample lacks is left
        out; a prediction that is not finite gives metrics that are not.

        Raises
        ------
        ValueError
            A sample with no voxel to measure on; names it.
        """
        if physics is None:
            physics = self.physics(batch)
        dtype = widest(phi.device)
        phi, truth = phi.to(dtype), batch.u.to(dtype)
        mask = select(batch, "conductive", self.exclude_radius)
        pair = Compared(phi, truth)
        if Ends.of(self.ends).floating:
            pair = Compared(zero_mean(phi, mask), zero_mean(truth, mask))
        self._refuse_empty(norm(pair.truth, mask), batch.names)
        wrong, field = field_squares(pair.phi, pair.truth, mask, batch.spacing.to(phi))
        columns = {
            **pair.columns(mask),
            "field_error": (wrong / field).sqrt(),
            **self._of_physics(phi, batch, physics),
        }
        present = {}
        for part, where in self._parts(batch, mask):
            columns[f"relative_l2_{part}"] = pair.relative_l2(where)
            present[f"relative_l2_{part}"] = (norm(pair.truth, where) > 0).tolist()
        return _rows({name: values.tolist() for name, values in columns.items()}, present)

    def _refuse_empty(self, size: Float[Tensor, " B"], names: tuple[str, ...]) -> None:
        empty = [name for name, s in zip(names, size.tolist(), strict=True) if s == 0]
        if empty:
            raise ValueError(
                f"{empty[0]}: no tissue with a potential lies outside {self.exclude_radius:g}"
                " voxels of the source; use a finer grid or a smaller evaluation.exclude_radius"
            )

    def _of_physics(
        self, phi: Float[Tensor, "B D H W"], batch: Batch, physics: Physics | ElementPhysics
    ) -> dict[str, Float[Tensor, " B"]]:
        """How far phi is from obeying the equations."""
        residual = PDELoss(0.0, self.exclude_radius).per_sample(phi, batch, physics)
        defect = ChargeLoss(self.boxes).per_sample(phi, batch, physics)
        return {"pde_residual": residual.sqrt(), "charge_defect": defect.sqrt()}

    def _parts(
        self, batch: Batch, mask: Bool[Tensor, "B D H W"]
    ) -> Iterator[tuple[str, Bool[Tensor, "B D H W"]]]:
        """Tissues, where they are labelled, and shells round the source: names and voxels."""
        if batch.labels is not None:
            for label, tissue in enumerate(TISSUES[1:], start=1):
                yield tissue, mask & (batch.labels == label)
        r = batch.distance()
        for low, high in itertools.pairwise([*self.distance_bins, math.inf]):
            name = f"{low * 1e3:g}mm+" if math.isinf(high) else f"{low * 1e3:g}-{high * 1e3:g}mm"
            yield name, mask & (r >= low) & (r < high)


def _rows(
    columns: Mapping[str, list[float]], present: Mapping[str, list[bool]]
) -> list[dict[str, float]]:
    """Columns as a dict for each sample, without the parts that it has not."""
    rows = []
    for i in range(len(columns["relative_l2"])):
        there = [name for name in columns if name not in present or present[name][i]]
        rows.append({name: columns[name][i] for name in there})
    return rows


def norm(field: Float[Tensor, "B D H W"], where: Bool[Tensor, "B D H W"]) -> Float[Tensor, " B"]:
    """Root of the sum of squares over the voxels marked."""
    size: Tensor = torch.where(where, field, 0.0).flatten(1).norm(dim=1)
    return size


def topography(
    phi: Float[Tensor, "B D H W"],
    truth: Float[Tensor, "B D H W"],
    where: Bool[Tensor, "B D H W"],
) -> dict[str, Float[Tensor, " B"]]:
    """RDM and MAG over the voxels marked; NaN where a sample has none."""
    own, size = norm(phi, where), norm(truth, where)
    shape = torch.where(where, phi, 0.0) / per_sample(own)
    shape_true = torch.where(where, truth, 0.0) / per_sample(size)
    return {"rdm": (shape - shape_true).flatten(1).norm(dim=1), "mag": own / size}


def by_part(tables: Mapping[str, dict[str, Any]]) -> str:
    """Mean relative L2 by tissue and by distance from the source, Markdown; tables: grid ->
    aggregated metrics.
    """
    parts = ["## By tissue and by distance from the source (relative L2, mean)"]
    for grid, metrics in tables.items():
        rows = []
        for name, statistics in metrics.items():
            if name.startswith("relative_l2_"):
                part, mean = name.removeprefix("relative_l2_"), statistics["mean"]
                alone = metrics.get(f"baseline_{name}", {}).get("mean", math.nan)
                rows.append([part, f"{mean:.6g}", f"{alone:.6g}"])
        parts += [f"**{grid}**", table(["where", "hybrid network", "baseline alone"], rows)]
    return "\n\n".join([*parts, "Conductive voxels outside the source sphere."])
