"""Solvers of others on our own matrix: the 7-point operator put in rows.

    A phi_c = b,   A = -div(sigma grad .) of `FluxOperator`, b of `Subtraction`            [A/m^3]

so that what is compared is how fast A x = b is solved, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from physics_hybrid.problems.potential.evidence import hypre
from physics_hybrid.problems.potential.physics.flux import FluxOperator

#: Neighbours of a voxel in the order of their columns: (axis, side), and the voxel itself.
NEIGHBOURS: tuple[tuple[int, int] | None, ...] = (
    (0, -1),
    (1, -1),
    (2, -1),
    None,
    (2, 1),
    (1, 1),
    (0, 1),
)


def matrix_of(operator: FluxOperator) -> csr_matrix:
    """The operator of one conductor as a sparse matrix over its tissue voxels in C order, S/m^3.

    A face that conducts k gives -k beside the diagonal and k on it; an end gives only the latter.

    Raises
    ------
    ValueError
        For several conductors.

    Examples
    --------
    >>> import torch
    >>> from physics_hybrid.problems.potential.physics.conductor import Conductor
    >>> body = Conductor(torch.rand(1, 1, 4, 3, 3).double() + 0.1, torch.ones(1, 3).double())
    >>> operator = FluxOperator.of(body)
    >>> phi = torch.rand(1, 4, 3, 3).double()
    >>> product = torch.from_numpy(matrix_of(operator) @ phi.flatten().numpy())
    >>> torch.allclose(product, operator(phi).flatten())
    True
    """
    if len(operator.diagonal) != 1:
        raise ValueError(f"a matrix belongs to one conductor; got {len(operator.diagonal)}")
    diagonal = operator.diagonal[0].numpy()
    tissue = diagonal > 0
    count = int(tissue.sum())
    number = np.full(tuple(n + 2 for n in tissue.shape), -1, dtype=np.int32)
    number[1:-1, 1:-1, 1:-1][tissue] = np.arange(count, dtype=np.int32)
    columns, values = [], []
    for neighbour in NEIGHBOURS:
        columns.append(number[_window(neighbour, tissue.shape)][tissue])
        values.append(_entries(operator, neighbour)[tissue])
    held, entries = np.stack(columns, axis=1), np.stack(values, axis=1)
    kept = (held >= 0) & (entries != 0)
    rows = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return csr_matrix((entries[kept], held[kept], rows), shape=(count, count))


def _window(neighbour: tuple[int, int] | None, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The neighbours of all voxels, in an array with one more voxel on every side."""
    first = [1, 1, 1]
    if neighbour is not None:
        axis, side = neighbour
        first[axis] += side
    return tuple(slice(i, i + n) for i, n in zip(first, shape, strict=True))


def _entries(operator: FluxOperator, neighbour: tuple[int, int] | None) -> np.ndarray:
    """The entry of every voxel's row in the column of a neighbour. (D, H, W)"""
    if neighbour is None:
        own: np.ndarray = operator.diagonal[0].numpy()
        return own
    axis, side = neighbour
    k = operator.conductance[axis][0]
    towards: np.ndarray = -k.narrow(axis, max(side, 0), k.shape[axis] - 1).numpy()
    return towards


# --- PETSc and hypre, in a program of its own


@dataclass(frozen=True)
class Hypre:
    """What `hypre.py` found, one row for each of its options and one column for each tolerance.

    x : (O, T, n) volts. setup : (O,), solve : (O, T) seconds. iterations : (O, T).
    """

    names: list[str]
    x: np.ndarray
    setup: np.ndarray
    solve: np.ndarray
    iterations: np.ndarray
    version: str


def python_with_petsc() -> str | None:
    """A Python that has petsc4py: this one, or the system's; None where neither has."""
    system = shutil.which("python3", path=os.defpath)
    for python in filter(None, (sys.executable, system)):
        if _run(python, "-c", PROBE).returncode == 0:
            return python
    return None


#: Whether petsc4py can be imported.
PROBE = f"import glob, sys; sys.path += glob.glob({hypre.DEBIAN!r}); import petsc4py.PETSc"


def _run(python: str, *words: str) -> subprocess.CompletedProcess[str]:
    """An isolated Python, in one thread: our own paths and packages mean nothing to it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [python, "-I", *words], capture_output=True, text=True, env=environment, check=False
    )


def solve_by_hypre(
    python: str, A: csr_matrix, rhs: np.ndarray, tolerances: list[float], repeats: int
) -> Hypre:
    """A x = rhs by PETSc's conjugate gradients with BoomerAMG.

    Raises
    ------
    ValueError
        The program failed: its last line.
    """
    names = list(hypre.OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        problem, there = Path(folder) / "problem.npz", Path(folder) / "answer.npz"
        np.savez(
            problem,
            data=A.data,
            indices=A.indices,
            indptr=A.indptr,
            rhs=rhs,
            tolerances=np.array(tolerances),
            repeats=np.array(repeats),
            options=np.array(names),
        )
        done = _run(python, hypre.__file__, str(problem), str(there))
        if done.returncode:
            said = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            raise ValueError(f"PETSc with hypre failed on our matrix: {said}")
        with np.load(there) as found:
            return Hypre(
                names=names,
                x=found["x"],
                setup=found["setup"],
                solve=found["solve"],
                iterations=found["iterations"],
                version=str(found["version"]),
            )
