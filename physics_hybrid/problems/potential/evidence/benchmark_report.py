"""What benchmark.json says, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from physics_hybrid.report.markdown import table

#: The content of benchmark.json, and one row of it.
Result = Mapping[str, Any]
Row = Mapping[str, Any]

#: Where the row of a network has its error with bones that it was not trained on.
BONES = "real bones"


def tables(result: Result) -> str:
    """Contenders, speeds at matched accuracy, cost against grid size, roofline."""
    parts = [contenders_table(result), origin(result)]
    if result["speeds"]:
        parts.append(speeds_table(result))
    if result["by_grid"]:
        parts.append(by_grid_table(result))
    if result["roofline"]:
        parts += [roofline_table(result), peak_sentence(result)]
    return "\n\n".join(parts)


def milliseconds(value: float | None) -> str:
    return "" if value is None else f"{1e3 * value:.3g}"


# --- contenders


def contenders_table(result: Result) -> str:
    sizes = [str(size) for size in result["batch_sizes"]]
    heads = [
        "what",
        "parameters",
        "relative L2",
        "p95",
        "RDM, skin",
        "MAG, skin",
        BONES,
        *(f"ms a sample, batch {size}" for size in sizes),
        "MB",
    ]
    lines = []
    for row in result["rows"]:
        costs = costs_of(row, sizes)
        seconds = [None if cost is None else cost["seconds"] for cost in costs]
        cells = [
            f"{row['name']}{note_of(row)}",
            parameters(row),
            statistic(row, "relative_l2", "mean"),
            statistic(row, "relative_l2", "p95"),
            statistic(row, "rdm_skin", "mean"),
            statistic(row, "mag_skin", "mean"),
            f"{row[BONES]['mean']:.4g}" if BONES in row else "",
            *map(milliseconds, seconds),
            memory(costs),
        ]
        lines.append(cells)
    return table(heads, lines)


def costs_of(row: Row, sizes: list[str]) -> list[Row | None]:
    """The cost at each batch size; a contender that was measured at another one has that first."""
    costs = [row["cost"].get(size) for size in sizes]
    if any(costs):
        return costs
    return [next(iter(row["cost"].values())), *[None] * (len(sizes) - 1)]


def note_of(row: Row) -> str:
    if row.get("trained_on_other_limbs"):
        return " (trained on other limbs)"
    if row["kind"] == "multigrid":
        return f" ({row['dtype']})"
    return ""


def parameters(row: Row) -> str:
    return f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else ""


def statistic(row: Row, metric: str, which: str) -> str:
    """Empty where no sample has the metric."""
    metrics = row["metrics"]
    return f"{metrics[metric][which]:.4g}" if metric in metrics else ""


def memory(costs: list[Row | None]) -> str:
    """The largest of all batch sizes."""
    known = [cost["MB"] for cost in costs if cost and cost["MB"] is not None]
    return f"{max(known):.0f}" if known else ""


def origin(result: Result) -> str:
    """On what, and where."""
    solved = [row["samples"] for row in result["rows"] if row["kind"] == "elements"]
    elements = f" (finite elements: {solved[0]})" if solved else ""
    return (
        f"{result['samples']} unseen limbs at {result['grid']}{elements}, truth by"
        f" {result['truth'].replace('_', ' ')}, ends {result['ends']}; {result['hardware']}, torch"
        f" {result['torch']}, commit {result['commit'][:10]}, {result['date']}."
    )


# --- speeds


def speeds_table(result: Result) -> str:
    heads = [
        "network",
        "relative L2",
        "ms a sample",
        "multigrid that reaches it",
        "its ms",
        "times faster",
        "than scikit-fem + pyamg",
        f"the same on {result['cpu_threads']} CPU threads",
    ]
    lines = []
    for speed in result["speeds"]:
        cells = [
            speed["name"],
            f"{speed['relative_l2']:.4g}",
            milliseconds(speed["seconds"]),
            rival_of(speed),
            milliseconds(speed["multigrid_seconds"]),
            times(speed["times_multigrid"]),
            times(speed["times_elements"]),
            times(speed["times_elements_on_the_same_cpu"]),
        ]
        lines.append(cells)
    return table(heads, lines)


def rival_of(speed: Row) -> str:
    if not speed["multigrid"]:
        return "none of these tolerances"
    return f"{speed['multigrid']} ({speed['multigrid_relative_l2']:.4g})"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


# --- grids and floors


def by_grid_table(result: Result) -> str:
    rows = result["by_grid"]
    grids = list(dict.fromkeys(row["grid"] for row in rows))
    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        own = {row["grid"]: row["seconds"] for row in rows if row["name"] == name}
        lines.append([name, *(milliseconds(own.get(grid)) for grid in grids)])
    return table(["ms a sample, batch 1", *grids], lines)


def roofline_table(result: Result) -> str:
    heads = [
        "forward pass of the backbone",
        "batch",
        "GB moved at least",
        "Gop",
        "floor, ms",
        "measured, ms",
        "over the floor",
    ]
    lines = [
        [
            row["name"],
            row["batch"],
            f"{row['bytes'] / 1e9:.3g}",
            f"{row['operations'] / 1e9:.3g}",
            milliseconds(row["floor"]),
            milliseconds(row["seconds"]),
            f"{row['over_floor']:.3g}",
        ]
        for row in result["roofline"]
    ]
    return table(heads, lines)


def peak_sentence(result: Result) -> str:
    peak = result["peak"]
    return (
        f"Floor: at {peak['bandwidth'] / 1e9:.0f} GB/s (a copy) and {peak['matmul'] / 1e12:.3g}"
        " Top/s (a float32 matrix product), measured in the same run, on a CPU in one thread and in"
        " seconds of the processor."
    )
