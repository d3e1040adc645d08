"""Microseconds a state of the closure, and of Box3D alone, in batches.

    python -m physics_hybrid.problems.flavour.evidence.times [--checkpoint FILE] [--output FILE]

writes a JSON file, and prints the table. Seconds are those of the processor, of one thread, so that
other work on a shared machine counts little: the median of some calls on states of all families.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from physics_hybrid.command_line import readable_errors
from physics_hybrid.problems.flavour.networks import Closure
from physics_hybrid.problems.flavour.physics.box3d import box3d
from physics_hybrid.problems.flavour.physics.families import FAMILIES, draw
from physics_hybrid.problems.flavour.predictor import SHIPPED, Predictor
from physics_hybrid.report.markdown import table
from physics_hybrid.run.provenance import provenance
from physics_hybrid.writing import write_text

#: States in a call; calls of which the median counts; different states of each family.
BATCHES, REPEATS, DRAWN = (10_000, 100), 9, 20


def measure(checkpoint: Path) -> dict[str, Any]:
    """Microseconds a state: who -> batch."""
    closure = Predictor.load(checkpoint)
    rule = cast(Closure, closure.model).rule
    drawn = torch.stack([draw(family, 0, i) for family in FAMILIES for i in range(DRAWN)]).float()
    contenders: dict[str, Callable[[Tensor], Tensor]] = {
        "Box3D alone": lambda F: box3d(F, rule),
        "closure": closure,
    }
    found: dict[str, dict[str, float]] = {who: {} for who in contenders}
    for batch in BATCHES:
        F = drawn.repeat(-(-batch // len(drawn)), 1, 1)[:batch]
        for who, contender in contenders.items():
            found[who][str(batch)] = 1e6 * _seconds(contender, F) / batch
    about = provenance(checkpoint.name, 0, torch.device("cpu"), closure.model)
    return {**about, "microseconds": found}


@torch.inference_mode()
def _seconds(contender: Callable[[Tensor], Tensor], F: Tensor) -> float:
    """Of the processor: the median of some calls, after one."""
    contender(F)
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        contender(F)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def times_table(found: dict[str, Any]) -> str:
    """The table of the page."""
    heads = ["microseconds of a processor, a state", *(f"batch {batch}" for batch in BATCHES)]
    rows = [
        [who, *(f"{of[str(batch)]:.3g}" for batch in BATCHES)]
        for who, of in found["microseconds"].items()
    ]
    return (
        f"{table(heads, rows)}\n\n{found['hardware']}, torch {found['torch']}, commit"
        f" {found['commit'][:10]}, {found['date']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="a .mdlus file")
    parser.add_argument("--output", type=Path, default=Path("flavour_times.json"))
    given = parser.parse_args()
    with readable_errors():
        torch.set_num_threads(1)
        found = measure(given.checkpoint)
        write_text(given.output, json.dumps(found, indent=1))
        print(times_table(found))


if __name__ == "__main__":
    main()
