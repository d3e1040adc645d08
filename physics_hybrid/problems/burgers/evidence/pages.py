"""The tables of docs/burgers.md, from folders of runs, studies and chains: none is typed by hand.

python train.py experiment=burgers run=RUN
python train.py experiment=burgers 'data.nu=[0.001,0.01]' training.epochs=22 run=TWO
python -m physics_hybrid study burgers --output STUDY
python -m physics_hybrid study burgers_plane --output PLANE
python -m physics_hybrid chain burgers_latent --output LATENT
python -m physics_hybrid chain burgers_uncertain seed=0 --output UNCERTAIN/seed0
python -m physics_hybrid pages --burgers runs/RUN --burgers-study STUDY --burgers-latent LATENT
    --burgers-uncertain UNCERTAIN --burgers-selection selection.json --burgers-times times.json
    --burgers-plane PLANE --burgers-substeps substeps.json --burgers-viscosities runs/TWO
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from physics_hybrid.evidence.study import Study, finished
from physics_hybrid.problems.burgers.evidence.selection import selection_table
from physics_hybrid.problems.burgers.evidence.substeps import substeps_table
from physics_hybrid.problems.burgers.evidence.times import times_table
from physics_hybrid.problems.burgers.learning import rivals_of
from physics_hybrid.problems.burgers.metrics import paired_ratio
from physics_hybrid.problems.burgers.plane.learning import rivals_of as square_rivals
from physics_hybrid.problems.burgers.problem import model_name
from physics_hybrid.problems.burgers.uncertain.learning import RIVALS
from physics_hybrid.report.markdown import table
from physics_hybrid.report.pages import ROOT, put

PAGE = "docs/burgers.md"
CAPTIONS = {
    "space_time": "Truth, prediction and error of the test sample of median error",
    "growth": "Error against time, beside steppers",
    "ensemble": "What was seen, and the ensemble one time unit later: the sample of median score",
    "spread_skill": "Error against spread, in bins of samples",
}
#: Metric -> heading.
ERRORS = {"nrmse": "nRMSE", "nrmse_from_start": "from t = 0", "one_step": "one step"}
STEPS = {**ERRORS, "milliseconds": "ms a frame and sample"}

Metrics = Mapping[str, Any]


def run_table(folder: Path) -> str:
    """The rows of one run, the model last, and its pictures.

    Raises
    ------
    ValueError
        The run is not evaluated.
    """
    metrics = _metrics(folder)
    rows = _rows_by_set(folder, metrics)
    pictures = [_picture(folder, name) for name in ("space_time", "growth")]
    return "\n\n".join([rows, _about([metrics]), *filter(None, pictures)])


def _rows_by_set(folder: Path, metrics: Metrics) -> str:
    rows = []
    for name, found in _test_sets(metrics, "nrmse").items():
        names = rivals_of(_steppers(found), dt=1.0, twice=True)[1]
        rows += [[name, *row] for row in _rows(found, {**names, "": _model(folder)}, STEPS)]
    return table(["test set", "what", *STEPS.values()], rows)


def viscosities_table(folder: Path) -> str:
    """The rows of one run of several viscosities, without its pictures."""
    metrics = _metrics(folder)
    return f"{_rows_by_set(folder, metrics)}\n\n{_about([metrics])}"


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
        rows += _rows(found, {**names, "": f"**{cell.arm}**"}, STEPS)
    return f"{table(['what', *STEPS.values()], rows)}\n\n{_about(runs)}"


def _steppers(found: Mapping[str, Any]) -> list[int]:
    """Cells of the steppers that stand in a test set."""
    named = [key.removeprefix("stepper").split("_")[0] for key in found if key[:7] == "stepper"]
    return sorted({int(cells) for cells in named})


def _rows(
    found: Mapping[str, Any], contenders: Mapping[str, str], columns: Mapping[str, str]
) -> list[list[str]]:
    there = {prefix: who for prefix, who in contenders.items() if f"{prefix}nrmse" in found}
    return [[who, *(_of(found, prefix + key) for key in columns)] for prefix, who in there.items()]


def _picture(run: Path, name: str) -> str:
    """A figure of the first test set goes to docs/, and this shows it."""
    drawn = sorted((run / "evaluation").glob(f"{name}*.png"))
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
    """The last stage and all that stands beside it, over the seeds that are finished: the folder is
    that of a chain, or of several. CRPS over that of the physics ensemble is of the mean over
    seeds, sample by sample.

    Raises
    ------
    ValueError
        No last stage is there.
    """
    chains = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    paths = [path for chain in chains if (path := _stage(chain, "consistency")) is not None]
    if not paths:
        raise ValueError(f"{folder}: the stage consistency of burgers_uncertain is not finished")
    runs = [_metrics(path) for path in paths]
    tested = [next(iter(_test_sets(metrics, "crps").values())) for metrics in runs]
    samples = [_samples(path) for path in paths]
    rows = []
    for prefix, who in {**RIVALS, "": "**consistency, 1 step**"}.items():
        if f"{prefix}crps" not in tested[0]:
            continue
        columns = ("crps", "rmse", "roughness", "milliseconds")
        means = [[found[prefix + key]["mean"] for found in tested] for key in columns]
        crps, rmse, rough, ms = map(_spread, means)
        skill = _spread([_skill(found, prefix) for found in tested])
        heun, physics = (_over(samples, prefix, rival) for rival in ("heun8_", "physics_"))
        rows.append([who, crps, physics, heun, rmse, skill, rough, ms])
    heads = ["what", "CRPS", "over the physics ensemble", "over Heun 8", "RMSE of the mean"]
    heads += ["spread / skill", "total variation / truth", "ms a sample, all members"]
    about = f"{_about(runs)} Ratios of CRPS with 95 % of a paired bootstrap over samples."
    pictures = [_picture(paths[0], name) for name in ("ensemble", "spread_skill")]
    return "\n\n".join([table(heads, rows), about, *filter(None, pictures)])


def _skill(found: Mapping[str, Any], prefix: str) -> float:
    """Spread over skill."""
    error = found[f"{prefix}square_error"]["mean"]
    return float((found[f"{prefix}variance"]["mean"] / error) ** 0.5)


def _samples(run: Path) -> list[dict[str, str]]:
    with open(run / "evaluation" / "samples.csv", newline="") as file:
        return list(csv.DictReader(file))


def _over(runs: Sequence[Sequence[Mapping[str, str]]], prefix: str, rival: str) -> str:
    """Ratio of the CRPS of two contenders, means over runs, and its interval; "" of one to itself,
    and where the rival was not tested.
    """
    if prefix == rival or f"{rival}crps" not in runs[0][0]:
        return ""

    def crps(who: str) -> Any:
        return np.mean([[float(row[f"{who}crps"]) for row in rows] for rows in runs], axis=0)

    ratio, low, high = paired_ratio(crps(prefix), crps(rival))
    return f"{ratio:.3f} ({low:.3f} to {high:.3f})"


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
    "burgers_substeps": substeps_table,
    "burgers_viscosities": viscosities_table,
    "burgers_plane": plane_table,
}


def fill_page(reports: Mapping[str, Path]) -> None:
    """Write each table to the page. Raises ValueError as they do."""
    for name, make in TABLES.items():
        if name in reports:
            put(PAGE, name, make(reports[name]))
