"""The door of the flavour closure: `physics_hybrid.flavour.closure(F, u)`; cheap to import."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physics_hybrid.problems.flavour.predictor import Predictor

__all__ = ["closure", "load"]


def closure(F: Any, u: Any = None) -> Any:
    """Four-fluxes long after a fast flavour instability, by the closure inside this package.

    Parameters
    ----------
    F : array or tensor (..., 6, 4)
        nu_e, nu_mu, nu_tau, nubar_e, nubar_mu, nubar_tau, each (x, y, z, t): number flux / c and
        number density, in any unit.
    u : array or tensor (..., 4) or None
        Four-velocity of the fluid over c, (x, y, z, t); None: at rest.

    Returns
    -------
    array or tensor (..., 6, 4)
        Of the kind, unit and precision of F.

    Raises
    ------
    ValueError
        Another shape.

    Source
    ------
    Box3D of Richers, Froustey et al. 2024 (arXiv:2409.04405), and what a network adds to it.

    Examples
    --------
    Without a crossing nothing changes.

    >>> import numpy as np
    >>> import physics_hybrid
    >>> F = np.zeros((6, 4))
    >>> F[:, 3] = [3e33, 1e33, 1e33, 2e33, 1e33, 1e33]
    >>> bool((physics_hybrid.flavour.closure(F) == F).all())
    True
    """
    return load()(F, u)


@cache
def load(checkpoint: str | Path | None = None) -> Predictor:
    """A closure to call with F and u: of a .mdlus file, or (None) the one inside this package.

    Raises
    ------
    RuntimeError
        Nothing there, or not readable.
    """
    from physics_hybrid.problems.flavour.predictor import Predictor

    return Predictor.load(checkpoint)
