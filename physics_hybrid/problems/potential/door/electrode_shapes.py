"""Where electrodes touch a body: disks, rectangles, labels and lists of faces, as faces of voxels.

A disk or a rectangle lies in a plane. Of the faces of skin near it, it covers what lies under it as
seen along its normal: samples of every face say which share. So the area of a disk is that of a
disk on staircases of voxels, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from physics_hybrid.problems.potential.door.arrays import numbers
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.places import in_metres, metres_per_unit, unit_of
from physics_hybrid.problems.potential.physics.electrode_edge import edge_conductance

#: Samples along each edge of a face.
SAMPLES = 16
#: Of a face less than this share is not covered.
LEAST_SHARE = 1e-6
#: How many voxels from the edge of a patch of whole faces it is felt.
EDGE_REACH = 8
#: Of how much of its area a disk or rectangle must be on skin; what earns a warning.
LEAST_AREA, MOST_AREA = 0.5, 0.95
#: How many voxels from a face, seen along the normal, a place is still on it.
BESIDE = 0.8
#: The least part of the way to the edge that lies in a face, squared: faces that are seen from the
#: side have no more of it.
LEAST_SLOPE = 0.05

#: Names of the sides of a voxel: (axis, side).
SIDES = {
    f"{sign}{name}": (a, s) for a, name in enumerate("DHW") for s, sign in enumerate(("-", "+"))
}


@dataclass(frozen=True)
class Faces:
    """F faces of voxels of tissue. voxels : (F, 3). axis, side : (F,); below is 0, above 1."""

    voxels: np.ndarray
    axis: np.ndarray
    side: np.ndarray

    @classmethod
    def joined(cls, several: Sequence[Faces]) -> Faces:
        """All of them."""
        return cls(
            np.concatenate([f.voxels for f in several]).reshape(-1, 3),
            np.concatenate([f.axis for f in several]),
            np.concatenate([f.side for f in several]),
        )

    @classmethod
    def between(cls, tissue: np.ndarray, other: np.ndarray, outside: bool, ends: bool) -> Faces:
        """From voxels of tissue to others. outside : whether to the outside of the grid; ends :
        whether there along D, too."""
        found = []
        for axis in range(3):
            for side in (0, 1):
                widths = [(0, 0)] * 3
                widths[axis] = (1, 1)
                fill = outside and (axis != 0 or ends)
                padded = np.pad(other, widths, constant_values=fill)
                start = 2 * side
                beside = padded.take(range(start, start + tissue.shape[axis]), axis=axis)
                voxels = np.argwhere(tissue & beside)
                found.append(cls(voxels, np.full(len(voxels), axis), np.full(len(voxels), side)))
        return cls.joined(found)

    def chosen(self, where: np.ndarray) -> Faces:
        """Some of them."""
        return Faces(self.voxels[where], self.axis[where], self.side[where])

    def __len__(self) -> int:
        return len(self.axis)

    @property
    def normals(self) -> np.ndarray:
        """Out of tissue. (F, 3)"""
        normals: np.ndarray = np.eye(3)[self.axis] * (2 * self.side - 1)[:, None]
        return normals

    def centres(self, spacing: np.ndarray) -> np.ndarray:
        """(F, 3) m."""
        centres: np.ndarray = (self.voxels + 0.5 + self.normals / 2) * spacing
        return centres

    def keys(self, shape: Sequence[int]) -> np.ndarray:
        """A number for each side of each voxel. (F,)"""
        flat = np.ravel_multi_index(tuple(self.voxels.T), tuple(shape))
        keys: np.ndarray = flat * 6 + self.axis * 2 + self.side
        return keys


@dataclass(frozen=True)
class Touch:
    """What one electrode covers.

    covered : (F, Q) which samples of each face are; (F, 1) for whole faces.
    share : (F,) of each face. area : (F,) m^2, as it is seen along the electrode's normal.
    tissue : (F,) S, of the half voxels behind.
    """

    faces: Faces
    covered: np.ndarray
    share: np.ndarray
    area: np.ndarray
    tissue: np.ndarray


@dataclass(frozen=True)
class Ground:
    """A body that electrodes are put on. bare : without metal. skin : of it, where nothing passes.
    frame : of places."""

    whole: Body
    bare: Body
    skin: Faces
    frame: str

    @property
    def spacing(self) -> np.ndarray:
        """(3,) m."""
        return self.bare.spacing

    def sigma_of(self, voxels: np.ndarray) -> np.ndarray:
        """(F, 3) S/m along the axes."""
        d, h, w = voxels.T
        sigma = self.bare.sigma[0, :3].detach().cpu().numpy()[:, d, h, w].T
        return np.broadcast_to(sigma, (len(voxels), 3))

    def metres(self, place: Any, name: str) -> np.ndarray:
        """A place of the frame, (3,) m of the grid. Raises ValueError."""
        given = numbers(place, name).detach().cpu()
        if tuple(given.shape) != (3,):
            raise ValueError(f"{name} must be (3,) {unit_of(self.frame)}; got {tuple(given.shape)}")
        return in_metres(self.whole, given[None], self.frame, name)[0].numpy()

    def length(self, value: Any, name: str) -> float:
        """A length of the frame, m. Raises ValueError."""
        given = numbers(value, name).detach()
        size = float(given) * metres_per_unit(self.frame) if given.ndim == 0 else np.nan
        if not (np.isfinite(size) and size > 0):
            raise ValueError(f"{name} must be > 0 {unit_of(self.frame)}; got {value}")
        return size

    def direction(self, value: Any, name: str) -> np.ndarray:
        """A direction of the frame as a unit vector along the axes of the grid. Raises
        ValueError."""
        given = numbers(value, name).detach().cpu().numpy()
        size = np.linalg.norm(given)
        if given.shape != (3,) or not np.isfinite(size) or size == 0:
            raise ValueError(f"{name} must be a direction, (3,), not 0; got {given.tolist()}")
        if self.frame == "world":
            assert self.whole.affine is not None
            axes = self.whole.affine[:3, :3]
            given = given @ (axes / np.linalg.norm(axes, axis=0))
        return np.asarray(given / size)


@dataclass(frozen=True)
class Plane:
    """A disk or a rectangle. All in m of the grid; u, v : axes in its plane.

    half : (radius,), or half the sides along u and v.
    """

    centre: np.ndarray
    normal: np.ndarray
    u: np.ndarray
    v: np.ndarray
    half: tuple[float, ...]

    @property
    def area(self) -> float:
        """m^2."""
        if len(self.half) == 1:
            return float(np.pi * self.half[0] ** 2)
        return 4 * self.half[0] * self.half[1]

    @property
    def reach(self) -> float:
        """Of the smallest sphere round it, m."""
        return float(np.linalg.norm(self.half))

    def across(self, points: np.ndarray) -> np.ndarray:
        """Places (..., 3) as seen along the normal: along u and v from the centre. (..., 2)"""
        seen: np.ndarray = (points - self.centre) @ np.stack([self.u, self.v], axis=1)
        return seen

    def inside(self, points: np.ndarray) -> np.ndarray:
        """How far inside each of its edges places (..., 3) are, negative outside: a disk has one,
        a rectangle two, of which the nearer side counts. (E, ...)"""
        seen = self.across(points)
        if len(self.half) == 1:
            return np.asarray(self.half[0] - np.linalg.norm(seen, axis=-1))[None]
        return np.stack([half - np.abs(seen[..., k]) for k, half in enumerate(self.half)])

    def outward(self, points: np.ndarray) -> np.ndarray:
        """Unit vectors along u and v towards these edges. (F, 3) -> (E, F, 2)"""
        seen = self.across(points)
        if len(self.half) == 1:
            size = np.linalg.norm(seen, axis=1, keepdims=True)
            middle = np.where(size > 0, seen, [1.0, 0.0])
            return np.asarray(middle / np.where(size > 0, size, 1.0))[None]
        signs = np.where(seen < 0, -1.0, 1.0)
        return np.stack([signs[:, k, None] * np.eye(2)[k] for k in range(2)])


@dataclass(frozen=True)
class _Edges:
    """E edges of a plane as F faces meet them.

    inside, share : (E, F, Q) of samples: how far inside, m, and whether covered, 0 to 1.
    centre : (E, F), m. width : (E, F) of a sample along the way to the edge, m.
    slope : (E, F, 3) squares of the components of that way along each axis, in the face.
    skin : (E, F) whether skin goes on behind.
    """

    inside: np.ndarray
    share: np.ndarray
    centre: np.ndarray
    width: np.ndarray
    slope: np.ndarray
    skin: np.ndarray

    @classmethod
    def of(cls, plane: Plane, faces: Faces, spacing: np.ndarray) -> _Edges:
        centres = faces.centres(spacing)
        inside = plane.inside(centres[:, None] + _samples(spacing)[faces.axis])
        outward = plane.outward(centres)
        way = outward @ np.stack([plane.u, plane.v])
        slope = np.where(faces.normals != 0, 0.0, way**2)
        width = (np.sqrt(slope) * spacing).sum(axis=-1) / SAMPLES
        width = np.maximum(width, 1e-6 * spacing.min())
        share = np.clip(inside / width[..., None] + 0.5, 0, 1)
        centre = plane.inside(centres)
        skin = _skin_beyond(plane, centres, outward, centre, spacing)
        return cls(inside, share, centre, width, slope, skin)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each face the nearest edge behind which there is skin, and whether there is one."""
        distance = np.where(self.skin, self.centre, np.inf)
        return np.asarray(distance.argmin(axis=0)), np.asarray(self.skin.any(axis=0))


