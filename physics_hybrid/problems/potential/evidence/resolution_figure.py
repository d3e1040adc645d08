"""What was measured, as a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from physics_hybrid.problems.potential.evidence.resolution_running import BASELINE, DIRECT
from physics_hybrid.problems.potential.evidence.resolution_tables import (
    Cell,
    Cells,
    best_upsampling,
    index,
    parts,
    rows_of,
)
from physics_hybrid.report.plots import plain_ticks, pyplot, save


@dataclass(frozen=True)
class Style:
    """How a contender is drawn; face: inside its markers, None: as the line."""

    color: Any
    linestyle: Any
    marker: str
    face: Any = None


DIRECT_STYLE = Style("black", "-", "o")
UPSAMPLED_STYLE = Style("black", "--", "s", "white")
BASELINE_STYLE = Style("0.45", ":", "^")


def figure(result: dict[str, Any], path: Path) -> Path:
    """Error on every grid; on the finest by wavelength and by distance. A colour for each row of
    the matrix; full: direct, dashed: its best interpolation.
    """
    plt = pyplot()
    cells, trained = index(result), rows_of(result)
    grids = sorted(result["grids"], key=_voxels)
    colors = dict(zip(trained, itertools.cycle(plt.get_cmap("tab10").colors), strict=False))
    figure_, axes = plt.subplots(
        1, 3, figsize=(13.5, 4.9), layout="constrained", gridspec_kw={"width_ratios": [1.2, 1, 1]}
    )
    _draw_grids(axes[0], cells, grids, colors)
    for axis, kind in ((axes[1], "wavelength"), (axes[2], "distance")):
        names = parts(result, kind)
        for cell, style in _lines(cells, grids[-1], colors):
            _draw(axis, [cell.get(f"{kind}/{name}") for name in names], style)
        axis.set_xticks(range(len(names)), [_tick(name) for name in names])
        axis.set_title(f"on {grids[-1]}", fontsize=10)
    axes[1].set(xlabel="wavelength (mm)", ylabel="part of the relative L2 error (%)")
    axes[2].set(xlabel="distance from the source (mm)", ylabel="relative L2 error in the shell (%)")
    for axis in axes:
        axis.set_yscale("log")
        plain_ticks(axis)
        axis.grid(True, which="both", alpha=0.25)
    upsampled = any(best_upsampling(cells, row, grid) for row in trained for grid in grids)
    marks = _marks(colors, upsampled)
    columns = min(len(marks), 4)
    figure_.legend(handles=marks, loc="outside upper center", ncols=columns, frameon=False)
    return save(figure_, path)


def _voxels(grid: str) -> int:
    return math.prod(int(n) for n in grid.split("x"))


def _draw(axis: Any, values: Sequence[dict[str, Any] | None], style: Style) -> None:
    """Means in percent at 0, 1, ...; bars are a standard deviation over seeds. Left out: what was
    not measured, and zeros, which have no logarithm.
    """
    places, means, bars = [], [], []
    for place, value in enumerate(values):
        if value is not None and value["mean"] > 0:
            places.append(place)
            means.append(100 * value["mean"])
            bars.append(100 * (value["std"] or 0))
    if not places:
        return
    axis.errorbar(
        places,
        means,
        yerr=bars if any(bars) else None,
        color=style.color,
        linestyle=style.linestyle,
        marker=style.marker,
        markersize=5,
        markerfacecolor=style.face or style.color,
        linewidth=1.4,
        capsize=3,
    )


def _draw_grids(axis: Any, cells: Cells, grids: list[str], colors: dict[str, Any]) -> None:
    """Error against the grid a network is used on."""
    for row, color in colors.items():
        direct = [cells[row, grid, DIRECT]["relative_l2"] for grid in grids]
        best = [best_upsampling(cells, row, grid) for grid in grids]
        upsampled = [cell["relative_l2"] if cell else None for cell in best]
        _draw(axis, direct, replace(DIRECT_STYLE, color=color))
        _draw(axis, upsampled, replace(UPSAMPLED_STYLE, color=color))
    first = next(iter(colors))
    baseline = [cells[first, grid, BASELINE]["relative_l2"] for grid in grids]
    _draw(axis, baseline, BASELINE_STYLE)
    axis.set_xticks(range(len(grids)), grids, rotation=30, ha="right")
    axis.set(xlabel="grid it is used on", ylabel="relative L2 error (%)")


def _lines(cells: Cells, grid: str, colors: dict[str, Any]) -> list[tuple[Cell, Style]]:
    """What is drawn by wavelength and by distance: every row, its best interpolation, and the
    baseline.
    """
    lines = []
    for row, color in colors.items():
        lines.append((cells[row, grid, DIRECT], replace(DIRECT_STYLE, color=color)))
        best = best_upsampling(cells, row, grid)
        if best:
            lines.append((best, replace(UPSAMPLED_STYLE, color=color)))
    first = next(iter(colors))
    return [*lines, (cells[first, grid, BASELINE], BASELINE_STYLE)]


def _tick(part: str) -> str:
    """32mm+ -> ≥ 32, 0-4mm -> < 4, 4-8mm -> 4–8."""
    pretty = part.removesuffix("+").removesuffix("mm").replace("-", "–")
    if part.endswith("+"):
        return f"≥ {pretty}"
    if pretty.startswith("0–"):
        return f"< {pretty.removeprefix('0–')}"
    return pretty


def _marks(colors: dict[str, Any], upsampled: bool) -> list[Any]:
    """The legend: colours by row, then line styles by contender."""
    from matplotlib.lines import Line2D

    def mark(style: Style, label: str) -> Line2D:
        return Line2D(
            [],
            [],
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker,
            markerfacecolor=style.face or style.color,
            markersize=5,
            label=label,
        )

    marks = [
        Line2D([], [], color=color, linewidth=2.5, label=f"trained on {row}")
        for row, color in colors.items()
    ]
    marks.append(mark(DIRECT_STYLE, "direct"))
    if upsampled:
        marks.append(mark(UPSAMPLED_STYLE, "best of 4 interpolations"))
    return [*marks, mark(BASELINE_STYLE, "baseline alone")]
