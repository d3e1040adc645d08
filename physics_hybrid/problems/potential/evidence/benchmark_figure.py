"""The picture of benchmark.json: error against seconds, and seconds against voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from physics_hybrid.problems.potential.evidence.benchmark_measures import best_seconds
from physics_hybrid.report.plots import plain_ticks, pyplot, save

#: A row of benchmark.json.
Row = Mapping[str, Any]
#: Colour of each network, by name.
Colors = Mapping[str, Any]


def figure(result: Mapping[str, Any], path: Path) -> Path:
    """Left: error against seconds a sample, each at its best batch size; bars reach to the 95th
    percentile. Right: seconds against voxels at batch 1.
    """
    plt = pyplot()
    picture, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.8), layout="constrained", gridspec_kw={"width_ratios": [1.25, 1]}
    )
    networks = [row["name"] for row in result["rows"] if row["kind"] == "network"]
    colors = dict(zip(networks, plt.get_cmap("tab10").colors, strict=False))
    draw_errors(left, result["rows"], colors)
    left.set_title(f"{result['grid']}, {result['hardware']}", fontsize=10)
    if result["by_grid"]:
        draw_costs(right, result["by_grid"], colors)
    scale(left)
    picture.legend(
        *left.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    return save(picture, path)


def milliseconds(row: Row) -> float:
    return 1e3 * best_seconds(row)


def percent(row: Row, which: str = "mean") -> float:
    return 100 * float(row["metrics"]["relative_l2"][which])


def power_of_ten(value: float) -> str:
    """1e-3 as a power of ten, anything else as it is."""
    exponent = round(math.log10(value))
    if math.isclose(value, 10.0**exponent):
        return f"$10^{{{exponent}}}$"
    return f"{value:g}"


# --- error against seconds


def draw_errors(axis: Any, rows: Sequence[Row], colors: Colors) -> None:
    """Every contender, in the order of the legend."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    for row in kinds.get("network", []):
        draw_network(axis, row, colors[row["name"]])
    if "multigrid" in kinds:
        draw_multigrid(axis, kinds["multigrid"])
    if "elements" in kinds:
        draw_elements(axis, kinds["elements"])
    for row in kinds.get("baseline", []):
        color = colors[row["name"].removesuffix(": its baseline alone")]
        axis.plot(
            milliseconds(row),
            percent(row),
            marker="x",
            color=color,
            linestyle="none",
            label=row["name"],
        )
    for row in kinds.get("analytical", []):
        axis.axhline(
            percent(row), color="0.45", linestyle=":", linewidth=1.2, label="analytical baseline"
        )


def draw_network(axis: Any, row: Row, color: Any) -> None:
    to_p95 = max(0, percent(row, "p95") - percent(row))
    axis.errorbar(
        milliseconds(row),
        percent(row),
        yerr=[[0], [to_p95]],
        marker="o",
        markersize=8,
        capsize=3,
        color=color,
        linestyle="none",
        label=row["name"],
        zorder=3,
    )


def draw_multigrid(axis: Any, rows: Sequence[Row]) -> None:
    axis.plot(
        [milliseconds(row) for row in rows],
        [percent(row) for row in rows],
        color="black",
        marker="s",
        markersize=5,
        linewidth=1.2,
        label="multigrid, relative residual as marked",
    )
    for row in rows:
        axis.annotate(
            power_of_ten(row["tolerance"]),
            (milliseconds(row), percent(row)),
            textcoords="offset points",
            xytext=(-6, -9),
            ha="right",
            fontsize=8,
            color="0.25",
        )


def draw_elements(axis: Any, rows: Sequence[Row]) -> None:
    axis.plot(
        [milliseconds(row) for row in rows],
        [percent(row) for row in rows],
        color="tab:brown",
        marker="D",
        linestyle="none",
        markersize=6,
        label="scikit-fem + pyamg, CPU",
    )


def scale(axis: Any) -> None:
    """Logarithmic, with numbers as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set(
        xscale="log",
        yscale="log",
        xlabel="ms a sample, at the best batch size",
        ylabel="relative L2 error (%)",
    )
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator())
        side.set_major_formatter(lambda value, _: f"{value:g}")
        side.set_minor_formatter(NullFormatter())
    axis.margins(x=0.12)
    axis.grid(True, which="both", alpha=0.2)


# --- seconds against voxels


def draw_costs(axis: Any, rows: Sequence[Row], colors: Colors) -> None:
    """A line for each contender; networks are named on the left."""
    from matplotlib.ticker import NullFormatter

    for name in dict.fromkeys(row["name"] for row in rows):
        points = sorted(
            (row["voxels"], 1e3 * row["seconds"]) for row in rows if row["name"] == name
        )
        solver = name not in colors
        axis.plot(
            *zip(*points, strict=True),
            marker="s" if solver else "o",
            markersize=5,
            linewidth=1.3,
            color=colors.get(name, "black"),
            label=name if solver else None,
        )
    axis.set(xscale="log", yscale="log", xlabel="grid", ylabel="ms a sample, batch 1")
    draw_proportional(axis, rows)
    voxels, grids = zip(*sorted({(row["voxels"], row["grid"]) for row in rows}), strict=True)
    axis.set_xticks(voxels, grids, rotation=30, ha="right")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.minorticks_off()
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    axis.grid(True, alpha=0.25)
    plain_ticks(axis)


def draw_proportional(axis: Any, rows: Sequence[Row]) -> None:
    """What a cost proportional to voxels looks like, below the fastest on the largest grid."""
    bottom, top = axis.get_ylim()
    low, high = min(row["voxels"] for row in rows), max(row["voxels"] for row in rows)
    there = 0.75 * min(1e3 * row["seconds"] for row in rows if row["voxels"] == high)
    axis.plot(
        (low, high),
        (there * low / high, there),
        color="0.6",
        linewidth=0.9,
        linestyle="--",
        label="proportional to voxels",
    )
    axis.set_ylim(0.7 * bottom, top)
