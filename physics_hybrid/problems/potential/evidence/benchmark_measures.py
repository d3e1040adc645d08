"""What a benchmark measures: accuracy, seconds and memory, floors, and how many times faster."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.evidence import roofline
from physics_hybrid.evidence.bench import seconds
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.data.limb_data import LimbData
from physics_hybrid.problems.potential.data.loading import Files
from physics_hybrid.problems.potential.evidence.benchmark_contenders import Contender, Network
from physics_hybrid.problems.potential.learning import Potential
from physics_hybrid.problems.potential.losses import select
from physics_hybrid.problems.potential.metrics import topography
from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.problems.potential.surrogate import Surrogate, model_inputs
from physics_hybrid.report.markdown import aggregate

#: A row of benchmark.json.
Row = Mapping[str, Any]


# --- accuracy


@torch.no_grad()
def accuracy(contender: Contender, problem: Potential, files: Files) -> dict[str, dict[str, float]]:
    """Statistics over samples of relative L2, RDM and MAG, the latter two also at the skin."""
    rows = []
    for batch in files.batches():
        phi = contender.solve(batch)
        skin = select(batch, "skin", problem.metrics.exclude_radius)
        truth, there = batch.u, phi
        if problem.ends.floating:
            there, truth = zero_mean(phi, skin), zero_mean(truth, skin)
        at_skin = {name: v.tolist() for name, v in topography(there, truth, skin).items()}
        for i, row in enumerate(problem.metrics(phi, batch)):
            kept = {name: row[name] for name in ("relative_l2", "rdm", "mag")}
            for name, values in at_skin.items():
                if math.isfinite(values[i]):
                    kept[f"{name}_skin"] = values[i]
            rows.append(kept)
    return aggregate(rows)


# --- cost


@torch.no_grad()
def cost(
    contender: Contender, batch: Batch, machine: Machine, repeats: int
) -> dict[str, float | None]:
    """Seconds a sample (median of `repeats` calls after two that warm up) and MB that a call adds
    at its peak on a GPU. Finite elements, on the CPU and slow, are warmed up by one call.
    """
    call = functools.partial(contender.solve, batch)
    seconds(call, machine)
    memory = None
    if contender.kind != "elements":
        memory = added_memory(call, machine)
    return {"seconds": median_seconds(call, machine, repeats) / len(batch), "MB": memory}


def added_memory(call: Callable[[], Any], machine: Machine) -> float | None:
    """Call once more: MB that it adds at its peak on a GPU; None elsewhere."""
    device = machine.device
    if device.type != "cuda":
        seconds(call, machine)
        return None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    seconds(call, machine)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def median_seconds(call: Callable[[], Any], machine: Machine, repeats: int) -> float:
    return statistics.median(seconds(call, machine) for _ in range(repeats))


def cpu_seconds(
    network: Network, problem: Potential, batch: Batch, threads: int, repeats: int
) -> float | None:
    """Seconds a sample of a network on the CPU, at most 3 repeats."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = copy.deepcopy(network.model).cpu()
        surrogate = Surrogate(model, problem.ends, network.about["coordinates"])
        there = dataclasses.replace(network, model=model, solve=surrogate)
        cpu = torch.device("cpu")
        return cost(there, batch.to(cpu), Machine(0, 1, cpu), min(repeats, 3))["seconds"]
    finally:
        torch.set_num_threads(before)


def by_grid(
    contenders: Sequence[Contender],
    data: LimbData,
    grids: Sequence[Grid],
    machine: Machine,
    repeats: int,
) -> list[dict[str, Any]]:
    """Cost at batch 1 on each grid; limbs roughly solved, since nothing is compared with them.
    Grids that a network cannot take are left out.
    """
    rough = dataclasses.replace(data.solver, kind="finite_volume", tolerance=0.1, dtype="float32")
    rows = []
    for grid in grids:
        batch = dataclasses.replace(data.stream("test", grid), solver=rough).batch([0])
        for contender in contenders:
            try:
                found = cost(contender, batch, machine, repeats)
            except (ValueError, SolverError) as error:
                print(f"{contender.name} on {name_of(grid)}: {error}", file=sys.stderr)
                continue
            row = {
                "name": contender.name,
                "kind": contender.kind,
                "grid": name_of(grid),
                "voxels": math.prod(grid),
                **found,
            }
            rows.append(row)
    return rows


# --- floors


@torch.no_grad()
def floors(
    networks: Sequence[Network],
    batches: Mapping[int, Batch],
    peak: Mapping[str, float],
    machine: Machine,
    repeats: int,
) -> list[dict[str, Any]]:
    """The backbone's forward pass (features to correction) against what it must move and compute;
    backbones that cannot be counted are left out.
    """
    rows = []
    for network in networks:
        for size, batch in batches.items():
            row = floor_of(network, batch, peak, machine, repeats)
            if row is not None:
                rows.append({"name": network.name, "batch": size, **row})
    return rows


def floor_of(
    network: Network, batch: Batch, peak: Mapping[str, float], machine: Machine, repeats: int
) -> dict[str, float] | None:
    backbone = network.model.backbone
    features = network.model.features(model_inputs(batch), batch.spacing)
    counted = roofline.count(backbone, features.shape[1], len(features), batch.shape)
    if counted is None:
        return None
    moved, operations = counted
    call = functools.partial(backbone, features)
    for _ in range(2):
        roofline.clock(call, machine)
    took = statistics.median(roofline.clock(call, machine) for _ in range(repeats))
    least = roofline.floor(moved, operations, peak)
    return {
        "bytes": moved,
        "operations": operations,
        "seconds": took,
        "floor": least,
        "over_floor": took / least,
    }


# --- speeds at matched accuracy


def best_seconds(row: Row) -> float:
    """Seconds a sample at the best batch size."""
    return float(min(cost["seconds"] for cost in row["cost"].values()))


def error_of(row: Row) -> float:
    return float(row["metrics"]["relative_l2"]["mean"])


def speeds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each network the multigrid at the loosest tolerance that reaches its error, and the
    fastest finite elements: how many times slower.
    """
    solved = [row for row in rows if row["kind"] == "elements"]
    fastest = min(solved, key=best_seconds, default=None)
    return [
        against_multigrid(row, rows) | against_elements(row, fastest)
        for row in rows
        if row["kind"] == "network"
    ]


def against_multigrid(network: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """Its rival is None where no tolerance reaches its error."""
    error, took = error_of(network), best_seconds(network)
    solvers = [row for row in rows if row["kind"] == "multigrid"]
    reaching = [row for row in solvers if error_of(row) <= error]
    out = {"name": network["name"], "relative_l2": error, "seconds": took}
    columns = ("multigrid", "multigrid_relative_l2", "multigrid_seconds", "times_multigrid")
    if not reaching:
        return out | dict.fromkeys(columns)
    rival = max(reaching, key=lambda row: row["tolerance"])
    its = best_seconds(rival)
    return out | dict(zip(columns, (rival["name"], error_of(rival), its, its / took), strict=True))


def against_elements(network: Row, fastest: Row | None) -> dict[str, Any]:
    """None where there are no finite elements, or no network on the same CPU."""
    columns = ("elements_seconds", "times_elements", "times_elements_on_the_same_cpu")
    if fastest is None:
        return dict.fromkeys(columns)
    its, on_cpu = best_seconds(fastest), network.get("cpu_seconds")
    there = its / on_cpu if on_cpu else None
    return dict(zip(columns, (its, its / best_seconds(network), there), strict=True))
