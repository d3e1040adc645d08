"""Arms x amounts of data x seeds: many trainings, one table, one picture.

    python -m physics_hybrid study hybrid_value [key=value ...] --output runs/hybrid_value
        [--seeds 0 1 2]

A study is a file: its name in conf/study, or a path. Every cell is a run of train.py in
OUTPUT/<cell>; the same command skips finished ones and goes on with those that were killed. One
that fails is reported and the others run. `--array-index 7` means one cell, `--prepare` writes its
overrides down and leaves the rest to others (pbs/study.pbs), `--collect` runs nothing. At the end,
whatever is there goes into

    OUTPUT/study.json  study.md  study.png  runs.md

with means and standard deviations over seeds. Ratios to the reference arm are taken seed by seed,
on the same limbs. A study with a `verdict` (stability) counts failures instead, and ends with the
verdict of its rule. The same command with other --seeds may run beside this one.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    given = _parser().parse_intermixed_args(arguments)
    from physics_hybrid.evidence import stability, study_report
    from physics_hybrid.evidence.pipeline import conclude
    from physics_hybrid.evidence.study import Study, leave, prepare, run, train, train_here
    from physics_hybrid.run.ledger import ordered, read

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
        failures = []
        if not given.collect:
            launch = train_here if given.here else train
            failures = run(chosen, given.output, launch)
        if given.array_index is None:
            report = study_report.report if study.verdict is None else stability.report
            print(report(cells, study, given.output) or "nothing is finished")
            there = [c.name for c in cells if (given.output / c.name).exists()]
            runs = ordered([read(given.output / name) for name in there])
            conclude(runs, given.output.resolve().name, given.output)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        "--here",
        action="store_true",
        help="train in this process, cell after cell: for cells of seconds",
    )
    parser.add_argument(
        "--collect", action="store_true", help="report what is finished, run nothing"
    )
    parser.add_argument(
        "overrides", nargs="*", help="more overrides for every run, as for train.py"
    )
    return parser
