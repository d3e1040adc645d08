"""Samples on disk: found and checked once, then read in batches of one kind each.

Order and share of the ranks: `training/order.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from physics_hybrid.checks import one_of
from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.data.collate import collate
from physics_hybrid.problems.potential.data.files import Address, expand, places
from physics_hybrid.problems.potential.data.parcels import received
from physics_hybrid.problems.potential.data.plausible import (
    COUNTS_AS_TISSUE,
    HARDLY_TISSUE,
    NearlyAir,
    nearly_air,
    wrong_scale,
)
from physics_hybrid.problems.potential.data.sample import OURS, Conventions, Sample, SampleError
from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.training.order import Done, Stored

#: A check of so many samples shows how far it is.
LONG = 50


@dataclass(frozen=True)
class Entry:
    """What a scan keeps of a sample.

    address : where it lies.
    shape : its grid.
    phantom : what must not be split.
    labelled : whether its tissues are labelled.
    elements : whether its truth is one of elements.
    singularity : how that treats the source.
    fingerprint : see `fingerprint`; '' where nobody asks.
    nearly_air : what of it conducts less than any tissue.
    """

    address: Address
    shape: Grid
    phantom: str
    labelled: bool = True
    elements: bool = False
    singularity: str = "subtraction"
    fingerprint: str = ""
    nearly_air: NearlyAir | None = None

    @property
    def kind(self) -> tuple[Grid, bool, bool, str]:
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
    one_of(("raise", "skip"), "data.on_error", on_error)
    broken = _Broken(skip=on_error == "skip")
    addresses = _addresses(path, broken)
    entries, understood = [], _Understood()
    silent = len(addresses) < LONG
    for address in tqdm(addresses, desc="checking samples", unit="sample", disable=silent):
        try:
            entries.append(_entry(address, conventions, sigma_components, understood))
        except SampleError as error:
            broken.refuse(error)
    if broken.skipped:
        _say(f"data: {broken.skipped} skipped, {len(entries)} samples left (data.on_error=skip)")
    if not entries:
        raise SampleError(path, None, "no sample is left after the checks")
    understood.say(entries)
    return entries


@dataclass
class _Understood:
    """What was taken though we would write it otherwise: each note once, with the first sample."""

    notes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        for note in sample.notes:
            self.notes.setdefault(note, []).append(sample.name)

    def say(self, entries: list[Entry]) -> None:
        subjects = {entry.address.subject for entry in entries} - {""}
        if subjects:
            _say(
                f"data: folders are taken for {len(subjects)} subjects ({min(subjects)}, ...): "
                "samples of one stay together in training, validation or test"
            )
        for note, names in self.notes.items():
            _say(f"data: {note} ({len(names)} of {len(entries)} samples; the first is {names[0]})")


@dataclass
class _Broken:
    """What happens to broken samples: the first one ends it, or all are left out and counted."""

    skip: bool
    skipped: int = 0

    def refuse(self, error: SampleError) -> None:
        if not self.skip:
            raise error
        self.skipped += 1
        _say(f"skipped: {error}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _addresses(path: str, broken: _Broken) -> list[Address]:
    addresses: list[Address] = []
    for place in places(path):
        try:
            addresses += expand(place)
        except SampleError as error:
            broken.refuse(error)
    return addresses


def _entry(
    address: Address, conventions: Conventions, sigma_components: int, understood: _Understood
) -> Entry:
    """Read and check one sample. Raises SampleError."""
    sample = address.read(conventions)
    try:
        components(sample.sigma, sigma_components, sample.name)
    except ValueError as error:
        rule = str(error).removeprefix(f"{sample.name}: ")
        raise SampleError(str(address), "sigma", rule) from error
    wrong = wrong_scale(sample, conventions.source_units)
    if wrong:
        raise SampleError(str(address), "u", wrong)
    understood.add(sample)
    return Entry(
        address=address,
        shape=sample.shape,
        phantom=sample.phantom,
        labelled=sample.labels is not None,
        elements=sample.nodes is not None,
        singularity=sample.singularity,
        fingerprint=fingerprint(sample),
        nearly_air=nearly_air(sample.sigma),
    )


def fingerprint(sample: Sample) -> str:
    """What tells a sample from others wherever it lies: a digest of its arrays.

    It does not depend on how the file is read: on what counts as air, or on the unit of source.
    """
    tissue = sample.sigma[0] >= HARDLY_TISSUE
    digest = hashlib.blake2b(digest_size=10)
    for array in (sample.sigma * tissue, sample.u * tissue, sample.source != 0):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(sample.spacing.astype(np.float32).tobytes())
    return digest.hexdigest()


def told(entries: Sequence[Entry]) -> str | None:
    """What a user should know of the samples that were found; None for nothing."""
    low = [(e.nearly_air, e) for e in entries if e.nearly_air is not None]
    if not low:
        return None
    worst, entry = min(low, key=lambda found: found[0].lowest)
    key = f"data.air_below={10 * worst.lowest:.0e}"
    return (
        f"NOTE: {entry.address}: {worst} ({len(low)} of {len(entries)} samples have such voxels): "
        f"{COUNTS_AS_TISSUE.format(key=key)}"
    )


class Batches(Dataset[Batch]):
    """One item is one batch: the list of rows is fixed beforehand. Holds no open file, so it
    survives `spawn`.
    """

    def __init__(self, rows: list[list[Address]], conventions: Conventions, sigma_components: int):
        self.rows, self.conventions, self.sigma_components = rows, conventions, sigma_components

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        samples = [address.read(self.conventions) for address in self.rows[index]]
        return collate(samples, self.sigma_components)


@dataclass(frozen=True)
class Files:
    """Samples on disk, read in batches of one kind (`Entry.kind`) each."""

    entries: list[Entry]
    batch_size: int
    device: torch.device
    workers: int = 0
    conventions: Conventions = OURS
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
        reading = Batches(rows, self.conventions, self.sigma_components)
        workers, pin = min(self.workers, len(rows)), self.device.type == "cuda"
        for batch in received(reading, len(rows), workers, pin=pin):
            yield batch.to(self.device)

    def of_grid(self, grid: Grid, count: int | None = None) -> Files:
        """Those on a grid, the first `count` of them."""
        entries = [entry for entry in self.entries if entry.shape == tuple(grid)]
        return dataclasses.replace(self, entries=entries[:count])

    def copied_to(self, path: Path) -> Files:
        """The same samples, in a copy of their file."""
        entries = []
        for entry in self.entries:
            address = dataclasses.replace(entry.address, path=path)
            entries.append(dataclasses.replace(entry, address=address))
        return dataclasses.replace(self, entries=entries)
