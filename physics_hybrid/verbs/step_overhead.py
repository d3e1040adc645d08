"""What wrapper, losses and trainer cost beside the bare backbone.

    python -m physics_hybrid step-overhead [--repeats 80] [--output step_overhead.json]
        [key=value ...]

One training step of the whole pipeline against one of the bare backbone, on the same tensors with
the same optimiser. Steps alternate, so that both see the same machine; the figure is the ratio of
medians. The time to solve a streamed batch is listed beside it.
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
    parser.add_argument("--repeats", type=int, default=80)
    parser.add_argument("--output", default="step_overhead.json")
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    given = parser.parse_args(arguments)
    from physics_hybrid.problems.potential.evidence.step_overhead import measure
    from physics_hybrid.writing import write_text

    with readable_errors():
        at_least(1, "--repeats", given.repeats)
        text = json.dumps(measure(given.overrides, given.repeats), indent=1)
        write_text(Path(given.output), text)
        print(text)
