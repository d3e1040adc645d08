"""The model card (Mitchell et al., FAT* 2019): its prose is model_card.md, its numbers come from
limb.json and the configuration of the training.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from importlib import resources
from typing import Any

from physics_hybrid.grid import name_of
from physics_hybrid.problems.potential.metrics import COLUMNS, main_table
from physics_hybrid.problems.potential.predictor import NAME

#: The first of the main metrics: relative L2, RDM and MAG.
SHOWN = COLUMNS[:3]


def seeds_table(metrics: dict[str, dict[str, Any]]) -> str:
    """Relative L2, RDM and MAG for each grid: mean over test limbs, then mean and standard
    deviation over seeds (one seed: its value).
    """
    heads = " | ".join(label for _, label in SHOWN)
    lines = [f"| grid | {heads} | seeds |", "|---|---|---|---|---|"]
    for grid in next(iter(metrics.values())):
        tested = {seed: m[grid] for seed, m in metrics.items() if grid in m}
        cells = [_over_seeds([m[key]["mean"] for m in tested.values()]) for key, _ in SHOWN]
        lines.append(f"| {grid} | {' | '.join(cells)} | {', '.join(tested)} |")
    return "\n".join(lines)


def _over_seeds(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean


def card(about: dict[str, Any], config: dict[str, Any]) -> str:
    """The model card, Markdown. about: limb.json; config: of the training, resolved."""
    template = resources.files(__package__).joinpath("model_card.md").read_text("utf-8")
    fields = {
        "name": NAME,
        **_network(about, config),
        **_metrics(about, config),
        **_limbs(config["data"]),
        **_training(about, config),
        **_limits(about, config),
    }
    return template.format(**fields)


def _network(about: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    model, ends = config["model"], about["ends"]
    beta = f", beta {ends['beta']:g}/m" if ends["beta"] else ""
    return {
        "baseline": model["baseline"]["kind"],
        "backbone": model["backbone"]["_target_"].rsplit(".", 1)[-1],
        "parameters_millions": about["parameters"] / 1e6,
        "megabytes": about["bytes"] / 1e6,
        "composition": model["composition"],
        "ends": ends["kind"] + beta,
        "ends_kind": ends["kind"],
    }


def _metrics(about: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    of_seed, pinned = about["metrics"][str(about["seed"])], about["pinned"]
    errors = [f"{limb['relative_l2']:.4g}" for limb in pinned["expected"]]
    return {
        "tested_beyond_voxels": config["evaluation"]["exclude_radius"],
        "metrics_over_seeds": seeds_table(about["metrics"]),
        "seed": about["seed"],
        "tested_limbs": ", ".join(f"{n} limbs at {grid}" for grid, n in about["samples"].items()),
        "metrics_of_seed": main_table(of_seed),
        "errors_by_distance": "; ".join(_by_distance(grid, m) for grid, m in of_seed.items()),
        "pinned_count": len(errors),
        "pinned_grid": name_of(pinned["grid"]),
        "pinned_errors": ", ".join(errors),
    }


def _by_distance(grid: str, metrics: dict[str, Any]) -> str:
    """48x24x24: 0-20mm 0.1, 20-40mm 0.02."""
    shells = []
    for key, value in metrics.items():
        if key.startswith("relative_l2_") and key.endswith(("mm", "mm+")):
            shells.append(f"{key.removeprefix('relative_l2_')} {value['mean']:.3g}")
    return f"{grid}: {', '.join(shells)}"


def _limbs(data: dict[str, Any]) -> dict[str, Any]:
    phantom = data["phantom"]
    tissues = []
    for tissue, values in phantom["sigma"].items():
        tissues.append(f"{tissue} {', '.join(f'{v:g}' for v in values)}")
    return {
        "solver": data["solver"].replace("_", " "),
        "tolerance": data["solve"]["tolerance"],
        "box_mm": " x ".join(_millimetres(phantom["extent"])),
        "box_jitter_percent": 100 * phantom["extent_jitter"],
        "skin_mm": " to ".join(_millimetres(phantom["skin"])),
        "fat_mm": " to ".join(_millimetres(phantom["fat"])),
        "bone_shape": phantom["bone_shape"],
        "bones": " or ".join(map(str, phantom["bones"])),
        "sigma_jitter_percent": 100 * phantom["sigma_jitter"],
        "tissues": "; ".join(tissues),
        "pennation_degrees": " to ".join(f"{v:g}" for v in phantom["pennation"]),
        "on_skin_percent": 100 * phantom["source_on_skin"],
        "margin_percent": 100 * phantom["source_margin"],
    }


def _millimetres(metres: Iterable[float]) -> list[str]:
    return [f"{1e3 * v:g}" for v in metres]


def _training(about: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    data, training, trained = config["data"], config["training"], about["trained"]
    stored, epochs = data["train_samples"], training["epochs"]
    if stored:
        seen = f"{stored} stored limbs, {epochs} times"
    else:
        seen = f"{epochs * data['samples_per_epoch']} limbs, each seen once"
    steps_per_epoch = -(-(stored or data["samples_per_epoch"]) // data["batch_size"])
    return {
        "limbs_seen": seen,
        "command": about["command"],
        "training_grids": " and ".join(dict.fromkeys(map(name_of, _grids(data)))),
        "steps": epochs * steps_per_epoch,
        "batch_size": data["batch_size"],
        "minutes": about["training_seconds"] / 60,
        "hardware": trained["hardware"],
        "learning_rate": training["learning_rate"],
        "precision": training["precision"],
        "moving_average": training["ema"],
        "commit": trained["commit"][:10],
        "tested_on": f"{about['hardware']}, commit {about['commit'][:10]}, {about['date']}",
        "torch": trained["torch"],
        "date": trained["date"],
    }


def _limits(about: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    data, radius = config["data"], config["loss"]["exclude_radius"]
    extent, grid = data["phantom"]["extent"], _grids(data)[0]
    voxel = min(e / n for e, n in zip(extent, grid, strict=True)) * 1e3
    components = data["sigma_components"]
    return {
        "tested_grids": ", ".join(about["samples"]),
        "trained_beyond_voxels": radius,
        "trained_beyond_mm": radius * voxel,
        "voxel_mm": voxel,
        "components": f"{components} component{'s' if components > 1 else ''}",
    }


def _grids(data: dict[str, Any]) -> list[tuple[int, ...]]:
    """The grids of the training."""
    return [tuple(grid) for grid in data.get("grids") or [data["grid"]]]
