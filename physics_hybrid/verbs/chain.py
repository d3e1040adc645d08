"""Stages in order, each started by what the one before made.

    python -m physics_hybrid chain flavour_transfer [key=value ...] --output runs/transfer

A chain is a file: its name in conf/chain, or a path. Every stage is a run of train.py in
OUTPUT/<stage>, and a place {NAME} in its overrides is the folder of an earlier one. The same
command skips stages that are done and goes on with the one that was killed, to the same bits; one
that fails ends the chain. At the end all of them stand in one table, OUTPUT/runs.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    given = _parser().parse_intermixed_args(arguments)
    from physics_hybrid.evidence.chain import Chain
    from physics_hybrid.evidence.pipeline import conclude
    from physics_hybrid.evidence.study import leave, run
    from physics_hybrid.run.ledger import read

    with readable_errors():
        chain = Chain.read(given.chain)
        stages = chain.cells(given.output, given.overrides)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, leave)
        failures = run(stages, given.output, in_order=True)
        there = [stage for stage in stages if (given.output / stage.name).exists()]
        runs = [read(given.output / stage.name) for stage in there]
        print(conclude(runs, given.output.resolve().name, given.output))
    for failure in failures:
        print(f"failed: {failure}; the stages after it were not started", file=sys.stderr)
    sys.exit(1 if failures else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chain", help="a name in conf/chain, or a .yaml file")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "overrides", nargs="*", help="more overrides for every stage, as for train.py"
    )
    return parser
