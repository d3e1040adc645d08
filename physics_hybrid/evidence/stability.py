"""Which trainings fail, when, and what the others reach: the report of a study with a verdict.

    OUTPUT/study.json  study.md  study.png

A training fails in the first epoch in which

    a loss or gradient is not finite,  or  loss >= 10 x the smallest loss of an earlier epoch

(losses are means over an epoch). Failure rates have Wilson's interval of 95 %,

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),    z = 1.96

(Wilson, J. Am. Stat. Assoc. 22 (1927) 209). Errors are medians and quartiles over the trainings
that did not fail.

The rule of the verdict, written before the study ran:

    gold    a block has a lower median error *and* a lower failure rate than the control, at every
            depth; of several the one with the lowest product of medians
    silver  else, the control with AGC fails less often than without, and its median error is not
            more than 10 % higher, over all depths
    pivot   else, layer scale

A bounded loss cannot become ten times its minimum once that is large, and a training may end
worse than it began without failing: those whose error is not below that of the baseline beside it
are counted apart, as useless, and play no part in the rule.

Failures of a depth are counted over its settings (the usual learning rate and the harsh one), its
median is that of the usual one.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physics_hybrid.evidence.study import Cell, Study, finished, stopped
from physics_hybrid.evidence.study_report import main_of
from physics_hybrid.report.markdown import table
from physics_hybrid.report.plots import plain_ticks, pyplot, save, spared
from physics_hybrid.run.ledger import alone_of
from physics_hybrid.training.log import records
from physics_hybrid.training.monitor import FILE, growth
from physics_hybrid.writing import write_text

#: A loss so many times its smallest is a failure.
BLOWN_UP = 10.0
#: Of the standard normal distribution, for 95 %.
Z = 1.959964
#: How much worse than the control's the median with AGC may be.
WORSE = 1.10
#: Of the arms in the figure.
MARKERS = "os^vD<>P*X"


# --- one training


@dataclass(frozen=True)
class Outcome:
    """What became of a training.

    error : of the best weights on the test split; None where nothing was tested.
    useless : whether it is not below that of the baseline beside it.
    failed : the epoch in which it failed, from 1; None where it did not.
    losses, gradients : means over epochs; NaN where nothing was finite.
    growth_first, growth_last : of activations over all blocks, at the first and the last step
        that was watched.
    """

    arm: str
    samples: str
    seed: int
    error: float | None
    useless: bool
    failed: int | None
    losses: list[float]
    gradients: list[float]
    growth_first: float
    growth_last: float
    commit: str
    hardware: str


def outcome(cell: Cell, output: Path) -> Outcome:
    """Of a cell that is finished, or stopped."""
    folder = output / cell.name
    lines = records(folder)
    error, useless, about = None, True, {"commit": "", "hardware": ""}
    if finished(cell, output):
        metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
        error, useless, about = _error(metrics), _useless(metrics), metrics
    epochs = [line for line in lines if "stopped" not in line]
    first, last = _growth(folder)
    return Outcome(
        arm=cell.arm,
        samples=cell.samples,
        seed=cell.seed,
        error=error,
        useless=useless,
        failed=failed_at(lines),
        losses=[line.get("train/loss", math.nan) for line in epochs],
        gradients=[line.get("train/gradient_norm", math.nan) for line in epochs],
        growth_first=first,
        growth_last=last,
        commit=str(about["commit"])[:10],
        hardware=str(about["hardware"])[:40],
    )


def failed_at(lines: Sequence[Mapping[str, Any]]) -> int | None:
    """The epoch of log.jsonl in which a training failed, or None.

    Examples
    --------
    >>> failed_at([{"epoch": 1, "train/loss": 1.0}, {"epoch": 2, "train/loss": 10.0}])
    2
    """
    least = math.inf
    for line in lines:
        loss = line.get("train/loss")
        if loss is None or "stopped" in line or line.get("skipped", 0) > 0:
            return int(line["epoch"])
        if loss >= BLOWN_UP * least:
            return int(line["epoch"])
        least = min(least, loss)
    return None


def _error(metrics: Mapping[str, Any]) -> float | None:
    """The main metric, mean over the test sets; None where it is not finite."""
    sets = [metrics[name] for name in metrics["samples"]]
    means = [values[main_of(values)]["mean"] for values in sets]
    return None if None in means else statistics.fmean(means)


def _useless(metrics: Mapping[str, Any]) -> bool:
    """Whether a training ends no better than the baseline, on any test set."""
    for name in metrics["samples"]:
        values = metrics[name]
        main = main_of(values)
        alone = values.get(alone_of(metrics) + main)
        if alone is not None and not (values[main]["mean"] or math.inf) < alone["mean"]:
            return True
    return False


def _growth(folder: Path) -> tuple[float, float]:
    if not (folder / FILE).exists():
        return math.nan, math.nan
    lines = records(folder, FILE)
    values = []
    for line in (lines[0], lines[-1]):
        blocks = line["blocks"]
        whole = all(None not in taken.values() for taken in blocks.values())
        values.append(growth(blocks) if whole else math.inf)
    return values[0], values[1]


# --- an arm


@dataclass(frozen=True)
class Summary:
    """All trainings of an arm in a setting. `interval` is Wilson's, of the failure rate; useless
    ones did not fail.
    """

    arm: str
    samples: str
    runs: int
    failures: int
    useless: int
    interval: tuple[float, float]
    failed_after: float | None
    median: float | None
    quartiles: tuple[float, float] | None
    gradient: float
    growth_first: float
    growth_last: float

    @property
    def rate(self) -> float:
        return self.failures / self.runs


def wilson(failures: int, runs: int) -> tuple[float, float]:
    """95 % interval of a rate.

    Examples
    --------
    >>> low, high = wilson(0, 10)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.2775)
    """
    p = failures / runs
    middle = p + Z**2 / (2 * runs)
    half = Z * math.sqrt(p * (1 - p) / runs + Z**2 / (4 * runs**2))
    whole = 1 + Z**2 / runs
    low = (middle - half) / whole if failures else 0.0
    high = (middle + half) / whole if failures < runs else 1.0
    return low, high


def summarise(outcomes: Sequence[Outcome], study: Study) -> list[Summary]:
    """An entry for each setting and arm that has trainings."""
    out = []
    for samples in study.samples:
        for arm in study.arms:
            mine = [o for o in outcomes if (o.samples, o.arm) == (samples, arm)]
            if mine:
                out.append(_summary(mine))
    return out


def _summary(mine: Sequence[Outcome]) -> Summary:
    failures = [o.failed for o in mine if o.failed is not None]
    errors = sorted(o.error for o in mine if o.failed is None and o.error is not None)
    quartiles = None
    if len(errors) > 1:
        low, _, high = statistics.quantiles(errors, n=4, method="inclusive")
        quartiles = (low, high)
    return Summary(
        arm=mine[0].arm,
        samples=mine[0].samples,
        runs=len(mine),
        failures=len(failures),
        useless=sum(o.useless and o.failed is None for o in mine),
        interval=wilson(len(failures), len(mine)),
        failed_after=statistics.median(failures) if failures else None,
        median=statistics.median(errors) if errors else None,
        quartiles=quartiles,
        gradient=_largest([max(map(_or_infinite, o.gradients), default=math.inf) for o in mine]),
        growth_first=statistics.median(o.growth_first for o in mine),
        growth_last=statistics.median(o.growth_last for o in mine),
    )


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _largest(peaks: Sequence[float]) -> float:
    """Median over trainings of the largest gradient norm of an epoch."""
    return statistics.median(peaks)


# --- the verdict


@dataclass(frozen=True)
class Rule:
    """Who is compared with whom: `verdict` of the study file.

    control, clipped : the arm that all are measured by, and the same with AGC.
    fallback : the arm that the house turns to where nobody wins.
    depths : depth -> settings; of the first the median is taken, over all failures are counted.
    """

    control: str
    clipped: str
    fallback: str
    depths: dict[str, list[str]]


@dataclass(frozen=True)
class Verdict:
    """medal : gold, silver or pivot. arm : whom it names. reason : in a sentence."""

    medal: str
    arm: str
    reason: str


def verdict(summaries: Sequence[Summary], rule: Rule) -> Verdict | None:
    """The rule of the module; None where a depth has no training of the control that came through.

    Of the other arms those are judged that have a median at every depth.
    """
    judged = _all_judged(summaries, rule)
    control = judged.pop(rule.control, None)
    if control is None:
        return None
    clipped = judged.get(rule.clipped)
    blocks = {arm: j for arm, j in judged.items() if j is not None and arm != rule.clipped}
    winners = {arm: j for arm, j in blocks.items() if _wins(j, control)}
    if winners:
        best = min(winners, key=lambda arm: math.prod(m for m, _ in winners[arm].values()))
        return Verdict("gold", best, "lower median and lower failure rate at every depth")
    if clipped is not None:
        medians = [math.prod(m for m, _ in j.values()) for j in (clipped, control)]
        ratio = (medians[0] / medians[1]) ** (1 / len(control))
        fewer = _mean_rate(clipped) < _mean_rate(control)
        if fewer and ratio <= WORSE:
            reason = f"fails less often, median error {ratio:.2f} times the control's"
            return Verdict("silver", rule.clipped, reason)
    return Verdict("pivot", rule.fallback, "no block wins on both counts, and AGC does not help")


#: Median error and failure rate by depth.
Judged = dict[str, tuple[float, float]]


def _all_judged(summaries: Sequence[Summary], rule: Rule) -> dict[str, Judged | None]:
    """By arm."""
    table_of = {(s.arm, s.samples): s for s in summaries}
    arms = dict.fromkeys(s.arm for s in summaries)
    return {arm: _judged(arm, table_of, rule) for arm in arms}


def _judged(arm: str, table_of: Mapping[tuple[str, str], Summary], rule: Rule) -> Judged | None:
    out = {}
    for depth, settings in rule.depths.items():
        there = [table_of[arm, name] for name in settings if (arm, name) in table_of]
        usual = table_of.get((arm, settings[0]))
        if usual is None or usual.median is None:
            return None
        rate = sum(s.failures for s in there) / sum(s.runs for s in there)
        out[depth] = (usual.median, rate)
    return out


def _wins(block: Judged, control: Judged) -> bool:
    pairs = [(block[depth], control[depth]) for depth in control]
    return all(mine[0] < theirs[0] and mine[1] < theirs[1] for mine, theirs in pairs)


def _mean_rate(judged: Judged) -> float:
    return statistics.fmean(rate for _, rate in judged.values())


# --- the report


def report(cells: list[Cell], study: Study, output: Path) -> str | None:
    """Write study.json, study.md and study.png from what is there; the text, or None where nothing
    is.
    """
    assert study.verdict is not None
    done = [cell for cell in cells if finished(cell, output) or stopped(cell, output)]
    if not done:
        return None
    outcomes = [outcome(cell, output) for cell in done]
    summaries = summarise(outcomes, study)
    found, text = None, ""
    if study.verdict:
        rule = Rule(**study.verdict)
        found = verdict(summaries, rule)
        text = judged_table(summaries, rule) + "\n\n"
    text += markdown(summaries, outcomes, found, len(cells) - len(done))
    content = {
        "study": study.name,
        "verdict": None if found is None else vars(found),
        "summary": [vars(s) for s in summaries],
        "runs": [vars(o) for o in outcomes],
        "missing": len(cells) - len(done),
    }
    write_text(output / "study.json", json.dumps(_null(content), indent=1, allow_nan=False))
    write_text(output / "study.md", text + "\n")
    with spared("study.png"):
        draw(outcomes, summaries, study, output / "study.png")
    return text


def _null(node: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(node, dict):
        return {key: _null(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_null(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def judged_table(summaries: Sequence[Summary], rule: Rule) -> str:
    """What the rule looks at, by arm and depth: the median over the control's, the failure rate."""
    judged = _all_judged(summaries, rule)
    control = judged.get(rule.control)
    medians = [f"median / {rule.control}'s, depth {depth}" for depth in rule.depths]
    rows = []
    for arm, values in judged.items():
        if values is None or control is None:
            rows.append([arm, *([""] * 2 * len(rule.depths))])
            continue
        ratios = [f"{values[depth][0] / control[depth][0]:.3f}" for depth in rule.depths]
        rows.append([arm, *ratios, *(f"{values[depth][1]:.2f}" for depth in rule.depths)])
    return table(["arm", *medians, *(f"failed, depth {depth}" for depth in rule.depths)], rows)


