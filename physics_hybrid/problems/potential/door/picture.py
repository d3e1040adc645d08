"""A field as a picture: sections through an electrode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from physics_hybrid.report.plots import pyplot, save

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.field import Field

#: Names of the axes of a body.
AXES = ("D", "H", "W")
#: Sections: normal to an axis; the two others point up and across.
SECTIONS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
#: Share of the top of the scale below which it is linear where a potential has both signs.
LINEAR = 1e-2
#: Points along the edge of a voxel to which outlines are drawn: they follow edges.
FINE = 8
#: Percentile of |phi| in tissue that has the topmost colour.
TOP = 99.9


def sections(field: Field, source: int, path: str | Path | None) -> Any:
    """Three sections through an electrode, mV; lines of equal potential where it has both signs.

    Raises ValueError for no such source, OSError for a file that cannot be written.
    """
    count = len(field.sources)
    if not 0 <= source < count:
        raise ValueError(f"source must lie in 0 .. {count - 1}; got {source}")
    plt = pyplot()
    body, volts = field.body, 1e3 * field.array()[source]
    centre = _centre(field, source)
    voxel = np.minimum((centre / body.spacing).astype(int), np.array(body.shape) - 1)
    norm, colours = scale(volts[body.tissue])
    extent = 1e3 * body.extent
    widths = [extent[across] for _, _, across in SECTIONS]
    figure, axes = plt.subplots(
        1,
        3,
        figsize=(10.5, 10.5 * max(extent[up] for _, up, _ in SECTIONS) / sum(widths) * 0.8 + 1.0),
        gridspec_kw={"width_ratios": widths},
        layout="constrained",
    )
    marks = field.sources.marks(source)
    for axis, (normal, up, across) in zip(axes, SECTIONS, strict=True):
        shown = np.ma.masked_where(~body.tissue, volts).take(voxel[normal], axis=normal)
        box = (0, extent[across], 0, extent[up])
        picture = axis.imshow(shown, origin="lower", extent=box, norm=norm, cmap=colours)
        _outlines(axis, field, voxel[normal], normal, box)
        axis.set(xlim=box[:2], ylim=box[2:])
        for place, sign in marks:
            near = abs(place[normal] - centre[normal]) <= 2 * body.spacing[normal]
            if near:
                axis.plot(1e3 * place[across], 1e3 * place[up], sign, color="k", ms=9, mew=1.8)
        axis.set_xlabel(f"{AXES[across]} (mm)")
        axis.set_ylabel(f"{AXES[up]} (mm)")
        cut = 1e3 * (voxel[normal] + 0.5) * body.spacing[normal]
        axis.set_title(f"{AXES[normal]} = {cut:.1f} mm")
    figure.colorbar(picture, ax=axes, label="potential (mV)", shrink=0.9, pad=0.01)
    return figure if path is None else save(figure, Path(path).expanduser(), dpi=130)


def _centre(field: Field, source: int) -> np.ndarray:
    """Where the sections are taken, (3,) m: the electrode, or the voxel of largest |phi|."""
    body, points = field.body, field.sources.points
    if points is not None:
        centre = np.clip(points[source].detach().cpu().numpy(), 0, body.extent)
    else:
        volts = np.abs(field.array()[source])
        centre = (np.array(np.unravel_index(volts.argmax(), volts.shape)) + 0.5) * body.spacing
    return np.asarray(centre)


def scale(millivolts: np.ndarray) -> tuple[Any, str]:
    """A logarithmic scale of three decades, or a symmetric one where both signs matter."""
    from matplotlib.colors import LogNorm, SymLogNorm

    top = float(np.percentile(np.abs(millivolts), TOP)) or 1.0
    low, high = (float(np.percentile(millivolts, p)) for p in (1, 99))
    if low >= -1e-3 * top:
        return LogNorm(max(top / 1e3, low), top, clip=True), "viridis"
    if high <= 1e-3 * top:
        return SymLogNorm(top / 1e3, vmin=-top, vmax=0, clip=True), "viridis_r"
    return SymLogNorm(LINEAR * top, vmin=-top, vmax=top, clip=True), "RdBu_r"


def _outlines(axis: Any, field: Field, cut: int, normal: int, box: tuple[float, ...]) -> None:
    """Edges between tissues that conduct differently, and of the body."""
    sigma = field.body.sigma[0, :3].detach().cpu().numpy().mean(axis=0).take(cut, axis=normal)
    if field.body.labels is not None:
        sigma = np.where(sigma > 0, 1.0 + field.body.labels.take(cut, axis=normal), 0.0)
    levels = np.unique(sigma)
    if len(levels) < 2 or len(levels) > 12:
        levels = np.array([0.0, float(sigma.max())])
    inside = np.pad(sigma, 1)
    rows = _finely(box[2], box[3], sigma.shape[0])
    columns = _finely(box[0], box[1], sigma.shape[1])
    for level in levels[1:]:
        edges = (inside >= level - 1e-12).repeat(FINE, axis=0).repeat(FINE, axis=1)
        axis.contour(columns, rows, edges.astype(float), [0.5], colors="k", linewidths=0.6)


def _finely(low: float, high: float, count: int) -> np.ndarray:
    """Where `FINE` points in each of so many voxels lie, and in one more at either side."""
    voxel = (high - low) / count
    positions: np.ndarray = low - voxel + (np.arange(FINE * (count + 2)) + 0.5) * voxel / FINE
    return positions
