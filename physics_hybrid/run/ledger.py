"""Runs as they lie on disk: what each is, how far it came, how good it is. From files alone.

Nothing is opened that a run was made of: a folder that was moved, data that were deleted, and a
problem that is not installed here change nothing. Light to import: no torch.

A folder is a run where it holds config.yaml, or the claim of a training (`owner.py`). Folders
between, of studies and chains, are looked through.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from physics_hybrid.kinds import UsageError, flat, written
from physics_hybrid.report.markdown import table
from physics_hybrid.run.owner import CLAIM, Owner, holder

#: A run is looked for so many folders deep: runs/STUDY/CELL, and one more.
DEEPEST = 3
ARCHIVE, COMPARISONS = "archive", "comparisons"
#: Folders beside runs that we, or a tracker, make for other ends.
BESIDE = {COMPARISONS, "cells", "wandb", "tensorboard"}
#: Days without a sign of life after which nobody seems to go on with a run.
STALE_DAYS = 30.0
#: Seconds of silence of another host's training, where a run does not say it itself.
PATIENCE = 120.0
#: Metrics that runs compare by which do not say it themselves: those of older versions.
FORMER_MONITORS = ("relative_l2", "error")
#: Metrics of a sample that are no errors.
COST = ("seconds", "milliseconds", "peak_memory_MB")
#: What a run was begun with (`run/train.py`), and what it is tested by (`run/evaluate.py`).
ORIGIN, METRICS = "origin.json", Path("evaluation") / "metrics.json"

#: What a training goes on from (`training/checkpoint.py`): the last, and the one before.
RESUMED = ("latest_checkpoint.pt", "latest_checkpoint.previous.pt")

#: State -> what it means, in the order of the table.
STATES = {
    "finished": "trained and tested",
    "unevaluated": "trained, and not tested since",
    "running": "a training owns the folder",
    "interrupted": "not trained to its last epoch: the same command goes on",
    "stale": f"the same, or unevaluated, and silent for more than {STALE_DAYS:.0f} days",
    "damaged": "a file of it cannot be read",
    "foreign": "no run: neither a configuration nor runs below",
}


#: Where a file of metrics does not say it yet.
ALONE = "baseline_"


def alone_of(metrics: Mapping[str, Any]) -> str:
    """Prefix of the baseline without a correction, in metrics.json."""
    return str(metrics.get("alone", ALONE))


@dataclass(frozen=True)
class Run:
    """A folder of runs/, as far as its files tell.

    name : its place below the folder that was listed.
    why : what a person should know of the state, or "".
    metrics, report : of the evaluation that counts, and its folder.
    epoch, epochs : trained, and asked for.
    monitor, tested, value, baseline : the main metric, the first test set, its mean over that, and
        that of the baseline alone.
    changed : the last sign of life, seconds since the epoch.
    """

    folder: Path
    name: str
    state: str
    why: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)
    owner: Owner | None = None
    changed: float = 0.0

    @property
    def problem(self) -> str:
        """potential, flavour, ...: the package of its recipe."""
        if not self.config:
            return ""
        target = str((self.config.get("problem") or {}).get("_target_", ".problems.potential."))
        found = re.search(r"\.problems\.(\w+)\.", target)
        return found[1] if found else target.rpartition(".")[2].removesuffix("Recipe").lower()

    @property
    def model(self) -> str:
        """The class of its network, the form that its recipe makes, or what it was begun with."""
        keys = flat(dict(self.config.get("model") or {}))
        targets = [str(value) for key, value in keys.items() if key.endswith("_target_")]
        if targets:
            return targets[-1].rpartition(".")[2]
        return str(keys.get("form") or self.origin.get("model") or "")

    @property
    def seed(self) -> int | None:
        return self.config.get("seed")

    @property
    def group(self) -> str:
        """The study, chain or sweep that it was started by."""
        return str(self.origin.get("group") or "")

    @property
    def epoch(self) -> int:
        """Epochs that are complete: one in which the training stopped is not."""
        return int(self.last.get("epoch", 0)) - ("stopped" in self.last)

    @property
    def epochs(self) -> int | None:
        asked: int | None = (self.config.get("training") or {}).get("epochs")
        return asked

    @property
    def seconds(self) -> float | None:
        """Spent in optimiser steps."""
        return self.last.get("seconds")

    @property
    def parameters(self) -> int | None:
        number: int | None = self.metrics.get("parameters", self.origin.get("parameters"))
        return number

    @property
    def commit(self) -> str:
        return str(self.metrics.get("commit", self.origin.get("commit", "")))[:10]

    @property
    def tables(self) -> dict[str, dict[str, dict[str, float]]]:
        """Test set -> metric -> statistic."""
        return {name: t for name, t in self.metrics.items() if _is_table(t)}

    @property
    def monitor(self) -> str:
        """The metric that it is compared by."""
        if "monitor" in self.metrics:
            return str(self.metrics["monitor"])
        first = next(iter(self.tables.values()), {})
        return next((name for name in FORMER_MONITORS if name in first), next(iter(first), ""))

    @property
    def tested(self) -> str:
        return next(iter(self.tables), "")

    @property
    def value(self) -> float | None:
        return self.mean(self.tested, self.monitor)

    @property
    def baseline(self) -> float | None:
        return self.mean(self.tested, self.alone + self.monitor)

    @property
    def alone(self) -> str:
        """Prefix of the metrics of the baseline without a correction."""
        return alone_of(self.metrics)

    def mean(self, tested: str, metric: str) -> float | None:
        """Of a metric over a test set; None where it is not known."""
        entry = self.tables.get(tested, {}).get(metric)
        return None if entry is None else entry["mean"]

    def own_metrics(self, tested: str) -> list[str]:
        """The metrics of the model itself over a test set: not those of its rivals, nor its cost.

        A rival has the prefix that stands before its own value of the main metric.
        """
        names = list(self.tables[tested])
        ends = [name for name in names if name.endswith(self.monitor) and name != self.monitor]
        rivals = tuple(name.removesuffix(self.monitor) for name in ends)
        return [n for n in names if n not in COST and not (rivals and n.startswith(rivals))]


def _is_table(value: object) -> bool:
    """Whether an entry of metrics.json is a test set: metric -> statistics."""
    return isinstance(value, dict) and any(
        isinstance(entry, dict) and "mean" in entry for entry in value.values()
    )


# --- reading


def runs_below(place: Path, archived: bool = False) -> list[Run]:
    """All runs below a folder, and what lies beside them and is none.

    archived : those in its archive, too.

    Raises
    ------
    UsageError
        There is no such folder.
    """
    place = Path(place)
    if not place.is_dir():
        raise UsageError(f"there is no folder {place}: nothing was trained yet, or give another")
    if is_run(place):
        return [read(place, place.name)]
    left_out = BESIDE if archived else {ARCHIVE, *BESIDE}
    found = []
    for child in _folders(place):
        if child.name in left_out:
            continue
        inside = [*_runs_in(child, 1)]
        found += [read(folder, folder.relative_to(place).as_posix()) for folder in inside]
        if not inside and child.name != ARCHIVE:
            found.append(_foreign(child))
    return found


def is_run(folder: Path) -> bool:
    return (folder / "config.yaml").exists() or any(folder.glob(CLAIM.format("*")))


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def _runs_in(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif depth < DEEPEST:
        for child in _folders(folder):
            yield from _runs_in(child, depth + 1)


def _foreign(folder: Path) -> Run:
    why = "neither a config.yaml nor a run below"
    return Run(folder, folder.name, "foreign", why, changed=folder.stat().st_mtime)


def read(folder: Path, name: str | None = None) -> Run:
    """What a folder is. A file that cannot be read makes it `damaged`, and is named; nothing is
    raised.
    """
    folder, problems = Path(folder), []

    def content(path: str | Path, parse: Callable[[str], Any]) -> Any:
        try:
            value = parse((folder / path).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, yaml.YAMLError):
            problems.append(str(path))
            return {}
        if not isinstance(value, dict):
            problems.append(str(path))
            return {}
        return value

    config = content("config.yaml", _yaml)
    last = content("log.jsonl", _last_line)
    main = content(METRICS, json.loads)
    metrics, report = _latest(folder, main, last.get("step", 0))
    origin = content(ORIGIN, json.loads)
    silence = (config.get("training") or {}).get("owner_silent_seconds") or PATIENCE
    owner = holder(folder, float(silence))
    run = Run(
        folder=folder,
        name=name or folder.name,
        state="",
        config=config,
        metrics=metrics,
        report=report,
        origin=origin,
        last=last,
        owner=owner,
        changed=_changed(folder),
    )
    state, why = _state(run, problems)
    return Run(**{**vars(run), "state": state, "why": why})


def _latest(folder: Path, main: Mapping[str, Any], step: int) -> tuple[Mapping[str, Any], Path]:
    """The evaluation that counts: of evaluation/, and of those by evaluate.py that tested the run
    as it was trained, the one that came after the most steps.
    """
    found: list[tuple[int, Mapping[str, Any], Path]] = []
    for path in sorted(folder.glob("evaluations/*/metrics.json")):
        try:
            later = json.loads(path.read_text())
        except (OSError, ValueError):  # one that is cut says nothing of the run
            continue
        if isinstance(later, dict) and later.get("as_trained"):
            found.append((later.get("step") or -1, later, path.parent))
    found.append((main.get("step", step if main else -1), main, folder / METRICS.parent))
    latest = max(range(len(found)), key=lambda i: (found[i][0], i))
    return found[latest][1:]


def _yaml(text: str) -> Any:
    """As `yaml.safe_load`, by libyaml where it is there: ten times as fast."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _last_line(text: str) -> Any:
    """The record of the last epoch; one that a kill has cut is left out."""
    lines = text.splitlines()
    for line in lines[-1:-3:-1]:
        try:
            return json.loads(line)
        except ValueError:
            continue
    if lines:
        raise ValueError("no record")
    return {}


