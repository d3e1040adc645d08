"""Trained on one grid, used on another: every run on every grid, against what interpolation and
training there would give.

    python -m physics_hybrid resolution-matrix RUN [RUN ...] [--grids
    48x24x24,96x48x48,144x72x72,192x96x96,85x43x41] [--samples 24]
        [--wavelengths 32,16,8,4] [--device auto] [--output resolution_matrix]

Runs are folders of trainings on limbs; those that differ in their seed only are one row, given as
mean and standard deviation over seeds. On each grid, for the same test limbs (those of the first
run's seed; truth solved on that grid):

    direct                 the network on that grid
    potential, trilinear   its prediction on the finest of its training grids that is coarser, interpolated
    potential, Fourier     the same, by cosines (potential/resample.py)
    correction, trilinear  that prediction over its baseline, interpolated, times the baseline of
    the grid
    correction, Fourier    the same, by cosines
    baseline               its baseline alone

Errors are relative L2 (see potential/metrics.py), also by distance from the source and by
wavelength. Written into the output folder: resolution_matrix.json, .md and .png.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from physics_hybrid.cluster.machine import initialize
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problem import Place
from physics_hybrid.problems.potential.losses import select
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.problem import Potential, PotentialRecipe
from physics_hybrid.problems.potential.resample import cosine, upsample
from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.problems.potential.wavelengths import by_wavelength, wavelength_names
from physics_hybrid.run.folder import FREE, flat
from physics_hybrid.run.load import load
from physics_hybrid.run.provenance import surroundings

DIRECT, BASELINE = "direct", "baseline"
UPSAMPLED = (
    "potential, trilinear",
    "potential, Fourier",
    "correction, trilinear",
    "correction, Fourier",
)


def contenders(
    problem: Potential, model: nn.Module, batch: Batch, coarse: Batch | None
) -> dict[str, Tensor]:
    """phi (B, D, H, W) in volts of every contender on the grid of `batch`; `coarse` holds the same
    limbs on a training grid, or is None.
    """
    # no mean is taken off before the end: a ratio of potentials that pass zero has poles
    free = dataclasses.replace(problem, ends=Ends())
    base = free.baseline(model, batch)
    out = {DIRECT: free.surrogate(model)(batch), BASELINE: base}
    if coarse is not None:
        phi, inside = free.surrogate(model)(coarse), coarse.tissue
        ratio = torch.where(inside, phi / free.baseline(model, coarse).where(inside, 1.0), 0.0)
        out |= dict(
            zip(
                UPSAMPLED,
                (
                    carry(field, inside, batch.shape) * factor
                    for field, factor in ((phi, 1), (ratio, base))
                    for carry in (upsample, cosine)
                ),
            )
        )
    return {
        who: (
            zero_mean(phi, batch.tissue)
            if problem.ends.floating
            else torch.where(batch.tissue, phi, 0.0)
        )
        for who, phi in out.items()
    }


def measure(
    phi: Tensor, batch: Batch, metrics: Metrics, physics, wavelengths: list[float]
) -> list[dict[str, float]]:
    """For each sample relative_l2, rdm, mag, distance/..., wavelength/..."""
    mask = select(batch, "conductive", metrics.exclude_radius)
    bands = {
        k: v.tolist()
        for k, v in by_wavelength(
            phi.float() - batch.u, batch.u, mask, batch.spacing, wavelengths
        ).items()
    }
    rows = []
    for i, row in enumerate(metrics(phi, batch, physics)):
        shells = {
            f"distance/{k.removeprefix('relative_l2_')}": v
            for k, v in row.items()
            if k.startswith("relative_l2_") and k.endswith(("mm", "mm+"))
        }
        rows.append(
            {k: row[k] for k in ("relative_l2", "rdm", "mag")}
            | shells
            | {f"wavelength/{k}": v[i] for k, v in bands.items()}
        )
    return rows


def training_grids(config: dict[str, Any]) -> list[Grid]:
    return sorted(tuple(g) for g in config["data"].get("grids") or [config["data"]["grid"]])


def source_grid(grids: list[Grid], target: Grid) -> Grid | None:
    """The finest training grid that is coarser than the target, whose predictions are interpolated
    to it.
    """
    return max(
        (g for g in grids if g != target and all(a <= b for a, b in zip(g, target))),
        default=None,
        key=lambda g: g[0] * g[1] * g[2],
    )


def recipe_beside(first: dict[str, Any], own: dict[str, Any]) -> str:
    """What the model, losses or training of a run have different from the first run: ' (width=16,
    depth=6)', or nothing.
    """

    def parts(c):
        return {
            k: v
            for k, v in flat(c).items()
            if k.startswith(("model.", "loss.", "training."))
            and not any(k == f or k.startswith(f) for f in FREE)
        }

    before, now = parts(first), parts(own)
    changes = [
        f"{k.rsplit('.', 1)[-1].strip('_')}={str(v).rsplit('.', 1)[-1] if k.endswith('_target_') else v}"
        for k, v in now.items()
        if before.get(k) != v
    ]
    return f" ({', '.join(changes)})" if changes else ""


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
    if (
        not wavelengths
        or any(a <= b for a, b in itertools.pairwise(wavelengths))
        or wavelengths[-1] <= 0
    ):
        raise ValueError("--wavelengths must be positive and fall, such as 32,16,8,4 (mm)")
    machine = initialize(device)
    loaded = []
    for run in runs:
        model, config, _ = load(run)
        if (
            config is None
            or config["data"]["kind"] != "limbs"
            or config["problem"]["ends"] == "pair"
        ):
            raise ValueError(
                f"{run}: give runs on limbs with one electrode (data=stream or generated): they can"
                " be drawn on any grid"
            )

        def same(c):
            return {
                k: v
                for k, v in flat(c).items()
                if k.startswith(("data.phantom.", "data.solve", "problem."))
            }

        other = [k for k, v in same(config).items() if loaded and same(loaded[0][2]).get(k) != v]
        if other:
            raise ValueError(
                f"{run} was trained on other limbs than {runs[0]} ({other[0]}): their errors cannot"
                " stand in one table"
            )
        for grid in grids:
            try:
                model.check_grid(grid)
            except ValueError as error:
                raise ValueError(
                    f"{run}: {error}; or leave {name_of(grid)} out of --grids"
                ) from error
        loaded.append((run, model.to(machine.device).eval(), config))
    first = loaded[0][2]
    config = {
        **first,
        "data": {**first["data"], "batch_size": first["evaluation"]["batch_size"], "workers": 0},
    }
    rows: dict[tuple[str, str, str], dict[str, list[dict]]] = {}
    sources: dict[tuple[str, str], str] = {}
    for run, model, own in loaded:
        config["data"]["sigma_components"] = model.sigma_components
        problem = PotentialRecipe({**config, "problem": own["problem"]}).open(Place(machine.device))
        data = problem.data
        trained = training_grids(own)
        label = " and ".join(map(name_of, trained)) + recipe_beside(first, own)
        for grid in grids:
            coarse = source_grid(trained, grid)
            if coarse:
                sources[label, name_of(grid)] = name_of(coarse)
            small: Iterator = (
                data.test(coarse, samples).batches() if coarse else itertools.repeat(None)
            )
            files = data.test(grid, samples)
            for batch, little in zip(
                tqdm(
                    files.batches(),
                    total=len(files.rows()),
                    desc=f"{label} on {name_of(grid)}",
                    leave=False,
                    disable=not sys.stderr.isatty(),
                ),
                small,
            ):
                physics = problem.metrics.physics(batch)
                for who, phi in contenders(problem, model, batch, little).items():
                    rows.setdefault((label, name_of(grid), who), {}).setdefault(
                        str(run), []
                    ).extend(measure(phi, batch, problem.metrics, physics, wavelengths))
    return {
        "grids": [name_of(g) for g in grids],
        "samples": samples,
        "test_seed": first["seed"],
        "bands": wavelength_names(wavelengths),
        "runs": [
            {
                "run": str(run),
                "trained": [name_of(g) for g in training_grids(c)],
                "seed": c["seed"],
                "parameters": sum(p.numel() for p in m.parameters()),
            }
            for run, m, c in loaded
        ],
        "cells": [
            {
                "trained": label,
                "grid": grid,
                "who": who,
                "from": sources.get((label, grid)) if who in UPSAMPLED else None,
                **over_seeds(list(by_run.values())[: 1 if who == BASELINE else None]),
            }
            for (label, grid, who), by_run in rows.items()
        ],
        **surroundings(machine.device),
    }


def over_seeds(runs: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Mean over samples (of relative L2 its 95th percentile, too) of each seed; then mean and
    standard deviation over seeds (null for one).
    """

    def spread(values: list[float]) -> dict[str, Any]:
        return {
            "mean": statistics.mean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "seeds": values,
        }

    names = dict.fromkeys(k for rows in runs for row in rows for k in row)
    means = {
        name: spread([statistics.mean(row[name] for row in rows if name in row) for rows in runs])
        for name in names
        if all(any(name in row for row in rows) for rows in runs)
    }
    high = [
        torch.tensor([row["relative_l2"] for row in rows], dtype=torch.float64)
        .quantile(0.95)
        .item()
        for rows in runs
    ]
    return {**means, "relative_l2_p95": spread(high)}


