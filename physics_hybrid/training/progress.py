"""How far a training has come, and what it has found so far in the epoch."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tqdm import tqdm

COUNT = "n/"  # before the name of a value: how many there were


@dataclass
class Progress:
    """Where a training stands.

    epoch : epochs that are complete.
    position : batches of the present one.
    done : [ranks, batches, batch size] of those that other ranks, or of other sizes, had of it
        before.
    changed : settings that are not those that the run began this epoch with, 'key: old -> new'.
    step : optimiser steps, `skipped` ones included; `bad_steps`: skipped ones in a row.
    seconds : spent in steps.
    """

    epoch: int = 0
    position: int = 0
    done: list[Any] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    step: int = 0
    bad_steps: int = 0
    skipped: int = 0
    seconds: float = 0.0
    finished: bool = False

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)


class EpochMeans:
    """Means over the steps of an epoch, of values by name; those that are not finite do not count.

    sums : of each name, and how many there were of it; plain numbers, for a checkpoint.
    """

    def __init__(self, sums: Mapping[str, float] | None = None):
        self.sums: dict[str, float] = dict(sums or {})

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.sums[COUNT + name] = self.sums.get(COUNT + name, 0.0) + 1

    def means(self) -> dict[str, float]:
        names = [name for name in self.sums if not name.startswith(COUNT)]
        return {name: self.sums[name] / self.sums[COUNT + name] for name in names}


def progress_bar(total: int, done: int, *, shown: bool) -> tqdm[Any]:
    """A bar of steps; rare lines where it is written to a file."""
    return tqdm(
        total=total,
        initial=done,
        unit="step",
        desc="training",
        disable=not shown,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
    )
