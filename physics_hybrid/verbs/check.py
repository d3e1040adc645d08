"""Whether a training will run, and what it will cost: seconds, memory, disk, money.

    python -m physics_hybrid check [key=value ...] [--rate EUR_PER_HOUR]

Words are those of train.py. Configuration, data (16 samples), some steps, a validation, the files
and figures of an epoch and a report on few samples, all in a temporary folder: nothing is written
to runs/. A line each; exit status 1 at the first that fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from physics_hybrid.command_line import readable_errors

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def main(arguments: list[str]) -> None:
    asked = _parser().parse_intermixed_args(arguments)
    os.environ["MPLBACKEND"] = "Agg"
    started, passed = time.perf_counter(), list[str]()

    def say(part: str, what: str) -> None:
        passed.append(part)
        print(f"{part:14} ok   {what}", flush=True)

    with readable_errors():
        try:
            from physics_hybrid.evidence.check import check

            check(asked.overrides, say, asked.rate)
        except Exception:
            print(f"after {', '.join(passed) or 'nothing'}: FAILED", file=sys.stderr, flush=True)
            raise
    print(f"checked in {time.perf_counter() - started:.0f} s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="as for train.py")
    parser.add_argument("--rate", type=float, help="EUR for an hour of this machine")
    return parser
