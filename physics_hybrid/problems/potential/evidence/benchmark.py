"""Error against seconds, on one machine in one run: trained networks, our multigrid, finite
elements.

All contenders (`benchmark_contenders.py`) have the same test limbs, and what is measured of them
(`benchmark_measures.py`) becomes one result: `benchmark_report.py`, `benchmark_figure.py`.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from physics_hybrid.cluster.machine import Machine, initialize
from physics_hybrid.evidence import roofline
from physics_hybrid.evidence.bench import configuration
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problem import Config, Place
from physics_hybrid.problems.potential.baseline import PointSourceBaseline
from physics_hybrid.problems.potential.data.limb_data import LimbData
from physics_hybrid.problems.potential.data.loading import Files
from physics_hybrid.problems.potential.evidence.benchmark_contenders import (
    Contender,
    Network,
    baseline_alone,
    closed_form,
    elements,
    from_checkpoint,
    multigrid,
    on_grid,
    trained,
)
from physics_hybrid.problems.potential.evidence.benchmark_figure import figure
from physics_hybrid.problems.potential.evidence.benchmark_measures import (
    accuracy,
    by_grid,
    cost,
    cpu_seconds,
    floors,
    speeds,
)
from physics_hybrid.problems.potential.evidence.benchmark_report import BONES, tables
from physics_hybrid.problems.potential.evidence.rivals_clock import one_thread
from physics_hybrid.problems.potential.learning import Potential
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.problems.potential.problem import PotentialRecipe
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.report.plots import spared
from physics_hybrid.run.provenance import surroundings
from physics_hybrid.writing import write_text


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked of a benchmark.

    checkpoints : run folders or .mdlus files.
    overrides : of the configuration.
    grid, samples : of the test limbs.
    batch_sizes : that costs are measured at.
    tolerances : of the multigrid.
    element_tolerances, element_samples : of the finite elements, and how many limbs they solve.
    budget_steps, models : networks trained here, and for how long.
    grids : for the cost against grid size.
    repeats : calls that a median is taken of.
    cpu_threads : of networks on the CPU, where there is a GPU.

    Raises
    ------
    ValueError
        Fewer samples than the largest batch.
    """

    checkpoints: Sequence[Path]
    overrides: Sequence[str]
    grid: Grid
    samples: int
    batch_sizes: list[int]
    tolerances: Sequence[float]
    element_tolerances: Sequence[float]
    element_samples: int
    budget_steps: int
    models: Sequence[str]
    grids: Sequence[Grid]
    repeats: int
    cpu_threads: int

    def __post_init__(self) -> None:
        if self.samples < max(self.batch_sizes):
            raise ValueError(
                "--samples must be at least the largest of --batch-sizes; got"
                f" {self.samples} and {max(self.batch_sizes)}"
            )

    def configuration(self) -> dict[str, Any]:
        """That of the problem: the test limbs are read in batches of the largest size."""
        config = configuration(["run=benchmark", *self.overrides, on_grid(self.grid)])
        data = {**config["data"], "batch_size": max(self.batch_sizes), "workers": 0}
        return {**config, "data": data}


@dataclass(frozen=True)
class Trial:
    """What contenders are measured on.

    files : limbs for their accuracy.
    batches : size -> limbs for their cost.
    repeats : calls that a median is taken of.
    """

    problem: Potential
    machine: Machine
    files: Files
    batches: dict[int, Batch]
    repeats: int

    def row(self, contender: Contender) -> dict[str, Any]:
        """Accuracy and cost of one contender.

        Raises
        ------
        SolverError
            It does not come to its tolerance.
        """
        metrics = accuracy(contender, self.problem, self.files)
        print(f"{contender.name}: relative L2 {metrics['relative_l2']['mean']:.4g}", flush=True)
        costs = {
            str(size): cost(contender, batch, self.machine, self.repeats)
            for size, batch in self.batches.items()
        }
        return {
            "name": contender.name,
            "kind": contender.kind,
            **contender.about,
            "samples": len(self.files.entries),
            "metrics": metrics,
            "cost": costs,
        }


