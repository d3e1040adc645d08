r"""Real bones: the tibia and fibula of a real leg, at any place, size and side of a limb.

The package carries a label map of both bones (`anatomy/tibia_fibula.npz`, 1 mm, from the surfaces
in gias2; see `anatomy/README.md` for licence and origin). Limbs take the zero level of its signed
distance, interpolated in metres: the same on every grid.

    python -m physics_hybrid.problems.potential.bodies.bones gias2-0.7.14-py3-none-any.whl

makes the map anew (needs trimesh, rtree).

Axes of the map: D from ankle to knee along the principal axis of the tibia, H to the back, W to the
outer side of the leg.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.spatial import ConvexHull

MAP = Path(__file__).parent / "anatomy" / "tibia_fibula.npz"
TIBIA, FIBULA = 1, 2

#: The part of the tibia's length that limbs are cut from: without the joints, which no limb of this
#: shape surrounds.
SHAFT = (0.12, 0.85)

#: room(d, y, x): whether points of a limb, in metres, may be bone.
Room = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Shank:
    """The bones themselves.

    distance : (D, H, W) metres to the surface of the nearest bone, negative inside.
    spacing : m, the same along all axes.
    length : of the tibia, m.
    outline : (n, 3) points in metres on the convex hulls of sections.
    medial : unit vector (H, W) from fibula to tibia.
    """

    distance: np.ndarray
    spacing: float
    length: float
    outline: np.ndarray
    medial: np.ndarray

    def distance_at(self, d: np.ndarray, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Trilinear `distance` at points in metres from the outer corner of the map; broadcasts."""
        at = [a / self.spacing - 0.5 for a in np.broadcast_arrays(d, h, w)]
        distance: np.ndarray = map_coordinates(self.distance, at, order=1, mode="nearest")
        return distance


@functools.cache
def shank() -> Shank:
    """The bones of `anatomy/tibia_fibula.npz`."""
    with np.load(MAP, allow_pickle=False) as file:
        labels, spacing = file["labels"], float(file["spacing"])
    bone = labels > 0
    outside, inside = distance_transform_edt(~bone), distance_transform_edt(bone)
    medial = _centre(labels, TIBIA) - _centre(labels, FIBULA)
    heights = np.flatnonzero((labels == TIBIA).any(axis=(1, 2)))
    return Shank(
        distance=(outside - inside).astype(np.float32) * spacing,
        spacing=spacing,
        length=float(np.ptp(heights) + 1) * spacing,
        outline=(_hulls(bone) + 0.5) * spacing,
        medial=medial / np.linalg.norm(medial),
    )


def _centre(labels: np.ndarray, label: int) -> np.ndarray:
    """Mean (H, W) of the voxels with a label, in voxels. (2,)"""
    centre: np.ndarray = np.argwhere(labels == label).mean(axis=0)[1:]
    return centre


def _hulls(bone: np.ndarray) -> np.ndarray:
    """Voxels (n, 3) on the convex hull of every fourth section of `bone` (D, H, W)."""
    outline = []
    for i in range(0, len(bone), 4):
        points = np.argwhere(bone[i])
        if len(points) > 2:
            hull = points[ConvexHull(points, qhull_options="QJ").vertices]
            outline.append(np.column_stack([np.full(len(hull), i), hull]))
    return np.concatenate(outline)


