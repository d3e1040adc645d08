"""The box round the tissue: air carries nothing, and is not solved for.

Along D it is cut only where nothing passes the ends; where these are open, they are where they are.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource


@dataclass(frozen=True)
class Box:
    """low, high : voxels [low, high) of a grid along each axis. shape : of the grid."""

    low: Grid
    high: Grid
    shape: Grid

    @classmethod
    def of(cls, conductor: Conductor) -> "Box":
        """Round the tissue of all bodies, at least 2 voxels along every axis."""
        most, shape = conductor.sigma.detach()[:, 0].amax(dim=0), conductor.shape
        across, along = most.amax(dim=0), most.amax(dim=2)
        low, high = [], []
        for axis, values in enumerate((along.amax(dim=1), along.amax(dim=0), across.amax(dim=0))):
            (used,) = (values > 0).nonzero(as_tuple=True)
            open_ends = axis == 0 and not conductor.ends.floating
            if open_ends or not len(used):
                first, last = 0, shape[axis]
            else:
                first, last = int(used[0]), int(used[-1]) + 1
            last = max(last, min(first + 2, shape[axis]))
            low.append(max(0, min(first, last - 2)))
            high.append(last)
        return cls((low[0], low[1], low[2]), (high[0], high[1], high[2]), shape)

    @property
    def size(self) -> Grid:
        """Of the box."""
        d, h, w = (b - a for a, b in zip(self.low, self.high, strict=True))
        return d, h, w

    def within(self, field: Shaped[Tensor, "*n D H W"]) -> Shaped[Tensor, "*n _ _ _"]:
        """The part of a field in the box."""
        d, h, w = (slice(a, b) for a, b in zip(self.low, self.high, strict=True))
        return field[..., d, h, w].contiguous()

    def at_nodes(self, nodes: Float[Tensor, "*n nD nH nW"]) -> Float[Tensor, "*n _ _ _"]:
        """The part of values at nodes that belongs to the voxels of the box."""
        d, h, w = (slice(a, b + 1) for a, b in zip(self.low, self.high, strict=True))
        return nodes[..., d, h, w].contiguous()

    def whole(self, field: Float[Tensor, "*n _ _ _"]) -> Float[Tensor, "*n D H W"]:
        """A field of the box with 0 round it."""
        widths = []
        for axis in (2, 1, 0):  # torch counts from the last axis
            widths += [self.low[axis], self.shape[axis] - self.high[axis]]
        return F.pad(field, widths) if any(widths) else field

    def conductor(self, conductor: Conductor) -> Conductor:
        """The bodies in the box."""
        return Conductor(self.within(conductor.sigma), conductor.spacing, conductor.ends)

    def source(self, source: PointSource, spacing: Float[Tensor, "B 3"]) -> PointSource:
        """Electrodes, in metres from the corner of the box."""
        corner = torch.tensor(self.low).to(source.point) * spacing.to(source.point)
        returns = source.returns
        return PointSource(
            source.point - corner, source.current, None if returns is None else returns - corner
        )
