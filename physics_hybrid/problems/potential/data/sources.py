"""Where samples come from: limbs solved while training, limbs solved into files, or a user's own
files.

All three give the same things: training batches as a function of (seed, epoch, position), a
validation split, a test split on any of their grids, and the statistics of sigma over the training
split.

Order and share of the ranks: `training/order.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from physics_hybrid.cluster.signals import quiet_worker
from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.batch import collate, components
from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.data.files import Address, expand, find, places
from physics_hybrid.problems.potential.data.generated import dataset_path, generate
from physics_hybrid.problems.potential.data.sample import Conventions, Sample, SampleError
from physics_hybrid.problems.potential.data.splits import split_by_phantom
from physics_hybrid.problems.potential.data.stream import Bodies, LimbStream, Solver
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.training.order import Done, Endless, Stored

#: What a GPU solves at once unless data.solve_together says otherwise may take this share of its
#: memory, at so many bytes for each voxel (measured: 310 to 330 in float64). A solve of a few limbs
#: is bound by some 8000 kernel launches; 24 GB hold 20 limbs of 96x48x48 in that share, 140 GB hold
#: 120.
GPU_SHARE, SOLVE_BYTES = 1 / 16, 340


@dataclass(frozen=True)
class Entry:
    """What a scan keeps of a sample: where it lies, its grid, its phantom, whether its tissues are
    labelled, whether its truth is one of elements,
    and how that treats the source."""

    address: Address
    shape: Grid
    phantom: str
    labelled: bool = True
    elements: bool = False
    singularity: str = "subtraction"

    @property
    def kind(self) -> tuple:
        """What the samples of a batch have in common."""
        return self.shape, self.labelled, self.elements, self.singularity


def scan(
    path: str, conventions: Conventions, sigma_components: int, on_error: str = "raise"
) -> list[Entry]:
    """Read and check every sample under a path once, before anything is trained on it.

    Raises
    ------
    SampleError
        At the first broken sample or file, unless on_error is 'skip': then each is reported on
        standard error and left out.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"data.on_error must be raise or skip; got {on_error!r}")
    entries: list[Entry] = []
    skipped: list[SampleError] = []

    def refuse(error: SampleError) -> None:
        if on_error == "raise":
            raise error
        skipped.append(error)
        print(f"skipped: {error}", file=sys.stderr, flush=True)

    addresses: list[Address] = []
    for place in places(path):
        try:
            addresses += expand(place)
        except SampleError as error:
            refuse(error)
    for address in tqdm(
        addresses, desc="checking samples", unit="sample", disable=len(addresses) < 50
    ):
        try:
            sample = address.read(conventions)
            try:
                components(sample.sigma, sigma_components, sample.name)
            except ValueError as error:
                raise SampleError(
                    str(address), "sigma", str(error).removeprefix(f"{sample.name}: ")
                ) from error
            entries.append(
                Entry(
                    address,
                    sample.shape,
                    sample.phantom,
                    sample.labels is not None,
                    sample.nodes is not None,
                    sample.singularity,
                )
            )
        except SampleError as error:
            refuse(error)
    if skipped:
        print(
            f"data: {len(skipped)} skipped, {len(entries)} samples left (data.on_error=skip)",
            file=sys.stderr,
            flush=True,
        )
    if not entries:
        raise SampleError(path, None, "no sample is left after the checks")
    return entries


class _Batches(Dataset):
    """One item is one batch: the list of rows is fixed beforehand. Holds no open file, so it
    survives `spawn`.
    """

    def __init__(self, rows: list[list[Address]], conventions: Conventions, sigma_components: int):
        self.rows, self.conventions, self.sigma_components = rows, conventions, sigma_components

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return collate([a.read(self.conventions) for a in self.rows[index]], self.sigma_components)


