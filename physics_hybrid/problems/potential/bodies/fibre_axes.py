r"""Directions of fibres from the shape of a muscle: along its own centre line.

    c(s): centroids of slices of a piece of a label;   t = c' / |c'|

c' at s0 is the slope of a straight line fitted to the centroids, each with the weight
n(s) exp(-(s - s0)^2 / 2 b^2), n the voxels of a slice (local linear regression: Fan and Gijbels,
Local Polynomial Modelling and Its Applications, 1996, eq. 3.6; unlike a mean it is right at both
ends, too). Slices are those along D of a piece that the box cuts at both of its ends, where their
centroids lie on the axis however oblique the cut; else they are normal to the main axis of the
piece (principal components). b is a sixth of the length, and 3 slices at least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Slices that a direction needs, and how much longer than thick a free piece must be.
SLICES, ELONGATED = 4, 1.5

#: Shares of the length, and slices, that a line is fitted over.
SMOOTH, SMOOTH_SLICES = 1 / 6, 3


@dataclass(frozen=True, eq=False)
class Piece:
    """A connected part of one label.

    label : of the file. voxels : (n, 3). fibres : (n, 3) unit vectors (D, H, W); None where it has
    no axis, and `why`. length : m, of the centre line.
    """

    label: int
    voxels: np.ndarray
    fibres: np.ndarray | None
    length: float
    why: str = ""


def pieces_of(labels: np.ndarray, chosen: np.ndarray, spacing: np.ndarray) -> list[Piece]:
    """The pieces of each label among the voxels that are chosen (D, H, W), with their fibres.

    Voxels that share a corner are of one piece. spacing : (3,) m.
    """
    found = []
    for label in np.unique(labels[chosen]):
        mine = chosen & (labels == label)
        numbered, _ = ndimage.label(mine, structure=np.ones((3, 3, 3)))
        for number, box in enumerate(ndimage.find_objects(numbered), start=1):
            low = np.array([part.start for part in box])
            voxels = np.argwhere(numbered[box] == number) + low
            found.append(_piece(int(label), voxels, spacing, len(labels)))
    return found


def _piece(label: int, voxels: np.ndarray, spacing: np.ndarray, length: int) -> Piece:
    """A piece in a body of so many slices along D."""
    cut = voxels[:, 0].min() == 0 and voxels[:, 0].max() == length - 1
    points = (voxels + 0.5) * spacing
    values, vectors = np.linalg.eigh(np.cov(points.T) if len(points) > 1 else np.zeros((3, 3)))
    normal, thickness = vectors[:, 2], float(spacing.max())
    if cut:
        normal, thickness = np.array([1.0, 0.0, 0.0]), float(spacing[0])
    elif values[2] < ELONGATED**2 * values[1]:
        ratio = np.sqrt(values[2] / values[1]) if values[1] > 0 else 1.0
        why = f"it is {ratio:.2g} times as long as thick, and {ELONGATED} is the least"
        return Piece(label, voxels, None, 0.0, why)
    heights = points @ normal
    slices = np.rint((heights - heights.min()) / thickness).astype(int)
    counts = np.bincount(slices)
    used = counts > 0
    if used.sum() < SLICES:
        return Piece(label, voxels, None, 0.0, f"it has {used.sum()} slices of {SLICES}")
    sums = np.stack([np.bincount(slices, points[:, axis]) for axis in range(3)], axis=1)
    centres = sums[used] / counts[used, None]
    along = np.bincount(slices, heights)[used] / counts[used]
    tangents = _slopes(along, centres, counts[used], thickness)
    each = tangents[np.cumsum(used)[slices] - 1]
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    return Piece(label, voxels, each, float(steps.sum()))


def _slopes(
    along: np.ndarray, centres: np.ndarray, counts: np.ndarray, thickness: float
) -> np.ndarray:
    """Unit tangents of a centre line at its slices. (m,), (m, 3), (m,), m -> (m, 3)"""
    width = max(SMOOTH * float(np.ptp(along)), SMOOTH_SLICES * thickness)
    away = along[None] - along[:, None]
    weights = counts * np.exp(-0.5 * (away / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    middle = (weights * along).sum(axis=1, keepdims=True)
    lever = weights * (along[None] - middle)
    slopes = lever @ centres / (lever * (along[None] - middle)).sum(axis=1, keepdims=True)
    out: np.ndarray = slopes / np.linalg.norm(slopes, axis=1, keepdims=True)
    return out
