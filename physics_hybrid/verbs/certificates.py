"""Do guaranteed bounds hold? Random bodies, sources, ends, tensors and deliberately bad fields.

    python -m physics_hybrid certificates [--cases 1000] [--output certificates] [--quick]
    python -m physics_hybrid certificates --costs [--quick]

Each case is held against finite elements on voxels 8 times smaller along every axis (some 4 s of
CPU a case). Goes on where it was stopped: OUTPUT/cases.jsonl. Then costs and half-widths on limbs,
OUTPUT/certificates.json, and what docs/certify.md says of it. With --costs only the table of costs,
printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from physics_hybrid.checks import at_least
from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("certificates"))
    parser.add_argument("--quick", action="store_true", help="no limbs at 96x48x48")
    parser.add_argument("--costs", action="store_true", help="only the table of costs")
    given = parser.parse_args(arguments)
    from physics_hybrid.problems.potential.evidence.certificates import (
        costs,
        costs_table,
        grids_of,
        report,
        sweep,
        tables,
    )
    from physics_hybrid.writing import write_text

    with readable_errors():
        at_least(1, "--cases", given.cases)
        if given.costs:
            print(costs_table(costs(grids_of(given.quick))))
            return
        given.output.mkdir(parents=True, exist_ok=True)
        cases = sweep(given.cases, given.output / "cases.jsonl")
        about = report(cases, given.quick)
        write_text(given.output / "certificates.json", json.dumps(about, indent=1))
        print(tables(about))
