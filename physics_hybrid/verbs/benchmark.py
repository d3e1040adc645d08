"""Error against seconds in one run: trained networks, our multigrid, finite elements."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from physics_hybrid.command_line import readable_errors

Number = TypeVar("Number", int, float)


def numbers(kind: Callable[[str], Number]) -> Callable[[str], list[Number]]:
    """Reads 1,8,32."""

    def read(text: str) -> list[Number]:
        return [kind(word) for word in text.split(",") if word]

    return read


def words(text: str) -> list[str]:
    """Reads fno,unet."""
    return text.split(",")


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import benchmark as about
    from physics_hybrid.problems.potential.evidence.benchmark_contenders import MODELS
    from physics_hybrid.problems.potential.evidence.benchmark_report import tables
    from physics_hybrid.problems.potential.evidence.resolution_matrix import grids_of

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CHECKPOINT or key=value",
        help="run folders or .mdlus files; configuration overrides, as for train.py",
    )
    parser.add_argument("--grid", type=grids_of, default="96x48x48")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--batch-sizes", type=numbers(int), default="1,8,32")
    parser.add_argument(
        "--tolerances",
        type=numbers(float),
        default="1e-1,3e-2,1e-2,3e-3,1e-3,1e-4,1e-5,1e-6",
        help="of the multigrid",
    )
    parser.add_argument("--element-tolerances", type=numbers(float), default="1e-2,1e-6")
    parser.add_argument(
        "--elements", type=int, default=3, help="limbs that finite elements solve; 0: none"
    )
    parser.add_argument(
        "--budget-steps", type=int, default=0, help="train each of --models for so many steps first"
    )
    parser.add_argument("--models", type=words, default=MODELS)
    parser.add_argument(
        "--grids",
        type=grids_of,
        default="48x24x24,96x48x48,144x72x72,192x96x96",
        help="for the cost against grid size",
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--cpu-threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmark"), help="folder")
    given = parser.parse_intermixed_args(arguments)
    with readable_errors():
        plan = about.Plan(
            checkpoints=[Path(word) for word in given.words if "=" not in word],
            overrides=[word for word in given.words if "=" in word],
            grid=given.grid[0],
            samples=given.samples,
            batch_sizes=given.batch_sizes,
            tolerances=given.tolerances,
            element_tolerances=given.element_tolerances,
            element_samples=given.elements,
            budget_steps=given.budget_steps,
            models=given.models,
            grids=given.grids,
            repeats=given.repeats,
            cpu_threads=given.cpu_threads,
        )
        result = about.run_benchmark(plan)
        about.write(result, given.output)
        print(f"{tables(result)}\n\nwritten: {given.output}/benchmark.json, .md, .png")