def run_benchmark(plan: Plan) -> dict[str, Any]:
    """The content of benchmark.json.

    Raises
    ------
    CheckpointError, ValueError
        A checkpoint that cannot be read, has other ends, or cannot take the grid; before anything
        is solved.
    """
    if not plan.checkpoints and not plan.budget_steps:
        print(
            "no network takes part: give checkpoints, or --budget-steps N to train some here",
            file=sys.stderr,
        )
    config = plan.configuration()
    machine = initialize(config["training"]["device"])
    if config["training"]["threads"]:
        torch.set_num_threads(config["training"]["threads"])
    problem = PotentialRecipe(config).open(Place(machine.device))
    data = problem.data
    if not isinstance(data, LimbData) or config["data"]["kind"] != "limbs":
        raise ValueError("the benchmark draws limbs (data=stream): it needs them on several grids")
    networks = networks_of(plan, problem, config)

    files = data.test(plan.grid, plan.samples)
    whole = next(files.batches())
    trial = Trial(
        problem=problem,
        machine=machine,
        files=files,
        batches={size: whole.split(size)[0] for size in plan.batch_sizes},
        repeats=plan.repeats,
    )
    rows = network_rows(networks, trial, other_bones(data, config, plan), plan.cpu_threads)
    solvers = []
    for tolerance in sorted(plan.tolerances, reverse=True):
        contender, row = in_float32_or_64(tolerance, trial)
        solvers.append(contender)
        rows.append(row)
    if plan.element_samples:
        few = dataclasses.replace(
            trial,
            files=dataclasses.replace(
                files, entries=files.entries[: plan.element_samples], batch_size=1
            ),
            batches={1: whole.split(1)[0]},
            repeats=1,
        )
        rows += [few.row(elements(tolerance, problem)) for tolerance in plan.element_tolerances]
    rows += [trial.row(contender) for contender in closed_forms(networks, problem)]

    compared = [*networks, *rivals(solvers, rows)]
    with one_thread():
        peak = roofline.peaks(machine)
        against_floor = floors(networks, trial.batches, peak, machine, plan.repeats)
    on_gpu = machine.device.type == "cuda"
    return {
        "grid": name_of(plan.grid),
        "voxels": math.prod(plan.grid),
        "samples": plan.samples,
        "batch_sizes": plan.batch_sizes,
        "seed": config["seed"],
        "ends": config["problem"]["ends"],
        "truth": f"{data.solver.kind} to {data.solver.tolerance:g}",
        "rows": rows,
        "speeds": speeds(rows),
        "by_grid": by_grid(compared, data, plan.grids, machine, plan.repeats),
        "peak": peak,
        "roofline": against_floor,
        "cpu_threads": plan.cpu_threads if on_gpu else torch.get_num_threads(),
        **surroundings(machine.device),
    }


# --- networks


def networks_of(plan: Plan, problem: Potential, config: Config) -> list[Network]:
    """Those of the checkpoints, all of which must take the grid, and those trained here."""
    networks = [from_checkpoint(path, problem, config) for path in plan.checkpoints]
    for network in networks:
        network.model.check_grid(plan.grid)
    if plan.budget_steps:
        networks += trained(plan.models, plan.grid, plan.budget_steps, plan.overrides, problem)
    return told_apart(networks)


def told_apart(networks: Sequence[Network]) -> list[Network]:
    """Run folders of the same name have their paths beside it."""
    count = collections.Counter(network.name for network in networks)
    out = []
    for i, network in enumerate(networks):
        name = network.name
        if count[name] > 1:
            name = f"{name} ({network.about.get('checkpoint', i)})"
        out.append(dataclasses.replace(network, name=name))
    return out


def other_bones(data: LimbData, config: Config, plan: Plan) -> Files | None:
    """The same limbs with the bones of a leg, which no training on elliptical bones has seen; None
    where they are not elliptical.
    """
    if config["data"]["phantom"]["bone_shape"] != "ellipse":
        return None
    limbs: Any = data.limbs  # of this kind of data they are `LimbDistribution`
    legs = dataclasses.replace(data, limbs=dataclasses.replace(limbs, bone_shape="tibia_fibula"))
    return legs.test(plan.grid, plan.samples)


def network_rows(
    networks: Sequence[Network], trial: Trial, bones: Files | None, threads: int
) -> list[dict[str, Any]]:
    """Beside what all contenders have: the error with other bones, and seconds on the CPU."""
    smallest = min(trial.batches)
    rows = []
    for network in networks:
        row = trial.row(network)
        if bones is not None:
            row[BONES] = accuracy(network, trial.problem, bones)["relative_l2"]
        if trial.machine.device.type == "cuda":
            row["cpu_seconds"] = cpu_seconds(
                network, trial.problem, trial.batches[smallest], threads, trial.repeats
            )
        else:
            row["cpu_seconds"] = row["cost"][str(smallest)]["seconds"]
        rows.append(row)
    return rows


# --- solvers and closed forms


def in_float32_or_64(tolerance: float, trial: Trial) -> tuple[Contender, dict[str, Any]]:
    """The multigrid in float32, or in float64 where that does not come to its tolerance."""
    single = multigrid(tolerance, torch.float32, trial.problem)
    try:
        return single, trial.row(single)
    except SolverError:
        double = multigrid(tolerance, torch.float64, trial.problem)
        return double, trial.row(double)


def closed_forms(networks: Sequence[Network], problem: Potential) -> list[Contender]:
    """Every baseline that is not the infinite medium, and the infinite medium."""
    solved = [n for n in networks if not isinstance(n.model.baseline, PointSourceBaseline)]
    return [*(baseline_alone(n, problem) for n in solved), closed_form(problem.ends)]


def rivals(solvers: Sequence[Contender], rows: Sequence[dict[str, Any]]) -> Sequence[Contender]:
    """The multigrid at each tolerance that a network is compared with; at the tightest one where
    no network is.
    """
    named = {speed["multigrid"] for speed in speeds(rows)}
    return [solver for solver in solvers if solver.name in named] or solvers[-1:]


# --- what is written


def write(result: dict[str, Any], folder: Path) -> None:
    """benchmark.json, benchmark.md and benchmark.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "benchmark.json", json.dumps(result, indent=1))
    write_text(folder / "benchmark.md", f"# Benchmark\n\n{tables(result)}\n")
    with spared("benchmark.png"):
        figure(result, folder / "benchmark.png")
