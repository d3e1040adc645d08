"""Test a trained operator: `python evaluate.py checkpoint=runs/NAME resolutions=[[96,48,48],[192,96,96]]`."""

import os
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from physics_hybrid.command_line import readable_errors, run

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(config) -> None:
    with readable_errors():
        options = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        defaults = OmegaConf.to_container(hydra.compose("config"), resolve=True)
        from physics_hybrid.run.evaluate import evaluate_checkpoint

        print(evaluate_checkpoint(options, defaults))


if __name__ == "__main__":
    run(main, CONF, "evaluate")
