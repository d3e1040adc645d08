"""How right the truth is: both solvers, and a trained network if given, held to every exact
solution.

    python -m physics_hybrid validate [--output validation] [--quick] [--only WORDS]
    [checkpoint=runs/NAME]

Each case of `potential/exact_cases.py` is solved at several spacings h; the error is relative L2
over a fixed region, and the order p is that of a straight line fitted to log error against log h.
Leaves with exit status 1 where a demand that binds is not met, or a solver fails.

Writes validate.json (every number), validate.md (tables) and convergence.png. A network is listed
beside the solvers, and held to nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.grid import name_of
from physics_hybrid.problems.potential.exact.cases import (
    FE,
    FV,
    Case,
    Demand,
    Posed,
    cases,
    near_interfaces,
)
from physics_hybrid.problems.potential.metrics import topography
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource, nodal_source
from physics_hybrid.problems.potential.physics.elements.solve import solve_elements
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.run.provenance import surroundings

Solver = Callable[[Conductor, PointSource], torch.Tensor]
SOLVERS: dict[str, Solver] = {
    FV: lambda body, source: solve(body, source, 1e-9).phi,
    FE: lambda body, source: solve_elements(body, source, 1e-8).phi,
}
INTERFACE_SPACINGS, QUICK_INTERFACE_SPACINGS = (0.002, 0.001), (0.004,)
CONVERGED_LIMBS, MEAN, DOUBT = (
    5,
    "mean of both",
    "the reference itself: half of what its two solutions differ by",
)


def order_of(steps: list[float], errors: list[float]) -> float:
    """Slope of log error against log h, least squares; NaN where an error is missing."""
    if len(steps) < 2 or not np.all(np.isfinite(errors)):
        return math.nan
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def verdicts(demand: Demand, steps: list[float], errors: list[float]) -> list[str]:
    """What a solver misses of a demand, in words; an empty list where it meets it. An error that is
    missing meets nothing.
    """
    missed = []
    for h, error in zip(steps, errors):
        bound = demand.bound(h)
        if bound is not None and not error <= bound:
            missed.append(f"{error:.3%} at {h * 1e3:g} mm, where {bound:.3%} is demanded")
    if demand.order:
        order = order_of(steps, errors)
        if not demand.order[0] <= order <= demand.order[1]:
            missed.append(f"order {order:.2f}, where {words_for(demand.order)} is demanded")
    return missed


def words_for(order: tuple[float, float]) -> str:
    return f"{order[0]:.2f} to {order[1]:.2f}" if order[1] < 5 else f"{order[0]:.2f} or more"


def measure(
    pose: Callable[[float], Posed], steps: tuple[float, ...], solvers: dict[str, Solver]
) -> dict[str, dict]:
    """solver -> {spacing_mm, seconds, region -> errors at each spacing, one list for each source;
    failed: what the solver said}.
    """
    out: dict[str, dict] = {
        name: {"spacing_mm": [], "seconds": [], "regions": {}} for name in solvers
    }
    for h in steps:
        posed = pose(h)
        for name, solver in solvers.items():
            row, started = out[name], time.perf_counter()
            try:
                phi = solver(posed.conductor, posed.source).numpy()
            except SolverError as error:
                row["failed"] = f"{h * 1e3:g} mm: {error}"
                phi = np.full(posed.exact.shape, np.nan)
            row["spacing_mm"].append(h * 1e3)
            row["seconds"].append(time.perf_counter() - started)
            for region, errors in posed.errors(phi).items():
                row["regions"].setdefault(region, []).append(errors)
    return out


def judge(case: Case, steps: tuple[float, ...], measured: dict[str, dict]) -> dict[str, Any]:
    """One case of validate.json."""
    rows = []
    for name, result in measured.items():
        for region, per_step in result["regions"].items():
            errors = [row[0] for row in per_step]
            held = [
                d
                for d in case.demands
                if d.region == region and (d.solvers is None or name in d.solvers)
            ]
            rows.append(
                {
                    "solver": name,
                    "region": region,
                    "spacing_mm": result["spacing_mm"],
                    "relative_l2": errors,
                    "order": order_of(list(steps), errors),
                    "seconds": result["seconds"],
                    "demanded": [describe(d) for d in held],
                    "missed": [
                        m for d in held if d.binding for m in verdicts(d, list(steps), errors)
                    ],
                    "missed_not_binding": [
                        m for d in held if not d.binding for m in verdicts(d, list(steps), errors)
                    ],
                    "failed": result.get("failed"),
                }
            )
    return {
        "name": case.name,
        "group": case.group,
        "note": case.note,
        "rows": rows,
        "passed": not any(r["missed"] or r["failed"] for r in rows),
    }


def describe(demand: Demand) -> str:
    bounds = "; ".join(
        f"{value * 100:.3g} % at {h * 1e3:g} mm"
        for h, value in sorted(demand.at.items(), reverse=True)
    )
    order = f"order {words_for(demand.order)}" if demand.order else ""
    return "; ".join(filter(None, (bounds, order)))


# --- limbs ----------------------------------------------------------------------------------------


def agreement(solvers: dict[str, Solver], quick: bool) -> list[dict]:
    """Both solvers on limbs of the generator, straight and pennate: RDM and MAG of the one against
    the other, over tissue beyond 3 voxels of the source, and how many voxels of the finer grid the
    source is away from the nearest other tissue. Of the first limbs with fibres along D
    also `from_converged`, all grids split down to half the finer one's voxels."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from physics_hybrid.problems.potential.bodies.limb import LimbDistribution

    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        phantom = OmegaConf.to_container(compose("config").data.phantom, resolve=True)
    grids, (one, other) = (
        (((24, 12, 12), (48, 24, 24)) if quick else ((48, 24, 24), (96, 48, 48))),
        solvers.values(),
    )
    rows = []
    for fibres, pennation, count in (
        ("along D", [0.0, 0.0], 16),
        ("pennate, 10 to 25 degrees", [10.0, 25.0], 8),
    ):
        limbs = LimbDistribution.of({**phantom, "pennation": pennation})
        for number in range(2 if quick else count):
            row: dict[str, Any] = {
                "fibres": fibres,
                "limb": number,
                "grid": [name_of(g) for g in grids],
                "rdm": [],
                "mag": [],
            }
            for grid in grids:
                body = limbs.draw(0, 0, number).voxelise(grid)

                def tensor(values):
                    return torch.from_numpy(np.array(values, dtype=float))[None]

                conductor, source = (
                    Conductor(tensor(body.sigma), tensor(body.spacing)),
                    PointSource(tensor(body.source_point), tensor(body.current)),
                )
                a, b = (solve_with(conductor, source) for solve_with in (one, other))
                place = (np.indices(grid).T + 0.5 - body.source_point / body.spacing).T
                away = np.sqrt((place**2).sum(axis=0))
                where = torch.from_numpy((body.index > 0) & (away > 3))[None]
                for name, value in topography(a, b, where).items():
                    row[name].append(float(value))
                if fibres == "along D" and number < CONVERGED_LIMBS:
                    row.setdefault("from_converged", []).append(
                        from_converged(
                            solvers, (a, b), conductor, source, where, 2 * grids[-1][0] // grid[0]
                        )
                    )
            same = body.index == body.index[tuple((body.source_point / body.spacing).astype(int))]
            row["source_from_interface_voxels"] = float(away[~same].min())
            rows.append(row)
    return rows