def markdown(
    summaries: Sequence[Summary], outcomes: Sequence[Outcome], found: Verdict | None, missing: int
) -> str:
    """Table, verdict, and where it comes from."""
    heads = [
        *(
            "setting",
            "arm",
            "runs",
            "failed",
            "rate, 95 %",
            "epoch of failure",
            "useless",
            "median error",
        ),
        *("quartiles", "largest gradient norm", "growth at the start", "at the end"),
    ]
    parts = [table(heads, [_line(s) for s in summaries])]
    if found is not None:
        when = "Verdict, had the study ended here" if missing else "Verdict"
        parts.append(f"{when}: **{found.medal}: {found.arm}** ({found.reason}).")
    seeds = sorted({o.seed for o in outcomes})
    commits = ", ".join(sorted({o.commit for o in outcomes} - {""}))
    hardware = ", ".join(sorted({o.hardware for o in outcomes} - {""}))
    parts.append(
        f"Medians and quartiles over trainings that did not fail; Wilson's intervals; seeds"
        f" {', '.join(map(str, seeds))}; growth of the rms over all blocks. {hardware}; commit"
        f" {commits}."
    )
    if missing:
        parts.append(f"Not finished: {missing} of {missing + len(outcomes)} runs.")
    return "\n\n".join(parts)


