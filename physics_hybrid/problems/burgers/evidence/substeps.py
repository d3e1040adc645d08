"""How much of the limit of stability a substep should use: error and time of the stepper alone.

    python -m physics_hybrid.problems.burgers.evidence.substeps RUN [--output FILE]

On the validation split of a run; writes a JSON file, and prints the table. Seconds are those of the
processor, of one thread, eager.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from physics_hybrid.command_line import readable_errors
from physics_hybrid.problem import Place
from physics_hybrid.problems.burgers.metrics import nrmse
from physics_hybrid.problems.burgers.rivals import Stepper, clock
from physics_hybrid.report.markdown import table
from physics_hybrid.run.load import load, recipe_of
from physics_hybrid.run.provenance import provenance
from physics_hybrid.writing import write_text

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


@torch.no_grad()
def measure(run: Path, cells: Sequence[int], shares: Sequence[float] = SHARES) -> dict[str, Any]:
    """nRMSE from `data.initial_step` on, and milliseconds a frame and sample: cells -> share."""
    model, config, _ = load(run)
    if config is None:
        raise ValueError(f"{run} has no configuration: give the folder of a run")
    torch.set_num_threads(1)
    problem: Any = recipe_of(config).open(Place(torch.device("cpu")))
    known, first = problem.trajectories("validation"), config["data"]["initial_step"]
    start, true = known.u[:, first - 1], known.u[:, first:]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for count in cells:
        for share in shares:
            started = clock(start.device)
            path = Stepper(count, known.dt, cfl=share).path(start, known.nu, true.shape[1])
            milliseconds = 1e3 * (clock(start.device) - started) / true[:, :, 0].numel()
            values = {"nrmse": nrmse(path[:, 1:], true), "milliseconds": milliseconds}
            found.setdefault(str(count), {})[f"{share:g}"] = values
    about = provenance(str(run), config["seed"], torch.device("cpu"), model)
    return {**about, "samples": len(known), "steppers": found}


def substeps_table(report: Path) -> str:
    """The table of the page, from the JSON file."""
    found = json.loads(report.read_text())
    steppers = found["steppers"]
    shares = next(iter(steppers.values()))
    rows = [
        [share, *(f"{of[share][key]:.3g}" for of in steppers.values() for key in of[share])]
        for share in shares
    ]
    heads = ["share of the limit"]
    heads += [f"{cells} cells: {what}" for cells in steppers for what in ("nRMSE", "ms")]
    return (
        f"{table(heads, rows)}\n\n{found['samples']} validation samples, in one batch;"
        f" {found['hardware']}, torch {found['torch']}, commit {found['commit'][:10]},"
        f" {found['date']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--output", type=Path, default=Path("burgers_substeps.json"))
    given = parser.parse_args()
    with readable_errors():
        found = measure(given.run, given.cells)
        write_text(given.output, json.dumps(found, indent=1))
        print(substeps_table(given.output))


if __name__ == "__main__":
    main()
