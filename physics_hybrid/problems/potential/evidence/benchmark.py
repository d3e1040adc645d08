"""Error against seconds, on one machine in one run: trained networks, our multigrid, finite
elements.

    python -m physics_hybrid benchmark [CHECKPOINT ...] [--grid 96x48x48] [--samples 200]
    [--budget-steps 0] [--output benchmark] [key=value ...]

Limbs, ends and metrics are those of conf/config.yaml with the overrides, and all contenders have
the same test limbs:

    networks          every CHECKPOINT (run folder or .mdlus), and with --budget-steps N each of --models trained for N steps on the same batches
                      (fno is PhysicsNeMo's; fno_neuraloperator is left out where that library is
                      not installed)
    multigrid         our finite volumes at each of --tolerances, in batches, operator and levels set up anew: float32, or float64 where that fails
    finite elements   scikit-fem and pyamg on the CPU, on --elements limbs; their error is that of another discretisation, whatever the tolerance
    analytical        the closed form of an infinite medium, and beside a network with another baseline that baseline alone

From sigma and source on the device to volts on the device, `seconds` is the median of --repeats
calls over the samples of a batch, for each of
--batch-sizes; speeds compare each contender at its best. Memory is what a call adds on the GPU at
its peak, batch input not counted (null on a CPU). On a GPU networks are also timed on the CPU with
--cpu-threads, beside the finite elements. The cost against grid size is at batch 1. How the floor
of an FNO is counted: physics_hybrid/roofline.py. Written into the output folder: benchmark.json,
.md and .png.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from physics_hybrid.cluster.machine import Machine, initialize
from physics_hybrid.evidence import roofline
from physics_hybrid.evidence.bench import bench, configuration, seconds
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problem import Place
from physics_hybrid.problems.potential.baseline import PointSourceBaseline
from physics_hybrid.problems.potential.data.sources import Files, LimbData
from physics_hybrid.problems.potential.losses import select
from physics_hybrid.problems.potential.metrics import topography
from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.problems.potential.problem import Potential, PotentialRecipe
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.problems.potential.surrogate import Surrogate, baseline_potential, model_inputs
from physics_hybrid.report.markdown import aggregate
from physics_hybrid.run.folder import flat
from physics_hybrid.run.load import load
from physics_hybrid.run.provenance import surroundings

MODELS = "fno,fno_residual,unet,fno_neuraloperator"
BONES = "real bones"


@dataclass
class Contender:
    """name; kind: network, multigrid, elements, analytical, or baseline (of a network, where it is
    not analytical); solve: batch -> phi (B, D, H, W) in V; about: what else a row says of it.
    """

    name: str
    kind: str
    solve: Callable[[Batch], Tensor]
    about: dict[str, Any]
    model: nn.Module | None = None


# --- contenders


def network(
    name: str, model: nn.Module, problem: Potential, config: dict[str, Any], **about
) -> Contender:
    """A trained network, with its own coordinate channels."""
    kind = config["problem"]["coordinates"]
    model = model.to(problem.data.device).eval()
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "backbone": type(model.backbone).__name__,
        "coordinates": kind,
        **about,
    }
    return Contender(
        name, "network", lambda batch: Surrogate(model, problem.ends, kind)(batch), facts, model
    )


def from_checkpoint(path: Path, problem: Potential, config: dict[str, Any]) -> Contender:
    """Raises ValueError for a network that knows other ends; one of other limbs is measured, and
    its row says so.
    """
    model, own, _ = load(path)
    own = own or config
    if (own["problem"]["ends"], own["problem"]["beta"]) != (
        config["problem"]["ends"],
        config["problem"]["beta"],
    ):
        raise ValueError(
            f"{path} was trained with problem.ends={own['problem']['ends']}, and this benchmark has"
            f" {config['problem']['ends']}: set problem.ends, or leave it out"
        )

    def limbs(c):
        return {k: v for k, v in flat(c).items() if k.startswith("data.phantom.")}

    other = own["data"]["kind"] != "limbs" or limbs(own) != limbs(config)
    if model.sigma_components != config["data"]["sigma_components"]:
        raise ValueError(
            f"{path} takes {model.sigma_components} components of sigma: set"
            f" data.sigma_components={model.sigma_components}, or leave it out"
        )
    return network(
        path.name if path.is_dir() else path.stem,
        model,
        problem,
        own,
        checkpoint=str(path),
        seed=own["seed"],
        trained_on_other_limbs=other,
    )


def trained(
    names: list[str], grid: Grid, steps: int, overrides: list[str], problem: Potential
) -> list[Contender]:
    """Networks trained here, each for `steps` optimiser steps on the same batches, with the
    schedule stretched over them.
    """
    out = []
    for name in names:
        if name == "fno_neuraloperator" and importlib.util.find_spec("neuralop") is None:
            print("fno_neuraloperator is left out: pip install neuraloperator", file=sys.stderr)
            continue
        known = configuration([f"model={name}"])["model"]["backbone"]
        fitting = [
            o
            for o in overrides
            if not o.startswith("model.backbone.") or o.split("=")[0].split(".")[2] in known
        ]
        batch_size = configuration(overrides)["data"]["batch_size"]
        b = bench(
            [
                *fitting,
                f"model={name}",
                f"data.grid=[{','.join(map(str, grid))}]",
                "training.epochs=1",
                f"data.samples_per_epoch={steps * batch_size}",
            ],
            statistics_samples=None,
        )
        started = time.perf_counter()
        for batch in tqdm(
            b.problem.train_batches(0, 0),
            total=steps,
            desc=f"training {name}",
            disable=not sys.stderr.isatty(),
        ):
            b.trainer.step([batch])
        out.append(
            network(
                f"{name}, {steps} steps",
                b.trainer.evaluated,
                problem,
                b.config,
                seed=b.config["seed"],
                training_seconds=time.perf_counter() - started,
                training_samples=steps * batch_size,
            )
        )
    return out


def multigrid(tolerance: float, dtype: torch.dtype, problem: Potential) -> Contender:
    def run(batch: Batch) -> Tensor:
        return solve(
            batch.conductor(problem.ends), batch.point_source(), tolerance, dtype
        ).phi.float()

    return Contender(
        f"multigrid {tolerance:g}",
        "multigrid",
        run,
        {"tolerance": tolerance, "dtype": str(dtype).removeprefix("torch.")},
    )


def elements(tolerance: float, problem: Potential) -> Contender:
    from physics_hybrid.problems.potential.physics.elements.solve import solve_elements

    def run(batch):
        return solve_elements(
            batch.conductor(problem.ends), batch.point_source(), tolerance
        ).phi.to(batch.u)

    return Contender(
        f"scikit-fem + pyamg {tolerance:g}",
        "elements",
        run,
        {"tolerance": tolerance, "dtype": "float64"},
    )


# --- measurements


@torch.no_grad()
def accuracy(contender: Contender, problem: Potential, files: Files) -> dict[str, dict[str, float]]:
    """Statistics over samples of relative L2, RDM and MAG, the latter two also at the skin."""
    rows = []
    for batch in files.batches():
        phi = contender.solve(batch)
        skin = select(batch, "skin", problem.metrics.exclude_radius)
        centred = (lambda f: zero_mean(f, skin)) if problem.ends.floating else lambda f: f
        there = {k: v.tolist() for k, v in topography(centred(phi), centred(batch.u), skin).items()}
        for i, row in enumerate(problem.metrics(phi, batch)):
            at_skin = {f"{k}_skin": v[i] for k, v in there.items() if math.isfinite(v[i])}
            rows.append({k: row[k] for k in ("relative_l2", "rdm", "mag")} | at_skin)
    return aggregate(rows)


@torch.no_grad()
def cost(
    contender: Contender, batch: Batch, machine: Machine, repeats: int
) -> dict[str, float | None]:
    """Seconds a sample (median of `repeats` calls after two that warm up) and MB that a call adds
    at its peak on a GPU.
    """
    call, memory = lambda: contender.solve(batch), None
    seconds(call, machine)
    if machine.device.type == "cuda" and contender.kind != "elements":
        before = torch.cuda.memory_allocated(machine.device)
        torch.cuda.reset_peak_memory_stats(machine.device)
        seconds(call, machine)
        memory = (torch.cuda.max_memory_allocated(machine.device) - before) / 1e6
    elif contender.kind != "elements":
        seconds(call, machine)
    return {
        "seconds": statistics.median(seconds(call, machine) for _ in range(repeats)) / len(batch),
        "MB": memory,
    }


def cpu_cost(
    contender: Contender, problem: Potential, batch: Batch, threads: int, repeats: int
) -> float:
    """Seconds a sample of a network on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = copy.deepcopy(contender.model).cpu()
        there = Contender(
            contender.name,
            "network",
            lambda b: Surrogate(model, problem.ends, contender.about["coordinates"])(b),
            {},
            model,
        )
        return cost(
            there,
            batch.to(torch.device("cpu")),
            Machine(0, 1, torch.device("cpu")),
            min(repeats, 3),
        )["seconds"]
    finally:
        torch.set_num_threads(before)