def _line(s: Summary) -> list[str]:
    low, high = s.interval
    quartiles = "" if s.quartiles is None else f"{s.quartiles[0]:.3g} to {s.quartiles[1]:.3g}"
    return [
        s.samples,
        s.arm,
        str(s.runs),
        str(s.failures),
        f"{s.rate:.2f} ({low:.2f} to {high:.2f})",
        "" if s.failed_after is None else f"{s.failed_after:g}",
        str(s.useless),
        "" if s.median is None else f"{s.median:.3g}",
        quartiles,
        f"{s.gradient:.3g}",
        f"{s.growth_first:.3g}",
        f"{s.growth_last:.3g}",
    ]


def draw(
    outcomes: Sequence[Outcome], summaries: Sequence[Summary], study: Study, path: Path
) -> Path:
    """Medians, failure rates, growth at the end, and gradient norms in the last setting."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.6), layout="constrained")
    settings = [name for name in study.samples if any(s.samples == name for s in summaries)]
    colours = plt.get_cmap("tab10").colors
    for number, arm in enumerate(study.arms):
        mine = {s.samples: s for s in summaries if s.arm == arm}
        style = {"color": colours[number % 10], "marker": MARKERS[number % len(MARKERS)]}
        style |= {"markersize": 4, "linewidth": 1.1}
        places = [i for i, name in enumerate(settings) if name in mine]
        shifted = [i + 0.08 * (number - len(study.arms) / 2) for i in places]
        entries = [mine[settings[i]] for i in places]
        _medians(axes[0, 0], shifted, entries, {**style, "label": arm})
        rates = [s.rate for s in entries]
        bars = [
            [s.rate - s.interval[0] for s in entries],
            [s.interval[1] - s.rate for s in entries],
        ]
        axes[0, 1].errorbar(shifted, rates, yerr=bars, **{**style, "linestyle": ""}, capsize=2)
        axes[1, 0].plot(shifted, [s.growth_last for s in entries], **{**style, "linestyle": ""})
        _gradients(axes[1, 1], [o for o in outcomes if o.arm == arm], settings[-1], style)
    for axis in (axes[0, 0], axes[0, 1], axes[1, 0]):
        axis.set_xticks(range(len(settings)), settings, rotation=20, ha="right", fontsize=8)
    axes[0, 0].set_ylabel("error, median and quartiles")
    axes[0, 1].set_ylabel("failure rate, 95 %")
    axes[0, 1].set_ylim(-0.03, 1.03)
    axes[1, 0].set_ylabel("growth over all blocks at the end, median")
    axes[1, 1].set_ylabel(f"gradient norm, median ({settings[-1]})")
    axes[1, 1].set_xlabel("epoch")
    axes[1, 1].xaxis.get_major_locator().set_params(integer=True)
    for axis in (axes[0, 0], axes[1, 0], axes[1, 1]):
        axis.set_yscale("log")
    plain_ticks(axes[0, 0])
    for axis in axes.flat:
        axis.grid(True, axis="y", alpha=0.3, linewidth=0.6)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return save(figure, path)


def _medians(axis: Any, places: list[float], entries: Sequence[Summary], style: Any) -> None:
    there, medians, bars = [], [], [[], []]  # type: ignore[var-annotated]
    for place, s in zip(places, entries, strict=True):
        if s.median is not None:
            low, high = s.quartiles or (s.median, s.median)
            there.append(place)
            medians.append(s.median)
            bars[0].append(max(0.0, s.median - low))
            bars[1].append(max(0.0, high - s.median))
    axis.errorbar(there, medians, yerr=bars, **{**style, "linestyle": ""}, capsize=2)


def _gradients(axis: Any, outcomes: Sequence[Outcome], setting: str, style: Any) -> None:
    """Median over trainings, epoch by epoch, of those that got there."""
    traces = [o.gradients for o in outcomes if o.samples == setting]
    longest = max(map(len, traces), default=0)
    medians = []
    for epoch in range(longest):
        values = [t[epoch] for t in traces if epoch < len(t) and math.isfinite(t[epoch])]
        medians.append(statistics.median(values) if values else math.nan)
    axis.plot(range(1, longest + 1), medians, **{**style, "markersize": 3})
