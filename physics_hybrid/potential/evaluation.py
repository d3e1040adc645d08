"""Test a trained operator on every grid it is asked for, and write down what came out.

Beside the network, on the same samples: the baseline alone (`baseline_`), the network's prediction on the
training grid upsampled trilinearly (`upsampled_`, for grids finer than it), and a model trained at the fine grid where
one is given (`reference_`).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.potential.data.sources import FileData, Files, LimbData
from physics_hybrid.potential.figures import errors_by_distance, slices
from physics_hybrid.potential.problem import PotentialProblem
from physics_hybrid.potential.resample import upsample
from physics_hybrid.potential.scene import Batch
from physics_hybrid.report.markdown import aggregate
from physics_hybrid.run.provenance import peak_memory


@dataclass
class Evaluation:
    """tables: grid -> metric -> statistic; rows: one dict a sample; about: where the numbers come from."""

    about: dict[str, Any]
    tables: dict[str, dict] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    figures: dict[str, Path] = field(default_factory=dict)


def default_grids(data: LimbData | FileData) -> list[Grid]:
    """The training grid and the one twice as fine; the grids found, for files."""
    grids = data.test_grids()
    return grids if isinstance(data, FileData) else [grids[0], tuple(2 * n for n in grids[0])]


@torch.no_grad()
def evaluate(
    problem: PotentialProblem, model: nn.Module, grids: list[Grid], samples: int | None, folder: Path, about: dict[str, Any],
    reference: nn.Module | None = None,
) -> Evaluation:
    """Run the test split on every grid; figures go to `folder`.

    Raises
    ------
    ValueError
        A grid the network cannot take (too few voxels for its modes or depth), or no test samples there.
    """
    model.eval()
    data, result = problem.data, Evaluation(about)
    device = next(model.parameters()).device
    home = tuple(data.grid) if isinstance(data, LimbData) else None
    for grid in grids:
        grid = tuple(grid)
        files = data.test(grid, samples)
        if not files.entries:
            raise ValueError(f"no test sample on grid {name_of(grid)}; there are {', '.join(map(name_of, data.test_grids()))}")
        finer = home is not None and grid != home and all(a >= b for a, b in zip(grid, home))
        coarse = data.test(home, samples).batches() if finer else None
        rows = []
        for batch in tqdm(files.batches(), total=len(files.rows()), desc=f"evaluating {name_of(grid)}", unit="batch", leave=False, disable=not sys.stderr.isatty()):
            phi, seconds, memory = _timed(problem, model, batch, device)
            base = problem.baseline(model, batch)
            others = {"": phi, "baseline_": base}
            if coarse is not None:
                small = next(coarse)
                others["upsampled_"] = upsample(problem.predict(model, small), small.tissue, grid)
            if reference is not None:
                others["reference_"] = problem.predict(reference, batch)
            physics = problem.metrics.physics(batch)
            measured = {prefix: problem.metrics(p, batch, physics) for prefix, p in others.items()}
            for i, name in enumerate(batch.names):
                row = {"grid": name_of(grid), "sample": Path(name).name, "seconds": seconds / len(batch), "peak_memory_MB": memory}
                for prefix, per_sample in measured.items():
                    row |= {prefix + k: v for k, v in per_sample[i].items()}
                rows.append(row)
        result.rows += rows
        result.tables[name_of(grid)] = aggregate(rows)
        result.about.setdefault("samples", {})[name_of(grid)] = len(rows)
        middle = sorted(range(len(rows)), key=lambda i: rows[i]["relative_l2"])[len(rows) // 2]
        result.figures[f"slices_{name_of(grid)}"] = _picture(problem, model, files, middle, rows[middle], folder)
    result.figures["errors_by_distance"] = errors_by_distance(result.tables, folder / "errors_by_distance.png")
    return result


def _picture(problem: PotentialProblem, model: nn.Module, files: Files, index: int, row: dict, folder: Path) -> Path:
    """Sections through the sample of median error: neither the best nor the worst."""
    addresses = [a for addresses in files.rows() for a in addresses]
    batch = next(dataclasses.replace(files, entries=[e for e in files.entries if e.address == addresses[index]], workers=0).batches())
    title = f"median test sample on {row['grid']}: relative L2 {row['relative_l2']:.3f}, baseline alone {row['baseline_relative_l2']:.3f}"
    return slices(batch, problem.predict(model, batch), problem.baseline(model, batch), folder / f"slices_{row['grid']}.png", title)


def _timed(problem: PotentialProblem, model: nn.Module, batch: Batch, device: torch.device) -> tuple[Tensor, float, float]:
    """Prediction, seconds, and peak memory in MB."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    phi = problem.predict(model, batch)
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    return phi, seconds, peak_memory(device)


