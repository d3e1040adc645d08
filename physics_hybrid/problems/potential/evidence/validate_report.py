"""What validate.json says, in Markdown: tables, and the sentences between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physics_hybrid.problems.potential.evidence.limb_agreement import FAR
from physics_hybrid.report.markdown import table

#: The content of validate.json, and one row of it.
Result = Mapping[str, Any]
Row = Mapping[str, Any]


def percent(value: float) -> str:
    """Two figures; nothing finer than 0.001 %."""
    if not math.isfinite(value):
        return "failed"
    value *= 100
    if value < 0.1:
        return f"{value:.3f}"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}"


# --- exact solutions


def main_table(result: Result) -> str:
    """A row for each case and region that something is demanded of."""
    names = result["solvers"]
    heads = ["exact solution", "h, mm"]
    for name in names:
        heads += [f"{name}, %", "order"]
    heads += ["demanded", "met"]
    lines = []
    for case in result["cases"]:
        regions = list(dict.fromkeys(row["region"] for row in case["rows"] if row["demanded"]))
        for region in regions:
            where = case["name"] if len(regions) == 1 else f"{case['name']}: {region}"
            rows = {row["solver"]: row for row in case["rows"] if row["region"] == region}
            lines.append([where, *_judged_cells(rows, names)])
    return table(heads, lines)


def _judged_cells(rows: Mapping[str, Row], names: Sequence[str]) -> list[str]:
    """Spacings, errors and order of each solver, what is demanded, whether it is met."""
    first = next(iter(rows.values()))
    cells = [", ".join(f"{h:g}" for h in first["spacing_mm"])]
    for name in names:
        row = rows[name]
        cells.append(", ".join(percent(error) for error in row["relative_l2"]))
        cells.append(f"{row['order']:.2f}" if math.isfinite(row["order"]) else "")
    return [*cells, _demanded(rows), _met(rows)]


def _demanded(rows: Mapping[str, Row]) -> str:
    """The demands, each with the solvers that it holds where it does not hold all."""
    held: dict[str, list[str]] = {}
    for name, row in rows.items():
        for demand in row["demanded"]:
            held.setdefault(demand, []).append(name)
    parts = []
    for demand, who in held.items():
        everyone = len(who) == len(rows)
        parts.append(demand if everyone else f"{' and '.join(who)}: {demand}")
    return "; ".join(parts)


def _met(rows: Mapping[str, Row]) -> str:
    failing = [name for name, row in rows.items() if row["missed"] or row["failed"]]
    missing = [name for name, row in rows.items() if row["missed_not_binding"]]
    parts = []
    if failing:
        parts.append(f"**no**, {' and '.join(failing)}")
    if missing:
        parts.append(f"missed by {' and '.join(missing)}, not binding")
    return "; ".join(parts) or "yes"


def notes_of(result: Result) -> str:
    """A line for each note, with the cases that it is about."""
    about: dict[str, list[str]] = {}
    for case in result["cases"]:
        if case["note"]:
            about.setdefault(case["note"], []).append(case["name"])
    return "\n".join(f"- {', '.join(names)}: {note}" for note, names in about.items())


def not_met(result: Result) -> str:
    """A line for everything that is missed or has failed."""
    lines = []
    for case in result["cases"]:
        for row in case["rows"]:
            wrong = [*row["missed"], *row["missed_not_binding"]]
            if row["failed"]:
                wrong.append(row["failed"])
            where = f"{case['name']}, {row['solver']}, {row['region']}"
            lines += [f"- {where}: {text}" for text in wrong]
    lines += [f"- {text}" for text in result["limbs_missed"]]
    return "\n".join(lines)


# --- sources near interfaces


class NearSource(NamedTuple):
    """Relative L2 of one source, and where it lay: voxels from the interface, spacing in mm."""

    error: float
    interface: str
    distance: float
    spacing: float


def interface_table(result: Result) -> str:
    """Sources near interfaces, error in % beyond 3 voxels."""
    rows = result["near_interfaces"]
    columns = sorted({distance for row in rows for distance in row["distance_voxels"]})
    heads = ["interface, from the side of the source", "h, mm", "solver"]
    heads += [f"{distance:g} h" for distance in columns]
    lines = []
    for row in rows:
        for i, h in enumerate(row["spacing_mm"]):
            for name in result["solvers"]:
                errors = dict(zip(row["distance_voxels"], row["relative_l2"][name][i], strict=True))
                cells = [percent(errors[d]) if d in errors else "" for d in columns]
                lines.append([row["interface"], f"{h:g}", name, *cells])
    return table(heads, lines)


def _near_sources(rows: Sequence[Row], solver: str) -> list[NearSource]:
    out = []
    for row in rows:
        for h, errors in zip(row["spacing_mm"], row["relative_l2"][solver], strict=True):
            for distance, error in zip(row["distance_voxels"], errors, strict=True):
                out.append(NearSource(error, row["interface"], distance, h))
    return out


def _badness(source: NearSource) -> float:
    """What was not solved is worse than any error."""
    return source.error if math.isfinite(source.error) else math.inf


def interface_sentence(result: Result) -> str:
    """The largest and the middle error of each solver."""
    rows = result["near_interfaces"]
    parts = []
    for name in result["solvers"]:
        sources = _near_sources(rows, name)
        worst = max(sources, key=_badness)
        usual = float(np.nanmedian([source.error for source in sources]))
        parts.append(
            f"{name} at most {percent(worst.error)} % ({worst.interface}, {worst.distance:g}"
            f" voxels, {worst.spacing:g} mm), in the middle {percent(usual)} %"
        )
    distances = [distance for row in rows for distance in row["distance_voxels"]]
    return (
        f"Sources {min(distances):g} to {max(distances):g} voxels from a flat interface, beyond 3"
        f" voxels of them: {'; '.join(parts)}."
    )


# --- limbs


def agreement_table(result: Result) -> str:
    """Finite volumes against finite elements, median and largest over limbs."""
    heads = [
        "fibres",
        "source from other tissue",
        "limbs",
        "grid",
        "RDM, median (largest)",
        "abs(MAG - 1), median (largest)",
    ]
    lines = []
    for fibres in dict.fromkeys(row["fibres"] for row in result["limbs"]):
        alike = [row for row in result["limbs"] if row["fibres"] == fibres]
        groups = {
            f"{FAR} voxels or more": [row for row in alike if _is_far(row)],
            f"less than {FAR} voxels": [row for row in alike if not _is_far(row)],
        }
        for where, rows in groups.items():
            lines += [[fibres, where, len(rows), *cells] for cells in _agreement_cells(rows)]
    return table(heads, lines)


def _is_far(row: Row) -> bool:
    return bool(row["source_from_interface_voxels"] >= FAR)


def _agreement_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Grid, RDM and MAG over limbs, a line for each grid; none where there is no limb."""
    if not rows:
        return []
    lines = []
    for i, grid in enumerate(rows[0]["grid"]):
        rdm = [row["rdm"][i] for row in rows]
        off = [abs(row["mag"][i] - 1) for row in rows]
        lines.append([grid, median_and_largest(rdm), median_and_largest(off)])
    return lines


