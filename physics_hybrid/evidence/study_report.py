"""What came out of a study: one table and one picture, whatever is finished.

    OUTPUT/study.json  study.md  study.png

Means and standard deviations are over seeds. Ratios to the reference arm are taken seed by seed, on
the same limbs.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from physics_hybrid.evidence.study import Cell, Study, finished
from physics_hybrid.report.plots import plain_ticks, pyplot, save, spared
from physics_hybrid.run.ledger import COST, alone_of
from physics_hybrid.writing import write_text

#: The metric that a table compares arms by, and its heading: the first that a run has, else the
#: one that its problem is monitored by.
MAIN = {
    "relative_l2": "relative L2",
    "error": "error",
    "nrmse": "nRMSE",
    "misfit": "misfit of far fields",
}
METRICS = (*MAIN, "rdm", "mag", "field_error", "charge_defect", *(f"baseline_{m}" for m in MAIN))
#: Test sets that the table has room for.
MOST_SETS = 3


def report(cells: list[Cell], study: Study, output: Path) -> str | None:
    """Write study.json, study.md and study.png from what is finished; the table, or None where
    nothing is.
    """
    rows = collect(cells, output)
    if not rows:
        return None
    summary = summarise(rows + alone(rows, study), study)
    missing = [c.name for c in cells if not finished(c, output)]
    table = markdown(summary, rows, study)
    if missing:
        table += f"\n\nNot finished: {len(missing)} of {len(cells)} runs."
    content = {"study": study.name, "summary": summary, "runs": rows, "missing": missing}
    write_text(output / "study.json", json.dumps(content, indent=1))
    write_text(output / "study.md", table + "\n")
    with spared("study.png"):
        draw(summary, study, output / "study.png")
    return table


def collect(cells: list[Cell], output: Path) -> list[dict[str, Any]]:
    """One row a finished cell: metrics (means over the test split) by grid, steps, seconds, samples
    seen, parameters, commit, hardware.
    """
    return [_row(cell, output / cell.name) for cell in cells if finished(cell, output)]


def _row(cell: Cell, folder: Path) -> dict[str, Any]:
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    data, epochs = config["data"], config["training"]["epochs"]
    monitor, alone = metrics.get("monitor", next(iter(MAIN))), alone_of(metrics)
    wanted = dict.fromkeys([*METRICS, monitor, f"baseline_{monitor}"])
    grids = {}
    for name, values in metrics.items():
        if isinstance(values, dict) and not set(wanted).isdisjoint(values):
            means = {m: values[m]["mean"] for m in wanted if m in values}
            if alone + monitor in values:
                means[f"baseline_{monitor}"] = values[alone + monitor]["mean"]
            grids[name] = means
    return {
        "arm": cell.arm,
        "samples": cell.samples,
        "seed": cell.seed,
        "grids": grids,
        "steps": last["step"],
        "training_s": last["seconds"],
        "distinct_samples": data.get("train_samples") or data.get("samples_per_epoch", 1) * epochs,
        "parameters": metrics["parameters"],
        "commit": metrics["commit"],
        "hardware": metrics["hardware"],
        "test_samples": min(metrics["samples"].values()),
    }


def alone(rows: list[dict[str, Any]], study: Study) -> list[dict[str, Any]]:
    """Rows as `collect` makes them, of the baselines that `study.alone` names: no network, no
    training.
    """
    out = []
    for row in rows:
        if row["arm"] in study.alone:
            grids = {}
            for grid, metrics in row["grids"].items():
                main = main_of(metrics)
                grids[grid] = {main: metrics[f"baseline_{main}"]}
            untrained = {"parameters": 0, "steps": 0, "training_s": 0.0}
            out.append({**row, **untrained, "arm": study.alone[row["arm"]], "grids": grids})
    return out


def spread(values: list[float]) -> dict[str, float]:
    """Mean, sample standard deviation (0 of one value) and how many."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "count": len(values),
    }


def summarise(rows: list[dict[str, Any]], study: Study) -> list[dict[str, Any]]:
    """One entry for every amount of data and arm that has runs: metrics as `spread` by grid, and
    `ratio`, the main metric over that of the reference arm.
    """
    reference = {(r["samples"], r["seed"]): r["grids"] for r in rows if r["arm"] == study.reference}
    out = []
    for samples in study.samples:
        for arm in [*study.alone.values(), *study.arms]:
            mine = [r for r in rows if (r["samples"], r["arm"]) == (samples, arm)]
            if mine:
                grids = {grid: _on_grid(mine, reference, grid) for grid in mine[0]["grids"]}
                out.append(
                    {
                        "samples": samples,
                        "arm": arm,
                        "parameters": mine[0]["parameters"],
                        "distinct_samples": mine[0]["distinct_samples"],
                        "steps": sorted({r["steps"] for r in mine}),
                        "training_s": spread([r["training_s"] for r in mine]),
                        "grids": grids,
                    }
                )
    return out


