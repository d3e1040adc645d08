"""What bench.json says, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from physics_hybrid.problems.potential.evidence.rivals_voxels import GOALS, OURS, OURS_TOGETHER
from physics_hybrid.report.markdown import table

#: The content of bench.json, and one row of it.
Result = Mapping[str, Any]
Row = Mapping[str, Any]


def tables(result: Result) -> str:
    """Solvers on each grid, the cylinder, the networks, and where it was measured."""
    parts = []
    for grid in result["grids"]:
        parts += [goals_table(grid), verdict(grid)]
    if result["cylinder"]:
        parts += [cylinder_table(result["cylinder"]), cylinder_verdict(result["cylinder"])]
    if result["networks"]:
        parts.append(networks_table(result["networks"]))
    else:
        parts.append("No network was given to this run.")
    return "\n\n".join([*parts, origin(result)])


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def origin(result: Result) -> str:
    before, after = result["load"]
    return (
        f"{limbs_of(result)}medians of {result['repeats']} calls, seconds of the processor;"
        f" {result['hardware']} of {result['cores']}, load {before:.1f} at the"
        f" start and {after:.1f} at the end; torch {result['torch']}, commit"
        f" {result['commit'][:10]}, {result['date']}."
    )


def limbs_of(result: Result) -> str:
    counts = [f"{grid['limbs']} unseen limbs at {grid['grid']}" for grid in result["grids"]]
    return "".join(f"{count}, " for count in counts)


# --- limbs on voxels


def percent_or_power(goal: float) -> str:
    return "1 %" if goal == GOALS[0] else f"{goal:g}"


def without_setup(row: Row) -> float:
    return float(row["source"] + row["solve"])


def whole(row: Row) -> float:
    return float(row["setup"]) + without_setup(row)


def reached(goals: Sequence[Row], goal: float) -> list[Row]:
    """The rows of one goal whose solver got there, ours first."""
    return [row for row in goals if row["goal"] == goal and "solve" in row]


def goals_table(grid: Row) -> str:
    heads = [
        f"limbs at {grid['grid']}",
        "to",
        "relative residual",
        "error",
        "iterations",
        "setup, ms",
        "source, ms",
        "solve, ms",
        "all, ms",
        "over ours",
        "setup not counted, ms",
        "over ours",
    ]
    lines = []
    for goal in GOALS:
        own = next((row for row in reached(grid["goals"], goal) if row["solver"] == OURS), None)
        rows = [row for row in grid["goals"] if row["goal"] == goal]
        lines += [[row["solver"], percent_or_power(goal), *cells(row, own)] for row in rows]
    return table(heads, lines)


def cells(row: Row, ours: Row | None) -> list[str]:
    if "solve" not in row:
        return ["not reached", *[""] * 9]
    return [
        f"{row['tolerance']:g}",
        f"{row['error']:.2g}",
        f"{row['iterations']:g}",
        milliseconds(row["setup"]),
        milliseconds(row["source"]),
        milliseconds(row["solve"]),
        milliseconds(whole(row)),
        f"{whole(row) / whole(ours):.2f}" if ours else "",
        milliseconds(without_setup(row)),
        f"{without_setup(row) / without_setup(ours):.2f}" if ours else "",
    ]


def verdict(grid: Row) -> str:
    """Who is faster than ours with one electrode, in words."""
    said = []
    for goal in GOALS:
        rows = reached(grid["goals"], goal)
        ours = next((row for row in rows if row["solver"] == OURS), None)
        if ours is None:
            said.append(f"To {percent_or_power(goal)} ours does not come.")
            continue
        for counted, seconds in (("setup counted", whole), ("setup not counted", without_setup)):
            others = [row for row in rows if row["solver"] != OURS_TOGETHER]
            faster = [row for row in others if seconds(row) < seconds(ours)]
            names = ", ".join(
                f"{row['solver']} ({seconds(ours) / seconds(row):.1f} times)"
                for row in sorted(faster, key=seconds)
            )
            said.append(
                f"{grid['grid']}, to {percent_or_power(goal)}, {counted}: "
                + (f"faster than ours: {names}." if names else "ours is the fastest.")
            )
    return "\n".join(f"- {line}" for line in said)


# --- the layered cylinder


def cylinder_table(rows: Sequence[Row]) -> str:
    heads = [
        "layered cylinder, exact series",
        "largest edge, mm",
        "unknowns",
        "error beyond 10 mm",
        "mesh, s",
        "setup, s",
        "solve, s",
        "all, s",
        "mesh not counted, s",
    ]
    lines = [
        [
            row["method"],
            f"{1e3 * row['size']:g}",
            row["unknowns"],
            f"{row['error']:.2g}",
            f"{row['mesh']:.3g}" if row["mesh"] else "",
            f"{row['setup']:.3g}",
            f"{row['solve']:.3g}",
            f"{row['mesh'] + row['setup'] + row['solve']:.3g}",
            f"{row['setup'] + row['solve']:.3g}",
        ]
        for row in rows
    ]
    return table(heads, lines)


def cylinder_verdict(rows: Sequence[Row]) -> str:
    """Who is closer to the series than our best, in fewer seconds."""
    ours = min((r for r in rows if r["method"] == OURS), key=lambda r: r["error"], default=None)
    if ours is None:
        return ""
    best = ours["setup"] + ours["solve"]
    said = []
    for counted, share in (("mesh counted", 1.0), ("mesh not counted", 0.0)):
        better = [
            f"{row['method']} at {1e3 * row['size']:g} mm"
            for row in rows
            if row["error"] < ours["error"]
            and share * row["mesh"] + row["setup"] + row["solve"] < best
        ]
        said.append(
            f"- Closer than our best ({ours['error']:.2g} at {1e3 * ours['size']:g} mm) and faster,"
            f" {counted}: {', '.join(better) or 'nobody'}."
        )
    closest = min(rows, key=lambda row: row["error"])
    said.append(f"- Closest of all: {closest['method']}, {closest['error']:.2g}.")
    return "\n".join(said)


# --- networks


def networks_table(rows: Sequence[Row]) -> str:
    heads = [
        "network",
        "limbs at",
        "error",
        "ms",
        "training, s",
        "against",
        "its error",
        "its ms",
        "pays after so many solves",
        "its ms, setup not counted",
        "pays after",
    ]
    lines = [network_cells(row, rival) for row in rows for rival in row["against"]]
    return table(heads, lines)


def network_cells(network: Row, rival: Row) -> list[str]:
    training = network["training_seconds"]
    return [
        network["name"],
        network["grid"],
        f"{network['error']:.3g}",
        milliseconds(network["seconds"]),
        "not known" if training is None else f"{training:.3g}",
        f"{rival['solver']} {rival['tolerance']:g}",
        f"{rival['error']:.3g}",
        milliseconds(rival["seconds"]),
        solves(network, rival, "seconds", "pays_after"),
        milliseconds(rival["seconds_without_setup"]),
        solves(network, rival, "seconds_without_setup", "pays_after_without_setup"),
    ]


def solves(network: Row, rival: Row, seconds: str, after: str) -> str:
    """A number of solves, never, or not known."""
    if rival[seconds] <= network["seconds"]:
        return "never"
    if network["training_seconds"] is None:
        return "not known"
    return f"{rival[after]:.0f}"
