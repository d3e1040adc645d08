"""Rivals in one table: solvers on voxels, a mesh that follows the surfaces, and what a training
must be worth.

Three questions, in seconds of the processor, one thread, in one run (networks against each other:
`benchmark`):

    limbs on voxels       who is first at 1 %, and at 1e-6 (`rivals_voxels`)
    a layered cylinder    what voxels cost in accuracy (`rivals_cylinder`)
    trained networks      after how many solves a training has paid for itself

A training that took T seconds has paid for itself after

    T / (seconds of a solver that is as accurate - seconds of the network)

solves; where the network is not faster, never.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.checks import at_least
from physics_hybrid.cluster.machine import initialize
from physics_hybrid.evidence.bench import configuration
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problem import Config, Place
from physics_hybrid.problems.potential.data.limb_data import LimbData
from physics_hybrid.problems.potential.evidence.benchmark import told_apart
from physics_hybrid.problems.potential.evidence.benchmark_contenders import (
    Network,
    from_checkpoint,
    on_grid,
)
from physics_hybrid.problems.potential.evidence.rivals_clock import clocked, one_thread
from physics_hybrid.problems.potential.evidence.rivals_cylinder import (
    OnMesh,
    has_ngsolve,
    on_surfaces,
    on_voxels,
)
from physics_hybrid.problems.potential.evidence.rivals_figure import figure
from physics_hybrid.problems.potential.evidence.rivals_matrix import python_with_petsc
from physics_hybrid.problems.potential.evidence.rivals_report import tables
from physics_hybrid.problems.potential.evidence.rivals_voxels import (
    Limb,
    Rung,
    as_rows,
    rungs,
    to_goals,
)
from physics_hybrid.problems.potential.learning import Potential
from physics_hybrid.problems.potential.problem import PotentialRecipe
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.report.plots import spared
from physics_hybrid.run.provenance import surroundings
from physics_hybrid.writing import write_text

#: What is left out where a library is missing.
NO_PETSC = "PETSc with hypre is left out: no Python here has petsc4py (Debian: python3-petsc4py)"
NO_NGSOLVE = "NGSolve is left out: pip install ngsolve"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked.

    checkpoints : run folders or .mdlus files.
    overrides : of the configuration that limbs are drawn by.
    grids : (D, H, W) of the limbs; none: no limbs.
    limbs : how many on each.
    tolerances : relative residuals.
    repeats : calls that a median is taken of.
    spacings, element_spacings : edges of the cylinder's voxels for volumes and for elements, m.
    meshes : order -> largest edges of NGSolve's elements, m.

    Raises
    ------
    ValueError
        Fewer than one limb or repeat; networks without limbs.
    """

    checkpoints: Sequence[Path]
    overrides: Sequence[str]
    grids: Sequence[Grid]
    limbs: int
    tolerances: Sequence[float]
    repeats: int
    spacings: Sequence[float]
    element_spacings: Sequence[float]
    meshes: Mapping[int, Sequence[float]]

    def __post_init__(self) -> None:
        at_least(1, "--limbs", self.limbs)
        at_least(1, "--repeats", self.repeats)
        if self.checkpoints and not self.grids:
            raise ValueError("networks are measured on limbs: give --grids")


def run_bench(plan: Plan) -> Iterator[dict[str, Any]]:
    """The content of bench.json, again and again: after every row of the cylinder and every limb
    that is done, so that one who breaks off keeps what there is.

    Raises
    ------
    CheckpointError, ValueError
        A checkpoint that cannot be read, has other ends, or cannot take a grid; before anything is
        solved.
    """
    result: dict[str, Any] = {"grids": [], "cylinder": [], "networks": []}
    with one_thread():
        load = os.getloadavg()[0]
        asked = asked_of_limbs(plan) if plan.grids else None
        for row in on_cylinder(plan):
            result["cylinder"].append(asdict(row))
            yield result | about(plan, load)
        if asked is not None:
            for grid in plan.grids:
                for solvers, networks in on_limbs(asked, grid, plan):
                    result["grids"] = [*without(result["grids"], grid), solvers]
                    result["networks"] = [*without(result["networks"], grid), *networks]
                    yield result | about(plan, load)
    yield result | about(plan, load)


def without(rows: Sequence[dict[str, Any]], grid: Grid) -> list[dict[str, Any]]:
    """The rows of other grids."""
    return [row for row in rows if row["grid"] != name_of(grid)]


