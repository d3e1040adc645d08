r"""Limbs: layered elliptical cylinders with variety, on any grid.

A limb is a set of lengths in metres (`Limb`), so that the same limb can be voxelised at any resolution. From
outside in: air, skin, fat, muscle, one or two bones. A cross-section at height d is an ellipse with semi-axes
(a, b) turned by an angle and scaled by the taper 1 + t (d / L - 1/2); bones are ellipses inside the muscle
that taper along, or the tibia and fibula of a real leg (`bones.py`). A voxel has the tissue of its centre.

Muscle fibres run along D, or (pennate) at an angle to it: sigma = R diag(sigma_D, sigma_H, sigma_W) R^T, R the rotation that
takes the D axis to the fibre.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.potential.bodies.bones import Placed, place

TISSUES = ("air", "skin", "fat", "muscle", "bone")
AIR, SKIN, FAT, MUSCLE, BONE = range(5)

#: Streams of random numbers that a limb has beside its own: what they decide changes nothing else.
PENNATION, REAL_BONES, SECOND_ELECTRODE = range(3)

BONE_SHAPES = ("ellipse", "tibia_fibula")


def fibre_tensor(diagonal: np.ndarray, angle: float, direction: float) -> np.ndarray:
    """R diag(diagonal) R^T as (DD, HH, WW, DH, DW, HW), where R takes the D axis to the fibre.

    diagonal (3,): conductivity along the fibre and across it, S/m; angle: between the fibre and D, radians; direction: of the tilt,
    from H towards W, radians. The fibre is (cos angle, sin angle cos direction, sin angle sin direction).
    """
    turn = Rotation.from_rotvec(angle * np.array([0.0, -np.sin(direction), np.cos(direction)])).as_matrix()
    tensor = turn @ np.diag(diagonal) @ turn.T
    return tensor[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


@dataclass(frozen=True)
class LimbDistribution:
    """From what limbs are drawn: `[low, high]` pairs are uniform. Lengths in metres, conductivities in S/m.

    extent : (3,) size of the box in (D, H, W).
    extent_jitter : each edge of the box is multiplied by a factor in [1 - jitter, 1 + jitter], so that spacings vary.
    radius : outer semi-axis over half the smaller transverse edge of the box.
    eccentricity : second semi-axis over the first.
    taper : relative change of the radius along the limb.
    skin, fat : thickness.
    bone_radius : over the first semi-axis of the muscle. bones : how many, with equal chance (fewer where they do not fit side by side).
    sigma : tissue -> (DD, HH, WW).
    sigma_jitter : every tissue of every limb is multiplied by a factor in [1 - jitter, 1 + jitter].
    source_on_skin : share of sources on the skin; the others lie in muscle.
    pair_distance : least distance of the two electrodes of a pair.
    source_margin : share of the length kept free of sources at each end.
    current : injected current, A.
    pennation : angle between the muscle fibres and the D axis, degrees; they tilt to any side with equal chance. Above 0, sigma has 6
        components. It touches nothing but the muscle's tensor: the limb of a key has the same shape, source and values at every angle.
    bone_shape : 'ellipse', or 'tibia_fibula': the shaft of a real tibia and fibula, which do not follow the taper. They lie in muscle and, where the
        tibia is next to the skin, in fat: never nearer to the skin than 30 % of the fat. bone_radius and bones then decide nothing.
    bone_scale : size of real bones over their own (a tibia of 350 mm); thinner where they do not fit.
    """

    extent: tuple[float, float, float]
    extent_jitter: float
    radius: tuple[float, float]
    eccentricity: tuple[float, float]
    taper: tuple[float, float]
    skin: tuple[float, float]
    fat: tuple[float, float]
    bone_radius: tuple[float, float]
    bones: tuple[int, ...]
    sigma: dict
    sigma_jitter: float
    source_on_skin: float
    source_margin: float
    pair_distance: float
    current: float
    pennation: tuple[float, float] = (0.0, 0.0)
    bone_shape: str = "ellipse"
    bone_scale: tuple[float, float] = (0.75, 1.0)

    def __post_init__(self):
        missing = [t for t in TISSUES[1:] if t not in self.sigma]
        if missing:
            raise ValueError(f"data.phantom.sigma lacks {', '.join(missing)}; it needs {', '.join(TISSUES[1:])}")
        for tissue, value in self.sigma.items():
            if len(value) != 3 or not all(v > 0 for v in value):
                raise ValueError(f"data.phantom.sigma.{tissue} must be three positive values (DD, HH, WW) in S/m; got {value}")
        if not 0 <= self.sigma_jitter < 1 or not 0 <= self.extent_jitter < 1:
            raise ValueError("data.phantom.sigma_jitter and extent_jitter must lie in [0, 1)")
        if len(self.extent) != 3 or not all(e > 0 for e in self.extent):
            raise ValueError(f"data.phantom.extent must be three positive lengths (D, H, W) in m; got {list(self.extent)}")
        for name in ("radius", "eccentricity", "taper", "skin", "fat", "bone_radius", "pennation", "bone_scale"):
            pair = getattr(self, name)
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ValueError(f"data.phantom.{name} must be two values of which the first must not exceed the second; got {list(pair)}")
        if not 0 <= self.pennation[0] <= self.pennation[1] < 90:
            raise ValueError(f"data.phantom.pennation must be [low, high] with 0 <= low <= high < 90 degrees; got {list(self.pennation)}")
        if not (math.isfinite(self.current) and self.current != 0):
            raise ValueError(f"data.phantom.current must be a number of amperes other than 0; got {self.current}")
        if self.bone_shape not in BONE_SHAPES:
            raise ValueError(f"data.phantom.bone_shape must be one of {', '.join(BONE_SHAPES)}; got {self.bone_shape!r}")
        if not 0 < self.bone_scale[0] <= self.bone_scale[1]:
            raise ValueError(f"data.phantom.bone_scale must be [low, high] with 0 < low <= high; got {list(self.bone_scale)}")

    @classmethod
    def of(cls, settings: dict) -> LimbDistribution:
        """From data.phantom as YAML or JSON have it, where pairs are lists."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})

    @property
    def oblique(self) -> bool:
        """Whether fibres leave the D axis, so that sigma has 6 components."""
        return self.pennation[1] > 0

    #: What metrics and masks can name.
    tissues = TISSUES[1:]

    def settings(self) -> dict:
        """All that decides the limbs, as JSON-ready values."""
        return dataclasses.asdict(self)

    def available(self, split: str) -> float:
        """How many different samples a split has."""
        return math.inf

    def phantom(self, seed: int, split: str, number: int) -> str:
        """What must not be in two splits: every limb is its own."""
        return f"limb-{seed}-{split}-{number}"

    def draw(self, *key: int, electrodes: int = 1) -> Limb:
        """The limb that belongs to `key` (any integers): the same key gives the same limb, always, with one electrode or two.

        Raises
        ------
        ValueError
            Settings that leave no room: for muscle, for a source in it, for a second electrode `pair_distance` away.
        """
        random = np.random.default_rng(np.random.SeedSequence(entropy=list(key)))
        def span(pair):
            return float(random.uniform(*pair))
        extent = tuple(e * (1 + random.uniform(-1, 1) * self.extent_jitter) for e in self.extent)
        first = span(self.radius) * min(extent[1:]) / 2
        second = first * span(self.eccentricity)
        skin, fat = span(self.skin), span(self.fat)
        angle, taper = random.uniform(0, np.pi), span(self.taper)
        first, second = (s / (1 + abs(taper) / 2) for s in (first, second))
        muscle = (first - skin - fat, second - skin - fat)
        if min(muscle) <= 0:
            raise ValueError("data.phantom: skin and fat are thicker than the limb; lower them or raise radius")
        bones: list[tuple[float, float, float, float]] = []
        wanted = int(random.choice(self.bones))
        for _ in range(100):
            if len(bones) == wanted:
                break
            radius = span(self.bone_radius) * muscle[0]
            room = max(0.0, 0.88 - radius / min(muscle))
            far, direction = room * random.uniform(0, 1) ** 0.5, random.uniform(0, 2 * np.pi)
            centre = (far * muscle[0] * np.cos(direction), far * muscle[1] * np.sin(direction))
            if all(np.hypot(centre[0] - y, centre[1] - x) > 1.1 * (radius + r) for y, x, r, _ in bones):
                bones.append((*centre, radius, radius * random.uniform(0.75, 1.0)))
        factor = {t: 1 + random.uniform(-1, 1) * self.sigma_jitter for t in TISSUES[1:]}
        sigma = np.zeros((len(TISSUES), 3))
        for label, tissue in enumerate(TISSUES[1:], start=1):
            sigma[label] = np.asarray(self.sigma[tissue]) * factor[tissue]
        if self.oblique:
            tilt = np.random.default_rng(np.random.SeedSequence(entropy=list(key), spawn_key=(PENNATION,)))  # the limb's own draws stay as they are
            muscle_tensor = fibre_tensor(sigma[MUSCLE], np.radians(tilt.uniform(*self.pennation)), tilt.uniform(0, 2 * np.pi))
            sigma = np.concatenate([sigma, np.zeros_like(sigma)], axis=1)
            sigma[MUSCLE] = muscle_tensor
        limb = Limb(extent, (first, second), angle, taper, skin, fat, tuple(bones), sigma, (), self.current)
        if self.bone_shape == "tibia_fibula":
            of_bones = np.random.default_rng(np.random.SeedSequence(entropy=list(key), spawn_key=(REAL_BONES,)))
            depth = skin + of_bones.uniform(0.3, 1.0) * fat
            limb = dataclasses.replace(limb, bones=place(of_bones, extent[0], of_bones.uniform(*self.bone_scale), lambda d, y, x: limb.within(depth, d, y, x)))
        source = self._place(limb, random)
        if electrodes == 1:
            return dataclasses.replace(limb, electrodes=(source,))
        random = np.random.default_rng(np.random.SeedSequence(entropy=list(key), spawn_key=(SECOND_ELECTRODE,)))
        for _ in range(100):
            second_source = self._place(limb, random)
            if math.dist(source.point, second_source.point) >= self.pair_distance:
                return dataclasses.replace(limb, electrodes=(source, second_source))
        raise ValueError(f"data.phantom.pair_distance={self.pair_distance:g} m: found no second electrode so far from the first; lower it")

    def _place(self, limb: Limb, random: np.random.Generator) -> Electrode:
        on_skin = random.uniform() < self.source_on_skin
        height = limb.extent[0] * random.uniform(self.source_margin, 1 - self.source_margin)
        if on_skin:
            return Electrode(limb.on_skin(height, random.uniform(0, 2 * np.pi)), SKIN)
        for _ in range(1000):
            point = (height, *(np.asarray(limb.extent[1:]) * random.uniform(0, 1, 2)))
            if limb.label(*(np.asarray([p]) for p in point))[0] == MUSCLE:
                return Electrode(point, MUSCLE)
        raise ValueError("data.phantom: found no muscle to place a source in; bones leave no room")


