"""Two runs beside each other: the keys that differ, metrics over the samples that both were tested
on, both curves.

The difference B - A of a metric is taken sample by sample; its interval is that of the bootstrap,
the 2.5th and 97.5th percentile of the mean over samples drawn again (Efron, Ann. Statist. 7 (1979)
1).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physics_hybrid.kinds import flat, written
from physics_hybrid.report.markdown import table
from physics_hybrid.run.ledger import Run, in_words, value_of

#: Keys that say where a run lies, and not what it is.
PLACES = ("run", "runs_folder", "tracker.")
#: Keys that test samples do not depend on.
OF_TRAINING = (
    *("batch_size", "workers", "folder", "stage_to", "train_samples", "samples_per_epoch"),
    *("validation_samples", "solve_together", "grid", "grids", "path"),
    *("train", "validation", "train_objects"),
)
DRAWS = 2000
Values = NDArray[np.float64]


def compare(first: Run, second: Run, figure: Path | None, everything: bool = False) -> str:
    """A page of Markdown; the curves go to `figure`.

    everything : all metrics, not the main one alone.
    """
    parts = [
        f"# {first.name} (A) and {second.name} (B)",
        _states(first, second),
        "## Keys that differ",
        _keys(first, second),
        "## Metrics",
        _metrics(first, second, everything),
    ]
    if figure is not None and _draw(first, second, figure):
        parts.append(f"curves: {figure}")
    return "\n\n".join(parts)


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values of A and B by key, where they differ; places are left out."""
    one, other = _leaves(a), _leaves(b)
    keys = [key for key in {**one, **other} if not key.startswith(PLACES)]
    return {k: (one.get(k), other.get(k)) for k in keys if one.get(k) != other.get(k)}


def _leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in flat(dict(config)).items() if not isinstance(v, dict)}


def _states(first: Run, second: Run) -> str:
    heads = ("state", "problem", "model", "seed", "epochs", "seconds", "parameters", "commit")
    return table(
        ["", "A", "B"],
        [[h, *(in_words(h, value_of(run, h)) for run in (first, second))] for h in heads],
    )


def _keys(first: Run, second: Run) -> str:
    differ = differing(first.config, second.config)
    if not differ:
        return "None: they are the same but for their place."
    absent = "(none)"
    one, other = _leaves(first.config), _leaves(second.config)
    rows = [
        [key, written(a) if key in one else absent, written(b) if key in other else absent]
        for key, (a, b) in differ.items()
    ]
    return table(["key", "A", "B"], rows)


# --- metrics


@dataclass(frozen=True)
class Paired:
    """B - A of a metric over samples that both have: mean, and the ends of its 95 % interval.

    better : share of the samples on which B is below A.
    """

    count: int
    mean: float
    low: float
    high: float
    better: float

    @classmethod
    def of(cls, a: Values, b: Values) -> Paired:
        difference = b - a
        random = np.random.default_rng(0)
        drawn = random.integers(len(difference), size=(DRAWS, len(difference)))
        low, high = np.percentile(difference[drawn].mean(axis=1), [2.5, 97.5])
        return cls(
            count=len(difference),
            mean=float(difference.mean()),
            low=float(low),
            high=float(high),
            better=float((difference < 0).mean()),
        )

    def __str__(self) -> str:
        return f"{self.mean:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"


