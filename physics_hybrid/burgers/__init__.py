"""The door of the Burgers simulator: `physics_hybrid.burgers.simulate(u0, times, nu)`; cheap to
import.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physics_hybrid.problems.burgers.predictor import Predictor

__all__ = ["load", "simulate"]


def simulate(u0: Any, times: Sequence[float], nu: float = 0.001) -> Any:
    """Viscous Burgers on a periodic box, by the hybrid step inside this package.

        u_t + (u^2 / 2)_x = nu / pi u_xx,      x in (0, 1)

    Parameters
    ----------
    u0 : array or tensor (N,) or (B, N)
        Means over N = 256 even cells at t = 0, |u| of the order of 1.
    times : sequence of float
        Multiples of 0.05, increasing.
    nu : float
        PDEBench's viscosity; 0.001 for the model inside this package.

    Returns
    -------
    array or tensor (T, N) or (B, T, N)
        Cell means at `times`, of the kind and precision of u0. Their mean is that of u0.

    Raises
    ------
    ValueError
        Another shape, or a number of cells, a time or a viscosity that the model was not trained
        on: it is never extrapolated.

    Source
    ------
    A MUSCL-Hancock stepper (van Leer 1984) on 256 cells and what a U-Net adds to it; initial states
    as in PDEBench (Takamoto et al. 2022).

    Examples
    --------
    A sine becomes a shock, and keeps its mean.

    >>> import numpy as np
    >>> import physics_hybrid
    >>> x = (np.arange(256) + 0.5) / 256
    >>> u = physics_hybrid.burgers.simulate(np.sin(2 * np.pi * x), times=[0.0, 0.5, 1.0])
    >>> u.shape
    (3, 256)
    >>> bool(abs(u.mean(axis=1)).max() < 1e-6)
    True
    """
    return load()(u0, times, nu)


@cache
def load(checkpoint: str | Path | None = None) -> Predictor:
    """A simulator to call with u0, times and nu: of a .mdlus file or a folder of checkpoints, or
    (None) the one inside this package.

    Raises
    ------
    RuntimeError
        Nothing there, or not readable.
    """
    from physics_hybrid.problems.burgers.predictor import Predictor

    return Predictor.load(checkpoint)