def split(conductor: Conductor, into: int) -> Conductor:
    """The same conductor, every voxel cut into into x into x into."""
    sigma = conductor.sigma
    for axis in (2, 3, 4):
        sigma = sigma.repeat_interleave(into, axis)
    return Conductor(sigma, conductor.spacing / into, conductor.ends)


def from_converged(
    solvers: dict[str, Solver],
    phis: tuple[torch.Tensor, torch.Tensor],
    conductor: Conductor,
    source: PointSource,
    where: torch.Tensor,
    into: int,
) -> dict[str, dict]:
    """RDM and MAG of either solver's phi, and of their mean, against the converged solution of the
    same voxels, and what that is uncertain by.

    The voxels are split, so that staircases stay what they are, and both solve them; the reference
    is the mean of the two, averaged back: either of them alone would favour itself. Finite elements
    minimise the power over potentials (Dirichlet); harmonic means minimise it over fluxes that
    conserve the charge (Thomson: lowest-order mixed elements with the trapezoidal rule). One
    conducts too well, the other too badly, and the mean has the smallest guaranteed error, half of
    their difference (Prager and Synge, Quart. Appl. Math. 5 (1947) 241). That is proved of the
    power of the whole field: of phi beyond some voxels of a source it is a reason, not a proof, and
    this measures what comes of it.
    """

    def back(phi):
        return torch.nn.functional.avg_pool3d(phi, into)

    a, b = (back(solve_with(split(conductor, into), source)) for solve_with in solvers.values())

    def apart(phi, reference):
        return {name: float(value) for name, value in topography(phi, reference, where).items()}

    half = apart(a, b)
    out = {
        name: apart(phi, (a + b) / 2) for name, phi in zip((*solvers, MEAN), (*phis, sum(phis) / 2))
    }
    return {**out, DOUBT: {"rdm": half["rdm"] / 2, "mag": (1 + half["mag"]) / 2}}