@dataclass(frozen=True)
class Placed:
    """Bones in a limb.

    A point (d, y, x) of the limb, metres from its first face and its axis, lies at height
    `start` + d / `axial` of the map, and across at the map's point whose image is (y, x): scaled,
    mirrored (the other leg), turned by `angle`, moved by `offset`.

    start : m.
    axial : stretch along D; below 0 the knee comes first.
    scale : stretch across.
    angle : radians.
    offset : (y, x) m.
    """

    start: float
    axial: float
    scale: float
    angle: float
    mirrored: bool
    offset: tuple[float, float]

    def inside(self, d: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whether points (m) are bone; broadcasts."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        y, x = (y - self.offset[0]) / self.scale, (x - self.offset[1]) / self.scale
        h, w = y * cos + x * sin, x * cos - y * sin
        if self.mirrored:
            w = -w
        return shank().distance_at(self.start + d / self.axial, h, w) < 0

    def outline(self, length: float) -> np.ndarray:
        """`Shank.outline` in the limb's (d, y, x), m, for the part in a limb of this length (m).

        (n, 3)
        """
        d, h, w = shank().outline.T
        if self.mirrored:
            w = -w
        d = (d - self.start) * self.axial
        across = _turn(np.stack([h, w]), self.angle) * self.scale + np.array(self.offset)[:, None]
        near = (d > -0.005) & (d < length + 0.005)
        outline: np.ndarray = np.column_stack([d, *across])[near]
        return outline


def _turn(vector: np.ndarray, angle: float) -> np.ndarray:
    """(H, W) of the map into (y, x) of the limb: the inverse of what `Placed.inside` does."""
    h, w = vector
    return np.array([h * np.cos(angle) - w * np.sin(angle), w * np.cos(angle) + h * np.sin(angle)])


def place(random: np.random.Generator, length: float, scale: float, room: Room) -> Placed:
    """Bones in a limb of a length (m), at `scale` times their real size.

    Where they do not fit, they are thinner in steps of 5 % until they do. `room` must be convex at
    every d and hold the axis. Which part of the shaft, left or right leg, knee or ankle first, and
    the angle round the axis are drawn, in an order that is part of what a limb is. As in a leg, the
    tibia is then moved towards the skin on its inner front side: four fifths to the whole of the
    way that there is room for.
    """
    bones = shank()
    low, high = (s * bones.length for s in SHAFT)
    axial = max(scale, length / (high - low))  # stretched where the limb is longer than the shaft
    start = low + random.uniform() * max(high - low - length / axial, 0.0)
    if random.uniform() < 0.5:
        start, axial = start + length / axial, -axial
    mirrored, angle = bool(random.uniform() < 0.5), random.uniform(0, 2 * np.pi)
    inner_front = angle + random.uniform(-0.5, 0.5)
    towards = _turn(bones.medial * (1, -1 if mirrored else 1), inner_front)
    share = random.uniform(0.8, 1.0)

    placed = Placed(start, axial, scale, angle, mirrored, (0.0, 0.0))
    outline, middle = _centred(placed.outline(length))
    while not _fits(room, outline, 0.0 * towards):
        placed = dataclasses.replace(placed, scale=placed.scale * 0.95)
        outline, middle = _centred(placed.outline(length))
    y, x = middle + share * _way(room, outline, towards) * towards
    return dataclasses.replace(placed, offset=(float(y), float(x)))


def _centred(outline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An outline (n, 3) with the middle of its box on the axis of the limb, and how far it moved.

    The move is (y, x) in metres. (2,)
    """
    d, y, x = outline.T
    middle = np.array([-(y.min() + y.max()) / 2, -(x.min() + x.max()) / 2])
    return np.column_stack([d, y + middle[0], x + middle[1]]), middle


def _fits(room: Room, outline: np.ndarray, move: np.ndarray) -> bool:
    """Whether there is room for an outline (n, 3) that is moved by (y, x), m."""
    d, y, x = outline.T
    return bool(room(d, y + move[0], x + move[1]).all())


def _way(room: Room, outline: np.ndarray, towards: np.ndarray) -> float:
    """How far, in metres, an outline (n, 3) can be moved along a unit vector (y, x).

    The positions that fit are convex, so that bisection finds the last one; 1 m never fits.
    """
    near, far = 0.0, 1.0
    for _ in range(16):
        half = (near + far) / 2
        if _fits(room, outline, half * towards):
            near = half
        else:
            far = half
    return near


def voxelise(wheel: str | Path, spacing: float = 1e-3) -> np.ndarray:
    """The label map from the surfaces of gias2, uint8 (D, H, W): 1 tibia, 2 fibula, at centres.

    spacing : m. Raises ValueError where the wheel does not hold two closed surfaces.
    """
    meshes = _surfaces(wheel)
    axes = _axes(meshes[0])
    for mesh in meshes:
        mesh.vertices = mesh.vertices @ axes.T * 1e-3
    low = np.min([m.bounds[0] for m in meshes], axis=0) - 4 * spacing
    high = np.max([m.bounds[1] for m in meshes], axis=0) + 4 * spacing
    shape = tuple(np.ceil((high - low) / spacing).astype(int))
    d, h, w = (low[a] + (np.arange(n) + 0.5) * spacing for a, n in enumerate(shape))
    columns = np.stack(np.meshgrid(h, w, indexing="ij"), axis=-1).reshape(-1, 2)
    columns = columns + 1e-7  # not through an edge
    labels = np.zeros((shape[0], len(columns)), dtype=np.uint8)
    for label, mesh in zip((TIBIA, FIBULA), meshes, strict=True):
        labels[_inside(mesh, d, columns, low[0] - 1)] = label
    return labels.reshape(shape)


def _surfaces(wheel: str | Path) -> list[Any]:
    """Tibia and fibula in millimetres, as meshes of trimesh."""
    import trimesh

    name = "gias2/examples/data/2008_1741_tibia_fibula.wrl"
    text = zipfile.ZipFile(wheel).read(name).decode()
    number = r"-?\d+\.?\d*(?:[eE][-+]?\d+)?"
    meshes = []
    for points, faces in re.findall(r"point \[(.*?)\].*?coordIndex \[(.*?)\]", text, re.S):
        corners = np.array(re.findall(number, points), dtype=float).reshape(-1, 3)
        triangles = np.array(re.findall(r"-?\d+", faces), dtype=int).reshape(-1, 4)[:, :3]
        meshes.append(trimesh.Trimesh(corners, triangles))
    if len(meshes) != 2 or not all(m.is_watertight for m in meshes):
        raise ValueError(
            f"{wheel}: two closed surfaces are expected, tibia and fibula; found {len(meshes)}"
        )
    return meshes


def _axes(tibia: Any) -> np.ndarray:
    """Unit vectors (3, 3) of D, H and W, a row each, in the axes of the surfaces.

    These are read as left, back, up, which makes them a left leg.
    """
    up = np.linalg.eigh(np.cov(tibia.vertices.T))[1][:, 2]
    up *= np.sign(up[2])
    back = np.array([0.0, 1.0, 0.0]) - up[1] * up
    back /= np.linalg.norm(back)
    left = np.cross(back, up)  # the outer side of this left leg
    return np.stack([up, back, left])


def _inside(mesh: Any, heights: np.ndarray, columns: np.ndarray, below: float) -> np.ndarray:
    """Whether points lie in a closed surface.

    They do where a ray from `below` (m) has crossed it an odd number of times.
    heights : (D,) m; columns : (n, 2) of (H, W) m. (D, n)
    """
    origins = np.column_stack([np.full(len(columns), below), columns])
    directions = np.tile([1.0, 0, 0], (len(origins), 1))
    hits, ray, _ = mesh.ray.intersects_location(origins, directions)
    crossings = np.zeros((len(heights) + 1, len(columns)), dtype=int)
    np.add.at(crossings, (np.searchsorted(heights, hits[:, 0]), ray), 1)
    odd: np.ndarray = np.cumsum(crossings, axis=0)[:-1] % 2 == 1
    return odd


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(
            "usage: python -m physics_hybrid.problems.potential.bodies.bones"
            " gias2-0.7.14-py3-none-any.whl (pip download gias2 --no-deps)"
        )
    MAP.parent.mkdir(exist_ok=True)
    np.savez_compressed(MAP, labels=voxelise(sys.argv[1]), spacing=np.float64(1e-3))
    print(f"{MAP}: {MAP.stat().st_size / 1e3:.0f} kB")
