"""Test a trained model: what evaluate.py does."""

from __future__ import annotations

import os
import sys
from typing import Any

from physics_hybrid.command_line import CONF, run

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def evaluate(options: dict[str, Any]) -> None:
    from physics_hybrid.evidence.bench import configuration_for
    from physics_hybrid.run.evaluate import evaluate_checkpoint

    print(evaluate_checkpoint(options, configuration_for))


def main(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    run(evaluate, CONF, "evaluate")