def _samples(spacing: np.ndarray) -> np.ndarray:
    """Places on faces normal to each axis, from their middle. (3, Q, 3) m"""
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    first, second = np.meshgrid(steps, steps, indexing="ij")
    offsets = np.zeros((3, SAMPLES**2, 3))
    for axis in range(3):
        one, other = (a for a in range(3) if a != axis)
        offsets[axis, :, one] = first.ravel() * spacing[one]
        offsets[axis, :, other] = second.ravel() * spacing[other]
    return offsets


def _skin_beyond(
    plane: Plane,
    centres: np.ndarray,
    outward: np.ndarray,
    inside: np.ndarray,
    spacing: np.ndarray,
) -> np.ndarray:
    """Whether there are more faces, half a voxel behind each edge, as seen from each face: at the
    edge of a body a current does not crowd. (E, F)"""
    from scipy.spatial import cKDTree

    step = np.array([np.abs(axis) @ spacing for axis in (plane.u, plane.v)])
    flat = plane.across(centres)
    far = inside + np.abs(outward) @ step / 2
    behind = flat + outward * far[..., None]
    distance, _ = cKDTree(flat / step).query(behind / step)
    return np.asarray(distance < BESIDE)


def spread(plane: Plane, faces: Faces, ground: Ground) -> Touch:
    """What a disk or a rectangle covers of faces."""
    spacing = ground.spacing
    edges = _Edges.of(plane, faces, spacing)
    share = edges.share.prod(axis=0)
    sigma, rows = ground.sigma_of(faces.voxels), np.arange(len(faces))
    normal = sigma[rows, faces.axis]
    depth = spacing[faces.axis] / np.sqrt(normal)
    chosen, crowded = edges.nearest()
    others = np.ones_like(share)
    for k, own in enumerate(edges.share):
        others *= np.where((chosen == k)[:, None], 1.0, own)
    slope = edges.slope[chosen, rows]
    pull = np.maximum((sigma * slope).sum(axis=1), LEAST_SLOPE * normal)
    # lengths along the way to the edge in an isotropic medium
    part = sigma * slope / pull[:, None]
    size = np.maximum((part * spacing / np.sqrt(sigma)).sum(axis=1), 1e-3 * depth)
    stretch = 1 / np.sqrt(pull)
    density = edge_conductance(
        inside=edges.inside[chosen, rows] * stretch[:, None],
        covered=others,
        width=edges.width[chosen, rows] * stretch,
        centre=edges.centre[chosen, rows] * stretch,
        size=size,
        depth=depth,
    )
    density = np.where(crowded, density, share.mean(axis=1) * 2 / depth)
    seen = np.prod(spacing) / spacing[faces.axis] * np.abs(faces.normals @ plane.normal)
    used = share.mean(axis=1) > LEAST_SHARE
    return Touch(
        faces=faces.chosen(used),
        covered=share[used] > 0.5,
        share=share[used].mean(axis=1),
        area=(seen * share.mean(axis=1))[used],
        tissue=(seen * np.sqrt(normal) * density)[used],
    )


