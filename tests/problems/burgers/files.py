"""PDEBench's layout, written by a test."""

from __future__ import annotations

import h5py
import numpy as np


def write_pdebench(path, samples=20, frames=21, points=64, *, change=None, nu=None):
    """A file as PDEBench's generator writes it: one time too many. change: of its datasets."""
    random = np.random.default_rng(0)
    x = (np.arange(points) + 0.5) / points
    phase = random.uniform(0, 2 * np.pi, (samples, 1, 1))
    t = np.arange(frames + 1) * 0.01
    u = np.sin(2 * np.pi * (x - t[:-1, None]) + phase) + 0.3
    arrays = {"tensor": u.astype(np.float32), "x-coordinate": x, "t-coordinate": t}
    arrays |= change(arrays) if change else {}
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
        if nu is not None:
            file.attrs["Nu"] = nu
    return path
