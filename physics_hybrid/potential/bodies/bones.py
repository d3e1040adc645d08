r"""Real bones: the tibia and fibula of a real leg, at any place, size and side of a limb.

The package carries a label map of both bones (`anatomy/tibia_fibula.npz`, 1 mm, from the surfaces in gias2; see `anatomy/README.md`
for licence and origin). Limbs take the zero level of its signed distance, interpolated in metres: the same on every grid.

    python -m physics_hybrid.potential.bodies.bones gias2-0.7.14-py3-none-any.whl      makes the map anew (needs trimesh, rtree)

Axes of the map: D from ankle to knee along the principal axis of the tibia, H to the back, W to the outer side of the leg.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.spatial import ConvexHull

MAP = Path(__file__).parent / "anatomy" / "tibia_fibula.npz"
TIBIA, FIBULA = 1, 2

#: The part of the tibia's length that limbs are cut from: without the joints, which no limb of this shape surrounds.
SHAFT = (0.12, 0.85)


@dataclass(frozen=True, eq=False)
class Shank:
    """The bones themselves. distance (D, H, W): metres to the surface of the nearest bone, negative inside; spacing: m, the same along all
    axes; length of the tibia, m; outline (n, 3): points in metres on the convex hulls of sections; medial: unit vector (H, W) from fibula to tibia."""

    distance: np.ndarray
    spacing: float
    length: float
    outline: np.ndarray
    medial: np.ndarray

    def distance_at(self, d: np.ndarray, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Trilinear `distance` at points in metres from the outer corner of the map; broadcasts."""
        at = [a / self.spacing - 0.5 for a in np.broadcast_arrays(d, h, w)]
        return map_coordinates(self.distance, at, order=1, mode="nearest")


@functools.cache
def shank() -> Shank:
    """The bones of `anatomy/tibia_fibula.npz`."""
    with np.load(MAP, allow_pickle=False) as file:
        labels, spacing = file["labels"], float(file["spacing"])
    bone = labels > 0
    distance = (distance_transform_edt(~bone) - distance_transform_edt(bone)).astype(np.float32) * spacing
    outline = []
    for i in range(0, len(labels), 4):
        points = np.argwhere(bone[i])
        if len(points) > 2:
            hull = points[ConvexHull(points, qhull_options="QJ").vertices]
            outline.append(np.column_stack([np.full(len(hull), i), hull]))
    def centre(label):
        return np.argwhere(labels == label).mean(axis=0)[1:]
    medial = centre(TIBIA) - centre(FIBULA)
    length = float(np.ptp(np.flatnonzero((labels == TIBIA).any(axis=(1, 2)))) + 1) * spacing
    return Shank(distance, spacing, length, (np.concatenate(outline) + 0.5) * spacing, medial / np.linalg.norm(medial))