def about(plan: Plan, load: float) -> dict[str, Any]:
    """Where it is measured, and how busy that was at the start and is now."""
    return {
        "repeats": plan.repeats,
        "load": [load, os.getloadavg()[0]],
        "cores": os.cpu_count(),
        **surroundings(torch.device("cpu")),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- limbs on voxels


@dataclass(frozen=True)
class Asked:
    """Who is measured on limbs, and the problem that draws them.

    python : one that has petsc4py, or None.
    """

    problem: Potential
    networks: list[Network]
    python: str | None


def asked_of_limbs(plan: Plan) -> Asked:
    """All that can be refused, before anything is solved."""
    config = configuration(["run=bench", *plan.overrides, on_grid(plan.grids[0])])
    problem = PotentialRecipe(config).open(Place(initialize("cpu").device))
    networks = networks_of(plan, problem, config)
    python = python_with_petsc()
    if python is None:
        say(NO_PETSC)
    return Asked(problem, networks, python)


def on_limbs(
    asked: Asked, grid: Grid, plan: Plan
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The solvers and the networks on the limbs so far, after each limb."""
    batches = limbs_of(asked.problem, grid, plan.limbs)
    limbs = [Limb.of(b.conductor(asked.problem.ends), b.point_source()) for b in batches]
    tolerances = sorted(plan.tolerances)[::-1]
    found: list[list[Rung]] = []
    seen: list[list[tuple[float, float]]] = [[] for _ in asked.networks]
    for number, (batch, limb) in enumerate(zip(batches, limbs, strict=True), start=1):
        found.append(list(rungs(limb, tolerances, plan.repeats, asked.python)))
        say(f"limb {number} of {plan.limbs} at {name_of(grid)}: {len(found[-1])} solves")
        rows = as_rows(found)
        solvers = {
            "grid": name_of(grid),
            "limbs": number,
            "tissue_voxels": int(np.mean([int(b.tissue.sum()) for b in batches])),
            "rows": rows,
            "goals": to_goals(found),
        }
        networks = []
        for network, own in zip(asked.networks, seen, strict=True):
            own.append(measured(network, batch, limb, plan.repeats))
            row = {"grid": name_of(grid), **worth(network, own)}
            networks.append({**row, "against": against(row, rows)})
        yield solvers, networks


def networks_of(plan: Plan, problem: Potential, config: Config) -> list[Network]:
    """Those of the checkpoints, all of which must take every grid."""
    networks = told_apart([from_checkpoint(path, problem, config) for path in plan.checkpoints])
    for network in networks:
        for grid in plan.grids:
            network.model.check_grid(grid)
    return networks


def limbs_of(problem: Potential, grid: Grid, count: int) -> list[Batch]:
    """The first test limbs, one in each batch. Their truth is made anew: here it is rough."""
    data = problem.data
    if not isinstance(data, LimbData):
        raise ValueError("bench draws limbs (data=stream): it needs them on several grids")
    rough = dataclasses.replace(data.solver, kind="finite_volume", tolerance=0.1, dtype="float32")
    stream = dataclasses.replace(data.stream("test", grid), solver=rough)
    return [stream.batch([number]) for number in range(count)]


# --- networks


@torch.no_grad()
def measured(network: Network, batch: Batch, limb: Limb, repeats: int) -> tuple[float, float]:
    """Error and seconds on one limb."""
    took, phi = clocked(lambda: network.solve(batch), repeats)
    return limb.error(phi, limb.converged), took


def worth(network: Network, limbs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Mean error over the limbs, and median seconds a limb."""
    return {
        "name": network.name,
        "error": float(np.mean([error for error, _ in limbs])),
        "seconds": float(np.median([seconds for _, seconds in limbs])),
        "training_seconds": training_seconds(Path(network.about["checkpoint"])),
    }


def training_seconds(checkpoint: Path) -> float | None:
    """From the log of a run folder, or from the JSON beside a shipped model; None where neither
    says."""
    log, card = checkpoint / "log.jsonl", checkpoint.with_suffix(".json")
    if log.exists():
        return float(json.loads(log.read_text().splitlines()[-1])["seconds"])
    if checkpoint.is_file() and card.exists():
        known = json.loads(card.read_text()).get("training_seconds")
        return None if known is None else float(known)
    return None


def against(network: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every solver at the loosest tolerance that is as accurate as the network: its seconds with
    setup and without, and the solves after which the training has paid for itself (`pays_after`,
    with setup; `pays_after_without_setup`). None: never, or training seconds that are not known.
    """
    out = []
    for solver in dict.fromkeys(row["solver"] for row in rows):
        own = [row for row in rows if row["solver"] == solver]
        reaching = [row for row in own if row["error"] <= network["error"]]
        if not reaching:
            continue
        row = max(reaching, key=lambda row: row["tolerance"])
        without = row["source"] + row["solve"]
        whole = row["setup"] + without
        out.append(
            {
                "solver": solver,
                "tolerance": row["tolerance"],
                "error": row["error"],
                "seconds": whole,
                "seconds_without_setup": without,
                "pays_after": pays_after(network, whole),
                "pays_after_without_setup": pays_after(network, without),
            }
        )
    return out


def pays_after(network: Mapping[str, Any], solver_seconds: float) -> float | None:
    """Solves after which a training has paid for itself; None: never, or not known.

    Examples
    --------
    >>> pays_after({"training_seconds": 300.0, "seconds": 0.1}, 0.4)
    1000.0
    >>> pays_after({"training_seconds": 300.0, "seconds": 0.4}, 0.1) is None
    True
    """
    training, saved = network["training_seconds"], solver_seconds - network["seconds"]
    if training is None or saved <= 0:
        return None
    return round(float(training / saved), 3)


# --- the layered cylinder


def on_cylinder(plan: Plan) -> Iterator[OnMesh]:
    for row in on_voxels(plan.spacings, plan.element_spacings, plan.repeats):
        say(f"cylinder, {row.method}, {1e3 * row.size:g} mm: {row.error:.2e}")
        yield row
    if not any(plan.meshes.values()):
        return
    if not has_ngsolve():
        say(NO_NGSOLVE)
        return
    for row in on_surfaces(plan.meshes, min(plan.spacings, default=0.002), plan.repeats):
        say(f"cylinder, {row.method}, {1e3 * row.size:g} mm: {row.error:.2e}")
        yield row


# --- what is written


def keep(result: dict[str, Any], folder: Path) -> None:
    """bench.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "bench.json", json.dumps(result, indent=1))


def write(result: dict[str, Any], folder: Path) -> None:
    """bench.json, bench.md and bench.png."""
    keep(result, folder)
    write_text(folder / "bench.md", f"# Rivals\n\n{tables(result)}\n")
    with spared("bench.png"):
        figure(result, folder / "bench.png")
