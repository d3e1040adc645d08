r"""Limbs: layered elliptical cylinders with variety, on any grid.

A limb is a set of lengths in metres (`Limb`), so that the same limb can be voxelised at any
resolution. From outside in: air, skin, fat, muscle, one or two bones. A cross-section at height d
is an ellipse with semi-axes (a, b) turned by an angle and scaled by the taper

    1 + t (d / L - 1/2);

bones are ellipses inside the muscle that taper along, or the tibia and fibula of a real leg
(`bones.py`). A voxel has the tissue of its centre. Muscle fibres run along D, or (pennate) at an
angle to it (`fibres.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.bodies.bones import Placed, place
from physics_hybrid.problems.potential.bodies.fibres import fibre_tensor
from physics_hybrid.problems.potential.bodies.tissues import (
    AIR,
    BONE,
    FAT,
    MUSCLE,
    SKIN,
    TISSUES,
    label_of,
)
from physics_hybrid.problems.potential.bodies.voxel_body import (
    VoxelBody,
    apart,
    held,
    inject,
    nearest_centre,
)

#: What a limb is made of, from outside in. Their conductivities are drawn in this order.
LAYERS = ("skin", "fat", "muscle", "bone")

#: Streams of random numbers that a limb has beside its own: what they decide changes nothing else.
PENNATION, REAL_BONES, SECOND_ELECTRODE = range(3)

BONE_SHAPES = ("ellipse", "tibia_fibula")

#: How often a bone, or a second electrode, is drawn before there is no room for it.
ATTEMPTS = 100

#: How often a point is drawn before there is no muscle to be found.
POINTS = 1000

#: One height or an array of them, m.
Coordinate = TypeVar("Coordinate", float, np.ndarray)

#: An elliptical bone: centre (h, w) and semi-axes (h, w) in the turned frame of the section, m.
Ellipse = tuple[float, float, float, float]


def _stream(key: tuple[int, ...], *spawned: int) -> np.random.Generator:
    """The random numbers of a limb, or those that it has beside them."""
    return np.random.default_rng(np.random.SeedSequence(entropy=list(key), spawn_key=spawned))


def _span(random: np.random.Generator, pair: tuple[float, float]) -> float:
    """One uniform number of [low, high]."""
    return float(random.uniform(*pair))


@dataclass(frozen=True)
class Electrode:
    """point in metres, and the tissue it lies in."""

    point: tuple[float, float, float]
    tissue: int

    def home(self, labels: np.ndarray) -> np.ndarray:
        """The voxels that it may lie in, of labels (D, H, W). (D, H, W)"""
        home: np.ndarray = labels == MUSCLE if self.tissue == MUSCLE else labels != AIR
        return home

    def on_grid(self, labels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """Where a grid with these labels (D, H, W) can hold it, (3,) m.

        It is kept if the 8 voxels round it all carry its tissue, else moved to the nearest voxel
        centre of muscle (or, for a source on the skin, of any tissue).
        """
        point, home = np.asarray(self.point), self.home(labels)
        if self.tissue == MUSCLE and held(point, home, spacing):
            return point
        return nearest_centre(point, home, spacing)


@dataclass(frozen=True)
class Shell:
    """The outside of a limb and its layers, in metres.

    extent : (3,) of the box in (D, H, W).
    axes : outer semi-axes half-way up.
    angle : of the section, radians.
    taper : relative change of the radius along the limb.
    skin, fat : thickness.
    """

    extent: tuple[float, float, float]
    axes: tuple[float, float]
    angle: float
    taper: float
    skin: float
    fat: float

    @property
    def muscle(self) -> tuple[float, float]:
        """Semi-axes of the muscle half-way up."""
        first, second = self.axes
        return first - self.skin - self.fat, second - self.skin - self.fat

    def scale(self, d: Coordinate) -> Coordinate:
        """The taper at height d (m): size of the section over that half-way up."""
        return 1 + self.taper * (d / self.extent[0] - 0.5)

    def within(self, thickness: float, d: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whether points lie deeper than `thickness` (m) under the surface; broadcasts.

        d : height, m; y, x : in the turned frame of the section, m.
        """
        scale = self.scale(d)
        first, second = (axis * scale - thickness for axis in self.axes)
        inside: np.ndarray = (y / first) ** 2 + (x / second) ** 2 <= 1
        return inside

    def section(self, h: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) of the box in the turned frame of the section, m; broadcasts."""
        y, x = h - self.extent[1] / 2, w - self.extent[2] / 2
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return y * cos + x * sin, x * cos - y * sin

    def on_skin(self, d: float, direction: float) -> tuple[float, float, float]:
        """A point in the middle of the skin, (3,) m.

        d : its height, m; direction : round the limb, radians.
        """
        scale = self.scale(d)
        y = (self.axes[0] * scale - self.skin / 2) * np.cos(direction)
        x = (self.axes[1] * scale - self.skin / 2) * np.sin(direction)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        h = y * cos - x * sin + self.extent[1] / 2
        w = y * sin + x * cos + self.extent[2] / 2
        return d, h, w


@dataclass(frozen=True)
class Limb(Shell):
    """One limb in metres, with what is inside; of two electrodes the second takes the current out.

    bones : ellipses, or real bones placed in the turned frame of the section.
    sigma : (tissues, 3 or 6) in S/m, a row for each of TISSUES.
    current : A.
    """

    bones: tuple[Ellipse, ...] | Placed
    sigma: np.ndarray
    electrodes: tuple[Electrode, ...]
    current: float

    def label(self, d: np.ndarray, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Tissue labels (uint8, indices into TISSUES) at points in metres; broadcasts."""
        y, x = self.section(h, w)
        out = np.zeros(np.broadcast(self.scale(d), y, x).shape, dtype=np.uint8)
        out[self.within(0.0, d, y, x)] = SKIN
        out[self.within(self.skin, d, y, x)] = FAT
        muscle = self.within(self.skin + self.fat, d, y, x)
        out[muscle] = MUSCLE
        if isinstance(self.bones, Placed):  # these may lie in fat, too
            out[self.within(self.skin, d, y, x) & self.bones.inside(d, y, x)] = BONE
            return out
        scale = self.scale(d)
        for centre_y, centre_x, radius_y, radius_x in self.bones:
            off_y = (y / scale - centre_y) / radius_y
            off_x = (x / scale - centre_x) / radius_x
            out[muscle & (off_y**2 + off_x**2 <= 1)] = BONE
        return out

    def voxelise(self, grid: Grid) -> VoxelBody:
        """Labels, conductivity and electrodes on a grid (D, H, W).

        Raises
        ------
        ValueError
            A grid too coarse for the muscle, or with no place for the second electrode of a pair
            3 voxels from the first.
        """
        spacing = np.asarray(self.extent) / grid
        centres = [(np.arange(n) + 0.5) * s for n, s in zip(grid, spacing, strict=True)]
        d, h, w = np.meshgrid(*centres, indexing="ij", sparse=True)
        labels = self.label(d, h, w)
        if not (labels == MUSCLE).any():
            raise ValueError(
                f"grid {tuple(grid)} is too coarse for this limb: no voxel centre lies in muscle"
            )
        points = [electrode.on_grid(labels, spacing) for electrode in self.electrodes]
        points = apart(points, self.electrodes[-1].home(labels), spacing)
        names = np.arange(len(TISSUES), dtype=np.uint8)
        return inject(points, labels, self.sigma, names, spacing, self.current)


