"""Muscle fibres: conductivity along and across them, as a tensor in the axes of the grid.

    sigma = R diag(along, across, across) R^T,

where R takes the D axis to the fibre.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

#: Rows and columns of the six components (DD, HH, WW, DH, DW, HW) in a matrix, and back.
ROWS, COLUMNS = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
PLACES = [[0, 3, 4], [3, 1, 5], [4, 5, 2]]


def matrices(components: np.ndarray) -> np.ndarray:
    """Symmetric matrices of (DD, HH, WW, DH, DW, HW). (..., 6) -> (..., 3, 3)"""
    out: np.ndarray = np.asarray(components)[..., PLACES]
    return out


def six(tensors: np.ndarray) -> np.ndarray:
    """(DD, HH, WW, DH, DW, HW) of symmetric matrices. (..., 3, 3) -> (..., 6)"""
    out: np.ndarray = np.asarray(tensors)[..., ROWS, COLUMNS]
    return out


def fibre_tensor(diagonal: np.ndarray, angle: float, direction: float) -> np.ndarray:
    """R diag(diagonal) R^T as (DD, HH, WW, DH, DW, HW), S/m. (6,)

    Parameters
    ----------
    diagonal : (3,) conductivity along the fibre and across it, S/m.
    angle : between the fibre and D, radians.
    direction : of the tilt, from H towards W, radians.

    The fibre is (cos angle, sin angle cos direction, sin angle sin direction).
    """
    axis = np.array([0.0, -np.sin(direction), np.cos(direction)])
    turn = Rotation.from_rotvec(angle * axis).as_matrix()
    return six(turn @ np.diag(diagonal) @ turn.T)


def along_fibres(along: float, across: float, fibres: np.ndarray) -> np.ndarray:
    """across 1 + (along - across) t t^T, S/m, of unit vectors t (..., 3). (..., 3, 3)"""
    outer = fibres[..., :, None] * fibres[..., None, :]
    out: np.ndarray = across * np.eye(3) + (along - across) * outer
    return out
