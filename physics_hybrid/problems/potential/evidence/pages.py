"""Tables and pictures of README.md and docs/, from the files of a run and of the measuring scripts:
none is typed by hand.

A table stands between <!-- name --> and <!-- /name --> on its page (`PAGES`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from physics_hybrid.evidence import peak_memory, scaling
from physics_hybrid.grid import name_of
from physics_hybrid.problems.potential.evidence import (
    benchmark_report,
    certificates,
    data_rates,
    door,
    electrode_model,
    explorer,
    resolution_matrix,
    rivals_report,
    uncertainty,
    validate_report,
)
from physics_hybrid.problems.potential.evidence.model_card import seeds_table
from physics_hybrid.problems.potential.metrics import main_table
from physics_hybrid.problems.potential.predictor import FOLDER, NAME
from physics_hybrid.report import pages
from physics_hybrid.report.pages import ROOT

#: The page of each table, from the top of the clone.
PAGES = {
    "results": "README.md",
    "shipped": "docs/use_it.md",
    "door": "docs/use_it.md",
    "explorer": "docs/explorer.md",
    "electrode_model": "docs/electrodes.md",
    "validation": "docs/truth.md",
    "rates": "docs/truth.md",
    "benchmark": "docs/benchmark.md",
    "bench": "docs/benchmark.md",
    "overhead": "docs/benchmark.md",
    "matrix": "docs/resolution_matrix.md",
    "certificates": "docs/certify.md",
    "uncertainty": "docs/uncertainty.md",
    "study": "docs/hybrid_form.md",
    "hundred_samples": "docs/hundred_samples.md",
    "scaling": "docs/cluster.md",
    "memory": "docs/cluster.md",
}


def put(name: str, content: str, root: Path = ROOT) -> None:
    """Write a table to its place. Raises ValueError where its page has none."""
    pages.put(PAGES[name], name, content, root)


def linked(picture: str, name: str) -> str:
    """A picture of docs/, as the page of a table links to it."""
    return Path(os.path.relpath(Path("docs") / picture, Path(PAGES[name]).parent)).as_posix()


def _read(report: Path) -> Any:
    return json.loads(report.read_text())


def results(run: Path) -> str:
    metrics = _read(run / "evaluation" / "metrics.json")
    tables = {k: v for k, v in metrics.items() if isinstance(v, dict) and "relative_l2" in v}
    seconds = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    about = (
        f"{min(metrics['samples'].values())} unseen limbs a grid, seed {metrics['seed']}; trained"
        f" for {seconds / 60:.1f} min on {metrics['hardware']}, {metrics['parameters'] / 1e6:.2f} M"
        f" parameters; {_origin(metrics)}."
    )
    return f"{main_table(tables)}\n\n{about}"


def _origin(about: dict[str, Any]) -> str:
    return f"commit {about['commit'][:10]}, torch {about['torch']}, {about['date']}"


def shipped(about: dict[str, Any]) -> str:
    """The metrics of the shipped model, from its limb.json."""
    tested = ", ".join(f"{n} limbs at {grid}" for grid, n in about["samples"].items())
    trained = about["trained"]
    return (
        f"{seeds_table(about['metrics'])}\n\n{about['parameters'] / 1e6:.2f} M parameters,"
        f" {about['bytes'] / 1e6:.1f} MB; seed {about['seed']} is shipped, trained for"
        f" {about['training_seconds'] / 60:.0f} min on {trained['hardware']}, {_origin(trained)};"
        f" tested on {tested}, {about['hardware']}, {_origin(about)}."
    )


def draw(run: Path) -> None:
    pictures = ROOT / "docs"
    pictures.mkdir(exist_ok=True)
    finest = max((run / "evaluation").glob("slices_*.png"), key=_length)
    shutil.copy(finest, pictures / "quickstart.png")
    shutil.copy(run / "evaluation" / "errors_by_distance.png", pictures / "errors_by_distance.png")


def _length(slices: Path) -> int:
    """slices_96x48x48.png -> 96."""
    return int(slices.stem.split("_")[1].split("x")[0])


def truth(report: Path, root: Path = ROOT) -> str:
    """What is said about the solvers, from validate.json; its figure and the whole report go to
    docs/.
    """
    (root / "docs").mkdir(exist_ok=True)
    shutil.copy(report.parent / "convergence.png", root / "docs" / "convergence.png")
    shutil.copy(report.parent / "validate.md", root / "docs" / "how_right_is_the_truth.md")
    return validate_report.summary(_read(report))


def pictured(
    report: Path, name: str, table: Callable[[dict[str, Any]], str], caption: str, root: Path = ROOT
) -> str:
    """The table of a report for its place `name`, and its figure, which goes to docs/."""
    picture = report.with_suffix(".png")
    (root / "docs").mkdir(exist_ok=True)
    shutil.copy(picture, root / "docs")
    return f"{table(_read(report))}\n\n![{caption}]({linked(picture.name, name)})"


def worth(folder: Path, root: Path = ROOT, name: str = "study") -> str:
    """Picture and table of a study (`python -m physics_hybrid study`) for its place `name`; the
    picture goes to docs/.
    """
    picture = f"{_read(folder / 'study.json')['study']}.png"
    shutil.copy(folder / "study.png", root / "docs" / picture)
    table = (folder / "study.md").read_text()
    return f"![Error against the number of training samples]({linked(picture, name)})\n\n{table}"


def _hundred_samples(folder: Path) -> str:
    return worth(folder, name="hundred_samples")


def _scaling(report: Path) -> str:
    return scaling.tables(_read(report))


def _rates(report: Path) -> str:
    return data_rates.table(_read(report))


def _door(report: Path) -> str:
    return door.tables(_read(report))


def _explorer(report: Path) -> str:
    return explorer.tables(_read(report))


def _electrode_model(report: Path) -> str:
    caption = "Errors of a disk by voxels a radius, and the field of a strip that shunts"
    return pictured(report, "electrode_model", electrode_model.tables, caption)


def _matrix(report: Path) -> str:
    caption = "Error by training grid, wavelength and distance"
    return pictured(report, "matrix", resolution_matrix.matrix_table, caption)


def _benchmark(report: Path) -> str:
    caption = "Error against seconds, and seconds against grid size"
    return pictured(report, "benchmark", benchmark_report.tables, caption)


def _certificates(report: Path) -> str:
    return certificates.tables(_read(report))


def _uncertainty(report: Path) -> str:
    caption = "Intervals of 64 voltages, the share of each tissue, and every error under its bound"
    return pictured(report, "uncertainty", uncertainty.tables, caption)


def _bench(report: Path) -> str:
    caption = "Error against seconds: solvers on limbs and on a layered cylinder"
    return pictured(report, "bench", rivals_report.tables, caption)


def _overhead(report: Path) -> str:
    about = _read(report)
    whole, bare, solve = (about[f"{k}_s"] * 1e3 for k in ("whole_step", "bare_step", "solve_batch"))
    return (
        f"ratio {about['ratio']:.3f} ({whole:.0f} ms against {bare:.0f} ms; batch"
        f" {name_of(about['batch'])}, {about['device']}); solving the streamed batch takes another"
        f" {solve:.0f} ms."
    )


def _memory(report: Path) -> str:
    return peak_memory.table(_read(report))


#: What makes a table from the file of its measurement (study: from its folder).
TABLES: dict[str, Callable[[Path], str]] = {
    "scaling": _scaling,
    "rates": _rates,
    "door": _door,
    "explorer": _explorer,
    "electrode_model": _electrode_model,
    "validation": truth,
    "matrix": _matrix,
    "certificates": _certificates,
    "uncertainty": _uncertainty,
    "benchmark": _benchmark,
    "bench": _bench,
    "overhead": _overhead,
    "memory": _memory,
    "study": worth,
    "hundred_samples": _hundred_samples,
}


def fill_pages(run: Path | None, reports: dict[str, Path]) -> None:
    """Write the table of the shipped model, of a run, and of each report (by the name of its table)
    to their pages, and their pictures to docs/.
    """
    model = FOLDER / f"{NAME}.json"
    if model.exists():
        put("shipped", shipped(_read(model)))
    if run:
        put("results", results(run))
        draw(run)
    for name, table in TABLES.items():
        if name in reports:
            put(name, table(reports[name]))
