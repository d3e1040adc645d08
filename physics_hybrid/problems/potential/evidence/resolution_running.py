"""Every run on every grid: what is measured.

On each grid, for the same test limbs (those of the first run's seed; truth solved on that grid):

    direct                 the network on that grid
    potential, trilinear   its prediction on the finest of its training grids that is coarser,
                           interpolated
    potential, Fourier     the same, by cosines (potential/resample.py)
    correction, trilinear  that prediction over its baseline, interpolated, times the baseline of
                           the grid
    correction, Fourier    the same, by cosines
    home                   model.evaluate_at=home: the correction computed there of the conductivity
                           of the grid itself, interpolated, times the baseline of the grid
    baseline               its baseline alone

Runs that differ in their seed only are one row, given as mean and standard deviation over seeds.
Errors are relative L2 (see potential/metrics.py), also by distance from the source and by
wavelength.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from physics_hybrid.cluster.machine import Machine, initialize
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problem import Place
from physics_hybrid.problems.potential.learning import Potential
from physics_hybrid.problems.potential.losses import select
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.problem import PotentialRecipe
from physics_hybrid.problems.potential.resample import cosine, upsample
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.problems.potential.surrogate import Surrogate
from physics_hybrid.problems.potential.wavelengths import by_wavelength, wavelength_names
from physics_hybrid.run.folder import FREE, leaves
from physics_hybrid.run.load import load
from physics_hybrid.run.provenance import surroundings

DIRECT, HOME, BASELINE = "direct", "home", "baseline"
UPSAMPLED = (
    "potential, trilinear",
    "potential, Fourier",
    "correction, trilinear",
    "correction, Fourier",
)

#: Errors of one sample, by their names.
Row = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Run:
    """A training that is measured, and where it lies."""

    folder: Path
    model: Any
    config: dict[str, Any]


def contenders(
    problem: Potential, model: nn.Module, batch: Batch, coarse: Batch | None
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """phi (B, D, H, W) in volts of every contender on the grid of `batch`, and seconds a sample of
    those that a network makes on that grid; `coarse` holds the same limbs on a training grid, or is
    None.
    """
    # no mean is taken off before the end: a ratio of potentials that pass zero has poles
    free = dataclasses.replace(problem, ends=Ends())
    base = free.baseline(model, batch)
    seconds: dict[str, float] = {}

    def clocked(who: str, surrogate: Surrogate) -> Tensor:
        """What a network makes, and how long it takes."""
        started = time.perf_counter()
        phi = surrogate(batch)
        if phi.is_cuda:
            torch.cuda.synchronize()
        seconds[who] = (time.perf_counter() - started) / len(batch)
        return phi

    out = {DIRECT: clocked(DIRECT, free.surrogate(model)), BASELINE: base}
    if coarse is not None:
        phi, inside = free.surrogate(model)(coarse), coarse.tissue
        ratio = torch.where(inside, phi / free.baseline(model, coarse).where(inside, 1.0), 0.0)
        carried = (
            upsample(phi, inside, batch.shape),
            cosine(phi, inside, batch.shape),
            upsample(ratio, inside, batch.shape) * base,
            cosine(ratio, inside, batch.shape) * base,
        )
        out |= dict(zip(UPSAMPLED, carried, strict=True))
        at_home: Any = copy.copy(model)  # the same weights
        at_home.home = coarse.shape
        out[HOME] = clocked(HOME, free.surrogate(at_home))
    if problem.ends.floating:
        return {who: zero_mean(phi, batch.tissue) for who, phi in out.items()}, seconds
    return {who: torch.where(batch.tissue, phi, 0.0) for who, phi in out.items()}, seconds


def measure(
    phi: Tensor, batch: Batch, metrics: Metrics, physics: Any, wavelengths: list[float]
) -> list[Row]:
    """For each sample relative_l2, rdm, mag, distance/..., wavelength/..."""
    mask = select(batch, "conductive", metrics.exclude_radius)
    error = phi.float() - batch.u
    bands = by_wavelength(error, batch.u, mask, batch.spacing, wavelengths)
    by_sample = {name: values.tolist() for name, values in bands.items()}
    rows = []
    for i, row in enumerate(metrics(phi, batch, physics)):
        out = {k: row[k] for k in ("relative_l2", "rdm", "mag")}
        for k, v in row.items():
            if k.startswith("relative_l2_") and k.endswith(("mm", "mm+")):
                out[f"distance/{k.removeprefix('relative_l2_')}"] = v
        for name, values in by_sample.items():
            out[f"wavelength/{name}"] = values[i]
        rows.append(out)
    return rows


def training_grids(config: dict[str, Any]) -> list[Grid]:
    return sorted(tuple(g) for g in config["data"].get("grids") or [config["data"]["grid"]])


def source_grid(grids: list[Grid], target: Grid) -> Grid | None:
    """The finest training grid that is coarser than the target, whose predictions are interpolated
    to it.
    """

    def coarser(grid: Grid) -> bool:
        return grid != target and all(a <= b for a, b in zip(grid, target, strict=True))

    def voxels(grid: Grid) -> int:
        return grid[0] * grid[1] * grid[2]

    return max(filter(coarser, grids), default=None, key=voxels)


def recipe_beside(first: dict[str, Any], own: dict[str, Any]) -> str:
    """What the model, losses or training of a run have different from the first run: ' (width=16,
    depth=6)', or nothing.
    """
    before, now = _recipe(first), _recipe(own)
    changes = [_change(key, value) for key, value in now.items() if before.get(key) != value]
    return f" ({', '.join(changes)})" if changes else ""


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of model, losses and training that touch the weights."""
    return {
        key: value
        for key, value in leaves(config).items()
        if key.startswith(("model.", "loss.", "training.")) and not key.startswith(FREE)
    }


