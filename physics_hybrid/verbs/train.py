"""Train a model and test it: what train.py does."""

from __future__ import annotations

import os
import sys
from typing import Any

import hydra
from omegaconf import OmegaConf

from physics_hybrid.command_line import CONF, readable_errors, run

# PhysicsNeMo's Module.save imports git, which need not be installed
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def train(config: Any) -> None:
    with readable_errors():
        resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        from physics_hybrid.run.train import train as train_run

        folder = train_run(resolved)
        if folder is not None:
            print(folder)


def main(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    run(train, CONF, "config")