@dataclass(frozen=True)
class LimbDistribution:
    """From what limbs are drawn: `[low, high]` pairs are uniform. Lengths in m, sigma in S/m.

    extent : (3,) size of the box in (D, H, W).
    extent_jitter : each edge of the box is multiplied by a factor in [1 - jitter, 1 + jitter], so
        that spacings vary.
    radius : outer semi-axis over half the smaller transverse edge of the box.
    eccentricity : second semi-axis over the first.
    taper : relative change of the radius along the limb.
    skin, fat : thickness.
    bone_radius : over the first semi-axis of the muscle.
    bones : how many, with equal chance (fewer where they do not fit side by side).
    sigma : tissue -> (DD, HH, WW).
    sigma_jitter : every tissue of every limb is multiplied by a factor in [1 - jitter, 1 + jitter].
    source_on_skin : share of sources on the skin; the others lie in muscle.
    pair_distance : least distance of the two electrodes of a pair.
    source_margin : share of the length kept free of sources at each end.
    current : injected current, A.
    pennation : angle between the muscle fibres and the D axis, degrees; they tilt to any side with
        equal chance. Above 0, sigma has 6 components. It touches nothing but the muscle's tensor:
        the limb of a key has the same shape, source and values at every angle.
    bone_shape : 'ellipse', or 'tibia_fibula': the shaft of a real tibia and fibula, which do not
        follow the taper. They lie in muscle and, where the tibia is next to the skin, in fat: never
        nearer to the skin than 30 % of the fat. bone_radius and bones then decide nothing.
    bone_scale : size of real bones over their own (a tibia of 350 mm); thinner where they do not
        fit.
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
    sigma: dict[str, Any]
    sigma_jitter: float
    source_on_skin: float
    source_margin: float
    pair_distance: float
    current: float
    pennation: tuple[float, float] = (0.0, 0.0)
    bone_shape: str = "ellipse"
    bone_scale: tuple[float, float] = (0.75, 1.0)

    #: What metrics and masks can name.
    tissues: ClassVar[tuple[str, ...]] = LAYERS

    def __post_init__(self) -> None:
        self._check_sigma()
        if not 0 <= self.sigma_jitter < 1 or not 0 <= self.extent_jitter < 1:
            raise ValueError("data.phantom.sigma_jitter and extent_jitter must lie in [0, 1)")
        if len(self.extent) != 3 or not all(e > 0 for e in self.extent):
            raise ValueError(
                "data.phantom.extent must be three positive lengths (D, H, W) in m; "
                f"got {list(self.extent)}"
            )
        self._check_pairs()
        low, high = self.pennation
        if not 0 <= low <= high < 90:
            raise ValueError(
                "data.phantom.pennation must be [low, high] with 0 <= low <= high < 90 degrees; "
                f"got {list(self.pennation)}"
            )
        if not (math.isfinite(self.current) and self.current != 0):
            raise ValueError(
                f"data.phantom.current must be a number of amperes other than 0; got {self.current}"
            )
        if self.bone_shape not in BONE_SHAPES:
            raise ValueError(
                f"data.phantom.bone_shape must be one of {', '.join(BONE_SHAPES)}; "
                f"got {self.bone_shape!r}"
            )
        low, high = self.bone_scale
        if not 0 < low <= high:
            raise ValueError(
                "data.phantom.bone_scale must be [low, high] with 0 < low <= high; "
                f"got {list(self.bone_scale)}"
            )

    def _check_sigma(self) -> None:
        missing = [tissue for tissue in LAYERS if tissue not in self.sigma]
        if missing:
            raise ValueError(
                f"data.phantom.sigma lacks {', '.join(missing)}; it needs {', '.join(LAYERS)}"
            )
        for tissue, value in self.sigma.items():
            if len(value) != 3 or not all(v > 0 for v in value):
                raise ValueError(
                    f"data.phantom.sigma.{tissue} must be three positive values (DD, HH, WW) "
                    f"in S/m; got {value}"
                )

    def _check_pairs(self) -> None:
        pairs = {
            "radius": self.radius,
            "eccentricity": self.eccentricity,
            "taper": self.taper,
            "skin": self.skin,
            "fat": self.fat,
            "bone_radius": self.bone_radius,
            "pennation": self.pennation,
            "bone_scale": self.bone_scale,
        }
        for name, pair in pairs.items():
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ValueError(
                    f"data.phantom.{name} must be two values of which the first must not exceed "
                    f"the second; got {list(pair)}"
                )

    @classmethod
    def of(cls, settings: dict[str, Any]) -> LimbDistribution:
        """From data.phantom as YAML or JSON have it, where pairs are lists."""
        values: dict[str, Any] = {}
        for name, value in settings.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    @property
    def oblique(self) -> bool:
        """Whether fibres leave the D axis, so that sigma has 6 components."""
        return self.pennation[1] > 0

    def settings(self) -> dict[str, Any]:
        """All that decides the limbs, as JSON-ready values."""
        return dataclasses.asdict(self)

    def available(self, split: str) -> float:
        """How many different samples a split has."""
        return math.inf

    def content(self, split: str) -> list[tuple[str, str]]:
        """The files that a split is drawn from: none."""
        return []

    def phantom(self, seed: int, split: str, number: int) -> str:
        """What must not be in two splits: every limb is its own."""
        return f"limb-{seed}-{split}-{number}"

    def draw(self, *key: int, electrodes: int = 1) -> Limb:
        """The limb that belongs to `key` (any integers), with one electrode or two.

        The same key gives the same limb, always: the order of the draws from `random` is part of
        what a limb is. What came later draws from streams of its own.

        Raises
        ------
        ValueError
            Settings that leave no room: for muscle, for a source in it, for a second electrode
            `pair_distance` away.
        """
        random = _stream(key)
        shell = self._shell(random)
        bones: tuple[Ellipse, ...] | Placed = self._ellipses(shell, random)
        sigma = self._conductivity(random)
        if self.oblique:
            sigma = self._tilted(sigma, _stream(key, PENNATION))
        if self.bone_shape == "tibia_fibula":
            bones = self._real_bones(shell, _stream(key, REAL_BONES))
        limb = Limb(**vars(shell), bones=bones, sigma=sigma, electrodes=(), current=self.current)
        drawn = [self._electrode(limb, random)]
        if electrodes > 1:
            drawn.append(self._second(limb, drawn[0], _stream(key, SECOND_ELECTRODE)))
        return dataclasses.replace(limb, electrodes=tuple(drawn))

    def _shell(self, random: np.random.Generator) -> Shell:
        """Box, outer surface and layers. Raises ValueError where they leave no muscle."""
        depth, height, width = (
            edge * (1 + random.uniform(-1, 1) * self.extent_jitter) for edge in self.extent
        )
        first = _span(random, self.radius) * min(height, width) / 2
        second = first * _span(random, self.eccentricity)
        skin = _span(random, self.skin)
        fat = _span(random, self.fat)
        angle = random.uniform(0, np.pi)
        taper = _span(random, self.taper)
        widest = 1 + abs(taper) / 2
        axes = (first / widest, second / widest)
        shell = Shell((depth, height, width), axes, angle, taper, skin, fat)
        if min(shell.muscle) <= 0:
            raise ValueError(
                "data.phantom: skin and fat are thicker than the limb; lower them or raise radius"
            )
        return shell

    def _ellipses(self, shell: Shell, random: np.random.Generator) -> tuple[Ellipse, ...]:
        """Bones side by side in the muscle, as many of those wanted as fit."""
        muscle = shell.muscle
        bones: list[Ellipse] = []
        wanted = int(random.choice(self.bones))
        for _ in range(ATTEMPTS):
            if len(bones) == wanted:
                break
            radius = _span(random, self.bone_radius) * muscle[0]
            room = max(0.0, 0.88 - radius / min(muscle))
            far = room * random.uniform(0, 1) ** 0.5
            direction = random.uniform(0, 2 * np.pi)
            y, x = far * muscle[0] * np.cos(direction), far * muscle[1] * np.sin(direction)
            if all(np.hypot(y - v, x - u) > 1.1 * (radius + r) for v, u, r, _ in bones):
                bones.append((y, x, radius, radius * random.uniform(0.75, 1.0)))
        return tuple(bones)

    def _conductivity(self, random: np.random.Generator) -> np.ndarray:
        """(DD, HH, WW) of each tissue, jittered, S/m. (tissues, 3)"""
        sigma = np.zeros((len(TISSUES), 3))
        for tissue in LAYERS:
            factor = 1 + random.uniform(-1, 1) * self.sigma_jitter
            sigma[label_of(tissue)] = np.asarray(self.sigma[tissue]) * factor
        return sigma

    def _tilted(self, sigma: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The same with fibres at an angle, S/m. (tissues, 3) -> (tissues, 6)"""
        angle = np.radians(random.uniform(*self.pennation))
        direction = random.uniform(0, 2 * np.pi)
        tilted = np.concatenate([sigma, np.zeros_like(sigma)], axis=1)
        tilted[MUSCLE] = fibre_tensor(sigma[MUSCLE], angle, direction)
        return tilted

    def _real_bones(self, shell: Shell, random: np.random.Generator) -> Placed:
        """Tibia and fibula, deeper than the skin and some of the fat."""
        depth = shell.skin + random.uniform(0.3, 1.0) * shell.fat
        scale = random.uniform(*self.bone_scale)
        return place(random, shell.extent[0], scale, functools.partial(shell.within, depth))

    def _electrode(self, limb: Limb, random: np.random.Generator) -> Electrode:
        """An electrode on the skin or in muscle. Raises ValueError where no muscle is found."""
        on_skin = random.uniform() < self.source_on_skin
        share = random.uniform(self.source_margin, 1 - self.source_margin)
        height = limb.extent[0] * share
        if on_skin:
            return Electrode(limb.on_skin(height, random.uniform(0, 2 * np.pi)), SKIN)
        for _ in range(POINTS):
            h, w = np.asarray(limb.extent[1:]) * random.uniform(0, 1, 2)
            if limb.label(*(np.asarray([x]) for x in (height, h, w)))[0] == MUSCLE:
                return Electrode((height, h, w), MUSCLE)
        raise ValueError("data.phantom: found no muscle to place a source in; bones leave no room")

    def _second(self, limb: Limb, first: Electrode, random: np.random.Generator) -> Electrode:
        """An electrode at least `pair_distance` from the first. Raises ValueError for none."""
        for _ in range(ATTEMPTS):
            electrode = self._electrode(limb, random)
            if math.dist(first.point, electrode.point) >= self.pair_distance:
                return electrode
        raise ValueError(
            f"data.phantom.pair_distance={self.pair_distance:g} m: found no second electrode "
            "so far from the first; lower it"
        )
