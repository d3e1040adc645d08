"""A batch of solved samples as tensors: what loaders give and losses, metrics and figures take."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.potential.data.sample import Sample
from physics_hybrid.potential.physics.conductor import (
    Conductor,
    Ends,
    distance_from,
    outside_sphere,
)
from physics_hybrid.potential.physics.point_source import PointSource


@dataclass(frozen=True)
class Batch:
    """Samples on one grid.

    sigma (B, C, D, H, W) S/m; source (B, D, H, W) A/m^3; u (B, D, H, W) V, the truth, 0 in air; spacing (B, 3) m;
    source_point (B, 3) m; current (B,) A; labels (B, D, H, W) uint8, or None where a sample has none; names (B); return_point (B, 3) m,
    the electrode of a pair that takes the current out (source is negative there), else None; nodes (B, D+1, H+1, W+1) V, the truth at voxel
    corners where finite elements made it, else None; singularity: how the truth treats the source, 'subtraction' or 'nodal'.
    """

    sigma: Tensor
    source: Tensor
    u: Tensor
    spacing: Tensor
    source_point: Tensor
    current: Tensor
    labels: Tensor | None
    names: tuple[str, ...]
    return_point: Tensor | None = None
    nodes: Tensor | None = None
    singularity: str = "subtraction"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> Grid:
        return tuple(self.u.shape[1:])

    @property
    def tissue(self) -> Tensor:
        """True where sigma > 0. (B, D, H, W)"""
        return self.sigma[:, 0] > 0

    @property
    def spread(self) -> Tensor:
        """Whether an electrode covers more than 2 x 2 x 2 voxels, so that it is no point on this grid. (B,)"""
        wide = torch.zeros(len(self), dtype=torch.bool, device=self.source.device)
        for electrode in (self.source > 0, self.source < 0):
            for axis in range(3):
                on = electrode.any(dim=tuple(a + 1 for a in range(3) if a != axis)).to(torch.int8)
                wide |= on.any(dim=1) & (on.shape[1] - on.argmax(dim=1) - on.flip(1).argmax(dim=1) > 2)
        return wide

    @property
    def electrodes(self) -> list[Tensor]:
        """Positions of the electrode, or of the two of a pair: (B, 3) m each."""
        return [self.source_point] if self.return_point is None else [self.source_point, self.return_point]

    def away(self, radius: float) -> Tensor:
        """True farther than `radius` voxels from every electrode. (B, D, H, W)"""
        return functools.reduce(torch.logical_and, (outside_sphere(point, self.shape, self.spacing, radius) for point in self.electrodes))

    def distance(self) -> Tensor:
        """Metres to the nearest electrode. (B, D, H, W)"""
        return functools.reduce(torch.minimum, (distance_from(point, self.shape, self.spacing) for point in self.electrodes))

    def to(self, device: torch.device) -> Batch:
        def move(value):
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        return Batch(**{f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def split(self, size: int) -> list[Batch]:
        """Batches of `size` samples, the last one with what is left."""
        def part(value, rows):
            return value[rows] if isinstance(value, (Tensor, tuple)) else value
        return [
            Batch(**{f.name: part(getattr(self, f.name), slice(k, k + size)) for f in dataclasses.fields(self)}) for k in range(0, len(self), size)
        ]

    def pin_memory(self) -> Batch:
        def pin(value):
            return value.pin_memory() if isinstance(value, Tensor) else value
        return Batch(**{f.name: pin(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def conductor(self, ends: Ends | str) -> Conductor:
        return Conductor(self.sigma, self.spacing, ends)

    def point_source(self) -> PointSource:
        return PointSource(self.source_point, self.current, self.return_point)


def components(sigma: np.ndarray, wanted: int, where: str) -> np.ndarray:
    """sigma (C, D, H, W) with the `wanted` number of components (1, 3 or 6).

    Raises
    ------
    ValueError
        Where the tensor holds more than `wanted` components can say (data.sigma_components).
    """
    have = len(sigma)
    if have == wanted:
        return sigma
    if have < wanted:
        out = np.repeat(sigma, 3, axis=0) if have == 1 else sigma
        return out if wanted == 3 else np.concatenate([out, np.zeros_like(out)])
    off = sigma[3:] if have == 6 else sigma[:0]
    uneven = wanted == 1 and (np.ptp(sigma[:3], axis=0) > 0).any()
    if off.any() or uneven:
        raise ValueError(
            f"{where}: sigma has {have} components that {wanted} cannot represent; train with data.sigma_components={have if off.any() else 3}"
        )
    return sigma[:wanted]


def collate(samples: Sequence[Sample], sigma_components: int) -> Batch:
    """Stack samples of one grid into a float32 batch (ValueError where grids differ)."""
    shapes = {s.shape for s in samples}
    if len(shapes) > 1:
        raise ValueError(f"samples of different grids cannot share a batch: {sorted(shapes)}")
    for what, values in (("finite elements and other truth", {s.nodes is None for s in samples}), ("nodal and subtracted sources", {s.singularity for s in samples})):
        if len(values) > 1:
            raise ValueError(f"{what} cannot share a batch")
    paired = {s.return_point is not None for s in samples}
    if len(paired) > 1:
        raise ValueError("samples of one electrode and of a pair cannot share a batch")
    def stack(values):
        return torch.from_numpy(np.stack([np.asarray(v, dtype=np.float32) for v in values]))
    labels = [s.labels for s in samples]
    return Batch(
        sigma=stack([components(s.sigma, sigma_components, s.name) for s in samples]),
        source=stack([s.source for s in samples]),
        u=stack([s.u for s in samples]),
        spacing=stack([s.spacing for s in samples]),
        source_point=stack([s.source_point for s in samples]),
        current=stack([s.current for s in samples]),
        labels=None if any(label is None for label in labels) else torch.from_numpy(np.stack(labels)),
        names=tuple(s.name for s in samples),
        return_point=stack([s.return_point for s in samples]) if paired == {True} else None,
        nodes=None if samples[0].nodes is None else stack([s.nodes for s in samples]),
        singularity=samples[0].singularity,
    )