@dataclass(frozen=True)
class Placed:
    """Bones in a limb. A point (d, y, x) of the limb, metres from its first face and its axis, lies at height `start` + d / `axial` of the map, and
    across at the map's point whose image is (y, x): scaled, mirrored (the other leg), turned by `angle`, moved by `offset`.

    axial < 0: the knee comes first.
    """

    start: float
    axial: float
    scale: float
    angle: float
    mirrored: bool
    offset: tuple[float, float]

    def inside(self, d: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whether points are bone; broadcasts."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        y, x = (y - self.offset[0]) / self.scale, (x - self.offset[1]) / self.scale
        h, w = y * cos + x * sin, x * cos - y * sin
        return shank().distance_at(self.start + d / self.axial, h, -w if self.mirrored else w) < 0

    def outline(self, length: float) -> np.ndarray:
        """`Shank.outline` in the limb's (d, y, x), metres, for the part in a limb of this length. (n, 3)"""
        d, h, w = shank().outline.T
        d = (d - self.start) * self.axial
        turned = _turn(np.stack([h, -w if self.mirrored else w]), self.angle) * self.scale + np.array(self.offset)[:, None]
        near = (d > -0.005) & (d < length + 0.005)
        return np.column_stack([d, *turned])[near]


def _turn(vector: np.ndarray, angle: float) -> np.ndarray:
    """(H, W) of the map into (y, x) of the limb: the inverse of what `Placed.inside` does."""
    h, w = vector
    return np.array([h * np.cos(angle) - w * np.sin(angle), w * np.cos(angle) + h * np.sin(angle)])


def place(
    random: np.random.Generator, length: float, scale: float, room: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> Placed:
    """Bones in a limb of a length (m), at `scale` times their real size; where they do not fit, thinner in steps of 5 % until they do.

    room(d, y, x) tells whether points may be bone; at every d it must be convex and hold the axis. Which part of the shaft, left or right leg, knee or ankle
    first, and the angle round the axis are drawn. As in a leg, the tibia is then moved towards the skin on its inner front side:
    four fifths to the whole of the way that there is room for.
    """
    bones = shank()
    low, high = (s * bones.length for s in SHAFT)
    axial = max(scale, length / (high - low))  # stretched along D where the limb is longer than the shaft
    start = low + random.uniform() * max(high - low - length / axial, 0.0)
    if random.uniform() < 0.5:
        start, axial = start + length / axial, -axial
    mirrored, angle = bool(random.uniform() < 0.5), random.uniform(0, 2 * np.pi)
    towards = _turn(bones.medial * (1, -1 if mirrored else 1), angle + random.uniform(-0.5, 0.5))
    share = random.uniform(0.8, 1.0)
    while True:
        placed = Placed(start, axial, scale, angle, mirrored, (0.0, 0.0))
        d, y, x = placed.outline(length).T
        middle = np.array([-(y.min() + y.max()) / 2, -(x.min() + x.max()) / 2])
        def fits(way):
            return bool(room(d, y + middle[0] + way * towards[0], x + middle[1] + way * towards[1]).all())
        if fits(0.0):
            break
        scale *= 0.95
    near, far = 0.0, 1.0  # metres; the positions that fit are convex, so that bisection finds the last one
    for _ in range(16):
        half = (near + far) / 2
        near, far = (half, far) if fits(half) else (near, half)
    offset = middle + share * near * towards
    return Placed(start, axial, scale, angle, mirrored, (float(offset[0]), float(offset[1])))


def voxelise(wheel: str | Path, spacing: float = 1e-3) -> np.ndarray:
    """The label map from the surfaces of gias2, uint8 (D, H, W): 1 tibia, 2 fibula, at voxel centres.

    The surfaces are in millimetres; their axes are read as left, back, up, which makes them a left leg.
    """
    import re
    import zipfile

    import trimesh

    text = zipfile.ZipFile(wheel).read("gias2/examples/data/2008_1741_tibia_fibula.wrl").decode()
    number = r"-?\d+\.?\d*(?:[eE][-+]?\d+)?"
    meshes = []
    for points, faces in re.findall(r"point \[(.*?)\].*?coordIndex \[(.*?)\]", text, re.S):
        corners = np.array(re.findall(number, points), dtype=float).reshape(-1, 3)
        meshes.append(trimesh.Trimesh(corners, np.array(re.findall(r"-?\d+", faces), dtype=int).reshape(-1, 4)[:, :3]))
    if len(meshes) != 2 or not all(m.is_watertight for m in meshes):
        raise ValueError(f"{wheel}: two closed surfaces are expected, tibia and fibula; found {len(meshes)}")
    up = np.linalg.eigh(np.cov(meshes[0].vertices.T))[1][:, 2]
    up *= np.sign(up[2])
    back = np.array([0.0, 1.0, 0.0]) - up[1] * up
    back /= np.linalg.norm(back)
    axes = np.stack([up, back, np.cross(back, up)])  # the last: to the left, the outer side of this left leg
    for mesh in meshes:
        mesh.vertices = mesh.vertices @ axes.T * 1e-3
    low = np.min([m.bounds[0] for m in meshes], axis=0) - 4 * spacing
    shape = tuple(np.ceil((np.max([m.bounds[1] for m in meshes], axis=0) + 4 * spacing - low) / spacing).astype(int))
    centres = [low[a] + (np.arange(n) + 0.5) * spacing for a, n in enumerate(shape)]
    columns = np.stack(np.meshgrid(centres[1], centres[2], indexing="ij"), axis=-1).reshape(-1, 2) + 1e-7  # not through an edge
    origins = np.column_stack([np.full(len(columns), low[0] - 1), columns])
    labels = np.zeros((shape[0], len(columns)), dtype=np.uint8)
    for label, mesh in zip((TIBIA, FIBULA), meshes):
        hits, ray, _ = mesh.ray.intersects_location(origins, np.tile([1.0, 0, 0], (len(origins), 1)))
        crossings = np.zeros((shape[0] + 1, len(columns)), dtype=int)
        np.add.at(crossings, (np.searchsorted(centres[0], hits[:, 0]), ray), 1)
        labels[np.cumsum(crossings, axis=0)[:-1] % 2 == 1] = label
    return labels.reshape(shape)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m physics_hybrid.potential.bodies.bones gias2-0.7.14-py3-none-any.whl (pip download gias2 --no-deps)")
    MAP.parent.mkdir(exist_ok=True)
    np.savez_compressed(MAP, labels=voxelise(sys.argv[1]), spacing=np.float64(1e-3))
    print(f"{MAP}: {MAP.stat().st_size / 1e3:.0f} kB")
