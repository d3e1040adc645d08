"""Write the README's tables and pictures from the files of a run and of the measuring scripts: nothing there is typed in by hand.

    python -m physics_hybrid pages [runs/NAME] [--overhead step_overhead.json] [--memory peak_memory.json] [--scaling scaling.json]
        [--validation validation/validate.json] [--rates data_rates.json] [--matrix resolution_matrix/resolution_matrix.json] [--benchmark benchmark/benchmark.json]
        [--study runs/hybrid_value]

The shipped model's table is written whenever there is one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from physics_hybrid.problems.potential.evidence import (
    validate,
)
from physics_hybrid.problems.potential.evidence.ship import seeds_table
from physics_hybrid.problems.potential.metrics import main_table

ROOT = Path(__file__).resolve().parents[4]


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between <!-- name --> and <!-- /name -->. Raises ValueError where the markers are missing."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no place for {name!r}: <!-- {name} --> ... <!-- /{name} -->")
    return pattern.sub(lambda m: m[1] + content.rstrip() + "\n" + m[2], text)


def results(run: Path) -> str:
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    tables = {k: v for k, v in metrics.items() if isinstance(v, dict) and "relative_l2" in v}
    seconds = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    about = (
        f"{min(metrics['samples'].values())} unseen limbs a grid, seed {metrics['seed']}; trained for {seconds / 60:.1f} min on {metrics['hardware']}, "
        f"{metrics['parameters'] / 1e6:.2f} M parameters; commit {metrics['commit'][:10]}, torch {metrics['torch']}, {metrics['date']}."
    )
    return f"{main_table(tables)}\n\n{about}"


def shipped(about: dict) -> str:
    """The metrics of the shipped model, from its limb.json."""
    return (
        f"{seeds_table(about['metrics'])}\n\n{about['parameters'] / 1e6:.2f} M parameters, {about['bytes'] / 1e6:.1f} MB; seed {about['seed']} is shipped, trained for "
        f"{about['training_seconds'] / 60:.0f} min on {about['hardware']}; {', '.join(f'{n} limbs at {g}' for g, n in about['samples'].items())}; "
        f"commit {about['commit'][:10]}, torch {about['torch']}, {about['date']}."
    )


def draw(run: Path) -> None:
    pictures = ROOT / "docs"
    pictures.mkdir(exist_ok=True)
    grids = list((run / "evaluation").glob("slices_*.png"))
    finest = max(grids, key=lambda p: int(p.stem.split("_")[1].split("x")[0]))
    shutil.copy(finest, pictures / "quickstart.png")
    shutil.copy(run / "evaluation" / "errors_by_distance.png", pictures / "errors_by_distance.png")


def truth(report: Path, root: Path = ROOT) -> str:
    """What the README says about the solvers, from validate.json; its figure and the whole report go to docs/."""
    (root / "docs").mkdir(exist_ok=True)
    shutil.copy(report.parent / "convergence.png", root / "docs" / "convergence.png")
    shutil.copy(report.parent / "validate.md", root / "docs" / "how_right_is_the_truth.md")
    return validate.summary(json.loads(report.read_text()))


def pictured(report: Path, table: Callable[[dict], str], caption: str, root: Path = ROOT) -> str:
    """The table of a report, and its figure, which goes to docs/."""
    picture = report.with_suffix(".png")
    (root / "docs").mkdir(exist_ok=True)
    shutil.copy(picture, root / "docs")
    return f"{table(json.loads(report.read_text()))}\n\n![{caption}](docs/{picture.name})"


def worth(folder: Path, root: Path = ROOT) -> str:
    """Picture and table of a study (`python -m physics_hybrid study`); the picture goes to docs/."""
    name = json.loads((folder / "study.json").read_text())["study"]
    shutil.copy(folder / "study.png", root / "docs" / f"{name}.png")
    return f"![Error against the number of training samples](docs/{name}.png)\n\n{(folder / 'study.md').read_text()}"
