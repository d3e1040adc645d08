"""The box round the tissue: air carries nothing, and is not solved for.

Along D it is cut only where nothing passes the ends; where these are open, they are where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.door.sources import Deposit, Sources
from physics_hybrid.problems.potential.physics.conductor import Conductor


@dataclass(frozen=True)
class Box:
    """low, high : voxels [low, high) of a grid along each axis. shape : of the grid."""

    low: Grid
    high: Grid
    shape: Grid

    @classmethod
    def of(cls, conductor: Conductor) -> Box:
        """Round the tissue of one body, at least 2 voxels along every axis."""
        tissue, shape = conductor.tissue[0], conductor.shape
        low, high = [], []
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            (used,) = tissue.any(dim=others[1]).any(dim=others[0]).nonzero(as_tuple=True)
            first, last = int(used[0]), int(used[-1]) + 1
            if axis == 0 and not conductor.ends.floating:
                first, last = 0, shape[0]
            last = max(last, min(first + 2, shape[axis]))
            low.append(min(first, last - 2))
            high.append(last)
        return cls((low[0], low[1], low[2]), (high[0], high[1], high[2]), shape)

    @property
    def size(self) -> Grid:
        """Of the box."""
        d, h, w = (b - a for a, b in zip(self.low, self.high, strict=True))
        return d, h, w

    def within(self, field: Tensor) -> Tensor:
        """The part of a field (..., D, H, W) in the box."""
        d, h, w = (slice(a, b) for a, b in zip(self.low, self.high, strict=True))
        return field[..., d, h, w].contiguous()

    def whole(self, field: Tensor) -> Tensor:
        """A field of the box (..., D, H, W) with 0 round it."""
        widths = []
        for axis in (2, 1, 0):  # torch counts from the last axis
            widths += [self.low[axis], self.shape[axis] - self.high[axis]]
        return F.pad(field, widths) if any(widths) else field

    def conductor(self, conductor: Conductor) -> Conductor:
        """The body in the box."""
        return Conductor(self.within(conductor.sigma), conductor.spacing, conductor.ends)

    def sources(self, sources: Sources, spacing: Tensor) -> Sources:
        """Electrodes, with places from the corner of the box. spacing : (3,) m."""
        corner = torch.tensor(self.low, dtype=spacing.dtype, device=spacing.device) * spacing
        points, returns = sources.points, sources.returns
        return Sources(
            points=None if points is None else points - corner,
            current=sources.current,
            returns=None if returns is None else returns - corner,
            deposits=tuple(self._deposit(deposit) for deposit in sources.deposits),
            many=sources.many,
        )

    def _deposit(self, deposit: Deposit) -> Deposit:
        index = np.unravel_index(deposit.voxels, self.shape)
        inside = tuple(i - a for i, a in zip(index, self.low, strict=True))
        return Deposit(np.ravel_multi_index(inside, self.size), deposit.shares)