def _metrics(first: Run, second: Run, everything: bool) -> str:
    missing = [run.name for run in (first, second) if not run.tables]
    if missing:
        return f"Not tested: {', '.join(missing)} (python evaluate.py checkpoint=FOLDER)."
    common = [name for name in first.tables if name in second.tables]
    if not common:
        return (
            f"A was tested on {', '.join(first.tables)}, B on {', '.join(second.tables)}: nothing"
            " in common."
        )
    samples, why = shared(first, second)
    rows = []
    for tested in common:
        for name in first.own_metrics(tested):
            if name not in second.tables[tested] or not (everything or name == first.monitor):
                continue
            a, b = first.mean(tested, name), second.mean(tested, name)
            row = [tested, name, _number(a), _number(b)]
            pair = samples.get((tested, name))
            if pair is None:
                row += ["", "", ""]
            else:
                found = Paired.of(*pair)
                row += [str(found), f"{100 * found.better:.0f} %", str(found.count)]
            rows.append(row)
    heads = ["tested on", "metric", "A", "B", "B - A [95 %]", "B is lower on", "shared samples"]
    return table(heads, rows) + (f"\n\n{why}" if why else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def shared(first: Run, second: Run) -> tuple[dict[tuple[str, str], tuple[Values, Values]], str]:
    """(test set, metric) -> values of A and of B on the samples that both were tested on; and why
    there are none.
    """
    one, other = _rows(first), _rows(second)
    if not one or not other:
        return {}, "No intervals: a samples.csv is missing."
    same, why = _same_samples(first, second)
    keys = [key for key in one if key in other and same(key[1])]
    if not keys:
        return {}, why or "No intervals: no sample was tested by both."
    pairs: dict[tuple[str, str], tuple[Values, Values]] = {}
    for tested in dict.fromkeys(name for name, _ in keys):
        mine = [key for key in keys if key[0] == tested]
        for metric in one[mine[0]]:
            a, b = (_column(rows, mine, metric) for rows in (one, other))
            fine = np.isfinite(a) & np.isfinite(b)
            if fine.any():
                pairs[tested, metric] = a[fine], b[fine]
    return pairs, ""


def _column(
    rows: Mapping[tuple[str, str], Mapping[str, str]], keys: list[tuple[str, str]], metric: str
) -> Values:
    return np.array([_float(rows[key].get(metric, "")) for key in keys])


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _rows(run: Run) -> dict[tuple[str, str], dict[str, str]]:
    """(test set, sample) -> its row of samples.csv."""
    path = (run.report or run.folder) / "samples.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        varies = (reader.fieldnames or [""])[0]
        return {(row[varies], row["sample"]): row for row in reader}


def _same_samples(first: Run, second: Run) -> tuple[Callable[[str], bool], str]:
    """Whether a name means the same sample in both; and what to say where none does.

    A user's samples are known by their content (splits.json); made ones follow from the seed, the
    configuration of the data, and the content of what they are made of.
    """
    one, other = _contents(first), _contents(second)
    why = _made_otherwise(first, second)
    if one != other:
        why = why or "No intervals: no sample of the same content was tested by both."

    def same(name: str) -> bool:
        if name in one or name in other:
            return one.get(name) == other.get(name)
        return not why

    return same, why


def _made_otherwise(first: Run, second: Run) -> str:
    """Why samples that are made are others in each; "" where they are the same."""
    seeded = all("seed" in (run.config.get("data") or {}) for run in (first, second))
    if first.seed != second.seed and not seeded:  # else data.seed decides the samples
        return f"No intervals: seeds {first.seed} and {second.seed} test other samples."
    data = ({"data": run.config.get("data") or {}} for run in (first, second))
    for key, (a, b) in differing(*data).items():
        if key.removeprefix("data.") not in OF_TRAINING:
            return f"No intervals: {key} is {written(a)} and {written(b)}: other samples."
    return ""


def _contents(run: Run) -> dict[str, str]:
    """Name of a test sample, as samples.csv has it -> fingerprint of its content."""
    path = run.folder / "splits.json"
    if not path.exists():
        return {}
    try:
        parts = json.loads(path.read_text())
        tested = parts.get("test", [])
        return {Path(name).name: print_ for name, print_ in tested}
    except (ValueError, AttributeError, TypeError):
        return {}


def _draw(first: Run, second: Run, path: Path) -> bool:
    from physics_hybrid.report.curve import curves
    from physics_hybrid.training import log

    drawn = {}
    for letter, run in (("A", first), ("B", second)):
        if (run.folder / log.LOG).exists():
            drawn[f"{letter}: {run.name}"] = log.records(run.folder)
    return curves(drawn, path) is not None
