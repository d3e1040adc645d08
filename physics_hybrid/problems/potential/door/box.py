"""The box round the tissue, with all that the door takes as a source in it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.door.sources import Deposit, Sources
from physics_hybrid.problems.potential.physics import box


class Box(box.Box):
    """As in `physics`, of one body."""

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
