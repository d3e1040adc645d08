"""Milliseconds of the steppers and of a trained step, eager and compiled, in batches of 64 and 1.

    python -m physics_hybrid.problems.burgers.evidence.times RUN [--output FILE] [--eager]

writes a JSON file, and prints the table. Seconds are those of the processor, of one thread: they
do not depend on what else a shared machine does. Torch's compiler needs a C++ compiler, and a
minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from physics_hybrid.command_line import readable_errors
from physics_hybrid.problem import Place
from physics_hybrid.problems.burgers.rivals import Stepper, compiled_advance, compiled_step
from physics_hybrid.problems.burgers.stepper import CFL, resample
from physics_hybrid.report.markdown import table
from physics_hybrid.run.load import load, recipe_of
from physics_hybrid.run.provenance import provenance
from physics_hybrid.writing import write_text

#: Frames of a rollout that is timed, and rollouts of which the median counts.
FRAMES, REPEATS = 5, 3
BATCHES = (64, 1)


def measure(run: Path, cells: list[int], compiled: bool) -> dict[str, Any]:
    """Milliseconds a frame and sample: who -> batch -> eager, compiled."""
    model, config, _ = load(run)
    if config is None:
        raise ValueError(f"{run} has no configuration: give the folder of a run")
    torch.set_num_threads(1)
    recipe: Any = recipe_of(config)
    problem = recipe.open(Place(torch.device("cpu")))
    tested = problem.trajectories("test")
    first = config["data"]["initial_step"] - 1
    kinds: dict[str, dict[str, tuple[Any, int]]] = {"eager": {}}
    for count in cells:
        kinds["eager"][f"stepper, {count} cells"] = (Stepper(count, model.dt), count)
    finest = Stepper(max(cells), model.dt, cfl=CFL / 2)
    kinds["eager"][f"stepper, {max(cells)} cells, twice the substeps"] = (finest, max(cells))
    kinds["eager"][recipe.model_name] = (model.eval(), model.points)
    if compiled:
        kinds["compiled"] = {
            f"stepper, {count} cells": (
                Stepper(count, model.dt, advance=compiled_advance()),
                count,
            )
            for count in cells
        }
        kinds["compiled"][recipe.model_name] = (compiled_step(model.eval()), model.points)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind, contenders in kinds.items():
        for who, (contender, grid) in contenders.items():
            for batch in BATCHES:
                few = tested.rows(range(min(batch, len(tested))))
                start = resample(few.u[:, first], grid)
                ms = _milliseconds(contender.step, start, few.nu)
                found.setdefault(who, {}).setdefault(str(batch), {})[kind] = ms
    about = provenance(str(run), config["seed"], torch.device("cpu"), model)
    return {**about, "milliseconds": found}


@torch.no_grad()
def _milliseconds(step: Callable[[Tensor, Tensor], Tensor], u: Tensor, nu: Tensor) -> float:
    """Of the processor, a frame and sample: the median of some rollouts, after one step."""
    step(u, nu)
    seconds = []
    for _ in range(REPEATS):
        later, started = u, time.process_time()
        for _ in range(FRAMES):
            later = step(later, nu)
        seconds.append(time.process_time() - started)
    return 1e3 * statistics.median(seconds) / (FRAMES * len(u))


def times_table(report: Path) -> str:
    """The table of the page, from the JSON file."""
    found = json.loads(report.read_text())
    kinds = ("eager", "compiled")
    rows = []
    for who, of_batch in found["milliseconds"].items():
        values = [of_batch[str(b)].get(kind) for b in BATCHES for kind in kinds]
        rows.append([who, *("" if v is None else f"{v:.3g}" for v in values)])
    heads = ["ms of a processor, a frame and sample"]
    heads += [f"{kind}, batch {batch}" for batch in BATCHES for kind in kinds]
    return (
        f"{table(heads, rows)}\n\n{found['hardware']}, torch {found['torch']}, commit"
        f" {found['commit'][:10]}, {found['date']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--eager", action="store_true", help="nothing compiled")
    parser.add_argument("--output", type=Path, default=Path("burgers_times.json"))
    given = parser.parse_args()
    with readable_errors():
        found = measure(given.run, given.cells, compiled=not given.eager)
        write_text(given.output, json.dumps(found, indent=1))
        print(times_table(given.output))


if __name__ == "__main__":
    main()
