"""How right the truth is: both solvers, and a network if given, held to exact solutions.

    python -m physics_hybrid validate [--output validation] [--quick] [--only WORDS]
    [checkpoint=runs/NAME]

Each case of `potential/exact/cases.py` is solved at several spacings h; the error is relative L2
over a fixed region, and the order p is that of a straight line fitted to log error against log h.
Leaves with exit status 1 where a demand that binds is not met, or a solver fails.

Writes validate.json (every number), validate.md (tables) and convergence.png. A network is listed
beside the solvers, and held to nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def checkpoint(word: str) -> Path:
    """checkpoint=runs/NAME, or the path alone."""
    return Path(word.removeprefix("checkpoint="))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("validation"),
        help="folder for validate.json, validate.md, convergence.png",
    )
    parser.add_argument(
        "--quick", action="store_true", help="coarse grids, some cases left out: about a minute"
    )
    parser.add_argument(
        "--only",
        default="",
        help="cases whose name or group has these words in it; no table of interfaces",
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=checkpoint,
        help="checkpoint=runs/NAME: a trained network, listed beside the solvers",
    )
    given = parser.parse_args(arguments)
    from physics_hybrid.problems.potential.evidence.validate import validate
    from physics_hybrid.problems.potential.exact.cases import cases

    chosen = [case for case in cases() if given.only in f"{case.group}: {case.name}"]
    if not chosen:
        there = "; ".join(case.name for case in cases())
        parser.error(f"no case has {given.only!r} in its name; there are: {there}")
    with readable_errors():
        result = validate(
            output=given.output,
            chosen=chosen,
            quick=given.quick,
            interfaces=not given.only,
            checkpoint=given.checkpoint,
        )
    print(f"\n{(given.output / 'validate.md').read_text()}")
    print(f"written: {given.output}{os.sep}validate.json, validate.md, convergence.png")
    sys.exit(0 if result["passed"] else 1)
