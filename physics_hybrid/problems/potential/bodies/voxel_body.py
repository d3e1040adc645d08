"""Voxelised bodies: labels and conductivity on a grid, with electrodes that the grid can hold.

Positions are metres from the outer corner of voxel (0, 0, 0), in the order (D, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from physics_hybrid.grid import name_of


@dataclass(frozen=True)
class VoxelBody:
    """A body on a grid, kept small until it is on the device that solves it.

    index : (D, H, W) uint8, which row of the tables a voxel has; 0 is air.
    table : (rows, C) conductivity in S/m, C = 1, 3 or 6.
    names : (rows,) uint8, index into TISSUES.
    spacing : (3,) m.
    source_point : (3,) m.
    current : A.
    return_point : (3,) m of the second electrode of a pair, or None.
    """

    index: np.ndarray
    table: np.ndarray
    names: np.ndarray
    spacing: np.ndarray
    source_point: np.ndarray
    current: float
    return_point: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """Index into TISSUES. (D, H, W)"""
        labels: np.ndarray = self.names[self.index]
        return labels

    @property
    def sigma(self) -> np.ndarray:
        """Conductivity, S/m. (C, D, H, W)"""
        return np.moveaxis(self.table[self.index], -1, 0)

    @property
    def source(self) -> np.ndarray:
        """Current density of the electrodes, A/m^3, negative round the second one. (D, H, W)"""
        f = np.zeros(self.index.shape)
        for voxels, values in self.deposits():
            f[tuple(voxels.T)] += values
        return f

    def deposits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """`deposit` of every electrode."""
        comes_in = deposit(self.source_point, self.spacing, self.current)
        if self.return_point is None:
            return [comes_in]
        return [comes_in, deposit(self.return_point, self.spacing, -self.current)]


def inject(
    points: list[np.ndarray],
    index: np.ndarray,
    table: np.ndarray,
    names: np.ndarray,
    spacing: np.ndarray,
    current: float,
) -> VoxelBody:
    """A voxelised body with a current (A) that comes in at the first of `points` (m).

    Of two points, it is taken out at the second. A negative current of two goes the other way
    round: files tell the electrodes of a pair apart by the sign of the source. `index`, `table`,
    `names` and `spacing` are as in `VoxelBody`.

    Raises
    ------
    ValueError
        Where the electrodes of a pair are less than 3 voxels apart along every axis.
    """
    if len(points) == 1:
        return VoxelBody(index, table, names, spacing, source_point=points[0], current=current)
    first, second = points
    if not distinct(first, second, spacing):
        raise ValueError(
            f"the grid {name_of(index.shape)} has the two electrodes of a pair less than 3 voxels "
            "apart; raise pair_distance or refine the grid"
        )
    if current < 0:
        first, second, current = second, first, -current
    return VoxelBody(
        index, table, names, spacing, source_point=first, current=current, return_point=second
    )


def distinct(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> np.ndarray | np.bool_:
    """Whether electrodes are at least 3 voxels apart along some axis.

    (..., 3) and (..., 3) in metres -> (...)
    """
    far: np.ndarray = np.abs(first - second) >= 3 * spacing
    return far.any(axis=-1)


def apart(points: list[np.ndarray], home: np.ndarray, spacing: np.ndarray) -> list[np.ndarray]:
    """The electrodes that were drawn, (3,) m each, moved apart where this grid needs it.

    The second of two that are not `distinct` moves to the nearest voxel centre of its `home`
    (D, H, W) that is. Where there is none, it stays.
    """
    if len(points) < 2:
        return points
    first, second = points
    if distinct(first, second, spacing):
        return points
    centres = (np.moveaxis(np.indices(home.shape), 0, -1) + 0.5) * spacing
    home = home & distinct(centres, first, spacing)
    if not home.any():
        return points
    return [first, nearest_centre(second, home, spacing)]


def held(point: np.ndarray, home: np.ndarray, spacing: np.ndarray) -> bool:
    """Whether the grid can hold a source at a point (3,) in metres.

    It can where the 8 voxels round the point are all `home` (D, H, W).
    """
    low = np.floor(np.asarray(point) / spacing - 0.5).astype(int)
    around = home[tuple(slice(max(i, 0), max(i + 2, 0)) for i in low)]
    return around.size == 8 and bool(around.all())


def nearest_centre(point: np.ndarray, home: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The centre (3,), in metres, of a voxel of `home` (D, H, W) next to the one with a point (3,).

    Raises
    ------
    ValueError
        Where `home` has no voxel.
    """
    last = np.array(home.shape) - 1
    voxel = np.clip(np.floor(np.asarray(point) / spacing).astype(int), 0, last)
    reach = 4
    while True:  # in a window; what is nearer than its walls is the nearest
        low, high = np.maximum(voxel - reach, 0), voxel + reach + 1
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        found = np.argwhere(home[window]) + low
        away = np.linalg.norm((found - voxel) * spacing, axis=1)
        whole = reach >= max(home.shape)
        if len(found) and (whole or away.min() <= reach * spacing.min()):
            centre: np.ndarray = (found[away.argmin()] + 0.5) * spacing
            return centre
        if whole:
            raise ValueError("there is no voxel to move the source to")
        reach *= 2


def deposit(
    point: np.ndarray, spacing: np.ndarray, current: float
) -> tuple[np.ndarray, np.ndarray]:
    """A point source (m, A) spread over the 8 voxels round it by trilinear weights.

    Returns the voxels (n, 3) and the current density in each, A/m^3 (n,). Its sum times the voxel
    volume is `current`, its centre of mass is `point` (Hockney and Eastwood, Computer Simulation
    Using Particles, 1988, ch. 5: cloud in cell). At a voxel centre one voxel holds it all.
    """
    position = np.asarray(point) / spacing - 0.5
    low = np.floor(np.round(position, 9)).astype(int)
    part = np.round(position - low, 9)
    corners = np.array(list(np.ndindex(2, 2, 2)))
    weights = np.where(corners, part, 1 - part).prod(axis=1)
    used = weights > 0
    return (low + corners)[used], weights[used] * current / np.prod(spacing)
