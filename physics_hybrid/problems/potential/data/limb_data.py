"""Bodies of our own, or a user's segmentations, solved while training or into files.

Order and share of the ranks: `training/order.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.checks import at_least
from physics_hybrid.grid import Grid
from physics_hybrid.problem import Splits
from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.data.files import find
from physics_hybrid.problems.potential.data.generated import dataset_path, generate
from physics_hybrid.problems.potential.data.loading import Entry, Files
from physics_hybrid.problems.potential.data.protocol import NOTHING_TESTED, Mask
from physics_hybrid.problems.potential.data.sample import Conventions, SampleError
from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.data.stream import SPLITS, Bodies, LimbStream, Solver
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.training.order import Done, Endless

#: What a GPU solves at once unless data.solve_together says otherwise may take this share of its
#: memory, at so many bytes for each voxel (measured: 310 to 330 in float64). A solve of a few limbs
#: is bound by some 8000 kernel launches; 24 GB hold 20 limbs of 96x48x48 in that share, 140 GB hold
#: 120.
GPU_SHARE, SOLVE_BYTES = 1 / 16, 340

#: On a CPU so many limbs, of no more voxels together: calls are most of a solve of two small limbs.
#: A limb of 48x24x24 takes 0.7 of the time among eight, 96x48x48 is best alone.
CPU_LIMBS, CPU_VOXELS = 8, 2**18


def _grid(name: str, value: Any) -> Grid:
    sizes = isinstance(value, (list, tuple)) and len(value) == 3
    if not sizes or not all(isinstance(n, (int, np.integer)) and n >= 2 for n in value):
        got = list(value) if isinstance(value, tuple) else value
        raise ValueError(f"{name} must be three whole sizes >= 2 (D, H, W); got {got}")
    D, H, W = value
    return D, H, W


@dataclass
class LimbData:
    """Limbs of our own, or a user's segmentations: streamed (train_samples null: every epoch has
    new ones) or stored. Implements `data.protocol.Data`.

    grid : (D, H, W) that is trained on and validated on; batch_size; seed.
    grids : train on these in turn instead, batch by batch; streamed limbs only.
    samples_per_epoch : limbs per epoch when streamed.
    train_samples : limbs in the training file, or null to stream.
    validation_samples, folder, workers, solve_together : see conf/data.
    rank, world_size : whose share of the training batches.
    """

    limbs: Bodies
    solver: Solver
    grid: Grid
    batch_size: int
    seed: int
    device: torch.device
    folder: str
    samples_per_epoch: int
    validation_samples: int
    train_samples: int | None = None
    workers: int = 0
    sigma_components: int = 3
    rank: int = 0
    world_size: int = 1
    solve_together: int | None = None
    grids: tuple[Grid, ...] = ()
    _cache: dict[tuple[str, Grid, int], Files] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.grid = _grid("data.grid", self.grid)
        if not isinstance(self.grids, (list, tuple)):
            raise ValueError(
                "data.grids must be null or a list of grids such as [[48,24,24],[96,48,48]]; got"
                f" {self.grids}"
            )
        self.grids = tuple(_grid("each of data.grids", g) for g in self.grids) or (self.grid,)
        if self.train_samples is not None and self.grids != (self.grid,):
            raise ValueError(
                "data.grids takes streamed limbs, and data.train_samples asks for stored ones: set"
                " data.train_samples=null, or data.grids=null"
            )
        for name in ("batch_size", "samples_per_epoch", "validation_samples"):
            at_least(1, f"data.{name}", getattr(self, name))
        at_least(1, "data.solve_together", self.solve_together, null=True)
        if self.train_samples is not None and self.train_samples < 1:
            raise ValueError(
                "data.train_samples must be null (streamed) or at least 1; got"
                f" {self.train_samples}"
            )

    def stream(self, split: str, grid: Grid) -> LimbStream:
        D, H, W = grid
        return LimbStream(
            limbs=self.limbs,
            grid=(D, H, W),
            seed=self.seed,
            split=split,
            solver=self.solver,
            device=self.device,
            sigma_components=self.sigma_components,
        )

    def files(self, split: str, grid: Grid, count: int) -> Files:
        """The stored limbs of a split on a grid; solved now where they are not there yet."""
        D, H, W = grid
        key = (split, (D, H, W), count)
        if key not in self._cache:
            self._cache[key] = self._stored(self.stream(split, grid), count)
        return self._cache[key]

    def _stored(self, stream: LimbStream, count: int) -> Files:
        path = generate(dataset_path(self.folder, stream, count), stream, count)
        addresses = find(path)
        if len(addresses) != count:
            rule = f"holds {len(addresses)} samples, not {count}; delete it and it is solved again"
            raise SampleError(str(path), None, rule)
        return Files(
            entries=[Entry(a, stream.grid, stream.phantom(i)) for i, a in enumerate(addresses)],
            batch_size=self.batch_size,
            device=self.device,
            workers=self.workers,
            conventions=Conventions(ends=self.solver.ends),
            sigma_components=self.sigma_components,
        )

    def missing(self, split: str, grid: Grid, count: int) -> int:
        """How many samples would have to be solved: `count`, or 0 where their file is there."""
        path = dataset_path(self.folder, self.stream(split, grid), count)
        return 0 if path.exists() else count

    # --- training

    @property
    def _order(self) -> Endless:
        count = self.train_samples or self.samples_per_epoch
        return Endless(count, self.batch_size, self.rank, self.world_size)

    @property
    def steps_per_epoch(self) -> int:
        return self._order.steps()

    def steps_left(self, epoch: int, done: Done) -> int:
        """Batches of an epoch that are left after `done`."""
        return self._order.steps(done)

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Batch]:
        if self.train_samples:
            files = self.files("train", self.grid, self.train_samples)
            share = dataclasses.replace(files, rank=self.rank, world_size=self.world_size)
            yield from share.batches((self.seed, epoch), start, done=done)
        else:
            yield from self._in_turn(epoch, start, done)

    def _in_turn(self, epoch: int, start: int, done: Done) -> Iterator[Batch]:
        """Streamed batches, on one grid after the other."""
        last, count = self.steps_left(epoch, done), len(self.grids)
        turn = epoch * self.steps_per_epoch
        batches = []
        for i, grid in enumerate(self.grids):
            steps = range((i - turn) % count, last, count)
            batches.append(self._solved(grid, epoch, done, steps, start))
        for step in range(start, last):
            yield next(batches[(turn + step) % count])

    def _solved(
        self, grid: Grid, epoch: int, done: Done, steps: range, start: int
    ) -> Iterator[Batch]:
        """The batches of some steps of an epoch on one grid, from step `start` on."""
        stream, order = self.stream("train", grid), self._order
        at_once = max(1, self.solved_at_once(grid) // self.batch_size)
        for k in range(0, len(steps), at_once):
            group = steps[k : k + at_once]
            if group[-1] < start:
                continue
            # a group is solved whole, wherever in it a run goes on
            numbers = [n for step in group for n in order.numbers(epoch, step, done)]
            batches = stream.batch(numbers).split(self.batch_size)
            for step, batch in zip(group, batches, strict=True):
                if step >= start:
                    yield batch

    def solved_at_once(self, grid: Grid) -> int:
        """Limbs in one solve: a GPU is busy with some millions of voxels, a CPU with far fewer."""
        if self.solve_together is not None:
            return self.solve_together
        voxels = math.prod(grid)
        if self.device.type != "cuda":
            return min(CPU_LIMBS, max(1, CPU_VOXELS // voxels))
        memory = torch.cuda.get_device_properties(self.device).total_memory
        return max(1, int(memory * GPU_SHARE / (SOLVE_BYTES * voxels)))

    def sample_train(self) -> Batch:
        return self.stream("train", self.grid).batch([0])

    def sigma_fields(self, count: int) -> Iterator[np.ndarray]:
        """sigma (C, D, H, W) of `count` training limbs, not solved."""
        for number in range(count):
            limb = self.limbs.draw(self.seed, 0, number).voxelise(self.grid)
            yield components(limb.sigma, self.sigma_components, "limb")

    # --- splits that are read in a fixed order

    def validation(self) -> Files:
        count = self._available("validation", self.validation_samples)
        return self.files("validation", self.grid, count)

    def test(self, grid: Grid, count: int) -> Files:
        return self.files("test", grid, self._available("test", count))

    def _available(self, split: str, wanted: int) -> int:
        there = self.limbs.available(split)
        if not there:
            raise ValueError(f"data.splits gives no sample to {split}")
        return wanted if wanted <= there else int(there)

    # --- grids

    def training_grids(self) -> list[Grid]:
        """Grids that training and validation take through the network."""
        return list(dict.fromkeys([self.grid, *self.grids]))

    def test_grids(self) -> list[Grid]:
        return [self.grid]

    def default_grids(self) -> list[Grid]:
        """The training grid and the one twice as fine; none where nothing is tested."""
        if not self.limbs.available("test"):
            return []
        D, H, W = self.grid
        return [self.grid, (2 * D, 2 * H, 2 * W)]

    def coarse_of(self, grid: Grid) -> Grid | None:
        """The training grid, for one that is finer."""
        finer = all(fine >= home for fine, home in zip(grid, self.grid, strict=True))
        return self.grid if finer and grid != self.grid else None

    def contents(self) -> Splits:
        """The files that bodies are drawn from."""
        parts = {split: self.limbs.content(split) for split in SPLITS}
        return parts if any(parts.values()) else {}

    # --- checks

    def check_ranks(self) -> None:
        """All ranks draw the same limbs."""

    def check_loss(self, mask: Mask) -> None:
        """Raises ValueError where the bodies lack a tissue that the mask names."""
        if mask == "conductive":
            return
        names = [mask] if isinstance(mask, str) else mask
        missing = [t for t in names if t in TISSUES and t not in self.limbs.tissues]
        if missing:
            raise ValueError(
                f"loss.mask={mask}: data.tissues names no {missing[0]}; use loss.mask=conductive or"
                f" tissues out of {', '.join(self.limbs.tissues)}"
            )

    def check_tested(self, grids: Sequence[Grid]) -> None:
        """Limbs are solved on any grid. Raises ValueError for grids without a test split."""
        if grids and not self.limbs.available("test"):
            raise ValueError(NOTHING_TESTED)

    # --- the life of the data

    def prepare(self) -> None:
        """Solve what training reads and is not there yet. With several ranks: on one of them,
        before the others look.
        """
        self.validation()
        if self.train_samples:
            self.files("train", self.grid, self.train_samples)

    def stage(self, copy: Callable[[str], str]) -> None:
        """Read the stored training limbs from a copy of their file."""
        if not self.train_samples:
            return
        files = self.files("train", self.grid, self.train_samples)
        path = Path(copy(str(files.entries[0].address.path)))
        self._cache["train", self.grid, self.train_samples] = files.copied_to(path)
