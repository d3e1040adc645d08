"""What selection among candidates is worth, for a trained step on its test split.

    python -m physics_hybrid.problems.burgers.evidence.selection RUN [--samples 48] [--output FILE]

writes a JSON file, and prints the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from physics_hybrid.command_line import readable_errors
from physics_hybrid.problem import Place
from physics_hybrid.problems.burgers.selection import Selection, compare
from physics_hybrid.report.markdown import table
from physics_hybrid.run.load import load, recipe_of
from physics_hybrid.run.provenance import provenance
from physics_hybrid.writing import write_text


def measure(run: Path, samples: int, settings: Selection) -> dict[str, Any]:
    """Errors and evaluations of each way to choose; frames from `data.initial_step` on."""
    model, config, _ = load(run)
    if config is None:
        raise ValueError(f"{run} has no configuration: give the folder of a run")
    torch.set_num_threads(config["training"]["threads"] or 1)
    problem = recipe_of(config).open(Place(torch.device("cpu")))
    first = config["data"]["initial_step"] - 1
    tested = next(iter(problem.test_sets()[0].batches()))
    few = tested.rows(range(min(samples, len(tested))))
    frames = few.u[:, first:]
    chosen = compare(model.eval(), frames, few.nu, settings, torch.Generator().manual_seed(0))
    rows = {
        name: {"nrmse": float(c.error(frames[:, 1:]).mean()), "evaluations": c.evaluations}
        for name, c in chosen.items()
    }
    about = provenance(str(run), config["seed"], torch.device("cpu"), model)
    return {**about, "samples": len(few), "settings": vars(settings), "ways": rows}


def selection_table(report: Path) -> str:
    """The table of the page, from the JSON file."""
    found = json.loads(report.read_text())
    rows = [
        [name, f"{way['nrmse']:.3g}", way["evaluations"]] for name, way in found["ways"].items()
    ]
    settings = found["settings"]
    return (
        f"{table(['chosen by', 'nRMSE', 'evaluations a step'], rows)}\n\n"
        f"{found['samples']} test samples, {settings['candidates']} candidates, perturbation"
        f" {settings['perturbation']:g}, residual against a stepper on {settings['cells']} cells;"
        f" commit {found['commit'][:10]}, {found['date']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--output", type=Path, default=Path("selection.json"))
    given = parser.parse_args()
    with readable_errors():
        found = measure(given.run, given.samples, Selection())
        write_text(given.output, json.dumps(found, indent=1))
        print(selection_table(given.output))


if __name__ == "__main__":
    main()