@dataclass(frozen=True)
class Electrode:
    """point in metres, and the tissue it lies in."""

    point: tuple[float, float, float]
    tissue: int


@dataclass(frozen=True)
class Limb:
    """One limb in metres; of two electrodes the second takes the current out. `bones` holds (h, w, semi-axis, semi-axis) in the turned frame of
    the section, or real bones placed in it."""

    extent: tuple[float, float, float]
    axes: tuple[float, float]
    angle: float
    taper: float
    skin: float
    fat: float
    bones: tuple[tuple[float, float, float, float], ...] | Placed
    sigma: np.ndarray
    electrodes: tuple[Electrode, ...]
    current: float

    def _scale(self, d):
        return 1 + self.taper * (d / self.extent[0] - 0.5)

    def within(self, thickness: float, d, y, x) -> np.ndarray:
        """Whether points lie deeper than `thickness` (m) under the surface; d height, (y, x) in the turned frame of the section, m; broadcasts."""
        scale = self._scale(d)
        return (y / (self.axes[0] * scale - thickness)) ** 2 + (x / (self.axes[1] * scale - thickness)) ** 2 <= 1

    def _section(self, d, h, w):
        scale = self._scale(d)
        y, x = h - self.extent[1] / 2, w - self.extent[2] / 2
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return scale, (y * cos + x * sin), (x * cos - y * sin)

    def label(self, d, h, w) -> np.ndarray:
        """Tissue labels (uint8, indices into TISSUES) at points in metres; broadcasts."""
        scale, y, x = self._section(d, h, w)
        def inside(thickness):
            return self.within(thickness, d, y, x)
        out = np.zeros(np.broadcast(scale, y, x).shape, dtype=np.uint8)
        out[inside(0.0)] = SKIN
        out[inside(self.skin)] = FAT
        muscle = inside(self.skin + self.fat)
        out[muscle] = MUSCLE
        if isinstance(self.bones, Placed):
            out[inside(self.skin) & self.bones.inside(d, y, x)] = BONE
            return out
        for by, bx, ry, rx in self.bones:
            out[muscle & (((y / scale - by) / ry) ** 2 + ((x / scale - bx) / rx) ** 2 <= 1)] = BONE
        return out

    def on_skin(self, d: float, direction: float) -> tuple[float, float, float]:
        """A point in the middle of the skin at height d, `direction` round the limb."""
        scale = 1 + self.taper * (d / self.extent[0] - 0.5)
        y = (self.axes[0] * scale - self.skin / 2) * np.cos(direction)
        x = (self.axes[1] * scale - self.skin / 2) * np.sin(direction)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (d, y * cos - x * sin + self.extent[1] / 2, y * sin + x * cos + self.extent[2] / 2)

    def voxelise(self, grid: Grid) -> VoxelLimb:
        """Labels, conductivity and electrodes on a grid (D, H, W).

        Raises
        ------
        ValueError
            A grid too coarse for the muscle, or with no place for the second electrode of a pair 3 voxels from the first.
        """
        spacing = np.asarray(self.extent) / grid
        d, h, w = np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(grid, spacing)), indexing="ij", sparse=True)
        labels = self.label(d, h, w)
        if not (labels == MUSCLE).any():
            raise ValueError(f"grid {tuple(grid)} is too coarse for this limb: no voxel centre lies in muscle")
        points = apart([self._on_grid(electrode, labels, spacing) for electrode in self.electrodes], self._home(self.electrodes[-1], labels), spacing)
        return inject(points, labels, self.sigma, np.arange(len(TISSUES), dtype=np.uint8), spacing, self.current)

    @staticmethod
    def _home(electrode: Electrode, labels: np.ndarray) -> np.ndarray:
        """The voxels that an electrode may lie in. (D, H, W)"""
        return labels == MUSCLE if electrode.tissue == MUSCLE else labels != AIR

    def _on_grid(self, electrode: Electrode, labels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """An electrode where the grid can hold it: kept if the 8 voxels round it all carry its tissue, else moved to the
        nearest voxel centre of muscle (or, for a source on the skin, of any tissue)."""
        point, home = np.asarray(electrode.point), self._home(electrode, labels)
        return point if electrode.tissue == MUSCLE and held(point, home, spacing) else nearest_centre(point, home, spacing)


@dataclass(frozen=True)
class VoxelLimb:
    """A body on a grid, kept small until it is on the device that solves it.

    index (D, H, W) uint8 : which row of the tables a voxel has, 0 is air.
    table (rows, C) : conductivity in S/m, C = 1, 3 or 6. names (rows,) uint8 : index into TISSUES.
    spacing (3,) m; source_point (3,) m; current A; return_point (3,) m of the second electrode of a pair, or None.
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
        return self.names[self.index]

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
        points = [self.source_point] if self.return_point is None else [self.source_point, self.return_point]
        return [deposit(point, self.spacing, sign * self.current) for point, sign in zip(points, (1, -1))]


def inject(points: list[np.ndarray], index: np.ndarray, table: np.ndarray, names: np.ndarray, spacing: np.ndarray, current: float) -> VoxelLimb:
    """A voxelised body with a current that comes in at the first of `points` (m) and, of two, is taken out at the second (a negative one of two the other
    way round: files tell the electrodes of a pair apart by the sign of the source).

    Raises
    ------
    ValueError
        Where the electrodes of a pair are less than 3 voxels apart along every axis.
    """
    if len(points) == 2 and not distinct(points[0], points[1], spacing):
        grid = name_of(index.shape)
        raise ValueError(f"the grid {grid} has the two electrodes of a pair less than 3 voxels apart; raise pair_distance or refine the grid")
    if len(points) == 2 and current < 0:
        points, current = points[::-1], -current
    return VoxelLimb(index, table, names, spacing, points[0], current, points[1] if len(points) == 2 else None)


def distinct(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Whether electrodes are at least 3 voxels apart along some axis. (..., 3) and (..., 3) in metres -> (...)"""
    return (np.abs(first - second) >= 3 * spacing).any(axis=-1)


def apart(points: list[np.ndarray], home: np.ndarray, spacing: np.ndarray) -> list[np.ndarray]:
    """The electrodes that were drawn; the second of two that are not `distinct` on this grid moves to the nearest voxel centre of its `home` (D, H, W) that is."""
    if len(points) < 2 or distinct(*points, spacing):
        return points
    centres = (np.moveaxis(np.indices(home.shape), 0, -1) + 0.5) * spacing
    home = home & distinct(centres, points[0], spacing)
    return [points[0], nearest_centre(points[1], home, spacing)] if home.any() else points


def held(point: np.ndarray, home: np.ndarray, spacing: np.ndarray) -> bool:
    """Whether the 8 voxels round a point (3,) in metres are all `home` (D, H, W): the grid can hold a source there."""
    corner = home[tuple(slice(max(i, 0), max(i + 2, 0)) for i in np.floor(np.asarray(point) / spacing - 0.5).astype(int))]
    return corner.size == 8 and bool(corner.all())


def nearest_centre(point: np.ndarray, home: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The centre, in metres, of a voxel of `home` (D, H, W) next to the one that holds a point (3,)."""
    voxel = np.clip(np.floor(np.asarray(point) / spacing).astype(int), 0, np.array(home.shape) - 1)
    reach = 4
    while True:  # in a window; what is nearer than its walls is the nearest
        low = np.maximum(voxel - reach, 0)
        found = np.argwhere(home[tuple(slice(a, b) for a, b in zip(low, voxel + reach + 1))]) + low
        away = np.linalg.norm((found - voxel) * spacing, axis=1)
        if len(found) and (away.min() <= reach * spacing.min() or reach >= max(home.shape)):
            return (found[away.argmin()] + 0.5) * spacing
        if reach >= max(home.shape):
            raise ValueError("there is no voxel to move the source to")
        reach *= 2


def deposit(point: np.ndarray, spacing: np.ndarray, current: float) -> tuple[np.ndarray, np.ndarray]:
    """A point source spread over the 8 voxels round it by trilinear weights: voxels (n, 3) and the current density in each, A/m^3 (n,).

    Its sum times the voxel volume is `current`, its centre of mass is `point` (Hockney and Eastwood, Computer
    Simulation Using Particles, 1988, ch. 5: cloud in cell). At a voxel centre one voxel holds it all.
    """
    position = np.asarray(point) / spacing - 0.5
    low = np.floor(np.round(position, 9)).astype(int)
    part = np.round(position - low, 9)
    corners = np.array(list(np.ndindex(2, 2, 2)))
    weights = np.where(corners, part, 1 - part).prod(axis=1)
    return (low + corners)[weights > 0], weights[weights > 0] * current / np.prod(spacing)