def median_and_largest(values: Sequence[float]) -> str:
    return f"{np.median(values):.4f} ({max(values):.4f})"


def signed_median_and_largest(values: Sequence[float]) -> str:
    """The largest in size, with its sign."""
    return f"{np.median(values):+.4f} ({max(values, key=abs):+.4f})"


def converged_table(result: Result) -> str:
    """How far either solver, and their mean, are from the converged solution of the same voxels.
    MAG - 1 keeps its sign. Empty where no limb has one.
    """
    rows = [row for row in result["limbs"] if "from_converged" in row]
    if not rows:
        return ""
    heads = [
        "grid",
        "against the converged solution of the same voxels",
        "limbs",
        "RDM, median (largest)",
        "MAG - 1, median (largest)",
    ]
    lines = []
    for i, grid in enumerate(rows[0]["grid"]):
        on_grid = [row["from_converged"][i] for row in rows]
        for name in on_grid[0]:
            rdm = median_and_largest([found[name]["rdm"] for found in on_grid])
            off = signed_median_and_largest([found[name]["mag"] - 1 for found in on_grid])
            lines.append([grid, name, len(rows), rdm, off])
    return table(heads, lines)


# --- a network


def network_table(result: Result) -> str:
    heads = ["exact solution", "h, mm", "network, %", "its baseline, %"]
    lines = []
    for row in result["network"]:
        if "skipped" in row:
            found = [row["skipped"], ""]
        else:
            found = [percent(row["relative_l2"]), percent(row["baseline_relative_l2"])]
        lines.append([row["case"], f"{row['spacing_mm']:g}", *found])
    return table(heads, lines)


