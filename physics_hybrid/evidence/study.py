"""Arms x amounts of data x seeds: train them all with the same budget, then one table and one
picture.

    python -m physics_hybrid study hybrid_value [key=value ...] --output runs/hybrid_value [--seeds
    0 1 2]

A study is a file: its name in conf/study, or a path. Every cell is a run of train.py in
OUTPUT/<cell>; the same command skips finished ones and goes on with those that were killed. One
that fails is reported and the others run. `--array-index 7` means one cell, `--prepare` writes its
overrides down and leaves the rest to others (pbs/study.pbs), `--collect` runs nothing. At the end,
whatever is there goes into

    OUTPUT/study.json  study.md  study.png

with means and standard deviations over seeds. Ratios to the reference arm are taken seed by seed,
on the same limbs.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

METRICS = ("relative_l2", "rdm", "mag", "field_error", "charge_defect", "baseline_relative_l2")
#: Exit statuses of a training that was told to leave: 85 (training.requeue_exit_code) with a state
#: saved, the others with nothing to save.
TOLD_TO_LEAVE = (85, 130, 138, 143)


@dataclass(frozen=True)
class Cell:
    """One training: overrides are what follows `python train.py run=NAME`."""

    arm: str
    samples: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return "_".join(
            re.sub(r"\W+", "-", part) for part in (self.arm, self.samples, f"seed{self.seed}")
        )


@dataclass(frozen=True)
class Study:
    """What conf/study/*.yaml says. panels: title of a picture -> arm -> its label there."""

    name: str
    common: list[str]
    seeds: list[int]
    samples: dict[str, list[str]]
    arms: dict[str, list[str]]
    reference: str
    panels: dict[str, dict[str, str]]

    @classmethod
    def read(cls, what: str) -> Study:
        """Raises ValueError where there is no such study, or the file says something else than a
        study should.
        """
        path = Path(what) if what.endswith(".yaml") else CONF / "study" / f"{what}.yaml"
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in (CONF / "study").glob("*.yaml")))
            raise ValueError(f"there is no study {what!r}: give a .yaml file, or one of {known}")
        keys = set(cls.__dataclass_fields__) - {"name"}
        content = yaml.safe_load(path.read_text())
        if not isinstance(content, dict) or set(content) != keys:
            raise ValueError(f"{path}: a study has the keys {', '.join(sorted(keys))}")
        study = cls(path.stem, **content)
        strange = {study.reference, *(arm for arms in study.panels.values() for arm in arms)} - set(
            study.arms
        )
        if strange:
            raise ValueError(
                f"{path}: reference and panels name {', '.join(sorted(strange))}, and there are"
                f" only the arms {', '.join(study.arms)}"
            )
        slugs = [re.sub(r"\W+", "-", arm) for arm in study.arms]
        if len(set(slugs)) < len(slugs):
            raise ValueError(
                f"{path}: two arms would share a folder; names of arms must differ in letters or"
                " digits"
            )
        return study

    def cells(
        self, output: Path, seeds: list[int] | None = None, extra: list[str] = []
    ) -> list[Cell]:
        """All cells, seed by seed: a study that is cut short has whole comparisons."""
        folder = str(output).replace("\\", "\\\\").replace("'", "\\'")
        return [
            Cell(
                arm,
                size,
                seed,
                tuple(
                    [*self.common, *more, *own, *extra, f"seed={seed}", f"runs_folder='{folder}'"]
                ),
            )
            for seed in (self.seeds if seeds is None else seeds)
            for size, more in self.samples.items()
            for arm, own in self.arms.items()
        ]


def prepare(cell: Cell, output: Path) -> Path:
    """Write the overrides of a cell to OUTPUT/cells/NAME.txt, one a line.

    Raises
    ------
    ValueError
        They are not those that the cell in this folder was started with.
    """
    path = output / "cells" / f"{cell.name}.txt"
    content = "\n".join(cell.overrides) + "\n"
    if path.exists() and path.read_text() != content:
        raise ValueError(
            f"{path} holds other overrides than the study gives {cell.name} now: use another"
            f" --output, or delete {output / cell.name} and this file"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def train(cell: Cell, output: Path) -> int:
    """Run train.py for a cell; what it prints goes to OUTPUT/cells/NAME.log. The exit status; a
    signal to us ends it, too, saved.
    """
    with open(output / "cells" / f"{cell.name}.log", "a") as log:
        command = [
            sys.executable,
            "-m",
            "physics_hybrid",
            "train",
            f"run={cell.name}",
            *cell.overrides,
        ]
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


def finished(cell: Cell, output: Path) -> bool:
    return (output / cell.name / "evaluation" / "metrics.json").exists()


def run(cells: list[Cell], output: Path, launch: Callable[[Cell, Path], int] = train) -> list[str]:
    """Train what is not finished; one line for each cell that failed.

    Raises
    ------
    SystemExit
        A training was told to leave (its exit status): so do we.
    """
    for cell in cells:  # changed overrides are refused before anything runs
        prepare(cell, output)
    failures = []
    for number, cell in enumerate(cells, start=1):
        print(f"[{number}/{len(cells)}] {cell.name}: ", end="", flush=True)
        if finished(cell, output):
            print("finished before")
            continue
        status = launch(cell, output)
        if status in TOLD_TO_LEAVE:
            print("told to leave; the same command goes on", flush=True)
            raise SystemExit(status)
        if status == 0 and finished(cell, output):
            print("done")
        else:
            log = output / "cells" / f"{cell.name}.log"
            said = [
                line
                for line in (log.read_text().splitlines() if log.exists() else [])
                if line.strip()
            ]
            failures.append(
                f"{cell.name}: exit status {status}"
                + (f": {said[-1]}" if said else "")
                + f" ({log})"
            )
            print("FAILED")
    return failures


def collect(cells: list[Cell], output: Path) -> list[dict]:
    """One row a finished cell: metrics (means over the test split) by grid, steps, seconds, samples
    seen, parameters, commit, hardware.
    """
    rows = []
    for cell in cells:
        if not finished(cell, output):
            continue
        folder = output / cell.name
        metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
        last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
        training, data = (
            yaml.safe_load((folder / "config.yaml").read_text())[key]
            for key in ("training", "data")
        )
        grids = {
            k: {m: v[m]["mean"] for m in METRICS if m in v}
            for k, v in metrics.items()
            if isinstance(v, dict) and "relative_l2" in v
        }
        rows.append(
            {
                "arm": cell.arm,
                "samples": cell.samples,
                "seed": cell.seed,
                "grids": grids,
                "steps": last["step"],
                "training_s": last["seconds"],
                "distinct_samples": (
                    data.get("train_samples")
                    or data.get("samples_per_epoch", 0) * training["epochs"]
                ),
                **{k: metrics[k] for k in ("parameters", "commit", "hardware")},
                "test_samples": min(metrics["samples"].values()),
            }
        )
    return rows


def spread(values: list[float]) -> dict[str, float]:
    """Mean, sample standard deviation (0 of one value) and how many."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "count": len(values),
    }


def summarise(rows: list[dict], study: Study) -> list[dict]:
    """One entry for every amount of data and arm that has runs: metrics as `spread` by grid, and
    `ratio`, relative L2 over that of the reference arm.
    """
    reference = {(r["samples"], r["seed"]): r["grids"] for r in rows if r["arm"] == study.reference}
    out = []
    for samples in study.samples:
        for arm in study.arms:
            mine = [r for r in rows if (r["samples"], r["arm"]) == (samples, arm)]
            if not mine:
                continue
            grids = {}
            for grid in mine[0]["grids"]:
                grids[grid] = {
                    m: spread([r["grids"][grid][m] for r in mine]) for m in mine[0]["grids"][grid]
                }
                pairs = [
                    (r["grids"][grid], reference[samples, r["seed"]][grid])
                    for r in mine
                    if (samples, r["seed"]) in reference
                ]
                if pairs:
                    grids[grid]["ratio"] = spread(
                        [own["relative_l2"] / other["relative_l2"] for own, other in pairs]
                    )
            same = {k: mine[0][k] for k in ("parameters", "distinct_samples")}
            out.append(
                {
                    "samples": samples,
                    "arm": arm,
                    **same,
                    "steps": sorted({r["steps"] for r in mine}),
                    "training_s": spread([r["training_s"] for r in mine]),
                    "grids": grids,
                }
            )
    return out


def markdown(summary: list[dict], rows: list[dict], study: Study) -> str:
    """Table and a line on where it comes from."""
    grids = list(summary[0]["grids"])

    def number(s):
        return f"{s['mean']:.3g}" + (f" ± {s['std']:.1g}" if s["count"] > 1 else "")

    heads = [
        "samples",
        "arm",
        *(f"relative L2, {g}" for g in grids),
        *(f"over {study.reference}, {g}" for g in grids),
        *(f"baseline alone, {g}" for g in grids),
    ]
    lines = [
        "| " + " | ".join([*heads, "parameters", "training, s", "seeds"]) + " |",
        "|" + "---|" * (len(heads) + 3),
    ]
    for entry in summary:
        values = [
            number(entry["grids"][g][m]) if m in entry["grids"][g] else ""
            for m in ("relative_l2", "ratio", "baseline_relative_l2")
            for g in grids
        ]
        count = entry["training_s"]["count"]
        lines.append(
            "| "
            + " | ".join(
                [
                    entry["samples"],
                    entry["arm"],
                    *values,
                    f"{entry['parameters'] / 1e6:.2f} M",
                    f"{entry['training_s']['mean']:.0f}",
                    str(count),
                ]
            )
            + " |"
        )
    steps = sorted({s for entry in summary for s in entry["steps"]})
    budget = (
        f"{steps[0]} optimiser steps each"
        if len(steps) == 1
        else f"**unequal budgets: {', '.join(map(str, steps))} optimiser steps**"
    )

    def unique(key):
        return ", ".join(sorted({str(r[key])[:40] for r in rows}))

    tested = min(r["test_samples"] for r in rows)
    lines += [
        "",
        (
            f"Mean ± standard deviation over seeds; {budget}; {tested} unseen limbs a grid and"
            f" seed. {unique('hardware')}; commit"
            f" {', '.join(sorted({r['commit'][:10] for r in rows}))}."
        ),
    ]
    return "\n".join(lines)


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


def _style(arm: str, number: int) -> dict:
    colour, marker = OTHERS[number % len(OTHERS)]
    form = next(
        (f for word, f in FORMS.items() if word in arm), {"marker": marker, "linestyle": "-"}
    )
    return {"color": next((c for word, c in COLOURS.items() if word in arm), colour), **form}


def draw(summary: list[dict], study: Study, path: Path) -> Path:
    """Relative L2 against the number of different training samples: a column for each grid, a row
    for each panel; bars are one standard deviation.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

    from physics_hybrid.report.plots import plain_ticks

    grids = list(summary[0]["grids"])
    sizes = {e["samples"]: e["distinct_samples"] for e in summary}
    figure, axes = plt.subplots(
        len(study.panels),
        len(grids),
        figsize=(3.4 * len(grids) + 2.4, 3.1 * len(study.panels)),
        squeeze=False,
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for row, (title, arms) in zip(axes, study.panels.items()):
        for axis, grid in zip(row, grids):
            for number, (arm, label) in enumerate(arms.items()):
                mine = [e for e in summary if e["arm"] == arm and grid in e["grids"]]
                if not mine:
                    continue
                shift = 1.035 ** (number - (len(arms) - 1) / 2)  # bars side by side
                values = [e["grids"][grid]["relative_l2"] for e in mine]
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
            axis.set_xscale("log")
            axis.set_yscale("log")
            plain_ticks(axis)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            axis.xaxis.set_major_locator(FixedLocator(list(sizes.values())))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xticks(
                list(sizes.values()),
                [name if name == str(size) else f"{size}\n{name}" for name, size in sizes.items()],
            )
            axis.grid(True, axis="y", which="major", alpha=0.3, linewidth=0.6)
            axis.set_axisbelow(True)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
        row[0].set_ylabel("relative $L_2$ error")
        row[-1].legend(
            title=title.replace(" (", "\n("),
            fontsize=8,
            title_fontsize=8,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            alignment="left",
        )
    for axis, grid in zip(axes[0], grids):
        axis.set_title(f"tested at {grid.replace('x', '×')}", fontsize=10)
    figure.supxlabel("different training samples", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    plt.close(figure)
    return path


def report(cells: list[Cell], study: Study, output: Path) -> str | None:
    """Write study.json, study.md and study.png from what is finished; the table, or None where
    nothing is.
    """
    rows = collect(cells, output)
    if not rows:
        return None
    summary = summarise(rows, study)
    missing = [c.name for c in cells if not finished(c, output)]
    table = markdown(summary, rows, study) + (
        f"\n\nNot finished: {len(missing)} of {len(cells)} runs." if missing else ""
    )
    (output / "study.json").write_text(
        json.dumps(
            {"study": study.name, "summary": summary, "runs": rows, "missing": missing}, indent=1
        )
    )
    (output / "study.md").write_text(table + "\n")
    draw(summary, study, output / "study.png")
    return table


def leave(number, _frame):
    """An exit that `train` sees, so that the training in hand is saved."""
    raise SystemExit(128 + number)
