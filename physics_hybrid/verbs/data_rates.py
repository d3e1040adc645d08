"""How fast truth is made and read, against how fast training uses it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import data_rates as about
    from physics_hybrid.problems.potential.evidence.data_rates import measure, table

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grids", default="48x24x24,96x48x48")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--output", default="data_rates.json")
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    given = parser.parse_args(arguments)
    rows = [
        measure(tuple(map(int, grid.split("x"))), given.samples, given.overrides)
        for grid in given.grids.split(",")
    ]
    Path(given.output).write_text(json.dumps(rows, indent=1))
    print(table(rows))
