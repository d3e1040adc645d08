"""What lead fields, refining and a head of millions of voxels cost, and how right they are.

    python -m physics_hybrid door [--grid 96x48x48] [--points 10000] [--head 192]
        [--output door.json]

On the limb of seed 0. --head N solves a pair on a head of spheres in a cube of N^3 voxels, too: 192
are 7 million, and take gigabytes. `python -m physics_hybrid pages --door door.json` puts the tables
into docs/use_it.md.
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
    parser.add_argument("--points", type=int, default=10000, help="that are looked up")
    parser.add_argument("--head", type=int, default=0, help="voxels along its edge; 0: none")
    parser.add_argument("--output", type=Path, default=Path("door.json"))
    given = parser.parse_args(arguments)
    with readable_errors():
        from physics_hybrid.problems.potential.evidence.door import measure, tables
        from physics_hybrid.writing import write_text

        at_least(1, "--points", given.points)
        at_least(0, "--head", given.head)
        found = measure(given.grid[0], given.points, given.head)
        write_text(given.output, json.dumps(found, indent=1) + "\n")
        print(tables(found))
