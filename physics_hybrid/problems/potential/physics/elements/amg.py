"""Conjugate gradients, preconditioned by one V-cycle of smoothed aggregation from pyamg.

(Vanek, Mandel and Brezina, Computing 56 (1996) 179; Bell, Olson and Schroder, PyAMG, JOSS 8 (2023)
5495.)
"""

from collections.abc import Callable

import numpy as np
import pyamg
from scipy.sparse import csr_matrix, sparray, spmatrix

Preconditioner = Callable[[np.ndarray], np.ndarray]

#: Eigenvalues of the coarsest matrix below this share of the finest diagonal are its null space: of
#: a floating body the constants, to rounding only.
COARSE_NULL_SPACE = 1e-10


def v_cycle(A: csr_matrix) -> Preconditioner:
    """One V-cycle as a function of the residual; the same for the same matrix."""
    smallest = COARSE_NULL_SPACE * A.diagonal().max()

    def coarsest(A: spmatrix | sparray, b: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(A.toarray())
        kept = values > smallest
        inverse = values[kept].reshape(-1, *[1] * (b.ndim - 1))
        solved: np.ndarray = vectors[:, kept] @ (vectors[:, kept].T @ b / inverse)
        return solved

    # pyamg estimates eigenvalues from NumPy's global random numbers: they are put back after it
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        levels = pyamg.smoothed_aggregation_solver(A, symmetry="symmetric", coarse_solver=coarsest)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    cycle = levels.aspreconditioner(cycle="V")

    def precondition(residual: np.ndarray) -> np.ndarray:
        applied: np.ndarray = cycle @ residual
        return applied

    return precondition


def conjugate_gradients(
    A: csr_matrix,
    rhs: np.ndarray,
    precondition: Preconditioner,
    tolerance: float,
    max_iterations: int,
) -> tuple[np.ndarray, int]:
    """(x, iterations) with |rhs - A x| <= tolerance |rhs| by the recursion, held to half of it.

    The caller checks the true residual. (Saad, 2003, alg. 9.1)
    """
    x, residual = np.zeros_like(rhs), rhs.copy()
    goal = 0.5 * tolerance * np.linalg.norm(rhs)
    direction = np.zeros_like(rhs)
    before: np.ndarray | float = 1.0
    for iteration in range(max_iterations):
        if np.linalg.norm(residual) <= goal:
            return x, iteration
        z = precondition(residual)
        now = residual @ z
        direction = z + (now / before if iteration else 0.0) * direction
        image = A @ direction
        step = now / (direction @ image)
        x += step * direction
        residual -= step * image
        before = now
    return x, max_iterations
