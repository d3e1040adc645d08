"""What a checkpoint does on a few samples: loss terms, and what the problem has to say besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from physics_hybrid.checks import among
from physics_hybrid.cluster.machine import initialize
from physics_hybrid.problem import Place
from physics_hybrid.report.markdown import table
from physics_hybrid.run.load import load, recipe_of


@torch.no_grad()
def inspect(checkpoint: Path, split: str, first: int, count: int) -> str:
    """Loss terms over samples first, ..., first + count - 1 of a split, Markdown.

    Raises
    ------
    ValueError
        No configuration beside the checkpoint, a problem that cannot be inspected, no such split or
        no such samples.
    """
    model, config, _ = load(checkpoint)
    if config is None:
        raise ValueError(f"{checkpoint} carries no configuration: give the folder of a run")
    machine = initialize("cpu")
    problem: Any = recipe_of(config).open(Place(machine.device))
    if not hasattr(problem, "inspect"):
        raise ValueError(f"the problem of {checkpoint} has nothing to inspect: python evaluate.py")
    among(list(problem.samples), "--split", split)
    samples = problem.samples[split]
    rows = range(first, min(first + count, len(samples)))
    if not len(rows):
        raise ValueError(f"the split {split} has {len(samples)} samples: nothing from {first} on")
    model.eval()
    batch = samples.rows(rows)
    loss, terms = problem.loss(model, batch)
    lines = [["loss", float(loss)], *([f"loss, {k}", float(v)] for k, v in terms.items())]
    lines += [[name, value] for name, value in problem.inspect(model, batch).items()]
    head = f"{checkpoint}, split {split}, samples {rows[0]} to {rows[-1]}"
    return f"{head}\n\n" + table(["what", "value"], [[k, f"{v:.6g}"] for k, v in lines])
