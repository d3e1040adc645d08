"""Error against seconds in one run: trained networks, our multigrid, finite elements.

    python -m physics_hybrid benchmark [CHECKPOINT ...] [--grid 96x48x48] [--samples 200]
    [--budget-steps 0] [--output benchmark] [key=value ...]

Limbs, ends and metrics are those of conf/config.yaml with the overrides, and all contenders have
the same test limbs:

    networks          every CHECKPOINT (run folder or .mdlus), and with --budget-steps N each of
                      --models trained for N steps on the same batches (fno is PhysicsNeMo's;
                      fno_neuraloperator is left out where that library is not installed)
    multigrid         our finite volumes at each of --tolerances, in batches, operator and levels
                      set up anew: float32, or float64 where that fails
    finite elements   scikit-fem and pyamg on the CPU, on --elements limbs; their error is that of
                      another discretisation, whatever the tolerance
    analytical        the closed form of an infinite medium, and beside a network with another
                      baseline that baseline alone

From sigma and source on the device to volts on the device, `seconds` is the median of --repeats
calls over the samples of a batch, for each of --batch-sizes; speeds compare each contender at its
best. Memory is what a call adds on the GPU at its peak, batch input not counted (null on a CPU). On
a GPU networks are also timed on the CPU with --cpu-threads, beside the finite elements. The cost
against grid size is at batch 1. How the floor of an FNO is counted:
physics_hybrid/evidence/roofline.py. Written into the output folder: benchmark.json, .md and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from physics_hybrid.command_line import readable_errors
from physics_hybrid.evidence.grids import grids_of

#: What is trained on the spot unless --models says otherwise.
MODELS = "fno,fno_residual,unet,fno_neuraloperator"

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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    from physics_hybrid.problems.potential.evidence.benchmark import Plan, run_benchmark, write
    from physics_hybrid.problems.potential.evidence.benchmark_report import tables

    with readable_errors():
        plan = Plan(
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
        result = run_benchmark(plan)
        write(result, given.output)
        print(f"{tables(result)}\n\nwritten: {given.output}/benchmark.json, .md, .png")