def agreement_demands(rows: list[dict]) -> list[str]:
    """What is missed: of limbs with fibres along D whose source is 3 voxels or more from other
    tissue, the median has RDM and |MAG - 1| of at
    most 0.01 at 2 mm, smaller than at 4 mm. Nearer sources and pennate fibres are listed, and held
    to nothing.
    """
    chosen, missed = (
        [
            row
            for row in rows
            if row["fibres"] == "along D" and row["source_from_interface_voxels"] >= 3
        ],
        [],
    )
    for name, values in (
        ("RDM", [row["rdm"] for row in chosen]),
        ("|MAG - 1|", [np.abs(np.array(row["mag"]) - 1) for row in chosen]),
    ):
        coarse, fine = np.median(values, axis=0)
        if not (fine <= 0.01 and fine < coarse):
            missed.append(
                f"limbs: {name} of the median limb is {fine:.4f} at 2 mm and {coarse:.4f} at 4 mm,"
                " where at most 0.01 and falling is demanded"
            )
    return missed


def agreement_table(result: dict) -> str:
    """Markdown: finite volumes against finite elements, median and largest over limbs."""
    rows, lines = (
        result["limbs"],
        [
            (
                "| fibres | source from other tissue | limbs | grid | RDM, median (largest) | abs(MAG -"
                " 1), median (largest) |"
            ),
            "|---|---|---|---|---|---|",
        ],
    )
    for fibres in dict.fromkeys(row["fibres"] for row in rows):
        for where, inside in (
            ("3 voxels or more", lambda d: d >= 3),
            ("less than 3 voxels", lambda d: d < 3),
        ):
            chosen = [
                row
                for row in rows
                if row["fibres"] == fibres and inside(row["source_from_interface_voxels"])
            ]
            for i, grid in enumerate(chosen[0]["grid"] if chosen else ()):
                rdm, mag = (
                    [row["rdm"][i] for row in chosen],
                    [abs(row["mag"][i] - 1) for row in chosen],
                )
                lines.append(
                    f"| {fibres} | {where} | {len(chosen)} | {grid} | {np.median(rdm):.4f}"
                    f" ({max(rdm):.4f}) | {np.median(mag):.4f} ({max(mag):.4f}) |"
                )
    return "\n".join(lines)


def converged_table(result: dict) -> str:
    """Markdown: how far either solver, and their mean, are from the converged solution of the same
    voxels. MAG - 1 keeps its sign.
    """
    rows = [row for row in result["limbs"] if "from_converged" in row]
    if not rows:
        return ""
    lines = [
        (
            "| grid | against the converged solution of the same voxels | limbs | RDM, median"
            " (largest) | MAG - 1, median (largest) |"
        ),
        "|---|---|---|---|---|",
    ]
    for i, grid in enumerate(rows[0]["grid"]):
        for name in rows[0]["from_converged"][i]:
            rdm, mag = (
                [row["from_converged"][i][name]["rdm"] for row in rows],
                [row["from_converged"][i][name]["mag"] - 1 for row in rows],
            )
            lines.append(
                f"| {grid} | {name} | {len(rows)} | {np.median(rdm):.4f} ({max(rdm):.4f}) |"
                f" {np.median(mag):+.4f} ({max(mag, key=abs):+.4f}) |"
            )
    return "\n".join(lines)


