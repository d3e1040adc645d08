"""How fast truth is made and read, against how fast training uses it.

    python -m physics_hybrid data-rates [--grids 48x24x24,96x48x48] [--samples 1000]
        [--output data_rates.json] [key=value ...]

For each grid, in samples a second on this machine: limbs drawn, voxelised and solved by finite
volumes (as a streamed training does it, in the batches it would use) and by finite elements; stored
samples read and checked from an .h5 file; training steps on samples that are there. `--samples` is
the number of rows in the file that is read (each holds one of a few solved limbs).
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
    parser.add_argument("--grids", type=grids_of, default="48x24x24,96x48x48")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--output", default="data_rates.json")
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    given = parser.parse_args(arguments)
    from physics_hybrid.problems.potential.evidence.data_rates import measure, table
    from physics_hybrid.writing import write_text

    with readable_errors():
        at_least(1, "--samples", given.samples)
        rows = [measure(grid, given.samples, given.overrides) for grid in given.grids]
        write_text(Path(given.output), json.dumps(rows, indent=1))
        print(table(rows))
