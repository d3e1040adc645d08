"""Muscle fibres: conductivity along and across them, as a tensor in the axes of the grid.

    sigma = R diag(along, across, across) R^T,

where R takes the D axis to the fibre.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


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
    tensor: np.ndarray = turn @ np.diag(diagonal) @ turn.T
    rows, columns = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
    components: np.ndarray = tensor[rows, columns]
    return components
