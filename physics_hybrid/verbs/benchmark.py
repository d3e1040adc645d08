"""Error against seconds in one run: trained networks, our multigrid, finite elements."""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import benchmark as about
    from physics_hybrid.problems.potential.evidence.benchmark import (
        MODELS,
        run_benchmark,
        tables,
        write,
    )
    from physics_hybrid.problems.potential.evidence.resolution_matrix import grids_of

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def numbers(kind):
        return lambda text: [kind(v) for v in text.split(",") if v]

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
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS)
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
        checkpoints, overrides = (
            [Path(w) for w in given.words if "=" not in w],
            [w for w in given.words if "=" in w],
        )
        result = run_benchmark(
            checkpoints,
            overrides,
            given.grid[0],
            given.samples,
            given.batch_sizes,
            given.tolerances,
            given.element_tolerances,
            given.elements,
            given.budget_steps,
            given.models,
            given.grids,
            given.repeats,
            given.cpu_threads,
        )
        write(result, given.output)
        print(f"{tables(result)}\n\nwritten: {given.output}/benchmark.json, .md, .png")
