"""Put a trained run into the package: weights, model card, pinned numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import ship as about
    from physics_hybrid.problems.potential.evidence.ship import seeds_table, ship
    from physics_hybrid.problems.potential.predictor import FOLDER, NAME

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; the first is shipped")
    parser.add_argument(
        "--samples", type=int, default=3, help="test limbs that numbers are pinned on"
    )
    parser.add_argument(
        "--grid",
        type=int,
        nargs=3,
        default=None,
        help="grid they are pinned on; default: that of the training",
    )
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: into the package")
    given = parser.parse_args(arguments)
    with readable_errors():
        model = ship(given.runs, given.output, given.samples, given.grid)
        print(
            f"{given.output / NAME}.mdlus: {model.about['bytes'] / 1e6:.1f}"
            f" MB\n{seeds_table(model.about['metrics'])}\n{model.about['command']}"
        )
