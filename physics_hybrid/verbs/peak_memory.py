"""Peak memory of one training step at a given grid, for each backbone.

    python -m physics_hybrid peak-memory [--grid 192 96 96] [--batch 1] [--output peak_memory.json]
        [key=value ...]

With and without activation checkpointing, each case in a process of its own. On a GPU: what the
allocator held at most; on a CPU: the resident size of the process at its peak, libraries included,
so that the figure is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from physics_hybrid.command_line import CONF, readable_errors
from physics_hybrid.configuration import check_overrides


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", type=int, nargs=3, default=[192, 96, 96])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--output", default="peak_memory.json")
    parser.add_argument("--one", nargs="*", default=None, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    given = parser.parse_args(arguments)
    from physics_hybrid.evidence.peak_memory import HEAD, line, measure, one_step
    from physics_hybrid.writing import write_text

    with readable_errors():
        if given.one is not None:
            print(json.dumps(one_step(given.one)))
            return
        check_overrides(CONF, "config", given.overrides)
        rows = []
        print(HEAD, flush=True)
        for row in measure(given.grid, given.batch, given.overrides):
            print(line(row), flush=True)
            rows.append(row)
        write_text(Path(given.output), json.dumps(rows, indent=1))
    if all("error" in row for row in rows):
        sys.exit(1)
