"""Test a trained model on every test set of its problem, and write down what came out.

Beside the model, on the same samples, stand the rivals that the problem names (`TestSet.rivals`).
"""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from physics_hybrid.cluster.machine import initialize
from physics_hybrid.problem import Batch, Place, Problem, Splits, TestSet
from physics_hybrid.report.markdown import aggregate, metrics_table, table
from physics_hybrid.report.plots import spared
from physics_hybrid.run import folder as run_folder
from physics_hybrid.run import splits as run_splits
from physics_hybrid.run.load import load, readers, recipe_of
from physics_hybrid.run.provenance import peak_memory, provenance
from physics_hybrid.training import log
from physics_hybrid.training.tracker import Tracker
from physics_hybrid.writing import write_text, written


@dataclass
class Evaluation:
    """What came out.

    about : where the numbers come from.
    columns, contenders, varies, monitor, alone : as the problem has them.
    tables : test set -> metric -> statistic.
    rows : one dict a sample.
    tested : the names of all samples, in full.
    remarks : what a reader must know of the samples, a sentence each.
    summary : what the problem adds to the report.
    figures : by name.
    """

    about: dict[str, Any]
    columns: list[tuple[str, str]]
    contenders: Mapping[str, str]
    varies: str
    tables: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    tested: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    summary: str = ""
    figures: dict[str, Path] = field(default_factory=dict)
    monitor: str = ""
    alone: str = ""

    @property
    def table(self) -> str:
        return metrics_table(self.tables, self.columns, self.contenders, self.varies)


