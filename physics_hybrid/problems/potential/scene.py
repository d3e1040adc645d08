"""What is asked (a scene: conductors and their electrodes) and what is known (a batch: its truth).

Scenes are on one grid (D, H, W). SI units: S/m, A/m^3, V, m, A. Positions are metres from the outer
corner of voxel (0, 0, 0).
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from physics_hybrid.grid import Grid, others
from physics_hybrid.problems.potential.physics.conductor import (
    Conductor,
    distance_from,
    outside_sphere,
)
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends

#: A kind of scene. (beartype decorates methods one by one and knows no class for `typing.Self`.)
S = TypeVar("S", bound="Scene")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Conductors on one grid, each with an electrode, or with the two of a pair.

    sigma : conductivity, S/m; 0 is air.
    source : current density, A/m^3; negative round the electrode that takes the current out.
    spacing : edges of a voxel, m.
    source_point : the electrode, m.
    current : A.
    names : of the samples.
    return_point : the electrode of a pair that takes the current out, m; None where there is one
        only.
    """

    sigma: Float[Tensor, "B C D H W"]
    source: Float[Tensor, "B D H W"]
    spacing: Float[Tensor, "B 3"]
    source_point: Float[Tensor, "B 3"]
    current: Float[Tensor, " B"]
    names: tuple[str, ...]
    return_point: Float[Tensor, "B 3"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> Grid:
        D, H, W = self.source.shape[1:]
        return D, H, W

    @property
    def tissue(self) -> Bool[Tensor, "B D H W"]:
        """True where sigma > 0."""
        return self.sigma[:, 0] > 0

    @property
    def spread(self) -> Bool[Tensor, " B"]:
        """Whether an electrode covers more than 2 x 2 x 2 voxels: it is no point on this grid."""
        wide = torch.zeros(len(self), dtype=torch.bool, device=self.source.device)
        for electrode in (self.source > 0, self.source < 0):
            for axis in range(3):
                on = electrode.any(dim=others(axis)).to(torch.int8)
                covered = on.shape[1] - on.argmax(dim=1) - on.flip(1).argmax(dim=1)
                wide |= on.any(dim=1) & (covered > 2)
        return wide

    @property
    def electrodes(self) -> list[Float[Tensor, "B 3"]]:
        """Positions of the electrode, or of the two of a pair, m."""
        if self.return_point is None:
            return [self.source_point]
        return [self.source_point, self.return_point]

    def away(self, radius: float | int) -> Bool[Tensor, "B D H W"]:
        """True farther than `radius` voxels from every electrode."""
        spheres = (outside_sphere(p, self.shape, self.spacing, radius) for p in self.electrodes)
        return functools.reduce(torch.logical_and, spheres)

    def distance(self) -> Float[Tensor, "B D H W"]:
        """Metres to the nearest electrode."""
        distances = (distance_from(p, self.shape, self.spacing) for p in self.electrodes)
        return functools.reduce(torch.minimum, distances)

    def conductor(self, ends: Ends | str) -> Conductor:
        return Conductor(self.sigma, self.spacing, ends)

    def point_source(self) -> PointSource:
        return PointSource(self.source_point, self.current, self.return_point)

    def to(self: S, device: torch.device) -> S:
        return self.each(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self: S) -> S:
        return self.each(Tensor.pin_memory)

    def split(self: S, size: int) -> list[S]:
        """Parts of `size` samples, the last one with what is left."""
        return [self._part(slice(k, k + size)) for k in range(0, len(self), size)]

    def _part(self: S, rows: slice) -> S:
        """Some of the samples."""
        part = self.each(lambda value: value[rows])
        return dataclasses.replace(part, names=self.names[rows])

    def each(self: S, change: Callable[[Tensor], Tensor]) -> S:
        """The same with every tensor changed."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        tensors = {k: change(v) for k, v in fields.items() if isinstance(v, Tensor)}
        whole: dict[str, Any] = {**fields, **tensors}
        return type(self)(**whole)


@dataclass(frozen=True, kw_only=True)
class Batch(Scene):
    """Scenes and their solved potential: what loaders give and losses, metrics and figures take.

    u : the truth, V; 0 in air.
    labels : tissues, indices into `bodies.tissues.TISSUES`; None where a sample has none.
    nodes : the truth at voxel corners where finite elements made it, V; else None.
    singularity : how the truth treats the source, 'subtraction' or 'nodal'.
    region : where a user wants losses and metrics to count; None for all tissue.
    """

    u: Float[Tensor, "B D H W"]
    labels: UInt8[Tensor, "B D H W"] | None = None
    nodes: Float[Tensor, "B D+1 H+1 W+1"] | None = None
    singularity: str = "subtraction"
    region: Bool[Tensor, "B D H W"] | None = None

    @property
    def counted(self) -> Bool[Tensor, "B D H W"]:
        """The tissue that losses and metrics are taken over."""
        return self.tissue if self.region is None else self.tissue & self.region