def _on_grid(
    mine: list[dict[str, Any]], reference: dict[tuple[str, int], dict[str, Any]], grid: str
) -> dict[str, dict[str, float]]:
    """Metrics of the runs of an arm over seeds, and their ratio to the reference."""
    names = mine[0]["grids"][grid]
    main = main_of(names)
    out = {name: spread([r["grids"][grid][name] for r in mine]) for name in names}
    ratios = []
    for run in mine:
        other = reference.get((run["samples"], run["seed"]))
        if other is not None and grid in other:
            ratios.append(run["grids"][grid][main] / other[grid][main])
    if ratios:
        out["ratio"] = spread(ratios)
    return out


def main_of(metrics: Iterable[str]) -> str:
    """The metric that arms are compared by, of those that there are."""
    there = [name for name in metrics if name not in COST]
    return next((name for name in MAIN if name in there), there[0])


def heading_of(metric: str) -> str:
    return MAIN.get(metric, metric.replace("_", " "))


def markdown(summary: list[dict[str, Any]], rows: list[dict[str, Any]], study: Study) -> str:
    """Table and a line on where it comes from."""
    grids = shown(summary)
    heading = heading_of(main_of(summary[0]["grids"][grids[0]]))
    heads = [
        *("samples", "arm"),
        *(f"{heading}, {g}" for g in grids),
        *(f"over {study.reference}, {g}" for g in grids),
        *(f"baseline alone, {g}" for g in grids),
        *("parameters", "training, s", "seeds"),
    ]
    lines = [_line(heads), "|" + "---|" * len(heads)]
    lines += [_line(_entry(entry, grids)) for entry in summary]
    commits = ", ".join(sorted({r["commit"][:10] for r in rows}))
    hardware = ", ".join(sorted({str(r["hardware"])[:40] for r in rows}))
    tested = min(r["test_samples"] for r in rows)
    lines += [
        "",
        (
            f"Mean ± standard deviation over seeds; {_budget(summary)}; {tested} unseen"
            f" {_things(rows)} and seed. {hardware}; commit {commits}."
        ),
    ]
    return "\n".join(lines)


def shown(summary: list[dict[str, Any]]) -> list[str]:
    """The test sets of the table: those that all arms have, the first alone where they are many;
    study.json has all.
    """
    common = [g for g in summary[0]["grids"] if all(g in entry["grids"] for entry in summary)]
    return common if len(common) <= MOST_SETS else common[:1]


def _things(rows: list[dict[str, Any]]) -> str:
    """What is counted: limbs a grid, or samples."""
    named = any("relative_l2" in metrics for row in rows for metrics in row["grids"].values())
    return "limbs a grid" if named else "samples a test set"


