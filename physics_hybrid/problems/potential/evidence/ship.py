"""Put a trained run into the package: weights, model card, pinned numbers.

    python -m physics_hybrid ship RUN [RUN ...] [--samples 3] [--grid 48 24 24] [--output FOLDER]

The first run is shipped; others, of the same recipe with other seeds, give the spread of its
metrics. Written are limb.mdlus (at most 16 MB), limb.json (what `load_pretrained` needs, metrics,
and for some test limbs the relative L2 and a few potentials that a test holds the model to) and
limb.md, the model card. conf/experiment/shipped.yaml should be the recipe: where it differs, the
card lists the overrides.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch

from physics_hybrid.evidence.bench import configuration
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.models.model_files import CheckpointError, export_model
from physics_hybrid.problems.potential.bodies.limb import LimbDistribution
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.metrics import COLUMNS, Metrics, main_table
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.predictor import FOLDER, NAME, Predictor
from physics_hybrid.run.folder import flat
from physics_hybrid.run.load import load

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
    "training.threads",
)


def pinned(model: Predictor, recipe: dict[str, Any], probes: int = 4) -> list[dict[str, Any]]:
    """For each test limb of a recipe: relative L2, and potentials in volts at voxels spread over
    the tissue, by `Predictor.predict`.

    recipe : limbs, solver (settings), seed, numbers, grid, exclude_radius.
    """
    ends = Ends(**recipe["solver"]["ends"])
    solver = Solver(**{**recipe["solver"], "ends": ends})
    distribution = LimbDistribution.of(recipe["limbs"])
    components = model.network.sigma_components
    stream = LimbStream(
        distribution,
        tuple(recipe["grid"]),
        recipe["seed"],
        "test",
        solver,
        torch.device("cpu"),
        components,
    )
    metrics, out = Metrics(recipe["exclude_radius"], ends=ends), []
    for number in recipe["numbers"]:
        batch = stream.batch([number])
        sigma = batch.sigma[0].movedim(0, -1)
        phi = model.predict(
            sigma[..., 0] if components == 1 else sigma,
            batch.spacing[0],
            batch.source_point[0],
            batch.current[0],
            None if batch.return_point is None else batch.return_point[0],
        )
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


def overrides(config: dict[str, Any]) -> list[str]:
    """What must be added to `python train.py experiment=shipped` to get this configuration."""
    recipe, own = flat(configuration(["experiment=shipped"])), flat(config)

    def word(v):
        return v if isinstance(v, str) else json.dumps(v, separators=(",", ":"))

    def skip(key):
        return any(key == k or k.endswith(".") and key.startswith(k) for k in INCIDENTAL)

    return [f"{k}={word(v)}" for k, v in own.items() if not skip(k) and v != recipe.get(k)] + [
        f"~{k}" for k in recipe if k not in own and not skip(k) and recipe[k] is not None
    ]


def ship(
    runs: list[Path], folder: Path = FOLDER, samples: int = 3, grid: Grid | None = None
) -> Predictor:
    """Write the three files into `folder`; the model as it is read back.

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
    recipe = overrides(config)
    for run in runs[1:]:
        if overrides(load(run)[1]) != recipe:
            raise ValueError(
                f"{run} was trained by another recipe than {runs[0]}; give runs that differ in"
                " their seed only"
            )
    grid = tuple(grid or config["data"]["grid"])
    ends = config["problem"]["ends"]
    ends = {"kind": ends, "beta": config["problem"]["beta"] if ends == "robin" else None}
    weights = export_model(folder / f".{NAME}.new.mdlus", model)
    try:
        size = weights.stat().st_size
        if size > LARGEST:
            raise ValueError(
                f"the weights take {size / 1e6:.1f} MB; at most {LARGEST / 1e6:.0f} MB are shipped:"
                " train a smaller model (model.backbone.width, depth, modes)"
            )
        about: dict[str, Any] = {
            "ends": ends,
            "coordinates": config["problem"]["coordinates"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": size,
            "command": " ".join(
                ["python train.py experiment=shipped", f"seed={config['seed']}", *recipe]
            ),
            "metrics": {
                str(m["seed"]): {
                    k: v for k, v in m.items() if isinstance(v, dict) and "relative_l2" in v
                }
                for m in metrics
            },
            **{
                k: metrics[0][k] for k in ("commit", "seed", "hardware", "torch", "date", "samples")
            },
            "training_seconds": json.loads((home / "log.jsonl").read_text().splitlines()[-1])[
                "seconds"
            ],
        }
        pins = {
            "limbs": config["data"]["phantom"],
            "solver": {"kind": config["data"]["solver"], **config["data"]["solve"], "ends": ends},
            "seed": config["seed"],
            "numbers": list(range(samples)),
            "grid": list(grid),
            "exclude_radius": config["evaluation"]["exclude_radius"],
        }
        about["pinned"] = {
            **pins,
            "expected": pinned(Predictor(model, Ends(**ends), about["coordinates"]), pins),
        }
        os.replace(weights, folder / f"{NAME}.mdlus")
    finally:
        weights.unlink(missing_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(about, indent=1) + "\n")
    (folder / f"{NAME}.md").write_text(card(about, config))
    return Predictor.load(folder)


def _metrics(run: Path) -> dict[str, Any]:
    path = run / "evaluation" / "metrics.json"
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: ship a run folder whose training has finished (train.py"
            " evaluates at the end)"
        )
    return json.loads(path.read_text())


def seeds_table(metrics: dict[str, dict]) -> str:
    """Relative L2, RDM and MAG for each grid: mean over test limbs, then mean and standard
    deviation over seeds (one seed: its value).
    """
    lines = [
        f"| grid | {' | '.join(label for _, label in COLUMNS[:3])} | seeds |",
        "|---|---|---|---|---|",
    ]
    for grid in next(iter(metrics.values())):
        cells = []
        for key, _ in COLUMNS[:3]:
            values = [m[grid][key]["mean"] for m in metrics.values() if grid in m]
            cells.append(
                f"{statistics.mean(values):.4g}"
                + (f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else "")
            )
        lines.append(
            f"| {grid} | {' | '.join(cells)} |"
            f" {', '.join(s for s, m in metrics.items() if grid in m)} |"
        )
    return "\n".join(lines)


def card(about: dict[str, Any], config: dict[str, Any]) -> str:
    """The model card (Mitchell et al., FAT* 2019), Markdown."""
    data, phantom, training = config["data"], config["data"]["phantom"], config["training"]
    grids = data.get("grids") or [data["grid"]]

    def name(grid):
        return name_of(grid)

    def millimetres(pair):
        return " to ".join(f"{1e3 * v:g}" for v in pair)

    steps = training["epochs"] * -(
        -(data["train_samples"] or data["samples_per_epoch"]) // data["batch_size"]
    )
    seen = (
        f"{data['train_samples']} stored limbs, {training['epochs']} times"
        if data["train_samples"]
        else f"{training['epochs'] * data['samples_per_epoch']} limbs, each seen once"
    )
    tissues = "; ".join(
        f"{t} {', '.join(f'{v:g}' for v in values)}" for t, values in phantom["sigma"].items()
    )
    ends = about["ends"]["kind"] + (
        f", beta {about['ends']['beta']:g}/m" if about["ends"]["beta"] else ""
    )
    voxel = min(e / n for e, n in zip(phantom["extent"], grids[0])) * 1e3
    shells = {
        g: {
            k.removeprefix("relative_l2_"): v["mean"]
            for k, v in m.items()
            if k.startswith("relative_l2_") and k.endswith(("mm", "mm+"))
        }
        for g, m in about["metrics"][str(about["seed"])].items()
    }
    by_distance = "; ".join(
        f"{g}: " + ", ".join(f"{k} {v:.3g}" for k, v in parts.items())
        for g, parts in shells.items()
    )
    return f"""# Model card: {NAME}

Written by `python -m physics_hybrid ship`; nothing here is typed in.

    import physics_hybrid
    model = physics_hybrid.load_pretrained()
    phi = model.predict(sigma, spacing, source_point, current)      # S/m, m, m, A -> V

**What it is.** The electric potential of a point electrode in a limb: a baseline from physics ({config["model"]["baseline"]["kind"]}), corrected by a network
({config["model"]["backbone"]["_target_"].rsplit(".", 1)[-1]}, {about["parameters"] / 1e6:.2f} M parameters, {about["bytes"] / 1e6:.1f} MB; composition {config["model"]["composition"]}).
Ends: {ends}. For research; not a medical device.

## Metrics

Limbs that no training saw; conductive voxels farther than {config["evaluation"]["exclude_radius"]:g} voxels from the source; truth solved on each grid. Over seeds:

{seeds_table(about["metrics"])}

The shipped seed ({about["seed"]}; {", ".join(f"{n} limbs at {g}" for g, n in about["samples"].items())}):

{main_table(about["metrics"][str(about["seed"])])}

## Data

Layered limbs, drawn at random ({seen}) and solved by {data["solver"].replace("_", " ")} to a relative residual of {data["solve"]["tolerance"]:g}:
box {" x ".join(f"{1e3 * e:g}" for e in phantom["extent"])} mm, each edge within {100 * phantom["extent_jitter"]:g} %; skin {millimetres(phantom["skin"])} mm, fat {millimetres(phantom["fat"])} mm; bones: {phantom["bone_shape"]}, {" or ".join(map(str, phantom["bones"]))};
conductivity in S/m, each tissue within {100 * phantom["sigma_jitter"]:g} %: {tissues}. Pennation {" to ".join(f"{v:g}" for v in phantom["pennation"])} degrees.
Sources in muscle and ({100 * phantom["source_on_skin"]:g} %) on the skin, none within {100 * phantom["source_margin"]:g} % of the length from an end.

## Recipe

    {about["command"]}

Trained on {" and ".join(map(name, grids))}, {steps} steps of {data["batch_size"]} limbs, {about["training_seconds"] / 60:.1f} min on {about["hardware"]}; AdamW, learning rate {training["learning_rate"]:g}, {training["precision"]},
moving average {training["ema"]:g}. Commit {about["commit"][:10]}, torch {about["torch"]}, {about["date"]}.

## Limits

- Tested on limbs from the ranges above, on grids of {", ".join(about["samples"])}; elsewhere nothing is known, and no error bound comes with a prediction.
- Nearer to the source than about {config["loss"]["exclude_radius"]:g} voxels of the training grid ({config["loss"]["exclude_radius"] * voxel:.2g} mm) the network was not trained.
- Structures thinner than a voxel of the training grid ({voxel:.2g} mm) are as voxels show them.
- D is the long axis and the fibre axis; {data["sigma_components"]} component{"s" * (data["sigma_components"] > 1)} of conductivity. The ends count as {about["ends"]["kind"]}.
- Relative L2 by distance from the source: {by_distance}.

Checked by a test against pinned numbers: {len(about["pinned"]["expected"])} limbs at {name(about["pinned"]["grid"])}, relative L2 {", ".join(f"{p['relative_l2']:.4g}" for p in about["pinned"]["expected"])}.
"""
