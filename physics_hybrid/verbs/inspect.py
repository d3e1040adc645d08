"""What a checkpoint does on a slice of a split: loss terms, and statistics of the problem's own.

python -m physics_hybrid inspect CHECKPOINT [--split test] [--first 0] [--count 100]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a run folder")
    parser.add_argument("--split", default="test", help="train, validation or test")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    asked = parser.parse_args(arguments)
    with readable_errors():
        from physics_hybrid.evidence.inspect import inspect

        print(inspect(asked.checkpoint, asked.split, asked.first, asked.count))
