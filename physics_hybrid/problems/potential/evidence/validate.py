"""How right the truth is: both solvers, and a trained network if given, held to every exact
solution.

What is solved, and what is judged of it: `Measured` holds the errors of one solver at every spacing
of a case, `verdicts` what it misses of a demand. Which solvers there are: `solvers.py`; limbs, of
which no exact solution is known: `limb_agreement.py`; a network: `network_on_cases.py`; what is
written: `validate_report.py`, `validate_figure.py`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.problems.potential.evidence.limb_agreement import agreement, agreement_demands
from physics_hybrid.problems.potential.evidence.network_on_cases import network
from physics_hybrid.problems.potential.evidence.solvers import SOLVERS, Solver
from physics_hybrid.problems.potential.evidence.validate_figure import figure
from physics_hybrid.problems.potential.evidence.validate_report import report
from physics_hybrid.problems.potential.exact.cases import (
    Case,
    Demand,
    Posed,
    cases,
    near_interfaces,
)
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.report.plots import spared
from physics_hybrid.run.provenance import surroundings
from physics_hybrid.writing import write_text

#: Metres.
INTERFACE_SPACINGS = (0.002, 0.001)
QUICK_INTERFACE_SPACINGS = (0.004,)

#: An order that may be as high as this has no upper bound that is worth a word.
UNBOUNDED = 5


# --- what is measured


@dataclass
class Measured:
    """What one solver gave, spacing by spacing.

    steps : spacings, m.
    seconds : of each solution.
    errors : region -> relative L2 at each spacing, of each source.
    failed : what the solver said where it last gave up, or None.
    """

    steps: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: dict[str, list[list[float]]] = field(default_factory=dict)
    failed: str | None = None

    @property
    def spacing_mm(self) -> list[float]:
        return [h * 1e3 for h in self.steps]

    def add(self, h: float, posed: Posed, solver: Solver) -> None:
        """Solve one problem more; a solver that gives up has an error of NaN."""
        started = time.perf_counter()
        try:
            phi = solver(posed.conductor, posed.source).numpy()
        except SolverError as error:
            self.failed = f"{h * 1e3:g} mm: {error}"
            phi = np.full(posed.exact.shape, np.nan)
        self.seconds.append(time.perf_counter() - started)
        self.steps.append(h)
        for region, errors in posed.errors(phi).items():
            self.errors.setdefault(region, []).append(errors)


def measure(
    pose: Callable[[float], Posed], steps: Sequence[float], solvers: Mapping[str, Solver]
) -> dict[str, Measured]:
    """Every solver at every spacing (m)."""
    out = {name: Measured() for name in solvers}
    for h in steps:
        posed = pose(h)
        for name, solver in solvers.items():
            out[name].add(h, posed, solver)
    return out


# --- what is judged


def order_of(steps: Sequence[float], errors: Sequence[float]) -> float:
    """Slope of log error against log h, least squares; NaN where an error is missing."""
    if len(steps) < 2 or not np.all(np.isfinite(errors)):
        return math.nan
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def verdicts(demand: Demand, steps: Sequence[float], errors: Sequence[float]) -> list[str]:
    """What a solver misses of a demand, in words; an empty list where it meets it. An error that is
    missing meets nothing.
    """
    missed = []
    for h, error in zip(steps, errors, strict=True):
        bound = demand.bound(h)
        if bound is not None and not error <= bound:
            missed.append(f"{error:.3%} at {h * 1e3:g} mm, where {bound:.3%} is demanded")
    if demand.order:
        order = order_of(steps, errors)
        low, high = demand.order
        if not low <= order <= high:
            missed.append(f"order {order:.2f}, where {words_for(demand.order)} is demanded")
    return missed


def words_for(order: tuple[float, float]) -> str:
    low, high = order
    if high < UNBOUNDED:
        return f"{low:.2f} to {high:.2f}"
    return f"{low:.2f} or more"


def describe(demand: Demand) -> str:
    """A demand in words, from coarse to fine."""
    words = [
        f"{value * 100:.3g} % at {h * 1e3:g} mm"
        for h, value in sorted(demand.at.items(), reverse=True)
    ]
    if demand.order:
        words.append(f"order {words_for(demand.order)}")
    return "; ".join(words)


def is_held(solver: str, demand: Demand) -> bool:
    return demand.solvers is None or solver in demand.solvers


def judged_row(case: Case, solver: str, region: str, measured: Measured) -> dict[str, Any]:
    """One solver in one region. Of several sources the first is judged."""
    errors = [of_sources[0] for of_sources in measured.errors[region]]
    demands = [d for d in case.demands if d.region == region and is_held(solver, d)]
    binding: list[str] = []
    others: list[str] = []
    for demand in demands:
        missed = binding if demand.binding else others
        missed += verdicts(demand, measured.steps, errors)
    return {
        "solver": solver,
        "region": region,
        "spacing_mm": measured.spacing_mm,
        "relative_l2": errors,
        "order": order_of(measured.steps, errors),
        "seconds": measured.seconds,
        "demanded": [describe(demand) for demand in demands],
        "missed": binding,
        "missed_not_binding": others,
        "failed": measured.failed,
    }


def judge(case: Case, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """One case of validate.json."""
    rows = []
    for solver, found in measured.items():
        rows += [judged_row(case, solver, region, found) for region in found.errors]
    return {
        "name": case.name,
        "group": case.group,
        "note": case.note,
        "rows": rows,
        "passed": not any(row["missed"] or row["failed"] for row in rows),
    }


def judge_all(
    chosen: Sequence[Case], solvers: Mapping[str, Solver], quick: bool
) -> list[dict[str, Any]]:
    """Every case that has spacings, with a line for each on standard output."""
    judged = []
    for case in chosen:
        steps = case.quick if quick else case.spacings
        if not steps:
            continue
        found = judge(case, measure(case.pose, steps, solvers))
        verdict = "met" if found["passed"] else "NOT MET"
        print(f"{verdict}  {case.name}", flush=True)
        judged.append(found)
    return judged


def beside_interfaces(solvers: Mapping[str, Solver], quick: bool) -> list[dict[str, Any]]:
    """Sources near interfaces: the error of each, held to nothing but that it can be solved."""
    steps = QUICK_INTERFACE_SPACINGS if quick else INTERFACE_SPACINGS
    rows = []
    for interface, (distances, pose) in near_interfaces().items():
        measured = measure(pose, steps, solvers)
        row = {
            "interface": interface,
            "distance_voxels": list(distances),
            "spacing_mm": [h * 1e3 for h in steps],
            "relative_l2": {name: m.errors["beyond 3 voxels"] for name, m in measured.items()},
            "failed": {name: m.failed for name, m in measured.items() if m.failed},
        }
        rows.append(row)
    return rows


# --- all of it


def validate(
    output: Path,
    solvers: dict[str, Solver] | None = None,
    chosen: Sequence[Case] | None = None,
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
    solvers = solvers or SOLVERS
    if chosen is None:
        chosen = cases()
    asked = network(checkpoint, chosen, quick) if checkpoint else []
    judged = judge_all(chosen, solvers, quick)
    near = beside_interfaces(solvers, quick) if interfaces else []
    limbs = agreement(solvers, quick) if interfaces and len(solvers) == 2 else []
    apart = agreement_demands(limbs) if limbs and not quick else []
    for text in apart:
        print(f"NOT MET  {text}", flush=True)
    unsolved = any(row["failed"] for row in near)
    passed = all(case["passed"] for case in judged) and not apart and not unsolved
    result = {
        "solvers": list(solvers),
        "passed": passed,
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
    write(result, output)
    return result


def write(result: dict[str, Any], folder: Path) -> None:
    """validate.json, validate.md and convergence.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "validate.json", json.dumps(result, indent=1))
    write_text(folder / "validate.md", report(result))
    with spared("convergence.png"):
        figure(result, folder / "convergence.png")
