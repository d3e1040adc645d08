"""Segmentations: label volumes and a table of tissues become conductors, with sources in them.

    file (`label_formats`)      ->  LabelVolume  ->  Body (checked, cropped)
                                ->  Segmentations.draw(...).voxelise(grid)

`Segmentations` stands where `LimbDistribution` stands for limbs: a stream draws from it, solves,
trains. Several volumes are split over training, validation and test as wholes. One volume (or fewer
than there are splits) is in all of them, and its sources are split.

Positions are metres from the outer corner of voxel (0, 0, 0) of the file, in the order (D, H, W).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from physics_hybrid.checks import shares
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.bodies.body import (
    WHOLE,
    Body,
    Cut,
    fit,
)
from physics_hybrid.problems.potential.bodies.label_files import (
    LabelVolume,
)
from physics_hybrid.problems.potential.bodies.tissue_table import (
    Tissue,
    conductivities,
)
from physics_hybrid.problems.potential.bodies.tissues import AIR, TISSUES, label_of
from physics_hybrid.problems.potential.bodies.voxel_body import (
    VoxelBody,
    apart,
    held,
    inject,
    nearest_centre,
)
from physics_hybrid.problems.potential.data.plausible import COUNTS_AS_TISSUE, nearly_air
from physics_hybrid.problems.potential.data.sample import SampleError
from physics_hybrid.problems.potential.data.splits import split_by_phantom

SPLITS = ("train", "validation", "test")

#: How often a second electrode is drawn before there is no room for it.
ATTEMPTS = 1000

#: For how many bodies and splits the voxels that sources may lie in are kept.
KEPT_CANDIDATES = 64


@dataclass(frozen=True)
class Sources:
    """Where the electrodes of the bodies are, and their current.

    positions : (D, H, W) in metres in the file, with ends=pair two each, where the current comes in
        and where it is taken out; None: drawn at random, everywhere in the voxels of `tissues` but
        for a share `margin` of the length at each end.
    tissues : names of the table that sources are drawn in.
    pair_distance : least distance in metres of two electrodes that are drawn.
    current : A.
    """

    positions: Sequence[Any] | None = None
    tissues: Sequence[str] = ("muscle",)
    margin: float = 0.15
    pair_distance: float = 0.03
    current: float = 1e-3

    def check(self, table: Sequence[Tissue]) -> None:
        """Raises ValueError where there is no such source, in any body with this table."""
        if not (math.isfinite(self.current) and self.current != 0):
            raise ValueError(
                f"data.current must be a number of amperes other than 0; got {self.current}"
            )
        if not 0 <= self.margin < 0.5:
            raise ValueError(f"data.source_margin must lie in [0, 0.5); got {self.margin}")
        known = [tissue.name for tissue in table[1:]]
        unknown = [name for name in self.tissues if name not in known]
        if self.positions is None and (unknown or not self.tissues):
            raise ValueError(
                f"data.source_tissues must name tissues of data.tissues ({', '.join(known)}); "
                f"got {list(self.tissues)}"
            )

    def listed(self, electrodes: int, bodies: Sequence[Body]) -> np.ndarray | None:
        """The positions as (n, electrodes, 3), m, all in tissue of every body; None for none.

        Raises
        ------
        ValueError
            Positions of another shape.
        SampleError
            A position in air or outside a body's box.
        """
        if self.positions is None:
            return None
        points = _points(self.positions, electrodes)
        for body in bodies:
            for point in points.reshape(-1, 3):
                if not body.row_at(point - body.origin):
                    low, high = body.origin, body.origin + body.extent
                    rule = (
                        f"{point.tolist()} m (data.sources) lies in air or outside the body's "
                        f"box, {low.round(4).tolist()} to {high.round(4).tolist()} m in (D, H, W)"
                    )
                    raise SampleError(body.name, "source", rule)
        return points


def _points(positions: Sequence[Any], electrodes: int) -> np.ndarray:
    """Listed positions as (n, electrodes, 3), m. Raises ValueError for another shape."""
    try:
        points: np.ndarray = np.asarray(positions, dtype=float)
    except ValueError:
        points = np.empty(0)
    one, shape = "[D, H, W]", [3]
    if electrodes == 2:
        one, shape = "[[D, H, W], [D, H, W]] (in, out)", [2, 3]
    if list(points.shape[1:]) != shape or not points.size:
        raise ValueError(
            f"data.sources must be a list of positions {one} in metres, or null; got {positions}"
        )
    return points.reshape(-1, electrodes, 3)


class Segmentations:
    """Bodies and the sources in them.

    Sample `number` of a split is a function of (seed, split, number).

    Parameters
    ----------
    volumes : label volumes; a split that has several takes them in turn.
    tissues : table of `read_table`.
    seed, splits : which volumes (or, with too few volumes, which sources) belong to which split;
        {train, validation, test: share}.
    sources : see `Sources`.
    ends, cut : see `fit`.

    Raises
    ------
    SampleError, ValueError
        Whatever `fit` refuses; sources outside tissue, or too few for the splits; source tissues
        that are unknown or absent.
    """

    def __init__(
        self,
        volumes: Sequence[LabelVolume],
        tissues: list[Tissue],
        seed: int,
        splits: Mapping[str, float],
        sources: Sources = Sources(),
        ends: str = "grounded",
        cut: Cut = WHOLE,
    ) -> None:
        self.table, self.seed, self.sources = tissues, seed, sources
        self.sigma = conductivities(tissues)
        self.labels = np.array([_label(t.name) for t in tissues], dtype=np.uint8)
        self.notes: list[str] = []
        self.bodies: list[Body] = []
        for volume in volumes:
            body, notes = fit(volume, tissues, ends, cut)
            self.bodies.append(body)
            self.notes += [*volume.notes, *notes]
            low = nearly_air(self.sigma[body.index, 0][None])
            if low is not None:
                meant = COUNTS_AS_TISSUE.format(key=f"data.air_below={10 * low.lowest:.0e}")
                self.notes.append(f"NOTE: {body.name}: {low}: {meant}")
        sources.check(tissues)
        self.positions = sources.listed(2 if ends == "pair" else 1, self.bodies)
        self._rows = [row for row, t in enumerate(tissues) if t.name in sources.tissues]
        self.splits = _shares(splits)
        self._share_out([name for name in SPLITS if splits.get(name, 0) > 0])
        self._settings = self._described()

    def _share_out(self, wanted: list[str]) -> None:
        """Give every split that is wanted its bodies and, of a list, its sources.

        Raises ValueError for fewer listed sources than splits that share a body.
        """
        self.shared = len(self.bodies) < len(wanted)
        listed = 0 if self.positions is None else len(self.positions)
        self._listed_of: dict[str, Sequence[int]] = {name: range(listed) for name in wanted}
        self._bodies_of: dict[str, list[int]]
        if not self.shared:
            numbers = [str(i) for i in range(len(self.bodies))]
            self._bodies_of = split_by_phantom(numbers, self.splits, self.seed)
            return
        self._bodies_of = {name: list(range(len(self.bodies))) for name in wanted}
        names = ", ".join(wanted)
        self.notes.append(
            f"NOTE: {len(self.bodies)} label volume(s) for {len(wanted)} splits: {names} share the "
            "phantom and differ in their sources only. Errors then say how well new electrode "
            "positions in this body are predicted, nothing about other bodies."
        )
        if self.positions is None:
            return
        if listed < len(wanted):
            raise ValueError(
                f"data.sources lists {listed} position(s) for {len(wanted)} splits ({names}) of "
                "one volume: list more, or null to draw them"
            )
        numbers = [f"{i:06d}" for i in range(listed)]
        self._listed_of.update(split_by_phantom(numbers, self.splits, self.seed))

    def _described(self) -> dict[str, Any]:
        """See `settings`."""
        return {
            "tissues": {t.name: [list(t.labels), list(t.sigma)] for t in self.table},
            "splits": self.splits,
            "files": [_file(body) for body in self.bodies],
            "sources": None if self.positions is None else self.positions.tolist(),
            "source_tissues": sorted(self.sources.tissues),
            "source_margin": self.sources.margin,
            "pair_distance": self.sources.pair_distance,
            "current": self.sources.current,
        }

    @property
    def oblique(self) -> bool:
        """Whether any tissue's tensor has off-diagonal components."""
        return self.sigma.shape[1] == 6 and bool(self.sigma[:, 3:].any())

    @property
    def tissues(self) -> tuple[str, ...]:
        """The tissues that metrics and masks can name: those of the table that `TISSUES` knows."""
        return tuple(t.name for t in self.table[1:] if t.name in TISSUES)

    def native_grid(self) -> Grid:
        """The grid of the file. Raises ValueError where files differ."""
        grids = {body.index.shape for body in self.bodies}
        if len(grids) > 1:
            names = ", ".join(sorted(name_of(grid) for grid in grids))
            raise ValueError(
                f"data.grid=null takes the grid of the files, and theirs differ ({names} after "
                "cropping): give data.grid=[D,H,W]"
            )
        d, h, w = grids.pop()
        return d, h, w

    def settings(self) -> dict[str, Any]:
        """All that decides the samples, as JSON-ready values: names of files are digests of it."""
        return self._settings

    def available(self, split: str) -> float:
        """How many different samples a split has."""
        if not self._bodies_of.get(split):
            return 0
        if self.positions is None:
            return math.inf
        return len(self._bodies_of[split]) * len(self._listed_of[split])

    def content(self, split: str) -> list[tuple[str, str]]:
        """The files that a split is drawn from, and what tells them, cut and named as they are."""
        table = {t.name: [list(t.labels), list(t.sigma)] for t in self.table}
        files = []
        for i in self._bodies_of.get(split, ()):
            body = self.bodies[i]
            known = json.dumps([_file(body)[1:], table])
            files.append((body.name, hashlib.blake2b(known.encode(), digest_size=10).hexdigest()))
        return files

    def phantom(self, seed: int, split: str, number: int) -> str:
        """The file of a sample."""
        return self._body(split, number).name

    def _body(self, split: str, number: int) -> Body:
        """The body of a sample. Raises ValueError for a split without any."""
        mine = self._bodies_of.get(split)
        if not mine:
            raise ValueError(f"data.splits gives nothing to {split}: {self.splits}")
        return self.bodies[mine[number % len(mine)]]

    def draw(self, seed: int, split: int, number: int, electrodes: int = 1) -> Segmented:
        """Sample `number` of a split (0 train, 1 validation, 2 test), with one electrode or two.

        Raises
        ------
        ValueError
            A split without bodies.
        SampleError
            No voxel for a source, or no second electrode `pair_distance` away.
        """
        name = SPLITS[split]
        body = self._body(name, number)
        if self.positions is not None:
            chosen = self._listed_of[name]
            turn = number // len(self._bodies_of[name])
            points = self.positions[chosen[turn % len(chosen)]]
            return Segmented(self, body, points - body.origin)
        random = np.random.default_rng([seed, split, number])
        candidates = self._candidates(body, name)
        drawn = [_somewhere(body, candidates, random)]
        if electrodes == 2:
            drawn.append(self._second(body, candidates, drawn[0], random))
        return Segmented(self, body, np.stack(drawn))

    def _second(
        self, body: Body, candidates: np.ndarray, first: np.ndarray, random: np.random.Generator
    ) -> np.ndarray:
        """A point (3,) m at least `pair_distance` from the first. Raises SampleError for none."""
        for _ in range(ATTEMPTS):
            second = _somewhere(body, candidates, random)
            if math.dist(first, second) >= self.sources.pair_distance:
                return second
        rule = (
            f"found no second electrode {self.sources.pair_distance:g} m from the first: "
            "lower data.pair_distance"
        )
        raise SampleError(body.name, "source", rule)

    @functools.cached_property
    def _candidates(self) -> Callable[[Body, str], np.ndarray]:
        """`_find_candidates` with its last results, which go when the segmentations go."""
        return functools.lru_cache(maxsize=KEPT_CANDIDATES)(self._find_candidates)

    def _find_candidates(self, body: Body, split: str) -> np.ndarray:
        """Flat indices of the voxels that sources of a split may lie in.

        Splits that share a body share no voxel of the file. Raises SampleError for no voxel.
        """
        centre = (np.arange(len(body.index)) + 0.5) / len(body.index)
        inner = (centre > self.sources.margin) & (centre < 1 - self.sources.margin)
        found = np.flatnonzero(np.isin(body.index, self._rows) & inner[:, None, None])
        if self.shared:
            upto = np.cumsum([self.splits[name] for name in SPLITS]) / sum(self.splits.values())
            drawn = np.random.default_rng(self.seed).random(len(found))
            part = np.searchsorted(upto, drawn, side="right")
            found = found[part == SPLITS.index(split)]
        if not len(found):
            names = ", ".join(self.table[row].name for row in self._rows)
            rule = (
                f"no voxel of {names} is left for sources of the split {split}: "
                "change data.source_tissues or data.source_margin"
            )
            raise SampleError(body.name, "source", rule)
        return found


