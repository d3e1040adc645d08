"""Many bodies x many electrodes: one solve each, one record each, one table at the end.

    python -m physics_hybrid sweep 'legs/*.nii.gz' --electrodes '{name}.csv' --nearest
        --output runs/legs
    python -m physics_hybrid sweep --limbs 50 --frame share --electrode 0.4 0.5 0
        --electrode 0.6 0.5 0 --nearest --output runs/limbs
    qsub -J 0-49 -v PARTS=50,OVERRIDES="--config sweep.yaml" pbs/sweep.pbs
    python -m physics_hybrid sweep --config sweep.yaml --table

1 A through each electrode of each body, and volts at all of its electrodes. Rows that are there are
left alone, so that the same command goes on after a kill, to the same bits; a body that fails is a
row with its error, and the others go on. All options may stand in a YAML file too (--config FILE).

Leaves with 0; 1 where a row failed, or the table lacks one; 2 where something was mistyped; 85
after SIGTERM or SIGUSR1, where the same command goes on.
"""

from __future__ import annotations

import sys
from typing import Any

from physics_hybrid.options import (
    NUMBER,
    SWITCH,
    TRIPLE,
    TRIPLES,
    WHOLE,
    WORD,
    Shape,
    started,
)
from physics_hybrid.verbs.lead_field import listed
from physics_hybrid.verbs.solve import BODY, read_body, reading

SHAPES: dict[str, Shape] = {
    "limbs": WHOLE,
    "seed": WHOLE,
    "grid": {"type": int, "nargs": 3, "metavar": ("D", "H", "W")},
    **BODY,
    "electrode": TRIPLES,
    "electrodes": WORD,
    "nearest": SWITCH,
    "patch": NUMBER,
    "returns": TRIPLE,
    "frame": WORD,
    "ends": WORD,
    "beta": NUMBER,
    "tolerance": NUMBER,
    "output": WORD,
    "fields": WORD,
    "part": WHOLE,
    "parts": WHOLE,
    "retry": SWITCH,
    "table": SWITCH,
}


def main(arguments: list[str]) -> None:
    wrong = started("sweep", __doc__, SHAPES, arguments, run)
    for line in wrong:
        print(f"failed: {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


def run(given: dict[str, Any]) -> list[str]:
    """Solve this part, or make the table, or with one part both; a line for each failed row."""
    from physics_hybrid.problems.potential.evidence import sweep as sweeping
    from physics_hybrid.problems.potential.evidence.sweep_table import write_table

    reading(given)  # what no file could be read with is said once
    sweep = sweeping.Sweep.of(given, listed)
    wrong: list[str] = []
    if not given["table"]:
        wrong = sweeping.run(sweep, read_body)
    if given["table"] or given["parts"] == 1:
        text, wrong = write_table(sweep)
        print(text)
        print(f"written: {sweep.output}/table.md, .csv, .json")
    return wrong