def whole_faces(faces: Faces, ground: Ground) -> Touch:
    """Faces that are covered in full; where skin goes on beside them they have an edge."""
    spacing, shape = ground.spacing, ground.bare.shape
    sigma = ground.sigma_of(faces.voxels)
    normal = sigma[np.arange(len(faces)), faces.axis]
    stretched = spacing / np.sqrt(sigma)
    depth = stretched[np.arange(len(faces)), faces.axis]
    mine, skin = faces.keys(shape), np.sort(ground.skin.keys(shape))
    steps = np.full((len(faces), 3), EDGE_REACH)
    for axis in range(3):
        for sign in (-1, 1):
            count = _to_the_edge(faces, axis, sign, mine, skin, shape)
            steps[:, axis] = np.minimum(steps[:, axis], count)
    size = np.where(np.arange(3) == faces.axis[:, None], np.inf, stretched)
    across = np.argmin(np.where(np.isinf(size), np.inf, (steps + 0.5) * size), axis=1)
    rows = np.arange(len(faces))
    size, centre = size[rows, across], (steps[rows, across] + 0.5) * size[rows, across]
    density = np.where(
        steps[rows, across] < EDGE_REACH,
        _at_once(centre, size, depth),
        2 / depth,
    )
    area = np.prod(spacing) / spacing[faces.axis]
    one = np.ones(len(faces))
    return Touch(faces, one[:, None] > 0, one, area, area * np.sqrt(normal) * density)


def _at_once(centre: np.ndarray, size: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """What whole faces conduct, their middles so far from the edge."""
    return edge_conductance(
        inside=centre[:, None],
        covered=np.ones((len(centre), 1)),
        width=size,
        centre=centre,
        size=size,
        depth=depth,
    )


def _to_the_edge(
    faces: Faces, axis: int, sign: int, mine: np.ndarray, skin: np.ndarray, shape: Sequence[int]
) -> np.ndarray:
    """Faces of the electrode beside each one along an axis before skin begins, `EDGE_REACH` where
    it does not. (F,)"""
    count = np.full(len(faces), EDGE_REACH)
    going = faces.axis != axis
    for step in range(1, EDGE_REACH + 1):
        beside = faces.voxels.copy()
        beside[:, axis] += sign * step
        inside = (beside[:, axis] >= 0) & (beside[:, axis] < shape[axis])
        going = going & inside
        beside = np.clip(beside, 0, np.array(shape) - 1)
        keys = Faces(beside, faces.axis, faces.side).keys(shape)
        own = np.isin(keys, mine)
        ends = going & ~own & np.isin(keys, skin)
        count[ends] = step - 1
        going = going & own
    return count
