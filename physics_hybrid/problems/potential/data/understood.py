"""What users bring that is clear, though we would write it otherwise, in our own words.

Each function takes the arrays of one sample by key, changes what it understands and says so in a
note. What is not clear stays as it is: the rules of `checks` refuse it.
"""

from __future__ import annotations

import numpy as np
import torch

from physics_hybrid.problems.potential.data.sample import Conventions, SampleError
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource, nodal_source
from physics_hybrid.problems.potential.physics.ends import Ends

#: How far the two halves of a tensor may differ, over its largest entry, by rounding.
LOPSIDED = 1e-5
#: Rows and columns of a symmetric tensor in our order: DD HH WW DH DW HW.
SIX = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))

Arrays = dict[str, np.ndarray]


def understood(arrays: Arrays, conventions: Conventions, where: str) -> tuple[Arrays, list[str]]:
    """The arrays as we would write them, and what was understood.

    Raises
    ------
    SampleError
        A tensor that is not symmetric.
    """
    arrays, notes = dict(arrays), []
    notes += _phi(arrays)
    notes += _one_edge(arrays)
    grid = grid_of(arrays)
    if grid is not None:
        notes += _layout(arrays, grid, where)
        notes += _corners(arrays, grid)
    if conventions.nan_is_air:
        notes += _nan_is_air(arrays)
    return arrays, notes


def grid_of(arrays: Arrays) -> tuple[int, ...] | None:
    """(D, H, W) of a sample: that of `source`, else the one that `sigma` and `u` share; None where
    there is none.
    """
    if "source" in arrays:
        return arrays["source"].shape if arrays["source"].ndim == 3 else None
    if "sigma" not in arrays or "u" not in arrays:
        return None
    sigma, u = arrays["sigma"].shape, arrays["u"].shape
    grids = [sigma[i : i + 3] for i in range(len(sigma) - 2)]
    of_u = (u, tuple(n - 1 for n in u))
    return next((grid for wanted in of_u for grid in grids if grid == wanted), None)


def _phi(arrays: Arrays) -> list[str]:
    phi = arrays.pop("phi", None)
    if phi is None:
        return []
    if "u" in arrays:
        return ["phi is not read, as there is u"]
    arrays["u"] = phi
    return ["phi is taken for u"]


def _one_edge(arrays: Arrays) -> list[str]:
    """Voxels that are cubes."""
    spacing = arrays.get("spacing")
    if spacing is None or spacing.size != 1:
        return []
    arrays["spacing"] = np.full(3, spacing.item())
    return ["spacing is one number: the edge of a voxel along D, H and W"]


def _layout(arrays: Arrays, grid: tuple[int, ...], where: str) -> list[str]:
    """sigma (D, H, W, C), from components first, or from whole tensors."""
    sigma = arrays.get("sigma")
    if sigma is None or sigma.ndim < 4:
        return []
    notes = []
    first = sigma.ndim - 3
    if sigma.shape[first:] == grid and sigma.shape[:3] != grid:
        sigma = np.moveaxis(sigma, range(first), range(3, sigma.ndim))
        notes.append("the first axis of sigma is taken for its components")
    if sigma.shape == (*grid, 3, 3):
        sigma = _six(sigma, where)
        notes.append("sigma (3, 3) is taken for tensors, of rows and columns D, H, W")
    arrays["sigma"] = sigma
    return notes


def _six(tensors: np.ndarray, where: str) -> np.ndarray:
    """(D, H, W, 6) of symmetric (D, H, W, 3, 3); (D, H, W, 3) where they are diagonal."""
    apart = np.abs(tensors - tensors.swapaxes(-1, -2)).max(axis=(-1, -2))
    size = np.abs(tensors).max(axis=(-1, -2))
    lopsided = apart > LOPSIDED * size
    if lopsided.any():
        voxel = tuple(int(i) for i in np.argwhere(lopsided)[0])
        rule = f"tensors must be symmetric; voxel {voxel} holds {tensors[voxel].tolist()}"
        raise SampleError(where, "sigma", rule)
    six = np.stack([tensors[..., row, column] for row, column in SIX], axis=-1)
    return six if six[..., 3:].any() else six[..., :3]


def _corners(arrays: Arrays, grid: tuple[int, ...]) -> list[str]:
    """u at voxel centres, from u at their corners: the mean of the eight, which is what trilinear
    elements have there.
    """
    u = arrays.get("u")
    if u is None or u.shape != tuple(n + 1 for n in grid):
        return []
    for axis in range(3):
        low = u.take(range(grid[axis]), axis)
        high = u.take(range(1, grid[axis] + 1), axis)
        u = (low + high) / 2
    arrays["u"] = u
    return ["u has one value more along each axis: it stands at voxel corners, and is averaged"]


def _nan_is_air(arrays: Arrays) -> list[str]:
    """NaN in sigma is air, and whatever else holds NaN there holds nothing."""
    sigma = arrays.get("sigma")
    if sigma is None or sigma.dtype.kind != "f" or not np.isnan(sigma).any():
        return []
    air: np.ndarray = np.isnan(sigma)
    if sigma.ndim == 4:
        air = np.all(air, axis=-1)
    for key in ("sigma", "source", "labels", "mask"):
        array = arrays.get(key)
        if array is not None and array.shape[:3] == air.shape and array.dtype.kind == "f":
            array = array.copy()
            array[air] = np.where(np.isnan(array[air]), 0, array[air])
            arrays[key] = array
    return ["NaN in sigma is taken for air (data.nan_is_air)"]


def point_density(
    arrays: Arrays, sigma: np.ndarray, spacing: np.ndarray, conventions: Conventions, where: str
) -> np.ndarray:
    """`source` (D, H, W) in A/m^3 of a file that says `source_point` and `current` (A) alone: I / V
    in the voxel that holds the point; -I / V at `return_point`.

    sigma : (D, H, W, C) S/m, checked. spacing : (3,) m.

    Raises
    ------
    SampleError
        A point outside tissue, or a current that is none.
    """
    given = given_current(arrays, where)
    points = {
        key: in_metres(arrays[key], key, spacing, conventions, where)
        for key in ("source_point", "return_point")
        if key in arrays
    }
    back = points.get("return_point")
    ends = Ends("grounded") if back is None else Ends("pair")
    try:
        source = PointSource(
            _one(points["source_point"]),
            _one(np.asarray(given)),
            None if back is None else _one(back),
        )
        conductor = Conductor(_one(np.moveaxis(sigma, -1, 0)), _one(spacing), ends)
        density: np.ndarray = nodal_source(conductor, source)[0].numpy()
    except ValueError as error:
        raise SampleError(where, "source_point", str(error)) from error
    return density


def given_current(arrays: Arrays, where: str) -> float:
    """`current` in A. Raises SampleError for what is none."""
    given = arrays["current"].astype(np.float64)
    if given.size != 1 or not np.isfinite(given).all() or not given.all():
        rule = f"must be one number of amperes, and not 0; got {given.tolist()}"
        raise SampleError(where, "current", rule)
    return float(given.reshape(()))


def in_metres(
    given: np.ndarray, key: str, spacing: np.ndarray, conventions: Conventions, where: str
) -> np.ndarray:
    """The position of an electrode, (3,) m. Raises SampleError for what is none."""
    point = given.astype(np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise SampleError(where, key, f"must be three finite numbers; got {point.tolist()}")
    return (point + 0.5) * spacing if conventions.source_point == "index" else point


def _one(value: np.ndarray) -> torch.Tensor:
    """A batch of one, in float64."""
    return torch.from_numpy(np.array(value, dtype=np.float64))[None]
