"""What a checkpoint does on a few samples: loss terms, and what the problem has to say besides.

A problem that `Inspects` gives any slice of any split, and statistics of its own. Of every other
one the slice is of whole batches, in the order in which the split is read: loss terms of those that
train, metrics of those that are tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from physics_hybrid.checks import among, at_least, not_negative
from physics_hybrid.cluster.machine import initialize
from physics_hybrid.problem import Batch, Place
from physics_hybrid.report.markdown import table
from physics_hybrid.run.load import load, recipe_of

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Slice:
    """which : samples of the split, in words. lines : of the table."""

    which: str
    lines: list[tuple[str, float]]


@torch.no_grad()
def inspect(checkpoint: Path, split: str, first: int, count: int) -> str:
    """Loss terms and statistics over samples first, ..., first + count - 1 of a split, Markdown.

    Raises
    ------
    ValueError
        No configuration beside the checkpoint, no such split or no such samples.
    """
    among(SPLITS, "--split", split)
    not_negative("--first", first)
    at_least(1, "--count", count)
    model, config, _ = load(checkpoint)
    if config is None:
        raise ValueError(f"{checkpoint} carries no configuration: give the folder of a run")
    machine = initialize("cpu")
    problem: Any = recipe_of(config).open(Place(machine.device))
    problem.prepare()
    problem.ready()
    model = model.to(machine.device).eval()
    own = hasattr(problem, "inspect")
    found = (_own if own else _of_batches)(problem, model, split, first, count)
    head = f"{checkpoint}, split {split}, {found.which}"
    return f"{head}\n\n" + table(["what", "value"], [[k, f"{v:.6g}"] for k, v in found.lines])


def _own(problem: Any, model: nn.Module, split: str, first: int, count: int) -> Slice:
    """By the problem itself."""
    samples = problem.samples[split]
    rows = range(first, min(first + count, len(samples)))
    if not len(rows):
        raise ValueError(f"the split {split} has {len(samples)} samples: nothing from {first} on")
    batch = samples.rows(rows)
    loss, terms = problem.loss(model, batch)
    lines = [("loss", float(loss)), *((f"loss, {k}", float(v)) for k, v in terms.items())]
    return Slice(
        f"samples {rows[0]} to {rows[-1]}", [*lines, *problem.inspect(model, batch).items()]
    )


def _of_batches(problem: Any, model: nn.Module, split: str, first: int, count: int) -> Slice:
    """By what every problem has."""
    if split == "validation":
        values = {k: v for k, v in problem.validate(model).items() if np.isfinite(v)}
        return Slice("all samples", [(f"{name}, mean of all", v) for name, v in values.items()])
    if split == "train":
        steps = problem.train_batches(0, 0, ())
        return _summed(_terms(problem, model, steps), split, first, count)
    tested = problem.test_sets()[0]
    return _summed(_measured(problem, model, tested), split, first, count)


#: A batch's samples: how many, and by name the values of each.
Part = tuple[int, dict[str, list[float]]]


def _terms(problem: Any, model: nn.Module, batches: Iterator[Batch]) -> Iterator[Part]:
    for batch in batches:
        loss, terms = problem.loss(model, batch)
        values = {"loss": loss, **{f"loss, {name}": term for name, term in terms.items()}}
        yield len(batch), {name: [float(v)] * len(batch) for name, v in values.items()}


def _measured(problem: Any, model: nn.Module, tested: Any) -> Iterator[Part]:
    for batch in tested.batches():
        rows = tested.measure({"": problem.predict(model, batch)}, batch)[""]
        yield len(batch), {f"{tested.name}, {n}": [row[n] for row in rows] for n in rows[0]}


def _summed(parts: Iterator[Part], split: str, first: int, count: int) -> Slice:
    """Mean, 95th percentile and largest of each value over whole batches that have the samples."""
    values: dict[str, list[float]] = {}
    begun, place = None, 0
    for size, part in parts:
        if place + size > first:
            begun = place if begun is None else begun
            for name, numbers in part.items():
                values.setdefault(name, []).extend(numbers)
        place += size
        if place >= first + count:
            break
    if begun is None:
        raise ValueError(f"the split {split} has {place} samples: nothing from {first} on")
    lines = []
    for name, numbers in values.items():
        finite = np.array(numbers)[np.isfinite(numbers)]
        if not len(finite):
            continue
        lines.append((f"{name}, mean", float(finite.mean())))
        if not name.startswith("loss"):
            lines.append((f"{name}, p95", float(np.percentile(finite, 95))))
            lines.append((f"{name}, max", float(finite.max())))
    return Slice(f"samples {begun} to {place - 1}", lines)
