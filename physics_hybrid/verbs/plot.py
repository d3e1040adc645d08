"""Figures of several runs: a metric across them, and their training curves.

    python -m physics_hybrid plot [RUN ...] [--metric NAME] [--sets NAME ...] [--output FOLDER]

RUN is a folder, or a name below --folder (runs); none: all that were tested. Writes metrics.png
and curves.png to --output (FOLDER/comparisons), and prints where. Read from the files of the runs
alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    asked = _parser().parse_args(arguments)
    with readable_errors():
        from physics_hybrid.run.drawing import draw

        for path in draw(asked.runs, asked.folder, asked.metric, asked.sets, asked.output):
            print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--metric", help="of metrics.json; else the main one of the first run")
    parser.add_argument("--sets", nargs="+", help="test sets; else all")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--output", type=Path, help="else FOLDER/comparisons")
    return parser
