"""What sampling uncertain conductivities costs, and whether its bounds and intervals hold.

    python -m physics_hybrid uncertainties [--grid 48x24x24] [--samples 500] [--few 3]
        [--output uncertainty.json]

On the limb of seed 0, beside plain Monte Carlo: minutes. The figure goes beside the JSON.
`python -m physics_hybrid pages --uncertainty uncertainty.json` puts both into docs/uncertainty.md.
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
    parser.add_argument("--grid", type=grids_of, default="48x24x24")
    parser.add_argument("--samples", type=int, default=500, help="of both methods")
    parser.add_argument("--few", type=int, default=3, help="plain samples of the lead fields")
    parser.add_argument("--output", type=Path, default=Path("uncertainty.json"))
    given = parser.parse_args(arguments)
    with readable_errors():
        from physics_hybrid.problems.potential.evidence.uncertainty import (
            measure,
            one_thread,
            tables,
        )
        from physics_hybrid.writing import write_text

        at_least(10, "--samples", given.samples)
        at_least(2, "--few", given.few)
        one_thread()
        figure = given.output.with_suffix(".png")
        found = measure(given.grid[0], given.samples, given.few, figure)
        write_text(given.output, json.dumps(found, indent=1) + "\n")
        print(tables(found))
