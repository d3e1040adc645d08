"""How many components sigma has: 1 (a scalar), 3 (a diagonal), or 6 (a symmetric tensor)."""

from __future__ import annotations

import numpy as np


def components(sigma: np.ndarray, wanted: int, where: str) -> np.ndarray:
    """sigma (C, D, H, W) with the `wanted` number of components (1, 3 or 6).

    Raises
    ------
    ValueError
        Where the tensor holds more than `wanted` components can say (data.sigma_components).
    """
    have = len(sigma)
    if have == wanted:
        return sigma
    if have < wanted:
        out = np.repeat(sigma, 3, axis=0) if have == 1 else sigma
        return out if wanted == 3 else np.concatenate([out, np.zeros_like(out)])
    oblique = have == 6 and sigma[3:].any()
    uneven = wanted == 1 and (np.ptp(sigma[:3], axis=0) > 0).any()
    if oblique or uneven:
        needed = have if oblique else 3
        raise ValueError(
            f"{where}: sigma has {have} components that {wanted} cannot represent; "
            f"train with data.sigma_components={needed}"
        )
    return sigma[:wanted]