def index(result: dict[str, Any]) -> dict[tuple[str, str, str], dict]:
    return {(c["trained"], c["grid"], c["who"]): c for c in result["cells"]}


def best_upsampling(cells: dict, trained: str, grid: str) -> dict | None:
    return min(
        (cells[trained, grid, who] for who in UPSAMPLED if (trained, grid, who) in cells),
        key=lambda c: c["relative_l2"]["mean"],
        default=None,
    )


def _cell(value: dict | None, digits: str = ".4f") -> str:
    return (
        ""
        if value is None
        else f"{value['mean']:{digits}}"
        + (f" ± {value['std']:{digits}}" if value["std"] is not None else "")
    )


def matrix_table(result: dict[str, Any]) -> str:
    """Train grid x evaluation grid: relative L2 of direct inference, and a sentence that says
    whether interpolation is beaten.
    """
    cells, trained = index(result), list(dict.fromkeys(c["trained"] for c in result["cells"]))

    def get(*key):
        return cells.get(key, {}).get("relative_l2")

    lines = [
        "| trained on | seeds | " + " | ".join(result["grids"]) + " |",
        "|---|---|" + "---|" * len(result["grids"]),
    ]
    for row in trained:
        seeds = len(cells[row, result["grids"][0], DIRECT]["relative_l2"]["seeds"])
        lines.append(
            f"| {row} | {seeds} | "
            + " | ".join(_cell(get(row, grid, DIRECT)) for grid in result["grids"])
            + " |"
        )
        if any(best_upsampling(cells, row, grid) for grid in result["grids"]):
            best = [best_upsampling(cells, row, grid) for grid in result["grids"]]
            lines.append(
                f"| {row}, best of 4 interpolations | {seeds} | "
                + " | ".join(_cell(b["relative_l2"]) if b else "" for b in best)
                + " |"
            )
    lines.append(
        "| baseline alone | | "
        + " | ".join(f"{get(trained[0], grid, BASELINE)['mean']:.4f}" for grid in result["grids"])
        + " |"
    )
    pairs = [
        (row, grid)
        for row in trained
        for grid in result["grids"]
        if best_upsampling(cells, row, grid)
    ]
    lost = [
        f"{row} on {grid}"
        for row, grid in pairs
        if get(row, grid, DIRECT)["mean"]
        >= best_upsampling(cells, row, grid)["relative_l2"]["mean"]
    ]
    verdict = (
        "Direct inference on a finer grid beats all four interpolations from the training grid in"
        f" {len(pairs) - len(lost)} of {len(pairs)} cases"
        + (f"; not for {', '.join(lost)}." if lost else ".")
    )
    return "\n".join(lines) + (f"\n\n{verdict}" if pairs else "")


