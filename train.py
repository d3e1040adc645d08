"""Train a hybrid operator and evaluate it: `python train.py`, `python train.py --help`."""

import os
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from physics_hybrid.command_line import readable_errors, run

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # PhysicsNeMo's Module.save imports git, which need not be installed
CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(config) -> None:
    with readable_errors():
        config = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        from physics_hybrid.run.train import train

        folder = train(config)
        if folder is not None:
            print(folder)


if __name__ == "__main__":
    run(main, CONF, "config")