# --- network


def network(checkpoint: Path, chosen: list[Case], quick: bool) -> list[dict]:
    """Error of a trained network, and of its baseline, on the exact cases with the ends that it was
    trained for, the source in the centre of its voxel.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    from physics_hybrid.problems.potential.batch import components
    from physics_hybrid.problems.potential.problem import build_ends
    from physics_hybrid.problems.potential.scene import Scene
    from physics_hybrid.problems.potential.surrogate import Surrogate
    from physics_hybrid.run.load import load

    model, config, _ = load(checkpoint)
    settings = (config or {}).get("problem", {"ends": "grounded", "coordinates": "cell"})
    trained = build_ends({"problem": settings})
    surrogate = Surrogate(model.eval(), trained, settings["coordinates"])

    def single(tensor):
        return tensor.float().contiguous()

    rows = []
    for case in (c for c in chosen if c.network):
        for h in case.quick if quick else case.spacings[:2]:
            posed = case.pose(h, centred=True)
            body, source, row = (
                posed.conductor,
                posed.source,
                {"case": case.name, "spacing_mm": h * 1e3},
            )
            if body.ends != trained:
                break
            try:
                sigma = torch.from_numpy(
                    components(body.sigma[0].numpy(), model.sigma_components, case.name)
                )[None]
                model.check_grid(body.shape)
            except ValueError as error:
                rows.append({**row, "skipped": str(error)})
                continue
            scene = Scene(
                sigma=single(sigma),
                source=single(nodal_source(body, source)),
                spacing=single(body.spacing),
                source_point=single(source.point),
                current=single(source.current),
                names=(case.name,),
            )
            everywhere = np.any(
                [np.broadcast_to(region, posed.exact.shape) for region in posed.regions.values()],
                axis=0,
            )
            whole = replace(posed, regions={"all": everywhere})
            with torch.no_grad():
                for name, predict in (
                    ("relative_l2", surrogate),
                    ("baseline_relative_l2", surrogate.baseline),
                ):
                    row[name] = whole.errors(predict(scene).double().numpy())["all"][0]
            rows.append(row)
    return rows


# --- report


def percent(value: float) -> str:
    """Two figures; nothing finer than 0.001 %."""
    if not math.isfinite(value):
        return "failed"
    value *= 100
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def main_table(result: dict) -> str:
    """Markdown: a row for each case and region that something is demanded of."""
    names = result["solvers"]
    lines = [
        "| exact solution | h, mm | "
        + " | ".join(f"{name}, % | order" for name in names)
        + " | demanded | met |",
        "|---|---|" + "---|---|" * len(names) + "---|---|",
    ]
    for case in result["cases"]:
        regions = dict.fromkeys(r["region"] for r in case["rows"] if r["demanded"])
        for region in regions:
            rows = {r["solver"]: r for r in case["rows"] if r["region"] == region}
            first = next(iter(rows.values()))
            cells = []
            for name in names:
                r = rows[name]
                cells += [
                    ", ".join(percent(e) for e in r["relative_l2"]),
                    f"{r['order']:.2f}" if math.isfinite(r["order"]) else "",
                ]
            demands: dict[str, list[str]] = {}
            for name, r in rows.items():
                for text in r["demanded"]:
                    demands.setdefault(text, []).append(name)
            demanded = "; ".join(
                text if len(who) == len(names) else f"{' and '.join(who)}: {text}"
                for text, who in demands.items()
            )
            failing = [name for name, r in rows.items() if r["missed"] or r["failed"]]
            missing = [name for name, r in rows.items() if r["missed_not_binding"]]
            met = (
                "; ".join(
                    filter(
                        None,
                        (
                            f"**no**, {' and '.join(failing)}" if failing else "",
                            f"missed by {' and '.join(missing)}, not binding" if missing else "",
                        ),
                    )
                )
                or "yes"
            )
            where = case["name"] if len(regions) == 1 else f"{case['name']}: {region}"
            lines.append(
                f"| {where} | {', '.join(f'{h:g}' for h in first['spacing_mm'])} | "
                + " | ".join(cells)
                + f" | {demanded} | {met} |"
            )
    return "\n".join(lines)


def interface_table(result: dict) -> str:
    """Markdown: sources near interfaces, error in % beyond 3 voxels."""
    names = result["solvers"]
    columns = sorted({d for row in result["near_interfaces"] for d in row["distance_voxels"]})
    lines = [
        "| interface, from the side of the source | h, mm | solver | "
        + " | ".join(f"{d:g} h" for d in columns)
        + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for row in result["near_interfaces"]:
        for i, h in enumerate(row["spacing_mm"]):
            for name in names:
                values = dict(zip(row["distance_voxels"], row["relative_l2"][name][i]))
                lines.append(
                    f"| {row['interface']} | {h:g} | {name} | "
                    + " | ".join(percent(values[d]) if d in values else "" for d in columns)
                    + " |"
                )
    return "\n".join(lines)


def interface_sentence(result: dict) -> str:
    parts = []
    for name in result["solvers"]:
        worst = max(
            (
                (e, row["interface"], d, h)
                for row in result["near_interfaces"]
                for h, errors in zip(row["spacing_mm"], row["relative_l2"][name])
                for d, e in zip(row["distance_voxels"], errors)
            ),
            key=lambda t: t[0] if math.isfinite(t[0]) else math.inf,
        )
        usual = float(
            np.nanmedian(
                [
                    e
                    for row in result["near_interfaces"]
                    for errors in row["relative_l2"][name]
                    for e in errors
                ]
            )
        )
        parts.append(
            f"{name} at most {percent(worst[0])} % ({worst[1]}, {worst[2]:g} voxels, {worst[3]:g}"
            f" mm), in the middle {percent(usual)} %"
        )
    distances = [d for row in result["near_interfaces"] for d in row["distance_voxels"]]
    return (
        f"Sources {min(distances):g} to {max(distances):g} voxels from a flat interface, beyond 3"
        " voxels of them: " + "; ".join(parts) + "."
    )


def network_table(result: dict) -> str:
    lines = ["| exact solution | h, mm | network, % | its baseline, % |", "|---|---|---|---|"]
    for row in result["network"]:
        tail = (
            row["skipped"] + " | "
            if "skipped" in row
            else f"{percent(row['relative_l2'])} | {percent(row['baseline_relative_l2'])}"
        )
        lines.append(f"| {row['case']} | {row['spacing_mm']:g} | {tail} |")
    return "\n".join(lines)


def origin(result: dict) -> str:
    other = sum(bool(r["missed_not_binding"]) for case in result["cases"] for r in case["rows"])
    verdict = (
        "NOT all demands are met"
        if not result["passed"]
        else f"All binding demands met, {other} others missed"
        if other
        else "All demands met"
    )
    return (
        f"{verdict}; {result['seconds'] / 60:.1f} min on {result['hardware']}; commit"
        f" {result['commit'][:10]}, torch {result['torch']}, {result['date']}."
    )


def report(result: dict) -> str:
    """The whole report in Markdown."""
    parts = [
        "# Solvers against exact solutions",
        (
            "Relative L2 error in per cent, from coarse to fine; the mean is removed where the"
            " potential is known up to a constant."
        ),
        main_table(result),
    ]
    notes = [
        f"- {', '.join(c['name'] for c in result['cases'] if c['note'] == note)}: {note}"
        for note in dict.fromkeys(case["note"] for case in result["cases"])
        if note
    ]
    wrong = [
        f"- {case['name']}, {r['solver']}, {r['region']}: {text}"
        for case in result["cases"]
        for r in case["rows"]
        for text in [
            *r["missed"],
            *r["missed_not_binding"],
            *([r["failed"]] if r["failed"] else []),
        ]
    ]
    wrong += [f"- {text}" for text in result["limbs_missed"]]
    parts += ["\n".join(notes)] * bool(notes) + ["Not met:\n\n" + "\n".join(wrong)] * bool(wrong)
    parts += ["![Error against spacing](convergence.png)"]
    if result["near_interfaces"]:
        parts += [
            "## Sources near interfaces",
            (
                "The closed form that is subtracted belongs to the medium of the voxel that holds"
                " the source (finite volumes), or to the best conductor within half a voxel (finite"
                " elements). Error in per cent, beyond 3 voxels of the source; columns: its"
                " distance from the interface. (A distance in voxels is a shorter one at smaller h,"
                " so that these errors need not fall with h.)"
            ),
            interface_table(result),
        ]
    if result["limbs"]:
        parts += [
            "## The two solvers on limbs",
            (
                "Limbs of the generator, grounded, beyond 3 voxels of the source. No exact"
                " solution: this is what two independent discretisations of the same voxels"
                " differ by."
            ),
            agreement_table(result),
            (
                "The same limbs, the first few, against what both solvers tend to when these voxels"
                " are split (staircases stay) down to half the finer grid's: the mean of both,"
                " since either alone favours itself. It is uncertain by about half of what its two"
                " solutions differ by; errors of the mean smaller than that are not resolved."
            ),
            converged_table(result),
        ]
    if result["network"]:
        parts += [
            "## Network",
            (
                f"{result['checkpoint']}. The source lies in the centre of its voxel, as a network"
                " sees it. The cases are no limbs of its training, and nothing is demanded."
            ),
            network_table(result),
        ]
    return "\n\n".join([*parts, origin(result)]) + "\n"


def summary(result: dict) -> str:
    """What the README shows: the main table, the worst of the sources near interfaces, limbs, the
    network's errors if there was one, and where it was made.
    """
    parts = [
        main_table(result),
        interface_sentence(result) if result["near_interfaces"] else "",
        *((agreement_table(result), converged_table(result)) if result["limbs"] else ()),
        network_table(result) if result["network"] else "",
        origin(result),
    ]
    return "\n\n".join(filter(None, parts))


def figure(result: dict, path: Path) -> Path:
    """Error against spacing, a panel for each group; full lines and dots one solver, dashed lines
    and squares the other; fitted orders in the legend.
    """
    from physics_hybrid.report.plots import pyplot, save

    plt = pyplot()
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

    groups = list(dict.fromkeys(case["group"] for case in result["cases"]))
    titles = {
        "boxes": "layered boxes",
        "half-spaces": "half-spaces",
        "staircases": "round bodies on square voxels",
    }
    figure_, axes = plt.subplots(
        1, len(groups), figsize=(4.9 * len(groups), 6.6), layout="constrained", squeeze=False
    )
    styles = dict(zip(result["solvers"], (("o", "-"), ("s", "--"), ("^", ":"))))
    for axis, group in zip(axes[0], groups):
        curves: dict[str, dict[str, dict]] = {}
        for case in (c for c in result["cases"] if c["group"] == group):
            ordered = dict.fromkeys(
                r["region"] for r in case["rows"] if any("order" in text for text in r["demanded"])
            )
            regions = list(
                ordered or dict.fromkeys(r["region"] for r in case["rows"] if r["demanded"])
            )
            for region in regions:
                label = (
                    case["name"].removeprefix("box, ").removeprefix("half-spaces, ")
                    if len(regions) == 1
                    else f"{case['name'].split(':')[0]}, {region}"
                )
                curves[label] = {r["solver"]: r for r in case["rows"] if r["region"] == region}
        colors = plt.get_cmap("tab10").colors
        points = []
        for color, (label, rows) in zip(colors, curves.items()):
            for name, r in rows.items():
                axis.plot(
                    r["spacing_mm"],
                    [100 * e for e in r["relative_l2"]],
                    color=color,
                    marker=styles[name][0],
                    linestyle=styles[name][1],
                    markersize=4,
                    linewidth=1.2,
                )
                points += [
                    (h, 100 * e)
                    for h, e in zip(r["spacing_mm"], r["relative_l2"])
                    if math.isfinite(e)
                ]
            orders = " / ".join(
                f"{r['order']:.2f}" if math.isfinite(r["order"]) else "failed"
                for r in rows.values()
            )
            axis.plot([], [], color=color, linewidth=2.5, label=f"{label}: {orders}")
        axis.set_title(titles.get(group, group))
        if not points:
            axis.text(0.5, 0.5, "nothing was solved", transform=axis.transAxes, ha="center")
            continue
        steps = sorted({h for h, _ in points})
        low, high = min(e for _, e in points), max(e for _, e in points)
        for slope in (1, 2):
            line = [2 * high * (h / steps[-1]) ** slope for h in (steps[0], steps[-1])]
            axis.plot((steps[0], steps[-1]), line, color="0.6", linewidth=0.8, zorder=0)
            axis.annotate(
                f"order {slope}",
                (steps[0], line[0]),
                color="0.4",
                fontsize=8,
                ha="left",
                va="bottom",
                xytext=(2, 2),
                textcoords="offset points",
            )
        axis.set(xscale="log", yscale="log", xlabel="spacing h (mm)", ylim=(low / 1.6, high * 2.6))
        axis.xaxis.set_major_locator(FixedLocator(steps))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.grid(True, which="both", alpha=0.25)
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.11),
            fontsize=8,
            frameon=False,
            title=f"fitted order, {' / '.join(result['solvers'])}",
            title_fontsize=8,
        )
    axes[0][0].set_ylabel("relative L2 error (%)")
    marks = [
        Line2D(
            [], [], color="black", marker=m, linestyle=l, markersize=4, linewidth=1.2, label=name
        )
        for name, (m, l) in styles.items()
    ]
    figure_.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)
    return save(figure_, path)


def validate(
    output: Path,
    solvers: dict[str, Solver] | None = None,
    chosen: list[Case] | None = None,
    quick: bool = False,
    interfaces: bool = True,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Measure, judge, write the three files into `output`; the content of validate.json, whose
    `passed` says whether every binding demand is met.

    Raises
    ------
    CheckpointError
        The checkpoint cannot be read; known before anything is solved.
    """
    started = time.perf_counter()
    solvers, chosen = solvers or SOLVERS, cases() if chosen is None else chosen
    asked = network(checkpoint, chosen, quick) if checkpoint else []
    judged = []
    for case in chosen:
        steps = case.quick if quick else case.spacings
        if not steps:
            continue
        judged.append(judge(case, steps, measure(case.pose, steps, solvers)))
        print(f"{'met' if judged[-1]['passed'] else 'NOT MET'}  {case.name}", flush=True)
    near = []
    for what, (distances, pose) in near_interfaces().items() if interfaces else ():
        steps = QUICK_INTERFACE_SPACINGS if quick else INTERFACE_SPACINGS
        measured = measure(pose, steps, solvers)
        near.append(
            {
                "interface": what,
                "distance_voxels": list(distances),
                "spacing_mm": [h * 1e3 for h in steps],
                "relative_l2": {
                    name: row["regions"]["beyond 3 voxels"] for name, row in measured.items()
                },
                "failed": {
                    name: row["failed"] for name, row in measured.items() if "failed" in row
                },
            }
        )
    limbs = agreement(solvers, quick) if interfaces and len(solvers) == 2 else []
    apart = agreement_demands(limbs) if limbs and not quick else []
    for text in apart:
        print(f"NOT MET  {text}", flush=True)
    result = {
        "solvers": list(solvers),
        "passed": (
            all(c["passed"] for c in judged)
            and not apart
            and not any(row["failed"] for row in near)
        ),
        "quick": quick,
        "cases": judged,
        "near_interfaces": near,
        "limbs": limbs,
        "limbs_missed": apart,
        "network": asked,
        "checkpoint": str(checkpoint) if checkpoint else None,
        **surroundings(torch.device("cpu")),
        "seconds": time.perf_counter() - started,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "validate.json").write_text(json.dumps(result, indent=1))
    (output / "validate.md").write_text(report(result))
    figure(result, output / "convergence.png")
    return result