def _changed(folder: Path) -> float:
    names = ("config.yaml", "log.jsonl", RESUMED[0], METRICS)
    times = [p.stat().st_mtime for p in (folder / name for name in names) if p.exists()]
    if not times and folder.exists():
        times = [folder.stat().st_mtime]
    return max(times, default=0.0)


def _state(run: Run, problems: list[str]) -> tuple[str, str]:
    if run.owner is not None:
        return "running", str(run.owner)
    if problems:
        return "damaged", f"cannot be read: {', '.join(problems)}"
    silent = (time.time() - run.changed) / 86400
    trained = run.epochs is not None and run.epoch >= run.epochs
    if not trained:
        state, why = "interrupted", f"{run.epoch} of {run.epochs or '?'} epochs"
        if "stopped" in run.last:
            why = f"stopped at step {run.last.get('step')}: {run.last['stopped']}"
        if run.epoch and not any((run.folder / name).exists() for name in RESUMED):
            why += "; nothing to go on from is there: train under another name"
    elif not run.tables:
        state, why = "unevaluated", "not tested as it was trained"
    elif run.metrics.get("step", run.last.get("step")) != run.last.get("step"):
        state, why = "unevaluated", f"tested at step {run.metrics['step']}, and trained on since"
    else:
        return "finished", ""
    if silent > STALE_DAYS:
        return "stale", f"{why}; silent for {silent:.0f} days"
    return state, why


