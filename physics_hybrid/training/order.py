"""The order in which a training takes its samples: a function of (seed, epoch), whatever the ranks.

With several ranks a step takes `batch_size` samples on each: rank r has the r-th part of the global
batch that one process with world_size times the batch size would have. An epoch is one order of
samples; one that began with other numbers of ranks, or another batch size (`done`: for each, how
many ranks, how many of their batches, and of what size), goes on with the samples that are left. A
problem that draws its batches from here can be killed and started again, with as many ranks or with
others, and gives the same bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from physics_hybrid.problem import Place

Item = TypeVar("Item")

#: What was done of an epoch with other ranks or batches: (ranks, batches, batch size) for each;
#: without a size, it is the present one.
Done = Sequence[tuple[int, int] | tuple[int, int, int]]


def share(items: list[Item], rank: int, world_size: int) -> list[Item]:
    """The part of a list that belongs to one of so many: all parts in order are the whole."""
    begin, end = (r * len(items) // world_size for r in (rank, rank + 1))
    return items[begin:end]


@dataclass(frozen=True)
class Stored:
    """Samples that are there: each comes once an epoch.

    count : how many. batch_size : of one rank. rank, world_size : whose share.
    kinds : the kind of each sample, where a batch must not mix them.
    """

    count: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    kinds: Sequence[Hashable] | None = None

    @classmethod
    def of(cls, place: Place, count: int, batch_size: int) -> Stored:
        """The share of this rank."""
        return cls(count, batch_size, place.rank, place.world_size)

    def batches(self, key: tuple[int, ...] | None, done: Done = ()) -> list[list[int]]:
        """This rank's batches, as positions among the samples.

        key : what the shuffle follows from, (seed, epoch) in a training; None: kind by kind, in the
            order of the samples.

        Where ranks would get unequal shares, samples are repeated from the start of their kind, as
        torch's DistributedSampler does.
        """
        order = self._order(key)
        for ranks, count, *size in done:
            before = self._global_batches(order, ranks, *size)[:count]
            seen = {i for batch in before for i in batch}
            order = [i for i in order if i not in seen]
        batches = self._global_batches(order, self.world_size)
        return [share(batch, self.rank, self.world_size) for batch in batches]

    def _order(self, key: tuple[int, ...] | None) -> list[int]:
        if key is not None:
            shuffled: list[int] = np.random.default_rng(list(key)).permutation(self.count).tolist()
            return shuffled
        if self.kinds is None:
            return list(range(self.count))
        kinds = self.kinds
        by_kind: Any = kinds.__getitem__
        return sorted(range(self.count), key=by_kind)

    def _global_batches(
        self, order: list[int], ranks: int, batch_size: int | None = None
    ) -> list[list[int]]:
        """Batches of all ranks, of one kind each.

        A kind keeps the order, and a batch comes when the first of its samples would.
        """
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for i in order:
            groups[None if self.kinds is None else self.kinds[i]].append(i)
        size, batches = (batch_size or self.batch_size) * ranks, []
        for group in groups.values():
            group += [group[i % len(group)] for i in range(-len(group) % ranks)]
            batches += [group[k : k + size] for k in range(0, len(group), size)]
        place = {i: k for k, i in enumerate(order)}
        return sorted(batches, key=lambda batch: place[batch[0]])


@dataclass(frozen=True)
class Endless:
    """Samples that are made as they are needed, numbered from 0: every epoch has new ones.

    The last batch of an epoch is a full one, too, with the first samples of the next.

    per_epoch : samples in an epoch. batch_size : of one rank. rank, world_size : whose share.
    """

    per_epoch: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def steps(self, done: Done = ()) -> int:
        """Batches of an epoch that are left after `done`."""
        return -(-(self.per_epoch - self._seen(done)) // (self.batch_size * self.world_size))

    def numbers(self, epoch: int, step: int, done: Done = ()) -> range:
        """The samples of this rank's batch `step` of what is left of an epoch."""
        begin = epoch * self.per_epoch + self._seen(done)
        first = begin + (step * self.world_size + self.rank) * self.batch_size
        return range(first, first + self.batch_size)

    def _seen(self, done: Done) -> int:
        sizes = [size[0] if size else self.batch_size for _, _, *size in done]
        seen = sum(d[0] * d[1] * size for d, size in zip(done, sizes, strict=True))
        return min(self.per_epoch, seen)
