"""Train a model and test it: what train.py does."""

from __future__ import annotations

import os
import sys
from typing import Any

from physics_hybrid.command_line import CONF, run

# PhysicsNeMo's Module.save imports git, which need not be installed
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def train(config: dict[str, Any]) -> None:
    from physics_hybrid.run.train import train as train_run

    folder = train_run(config)
    if folder is not None:
        print(folder)


def main(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    run(train, CONF, "config")
