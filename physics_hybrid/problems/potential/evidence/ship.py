"""A trained run becomes a model inside the package: weights, model card, pinned numbers.

The first run is shipped; others, of the same recipe with other seeds, give the spread of its
metrics. conf/experiment/shipped.yaml should be the recipe: the card has the command that trains a
run again, from there or, with another network, from the quickstart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from physics_hybrid.command_line import CONF
from physics_hybrid.configuration import options_of
from physics_hybrid.evidence.bench import configuration
from physics_hybrid.grid import Grid
from physics_hybrid.models.model_files import CheckpointError, export_model
from physics_hybrid.problems.potential.bodies.limb import LimbDistribution
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.evidence.model_card import card
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.predictor import FOLDER, NAME, Predictor
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.run.folder import UNSAID, leaves
from physics_hybrid.run.load import load
from physics_hybrid.writing import write_text

#: The recipe of the model in the package.
RECIPE = ["experiment=shipped"]

#: The weights go with every copy of the source.
LARGEST = 16e6

#: What a retraining may change without another model coming out.
INCIDENTAL = (
    "tracker.",
    "evaluation.",
    "runs_folder",
    "run",
    "seed",
    "data.workers",
    "data.folder",
    "data.stage_to",
    "training.device",
    "training.figures_every",
    "training.threads",
    "training.parallel",
)


def pinned(model: Predictor, recipe: dict[str, Any], probes: int = 4) -> list[dict[str, Any]]:
    """For each test limb of a recipe: relative L2, and potentials in volts at voxels spread over
    the tissue, by `Predictor.predict`.

    recipe : limbs, solver (settings), seed, numbers, grid, exclude_radius.
    """
    stream = limbs_of(model, recipe, "test")
    metrics, out = Metrics(recipe["exclude_radius"], ends=stream.solver.ends), []
    for number in recipe["numbers"]:
        batch = stream.batch([number])
        phi = predicted(model, batch, stream.sigma_components)
        tissue = batch.tissue[0].nonzero()
        chosen = tissue[torch.linspace(0, len(tissue) - 1, probes + 2).long()[1:-1]].tolist()
        out.append(
            {
                "number": number,
                "relative_l2": metrics(phi[None], batch)[0]["relative_l2"],
                "largest_volts": float(phi.abs().max()),
                "volts": [[*voxel, float(phi[tuple(voxel)])] for voxel in chosen],
            }
        )
    return out


def limbs_of(model: Predictor, recipe: Mapping[str, Any], split: str) -> LimbStream:
    """The limbs of a recipe as `pinned` has it, with the components that a model sees."""
    return LimbStream(
        limbs=LimbDistribution.of(recipe["limbs"]),
        grid=tuple(recipe["grid"]),
        seed=recipe["seed"],
        split=split,
        solver=Solver(**{**recipe["solver"], "ends": Ends(**recipe["solver"]["ends"])}),
        device=torch.device("cpu"),
        sigma_components=model.network.sigma_components,
    )


def predicted(model: Predictor, batch: Batch, components: int) -> Tensor:
    """phi (D, H, W) in volts of the one limb of a batch, as a user gets it."""
    sigma = batch.sigma[0].movedim(0, -1)
    phi = model.predict(
        sigma=sigma[..., 0] if components == 1 else sigma,
        spacing=batch.spacing[0],
        source_point=batch.source_point[0],
        current=batch.current[0],
        return_point=None if batch.return_point is None else batch.return_point[0],
    )
    return torch.as_tensor(phi)


def command(config: dict[str, Any]) -> list[str]:
    """The words after `python train.py` that give this configuration; what it lacks is of later
    versions, and stays as it is."""
    start = _nearest(config)
    recipe, own = leaves(configuration(start)), leaves(config)
    own = {key: value for key, value in UNSAID.items() if key in recipe} | own
    words = [*start, f"seed={config['seed']}"]
    for key, value in own.items():
        if not _incidental(key) and value != recipe.get(key):
            words.append(f"{key}={_word(value)}")
    return words


def _nearest(config: dict[str, Any]) -> list[str]:
    """What to begin with: the recipe of the package where it has the same network, else the
    quickstart with that network."""
    network = config["model"]["backbone"]["_target_"]
    for words in (RECIPE, *([f"model={name}"] for name in options_of(CONF, "config")["model"])):
        model = configuration(words)["model"]
        if model.get("backbone", {}).get("_target_") == network:
            return words
    return RECIPE


def _word(value: Any) -> str:
    """A value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _incidental(key: str) -> bool:
    groups = tuple(name for name in INCIDENTAL if name.endswith("."))
    return key in INCIDENTAL or key.startswith(groups)