@dataclass(frozen=True)
class Files:
    """Samples on disk, read in batches of one kind (`Entry.kind`) each."""

    entries: list[Entry]
    batch_size: int
    device: torch.device
    workers: int = 0
    conventions: Conventions = Conventions()
    sigma_components: int = 3
    rank: int = 0
    world_size: int = 1

    def rows(
        self, shuffle_key: tuple[int, ...] | None = None, done: Done = ()
    ) -> list[list[Address]]:
        """This rank's batches as lists of addresses; shuffled by a key, or kind by kind in file
        order (`order.Stored.batches`).
        """
        kinds = [entry.kind for entry in self.entries]
        order = Stored(len(self.entries), self.batch_size, self.rank, self.world_size, kinds)
        return [
            [self.entries[i].address for i in batch] for batch in order.batches(shuffle_key, done)
        ]

    def batches(
        self,
        shuffle_key: tuple[int, ...] | None = None,
        start: int = 0,
        stride: int = 1,
        done: Done = (),
    ) -> Iterator[Batch]:
        """Batches start, start + stride, ... of `rows`, on the device."""
        rows = self.rows(shuffle_key, done)[start::stride]
        pin = self.device.type == "cuda"
        # the loader draws a seed for its workers from the global state, which must not depend on
        # when a run was resumed
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(
            _Batches(rows, self.conventions, self.sigma_components),
            batch_size=None,
            num_workers=min(self.workers, len(rows)),
            pin_memory=pin,
            generator=generator,
            worker_init_fn=quiet_worker,
        )
        for batch in loader:
            yield batch.to(self.device)

    def of_grid(self, grid: Grid, count: int | None = None) -> Files:
        return dataclasses.replace(
            self, entries=[e for e in self.entries if e.shape == tuple(grid)][:count]
        )


def _grid(name: str, value) -> Grid:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 3
        or not all(isinstance(n, (int, np.integer)) and n >= 2 for n in value)
    ):
        raise ValueError(
            f"{name} must be three whole sizes >= 2 (D, H, W); got"
            f" {list(value) if isinstance(value, tuple) else value}"
        )
    return tuple(value)


