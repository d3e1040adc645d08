"""How far the truth of the flavour closure depends on how it is made: the same states again, with a
box that is finer, longer, or other chance.

    difference = max |F - F_reference| / max |F_reference - F_before|

over species and components, state by state. Each simulation is a file of its own, so that a killed
measurement goes on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from physics_hybrid.problems.flavour.data.generate import SHIPPED, family_of
from physics_hybrid.problems.flavour.physics.families import FAMILIES, draw
from physics_hybrid.problems.flavour.physics.simulation import Box, simulate
from physics_hybrid.report.markdown import table
from physics_hybrid.writing import write_text

#: Of a change that is smaller, as a share of N_tot, nothing is said.
SMALLEST = 1e-3
#: Columns of the table, by the name of a box: what is changed in the reference, and the seed of the
#: noise besides that of the state.
REFERENCE = "reference"
BOXES: dict[str, tuple[dict[str, Any], int]] = {
    REFERENCE: ({}, 0),
    "as shipped": ({"precision": SHIPPED.precision, "step": SHIPPED.step}, 0),
    "half the step": ({"step": 0.1}, 0),
    "twice the cells": ({"cells": 128}, 0),
    "16 x 12 directions": ({"polar": 16, "azimuth": 12}, 0),
    "twice the length": ({"length": 128.0, "cells": 128}, 0),
    "twice the time": ({"shortest": 300.0, "rates": 200.0, "longest": 3000.0}, 0),
    "other noise": ({}, 1),
}
Array = NDArray[np.float64]


def measure(
    samples: int, folder: Path, seed: int = 0, fused: bool = True, base: Box | None = None
) -> dict[str, Any]:
    """Simulate the first samples of a generated set in all boxes; differences from the reference.

    samples : of all families in turn; those without a crossing are left out. base : the reference.

    Returns
    -------
    dict
        box -> family -> differences, and what a table needs beside it.
    """
    numbers = [i for i in range(samples) if family_of(i) != "stable"]
    reference = Box() if base is None else base
    results: dict[str, dict[str, list[float]]] = {name: {} for name in BOXES if name != REFERENCE}
    for i in numbers:
        F = draw(family_of(i), seed, i // len(FAMILIES))
        ends = {}
        for name, (change, noise) in BOXES.items():
            box = dataclasses.replace(reference, **change)
            path = folder / f"{i:05d}_{name.replace(' ', '-')}.json"
            ends[name] = _increment(F, box, (seed, i, noise), path, fused)
        size = np.abs(ends[REFERENCE]).max()
        for name, increment in ends.items():
            if name != REFERENCE and size > SMALLEST:
                difference = float(np.abs(increment - ends[REFERENCE]).max() / size)
                results[name].setdefault(family_of(i), []).append(difference)
    settings = " ".join(f"{k}={v}" for k, v in dataclasses.asdict(reference).items())
    return {"boxes": results, "reference": settings, "seed": seed, "torch": str(torch.__version__)}


def _increment(F: torch.Tensor, box: Box, seed: tuple[int, ...], path: Path, fused: bool) -> Array:
    """What a simulation adds to a state, from its file where that is there."""
    if path.exists():
        return np.array(json.loads(path.read_text()))
    outcome = simulate(F[None], box, [seed], fused)
    increment: Array = outcome.increment[0].numpy()
    write_text(path, json.dumps(increment.tolist()))
    return increment


def convergence_table(result: Mapping[str, Any]) -> str:
    """Median, and largest, difference of each box over all states, and the median by family."""
    families = [f for f in FAMILIES if any(f in by for by in result["boxes"].values())]
    rows = []
    for name, by_family in result["boxes"].items():
        every = [d for differences in by_family.values() for d in differences]
        medians = [_percent(np.median(by_family[f])) if f in by_family else "-" for f in families]
        rows.append([name, _percent(np.median(every)), _percent(np.max(every)), *medians])
    count = sum(len(d) for d in next(iter(result["boxes"].values())).values())
    heads = ["box", "median", "largest", *families]
    return (
        f"{table(heads, rows)}\n\nDifference over the largest change, {count} states, seed"
        f" {result['seed']}; reference {result['reference']}; torch {result['torch']}."
    )


def _percent(share: Any) -> str:
    return f"{100 * float(share):.2g} %"
