"""Activations against depth at the start, for each block, and during trainings.

    OUTPUT/activations.json  activations.md  activations.png

The configured model is built with each block and at each depth, and sees one training batch.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from physics_hybrid.evidence.bench import bench, seconds
from physics_hybrid.report.markdown import table
from physics_hybrid.report.plots import plain_ticks, pyplot, save
from physics_hybrid.run.load import recipe_of
from physics_hybrid.training.log import records
from physics_hybrid.training.monitor import FILE, Blocks, Monitor, growth
from physics_hybrid.writing import write_text

#: Columns of a block's statistics.
SHOWN = ("mean", "std", "rms", "gradient_rms")


def at_start(
    overrides: list[str], blocks: Sequence[str], depths: Sequence[int]
) -> dict[str, dict[int, Blocks]]:
    """Block -> depth -> statistics of each block of the network, with the weights of step 0.

    Raises
    ------
    ValueError
        What train.py refuses; a model without `model.backbone.block` and `model.backbone.depth`.
    """
    import torch

    measured = bench(overrides)
    backbone = measured.config["model"].get("backbone", {})
    missing = [key for key in ("block", "depth") if key not in backbone]
    if missing:
        raise ValueError(
            f"the configured model has no model.backbone.{missing[0]}: choose one of blocks, such"
            " as model=fno_residual, uno, fno2d or uno2d"
        )
    found: dict[str, dict[int, Blocks]] = {}
    for block in blocks:
        found[block] = {}
        for depth in depths:
            torch.manual_seed(measured.config["seed"])
            changed = {**backbone, "block": block, "depth": depth}
            model_group = {**measured.config["model"], "backbone": changed}
            recipe = recipe_of({**measured.config, "model": model_group})
            model = recipe.build_model(measured.statistics).to(measured.machine.device)
            _open_head(model)
            monitor = Monitor(model, every=1)
            with monitor.watching(0):
                loss, _ = measured.problem.loss(model, measured.batch)
                loss.backward()
            found[block][depth] = monitor.blocks()
    return found


def _open_head(model: Any) -> None:
    """A head of zeros lets no gradient through: as after the first step, it gets small weights."""
    import torch

    from physics_hybrid.training.clipping import last_linear

    last: Any = last_linear(model)
    if last is not None and not last.weight.any():
        torch.nn.init.normal_(last.weight, std=1e-2)


def cost(overrides: list[str], every: int, repeats: int = 20) -> float:
    """By which share the monitor lengthens a step at an interval; steps alternate."""
    measured = bench(overrides)
    watched = Monitor(measured.trainer.model, every=1)

    def step() -> None:
        measured.trainer.step([measured.batch])

    def watched_step() -> None:
        with watched.watching(0):
            measured.trainer.step([measured.batch])
        watched.blocks()

    step()
    plain, seen = [], []
    for _ in range(repeats):
        plain.append(seconds(step, measured.machine))
        seen.append(seconds(watched_step, measured.machine))
    return (statistics.median(seen) / statistics.median(plain) - 1) / every


def report(
    found: dict[str, dict[int, Blocks]], runs: Sequence[Path], share: float, output: Path
) -> str:
    """Write all files; the table of growth."""
    growths = {
        block: {depth: growth(taken) for depth, taken in of.items()} for block, of in found.items()
    }
    traces = {run.name: records(run, FILE) for run in runs}
    depths = list(next(iter(growths.values())))
    heads = ["block", *(f"depth {depth}" for depth in depths)]
    lines = [[block, *(f"{of[d]:.4g}" for d in depths)] for block, of in growths.items()]
    text = "\n\n".join(
        [
            "Growth of the rms over all blocks, weights of step 0:",
            table(heads, lines),
            f"The monitor takes {100 * max(share, 0.0):.2g} % of a step at its interval.",
        ]
    )
    content = {"growth": growths, "blocks": found, "runs": traces, "share": share}
    write_text(output / "activations.json", json.dumps(content, indent=1))
    write_text(output / "activations.md", text + "\n")
    draw(found, traces, output / "activations.png")
    return text


def draw(
    found: dict[str, dict[int, Blocks]], traces: dict[str, list[dict[str, Any]]], path: Path
) -> Path:
    """Growth against depth; rms and gradient block by block at the largest; growth in trainings."""
    shape, size = ((2, 2), (8.6, 6.6)) if traces else ((1, 3), (12.0, 3.6))
    figure, grid = pyplot().subplots(*shape, figsize=size, layout="constrained")
    axes = grid.flat
    for number, (block, of) in enumerate(found.items()):
        style = {"marker": "osv^D<>"[number % 7], "markersize": 4, "linewidth": 1.1}
        axes[0].plot(list(of), [growth(taken) for taken in of.values()], label=block, **style)
        deepest = list(of[max(of)].values())
        places = range(1, len(deepest) + 1)
        sizes, value = [], 1.0
        for taken in deepest:
            value *= taken["rms"] / max(taken["rms_in"], 1e-30)
            sizes.append(value)
        axes[1].plot(places, sizes, **style)
        last = deepest[-1]["gradient_rms"]
        axes[2].plot(places, [t["gradient_rms"] / max(last, 1e-30) for t in deepest], **style)
    axes[0].set_xlabel("blocks in all")
    axes[0].set_ylabel("growth of the rms over all blocks")
    axes[1].set_xlabel("block")
    axes[1].set_ylabel("growth of the rms up to here")
    axes[2].set_xlabel("block")
    axes[2].set_ylabel("gradient / that at the last block")
    for axis in axes[:3]:
        axis.set_yscale("log")
        plain_ticks(axis)
    if traces:
        _draw_traces(axes[3], traces, labelled=set(traces) != set(found))
    for axis in axes:
        axis.grid(True, which="major", alpha=0.3, linewidth=0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return save(figure, path)


def _draw_traces(axis: Any, traces: dict[str, list[dict[str, Any]]], *, labelled: bool) -> None:
    """Growth in trainings; runs that are named after the blocks need no legend of their own."""
    for number, (name, lines) in enumerate(traces.items()):
        whole = [line for line in lines if _is_whole(line["blocks"])]
        values = [growth(line["blocks"]) for line in whole]
        style = {"marker": "osv^D<>"[number % 7], "markersize": 4, "linewidth": 1.1}
        axis.plot([line["step"] for line in whole], values, label=name, **style)
    axis.set_yscale("log")
    axis.set_xlabel("optimiser step")
    axis.set_ylabel("growth of the rms over all blocks")
    if labelled:
        axis.legend(fontsize=7, frameon=False)


def _is_whole(blocks: Blocks) -> bool:
    """Whether everything that was seen was finite."""
    return all(None not in taken.values() for taken in blocks.values())
