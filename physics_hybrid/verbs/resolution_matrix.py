"""Trained on one grid, used on another: every run on every grid.

    python -m physics_hybrid resolution-matrix RUN [RUN ...]
        [--grids 48x24x24,96x48x48,144x72x72,192x96x96,85x43x41] [--samples 24]
        [--wavelengths 32,16,8,4] [--device auto] [--output resolution_matrix]

Runs are folders of trainings on limbs; those that differ in their seed only are one row, given as
mean and standard deviation over seeds. On each grid, for the same test limbs (those of the first
run's seed; truth solved on that grid):

    direct                 the network on that grid
    potential, trilinear   its prediction on the finest of its training grids that is coarser,
                           interpolated
    potential, Fourier     the same, by cosines (potential/resample.py)
    correction, trilinear  that prediction over its baseline, interpolated, times the baseline of
                           the grid
    correction, Fourier    the same, by cosines
    home                   model.evaluate_at=home: the correction computed there of the conductivity
                           of the grid itself, interpolated, times the baseline of the grid
    baseline               its baseline alone

Errors are relative L2 (see potential/metrics.py), also by distance from the source and by
wavelength. Written into the output folder: resolution_matrix.json, .md and .png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors
from physics_hybrid.evidence.grids import grids_of


def millimetres(text: str) -> list[float]:
    """32,16 -> metres."""
    return [float(word) / 1e3 for word in text.split(",")]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of train.py")
    parser.add_argument(
        "--grids", type=grids_of, default="48x24x24,96x48x48,144x72x72,192x96x96,85x43x41"
    )
    parser.add_argument("--samples", type=int, default=24, help="test limbs a grid")
    parser.add_argument(
        "--wavelengths",
        type=millimetres,
        default="32,16,8,4",
        help="limits of the bands, mm, falling",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("resolution_matrix"), help="folder")
    given = parser.parse_args(arguments)
    from physics_hybrid.problems.potential.evidence.resolution_matrix import (
        matrix_table,
        run_matrix,
        write,
    )

    with readable_errors():
        result = run_matrix(given.runs, given.grids, given.samples, given.wavelengths, given.device)
        write(result, given.output)
        print(
            f"{matrix_table(result)}\n\nwritten: {given.output}/resolution_matrix.json, .md, .png"
        )
