"""Three planes through a field: colours, equipotentials, currents, outlines of tissues.

    phi = phi_inf + sum_i w_i (phi - phi_inf)_i                                             [V]

as `Field.at` has it, trilinear in the tissue: the weights of a raster are a product of three, so
that it is two small matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from physics_hybrid.problems.potential.door.closed_form import at_places, on_grid
from physics_hybrid.problems.potential.door.field import Field
from physics_hybrid.problems.potential.door.picture import scale
from physics_hybrid.problems.potential.physics.electrodes import PointSource

#: Axes of a body: normal to a plane, up and across in it.
Axes = tuple[int, int, int]
#: Points along the longest axis of a body that are drawn, about; and in a voxel, at most.
POINTS, FINEST = 200, 4
#: Shades of the colour scale; 0 is air.
SHADES = 255
#: In millivolts.
MILLI = 1e3
#: Levels in a decade.
SERIES = (1.0, 2.0, 5.0)
#: Decades below the largest that levels are looked for in: a scale has three.
DECADES = 4
#: Share of a voxel that a plane keeps from the faces of voxels.
OFF_FACE = 1e-3


@dataclass(frozen=True)
class Scale:
    """Colours of a potential in mV. norm : mV -> [0, 1]. colours : name. levels : of lines, mV."""

    norm: Any
    colours: str
    levels: np.ndarray

    @classmethod
    def of(cls, millivolts: np.ndarray) -> Scale:
        """For values in tissue: three decades, or symmetric about 0 where both signs matter."""
        norm, colours = scale(millivolts)
        least = float(getattr(norm, "linthresh", norm.vmin))
        top = int(np.floor(np.log10(max(abs(norm.vmin), abs(norm.vmax)))))
        decades = range(top - DECADES, top + 1)
        sizes = np.array([m * 10.0**e for e in decades for m in SERIES])
        sizes = sizes[sizes >= least * (1 - 1e-9)]
        both = np.concatenate([-sizes[::-1], [0.0], sizes])
        levels = both[(both >= norm.vmin) & (both <= norm.vmax)]
        return cls(norm, colours, levels)

    def places(self, millivolts: np.ndarray) -> np.ndarray:
        """Where values stand on the scale, 0 to 1."""
        places: np.ndarray = np.clip(np.ma.getdata(self.norm(millivolts)), 0.0, 1.0)
        return places

    def table(self) -> np.ndarray:
        """Red, green, blue of each shade. (SHADES, 3) uint8"""
        import matplotlib

        colours = matplotlib.colormaps[self.colours](np.linspace(0, 1, SHADES))
        table: np.ndarray = np.round(255 * colours[:, :3]).astype(np.uint8)
        return table


@dataclass(frozen=True)
class Section:
    """A plane. normal, up, across : axes of the body. cut : where it is, m.

    volts : (n, m) at points of a raster, V. shades : 0 in air, else 1 to SHADES.
    equipotentials, outlines : lines, (P, 2) m, up and across.
    J : its part in the plane, at centres of voxels, (N, M, 2) A/m^2, up and across.
    """

    normal: int
    up: int
    across: int
    cut: float
    volts: np.ndarray
    shades: np.ndarray
    equipotentials: list[np.ndarray]
    outlines: list[np.ndarray]
    J: np.ndarray


class Planes:
    """Planes through one field, of one source."""

    def __init__(self, field: Field) -> None:
        self.field, self.body = field, field.body
        self.scale = Scale.of(MILLI * field.array()[0][self.body.tissue])
        self.fine = int(np.clip(round(POINTS / max(self.body.shape)), 1, FINEST))

    @cached_property
    def _source(self) -> PointSource | None:
        """Points whose closed form is taken off where it is interpolated; None: none is."""
        source = self.field.sources.part(self.field.conductor, slice(0, 1))
        plain = isinstance(source, PointSource) and self.field.singularity == "subtraction"
        return source if plain and isinstance(source, PointSource) else None

    @cached_property
    def _smooth(self) -> np.ndarray:
        """phi - phi_inf at voxel centres, V. (D, H, W)"""
        volts = self.field.volts[:1].detach()
        if self._source is not None:
            volts = volts - on_grid(self.field.conductor, self._source)
        smooth: np.ndarray = volts[0].cpu().numpy()
        return smooth

    def at(self, cut: tuple[float, float, float], sections: Sequence[Axes]) -> list[Section]:
        """Sections that meet at a place, (3,) m."""
        rasters = [_Raster.of(self, axes, cut[axes[0]]) for axes in sections]
        volts = self._volts(rasters)
        return [r.section(values) for r, values in zip(rasters, volts, strict=True)]

    def _volts(self, rasters: list[_Raster]) -> list[np.ndarray]:
        """phi at the points of rasters, V; 0 in air and where no current comes."""
        whole = [raster.interpolated() for raster in rasters]
        if self._source is None:
            return whole
        places = torch.from_numpy(np.concatenate([r.places() for r in rasters]))
        closed = at_places(self.field.conductor, self._source, places)[0].cpu().numpy()
        ends = np.cumsum([r.tissue.size for r in rasters])[:-1]
        found = []
        for raster, smooth, part in zip(rasters, whole, np.split(closed, ends), strict=True):
            known = part.reshape(raster.tissue.shape)
            found.append(np.where(raster.flows, known + smooth, 0.0))
        return found


@dataclass(frozen=True)
class _Raster:
    """Points of a plane, `fine` along each edge of a voxel. voxel : that the plane cuts, along its
    normal. place : m.
    """

    planes: Planes
    axes: Axes
    voxel: int
    place: float

    @classmethod
    def of(cls, planes: Planes, axes: Axes, cut: float) -> _Raster:
        spacing, size = planes.body.spacing[axes[0]], planes.body.shape[axes[0]]
        index = float(np.clip(cut / spacing, 0.0, size - OFF_FACE))
        voxel = int(index)
        inside = float(np.clip(index - voxel, OFF_FACE, 1 - OFF_FACE))
        return cls(planes, axes, voxel, (voxel + inside) * float(spacing))

    def _layer(self, volume: np.ndarray, voxel: int) -> np.ndarray:
        """A plane of voxels, (n, m, ...), up and across."""
        normal, up, across = self.axes
        layer: np.ndarray = volume.take(voxel, axis=normal)
        return layer if up < across else layer.swapaxes(0, 1)

    @cached_property
    def tissue(self) -> np.ndarray:
        """At the points."""
        return self._finely(self._layer(self.planes.body.tissue, self.voxel))

    @cached_property
    def flows(self) -> np.ndarray:
        """At the points: tissue that current comes to."""
        volts = self.planes.field.volts[0].detach().cpu().numpy()
        reached = self._finely(self._layer(volts, self.voxel) != 0)
        flows: np.ndarray = self.tissue & reached
        return flows

    def _finely(self, layer: np.ndarray) -> np.ndarray:
        fine = self.planes.fine
        return layer.repeat(fine, axis=0).repeat(fine, axis=1)

    def along(self, axis: int) -> np.ndarray:
        """Points along an axis of the body, m."""
        body, fine = self.planes.body, self.planes.fine
        places: np.ndarray = (np.arange(fine * body.shape[axis]) + 0.5) / fine * body.spacing[axis]
        return places

    def places(self) -> np.ndarray:
        """(n m, 3) m of the grid."""
        normal, up, across = self.axes
        rows, columns = np.meshgrid(self.along(up), self.along(across), indexing="ij")
        places = np.empty((rows.size, 3))
        places[:, normal], places[:, up] = self.place, rows.ravel()
        places[:, across] = columns.ravel()
        return places

    def interpolated(self) -> np.ndarray:
        """The smooth part at the points, trilinear in the tissue, V."""
        normal, up, across = self.axes
        tissue = self.planes.body.tissue
        weights = np.zeros((self.planes.body.shape[up], self.planes.body.shape[across]))
        values = np.zeros_like(weights)
        for voxel, share in self._neighbours(normal):
            there = self._layer(tissue, voxel).astype(float)
            weights += share * there
            values += share * there * self._layer(self.planes._smooth, voxel)
        rows, columns = self._weights(up), self._weights(across)
        total = rows @ weights @ columns.T
        summed = rows @ values @ columns.T
        inside = self.tissue & (total > 0)
        found: np.ndarray = np.where(inside, summed / np.where(inside, total, 1.0), 0.0)
        return found

    def _neighbours(self, normal: int) -> list[tuple[int, float]]:
        """The two voxels whose centres the plane lies between, and their weights."""
        index = self.place / self.planes.body.spacing[normal] - 0.5
        low = int(np.floor(index))
        share = float(index - low)
        both = [(low, 1 - share), (low + 1, share)]
        return [(v, s) for v, s in both if 0 <= v < self.planes.body.shape[normal]]

    def _weights(self, axis: int) -> np.ndarray:
        """What each voxel counts at each point along an axis. (n, voxels)"""
        count = self.planes.body.shape[axis]
        index = self.along(axis) / self.planes.body.spacing[axis] - 0.5
        weights: np.ndarray = np.maximum(0.0, 1 - np.abs(index[:, None] - np.arange(count)))
        return weights

    def currents(self) -> np.ndarray:
        """J in the plane of voxels, (N, M, 2) A/m^2, up and across."""
        field = self.planes.field
        J = np.asarray(field.J)
        _, up, across = self.axes
        return self._layer(J[0] if field.many else J, self.voxel)[..., [up, across]]

    def section(self, volts: np.ndarray) -> Section:
        normal, up, across = self.axes
        shown = self.planes.scale
        shades = np.where(self.tissue, 1 + np.round((SHADES - 1) * shown.places(MILLI * volts)), 0)
        return Section(
            normal=normal,
            up=up,
            across=across,
            cut=self.place,
            volts=volts,
            shades=shades.astype(np.uint8),
            equipotentials=self._equipotentials(volts),
            outlines=outlines(self._kinds(), self.planes.body.spacing[[up, across]]),
            J=self.currents(),
        )

    def _equipotentials(self, volts: np.ndarray) -> list[np.ndarray]:
        """Lines of the levels of the scale, (P, 2) m, up and across."""
        from contourpy import contour_generator

        masked = np.ma.masked_where(~self.flows, MILLI * volts)
        _, up, across = self.axes
        generator: Any = contour_generator(self.along(across), self.along(up), masked)
        found = []
        for level in self.planes.scale.levels:
            found += [line[:, ::-1] for line in generator.lines(level)]
        return found

    def _kinds(self) -> np.ndarray:
        """Which tissue each voxel of the plane is, 0 air."""
        body = self.planes.body
        labels = body.tissue.astype(int) if body.labels is None else 1 + body.labels
        return self._layer(np.where(body.tissue, labels, 0), self.voxel)


def outlines(kinds: np.ndarray, spacing: np.ndarray) -> list[np.ndarray]:
    """Edges of voxels (n, m) between unlike ones, and of tissue at the border: straight pieces,
    each as long as it goes, (2, 2) m, up and across.
    """
    padded = np.pad(kinds, 1)
    found = []
    for axis in (0, 1):
        turned = padded if axis == 0 else padded.T
        edges = turned[1:, 1:-1] != turned[:-1, 1:-1]
        open_or_shut = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        rows, first = np.nonzero(open_or_shut == 1)
        _, last = np.nonzero(open_or_shut == -1)
        ends = np.stack([np.stack([rows, first], 1), np.stack([rows, last], 1)], axis=1)
        pieces = ends if axis == 0 else ends[..., ::-1]
        found += [*(pieces * spacing)]
    return found
