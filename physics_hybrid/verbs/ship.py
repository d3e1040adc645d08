"""Put a trained run into the package: weights, model card, pinned numbers.

    python -m physics_hybrid ship RUN [RUN ...] [--samples 3] [--grid 48 24 24] [--output FOLDER]

The first run is shipped; others, of the same recipe with other seeds, give the spread of its
metrics. Written are limb.mdlus (at most 16 MB), limb.json (what `load_pretrained` needs, metrics,
and for some test limbs the relative L2 and a few potentials that a test holds the model to) and
limb.md, the model card, which has the command that trains it again: experiment=shipped and what
differs, or the quickstart with model=NAME where the network is another one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    parser.add_argument("--output", type=Path, default=None, help="default: into the package")
    given = parser.parse_args(arguments)
    from physics_hybrid.problems.potential.evidence.model_card import seeds_table
    from physics_hybrid.problems.potential.evidence.ship import ship
    from physics_hybrid.problems.potential.predictor import FOLDER, NAME

    folder = given.output or FOLDER
    with readable_errors():
        about = ship(given.runs, folder, given.samples, given.grid).about
        size = f"{about['bytes'] / 1e6:.1f} MB"
        print(f"{folder / NAME}.mdlus: {size}")
        print(f"{seeds_table(about['metrics'])}\n{about['command']}")
