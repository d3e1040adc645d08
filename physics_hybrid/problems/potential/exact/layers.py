"""Layers one on another: which of them holds a place.

Edges are ascending, in metres, the outer two included.
"""

from __future__ import annotations

import numpy as np


def layer_of_source(edges: np.ndarray, position: float, name: str) -> int:
    """The layer that a source lies in; on an interface the one below, on the first edge the first.

    Raises
    ------
    ValueError
        Outside the outer edges; `name` says which coordinate it is.
    """
    rounding = 1e-9 * edges[-1]
    if not edges[0] - rounding <= position <= (1 + 1e-9) * edges[-1]:
        raise ValueError(
            f"the source lies outside: {name}={position:g} m is not in "
            f"[{edges[0]:g}, {edges[-1]:g}] m"
        )
    return int(np.clip(np.searchsorted(edges, position) - 1, 0, len(edges) - 2))


def layer_at(edges: np.ndarray, position: float) -> int:
    """The layer in which the potential is asked for; on an interface the one above."""
    return min(int(np.searchsorted(edges, position, side="right") - 1), len(edges) - 2)