def report(result: dict[str, Any]) -> str:
    """resolution_matrix.md."""
    cells, trained = index(result), list(dict.fromkeys(c["trained"] for c in result["cells"]))
    lines = [
        "# Resolution matrix",
        "",
        matrix_table(result),
        "",
        (
            f"Relative L2, mean over {result['samples']} unseen limbs (± standard deviation over"
            " seeds)."
        ),
        "",
    ]
    lines += [
        "## All contenders",
        "",
        "| trained on | used on | interpolated from | "
        + " | ".join((DIRECT, *UPSAMPLED, BASELINE))
        + " | trained there | direct, p95 | RDM | MAG |",
        "|---" * 13 + "|",
    ]
    for row in trained:
        for grid in result["grids"]:

            def get(who, key="relative_l2", row=row):
                return cells.get((row, grid, who), {}).get(key)

            source = next(
                (cells[row, grid, who]["from"] for who in UPSAMPLED if (row, grid, who) in cells),
                "",
            )
            there = get(DIRECT, row=grid) if row != grid else None
            values = [
                *(_cell(get(who)) for who in (DIRECT, *UPSAMPLED, BASELINE)),
                _cell(there),
                _cell(get(DIRECT, "relative_l2_p95")),
                _cell(get(DIRECT, "rdm")),
                _cell(get(DIRECT, "mag")),
            ]
            lines.append(f"| {row} | {grid} | {source} | " + " | ".join(values) + " |")
    for kind, title in (
        ("wavelength", "By wavelength (squares add up to the square of the relative L2)"),
        ("distance", "By distance from the source"),
    ):
        names = _parts(result, kind)
        lines += [
            "",
            f"## {title}",
            "",
            "| trained on | used on | what | " + " | ".join(names) + " |",
            "|---" * (3 + len(names)) + "|",
        ]
        for row in trained:
            for grid in result["grids"]:
                best = best_upsampling(cells, row, grid)
                for cell in filter(
                    None, (cells[row, grid, DIRECT], best, cells[row, grid, BASELINE])
                ):
                    lines.append(
                        f"| {row} | {grid} | {cell['who']} | "
                        + " | ".join(_cell(cell.get(f"{kind}/{name}")) for name in names)
                        + " |"
                    )
    lines += [
        "",
        "## Where the numbers come from",
        "",
        *(
            f"- {r['run']}: trained on {', '.join(r['trained'])}, seed {r['seed']},"
            f" {r['parameters'] / 1e6:.2f} M parameters"
            for r in result["runs"]
        ),
    ]
    lines += [f"- {k}: {result[k]}" for k in ("commit", "hardware", "torch", "date")]
    return "\n".join(lines) + "\n"


