"""Trained on one grid, used on another: every run on every grid."""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import resolution_matrix as about
    from physics_hybrid.problems.potential.evidence.resolution_matrix import (
        grids_of,
        matrix_table,
        run_matrix,
        write,
    )

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of train.py")
    parser.add_argument(
        "--grids", type=grids_of, default="48x24x24,96x48x48,144x72x72,192x96x96,85x43x41"
    )
    parser.add_argument("--samples", type=int, default=24, help="test limbs a grid")
    parser.add_argument(
        "--wavelengths",
        type=lambda text: [float(v) / 1e3 for v in text.split(",")],
        default="32,16,8,4",
        help="limits of the bands, mm, falling",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("resolution_matrix"), help="folder")
    given = parser.parse_args(arguments)
    with readable_errors():
        result = run_matrix(given.runs, given.grids, given.samples, given.wavelengths, given.device)
        write(result, given.output)
        print(
            f"{matrix_table(result)}\n\nwritten: {given.output}/resolution_matrix.json, .md, .png"
        )
