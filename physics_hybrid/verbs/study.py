"""Arms x amounts of data x seeds: many trainings, one table, one picture."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    from physics_hybrid.evidence import study as about
    from physics_hybrid.evidence.study import Study, leave, prepare, report, run

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help="a name in conf/study, or a .yaml file")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the runs and of the report"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the study's own")
    parser.add_argument("--array-index", type=int, help="this cell only, counted from 0")
    parser.add_argument(
        "--prepare",
        action="store_true",
        help=(
            "write the overrides of the cells to OUTPUT/cells/NAME.txt, print the paths, run"
            " nothing"
        ),
    )
    parser.add_argument(
        "--collect", action="store_true", help="report what is finished, run nothing"
    )
    parser.add_argument(
        "overrides", nargs="*", help="more overrides for every run, as for train.py"
    )
    given = parser.parse_intermixed_args(arguments)
    with readable_errors():
        study = Study.read(given.study)
        cells = study.cells(given.output, given.seeds, given.overrides)
        chosen = cells
        if given.array_index is not None:
            if not 0 <= given.array_index < len(cells):
                raise ValueError(
                    f"--array-index must be 0 to {len(cells) - 1}: {study.name} has {len(cells)}"
                    f" cells; got {given.array_index}"
                )
            chosen = [cells[given.array_index]]
        if given.prepare:
            for cell in chosen:
                print(prepare(cell, given.output))
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, leave)
        failures = [] if given.collect else run(chosen, given.output)
        if given.array_index is None:
            print(report(cells, study, given.output) or "nothing is finished")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)
