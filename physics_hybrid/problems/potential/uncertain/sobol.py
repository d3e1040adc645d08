r"""Which parameter a spread comes from: first-order and total Sobol indices.

    S_i = V[E[y | x_i]] / V[y]  ~  mean( y(B) (y(A_B^i) - y(A)) ) / V[y]
    T_i = E[V[y | x_-i]] / V[y] ~  mean( (y(A) - y(A_B^i))^2 ) / (2 V[y])

A and B independent points, A_B^i is A with the i-th column of B. (Saltelli et al., Comput. Phys.
Commun. 181 (2010) 259, table 2 (b) and (f), Jansen's; Sobol, Math. Model. Comput. Exp. 1 (1993)
407) The points are a scrambled Sobol sequence; y is taken about its mean, which lowers the variance
of the first and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc


@dataclass(frozen=True)
class Indices:
    """first, total : (T, ...). NaN where a value does not vary. evaluations : that they took."""

    first: np.ndarray
    total: np.ndarray
    evaluations: int


def indices(
    of: Callable[[np.ndarray], np.ndarray], dimensions: int, points: int, seed: int
) -> Indices:
    """Indices of a function of the unit cube, (S, T) -> (S, ...).

    points : of A, a power of 2; (T + 2) times as many evaluations.
    """
    sequence = qmc.Sobol(2 * dimensions, scramble=True, seed=seed)
    both = sequence.random(points)
    A, B = both[:, :dimensions], both[:, dimensions:]
    y_A, y_B = of(A), of(B)
    middle = (y_A.mean(axis=0) + y_B.mean(axis=0)) / 2
    y_A, y_B = y_A - middle, y_B - middle
    variance = (y_A**2 + y_B**2).mean(axis=0) / 2
    safe = np.where(variance > 0, variance, np.nan)
    first, total = [], []
    for i in range(dimensions):
        mixed = A.copy()
        mixed[:, i] = B[:, i]
        y = of(mixed) - middle
        first.append((y_B * (y - y_A)).mean(axis=0) / safe)
        total.append(((y_A - y) ** 2).mean(axis=0) / (2 * safe))
    return Indices(np.stack(first), np.stack(total), (dimensions + 2) * points)
