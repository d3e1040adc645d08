"""Shapes of electrodes, as a user gives them: each knows which faces of a body it covers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.electrode_shapes import (
    LEAST_AREA,
    MOST_AREA,
    SIDES,
    Faces,
    Ground,
    Plane,
    Touch,
    spread,
    whole_faces,
)
from physics_hybrid.problems.potential.door.places import in_frame, unit_of

#: How close to an axis the normal of a sheet inside tissue is.
ALIGNED = 1e-6
#: Half-widths, in the longest edge of a voxel, that are refused and that earn a warning.
SMALLEST, SMALL = 0.25, 0.98
#: Distances that differ by so little are the same.
ROUNDED = 1e-6
#: For how many diagonals of a voxel skin is flat where it has one normal; and of how many, at
#: least, the normal is the mean where it is not.
FLAT, SMOOTH = 0.9, 1.5
#: Faces of skin that are seen at least so much from the front, as a cosine, belong to a patch.
LEAST_COSINE = 0.05


class Shape(Protocol):
    """Where an electrode is."""

    def metal(self, body: Body, name: str) -> np.ndarray | None:
        """Voxels that are no tissue any more, (D, H, W); None: none. Raises ValueError."""
        ...

    def touch(self, ground: Ground, name: str) -> Touch:
        """What it covers. Raises ValueError where that is nothing."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class _Flat:
    """A disk or a rectangle. inside : as a sheet in tissue."""

    centre: Any
    normal: Any
    inside: bool

    def metal(self, body: Body, name: str) -> np.ndarray | None:
        """None."""
        return None

    def touch(self, ground: Ground, name: str) -> Touch:
        """Of skin, or of both sides of a plane between voxels."""
        centre = ground.metres(self.centre, f"{name}.centre")
        half = self.half(ground, name)
        reach = float(np.linalg.norm(half))
        _check_size(ground, min(half), name)
        if self.inside:
            normal, centre, faces = self._sheet(ground, centre, name)
        else:
            normal, faces = self._skin(ground, centre, reach, name)
        u, v = self.axes(ground, normal, name)
        plane = Plane(centre, normal, u, v, half)
        near = np.abs((faces.centres(ground.spacing) - centre) @ normal) <= plane.reach + float(
            ground.spacing.max()
        )
        touch = spread(plane, faces.chosen(near & self._close(ground, plane, faces)), ground)
        self._check_area(ground, plane, touch, name)
        return touch

    def half(self, ground: Ground, name: str) -> tuple[float, ...]:
        """The radius, or half the sides, m."""
        raise NotImplementedError

    def axes(self, ground: Ground, normal: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors in the plane, the first along the first side."""
        first = _across(np.eye(3)[0], normal)
        if first is None:
            first = _across(np.eye(3)[1], normal)
        assert first is not None
        return first, np.cross(normal, first)

    def _close(self, ground: Ground, plane: Plane, faces: Faces) -> np.ndarray:
        """Faces that it may cover."""
        margin = float(np.linalg.norm(ground.spacing))
        inside = plane.inside(faces.centres(ground.spacing))
        return np.asarray((inside > -margin).all(axis=0))

    def _skin(
        self, ground: Ground, centre: np.ndarray, reach: float, name: str
    ) -> tuple[np.ndarray, Faces]:
        """The normal, and faces of skin that look that way."""
        skin, spacing = ground.skin, ground.spacing
        distance = np.asarray(np.linalg.norm(skin.centres(spacing) - centre, axis=1))
        diagonal = float(np.linalg.norm(spacing))
        if not (distance <= max(reach, diagonal / 2)).any():
            nearest = ground.bare.nearest_voxel(centre)
            place = in_frame(ground.whole, nearest[None], ground.frame)[0]
            far = 1e3 * float(distance.min()) if len(distance) else float("nan")
            raise ValueError(
                f"{name} lies off the body: no skin within it; the nearest is {far:.3g} mm from its"
                f" centre, at {place.round(6).tolist()} {unit_of(ground.frame)}"
                + (" (inside=True puts it into tissue)" if ground.bare.in_tissue(centre) else "")
            )
        if self.normal is not None:
            normal = ground.direction(self.normal, f"{name}.normal")
        else:
            normal = self._mean_normal(ground, distance, name)
        return normal, skin.chosen(skin.normals @ normal > LEAST_COSINE)

    def _mean_normal(self, ground: Ground, distance: np.ndarray, name: str) -> np.ndarray:
        """That of the skin at the centre where it is flat for some voxels; else of the skin round
        it, the nearer the more, as far as the electrode is narrow. Raises ValueError where that is
        none."""
        skin, spacing = ground.skin, ground.spacing
        diagonal = float(np.linalg.norm(spacing))
        near = distance <= max(FLAT * diagonal, (1 + ROUNDED) * float(distance.min()))
        looks = np.unique(skin.normals[near], axis=0)
        if len(looks) == 1:
            return np.asarray(looks[0])
        far = max(min(self.half(ground, name)), SMOOTH * diagonal)
        areas = np.prod(spacing) / spacing[skin.axis]
        weight = areas * np.clip(1 - (distance - distance.min()) / far, 0, 1)
        mean = (weight[:, None] * skin.normals).sum(axis=0)
        size = float(np.linalg.norm(mean))
        if size < 1e-6 * weight.sum():
            raise ValueError(
                f"{name}: the skin round it looks in all directions: say normal=(d, h, w)"
            )
        return np.asarray(mean / size)

    def _sheet(
        self, ground: Ground, centre: np.ndarray, name: str
    ) -> tuple[np.ndarray, np.ndarray, Faces]:
        """The normal, the centre moved to a plane between voxels, and faces on both sides of it."""
        if self.normal is None:
            raise ValueError(f"{name}: a sheet inside tissue needs normal=, one of the axes")
        normal = ground.direction(self.normal, f"{name}.normal")
        axis = int(np.abs(normal).argmax())
        if abs(abs(normal[axis]) - 1) > ALIGNED:
            raise ValueError(
                f"{name}.normal must be one of the axes of the grid inside tissue, (1, 0, 0) ..;"
                f" got {normal.round(4).tolist()}"
            )
        place = int(np.round(centre[axis] / ground.spacing[axis]))
        tissue = ground.bare.tissue
        if not 0 < place < tissue.shape[axis]:
            raise ValueError(
                f"{name} lies on or outside the outer faces of the grid: inside=True is of tissue"
                " on both sides"
            )
        found = []
        for side, index in ((1, place - 1), (0, place)):
            voxels = np.argwhere(tissue.take(index, axis=axis))
            voxels = np.insert(voxels, axis, index, axis=1)
            count = len(voxels)
            found.append(Faces(voxels, np.full(count, axis), np.full(count, side)))
        moved = centre.copy()
        moved[axis] = place * ground.spacing[axis]
        return np.eye(3)[axis], moved, Faces.joined(found)

    def _check_area(self, ground: Ground, plane: Plane, touch: Touch, name: str) -> None:
        """Raises ValueError where too little of it is on the body; warns where some is not."""
        share = float(touch.area.sum()) / (plane.area * (2 if self.inside else 1))
        if share < LEAST_AREA:
            what = "tissue" if self.inside else "skin"
            raise ValueError(
                f"{name} lies off the body: {share:.0%} of its area is on {what}; move it, or say"
                " normal=, where it looks"
            )
        if share < MOST_AREA:
            warnings.warn(
                f"{share:.0%} of the area of {name} is on the body: it hangs over an edge",
                stacklevel=5,
            )


def _check_size(ground: Ground, half: float, name: str) -> None:
    """Raises ValueError for what voxels do not see; warns of what they hardly do."""
    voxels = half / float(ground.spacing.max())
    if voxels < SMALLEST:
        raise ValueError(
            f"{name} is {2 * voxels:.2g} voxels wide: take smaller voxels, or a point (ph.solve)"
        )
    if voxels < SMALL:
        warnings.warn(
            f"{name} is {2 * voxels:.2g} voxels wide: its resistance is right to 5 % from 2 voxels"
            " on",
            stacklevel=5,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Disk(_Flat):
    """radius : of the frame."""

    radius: Any

    def __repr__(self) -> str:
        return f"disk of radius {_shown(self.radius)} at {_place(self.centre)}"

    def half(self, ground: Ground, name: str) -> tuple[float, ...]:
        """The radius, m."""
        return (ground.length(self.radius, f"{name}.radius"),)


@dataclass(frozen=True, eq=False, repr=False)
class Rectangle(_Flat):
    """sides : two lengths of the frame, the first in the direction `along`."""

    sides: Any
    along: Any

    def __repr__(self) -> str:
        sides = " x ".join(map(_shown, self.sides)) if _two(self.sides) else str(self.sides)
        return f"rectangle of {sides} at {_place(self.centre)}"

    def half(self, ground: Ground, name: str) -> tuple[float, ...]:
        """Half the sides, m."""
        if not _two(self.sides):
            raise ValueError(f"{name}.sides must be two lengths; got {self.sides}")
        return tuple(ground.length(side, f"{name}.sides") / 2 for side in self.sides)

    def axes(self, ground: Ground, normal: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """As `along` says."""
        if self.along is None:
            return super().axes(ground, normal, name)
        first = _across(ground.direction(self.along, f"{name}.along"), normal)
        if first is None:
            raise ValueError(f"{name}.along is the normal of its plane: {self.along}")
        return first, np.cross(normal, first)


@dataclass(frozen=True, eq=False, repr=False)
class Label:
    """number : of the segmentation."""

    number: Any

    def __repr__(self) -> str:
        return f"label {self.number}"

    def metal(self, body: Body, name: str) -> np.ndarray | None:
        """All voxels of the label."""
        if body.labels is None:
            raise ValueError(
                f"{name} is a label, and the body has none: ph.read_labels(file), or"
                " ph.Body(sigma, spacing, labels=...)"
            )
        if isinstance(self.number, bool) or not isinstance(self.number, (int, np.integer)):
            raise ValueError(f"{name}: a label is a whole number; got {self.number!r}")
        marked: np.ndarray = np.asarray(body.labels) == self.number
        if not marked.any():
            there = np.unique(body.labels)
            some = ", ".join(map(str, there[:12].tolist()))
            raise ValueError(f"{name}: no voxel has the label {self.number}; there are {some}")
        return marked

    def touch(self, ground: Ground, name: str) -> Touch:
        """All tissue round it."""
        marked = self.metal(ground.whole, name)
        assert marked is not None
        faces = Faces.between(ground.bare.tissue, marked, outside=False, ends=False)
        if not len(faces):
            raise ValueError(f"{name} lies off the body: label {self.number} touches no tissue")
        return whole_faces(faces, ground)


@dataclass(frozen=True, eq=False, repr=False)
class Listed:
    """faces : (d, h, w, side)."""

    faces: Any

    def __repr__(self) -> str:
        return f"{len(self.faces)} faces" if self._listed else f"faces {self.faces!r}"

    def metal(self, body: Body, name: str) -> np.ndarray | None:
        """None."""
        return None

    @property
    def _listed(self) -> bool:
        """Whether they are in a list."""
        return isinstance(self.faces, (list, tuple, np.ndarray))

    def touch(self, ground: Ground, name: str) -> Touch:
        """The faces themselves."""
        shape = ground.bare.shape
        if not self._listed:
            raise ValueError(f"{name}.faces must be a list of (d, h, w, side); got {self.faces!r}")
        rows = [self._row(face, shape, f"{name}.faces[{k}]") for k, face in enumerate(self.faces)]
        if not rows:
            raise ValueError(f"{name}.faces is empty")
        found = np.array(rows)
        faces = Faces(found[:, :3], found[:, 3], found[:, 4])
        for k, (voxel, axis, side) in enumerate(
            zip(faces.voxels, faces.axis, faces.side, strict=True)
        ):
            self._check(ground, voxel, int(axis), int(side), f"{name}.faces[{k}]")
        keys, counts = np.unique(faces.keys(shape), return_counts=True)
        if (counts > 1).any():
            twice = int(np.flatnonzero(faces.keys(shape) == keys[counts > 1][0])[0])
            raise ValueError(f"{name}.faces has {tuple(self.faces[twice])} twice")
        return whole_faces(faces, ground)

    def _row(self, face: Any, shape: Sequence[int], name: str) -> list[int]:
        """d, h, w, axis, side. Raises ValueError."""
        try:
            d, h, w, side = face
            voxel = [int(i) for i in (d, h, w)]
            fine = voxel == [d, h, w] and str(side) in SIDES
        except (TypeError, ValueError):
            fine, voxel, side = False, [], ""
        if not fine or not all(0 <= i < n for i, n in zip(voxel, shape, strict=True)):
            raise ValueError(
                f"{name} must be (d, h, w, side): a voxel of the grid {tuple(shape)} and one of"
                f" {', '.join(SIDES)}; got {face}"
            )
        return [*voxel, *SIDES[str(side)]]

    def _check(self, ground: Ground, voxel: np.ndarray, axis: int, side: int, name: str) -> None:
        """Raises ValueError where nothing is touched, or another thing than skin or tissue is
        behind the face."""
        tissue, shown = ground.bare.tissue, tuple(voxel.tolist())
        if not tissue[shown]:
            raise ValueError(f"{name} lies off the body: voxel {shown} is no tissue")
        beside = voxel.copy()
        beside[axis] += 2 * side - 1
        outside = not 0 <= beside[axis] < tissue.shape[axis]
        if not outside and tissue[tuple(beside)]:
            return
        one = Faces(voxel[None], np.array([axis]), np.array([side]))
        if not np.isin(one.keys(tissue.shape), ground.skin.keys(tissue.shape))[0]:
            raise ValueError(
                f"{name}: the face of voxel {shown} is an end that conducts, or metal of another"
                " electrode"
            )


def _across(direction: np.ndarray, normal: np.ndarray) -> np.ndarray | None:
    """The part of a direction across a normal, a unit vector; None where there is none."""
    rest = direction - (direction @ normal) * normal
    size = float(np.linalg.norm(rest))
    return None if size < 1e-3 else rest / size


def _two(sides: Any) -> bool:
    """Whether these are two things."""
    return isinstance(sides, (list, tuple, np.ndarray)) and len(sides) == 2


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _place(centre: Any) -> str:
    try:
        return f"({', '.join(f'{float(x):g}' for x in centre)})"
    except (TypeError, ValueError):
        return str(centre)