def _label(name: str) -> int:
    """The label of a tissue; that of air for one that `TISSUES` does not know."""
    return label_of(name) if name in TISSUES else AIR


def _shares(splits: Mapping[str, float]) -> dict[str, float]:
    """The share of every split. Raises ValueError where they are none."""
    shares("data.splits", splits)
    return {name: splits.get(name, 0.0) for name in SPLITS}


def _file(body: Body) -> list[Any]:
    """All of a body that decides its samples, as JSON-ready values."""
    shape, spacing, origin = list(body.index.shape), body.spacing.tolist(), body.origin.tolist()
    return [body.name, body.checksum, shape, spacing, origin]


def _somewhere(body: Body, candidates: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A point (3,) m anywhere in the voxels that candidates (n,) are flat indices of."""
    chosen = candidates[random.integers(len(candidates))]
    voxel = np.asarray(np.unravel_index(chosen, body.index.shape))
    point: np.ndarray = (voxel + random.uniform(0, 1, 3)) * body.spacing
    return point


@dataclass(frozen=True, eq=False)
class Segmented:
    """The electrodes in one body; `points` (1 or 2, 3) in metres of the body's box."""

    of: Segmentations
    body: Body
    points: np.ndarray

    def voxelise(self, grid: Grid) -> VoxelBody:
        """Labels, conductivity and source on a grid (D, H, W).

        Labels are those of `TISSUES`, 0 for a tissue that it does not know. An electrode stays
        where the 8 voxels round it carry its tissue; else it moves to the nearest voxel centre of
        its tissue, or of any tissue where the grid has lost its own for 2 voxels around.

        Raises
        ------
        SampleError
            A grid too coarse for the body (`Body.on`).
        ValueError
            The electrodes of a pair less than 3 voxels apart.
        """
        d, h, w = grid
        index = self.body.on((d, h, w))
        spacing = self.body.extent / grid
        points = [self._seat(point, index, spacing) for point in self.points]
        if self.of.positions is None:  # those of a list stay, or are refused
            points = apart(points, index == self.body.row_at(self.points[-1]), spacing)
        current = self.of.sources.current
        return inject(points, index, self.of.sigma, self.of.labels, spacing, current)

    def _seat(self, point: np.ndarray, index: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """Where a grid with these rows (D, H, W) can hold an electrode, (3,) m."""
        home = index == self.body.row_at(point)
        if held(point, home, spacing):
            return point
        if home.any():
            centre = nearest_centre(point, home, spacing)
            if (np.abs(centre - point) <= 2 * spacing).all():
                return centre
        return nearest_centre(point, index > 0, spacing)
