"""Rivals in one table: solvers by error and seconds, and when a training has paid for itself.

    python -m physics_hybrid bench [CHECKPOINT ...] [--grids 48x24x24,96x48x48] [--limbs 3]
    [--output bench] [key=value ...]

Seconds are of the processor, in one thread, medians, all in one run (networks against each other:
python -m physics_hybrid benchmark):

    limbs on voxels    our multigrid; on our own matrix PETSc's conjugate gradients with hypre's
                       BoomerAMG (where some Python here has petsc4py) and pyamg; finite elements
                       by scikit-fem and pyamg. To 1 % and to 1e-6 of the converged solution, setup
                       counted and not counted
    layered cylinder   our volumes and elements on voxels, and NGSolve (where it is installed) on a
                       mesh that follows the layers, against the exact series
    networks           for every CHECKPOINT (run folder or .mdlus) the number of solves after which
                       its training has paid for itself, or never

Limbs and ends are those of conf/config.yaml with the overrides. --spacings and --element-spacings:
voxels of the cylinder, and --edges ORDER:EDGE,EDGE: NGSolve's elements, in mm; an empty list leaves
them out. Written into the output folder: bench.json, which grows as it is measured, .md and .png.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from physics_hybrid.command_line import readable_errors
from physics_hybrid.evidence.grids import grids_of

#: One thread each; read by the libraries as they are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: Relative residuals.
TOLERANCES = "1e-1,3e-2,1e-2,3e-3,1e-3,1e-4,1e-5,1e-6,1e-7"


def floats(text: str) -> list[float]:
    """Reads 4,2,1."""
    return [float(word) for word in text.split(",") if word]


def metres(text: str) -> list[float]:
    """Reads millimetres."""
    return [1e-3 * length for length in floats(text)]


def edges(text: str) -> tuple[int, list[float]]:
    """Reads 2:20,10, in millimetres."""
    order, _, lengths = text.partition(":")
    return int(order), metres(lengths)


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
    parser.add_argument("--grids", type=grids_of, default="48x24x24,96x48x48")
    parser.add_argument("--no-limbs", action="store_true", help="the cylinder alone")
    parser.add_argument("--limbs", type=int, default=3, help="on each grid")
    parser.add_argument("--tolerances", type=floats, default=TOLERANCES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--spacings", type=metres, default="4,2,1", help="mm")
    parser.add_argument("--element-spacings", type=metres, default="4,2", help="mm")
    parser.add_argument(
        "--edges",
        type=edges,
        nargs="*",
        default=[edges("1:10,5"), edges("2:20,10"), edges("3:20,10")],
        metavar="ORDER:EDGE,EDGE",
        help="mm",
    )
    parser.add_argument("--output", type=Path, default=Path("bench"), help="folder")
    given = parser.parse_intermixed_args(arguments)
    for name in THREADS:
        os.environ.setdefault(name, "1")
    from physics_hybrid.problems.potential.evidence.rivals import Plan, keep, run_bench, write
    from physics_hybrid.problems.potential.evidence.rivals_report import tables

    with readable_errors():
        plan = Plan(
            checkpoints=[Path(word) for word in given.words if "=" not in word],
            overrides=[word for word in given.words if "=" in word],
            grids=[] if given.no_limbs else given.grids,
            limbs=given.limbs,
            tolerances=given.tolerances,
            repeats=given.repeats,
            spacings=given.spacings,
            element_spacings=given.element_spacings,
            meshes=dict(given.edges),
        )
        for result in run_bench(plan):
            keep(result, given.output)
        write(result, given.output)
        print(f"{tables(result)}\n\nwritten: {given.output}/bench.json, .md, .png")
