"""Test a trained model: what evaluate.py does."""

from __future__ import annotations

import os
import sys
from typing import Any

import hydra
from omegaconf import OmegaConf

from physics_hybrid.command_line import CONF, readable_errors, run

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def evaluate(config: Any) -> None:
    with readable_errors():
        options: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        defaults: Any = OmegaConf.to_container(hydra.compose("config"), resolve=True)
        from physics_hybrid.run.evaluate import evaluate_checkpoint

        print(evaluate_checkpoint(options, defaults))


def main(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    run(evaluate, CONF, "evaluate")
