"""Probes: what illuminates the object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter


def disk_probe(size: int, radius: float, edge: float = 1.0) -> NDArray[np.complex128]:
    """A disk with a smooth edge in the middle of a frame.

    Parameters
    ----------
    size : int
        Pixels N along each side of the frame.
    radius : float
        In pixels; at most N / 4, so that a far field of N pixels samples the disk's
        autocorrelation.
    edge : float
        Sigma in pixels of the Gaussian that smooths the edge.

    Returns
    -------
    array
        (N, N), complex, real values between 0 and 1.

    Examples
    --------
    >>> P = disk_probe(32, 8)
    >>> bool(abs(P[16, 16] - 1) < 1e-6), bool(abs(P[0, 0]) < 1e-6)
    (True, True)
    """
    offset = np.arange(size) - (size - 1) / 2
    distance = np.hypot(offset[:, None], offset)
    disk = (distance <= radius).astype(float)
    return gaussian_filter(disk, edge).astype(np.complex128)
