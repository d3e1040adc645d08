"""Trained on one grid, used on another: every run on every grid, against what interpolation and
training there would give.

`resolution_running` measures, `resolution_tables` and `resolution_figure` show what was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from physics_hybrid.evidence.grids import grids_of
from physics_hybrid.problems.potential.evidence.resolution_figure import figure
from physics_hybrid.problems.potential.evidence.resolution_running import (
    contenders,
    recipe_beside,
    run_matrix,
)
from physics_hybrid.problems.potential.evidence.resolution_tables import (
    index,
    matrix_table,
    report,
)
from physics_hybrid.report.plots import spared
from physics_hybrid.writing import write_text

__all__ = [
    "contenders",
    "figure",
    "grids_of",
    "index",
    "matrix_table",
    "recipe_beside",
    "report",
    "run_matrix",
    "write",
]


def write(result: dict[str, Any], folder: Path) -> None:
    """resolution_matrix.json, .md and .png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "resolution_matrix.json", json.dumps(result, indent=1))
    write_text(folder / "resolution_matrix.md", report(result))
    with spared("resolution_matrix.png"):
        figure(result, folder / "resolution_matrix.png")
