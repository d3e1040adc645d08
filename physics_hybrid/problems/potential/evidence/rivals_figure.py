"""The picture of bench.json: error against seconds, on limbs and on the cylinder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from physics_hybrid.problems.potential.evidence.rivals_voxels import (
    ELEMENTS,
    GOALS,
    OURS,
    OURS_TOGETHER,
)
from physics_hybrid.report.plots import plain_ticks, pyplot, save

#: A row of bench.json.
Row = Mapping[str, Any]

#: Ours and finite elements look alike in every panel.
STYLES = {OURS: ("black", "s"), OURS_TOGETHER: ("0.55", "s"), ELEMENTS: ("tab:brown", "D")}
#: Brown and grey of tab10 are theirs.
TAKEN = (5, 7)
MARKERS = "ov^PXp<>"

#: Colours of networks.
NETWORKS = ("gold", "white", "tab:pink", "tab:cyan")

#: Decades of an axis up to which 2 and 5 are marked, too.
FEW = 2.5


def figure(result: Mapping[str, Any], path: Path) -> Path:
    """A panel for each grid and one for the cylinder. Filled: all seconds; hollow: without setup
    (on the cylinder: without the mesh)."""
    plt = pyplot()
    panels = len(result["grids"]) + bool(result["cylinder"])
    picture, axes = plt.subplots(
        1, panels, figsize=(1.5 + 4.3 * panels, 5.2), layout="constrained", squeeze=False
    )
    styles = styles_of(result, plt)
    for axis, grid in zip(axes[0], result["grids"], strict=False):
        draw_limbs(axis, grid, styles)
        draw_networks(axis, result["networks"], grid["grid"])
    if result["cylinder"]:
        draw_cylinder(axes[0, -1], result["cylinder"], styles)
    known: dict[str, Any] = {}
    for axis in axes[0]:
        finish(axis)
        handles, labels = axis.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    picture.legend(
        [*known.values()],
        [*known],
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=8.5,
        title="filled: all seconds    hollow: setup not counted (cylinder: mesh not counted)",
        title_fontsize=8.5,
    )
    return save(picture, path)


def styles_of(result: Mapping[str, Any], plt: Any) -> dict[str, tuple[Any, str]]:
    """Colour and marker by name."""
    names = [row["solver"] for grid in result["grids"] for row in grid["rows"]]
    names += [row["method"] for row in result["cylinder"]]
    others = [name for name in dict.fromkeys(names) if name not in STYLES]
    colors = [c for i, c in enumerate(plt.get_cmap("tab10").colors) if i not in TAKEN]
    styles: dict[str, tuple[Any, str]] = dict(STYLES)
    for i, name in enumerate(others):
        styles[name] = (colors[i % len(colors)], MARKERS[i % len(MARKERS)])
    return styles


def draw_limbs(axis: Any, grid: Row, styles: Mapping[str, tuple[Any, str]]) -> None:
    for name in dict.fromkeys(row["solver"] for row in grid["rows"]):
        rows = [row for row in grid["rows"] if row["solver"] == name]
        errors = [row["error"] for row in rows]
        without = [row["source"] + row["solve"] for row in rows]
        all_of_it = [row["setup"] + s for row, s in zip(rows, without, strict=True)]
        draw_pair(axis, name, (all_of_it, without), errors, styles[name])
    for goal in GOALS:
        axis.axhline(goal, color="0.6", linewidth=0.8, linestyle=":")
    axis.set_title(f"limbs at {grid['grid']}", fontsize=10)
    axis.set_ylabel("relative L2 beyond 3 voxels,\nfrom the converged solution")


def draw_networks(axis: Any, rows: Sequence[Row], grid: str) -> None:
    for number, row in enumerate(row for row in rows if row["grid"] == grid):
        axis.plot(
            row["seconds"],
            row["error"],
            marker="*",
            markersize=13,
            linestyle="none",
            color=NETWORKS[number % len(NETWORKS)],
            markeredgecolor="black",
            label=f"network: {row['name']}",
            zorder=4,
        )


def draw_cylinder(axis: Any, rows: Sequence[Row], styles: Mapping[str, tuple[Any, str]]) -> None:
    for name in dict.fromkeys(row["method"] for row in rows):
        own = sorted((row for row in rows if row["method"] == name), key=lambda row: -row["size"])
        errors = [row["error"] for row in own]
        without = [row["setup"] + row["solve"] for row in own]
        all_of_it = [row["mesh"] + s for row, s in zip(own, without, strict=True)]
        draw_pair(axis, name, (all_of_it, without), errors, styles[name])
    axis.set_title("layered cylinder", fontsize=10)
    axis.set_ylabel("relative L2 beyond 10 mm,\nfrom the exact series")


def draw_pair(
    axis: Any,
    name: str,
    seconds: tuple[Sequence[float], Sequence[float]],
    errors: Sequence[float],
    style: tuple[Any, str],
) -> None:
    """All seconds, filled, and those without what is made once, hollow."""
    color, marker = style
    look = {"color": color, "marker": marker, "markersize": 5.5, "linewidth": 1.2}
    axis.plot(seconds[0], errors, label=name, **look)
    if seconds[1] != seconds[0]:
        axis.plot(seconds[1], errors, linestyle="--", markerfacecolor="white", **look)


def finish(axis: Any) -> None:
    """Logarithmic, with seconds as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set(xscale="log", yscale="log", xlabel="seconds of the processor, one thread")
    decades = math.log10(axis.get_xlim()[1] / axis.get_xlim()[0])
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < FEW else (1,)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(True, which="major", alpha=0.25)
    if math.log10(axis.get_ylim()[1] / axis.get_ylim()[0]) < FEW:
        plain_ticks(axis)