COLUMNS = (("relative_l2", "relative L2"), ("rdm", "RDM"), ("mag", "MAG"), ("field_error", "field E"), ("charge_defect", "charge defect"))
WHO = (("", "hybrid network"), ("baseline_", "baseline alone"), ("upsampled_", "training-grid prediction, upsampled"), ("reference_", "trained at this grid"))


def markdown_table(tables: dict[str, dict]) -> str:
    """Mean of the main metrics, and the 95th percentile of the first, a row for each grid and contender."""
    lines = ["| grid | what | " + " | ".join(label for _, label in COLUMNS) + " | relative L2, p95 |", "|---|---|" + "---|" * (len(COLUMNS) + 1)]
    for grid, table in tables.items():
        for prefix, who in WHO:
            if f"{prefix}relative_l2" in table:
                values = [f"{table[prefix + key]['mean']:.6g}" for key, _ in COLUMNS] + [f"{table[prefix + 'relative_l2']['p95']:.6g}"]
                lines.append(f"| {grid} | {who} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def write(result: Evaluation, folder: Path) -> dict[str, Path]:
    """metrics.json, samples.csv and report.md into `folder`; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"metrics": folder / "metrics.json", "samples": folder / "samples.csv", "report": folder / "report.md"}
    paths["metrics"].write_text(json.dumps(_finite({**result.about, **result.tables}), indent=1, allow_nan=False))
    names = list(dict.fromkeys(k for row in result.rows for k in row))
    with open(paths["samples"], "w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(result.rows)
    lines = ["# Evaluation", "", markdown_table(result.tables), "", "Means over samples; conductive voxels outside the source sphere.", ""]
    lines += ["## By tissue and by distance from the source (relative L2, mean)", ""]
    for grid, table in result.tables.items():
        parts = {k.removeprefix("relative_l2_"): v["mean"] for k, v in table.items() if k.startswith("relative_l2_")}
        base = {k.removeprefix("baseline_relative_l2_"): v["mean"] for k, v in table.items() if k.startswith("baseline_relative_l2_")}
        lines += [f"**{grid}**", "", "| where | hybrid network | baseline alone |", "|---|---|---|"]
        lines += [f"| {part} | {value:.6g} | {base.get(part, float('nan')):.6g} |" for part, value in parts.items()]
        cost = table["seconds"]["median"]
        lines += ["", f"{cost * 1e3:.3g} ms a sample (median), peak memory {table['peak_memory_MB']['max']:.0f} MB", ""]
    lines += ["## Pictures", ""] + [f"![{key}]({path.relative_to(folder) if path.is_relative_to(folder) else path})" for key, path in result.figures.items()]
    lines += ["", "## Where the numbers come from", ""] + [f"- {k}: {v}" for k, v in result.about.items()]
    paths["report"].write_text("\n".join(lines) + "\n")
    return paths


def _finite(node):
    """JSON knows no NaN: null instead."""
    if isinstance(node, dict):
        return {k: _finite(v) for k, v in node.items()}
    return None if isinstance(node, float) and not math.isfinite(node) else node


def log_to(tracker, result: Evaluation, step: int) -> None:
    tracker.log({f"evaluation/{grid}/{k}": v["mean"] for grid, table in result.tables.items() for k, v in table.items()}, step)
    for key, path in result.figures.items():
        tracker.figure(f"evaluation/{key}", path, step)