# --- all of it


def _verdict(result: Result) -> str:
    if not result["passed"]:
        return "NOT all demands are met"
    rows = [row for case in result["cases"] for row in case["rows"]]
    other = sum(bool(row["missed_not_binding"]) for row in rows)
    if other:
        return f"All binding demands met, {other} others missed"
    return "All demands met"


def origin(result: Result) -> str:
    """The verdict, and where it was made."""
    return (
        f"{_verdict(result)}; {result['seconds'] / 60:.1f} min on {result['hardware']}; commit"
        f" {result['commit'][:10]}, torch {result['torch']}, {result['date']}."
    )


RELATIVE_L2 = (
    "Relative L2 error in per cent, from coarse to fine; the mean is removed where the potential is"
    " known up to a constant."
)
NEAR_INTERFACES = (
    "The closed form that is subtracted belongs to the medium of the voxel that holds the source"
    " (finite volumes), or to the best conductor within half a voxel (finite elements). Error in"
    " per cent, beyond 3 voxels of the source; columns: its distance from the interface. (A"
    " distance in voxels is a shorter one at smaller h, so that these errors need not fall with h.)"
)
LIMBS = (
    "Limbs of the generator, grounded, beyond 3 voxels of the source. No exact solution: this is"
    " what two independent discretisations of the same voxels differ by."
)
CONVERGED = (
    "The same limbs, the first few, against what both solvers tend to when these voxels are split"
    " (staircases stay) down to half the finer grid's: the mean of both, since either alone favours"
    " itself. It is uncertain by about half of what its two solutions differ by; errors of the mean"
    " smaller than that are not resolved."
)
NETWORK = (
    "The source lies in the centre of its voxel, as a network sees it. The cases are no limbs of"
    " its training, and nothing is demanded."
)


def report(result: Result) -> str:
    """The whole report."""
    parts = ["# Solvers against exact solutions", RELATIVE_L2, main_table(result)]
    notes, wrong = notes_of(result), not_met(result)
    if notes:
        parts.append(notes)
    if wrong:
        parts.append(f"Not met:\n\n{wrong}")
    parts.append("![Error against spacing](convergence.png)")
    if result["near_interfaces"]:
        parts += ["## Sources near interfaces", NEAR_INTERFACES, interface_table(result)]
    if result["limbs"]:
        parts += ["## The two solvers on limbs", LIMBS, agreement_table(result)]
        parts += [CONVERGED, converged_table(result)]
    if result["network"]:
        parts += ["## Network", f"{result['checkpoint']}. {NETWORK}", network_table(result)]
    parts.append(origin(result))
    return "\n\n".join(parts) + "\n"


def summary(result: Result) -> str:
    """What a page shows: the main table, the worst of the sources near interfaces, limbs, the
    network's errors if there was one, and where it was made.
    """
    parts = [main_table(result)]
    if result["near_interfaces"]:
        parts.append(interface_sentence(result))
    if result["limbs"]:
        parts += [agreement_table(result), converged_table(result)]
    if result["network"]:
        parts.append(network_table(result))
    parts.append(origin(result))
    return "\n\n".join(part for part in parts if part)
