r"""Two half-spaces: plane z = 0, source in medium 1 at z = d > 0, by images.

With g_i = sqrt(sigma_ti sigma_ni), K = (g_1 - g_2) / (g_1 + g_2), T = 2 g_1 / (g_1 + g_2):

    phi_1 = inf_1(z - d) + K inf_1(z + d)
    phi_2 = T inf_1(a z - d),      a = sqrt(sigma_t2 / sigma_n2) sqrt(sigma_n1 / sigma_t1)
"""

from __future__ import annotations

import numpy as np


def two_half_spaces(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    *,
    depth: float,
    first: tuple[float, float],
    second: tuple[float, float],
    current: float = 1.0,
) -> np.ndarray:
    """Potential in volts at points (metres, broadcast) of a source at (0, 0, depth).

    first, second : (sigma_t, sigma_n), along and across the plane, of the media z > 0 and z < 0,
        S/m; second = (0, 0) is an insulator (phi is NaN inside it).

    Raises
    ------
    ValueError
        depth is not positive.
    """
    if not depth > 0:
        raise ValueError(
            f"the source lies in the medium z > 0: depth must be positive; got {depth:g} m"
        )
    (t1, n1), (t2, n2) = first, second
    rho = np.hypot(x, y)

    def infinite(distance: np.ndarray) -> np.ndarray:
        length = np.sqrt(rho**2 / t1 + distance**2 / n1)
        phi: np.ndarray = current / (4 * np.pi * np.sqrt(t1 * t1 * n1) * length)
        return phi

    g1, g2 = np.sqrt(t1 * n1), np.sqrt(t2 * n2)
    inside: np.ndarray = infinite(z - depth) + (g1 - g2) / (g1 + g2) * infinite(z + depth)
    if g2 == 0:
        return np.where(z >= 0, inside, np.nan)
    stretch = np.sqrt(t2 / n2) * np.sqrt(n1 / t1)
    return np.where(z >= 0, inside, 2 * g1 / (g1 + g2) * infinite(stretch * z - depth))
