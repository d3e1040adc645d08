r"""How good a potential is, by the figures the field uses.

    relative L2   RE  = |phi - phi*| / |phi*|
    RDM           | phi / |phi| - phi* / |phi*| |       topography error, 0 to 2       (Meijs et al., IEEE TBME 36 (1989) 1038)
    MAG           |phi| / |phi*|                        magnitude error, 1 is right

over conductive voxels outside a sphere of `exclude_radius` voxels round the electrodes. E is the
field on faces inside that set. Both potentials are in volts and share their reference, so no mean
is removed; where they have none (ends: sink, pair), the mean over the set is taken from both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.losses import (
    ChargeLoss,
    PDELoss,
    Physics,
    field_squares,
    select,
)
from physics_hybrid.problems.potential.physics.conductor import zero_mean
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


def main_table(tables: Mapping[str, dict]) -> str:
    """Markdown; tables: grid -> aggregated metrics."""
    return metrics_table(tables, COLUMNS, CONTENDERS, "grid")


@dataclass(frozen=True)
class Metrics:
    """distance_bins: edges in metres of the shells round the source that errors are listed by;
    boxes: see ChargeLoss.
    """

    exclude_radius: float = 3.0
    distance_bins: tuple[float, ...] = (0.0, 0.02, 0.04, 0.08)
    boxes: int = 3
    ends: Ends | str = "grounded"

    def physics(self, batch: Batch) -> Physics:
        """The discrete problem in the precision of the metrics: build it once where several
        predictions are measured.
        """
        return Physics.of(
            batch, self.ends, torch.float32 if batch.u.device.type == "mps" else torch.float64
        )

    def __call__(
        self, phi: Tensor, batch: Batch, physics: Physics | None = None
    ) -> list[dict[str, float]]:
        """One dict for each sample; phi (B, D, H, W) in volts. A tissue or shell that a sample
        lacks is left out; a prediction that is not finite gives metrics that are not.

        Raises
        ------
        ValueError
            A sample with no voxel to measure on; names it.
        """
        physics = physics or self.physics(batch)
        dtype = torch.float32 if phi.device.type == "mps" else torch.float64
        phi, truth = phi.to(dtype), batch.u.to(dtype)
        mask = select(batch, "conductive", self.exclude_radius)
        raw = phi
        if Ends.of(self.ends).floating:
            phi, truth = zero_mean(phi, mask), zero_mean(truth, mask)

        def norm(field, where):
            return torch.where(where, field, 0.0).flatten(1).norm(dim=1)

        size = norm(truth, mask)
        error = phi - truth
        empty = [name for name, s in zip(batch.names, size.tolist()) if s == 0]
        if empty:
            raise ValueError(
                f"{empty[0]}: no tissue with a potential lies outside {self.exclude_radius:g}"
                " voxels of the source; use a finer grid or a smaller evaluation.exclude_radius"
            )
        columns: dict[str, Tensor] = {
            "relative_l2": norm(error, mask) / size,
            "mse": norm(error, mask) ** 2 / mask.sum(dim=(1, 2, 3)),
            "max_error": torch.where(mask, error.abs(), 0.0).flatten(1).amax(dim=1),
            **topography(phi, truth, mask),
        }
        wrong, field = field_squares(phi, truth, mask, batch.spacing.to(phi))
        columns["field_error"] = (wrong / field).sqrt()
        columns["pde_residual"] = (
            PDELoss(0.0, self.exclude_radius).per_sample(raw, batch, physics).sqrt()
        )
        columns["charge_defect"] = ChargeLoss(self.boxes).per_sample(raw, batch, physics).sqrt()
        present: dict[str, Tensor] = {}
        for label, tissue in enumerate(TISSUES[1:], start=1):
            if batch.labels is not None:
                inside = mask & (batch.labels == label)
                columns[f"relative_l2_{tissue}"] = norm(error, inside) / norm(truth, inside)
                present[f"relative_l2_{tissue}"] = norm(truth, inside) > 0
        r = batch.distance()
        edges = [*self.distance_bins, math.inf]
        for low, high in zip(edges, edges[1:]):
            shell = mask & (r >= low) & (r < high)
            name = f"{low * 1e3:g}mm+" if math.isinf(high) else f"{low * 1e3:g}-{high * 1e3:g}mm"
            columns[f"relative_l2_{name}"] = norm(error, shell) / norm(truth, shell)
            present[f"relative_l2_{name}"] = norm(truth, shell) > 0
        values = {k: v.tolist() for k, v in columns.items()}
        return [
            {k: v[i] for k, v in values.items() if k not in present or bool(present[k][i])}
            for i in range(len(batch))
        ]


def topography(phi: Tensor, truth: Tensor, where: Tensor) -> dict[str, Tensor]:
    """RDM and MAG (B,) over the voxels marked; NaN where a sample has none."""
    phi, truth = (torch.where(where, field, 0.0) for field in (phi, truth))
    own, size = (field.flatten(1).norm(dim=1) for field in (phi, truth))
    return {
        "rdm": (
            (phi / own.view(-1, 1, 1, 1) - truth / size.view(-1, 1, 1, 1)).flatten(1).norm(dim=1)
        ),
        "mag": own / size,
    }


def by_part(tables: Mapping[str, dict]) -> str:
    """Mean relative L2 by tissue and by distance from the source, Markdown; tables: grid ->
    aggregated metrics.
    """
    parts = ["## By tissue and by distance from the source (relative L2, mean)"]
    for grid, metrics in tables.items():
        rows = []
        for name, statistics in metrics.items():
            if name.startswith("relative_l2_"):
                alone = metrics.get(f"baseline_{name}", {}).get("mean", math.nan)
                rows.append(
                    [name.removeprefix("relative_l2_"), f"{statistics['mean']:.6g}", f"{alone:.6g}"]
                )
        parts += [f"**{grid}**", table(["where", "hybrid network", "baseline alone"], rows)]
    return "\n\n".join([*parts, "Conductive voxels outside the source sphere."])
