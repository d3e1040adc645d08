"""The tables of docs/burgers.md, from folders of runs, studies and chains: none is typed by hand.

python train.py experiment=burgers run=RUN
python -m physics_hybrid study burgers --output STUDY
python -m physics_hybrid study burgers_plane --output PLANE
python -m physics_hybrid chain burgers_latent --output LATENT
python -m physics_hybrid chain burgers_uncertain --output UNCERTAIN
python -m physics_hybrid pages --burgers runs/RUN --burgers-study STUDY --burgers-latent LATENT
    --burgers-uncertain UNCERTAIN --burgers-selection selection.json --burgers-times times.json
    --burgers-plane PLANE
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from physics_hybrid.evidence.study import Study, finished
from physics_hybrid.problems.burgers.evidence.selection import selection_table
from physics_hybrid.problems.burgers.evidence.times import times_table
from physics_hybrid.problems.burgers.learning import rivals_of
from physics_hybrid.problems.burgers.plane.learning import rivals_of as square_rivals
from physics_hybrid.problems.burgers.problem import model_name
from physics_hybrid.problems.burgers.uncertain.learning import RIVALS
from physics_hybrid.report.markdown import table
from physics_hybrid.report.pages import ROOT, put

PAGE = "docs/burgers.md"
CAPTIONS = {
    "space_time": "Truth, prediction and error of the test sample of median error",
    "growth": "Error against time, beside steppers",
}
#: Metric -> heading.
STEPS = {
    "nrmse": "nRMSE",
    "nrmse_from_start": "from t = 0",
    "one_step": "one step",
    "milliseconds": "ms a frame and sample",
}

Metrics = Mapping[str, Any]


def run_table(folder: Path) -> str:
    """The rows of one run, the model last, and its pictures.

    Raises
    ------
    ValueError
        The run is not evaluated.
    """
    metrics = _metrics(folder)
    rows = []
    for name, found in _test_sets(metrics, "nrmse").items():
        names = rivals_of(_steppers(found), dt=1.0)[1]
        rows += [[name, *row] for row in _rows(found, {**names, "": _model(folder)})]
    heads = ["test set", "what", *STEPS.values()]
    pictures = [_picture(folder, name) for name in ("space_time", "growth")]
    return "\n\n".join([table(heads, rows), _about([metrics]), *filter(None, pictures)])


def plane_table(folder: Path) -> str:
    """The square: rivals of the arm that has them, then the arms, of the first seed.

    Raises
    ------
    ValueError
        The first arm is not finished.
    """
    study = Study.read("burgers_plane")
    cells = [cell for cell in study.cells(folder) if finished(cell, folder)]
    if not cells or cells[0].arm != study.reference:
        raise ValueError(f"{folder}: {study.reference} of the study burgers_plane is not finished")
    runs = [_metrics(folder / cell.name) for cell in cells if cell.seed == study.seeds[0]]
    rows = []
    for cell, metrics in zip(cells, runs, strict=False):
        found = next(iter(_test_sets(metrics, "nrmse").values()))
        names = square_rivals(_steppers(found), dt=1.0, nu=1.0)[1] if cell is cells[0] else {}
        rows += _rows(found, {**names, "": f"**{cell.arm}**"})
    return f"{table(['what', *STEPS.values()], rows)}\n\n{_about(runs)}"


def _steppers(found: Mapping[str, Any]) -> list[int]:
    """Cells of the steppers that stand in a test set."""
    named = [key.removeprefix("stepper").split("_")[0] for key in found if key[:7] == "stepper"]
    return sorted({int(cells) for cells in named})


def _rows(found: Mapping[str, Any], contenders: Mapping[str, str]) -> list[list[str]]:
    there = {prefix: who for prefix, who in contenders.items() if f"{prefix}nrmse" in found}
    return [[who, *(_of(found, prefix + key) for key in STEPS)] for prefix, who in there.items()]


def _picture(run: Path, name: str) -> str:
    """A figure of the first test set goes to docs/, and this shows it."""
    drawn = sorted((run / "evaluation").glob(f"{name}_*.png"))
    if not drawn:
        return ""
    shutil.copy(drawn[0], ROOT / "docs" / f"burgers_{name}.png")
    return f"![{CAPTIONS[name]}](burgers_{name}.png)"


def study_table(folder: Path) -> str:
    """The arms of the study, over the seeds that are finished. Raises ValueError where none is."""
    study = Study.read("burgers")
    there = [cell for cell in study.cells(folder) if finished(cell, folder)]
    if not there:
        raise ValueError(
            f"{folder}: no run of the study burgers is finished: python -m physics_hybrid study"
            f" burgers --output {folder}"
        )
    rows, all_of_them = [], []
    for arm in study.arms:
        mine = [_metrics(folder / cell.name) for cell in there if cell.arm == arm]
        if not mine:
            continue
        all_of_them += mine
        name = next(iter(_test_sets(mine[0], "nrmse")))
        values = [_spread([run[name][key]["mean"] for run in mine]) for key in STEPS]
        seconds = [_seconds(folder / cell.name) for cell in there if cell.arm == arm]
        size = f"{mine[0]['parameters'] / 1e3:.0f} k"
        steps = f"{statistics.fmean(seconds):.0f}"
        rows.append([arm, *values, size, steps, str(len(mine))])
    heads = ["arm", *STEPS.values(), "parameters", "training, s", "seeds"]
    missing = len(study.cells(folder)) - len(there)
    note = f" {missing} of {len(study.cells(folder))} runs are not finished." if missing else ""
    return f"{table(heads, rows)}\n\n{_about(all_of_them)}{note}"


def latent_table(folder: Path) -> str:
    """Autoencoders, then steps. Raises ValueError where a stage is not there."""
    rows = []
    for stage, title in (("autoencoder", "exact means"), ("pure autoencoder", "all learned")):
        path = _stage(folder, stage)
        if path is None:
            continue
        metrics = _metrics(path)
        found = next(iter(_test_sets(metrics, "points").values()))
        names = {"means_": "limited linear, from 64 means", "linear_": "limited linear, 256 means"}
        names[""] = f"autoencoder, {title}"
        for prefix, who in names.items():
            if title == "exact means" or prefix == "":
                rows.append([who, _of(found, f"{prefix}nrmse"), _of(found, f"{prefix}points")])
    text = table(["reconstruction", "nRMSE, 256 cells", "nRMSE, 1024 points"], rows)
    lines, runs = [], []
    for stage, title in (("step", "exact means"), ("pure step", "all learned")):
        path = _stage(folder, stage)
        if path is None:
            continue
        metrics = _metrics(path)
        runs.append(metrics)
        found = next(iter(_test_sets(metrics, "nrmse").values()))
        drift = f"{found['mean_drift']['max']:.0e}"
        lines.append([f"latent step, {title}", *(_of(found, key) for key in STEPS), drift])
    if not runs:
        raise ValueError(f"{folder}: no step of the chain burgers_latent is finished")
    heads = ["rollout", *STEPS.values(), "drift of the mean, largest"]
    return f"{text}\n\n{table(heads, lines)}\n\n{_about(runs)}"


def uncertain_table(folder: Path) -> str:
    """The last stage and all that stands beside it. Raises ValueError where it is not there."""
    path = _stage(folder, "consistency")
    if path is None:
        raise ValueError(f"{folder}: the stage consistency of burgers_uncertain is not finished")
    metrics = _metrics(path)
    found = next(iter(_test_sets(metrics, "crps").values()))
    contenders = {**RIVALS, "": "**consistency, 1 step**"}
    rows = []
    for prefix, who in contenders.items():
        if f"{prefix}crps" not in found:
            continue
        error = found[f"{prefix}square_error"]["mean"]
        skill = (found[f"{prefix}variance"]["mean"] / error) ** 0.5
        columns = ("crps", "rmse", "roughness", "milliseconds")
        crps, rmse, rough, ms = (_of(found, prefix + key) for key in columns)
        rows.append([who, crps, rmse, f"{skill:.2f}" if skill else "-", rough, ms])
    heads = ["what", "CRPS", "RMSE of the mean", "spread / skill"]
    heads += ["total variation / truth", "ms a sample, all members"]
    return f"{table(heads, rows)}\n\n{_about([metrics])}"


def _stage(folder: Path, stage: str) -> Path | None:
    """The run of a stage that is evaluated, in the folder of a chain."""
    names = (stage, stage.replace(" ", "-"), stage.replace(" ", "_"))
    paths = [folder / name for name in names]
    return next((p for p in paths if (p / "evaluation" / "metrics.json").exists()), None)


def _metrics(run: Path) -> Metrics:
    path = run / "evaluation" / "metrics.json"
    if not path.exists():
        raise ValueError(f"{run} is not evaluated: {path} is not there")
    metrics: Metrics = json.loads(path.read_text())
    return metrics


def _test_sets(metrics: Metrics, key: str) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if isinstance(v, dict) and key in v}


def _model(run: Path) -> str:
    """Who the model of a run is."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    return f"**{model_name(config['model'])}**"


def _seconds(run: Path) -> float:
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    return float(last["seconds"])


def _of(found: Mapping[str, Any], key: str) -> str:
    return f"{found[key]['mean']:.3g}" if key in found else ""


def _spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.3g}"
    return f"{mean:.3g} ± {statistics.stdev(values):.1g}"


def _about(runs: Sequence[Metrics]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    commits = ", ".join(sorted({run["commit"][:10] for run in runs}))
    first = runs[0]
    tested = min(first["samples"].values())
    return (
        f"{tested} test samples; seed{'s' if ',' in seeds else ''} {seeds}; {first['hardware']},"
        f" torch {first['torch']}, commit {commits}, {first['date']}."
    )


#: What makes a table from a folder.
TABLES: dict[str, Callable[[Path], str]] = {
    "burgers": run_table,
    "burgers_study": study_table,
    "burgers_latent": latent_table,
    "burgers_uncertain": uncertain_table,
    "burgers_selection": selection_table,
    "burgers_times": times_table,
    "burgers_plane": plane_table,
}


def fill_page(reports: Mapping[str, Path]) -> None:
    """Write each table to the page. Raises ValueError as they do."""
    for name, make in TABLES.items():
        if name in reports:
            put(PAGE, name, make(reports[name]))