def _change(key: str, value: Any) -> str:
    """width=16; of a class its name: target=UNet."""
    word = str(value).rsplit(".", 1)[-1] if key.endswith("_target_") else str(value)
    return f"{key.rsplit('.', 1)[-1].strip('_')}={word}"


def _limbs(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that say which limbs are drawn, and how they are solved."""
    drawn = ("data.phantom.", "data.solve", "problem.")
    return {key: value for key, value in leaves(config).items() if key.startswith(drawn)}


def _one_electrode_in_limbs(config: dict[str, Any]) -> bool:
    kind, ends = config["data"]["kind"], config["problem"]["ends"]
    return bool(kind == "limbs" and ends != "pair")


def _open(folders: list[Path], grids: list[Grid], device: torch.device) -> list[Run]:
    """The runs, ready to predict. Raises what `run_matrix` does."""
    runs: list[Run] = []
    for folder in folders:
        model, config, _ = load(folder)
        if config is None or not _one_electrode_in_limbs(config):
            raise ValueError(
                f"{folder}: give runs on limbs with one electrode (data=stream or generated): they"
                " can be drawn on any grid"
            )
        if runs:
            first = _limbs(runs[0].config)
            other = [key for key, value in _limbs(config).items() if first.get(key) != value]
            if other:
                raise ValueError(
                    f"{folder} was trained on other limbs than {folders[0]} ({other[0]}): their"
                    " errors cannot stand in one table"
                )
        for grid in grids:
            try:
                model.check_grid(grid)
            except ValueError as error:
                raise ValueError(
                    f"{folder}: {error}; or leave {name_of(grid)} out of --grids"
                ) from error
        runs.append(Run(folder, model.to(device).eval(), config))
    return runs


@torch.no_grad()
def run_matrix(
    runs: list[Path],
    grids: list[Grid],
    samples: int,
    wavelengths: list[float],
    device: str = "auto",
) -> dict[str, Any]:
    """The content of resolution_matrix.json.

    Raises
    ------
    CheckpointError, ValueError
        A run that cannot be read, is not on limbs, is on other limbs than the first, or cannot take
        one of the grids; before anything is solved.
    """
    if samples < 1:
        raise ValueError(f"--samples must be at least 1; got {samples}")
    rising = any(a <= b for a, b in itertools.pairwise(wavelengths))
    if not wavelengths or rising or wavelengths[-1] <= 0:
        raise ValueError("--wavelengths must be positive and fall, such as 32,16,8,4 (mm)")
    machine = initialize(device)
    opened = _open(runs, grids, machine.device)
    rows: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    sources: dict[tuple[str, str], str] = {}
    for run in opened:
        problem = _problem(opened[0], run, machine)
        trained = training_grids(run.config)
        row = " and ".join(map(name_of, trained)) + recipe_beside(opened[0].config, run.config)
        for grid in grids:
            coarse = source_grid(trained, grid)
            if coarse:
                sources[row, name_of(grid)] = name_of(coarse)
            title = f"{row} on {name_of(grid)}"
            for batch, small in _batches(problem, grid, coarse, samples, title):
                physics = problem.metrics.physics(batch)
                found, seconds = contenders(problem, run.model, batch, small)
                for who, phi in found.items():
                    by_run = rows.setdefault((row, name_of(grid), who), {})
                    measured = measure(phi, batch, problem.metrics, physics, wavelengths)
                    if who in seconds:
                        measured = [{**m, "seconds": seconds[who]} for m in measured]
                    by_run.setdefault(str(run.folder), []).extend(measured)
    return {
        "grids": [name_of(g) for g in grids],
        "samples": samples,
        "test_seed": opened[0].config["seed"],
        "bands": wavelength_names(wavelengths),
        "runs": [_about(run) for run in opened],
        "cells": [_cell(key, list(by_run.values()), sources) for key, by_run in rows.items()],
        **surroundings(machine.device),
    }


def _problem(first: Run, run: Run, machine: Machine) -> Potential:
    """The problem of a run, with the test limbs of the first."""
    data = {
        **first.config["data"],
        "batch_size": first.config["evaluation"]["batch_size"],
        "workers": 0,
        "sigma_components": run.model.sigma_components,
    }
    recipe = PotentialRecipe({**first.config, "data": data, "problem": run.config["problem"]})
    return recipe.open(Place(machine.device))


def _batches(
    problem: Potential, grid: Grid, coarse: Grid | None, samples: int, title: str
) -> Iterable[tuple[Batch, Batch | None]]:
    """The test limbs on a grid, and the same on a coarser one (None: there is none)."""
    files = problem.data.test(grid, samples)
    quiet = not sys.stderr.isatty()
    batches = tqdm(files.batches(), total=len(files.rows()), desc=title, leave=False, disable=quiet)
    if coarse is None:
        return zip(batches, itertools.repeat(None), strict=False)
    return zip(batches, problem.data.test(coarse, samples).batches(), strict=True)


def _about(run: Run) -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "trained": [name_of(g) for g in training_grids(run.config)],
        "seed": run.config["seed"],
        "parameters": sum(p.numel() for p in run.model.parameters()),
    }


def _cell(
    key: tuple[str, str, str], runs: list[list[Row]], sources: dict[tuple[str, str], str]
) -> dict[str, Any]:
    """One contender of one row on one grid, over seeds; a baseline has none."""
    row, grid, who = key
    return {
        "trained": row,
        "grid": grid,
        "who": who,
        "from": sources.get((row, grid)) if who in UPSAMPLED else None,
        **over_seeds(runs[:1] if who == BASELINE else runs),
    }


def over_seeds(runs: list[list[Row]]) -> dict[str, Any]:
    """Mean over samples (of relative L2 its 95th percentile, too) of each seed; then mean and
    standard deviation over seeds (null for one). Left out: what a seed has for no sample.
    """
    names = dict.fromkeys(name for rows in runs for row in rows for name in row)
    out = {}
    for name in names:
        values = [[row[name] for row in rows if name in row] for rows in runs]
        if all(values):
            out[name] = _spread([statistics.mean(v) for v in values])
    return {**out, "relative_l2_p95": _spread([_high(rows) for rows in runs])}


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "seeds": values,
    }


def _high(rows: list[Row]) -> float:
    """95th percentile of relative L2."""
    errors = torch.tensor([row["relative_l2"] for row in rows], dtype=torch.float64)
    return errors.quantile(0.95).item()