@dataclass
class LimbData:
    """Limbs of our own, or a user's segmentations: streamed (train_samples null: every epoch has
    new ones) or stored.

    grid : (D, H, W) that is trained on and validated on; batch_size; seed.
    grids : train on these in turn instead, batch by batch; streamed limbs only.
    samples_per_epoch : limbs per epoch when streamed.
    train_samples : limbs in the training file, or null to stream.
    validation_samples, folder, workers, solve_together : see conf/data. rank, world_size : whose
        share of the training batches.
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
    _cache: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
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
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1; got {getattr(self, name)}")
        if self.solve_together is not None and self.solve_together < 1:
            raise ValueError(
                f"data.solve_together must be null or at least 1; got {self.solve_together}"
            )
        if self.train_samples is not None and self.train_samples < 1:
            raise ValueError(
                "data.train_samples must be null (streamed) or at least 1; got"
                f" {self.train_samples}"
            )

    def stream(self, split: str, grid: Grid) -> LimbStream:
        return LimbStream(
            self.limbs,
            tuple(grid),
            self.seed,
            split,
            self.solver,
            self.device,
            self.sigma_components,
        )

    def files(self, split: str, grid: Grid, count: int) -> Files:
        """The stored limbs of a split on a grid; solved now where they are not there yet."""
        key = (split, tuple(grid), count)
        if key not in self._cache:
            stream = self.stream(split, grid)
            path = generate(dataset_path(self.folder, stream, count), stream, count)
            addresses = find(path)
            if len(addresses) != count:
                raise SampleError(
                    str(path),
                    None,
                    f"holds {len(addresses)} samples, not {count}; delete it and it is solved"
                    " again",
                )
            entries = [Entry(a, tuple(grid), stream.phantom(i)) for i, a in enumerate(addresses)]
            self._cache[key] = Files(
                entries,
                self.batch_size,
                self.device,
                self.workers,
                Conventions(ends=self.solver.ends),
                self.sigma_components,
            )
        return self._cache[key]

    @property
    def _order(self) -> Endless:
        return Endless(
            self.train_samples or self.samples_per_epoch,
            self.batch_size,
            self.rank,
            self.world_size,
        )

    @property
    def steps_per_epoch(self) -> int:
        return self._order.steps()

    def steps_left(self, epoch: int, done: Done) -> int:
        """Batches of an epoch that are left after `done`."""
        return self._order.steps(done)

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[Batch]:
        if self.train_samples:
            files = self.files("train", self.grid, self.train_samples)
            yield from dataclasses.replace(
                files, rank=self.rank, world_size=self.world_size
            ).batches((self.seed, epoch), start, done=done)
            return
        last, turn, count = (
            self.steps_left(epoch, done),
            epoch * self.steps_per_epoch,
            len(self.grids),
        )
        batches = [
            self._solved(grid, epoch, done, range((i - turn) % count, last, count), start)
            for i, grid in enumerate(self.grids)
        ]
        for step in range(start, last):
            yield next(batches[(turn + step) % count])

    def _solved(
        self, grid: Grid, epoch: int, done: Done, steps: range, start: int
    ) -> Iterator[Batch]:
        """The batches of some steps of an epoch on one grid, from step `start` on."""
        stream, order = self.stream("train", grid), self._order
        at_once = max(1, self._solved_at_once(grid) // self.batch_size)
        for k in range(0, len(steps), at_once):
            group = steps[k : k + at_once]
            if group[-1] < start:
                continue
            # a group is solved whole, wherever in it a run goes on
            numbers = [n for step in group for n in order.numbers(epoch, step, done)]
            batches = stream.batch(numbers).split(self.batch_size)
            yield from (batch for step, batch in zip(group, batches) if step >= start)

    def _solved_at_once(self, grid: Grid) -> int:
        """Limbs in one solve: a GPU is busy with some millions of voxels, a CPU with one limb."""
        if self.solve_together is not None:
            return self.solve_together
        if self.device.type != "cuda":
            return 1
        memory = torch.cuda.get_device_properties(self.device).total_memory
        return max(1, int(memory * GPU_SHARE / (SOLVE_BYTES * math.prod(grid))))

    def prepare(self) -> None:
        """Solve what training reads and is not there yet. With several ranks: on one of them,
        before the others look.
        """
        self.validation()
        if self.train_samples:
            self.files("train", self.grid, self.train_samples)

    def training_file(self) -> Path:
        """Where the stored training limbs lie."""
        return self.files("train", self.grid, self.train_samples).entries[0].address.path

    def read_training_from(self, path: str) -> None:
        """Read the stored training limbs from a copy of their file."""
        key = ("train", self.grid, self.train_samples)
        files = self._cache[key]
        entries = [
            dataclasses.replace(e, address=Address(Path(path), e.address.row))
            for e in files.entries
        ]
        self._cache[key] = dataclasses.replace(files, entries=entries)

    def validation(self) -> Files:
        return self.files(
            "validation",
            self.grid,
            min(self.validation_samples, self.limbs.available("validation")),
        )

    def test(self, grid: Grid, count: int) -> Files:
        return self.files("test", grid, min(count, self.limbs.available("test")))

    def test_grids(self) -> list[Grid]:
        return [self.grid]

    def training_grids(self) -> list[Grid]:
        """Grids that training and validation take through the network."""
        return list(dict.fromkeys([self.grid, *self.grids]))

    def check_loss(self, mask) -> None:
        """Raises ValueError where the bodies lack a tissue that the mask names."""
        missing = (
            []
            if mask == "conductive"
            else [
                t
                for t in ([mask] if isinstance(mask, str) else mask)
                if t in TISSUES and t not in self.limbs.tissues
            ]
        )
        if missing:
            raise ValueError(
                f"loss.mask={mask}: data.tissues names no {missing[0]}; use loss.mask=conductive or"
                f" tissues out of {', '.join(self.limbs.tissues)}"
            )

    def sample_train(self) -> Batch:
        return self.stream("train", self.grid).batch([0])

    def sigma_fields(self, count: int) -> Iterator[np.ndarray]:
        """sigma (C, D, H, W) of `count` training limbs, not solved."""
        for number in range(count):
            limb = self.limbs.draw(self.seed, 0, number).voxelise(self.grid)
            yield components(limb.sigma, self.sigma_components, "limb")


@dataclass
class FileData:
    """A user's own solved samples, split by phantom.

    path : file or folder; splits : fractions of the phantoms for train, validation, test;
        conventions, on_error, seed.
    """

    path: str
    batch_size: int
    seed: int
    device: torch.device
    splits: dict[str, float]
    conventions: Conventions = Conventions()
    on_error: str = "raise"
    workers: int = 0
    sigma_components: int = 3
    rank: int = 0
    world_size: int = 1
    entries: dict[str, list[Entry]] = field(init=False, repr=False)

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1; got {self.batch_size}")
        found = scan(self.path, self.conventions, self.sigma_components, self.on_error)
        parts = split_by_phantom([e.phantom for e in found], self.splits, self.seed)
        self.entries = {name: [found[i] for i in rows] for name, rows in parts.items()}

    def files(self, split: str) -> Files:
        entries = self.entries.get(split, [])
        if not entries:
            raise ValueError(f"data.splits gives no sample to {split}: {self.splits}")
        return Files(
            entries,
            self.batch_size,
            self.device,
            self.workers,
            self.conventions,
            self.sigma_components,
        )

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

    def check_ranks(self) -> None:
        """Raises RuntimeError where ranks have found different samples: their batches would differ
        in number, and some would wait for ever.
        """
        if self.world_size == 1:
            return
        mine = {
            name: [(e.address.path.name, e.address.row, e.phantom, e.shape) for e in entries]
            for name, entries in self.entries.items()
        }
        everyone: list = [None] * self.world_size
        torch.distributed.all_gather_object(
            everyone,
            (sum(map(len, mine.values())), hashlib.sha256(repr(mine).encode()).hexdigest()),
        )
        other = next((rank for rank, found in enumerate(everyone) if found != everyone[0]), None)
        if other is not None:
            raise RuntimeError(
                f"ranks have found different samples under data.path: rank 0 {everyone[0][0]}, rank"
                f" {other} {everyone[other][0]}. All nodes must see the same files"
                + (
                    "; data.on_error=skip leaves out what one node fails to read"
                    if self.on_error == "skip"
                    else ""
                )
            )

    def prepare(self) -> None:
        """Everything was checked when it was found; the splits that training needs must not be
        empty.
        """
        self.files("train"), self.validation()

    def validation(self) -> Files:
        return self.files("validation")

    def test(self, grid: Grid, count: int) -> Files:
        return self.files("test").of_grid(grid, count)

    def test_grids(self) -> list[Grid]:
        return sorted({e.shape for e in self.entries["test"]})

    def training_grids(self) -> list[Grid]:
        """Grids that training and validation take through the network."""
        return sorted({e.shape for split in ("train", "validation") for e in self.entries[split]})

    def check_loss(self, mask) -> None:
        """Raises ValueError, naming a file, where training samples lack what a loss needs."""
        for entry in self.entries["train"]:
            if mask != "conductive" and not entry.labelled:
                raise ValueError(
                    f"loss.mask={mask} needs tissue labels, and {entry.address} has none (key"
                    " 'labels'); use loss.mask=conductive"
                )

    def sample_train(self) -> Batch:
        return next(
            Files(
                self.files("train").entries[:1],
                1,
                self.device,
                0,
                self.conventions,
                self.sigma_components,
            ).batches()
        )

    def sigma_fields(self, count: int) -> Iterator[np.ndarray]:
        """sigma (C, D, H, W) of up to `count` training samples, spread over the split."""
        entries = self.files("train").entries
        for entry in entries[:: max(1, len(entries) // count)][:count]:
            sample: Sample = entry.address.read(self.conventions)
            yield components(sample.sigma, self.sigma_components, sample.name)
