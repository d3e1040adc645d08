"""How right the truth is: both solvers, and a network if given, held to exact solutions."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import validate as about
    from physics_hybrid.problems.potential.evidence.validate import validate
    from physics_hybrid.problems.potential.exact.cases import cases

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        type=lambda word: Path(word.removeprefix("checkpoint=")),
        help="checkpoint=runs/NAME: a trained network, listed beside the solvers",
    )
    given = parser.parse_args(arguments)
    chosen = [case for case in cases() if given.only in f"{case.group}: {case.name}"]
    if not chosen:
        parser.error(
            f"no case has {given.only!r} in its name; there are: "
            + "; ".join(case.name for case in cases())
        )
    with readable_errors():
        result = validate(given.output, None, chosen, given.quick, not given.only, given.checkpoint)
    print(
        "\n"
        + (given.output / "validate.md").read_text()
        + f"\nwritten: {given.output}{os.sep}validate.json, validate.md, convergence.png"
    )
    sys.exit(0 if result["passed"] else 1)