def by_grid(
    contenders: list[Contender], data: LimbData, grids: list[Grid], machine: Machine, repeats: int
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
                rows.append(
                    {
                        "name": contender.name,
                        "kind": contender.kind,
                        "grid": name_of(grid),
                        "voxels": math.prod(grid),
                        **cost(contender, batch, machine, repeats),
                    }
                )
            except (ValueError, SolverError) as error:
                print(f"{contender.name} on {name_of(grid)}: {error}", file=sys.stderr)
    return rows


@torch.no_grad()
def floors(
    contenders: list[Contender],
    batches: dict[int, Batch],
    peak: dict[str, float],
    machine: Machine,
    repeats: int,
) -> list[dict[str, Any]]:
    """The backbone's forward pass (features to correction) against what it must move and
    compute.
    """
    rows = []
    for contender in contenders:
        for size, batch in batches.items():
            backbone = contender.model.backbone
            features = contender.model.prepare(model_inputs(batch), batch.spacing)[0]
            counted = roofline.count(backbone, features.shape[1], len(features), batch.shape)
            if counted is None:
                continue

            def call():
                return backbone(features)

            seconds(call, machine), seconds(call, machine)
            took = statistics.median(seconds(call, machine) for _ in range(repeats))
            least = roofline.floor(*counted, peak)
            rows.append(
                {
                    "name": contender.name,
                    "batch": size,
                    "bytes": counted[0],
                    "operations": counted[1],
                    "seconds": took,
                    "floor": least,
                    "over_floor": took / least,
                }
            )
    return rows


def speeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each network the multigrid at the loosest tolerance that reaches its error, and the
    fastest finite elements: how many times slower.
    """

    def best(row):
        return min(c["seconds"] for c in row["cost"].values())

    out = []
    for row in (r for r in rows if r["kind"] == "network"):
        error = row["metrics"]["relative_l2"]["mean"]
        reaching = [
            r
            for r in rows
            if r["kind"] == "multigrid" and r["metrics"]["relative_l2"]["mean"] <= error
        ]
        rival = max(reaching, key=lambda r: r["tolerance"], default=None)
        solved = min((r for r in rows if r["kind"] == "elements"), key=best, default=None)
        out.append(
            {
                "name": row["name"],
                "relative_l2": error,
                "seconds": best(row),
                "multigrid": rival and rival["name"],
                "multigrid_relative_l2": rival and rival["metrics"]["relative_l2"]["mean"],
                "multigrid_seconds": rival and best(rival),
                "times_multigrid": rival and best(rival) / best(row),
                "elements_seconds": solved and best(solved),
                "times_elements": solved and best(solved) / best(row),
                "times_elements_on_the_same_cpu": (
                    solved and row.get("cpu_seconds") and best(solved) / row["cpu_seconds"]
                ),
            }
        )
    return out


def run_benchmark(
    checkpoints: list[Path],
    overrides: list[str],
    grid: Grid,
    samples: int,
    batch_sizes: list[int],
    tolerances: list[float],
    element_tolerances: list[float],
    element_samples: int,
    budget_steps: int,
    models: list[str],
    grids: list[Grid],
    repeats: int,
    cpu_threads: int,
) -> dict[str, Any]:
    """The content of benchmark.json.

    Raises
    ------
    CheckpointError, ValueError
        A checkpoint that cannot be read, has other ends, or cannot take the grid; before anything
        is solved.
    """
    if samples < max(batch_sizes):
        raise ValueError(
            f"--samples must be at least the largest of --batch-sizes; got {samples} and"
            f" {max(batch_sizes)}"
        )
    if not checkpoints and not budget_steps:
        print(
            "no network takes part: give checkpoints, or --budget-steps N to train some here",
            file=sys.stderr,
        )
    config = configuration(["run=benchmark", *overrides, f"data.grid=[{','.join(map(str, grid))}]"])
    config["data"] |= {"batch_size": max(batch_sizes), "workers": 0}
    machine = initialize(config["training"]["device"])
    if config["training"]["threads"]:
        torch.set_num_threads(config["training"]["threads"])
    problem = PotentialRecipe(config).open(Place(machine.device))
    data = problem.data
    if not isinstance(data, LimbData) or config["data"]["kind"] != "limbs":
        raise ValueError("the benchmark draws limbs (data=stream): it needs them on several grids")
    networks = [from_checkpoint(path, problem, config) for path in checkpoints]
    for contender in networks:
        contender.model.check_grid(grid)
    networks += trained(models, grid, budget_steps, overrides, problem) if budget_steps else []
    names = [c.name for c in networks]
    for i, contender in enumerate(networks):  # run folders of the same name
        if names.count(contender.name) > 1:
            contender.name = f"{contender.name} ({contender.about.get('checkpoint', i)})"

    files = data.test(grid, samples)
    few = dataclasses.replace(files, entries=files.entries[:element_samples], batch_size=1)
    whole = next(files.batches())
    batches = {size: whole.split(size)[0] for size in batch_sizes}
    bones = (
        real_bones(data).test(grid, samples)
        if config["data"]["phantom"]["bone_shape"] == "ellipse"
        else None
    )

    rows = []

    def measured(
        contender: Contender, where: Files, costs: dict[int, Batch], times: int
    ) -> dict[str, Any]:
        metrics = accuracy(contender, problem, where)
        print(f"{contender.name}: relative L2 {metrics['relative_l2']['mean']:.4g}", flush=True)
        row = {
            "name": contender.name,
            "kind": contender.kind,
            **contender.about,
            "samples": len(where.entries),
            "metrics": metrics,
        }
        rows.append(
            row
            | {
                "cost": {
                    str(size): cost(contender, batch, machine, times)
                    for size, batch in costs.items()
                }
            }
        )
        return rows[-1]

    for contender in networks:
        row = measured(contender, files, batches, repeats)
        if bones:
            row[BONES] = accuracy(contender, problem, bones)["relative_l2"]
        row["cpu_seconds"] = (
            cpu_cost(contender, problem, batches[min(batches)], cpu_threads, repeats)
            if machine.device.type == "cuda"
            else row["cost"][str(min(batches))]["seconds"]
        )
    solvers = []
    for tolerance in sorted(tolerances, reverse=True):
        for dtype in (torch.float32, torch.float64):
            try:
                contender = multigrid(tolerance, dtype, problem)
                measured(contender, files, batches, repeats)
                solvers.append(contender)
                break
            except SolverError:
                if dtype is torch.float64:
                    raise
    for tolerance in element_tolerances if element_samples else ():
        measured(elements(tolerance, problem), few, {1: whole.split(1)[0]}, 1)
    for contender in networks:
        if not isinstance(contender.model.baseline, PointSourceBaseline):

            def alone(batch, model=contender.model):
                return problem.baseline(model, batch)

            measured(
                Contender(f"{contender.name}: its baseline alone", "baseline", alone, {}),
                files,
                batches,
                repeats,
            )
    closed_form = PointSourceBaseline()
    measured(
        Contender(
            "analytical baseline",
            "analytical",
            lambda batch: baseline_potential(closed_form, batch, problem.ends),
            {},
        ),
        files,
        batches,
        repeats,
    )

    rival = {s["multigrid"] for s in speeds(rows)}
    peak = roofline.peaks(machine)
    return {
        "grid": name_of(grid),
        "voxels": math.prod(grid),
        "samples": samples,
        "batch_sizes": batch_sizes,
        "seed": config["seed"],
        "ends": config["problem"]["ends"],
        "truth": f"{data.solver.kind} to {data.solver.tolerance:g}",
        "rows": rows,
        "speeds": speeds(rows),
        "by_grid": by_grid(
            [
                *networks,
                *(s for s in solvers if s.name in rival or not rival - {None} and s is solvers[-1]),
            ],
            data,
            grids,
            machine,
            repeats,
        ),
        "peak": peak,
        "roofline": floors(networks, batches, peak, machine, repeats),
        "cpu_threads": cpu_threads if machine.device.type == "cuda" else torch.get_num_threads(),
        **surroundings(machine.device),
    }


def real_bones(data: LimbData) -> LimbData:
    """The same limbs with the bones of a leg, which no training on elliptical bones has seen."""
    return dataclasses.replace(
        data, limbs=dataclasses.replace(data.limbs, bone_shape="tibia_fibula")
    )


# --- what is written


def _power(value: float) -> str:
    """1e-3 as a power of ten, anything else as it is."""
    exponent = round(math.log10(value))
    return f"$10^{{{exponent}}}$" if math.isclose(value, 10.0**exponent) else f"{value:g}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{1e3 * value:.3g}"


def tables(result: dict[str, Any]) -> str:
    """Contenders, speeds at matched accuracy, cost against grid size, roofline: Markdown."""
    sizes = [str(s) for s in result["batch_sizes"]]
    lines = [
        "| what | parameters | relative L2 | p95 | RDM, skin | MAG, skin | real bones | "
        + " | ".join(f"ms a sample, batch {s}" for s in sizes)
        + " | MB |",
        "|---" * (8 + len(sizes)) + "|",
    ]
    for r in result["rows"]:
        m = r["metrics"]
        costs = [r["cost"].get(s) for s in sizes]
        if not any(costs):
            costs = [next(iter(r["cost"].values())), *[None] * (len(sizes) - 1)]
        memory = max((c["MB"] for c in costs if c and c["MB"] is not None), default=None)
        note = (
            " (trained on other limbs)"
            if r.get("trained_on_other_limbs")
            else f" ({r['dtype']})"
            if r["kind"] == "multigrid"
            else ""
        )

        def statistic(name, which):
            return f"{m[name][which]:.4g}" if name in m else ""

        lines.append(
            f"| {r['name']}{note} |"
            f" {'%.2f M' % (r['parameters'] / 1e6) if 'parameters' in r else ''} |"
            f" {statistic('relative_l2', 'mean')} | {statistic('relative_l2', 'p95')} |"
            f" {statistic('rdm_skin', 'mean')} | {statistic('mag_skin', 'mean')} |"
            f" {'%.4g' % r[BONES]['mean'] if BONES in r else ''} |"
            f" {' | '.join(_ms(c and c['seconds']) for c in costs)} |"
            f" {'' if memory is None else f'{memory:.0f}'} |"
        )
    elements_on = next(
        (f" (finite elements: {r['samples']})" for r in result["rows"] if r["kind"] == "elements"),
        "",
    )
    lines += [
        "",
        (
            f"{result['samples']} unseen limbs at {result['grid']}{elements_on}, truth by"
            f" {result['truth'].replace('_', ' ')}, ends {result['ends']}; {result['hardware']},"
            f" torch {result['torch']}, commit {result['commit'][:10]}, {result['date']}."
        ),
    ]
    if result["speeds"]:
        lines += [
            "",
            (
                "| network | relative L2 | ms a sample | multigrid that reaches it | its ms |"
                f" times faster | than scikit-fem + pyamg | the same on {result['cpu_threads']} CPU"
                " threads |"
            ),
            "|---" * 8 + "|",
        ]

        def times(v):
            return "" if v is None else f"{v:.3g}"

        for s in result["speeds"]:
            rival = (
                f"{s['multigrid']} ({s['multigrid_relative_l2']:.4g})"
                if s["multigrid"]
                else "none of these tolerances"
            )
            lines.append(
                f"| {s['name']} | {s['relative_l2']:.4g} | {_ms(s['seconds'])} | {rival} |"
                f" {_ms(s['multigrid_seconds'])} | {times(s['times_multigrid'])} |"
                f" {times(s['times_elements'])} | {times(s['times_elements_on_the_same_cpu'])} |"
            )
    if result["by_grid"]:
        grids = list(dict.fromkeys(r["grid"] for r in result["by_grid"]))
        lines += [
            "",
            "| ms a sample, batch 1 | " + " | ".join(grids) + " |",
            "|---" * (1 + len(grids)) + "|",
        ]
        for name in dict.fromkeys(r["name"] for r in result["by_grid"]):
            own = {r["grid"]: r["seconds"] for r in result["by_grid"] if r["name"] == name}
            lines.append(f"| {name} | " + " | ".join(_ms(own.get(g)) for g in grids) + " |")
    if result["roofline"]:
        lines += [
            "",
            (
                "| forward pass of the backbone | batch | GB moved at least | Gop | floor, ms |"
                " measured, ms | over the floor |"
            ),
            "|---" * 7 + "|",
        ]
        lines += [
            f"| {r['name']} | {r['batch']} | {r['bytes'] / 1e9:.3g} | {r['operations'] / 1e9:.3g} |"
            f" {_ms(r['floor'])} | {_ms(r['seconds'])} | {r['over_floor']:.3g} |"
            for r in result["roofline"]
        ]
        lines += [
            "",
            (
                f"Floor: at {result['peak']['bandwidth'] / 1e9:.0f} GB/s (a copy) and"
                f" {result['peak']['matmul'] / 1e12:.3g} Top/s (a float32 matrix product), measured"
                " in the same run."
            ),
        ]
    return "\n".join(lines)


def figure(result: dict[str, Any], path: Path) -> Path:
    """Left: error against seconds a sample, each at its best batch size; bars reach to the 95th
    percentile. Right: seconds against voxels at batch 1.
    """
    from physics_hybrid.report.plots import plain_ticks, pyplot, save

    plt = pyplot()
    from matplotlib.ticker import LogLocator, NullFormatter

    figure_, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.8), layout="constrained", gridspec_kw={"width_ratios": [1.25, 1]}
    )

    def best(row):
        return 1e3 * min(c["seconds"] for c in row["cost"].values())

    def percent(row, which="mean"):
        return 100 * row["metrics"]["relative_l2"][which]

    colors = dict(
        zip(
            (r["name"] for r in result["rows"] if r["kind"] == "network"),
            plt.get_cmap("tab10").colors,
        )
    )
    for row in (r for r in result["rows"] if r["kind"] == "network"):
        left.errorbar(
            best(row),
            percent(row),
            yerr=[[0], [max(0, percent(row, "p95") - percent(row))]],
            marker="o",
            markersize=8,
            capsize=3,
            color=colors[row["name"]],
            linestyle="none",
            label=row["name"],
            zorder=3,
        )
    solved = [r for r in result["rows"] if r["kind"] == "multigrid"]
    if solved:
        left.plot(
            [best(r) for r in solved],
            [percent(r) for r in solved],
            color="black",
            marker="s",
            markersize=5,
            linewidth=1.2,
            label="multigrid, relative residual as marked",
        )
        for row in solved:
            left.annotate(
                _power(row["tolerance"]),
                (best(row), percent(row)),
                textcoords="offset points",
                xytext=(-6, -9),
                ha="right",
                fontsize=8,
                color="0.25",
            )
    fem = [r for r in result["rows"] if r["kind"] == "elements"]
    if fem:
        left.plot(
            [best(r) for r in fem],
            [percent(r) for r in fem],
            color="tab:brown",
            marker="D",
            linestyle="none",
            markersize=6,
            label="scikit-fem + pyamg, CPU",
        )
    for row in (r for r in result["rows"] if r["kind"] == "baseline"):
        left.plot(
            best(row),
            percent(row),
            marker="x",
            color=colors[row["name"].removesuffix(": its baseline alone")],
            linestyle="none",
            label=row["name"],
        )
    for row in (r for r in result["rows"] if r["kind"] == "analytical"):
        left.axhline(
            percent(row), color="0.45", linestyle=":", linewidth=1.2, label="analytical baseline"
        )
    left.set(
        xscale="log",
        yscale="log",
        xlabel="ms a sample, at the best batch size",
        ylabel="relative L2 error (%)",
    )
    left.set_title(f"{result['grid']}, {result['hardware']}", fontsize=10)
    for name in dict.fromkeys(r["name"] for r in result["by_grid"]):
        own = sorted(
            (r["voxels"], 1e3 * r["seconds"]) for r in result["by_grid"] if r["name"] == name
        )
        solver = name not in colors
        right.plot(
            *zip(*own),
            marker="s" if solver else "o",
            markersize=5,
            linewidth=1.3,
            color=colors.get(name, "black"),
            label=name if solver else None,
        )
    if result["by_grid"]:
        ticks = sorted({(r["voxels"], r["grid"]) for r in result["by_grid"]})
        low, high = ticks[0][0], ticks[-1][0]
        right.set(xscale="log", yscale="log", xlabel="grid", ylabel="ms a sample, batch 1")
        bounds, top = (
            right.get_ylim(),
            0.75 * min(1e3 * r["seconds"] for r in result["by_grid"] if r["voxels"] == high),
        )
        right.plot(
            (low, high),
            (top * low / high, top),
            color="0.6",
            linewidth=0.9,
            linestyle="--",
            label="proportional to voxels",
        )
        right.set_ylim(0.7 * bounds[0], bounds[1])
        right.set_xticks([v for v, _ in ticks], [g for _, g in ticks], rotation=30, ha="right")
        right.xaxis.set_minor_formatter(NullFormatter())
        right.minorticks_off()
        right.legend(fontsize=8, frameon=False, loc="upper left")
        right.grid(True, alpha=0.25)
        plain_ticks(right)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(LogLocator())
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    left.margins(x=0.12)
    left.grid(True, which="both", alpha=0.2)
    figure_.legend(
        *left.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    return save(figure_, path)


def write(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(result, indent=1))
    (folder / "benchmark.md").write_text(f"# Benchmark\n\n{tables(result)}\n")
    figure(result, folder / "benchmark.png")