def _line(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"


def _entry(entry: dict[str, Any], grids: list[str]) -> list[str]:
    """The words of a line of the table."""
    values = []
    main = main_of(next(iter(entry["grids"].values())))
    for metric in (main, "ratio", f"baseline_{main}"):
        values += [_number(entry["grids"].get(grid, {}).get(metric)) for grid in grids]
    seconds = entry["training_s"]
    return [
        entry["samples"],
        entry["arm"],
        *values,
        f"{entry['parameters'] / 1e6:.2f} M" if entry["parameters"] else "",
        f"{seconds['mean']:.0f}",
        str(seconds["count"]),
    ]


def _number(value: dict[str, float] | None) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    if value is None:
        return ""
    if value["count"] == 1:
        return f"{value['mean']:.3g}"
    return f"{value['mean']:.3g} ± {value['std']:.1g}"


def _budget(summary: list[dict[str, Any]]) -> str:
    steps = sorted({s for entry in summary for s in entry["steps"]} - {0})
    if len(steps) == 1:
        return f"{steps[0]} optimiser steps each"
    return f"**unequal budgets: {', '.join(map(str, steps))} optimiser steps**"


#: Of a baseline, and of a network, where all arms have the same amount of data.
ALONE: dict[str, Any] = {
    "fmt": "D",
    "mfc": "none",
    "color": "#666666",
    "ms": 8,
    "zorder": 3,
    "label": "baseline alone",
}
LEARNED: dict[str, Any] = {
    "fmt": "o",
    "color": "#0072B2",
    "capsize": 2,
    "label": "with the network",
}

#: Colour by what an arm's name says of its baseline, marker and line by its form; other arms by
#: their number.
COLOURS = {
    "anisotropic": "#E69F00",
    "isotropic": "#0072B2",
    "coarse 1/2": "#009E73",
    "coarse 1/4": "#CC79A7",
    "direct": "#000000",
}
FORMS = {
    "multiplicative": {"marker": "o", "linestyle": "-"},
    "additive": {"marker": "s", "linestyle": "--"},
    "direct": {"marker": "D", "linestyle": ":"},
}
OTHERS = (
    ("#000000", "v"),
    ("#D55E00", "^"),
    ("#56B4E9", "P"),
    ("#009E73", "X"),
    ("#CC79A7", "*"),
    ("#666666", "<"),
)


def _style(arm: str, number: int) -> dict[str, str]:
    colour, marker = OTHERS[number % len(OTHERS)]
    colours = [c for word, c in COLOURS.items() if word in arm]
    forms = [form for word, form in FORMS.items() if word in arm]
    form = forms[0] if forms else {"marker": marker, "linestyle": "-"}
    return {"color": colours[0] if colours else colour, **form}


def draw(summary: list[dict[str, Any]], study: Study, path: Path) -> Path:
    """The main metric against the number of different training samples: a column for each grid, a
    row for each panel; bars are one standard deviation.
    """
    grids = shown(summary)
    sizes = {e["samples"]: e["distinct_samples"] for e in summary}
    if len(study.samples) == 1:
        return _draw_one_amount(summary, study, grids, path)
    figure, axes = pyplot().subplots(
        len(study.panels),
        len(grids),
        figsize=(3.4 * len(grids) + 2.4, 3.1 * len(study.panels)),
        squeeze=False,
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for row, (title, arms) in zip(axes, study.panels.items(), strict=True):
        for axis, grid in zip(row, grids, strict=True):
            _draw_arms(axis, summary, arms, grid)
            _scales(axis, sizes)
        row[0].set_ylabel(heading_of(main_of(summary[0]["grids"][grids[0]])))
        row[-1].legend(
            title=title.replace(" (", "\n("),
            fontsize=8,
            title_fontsize=8,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            alignment="left",
        )
    for axis, grid in zip(axes[0], grids, strict=True):
        axis.set_title(f"tested at {grid.replace('x', '×')}", fontsize=10)
    figure.supxlabel("different training samples", fontsize=10)
    return save(figure, path, dpi=200)


def _draw_one_amount(
    summary: list[dict[str, Any]], study: Study, grids: list[str], path: Path
) -> Path:
    """The main metric of each arm, and of its baseline: a column for each test set."""
    main = main_of(summary[0]["grids"][grids[0]])
    size = (3.6 * len(grids) + 2.4, 0.32 * len(summary) + 1.3)
    figure, axes = pyplot().subplots(
        1, len(grids), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    places = range(len(summary))
    for axis, grid in zip(axes[0], grids, strict=True):
        for metric, style in ((f"baseline_{main}", ALONE), (main, LEARNED)):
            there = [
                (y, e["grids"][grid][metric])
                for y, e in enumerate(summary)
                if metric in e["grids"][grid]
            ]
            axis.errorbar(
                [value["mean"] for _, value in there],
                [y for y, _ in there],
                xerr=[value["std"] for _, value in there],
                **style,
            )
        axis.set_title(f"tested on {grid}", fontsize=10)
        axis.set_xlim(left=0)
        axis.set_xlabel(heading_of(main))
        axis.grid(True, axis="x", alpha=0.3, linewidth=0.6)
    axes[0, 0].set_yticks(places, [e["arm"] for e in summary])
    axes[0, 0].invert_yaxis()
    axes[0, -1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path, dpi=200)


def _draw_arms(axis: Any, summary: list[dict[str, Any]], arms: dict[str, str], grid: str) -> None:
    for number, (arm, label) in enumerate(arms.items()):
        mine = [e for e in summary if e["arm"] == arm and grid in e["grids"]]
        if not mine:
            continue
        shift = 1.035 ** (number - (len(arms) - 1) / 2)  # bars side by side
        values = [e["grids"][grid][main_of(e["grids"][grid])] for e in mine]
        axis.errorbar(
            [e["distinct_samples"] * shift for e in mine],
            [v["mean"] for v in values],
            yerr=[v["std"] for v in values],
            label=label,
            markersize=4.5,
            linewidth=1.2,
            elinewidth=0.9,
            capsize=2,
            **_style(arm, number),
        )


def _scales(axis: Any, sizes: dict[str, int]) -> None:
    """Logarithmic axes; along x the amounts of data, by number and, where it has one, by name."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

    places = list(sizes.values())
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_ticks(axis)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks(places, [_amount(name, size) for name, size in sizes.items()])
    axis.grid(True, axis="y", which="major", alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _amount(name: str, size: int) -> str:
    return name if name == str(size) else f"{size}\n{name}"
