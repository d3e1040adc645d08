"""Write the tables and pictures of README.md and docs/ from the files of a run and of the measuring
scripts: none is typed by hand.

    python -m physics_hybrid pages [runs/NAME] [--overhead step_overhead.json] [--memory
    peak_memory.json] [--scaling scaling.json]
        [--validation validation/validate.json] [--rates data_rates.json] [--matrix
        resolution_matrix/resolution_matrix.json] [--benchmark benchmark/benchmark.json] [--study
        runs/hybrid_value]

A table stands between <!-- name --> and <!-- /name --> on its page (`PAGES`). That of the shipped
model is written whenever there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from physics_hybrid.evidence import scaling
from physics_hybrid.grid import name_of
from physics_hybrid.problems.potential.evidence import (
    benchmark,
    data_rates,
    resolution_matrix,
    validate,
)
from physics_hybrid.problems.potential.evidence.ship import seeds_table
from physics_hybrid.problems.potential.metrics import main_table
from physics_hybrid.problems.potential.predictor import FOLDER, NAME

ROOT = Path(__file__).resolve().parents[4]
#: The page of each table, from the top of the clone.
PAGES = {
    "results": "README.md",
    "shipped": "docs/use_it.md",
    "validation": "docs/truth.md",
    "rates": "docs/truth.md",
    "benchmark": "docs/benchmark.md",
    "overhead": "docs/benchmark.md",
    "matrix": "docs/resolution_matrix.md",
    "study": "docs/hybrid_form.md",
    "scaling": "docs/cluster.md",
    "memory": "docs/cluster.md",
}


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between <!-- name --> and <!-- /name -->. Raises ValueError where the
    markers are missing.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        page = PAGES.get(name, "the page")
        raise ValueError(f"{page} has no place for {name!r}: <!-- {name} --> ... <!-- /{name} -->")
    return pattern.sub(lambda m: m[1] + content.rstrip() + "\n" + m[2], text)


def put(name: str, content: str, root: Path = ROOT) -> None:
    """Write a table to its place. Raises ValueError where its page has none."""
    page = root / PAGES[name]
    page.write_text(fill(page.read_text(), name, content))


def linked(picture: str, name: str) -> str:
    """A picture of docs/, as the page of a table links to it."""
    return Path(os.path.relpath(Path("docs") / picture, Path(PAGES[name]).parent)).as_posix()


def results(run: Path) -> str:
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    tables = {k: v for k, v in metrics.items() if isinstance(v, dict) and "relative_l2" in v}
    seconds = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    about = (
        f"{min(metrics['samples'].values())} unseen limbs a grid, seed {metrics['seed']}; trained"
        f" for {seconds / 60:.1f} min on {metrics['hardware']}, {metrics['parameters'] / 1e6:.2f} M"
        f" parameters; commit {metrics['commit'][:10]}, torch {metrics['torch']},"
        f" {metrics['date']}."
    )
    return f"{main_table(tables)}\n\n{about}"


def shipped(about: dict) -> str:
    """The metrics of the shipped model, from its limb.json."""
    return (
        f"{seeds_table(about['metrics'])}\n\n{about['parameters'] / 1e6:.2f} M parameters,"
        f" {about['bytes'] / 1e6:.1f} MB; seed {about['seed']} is shipped, trained for"
        f" {about['training_seconds'] / 60:.0f} min on {about['hardware']};"
        f" {', '.join(f'{n} limbs at {g}' for g, n in about['samples'].items())}; commit"
        f" {about['commit'][:10]}, torch {about['torch']}, {about['date']}."
    )


def draw(run: Path) -> None:
    pictures = ROOT / "docs"
    pictures.mkdir(exist_ok=True)
    grids = list((run / "evaluation").glob("slices_*.png"))
    finest = max(grids, key=lambda p: int(p.stem.split("_")[1].split("x")[0]))
    shutil.copy(finest, pictures / "quickstart.png")
    shutil.copy(run / "evaluation" / "errors_by_distance.png", pictures / "errors_by_distance.png")


def truth(report: Path, root: Path = ROOT) -> str:
    """What is said about the solvers, from validate.json; its figure and the whole report go to
    docs/.
    """
    (root / "docs").mkdir(exist_ok=True)
    shutil.copy(report.parent / "convergence.png", root / "docs" / "convergence.png")
    shutil.copy(report.parent / "validate.md", root / "docs" / "how_right_is_the_truth.md")
    return validate.summary(json.loads(report.read_text()))


def pictured(
    report: Path, name: str, table: Callable[[dict], str], caption: str, root: Path = ROOT
) -> str:
    """The table of a report for its place `name`, and its figure, which goes to docs/."""
    picture = report.with_suffix(".png")
    (root / "docs").mkdir(exist_ok=True)
    shutil.copy(picture, root / "docs")
    return f"{table(json.loads(report.read_text()))}\n\n![{caption}]({linked(picture.name, name)})"


def worth(folder: Path, root: Path = ROOT) -> str:
    """Picture and table of a study (`python -m physics_hybrid study`); the picture goes to
    docs/.
    """
    name = json.loads((folder / "study.json").read_text())["study"]
    shutil.copy(folder / "study.png", root / "docs" / f"{name}.png")
    return (
        "![Error against the number of training"
        f" samples]({linked(f'{name}.png', 'study')})\n\n{(folder / 'study.md').read_text()}"
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, nargs="?", help="folder of the run that gives the results and pictures"
    )
    parser.add_argument("--memory", type=Path, help="JSON of python -m physics_hybrid peak-memory")
    parser.add_argument(
        "--overhead", type=Path, help="JSON of python -m physics_hybrid step-overhead"
    )
    parser.add_argument("--scaling", type=Path, help="JSON of python -m physics_hybrid scaling")
    parser.add_argument(
        "--study", type=Path, help="output folder of python -m physics_hybrid study"
    )
    parser.add_argument("--rates", type=Path, help="JSON of python -m physics_hybrid data-rates")
    parser.add_argument("--validation", type=Path, help="JSON of python -m physics_hybrid validate")
    parser.add_argument(
        "--matrix", type=Path, help="JSON of python -m physics_hybrid resolution-matrix"
    )
    parser.add_argument("--benchmark", type=Path, help="JSON of python -m physics_hybrid benchmark")
    given = parser.parse_args(arguments)
    if (FOLDER / f"{NAME}.json").exists():
        put("shipped", shipped(json.loads((FOLDER / f"{NAME}.json").read_text())))
    if given.run:
        put("results", results(given.run))
        draw(given.run)
    if given.scaling:
        put("scaling", scaling.tables(json.loads(given.scaling.read_text())))
    if given.rates:
        put("rates", data_rates.table(json.loads(given.rates.read_text())))
    if given.validation:
        put("validation", truth(given.validation))
    if given.matrix:
        put(
            "matrix",
            pictured(
                given.matrix,
                "matrix",
                resolution_matrix.matrix_table,
                "Error by training grid, wavelength and distance",
            ),
        )
    if given.benchmark:
        put(
            "benchmark",
            pictured(
                given.benchmark,
                "benchmark",
                benchmark.tables,
                "Error against seconds, and seconds against grid size",
            ),
        )
    if given.overhead:
        o = json.loads(given.overhead.read_text())
        put(
            "overhead",
            f"ratio {o['ratio']:.3f} ({o['whole_step_s'] * 1e3:.0f} ms against"
            f" {o['bare_step_s'] * 1e3:.0f} ms; batch {name_of(o['batch'])}, {o['device']});"
            f" solving the streamed batch takes another {o['solve_batch_s'] * 1e3:.0f} ms.",
        )
    if given.memory:
        rows = json.loads(given.memory.read_text())
        lines = [
            "| model | parameters | precision | activation checkpointing | peak, GB | step, s |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['model']} | {r['parameters'] / 1e6:.2f} M | {r['precision']} |"
            f" {'yes' if r['checkpointing'] else 'no'} | {r['peak_GB']:.1f} | {r['step_s']:.1f} |"
            for r in rows
        ]
        put(
            "memory",
            "\n".join(lines)
            + f"\n\n{rows[0]['grid']}, batch {rows[0]['batch']}; {rows[0]['device']}.",
        )
    if given.study:
        put("study", worth(given.study))
