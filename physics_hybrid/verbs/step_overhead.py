"""What wrapper, losses and trainer cost beside the bare backbone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import step_overhead as about
    from physics_hybrid.problems.potential.evidence.step_overhead import measure

    parser = argparse.ArgumentParser(
        description=about.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=80)
    parser.add_argument("--output", default="step_overhead.json")
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    given = parser.parse_args(arguments)
    result = measure(given.overrides, given.repeats)
    Path(given.output).write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