@torch.no_grad()
def evaluate(
    problem: Problem[Any, Any],
    model: nn.Module,
    folder: Path,
    about: dict[str, Any],
    reference: nn.Module | None = None,
    used: Mapping[str, str] | None = None,
    pictures: bool = True,
) -> Evaluation:
    """Run every test set; figures go to `folder`, and one that fails is left out.

    used : of the samples that are tested, by name, those that the model has been trained or
        validated on; they make tables of their own.
    pictures : draw the sample of median error of each.

    Raises
    ------
    ValueError
        A test set that the model cannot take, or that is empty.
    """
    model.eval()
    result = Evaluation(
        about=about,
        columns=list(problem.columns),
        contenders=problem.contenders,
        varies=problem.varies,
        monitor=problem.monitor,
        alone=problem.alone,
    )
    for tests in problem.test_sets():
        rows = _measured(problem, model, tests, reference, used or {}, result.tested)
        parts = _by_part(rows)
        for part, members in parts.items():
            name = f"{tests.name}_{part}" if part else tests.name
            result.rows += [{problem.varies: name, **rows[i]} for i in members]
            result.tables[name] = aggregate([rows[i] for i in members])
            result.about.setdefault("samples", {})[name] = len(members)
        if not pictures:
            continue
        first = next(iter(parts.values()))
        middle = sorted(first, key=lambda i: rows[i][problem.monitor])[len(first) // 2]
        with spared(f"picture of {tests.name}"):
            picture = tests.picture(model, middle, rows[middle], folder)
            if picture is not None:
                result.figures[f"slices_{tests.name}"] = picture
    if not result.tables:
        return result
    with spared("summary of all test sets"):
        result.summary, figures = problem.summary(result.tables, folder)
        result.figures |= figures
    return result


def _by_part(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Which rows are of unseen samples (''), and which of each split that the run has used."""
    parts: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        parts.setdefault(row.get("split", ""), []).append(i)
    return dict(sorted(parts.items()))


def _measured(
    problem: Problem[Any, Any],
    model: nn.Module,
    tests: TestSet[Any, Any],
    reference: nn.Module | None,
    used: Mapping[str, str],
    tested: set[str],
) -> list[dict[str, Any]]:
    """A row for each sample: who it is, what it cost, metrics of the model and of its rivals.

    Those of `used` have their split, too. `tested` takes all names.
    """
    device, rows = next(model.parameters()).device, []
    title, quiet = f"evaluating {tests.name}", not sys.stderr.isatty()
    with tqdm(total=len(tests), desc=title, unit="sample", leave=False, disable=quiet) as bar:
        for batch in tests.batches():
            prediction, seconds = _timed(problem, model, batch, device)
            cost = {"seconds": seconds / len(batch), "peak_memory_MB": peak_memory(device)}
            predictions = {"": prediction, **tests.rivals(model, batch, reference)}
            measured = tests.measure(predictions, batch)
            tested |= {*batch.names}
            for i, name in enumerate(batch.names):
                row: dict[str, Any] = {"sample": Path(name).name, **cost}
                if name in used:
                    row["split"] = used[name]
                for prefix, per_sample in measured.items():
                    row |= {prefix + k: v for k, v in per_sample[i].items()}
                rows.append(row)
            bar.update(len(batch))
    return rows


def _timed(
    problem: Problem[Any, Any], model: nn.Module, batch: Batch, device: torch.device
) -> tuple[Any, float]:
    """The prediction, and seconds."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    prediction = problem.predict(model, batch)
    if cuda:
        torch.cuda.synchronize(device)
    return prediction, time.perf_counter() - started


def write(result: Evaluation, folder: Path) -> dict[str, Path]:
    """metrics.json, samples.csv and report.md into `folder`; returns their paths.

    Raises
    ------
    OSError
        Disk full, folder not writable: names the file, of which no half is left.
    """
    folder = Path(folder)
    paths = {
        "metrics": folder / "metrics.json",
        "samples": folder / "samples.csv",
        "report": folder / "report.md",
    }
    said = {"monitor": result.monitor, "alone": result.alone}
    content = _finite({**result.about, **said, **result.tables})
    write_text(paths["metrics"], json.dumps(content, indent=1, allow_nan=False))
    names = list(dict.fromkeys(k for row in result.rows for k in row))
    with written(paths["samples"]) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(result.rows)
    write_text(paths["report"], _report(result, folder))
    return paths


def _report(result: Evaluation, folder: Path) -> str:
    costs = []
    for name, metrics in result.tables.items():
        seconds, memory = metrics["seconds"]["median"], metrics["peak_memory_MB"]["max"]
        costs.append([name, f"{seconds * 1e3:.3g}", f"{memory:.0f}"])
    pictures = []
    for name, path in result.figures.items():
        place = path.relative_to(folder) if path.is_relative_to(folder) else path
        pictures.append(f"![{name}]({place})")
    parts = [
        "# Evaluation",
        result.table,
        "Means over samples.",
        *result.remarks,
        result.summary,
        "## Cost",
        table([result.varies, "ms a sample, median", "peak memory, MB"], costs),
        "## Pictures" if pictures else "",
        "\n".join(pictures),
        "## Where the numbers come from",
        "\n".join(f"- {k}: {v}" for k, v in result.about.items()),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _finite(node: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(node, dict):
        return {k: _finite(v) for k, v in node.items()}
    return None if isinstance(node, float) and not math.isfinite(node) else node


def log_to(tracker: Tracker, result: Evaluation, step: int) -> None:
    """Means of all metrics, and the figures."""
    values: dict[str, float] = {}
    for name, metrics in result.tables.items():
        values |= {f"evaluation/{name}/{k}": v["mean"] for k, v in metrics.items()}
    with spared("evaluation in the tracker"):
        tracker.log(values, step)
        for key, path in result.figures.items():
            tracker.figure(f"evaluation/{key}", path, step)


#: Options of evaluate.py with which other samples are tested than after a training.
OTHERWISE = ("data", "resolutions", "samples")


def _asked(options: dict[str, Any], home: Path) -> dict[str, Any]:
    """Whether a run is tested on what it is tested on after its training, and after which step."""
    as_trained = all(options.get(key) is None for key in OTHERWISE)
    as_trained = as_trained and options.get("split", "all") == "all"
    path = home / log.LOG
    step = log.records(home)[-1].get("step") if path.exists() else None
    return {"as_trained": as_trained, "step": step}


def _of_unknown_training(now: Splits) -> list[str]:
    """What a reader must know where a model carries no configuration, and no sample a name."""
    if now:
        return []  # `_remarks` says it
    return [
        "This model carries no configuration: the test samples are those of conf/, and it is not"
        " known whether it was trained on some of them."
    ]


def _remarks(known: Splits | None, now: Splits, tested: set[str]) -> list[str]:
    """What a reader must know of the samples that were tested.

    known : the splits that the run was begun with. now : those of the data that were opened.
    """
    if not now:
        return []
    if known is None:
        return [
            "It is not known which samples this model was trained on (an older run, or a model"
            " without its run): some of them may be among these."
        ]
    if tested & {name for part in now.values() for name, _ in part}:
        used = run_splits.used(known, now)
        apart = {name: split for name, split in used.items() if name in tested}
        return run_splits.remarks(apart, len(tested))
    # the samples are made, of bodies, say
    return run_splits.remarks_of_sources(run_splits.used(known, {"test": now.get("test", [])}))


def evaluate_checkpoint(
    options: dict[str, Any], defaults: Callable[[nn.Module], dict[str, Any]]
) -> Path:
    """What `evaluate.py` does.

    options : conf/evaluate.yaml, resolved. defaults : the configuration for a model without a run.
    Returns the folder of the report.
    """
    from hydra.utils import instantiate

    machine = initialize(options["device"])
    if machine.world_size > 1:
        raise RuntimeError(
            f"evaluate.py runs in one process, and {machine.world_size} were launched: start"
            " `python evaluate.py` once"
        )
    model, config, home = load(Path(options["checkpoint"]))
    lone = config is None
    if config is None:
        config = defaults(model)
        print(
            f"{options['checkpoint']} carries no configuration: data and metrics are those of conf/"
            f" for {config['problem'].get('_target_', '').rpartition('.')[2]}",
            file=sys.stderr,
        )
    if config["training"]["threads"]:
        torch.set_num_threads(config["training"]["threads"])
    recipe = recipe_of(config).for_evaluation(options, model)
    chosen = options.get("data") or config.get("data") or {}
    tracker: Tracker = instantiate(options["tracker"])
    with run_folder.report_folder(home, options["output"]) as folder:
        place = Place(machine.device, workers=readers(chosen.get("workers"), machine))
        problem = recipe.open(place)
        model = model.to(machine.device)
        reference = None
        if options["reference"]:
            reference = load(Path(options["reference"]))[0].to(machine.device)
        problem.check_model(model)
        about = provenance(str(options["checkpoint"]), config["seed"], machine.device, model)
        about |= _asked(options, home)
        known, now = run_splits.recall(home), problem.splits()
        used = run_splits.used(known or {}, now)
        drawn = config["evaluation"].get("pictures", True)  # runs of before have no such key
        if options.get("pictures") is not None:
            drawn = options["pictures"]
        result = evaluate(problem, model, folder, about, reference, used, drawn)
        if not result.tables:
            raise ValueError(
                f"{options['checkpoint']}: its data leave nothing to test; test other data"
                " (data=...)"
            )
        result.remarks = _remarks(known, now, result.tested)
        if lone:
            result.remarks += _of_unknown_training(now)
        paths = write(result, folder)
    tracker.start(folder, {"evaluation": options})
    log_to(tracker, result, 0)
    tracker.finish()
    print("\n\n".join([result.table, *result.remarks, f"report: {paths['report']}"]), flush=True)
    return folder
