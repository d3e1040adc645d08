"""A user's own solved samples, split by phantom."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from physics_hybrid.checks import at_least
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problem import Splits
from physics_hybrid.problems.potential.data.loading import Entry, Files, scan, told
from physics_hybrid.problems.potential.data.protocol import NOTHING_TESTED, Mask
from physics_hybrid.problems.potential.data.sample import OURS, Conventions
from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.data.splits import split_by_phantom
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.training.order import Done


@dataclass
class FileData:
    """Files or a folder of samples. Implements `data.protocol.Data`.

    path : file or folder.
    splits : fractions of the phantoms for train, validation, test.
    conventions, on_error, seed : see conf/data/files.yaml.
    tested : the split that is tested.
    """

    path: str
    batch_size: int
    seed: int
    device: torch.device
    splits: dict[str, float]
    conventions: Conventions = OURS
    on_error: str = "raise"
    workers: int = 0
    sigma_components: int = 3
    rank: int = 0
    world_size: int = 1
    tested: str = "test"
    entries: dict[str, list[Entry]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        at_least(1, "data.batch_size", self.batch_size)
        found = scan(self.path, self.conventions, self.sigma_components, self.on_error)
        note = told(found)
        if note and self.rank == 0:
            print(note, file=sys.stderr, flush=True)
        parts = split_by_phantom([e.phantom for e in found], self.splits, self.seed)
        #: A split that data.splits does not name is empty.
        self.entries = {name: [] for name in ("train", "validation", "test")}
        self.entries |= {name: [found[i] for i in rows] for name, rows in parts.items()}

    def files(self, split: str) -> Files:
        entries = self.entries.get(split, [])
        if not entries:
            raise ValueError(f"data.splits gives no sample to {split}: {self.splits}")
        return Files(
            entries=entries,
            batch_size=self.batch_size,
            device=self.device,
            workers=self.workers,
            conventions=self.conventions,
            sigma_components=self.sigma_components,
        )

    # --- training

    @property
    def share(self) -> Files:
        """This rank's part of the training split."""
        return dataclasses.replace(self.files("train"), rank=self.rank, world_size=self.world_size)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.share.rows())

    def steps_left(self, epoch: int, done: Done) -> int:
        """Batches of an epoch that are left after `done`."""
        return len(self.share.rows((self.seed, epoch), done))

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Batch]:
        yield from self.share.batches((self.seed, epoch), start, done=done)

    def sample_train(self) -> Batch:
        files = self.files("train")
        one = dataclasses.replace(files, entries=files.entries[:1], batch_size=1, workers=0)
        return next(one.batches())

    def sigma_fields(self, count: int) -> Iterator[np.ndarray]:
        """sigma (C, D, H, W) of up to `count` training samples, spread over the split."""
        entries = self.files("train").entries
        for entry in entries[:: max(1, len(entries) // count)][:count]:
            sample = entry.address.read(self.conventions)
            yield components(sample.sigma, self.sigma_components, sample.name)

    # --- splits that are read in a fixed order

    def validation(self) -> Files:
        return self.files("validation")

    def test(self, grid: Grid, count: int) -> Files:
        return self.files(self.tested).of_grid(grid, count)

    # --- grids

    def training_grids(self) -> list[Grid]:
        """Grids that training and validation take through the network."""
        return sorted({e.shape for split in ("train", "validation") for e in self.entries[split]})

    def test_grids(self) -> list[Grid]:
        return sorted({e.shape for e in self.entries[self.tested]})

    def default_grids(self) -> list[Grid]:
        """The grids found."""
        return self.test_grids()

    def coarse_of(self, grid: Grid) -> Grid | None:
        """None: every sample is on one grid."""
        return None

    def contents(self) -> Splits:
        return {
            name: [(str(e.address), e.fingerprint) for e in entries]
            for name, entries in self.entries.items()
        }

    # --- checks

    def check_ranks(self) -> None:
        """Raises RuntimeError where ranks have found different samples: their batches would differ
        in number, and some would wait for ever.
        """
        if self.world_size == 1:
            return
        everyone: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(everyone, self._found())
        other = next((rank for rank, found in enumerate(everyone) if found != everyone[0]), None)
        if other is None:
            return
        rule = (
            f"ranks have found different samples under data.path: rank 0 {everyone[0][0]}, "
            f"rank {other} {everyone[other][0]}. All nodes must see the same files"
        )
        if self.on_error == "skip":
            rule += "; data.on_error=skip leaves out what one node fails to read"
        raise RuntimeError(rule)

    def _found(self) -> tuple[int, str]:
        """How many samples there are, and what tells them from others."""
        mine = {
            name: [(e.address.path.name, e.address.row, e.phantom, e.shape) for e in entries]
            for name, entries in self.entries.items()
        }
        return sum(map(len, mine.values())), hashlib.sha256(repr(mine).encode()).hexdigest()

    def check_loss(self, mask: Mask) -> None:
        """Raises ValueError, naming a file, where training samples lack what a loss needs."""
        if mask == "conductive":
            return
        for entry in self.entries["train"]:
            if not entry.labelled:
                raise ValueError(
                    f"loss.mask={mask} needs tissue labels, and {entry.address} has none (key"
                    " 'labels'); use loss.mask=conductive"
                )

    def check_tested(self, grids: Sequence[Grid]) -> None:
        """Raises ValueError for grids without test samples."""
        if grids and not self.entries[self.tested]:
            raise ValueError(NOTHING_TESTED)
        there = self.test_grids()
        missing = [grid for grid in grids if grid not in there]
        if missing:
            raise ValueError(
                f"no test sample has the grid {name_of(missing[0])} (evaluation.resolutions); "
                f"the test split has {', '.join(map(name_of, there))}"
            )

    # --- the life of the data

    def prepare(self) -> None:
        """Everything was checked when it was found; the splits that training needs must not be
        empty.
        """
        self.files("train")
        self.validation()

    def stage(self, copy: Callable[[str], str]) -> None:
        """Nothing: they were copied before they were found."""
