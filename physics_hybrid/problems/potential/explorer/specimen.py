"""A body whose tissues conduct what the page says, and how it lies before whoever looks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from physics_hybrid.problems.potential.bodies.tissue_table import read_table
from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.door.body import (
    ROUNDED,
    Body,
    Limb,
    read_labels,
    tissues_of,
)
from physics_hybrid.problems.potential.door.picture import AXES
from physics_hybrid.problems.potential.explorer.sections import Axes

#: Bodies with other conductivities that are kept.
KEPT = 2
#: Of the world: right, anterior, superior; the other end of each.
WORLD = ("R", "A", "S")
OPPOSITE = {"R": "L", "A": "P", "S": "I"}
#: Sections by what they are normal to: of the world (R, A, S), and of a grid (D, H, W) without one.
IN_WORLD = ("Sagittal", "Coronal", "Transverse")
IN_GRID = ("Transverse", "Coronal", "Sagittal")


@dataclass(frozen=True)
class Tissue:
    """name : of the tissue. label : in the labels of the body. sigma : S/m along the axes, as it
    was at first. voxels : how many.
    """

    name: str
    label: int
    sigma: tuple[float, ...]
    voxels: int


@dataclass(frozen=True)
class Axis:
    """An axis of the grid as it is shown: shown = origin + sign x, mm.

    name : what stands at the scale. low, high : letters at its ends. section : of planes normal to
    it. upside_down, mirrored : whether x runs down where it is up, to the left where it is across.
    """

    name: str
    origin: float
    sign: float
    low: str
    high: str
    section: str
    upside_down: bool
    mirrored: bool


class Specimen:
    """A body and its tissues, each with one number: what it conducts along D. Tensors keep their
    shape.

    body : as it was at first. names : of labels. name : what the page calls it.

    Raises
    ------
    ValueError
        From `body`: not one conductivity for each tissue.
    """

    def __init__(self, body: Body, names: Mapping[int, str], name: str) -> None:
        self.original, self.name = body, name
        labels = body.labels if body.labels is not None else body.tissue.astype(int)
        self.labels = np.where(body.tissue, labels, 0)
        self._sigma = np.moveaxis(body.sigma[0].detach().cpu().numpy(), 0, -1)
        self.tissues = tuple(
            self._tissue(int(label), names) for label in np.unique(self.labels[body.tissue])
        )
        self._bodies: OrderedDict[tuple[float, ...], Body] = OrderedDict()

    @classmethod
    def random(cls, seed: int, grid: Sequence[int]) -> Specimen:
        """A limb of those that networks are trained on. Raises ValueError as `Limb.random`."""
        return cls(Limb.random(seed, grid), dict(enumerate(TISSUES)), f"limb {seed}")

    @classmethod
    def read(cls, path: str, **options: Any) -> Specimen:
        """A segmentation, with the names of its table. Raises ValueError as `read_labels`."""
        body = read_labels(path, **options)
        table = read_table(tissues_of(options.get("tissues")))
        names = {row.labels[0]: row.name for row in table if row.labels}
        return cls(body, names, Path(path).name)

    def _tissue(self, label: int, names: Mapping[int, str]) -> Tissue:
        here = (self.labels == label) & self.original.tissue
        sigma = np.median(self._sigma[here], axis=0)
        name = names.get(label, f"label {label}")
        return Tissue(name, label, tuple(float(s) for s in sigma), int(here.sum()))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tissue.name for tissue in self.tissues)

    @property
    def sigma(self) -> tuple[float, ...]:
        """What tissues conducted along D at first, S/m."""
        return tuple(tissue.sigma[0] for tissue in self.tissues)

    def body(self, sigma: tuple[float, ...]) -> Body:
        """The body whose tissues conduct so much along D, S/m."""
        if sigma == self.sigma:
            return self.original
        if sigma not in self._bodies:
            self._bodies[sigma] = self._with(sigma)
            while len(self._bodies) > KEPT:
                self._bodies.popitem(last=False)
        self._bodies.move_to_end(sigma)
        return self._bodies[sigma]

    def _with(self, sigma: tuple[float, ...]) -> Body:
        values = self._sigma.copy()
        for tissue, wanted in zip(self.tissues, sigma, strict=True):
            here = (self.labels == tissue.label) & self.original.tissue
            values[here] *= wanted / tissue.sigma[0]
        first = self.original
        return Body(values, first.spacing, first.affine, labels=first.labels, order=first.order)

    def first_place(self) -> tuple[float, float, float]:
        """Where an electrode is at first: the electrode of a limb, else on the skin half-way up."""
        electrode = getattr(self.original, "electrode", None)
        if electrode is None:
            middle = self.original.extent / 2
            middle[1] = 0.0
            electrode = self.original.nearest(middle)
        d, h, w = (float(x) for x in electrode)
        return d, h, w

    def axes(self) -> tuple[Axis, ...]:
        """How D, H and W are shown: in mm of the world where they lie along its axes, superior and
        anterior up, right and anterior at the left; else in mm of the grid.
        """
        world = self._along()
        if world is None:
            return tuple(
                Axis(name, 0.0, 1.0, "", "", section, False, False)
                for name, section in zip(AXES, IN_GRID, strict=True)
            )
        assert self.original.affine is not None
        found = []
        for axis, towards in enumerate(world):
            step = self.original.affine[towards, axis]
            sign = float(np.sign(step))
            origin = float(self.original.affine[towards, 3] - step / 2)
            letter = WORLD[towards]
            ends = (OPPOSITE[letter], letter) if sign > 0 else (letter, OPPOSITE[letter])
            found.append(Axis(letter, origin, sign, *ends, IN_WORLD[towards], sign < 0, sign > 0))
        return tuple(found)

    def sections(self) -> tuple[Axes, ...]:
        """Axes of the three sections: normal, up, across. The transverse one comes first."""
        right, anterior, superior = self._where_is_world()
        return (
            (superior, anterior, right),
            (anterior, superior, right),
            (right, superior, anterior),
        )

    def _where_is_world(self) -> tuple[int, int, int]:
        """Axes of the grid along right, anterior and superior; W, H, D where there is no world."""
        world = self._along()
        if world is None:
            return 2, 1, 0
        return world.index(0), world.index(1), world.index(2)

    def _along(self) -> list[int] | None:
        """The axis of the world that each of the grid lies along; None where it is oblique."""
        affine = self.original.affine
        if affine is None:
            return None
        units = np.abs(affine[:3, :3]) / np.linalg.norm(affine[:3, :3], axis=0)
        along = [int(a) for a in units.argmax(axis=0)]
        straight = units.max(axis=0).min() > 1 - ROUNDED**2 and len({*along}) == 3
        return along if straight else None

    def about(self) -> dict[str, Any]:
        """What the page shows of it."""
        body = self.original
        return {
            "shape": list(body.shape),
            "spacing": [float(h) for h in body.spacing],
            "extent": [float(x) for x in body.extent],
            "name": self.name,
            "axes": [vars(axis) for axis in self.axes()],
            "sections": [list(axes) for axes in self.sections()],
            "tissues": [vars(tissue) for tissue in self.tissues],
        }
