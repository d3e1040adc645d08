"""How right electrodes with a shape and a contact are, against exact solutions, and what they cost.

    python -m physics_hybrid electrode-model [--grid 96x48x48] [--centres 8]
        [--output electrode_model.json]

Newman's disk, strips that drive and shunt, points; charge, reciprocity, seconds on the limb of seed
0. A figure goes beside the JSON. `python -m physics_hybrid pages --electrode-model
electrode_model.json` puts both into docs/electrodes.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from physics_hybrid.checks import at_least
from physics_hybrid.command_line import readable_errors
from physics_hybrid.evidence.grids import grids_of


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", type=grids_of, default="96x48x48")
    parser.add_argument("--centres", type=int, default=8, help="of disks, for each radius")
    parser.add_argument("--output", type=Path, default=Path("electrode_model.json"))
    given = parser.parse_args(arguments)
    with readable_errors():
        import torch

        from physics_hybrid.problems.potential.evidence.electrode_model import (
            draw,
            measure,
            tables,
        )
        from physics_hybrid.writing import write_text

        at_least(1, "--centres", given.centres)
        torch.set_num_threads(1)
        found = measure(given.grid[0], given.centres)
        write_text(given.output, json.dumps(found, indent=1) + "\n")
        draw(found, given.output.with_suffix(".png"))
        print(tables(found))
