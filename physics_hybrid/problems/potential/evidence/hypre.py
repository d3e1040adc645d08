"""PETSc's conjugate gradients with hypre's BoomerAMG, in a program of its own.

    python hypre.py PROBLEM.npz ANSWER.npz

Needs NumPy and petsc4py, and nothing of this package: petsc4py often belongs to another Python than
ours (Debian's python3-petsc4py to the system's). Without petsc4py it leaves with status `MISSING`.

PROBLEM.npz : data, indices, indptr, rhs of A x = b, tolerances (T,), repeats, and the names of
    `OPTIONS` to be used (O,).
ANSWER.npz : x (O, T, n), setup (O,), solve (O, T): median seconds of the processor; iterations
    (O, T); version.

(Falgout and Yang, hypre, ICCS 2002; Henson and Yang, Appl. Numer. Math. 41 (2002) 155.)
"""

from __future__ import annotations

import glob
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

#: Status of this program where petsc4py is not installed.
MISSING = 3

#: Where Debian keeps petsc4py, outside the paths of its own Python until PETSC_DIR is set.
DEBIAN = "/usr/lib/petscdir/*/*/lib/python3/dist-packages"

#: BoomerAMG as it comes, and as its manual advises for three dimensions.
OPTIONS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "set up for 3D": {
        "strong_threshold": "0.5",
        "coarsen_type": "HMIS",
        "interp_type": "ext+i",
        "P_max": "4",
    },
}


def petsc() -> Any:
    """petsc4py's PETSc. Raises ImportError where there is none."""
    sys.path += sorted(glob.glob(DEBIAN))
    from petsc4py import PETSc

    return PETSc


def set_options(PETSc: Any, chosen: dict[str, str]) -> None:
    """Of BoomerAMG, those of other rows taken back."""
    known = PETSc.Options("pc_hypre_boomeramg_")
    for name in {key for options in OPTIONS.values() for key in options}:
        known.delValue(name)
    for name, value in chosen.items():
        known.setValue(name, value)


def set_up(PETSc: Any, problem: Any, rhs: Any) -> Any:
    """The matrix, the hierarchy and the iteration. The norm is that of the true residual."""
    n = len(problem["rhs"])
    rows = (problem["indptr"], problem["indices"], problem["data"])
    A = PETSc.Mat().createAIJ(size=(n, n), csr=rows, comm=PETSc.COMM_SELF)
    A.setOption(PETSc.Mat.Option.SPD, True)
    solver = PETSc.KSP().create(PETSc.COMM_SELF)
    solver.setOperators(A)
    solver.setType("cg")
    solver.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    cycle = solver.getPC()
    cycle.setType("hypre")
    cycle.setHYPREType("boomeramg")
    solver.setFromOptions()
    solver.setUp()
    return solver


def median(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Seconds of the processor, and what the last call gave."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        given = call()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds), given


def answer(PETSc: Any, problem: Any) -> dict[str, Any]:
    """What ANSWER.npz holds."""
    repeats, tolerances = int(problem["repeats"]), problem["tolerances"]
    b = PETSc.Vec().createWithArray(problem["rhs"], comm=PETSc.COMM_SELF)
    x = b.duplicate()
    found: dict[str, list[Any]] = {"x": [], "setup": [], "solve": [], "iterations": []}
    for name in problem["options"]:
        set_options(PETSc, OPTIONS[str(name)])
        seconds, solver = median(lambda: set_up(PETSc, problem, b), repeats)
        rows: dict[str, list[Any]] = {"x": [], "solve": [], "iterations": []}
        for tolerance in tolerances:
            solver.setTolerances(rtol=tolerance, max_it=1000)
            took, _ = median(lambda solver=solver: solver.solve(b, x), repeats)  # type: ignore[misc]
            rows["x"].append(x.getArray().copy())
            rows["solve"].append(took)
            rows["iterations"].append(solver.getIterationNumber())
        found["setup"].append(seconds)
        for key, values in rows.items():
            found[key].append(values)
    version = ".".join(map(str, PETSc.Sys.getVersion()))
    return {**{key: np.array(values) for key, values in found.items()}, "version": version}


def main(problem: str, there: str) -> None:
    try:
        PETSc = petsc()
    except ImportError:
        sys.exit(MISSING)
    with np.load(problem) as opened:
        read = dict(opened)
    np.savez(there, **answer(PETSc, read))


if __name__ == "__main__":
    main(*sys.argv[1:])
