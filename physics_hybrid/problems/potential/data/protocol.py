"""What samples come from, whatever its kind: limbs solved while training (`limb_data`), limbs
solved into files (there, too), or a user's own files (`file_data`).

All give training batches as a function of (seed, epoch, position), a validation split, a test split
on any of their grids, and sigma of the training split for its statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from physics_hybrid.grid import Grid
from physics_hybrid.problem import Splits
from physics_hybrid.problems.potential.data.loading import Files
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.training.order import Done

#: Of a loss: 'conductive' (all tissue), a tissue, or several.
Mask = str | Sequence[str]

#: What grids are told that are to be tested without a test split.
NOTHING_TESTED = (
    "data.splits leaves no sample for the test split, and evaluation.resolutions names grids to "
    "test on"
)


class Data(Protocol):
    """Training, validation and test samples."""

    # --- training

    @property
    def steps_per_epoch(self) -> int: ...

    def steps_left(self, epoch: int, done: Done) -> int:
        """Batches of an epoch that are left after `done`."""

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Batch]: ...

    def sample_train(self) -> Batch:
        """One fixed training sample."""

    def sigma_fields(self, count: int) -> Iterator[np.ndarray]:
        """sigma (C, D, H, W) of up to `count` training samples, S/m."""

    # --- splits that are read in a fixed order

    def validation(self) -> Files: ...

    def test(self, grid: Grid, count: int) -> Files: ...

    # --- grids

    def training_grids(self) -> list[Grid]:
        """Grids that training and validation take through the network."""

    def test_grids(self) -> list[Grid]:
        """Grids of the test split."""

    def default_grids(self) -> list[Grid]:
        """Grids to test on where nobody names any."""

    def coarse_of(self, grid: Grid) -> Grid | None:
        """The training grid, where a test grid is a finer one and has the same samples."""

    def contents(self) -> Splits:
        """The user's own samples in each split; {} for limbs that are drawn."""

    # --- checks: each raises where a training or a test could not end

    def check_ranks(self) -> None:
        """Raises RuntimeError where ranks have found different samples."""

    def check_loss(self, mask: Mask) -> None:
        """Raises ValueError where samples lack what a mask names."""

    def check_tested(self, grids: Sequence[Grid]) -> None:
        """Raises ValueError where a grid has no test samples."""

    # --- the life of the data

    def prepare(self) -> None:
        """Make what training reads and is not there yet: on one rank, before the others look."""

    def stage(self, copy: Callable[[str], str]) -> None:
        """Read what was made for training from copies of its files; see `Place.stage`."""
