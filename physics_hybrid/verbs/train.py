"""Train a model and test it: what train.py does."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from physics_hybrid.command_line import CONF, run
from physics_hybrid.configuration import MULTIRUN

# PhysicsNeMo's Module.save imports git, which need not be installed
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def train(config: dict[str, Any], made: list[Path]) -> None:
    """Train one run; its folder is printed, and put on a list."""
    from physics_hybrid.run.train import train as train_run

    folder = train_run(config)
    if folder is not None:
        made.append(folder)
        print(folder)


def main(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    made: list[Path] = []
    work = partial(train, made=made)
    if not MULTIRUN & {*arguments}:
        run(work, CONF, "config")
        return
    from physics_hybrid.evidence.pipeline import conclude, grouped
    from physics_hybrid.run.ledger import ordered, read

    name = f"sweep {time.strftime('%Y-%m-%d %H:%M:%S')}"
    try:
        with grouped(name):
            run(work, CONF, "config")
    finally:
        if made:
            print(conclude(ordered([read(folder) for folder in made]), name, None))