# --- choosing and showing

#: Column -> what it shows of a run, as a value that can be sorted and written as JSON.
COLUMNS: dict[str, Callable[[Run], Any]] = {
    "run": lambda run: run.name,
    "state": lambda run: run.state,
    "problem": lambda run: run.problem,
    "model": lambda run: run.model,
    "metric": lambda run: f"{run.monitor}, {run.tested}" if run.tested else "",
    "value": lambda run: run.value,
    "over baseline": lambda run: _ratio(run.value, run.baseline),
    "seed": lambda run: run.seed,
    "epochs": lambda run: f"{run.epoch}/{run.epochs}" if run.epochs is not None else "",
    "seconds": lambda run: run.seconds,
    "parameters": lambda run: run.parameters,
    "commit": lambda run: run.commit,
    "group": lambda run: run.group,
    "changed": lambda run: time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
}


def _ratio(value: float | None, over: float | None) -> float | None:
    return None if value is None or not over else value / over


def value_of(run: Run, key: str) -> Any:
    """A column, or a key of the configuration such as training.learning_rate."""
    column = COLUMNS.get(key.replace("_", " "))
    return column(run) if column else flat(dict(run.config)).get(key)


def chosen(runs: Iterable[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs that meet every condition KEY=VALUE, VALUE a pattern such as flavour*.

    Raises
    ------
    UsageError
        A condition is none, or no run has its key.
    """
    left = list(runs)
    for condition in conditions:
        key, equals, pattern = condition.partition("=")
        if not equals:
            raise UsageError(f"--filter {condition}: write KEY=VALUE, such as state=finished")
        _refuse_unknown(key, left, "--filter")
        left = [r for r in left if fnmatch.fnmatchcase(_text(value_of(r, key)), pattern)]
    return left


def _text(value: Any) -> str:
    return "" if value is None else written(value)


def _refuse_unknown(key: str, runs: list[Run], option: str) -> None:
    known = key.replace("_", " ") in COLUMNS
    if not known and runs and not any(key in flat(dict(run.config)) for run in runs):
        columns = ", ".join(name.replace(" ", "_") for name in COLUMNS)
        raise UsageError(
            f"{option} {key}: neither a column ({columns}) nor a key of the configuration of any"
            " run"
        )


def ordered(runs: Sequence[Run], key: str | None = None) -> list[Run]:
    """By a column or key, -KEY from the largest; without one: best first, problem by problem, then
    those that are not tested, the last changed first.

    Raises
    ------
    UsageError
        No run has the key.
    """
    if key is None:
        return sorted(runs, key=_rank)
    name = key.removeprefix("-")
    _refuse_unknown(name, list(runs), "--sort")
    there = [run for run in runs if value_of(run, name) not in (None, "")]
    numbers = all(isinstance(value_of(run, name), int | float) for run in there)
    there.sort(
        key=lambda run: value_of(run, name) if numbers else _text(value_of(run, name)),
        reverse=key.startswith("-"),
    )
    return there + [run for run in runs if run not in there]


def _rank(run: Run) -> tuple[Any, ...]:
    place = [*STATES].index(run.state)
    if run.value is None or not math.isfinite(run.value):
        return (1, place, -run.changed)
    return (0, run.problem, run.monitor, run.tested, run.value)


def leaderboard(runs: Sequence[Run], keys: Sequence[str] = (), markdown: bool = False) -> str:
    """A line a run; columns that no run fills are left out.

    keys : of the configuration, a column each.
    """
    heads = [*COLUMNS, *keys]
    lines = [[in_words(head, value_of(run, head)) for head in heads] for run in runs]
    filled = [i for i, _ in enumerate(heads) if any(line[i] for line in lines)]
    heads = [heads[i] for i in filled]
    lines = [[line[i] for i in filled] for line in lines]
    text = table(heads, lines) if markdown else _aligned(heads, lines)
    notes = [f"{run.name}: {run.state}, {run.why}" for run in runs if run.why]
    return "\n".join([text, *(["", *notes] if notes else [])])


def in_words(head: str, value: Any) -> str:
    """A value of a column as a person reads it."""
    if value is None:
        return ""
    if head == "parameters":
        return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"
    if head == "seconds":
        return f"{value:.0f}"
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _aligned(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [list(heads), *map(list, lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def as_json(run: Run, keys: Sequence[str] = ()) -> dict[str, Any]:
    """All columns, with their names as they are typed."""
    columns = {name.replace(" ", "_"): value_of(run, name) for name in [*COLUMNS, *keys]}
    return {**columns, "why": run.why, "folder": str(run.folder)}


def find(word: str, place: Path) -> Run:
    """The run that is meant by a word: a path, or a name below a folder.

    Raises
    ------
    UsageError
        There is none, with the nearest names.
    """
    import difflib

    for folder in (Path(place) / word, Path(word).expanduser()):
        if folder.is_dir() and is_run(folder):
            return read(folder, word)
    names = [run.name for run in runs_below(place)] if Path(place).is_dir() else []
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"there is no run {word!r}, nor one of this name in {place}{hint}")