def _parts(result: dict[str, Any], kind: str) -> list[str]:
    """Names of the bands or shells that any cell has, long wavelengths and near shells first."""
    names = dict.fromkeys(
        k.removeprefix(f"{kind}/") for c in result["cells"] for k in c if k.startswith(f"{kind}/")
    )
    return (
        result["bands"]
        if kind == "wavelength"
        else sorted(names, key=lambda n: float(n.split("-")[0].rstrip("m+")))
    )


def figure(result: dict[str, Any], path: Path) -> Path:
    """Error on every grid; on the finest by wavelength and by distance. A colour for each row of
    the matrix; full: direct, dashed: its best interpolation.
    """
    from physics_hybrid.report.plots import plain_ticks, pyplot, save

    plt = pyplot()
    from matplotlib.lines import Line2D

    cells, trained = index(result), list(dict.fromkeys(c["trained"] for c in result["cells"]))
    grids = sorted(
        result["grids"], key=lambda g: torch.tensor([int(n) for n in g.split("x")]).prod().item()
    )
    finest, colors = grids[-1], dict(zip(trained, plt.get_cmap("tab10").colors))
    figure_, axes = plt.subplots(
        1, 3, figsize=(13.5, 4.9), layout="constrained", gridspec_kw={"width_ratios": [1.2, 1, 1]}
    )

    def draw(axis, places, values, color, style, marker, face=None):
        points = [
            (x, 100 * v["mean"], 100 * (v["std"] or 0))
            for x, v in zip(places, values)
            if v is not None and v["mean"] > 0
        ]
        if points:
            x, y, e = zip(*points)
            axis.errorbar(
                x,
                y,
                yerr=e if any(e) else None,
                color=color,
                linestyle=style,
                marker=marker,
                markersize=5,
                markerfacecolor=face or color,
                linewidth=1.4,
                capsize=3,
            )

    def contenders_of(row, grid):
        best = best_upsampling(cells, row, grid)
        return (cells[row, grid, DIRECT], colors[row], "-", "o", None), *(
            [(best, colors[row], "--", "s", "white")] if best else []
        )

    for row in trained:
        draw(
            axes[0],
            range(len(grids)),
            [cells[row, g, DIRECT]["relative_l2"] for g in grids],
            colors[row],
            "-",
            "o",
        )
        draw(
            axes[0],
            range(len(grids)),
            [(best_upsampling(cells, row, g) or {}).get("relative_l2") for g in grids],
            colors[row],
            "--",
            "s",
            "white",
        )
    draw(
        axes[0],
        range(len(grids)),
        [cells[trained[0], g, BASELINE]["relative_l2"] for g in grids],
        "0.45",
        ":",
        "^",
    )
    axes[0].set_xticks(range(len(grids)), grids, rotation=30, ha="right")
    axes[0].set(xlabel="grid it is used on", ylabel="relative L2 error (%)")
    for axis, kind, label in (
        (axes[1], "wavelength", "wavelength (mm)"),
        (axes[2], "distance", "distance from the source (mm)"),
    ):
        names = _parts(result, kind)
        lines = [c for row in trained for c in contenders_of(row, finest)] + [
            (cells[trained[0], finest, BASELINE], "0.45", ":", "^", None)
        ]
        for cell, color, style, marker, face in lines:
            draw(
                axis,
                range(len(names)),
                [cell.get(f"{kind}/{name}") for name in names],
                color,
                style,
                marker,
                face,
            )
        pretty = [n.removesuffix("+").removesuffix("mm").replace("-", "–") for n in names]
        axis.set_xticks(
            range(len(names)),
            [
                (
                    "≥ " + p
                    if n.endswith("+")
                    else "< " + p.removeprefix("0–")
                    if p.startswith("0–")
                    else p
                )
                for n, p in zip(names, pretty)
            ],
        )
        axis.set(xlabel=label)
        axis.set_title(f"on {finest}", fontsize=10)
    axes[1].set_ylabel("part of the relative L2 error (%)")
    axes[2].set_ylabel("relative L2 error in the shell (%)")
    for axis in axes:
        axis.set_yscale("log")
        plain_ticks(axis)
        axis.grid(True, which="both", alpha=0.25)
    marks = [
        Line2D([], [], color=colors[row], linewidth=2.5, label=f"trained on {row}")
        for row in trained
    ]
    marks += [Line2D([], [], color="black", marker="o", markersize=5, label="direct")]
    if any(best_upsampling(cells, row, g) for row in trained for g in grids):
        marks += [
            Line2D(
                [],
                [],
                color="black",
                marker="s",
                linestyle="--",
                markerfacecolor="white",
                markersize=5,
                label="best of 4 interpolations",
            )
        ]
    marks += [
        Line2D(
            [], [], color="0.45", marker="^", linestyle=":", markersize=5, label="baseline alone"
        )
    ]
    figure_.legend(
        handles=marks, loc="outside upper center", ncols=min(len(marks), 4), frameon=False
    )
    return save(figure_, path)


def write(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolution_matrix.json").write_text(json.dumps(result, indent=1))
    (folder / "resolution_matrix.md").write_text(report(result))
    figure(result, folder / "resolution_matrix.png")


def grids_of(text: str) -> list[Grid]:
    """48x24x24,96x48x48 -> tuples. argparse shows the message of the error."""
    try:
        grids = [tuple(int(n) for n in word.split("x")) for word in text.split(",")]
    except ValueError:
        grids = [()]
    if not all(len(g) == 3 and min(g) >= 2 for g in grids):
        raise argparse.ArgumentTypeError(f"grids are written as 48x24x24,96x48x48; got {text}")
    return grids
