"""The tables of docs/flavour.md, from the folders of its studies: none is typed by hand.

python -m physics_hybrid study flavour_families --output FAMILIES
python -m physics_hybrid study flavour_grid --output GRID
python -m physics_hybrid flavour-set --seed 1 --samples 400 --folder PARTS --output FRESH.h5
python evaluate.py checkpoint=CLOSURE.mdlus data=flavour data.path=FRESH.h5 output=FRESH
python -m physics_hybrid pages --flavour FAMILIES --flavour-grid GRID --flavour-fresh FRESH
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from physics_hybrid.evidence.study import Cell, Study, finished
from physics_hybrid.problems.flavour.evidence.convergence import convergence_table
from physics_hybrid.problems.flavour.evidence.times import times_table
from physics_hybrid.problems.flavour.physics.families import FAMILIES
from physics_hybrid.report.markdown import table
from physics_hybrid.report.pages import put

PAGE = "docs/flavour.md"
#: All test states of a run together.
ALL = "all"
#: Prefix in metrics.json -> column of the table.
CONTENDERS = {"baseline_": "Box3D alone", "control_": "MLP (control)", "": "equivariant"}
#: Below it an error is written with one digit.
SMALL = 1e-3
#: The arm of the study that holds no family out.
RANDOM = "random split"

Metrics = Mapping[str, Any]


def families(folder: Path) -> str:
    """Errors by family: on the random split, and where the family was never trained on.

    Raises
    ------
    ValueError
        The study in the folder is not finished.
    """
    runs = _finished(Study.read("flavour_families"), folder)
    random = [runs[cell] for cell in runs if cell.arm == RANDOM]
    rows = [_row(f"{name}, random split", name, random) for name in (ALL, *FAMILIES)]
    for family in FAMILIES:
        held = [runs[cell] for cell in runs if cell.arm == f"without {family}"]
        rows.append(_row(f"{family}, held out", ALL, held))
    heads = ["tested on", *CONTENDERS.values(), "equivariant over Box3D"]
    return f"{table(heads, rows)}\n\n{_about(random)}\n\n{_laws(list(runs.values()))}"


def grid(folder: Path) -> str:
    """Errors of the arms of the grid study on all test states. Raises as `families`."""
    study = Study.read("flavour_grid")
    runs = _finished(study, folder)
    rows = []
    for arm in study.arms:
        mine = [metrics for cell, metrics in runs.items() if cell.arm == arm]
        parameters = f"{mine[0]['parameters']:,}".replace(",", " ")
        rows.append([arm, parameters, _spread(_means(mine, ALL, "")), _spread(_ratios(mine, ALL))])
    return (
        f"{table(['arm', 'parameters', 'error', 'over Box3D'], rows)}\n\n{_about([*runs.values()])}"
    )


def fresh(folder: Path) -> str:
    """Errors of one closure by family, on states that no choice has seen, from the folder of an
    evaluation.
    """
    metrics: Metrics = json.loads((folder / "metrics.json").read_text())
    rows = []
    for name in (ALL, *FAMILIES):
        alone, ours = (metrics[name][f"{prefix}error"]["mean"] for prefix in ("baseline_", ""))
        rows.append([name, _number(alone), _number(ours), f"{ours / alone:.3f}"])
    heads = ["tested on", "Box3D alone", "shipped closure", "shipped closure over Box3D"]
    about = (
        f"Mean error over {metrics['samples'][ALL]} states. {metrics['hardware']}, torch"
        f" {metrics['torch']}, commit {metrics['commit'][:10]}, {metrics['date']}."
    )
    return f"{table(heads, rows)}\n\n{about}"


def _finished(study: Study, folder: Path) -> dict[Cell, Metrics]:
    """metrics.json of each cell of a study."""
    cells = study.cells(folder)
    missing = [cell.name for cell in cells if not finished(cell, folder)]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(cells)} runs of {study.name} are not finished"
            f" ({missing[0]}): python -m physics_hybrid study {study.name} --output {folder}"
        )
    return {cell: _metrics(folder / cell.name) for cell in cells}


def _metrics(run: Path) -> Metrics:
    metrics: Metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    return metrics


def _row(title: str, name: str, runs: Sequence[Metrics]) -> list[str]:
    errors = [_spread(_means(runs, name, prefix)) for prefix in CONTENDERS]
    return [title, *errors, _spread(_ratios(runs, name))]


def _means(runs: Sequence[Metrics], name: str, prefix: str) -> list[float]:
    return [run[name][f"{prefix}error"]["mean"] for run in runs if f"{prefix}error" in run[name]]


def _ratios(runs: Sequence[Metrics], name: str) -> list[float]:
    ours, alone = (_means(runs, name, prefix) for prefix in ("", "baseline_"))
    return [a / b for a, b in zip(ours, alone, strict=True)]


def _spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds; small errors with one digit."""
    if not values:
        return "-"
    mean = statistics.fmean(values)
    if mean < SMALL:
        return _number(mean)
    return f"{_number(mean)} ± {statistics.stdev(values):.3f}"


def _number(value: float) -> str:
    return f"{value:.0e}" if value < SMALL else f"{value:.3f}"


def _about(runs: Sequence[Metrics]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    commits = ", ".join(sorted({run["commit"][:10] for run in runs}))
    first = runs[0]
    return (
        f"Mean error over {first['samples'][ALL]} test states (held out: over all of the family),"
        f" mean ± standard deviation over seeds {seeds}. {first['hardware']}, torch"
        f" {first['torch']}, commit {commits}, {first['date']}."
    )


def _laws(runs: Sequence[Metrics]) -> str:
    def largest(metric: str) -> float:
        return max(float(run[ALL][metric]["max"]) for run in runs)

    def mean(metric: str) -> float:
        there = [run[ALL][metric]["mean"] for run in runs if metric in run[ALL]]
        return statistics.fmean(there)

    return (
        f"Over all runs number is off by {largest('number'):.0e} of N_tot at most, lepton number by"
        f" {largest('lepton'):.0e}, and {largest('unphysical'):.0f} states are unphysical; the MLP"
        f" breaks number by {mean('control_number'):.0e} and lepton number by"
        f" {mean('control_lepton'):.0e} in the mean, and {100 * mean('control_unphysical'):.1f} %"
        " of its states are unphysical."
    )


def convergence(report: Path) -> str:
    """How far the truth depends on its box, from the JSON of flavour-convergence."""
    return convergence_table(json.loads(report.read_text()))


def times(report: Path) -> str:
    """Microseconds a state, from the JSON of `times`."""
    return times_table(json.loads(report.read_text()))


#: What makes a table from the folder of its study, or the file of its measurement.
TABLES: dict[str, Callable[[Path], str]] = {
    "flavour": families,
    "flavour_grid": grid,
    "flavour_convergence": convergence,
    "flavour_fresh": fresh,
    "flavour_times": times,
}


def fill_page(reports: Mapping[str, Path]) -> None:
    """Write the table of each study to the page. Raises ValueError as `families`."""
    for name, make in TABLES.items():
        if name in reports:
            put(PAGE, name, make(reports[name]))
