"""Who takes part in the benchmark: everything that makes volts of sigma and a source."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from physics_hybrid.evidence.bench import bench, configuration
from physics_hybrid.grid import Grid
from physics_hybrid.problem import Config
from physics_hybrid.problems.potential.baseline import PointSourceBaseline
from physics_hybrid.problems.potential.hybrid import HybridWrapper
from physics_hybrid.problems.potential.learning import Potential
from physics_hybrid.problems.potential.physics.elements.solve import solve_elements
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.problems.potential.surrogate import Surrogate, baseline_potential
from physics_hybrid.run.folder import leaves
from physics_hybrid.run.load import load

#: The one that needs a library which need not be there.
RIVAL, LIBRARY = "fno_neuraloperator", "neuralop"


@dataclass(frozen=True)
class Contender:
    """One row of the benchmark.

    kind : network, multigrid, elements, analytical, or baseline (of a network, where it is not
        analytical).
    solve : batch -> phi (B, D, H, W) in V.
    about : what else its row says.
    """

    name: str
    kind: str
    solve: Callable[[Batch], Tensor]
    about: dict[str, Any]


@dataclass(frozen=True)
class Network(Contender):
    """A trained network, with its own coordinate channels."""

    model: HybridWrapper


# --- networks


def network(
    name: str, model: HybridWrapper, problem: Potential, config: Config, **about: Any
) -> Network:
    """config : that of its training."""
    coordinates = config["problem"]["coordinates"]
    model = model.to(problem.place.device).eval()
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "backbone": type(model.backbone).__name__,
        "coordinates": coordinates,
        **about,
    }
    return Network(
        name=name,
        kind="network",
        solve=Surrogate(model, problem.ends, coordinates),
        about=facts,
        model=model,
    )


def from_checkpoint(path: Path, problem: Potential, config: Config) -> Network:
    """A network of a run folder or a .mdlus file. One that was trained on other limbs is measured,
    and its row says so.

    Raises
    ------
    CheckpointError
        It cannot be read.
    ValueError
        It knows other ends, or takes another sigma.
    """
    model, found, _ = load(path)
    own = found or config
    if ends_of(own) != ends_of(config):
        raise ValueError(
            f"{path} was trained with problem.ends={own['problem']['ends']}, and this benchmark has"
            f" {config['problem']['ends']}: set problem.ends, or leave it out"
        )
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
        trained_on_other_limbs=own["data"]["kind"] != "limbs" or limbs_of(own) != limbs_of(config),
    )


def ends_of(config: Config) -> tuple[Any, Any]:
    return config["problem"]["ends"], config["problem"]["beta"]


def limbs_of(config: Config) -> dict[str, Any]:
    """The settings that limbs are drawn by."""
    settings = leaves(dict(config))
    return {key: value for key, value in settings.items() if key.startswith("data.phantom.")}


def trained(
    names: Sequence[str], grid: Grid, steps: int, overrides: Sequence[str], problem: Potential
) -> list[Network]:
    """Networks trained here, each for `steps` optimiser steps on the same batches, with the
    schedule stretched over them. Without its library, a rival is left out and standard error says
    so.
    """
    out = []
    for name in names:
        if name == RIVAL and importlib.util.find_spec(LIBRARY) is None:
            print(f"{RIVAL} is left out: pip install neuraloperator", file=sys.stderr)
        else:
            out.append(trained_here(name, grid, steps, overrides, problem))
    return out


def trained_here(
    name: str, grid: Grid, steps: int, overrides: Sequence[str], problem: Potential
) -> Network:
    known = configuration([f"model={name}"])["model"]["backbone"]
    samples = steps * configuration(list(overrides))["data"]["batch_size"]
    built = bench(
        [
            *(override for override in overrides if fits(override, known)),
            f"model={name}",
            on_grid(grid),
            "training.epochs=1",
            f"data.samples_per_epoch={samples}",
        ],
        statistics_samples=None,
    )
    started = time.perf_counter()
    batches = tqdm(
        built.problem.train_batches(0, 0),
        total=steps,
        desc=f"training {name}",
        disable=not sys.stderr.isatty(),
    )
    for batch in batches:
        built.trainer.step([batch])
    return network(
        f"{name}, {steps} steps",
        built.trainer.evaluated,
        problem,
        built.config,
        seed=built.config["seed"],
        training_seconds=time.perf_counter() - started,
        training_samples=samples,
    )


def on_grid(grid: Grid) -> str:
    """The override that chooses a grid."""
    return f"data.grid=[{','.join(map(str, grid))}]"


def fits(override: str, backbone: Config) -> bool:
    """Whether an override means something to a backbone: those of other backbones do not."""
    if not override.startswith("model.backbone."):
        return True
    return override.split("=")[0].split(".")[2] in backbone


# --- solvers and closed forms


def multigrid(tolerance: float, dtype: torch.dtype, problem: Potential) -> Contender:
    """Our finite volumes."""

    def run(batch: Batch) -> Tensor:
        body, source = batch.conductor(problem.ends), batch.point_source()
        return solve(body, source, tolerance, dtype).phi.float()

    return Contender(
        name=f"multigrid {tolerance:g}",
        kind="multigrid",
        solve=run,
        about={"tolerance": tolerance, "dtype": str(dtype).removeprefix("torch.")},
    )


def elements(tolerance: float, problem: Potential) -> Contender:
    """Finite elements on the CPU."""

    def run(batch: Batch) -> Tensor:
        body, source = batch.conductor(problem.ends), batch.point_source()
        return solve_elements(body, source, tolerance).phi.to(batch.u)

    return Contender(
        name=f"scikit-fem + pyamg {tolerance:g}",
        kind="elements",
        solve=run,
        about={"tolerance": tolerance, "dtype": "float64"},
    )


def baseline_alone(network: Network, problem: Potential) -> Contender:
    """What a network corrects."""

    def run(batch: Batch) -> Tensor:
        return problem.baseline(network.model, batch)

    return Contender(f"{network.name}: its baseline alone", "baseline", run, {})


def closed_form(ends: Ends) -> Contender:
    """An infinite medium."""
    baseline = PointSourceBaseline()

    def run(batch: Batch) -> Tensor:
        return baseline_potential(baseline, batch, ends)

    return Contender("analytical baseline", "analytical", run, {})
