"""The picture of validate.json: error against spacing, and the order that comes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from physics_hybrid.report.plots import pyplot, save

#: solver -> its row of one case and region.
Curve = dict[str, dict[str, Any]]
#: Spacing in mm, error in per cent.
Point = tuple[float, float]

TITLES = {
    "boxes": "layered boxes",
    "half-spaces": "half-spaces",
    "staircases": "round bodies on square voxels",
}

#: Marker and line of a solver.
Style = tuple[str, Literal["-", "--", ":"]]
STYLES: tuple[Style, ...] = (("o", "-"), ("s", "--"), ("^", ":"))


def figure(result: Mapping[str, Any], path: Path) -> Path:
    """Error against spacing, a panel for each group; full lines and dots one solver, dashed lines
    and squares the other; fitted orders in the legend.
    """
    plt = pyplot()
    groups = list(dict.fromkeys(case["group"] for case in result["cases"]))
    picture, axes = plt.subplots(
        1, len(groups), figsize=(4.9 * len(groups), 6.6), layout="constrained", squeeze=False
    )
    styles = dict(zip(result["solvers"], STYLES, strict=False))
    for axis, group in zip(axes[0], groups, strict=True):
        cases = [case for case in result["cases"] if case["group"] == group]
        curves = curves_of(cases)
        colors = plt.get_cmap("tab10").colors
        points: list[Point] = []
        for color, (label, rows) in zip(colors, curves.items(), strict=False):
            draw_curve(axis, label, rows, color, styles)
            points += points_of(rows)
        axis.set_title(TITLES.get(group, group))
        if not points:
            axis.text(0.5, 0.5, "nothing was solved", transform=axis.transAxes, ha="center")
            continue
        draw_slopes(axis, points)
        scale(axis, points)
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.11),
            fontsize=8,
            frameon=False,
            title=f"fitted order, {' / '.join(result['solvers'])}",
            title_fontsize=8,
        )
    axes[0][0].set_ylabel("relative L2 error (%)")
    name_solvers(picture, styles)
    return save(picture, path)


def curves_of(cases: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """label -> the rows of one case and region."""
    curves = {}
    for case in cases:
        regions = drawn_regions(case)
        for region in regions:
            if len(regions) == 1:
                label = case["name"].removeprefix("box, ").removeprefix("half-spaces, ")
            else:
                label = f"{case['name'].split(':')[0]}, {region}"
            curves[label] = {row["solver"]: row for row in case["rows"] if row["region"] == region}
    return curves


def drawn_regions(case: Mapping[str, Any]) -> list[str]:
    """The regions that an order is demanded in; where there are none, those with any demand."""
    held = [row for row in case["rows"] if row["demanded"]]
    ordered = [row for row in held if any("order" in demand for demand in row["demanded"])]
    return list(dict.fromkeys(row["region"] for row in ordered or held))


def points_of(rows: Curve) -> list[Point]:
    """Everything of a curve that was solved."""
    points = []
    for row in rows.values():
        for h, error in zip(row["spacing_mm"], row["relative_l2"], strict=True):
            if math.isfinite(error):
                points.append((h, 100 * error))
    return points


def draw_curve(axis: Any, label: str, rows: Curve, color: Any, styles: Mapping[str, Style]) -> None:
    """A line for each solver, and one entry of the legend for all of them."""
    orders = []
    for name, row in rows.items():
        marker, line = styles[name]
        axis.plot(
            row["spacing_mm"],
            [100 * error for error in row["relative_l2"]],
            color=color,
            marker=marker,
            linestyle=line,
            markersize=4,
            linewidth=1.2,
        )
        orders.append(f"{row['order']:.2f}" if math.isfinite(row["order"]) else "failed")
    axis.plot([], [], color=color, linewidth=2.5, label=f"{label}: {' / '.join(orders)}")


def draw_slopes(axis: Any, points: Sequence[Point]) -> None:
    """What orders 1 and 2 look like, above all curves."""
    finest, coarsest = min(h for h, _ in points), max(h for h, _ in points)
    high = max(error for _, error in points)
    for slope in (1, 2):
        line = [2 * high * (h / coarsest) ** slope for h in (finest, coarsest)]
        axis.plot((finest, coarsest), line, color="0.6", linewidth=0.8, zorder=0)
        axis.annotate(
            f"order {slope}",
            (finest, line[0]),
            color="0.4",
            fontsize=8,
            ha="left",
            va="bottom",
            xytext=(2, 2),
            textcoords="offset points",
        )


def scale(axis: Any, points: Sequence[Point]) -> None:
    """Logarithmic axes, with the spacings that were solved as ticks."""
    from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

    steps, errors = sorted({h for h, _ in points}), [error for _, error in points]
    limits = (min(errors) / 1.6, max(errors) * 2.6)
    axis.set(xscale="log", yscale="log", xlabel="spacing h (mm)", ylim=limits)
    axis.xaxis.set_major_locator(FixedLocator(steps))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.grid(True, which="both", alpha=0.25)


def name_solvers(picture: Any, styles: Mapping[str, Style]) -> None:
    """The legend above all panels: which line is which solver."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D(
            [],
            [],
            color="black",
            marker=marker,
            linestyle=line,
            markersize=4,
            linewidth=1.2,
            label=name,
        )
        for name, (marker, line) in styles.items()
    ]
    picture.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)
