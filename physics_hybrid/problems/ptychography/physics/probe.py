"""Probes: what illuminates the object.

A symmetric probe without a phase cannot tell an object o(r) from its twin o*(-r): both have one
far field. A curved wave front can.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter


def disk_probe(
    size: int, radius: float, edge: float = 1.0, curvature: float = 0.0
) -> NDArray[np.complex128]:
    """P(r) = disk(r) exp(i c r^2 / R^2): a disk with a smooth edge in the middle of a frame.

    Parameters
    ----------
    size : int
        Pixels N along each side of the frame.
    radius : float
        In pixels; at most N / 4, so that a far field of N pixels samples the disk's
        autocorrelation.
    edge : float
        Sigma in pixels of the Gaussian that smooths the edge.
    curvature : float
        c, the phase at the edge, in rad: the wave front of a probe out of focus.

    Returns
    -------
    array
        (N, N), complex, at most 1 in size.

    Examples
    --------
    >>> P = disk_probe(32, 8.0)
    >>> bool(abs(P[16, 16] - 1) < 1e-6), bool(abs(P[0, 0]) < 1e-6)
    (True, True)
    """
    offset = np.arange(size) - (size - 1) / 2
    distance = np.hypot(offset[:, None], offset)
    disk = (distance <= radius).astype(float)
    smooth = gaussian_filter(disk, edge)
    out: NDArray[np.complex128] = smooth * np.exp(1j * curvature * (distance / radius) ** 2)
    return out