def ship(
    runs: list[Path], folder: Path = FOLDER, samples: int = 3, grid: Grid | None = None
) -> Predictor:
    """Write limb.mdlus, limb.json and limb.md into `folder`; the model as it is read back.

    Raises
    ------
    CheckpointError, ValueError
        A run without weights or evaluation; a model that is too large; data that others cannot draw
        again; runs of different recipes.
    """
    model, config, home = load(runs[0])
    if config is None or config["data"]["kind"] != "limbs":
        raise ValueError(
            f"{runs[0]}: only a run on limbs can be shipped (data=stream or generated): others"
            " could not draw its test samples again"
        )
    metrics = [_metrics(run) for run in runs]
    recipe = command(config)
    _refuse_other_recipes(runs, recipe)
    weights = export_model(folder / f".{NAME}.new.mdlus", model)
    try:
        about = {
            **_ends(config),
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": _size(weights),
            "command": " ".join(["python train.py", *recipe]),
            "metrics": {str(m["seed"]): _by_grid(m) for m in metrics},
            **_provenance(metrics[0]),
            "trained": _trained(home, metrics[0]),
            "training_seconds": _last_line(home / "log.jsonl")["seconds"],
        }
        pins = _pins(config, about["ends"], samples, grid)
        predictor = Predictor(model, Ends(**about["ends"]), about["coordinates"])
        about["pinned"] = {**pins, "expected": pinned(predictor, pins)}
        os.replace(weights, folder / f"{NAME}.mdlus")
    finally:
        weights.unlink(missing_ok=True)
    write_text(folder / f"{NAME}.json", json.dumps(about, indent=1) + "\n")
    write_text(folder / f"{NAME}.md", card(about, config))
    return Predictor.load(folder)


def _metrics(run: Path) -> dict[str, Any]:
    """What the training found at its end. Raises CheckpointError where it has not come to it."""
    path = run / "evaluation" / "metrics.json"
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: ship a run folder whose training has finished (train.py"
            " evaluates at the end)"
        )
    metrics: dict[str, Any] = json.loads(path.read_text())
    return metrics


def _refuse_other_recipes(runs: list[Path], recipe: list[str]) -> None:
    for run in runs[1:]:
        _, config, _ = load(run)
        if config is None or _unseeded(command(config)) != _unseeded(recipe):
            raise ValueError(
                f"{run} was trained by another recipe than {runs[0]}; give runs that differ in"
                " their seed only"
            )


def _unseeded(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith("seed=")]


def _size(weights: Path) -> int:
    """Bytes. Raises ValueError where they are too many."""
    size = weights.stat().st_size
    if size > LARGEST:
        raise ValueError(
            f"the weights take {size / 1e6:.1f} MB; at most {LARGEST / 1e6:.0f} MB are shipped:"
            " train a smaller model (model.backbone.width, depth, modes)"
        )
    return size


def _ends(config: dict[str, Any]) -> dict[str, Any]:
    """How the current leaves, and the coordinates of the network."""
    problem = config["problem"]
    beta = problem["beta"] if problem["ends"] == "robin" else None
    return {
        "ends": {"kind": problem["ends"], "beta": beta},
        "coordinates": problem["coordinates"],
    }


def _by_grid(metrics: dict[str, Any]) -> dict[str, Any]:
    """The tables of metrics.json, without what stands beside them."""
    return {k: v for k, v in metrics.items() if isinstance(v, dict) and "relative_l2" in v}


def _provenance(metrics: dict[str, Any]) -> dict[str, Any]:
    keys = ("commit", "seed", "hardware", "torch", "date", "samples")
    return {key: metrics[key] for key in keys}


def _trained(home: Path, tested: dict[str, Any]) -> dict[str, Any]:
    """Where and with what a run was trained; runs of before keep no such file, and were tested
    there."""
    path = home / "origin.json"
    origin: dict[str, Any] = json.loads(path.read_text()) if path.exists() else tested
    return {key: origin[key] for key in ("commit", "hardware", "torch", "date")}


def _last_line(log: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    return line


def _pins(
    config: dict[str, Any], ends: dict[str, Any], samples: int, grid: Grid | None
) -> dict[str, Any]:
    """The recipe of the limbs that a test holds the model to: see `pinned`."""
    data = config["data"]
    return {
        "limbs": data["phantom"],
        "solver": {"kind": data["solver"], **data["solve"], "ends": ends},
        "seed": config["seed"],
        "numbers": list(range(samples)),
        "grid": list(grid or data["grid"]),
        "exclude_radius": config["evaluation"]["exclude_radius"],
    }
