"""What a configuration or a checkpoint stands for: a recipe, a model, readers of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.models import model_files
from physics_hybrid.problem import Config, Recipe
from physics_hybrid.run import folder as run_folder
from physics_hybrid.training import checkpoint

#: The problem of configurations from before there were several.
FIRST_PROBLEM = "physics_hybrid.problems.potential.problem.PotentialRecipe"


def recipe_of(config: Config) -> Recipe[Any, Any]:
    """The problem of a configuration: what `problem._target_` names.

    Raises
    ------
    ValueError
        There is no such recipe, or a group of the configuration belongs to another problem.
    """
    from hydra.utils import get_class

    target = config["problem"].get("_target_", FIRST_PROBLEM)
    try:
        recipe = get_class(target)
    except Exception as error:
        raise ValueError(
            f"problem._target_={target} is no recipe ({error}): choose problem=... (conf/problem)"
        ) from error
    return recipe(config)


def weights_of(path: Path) -> nn.Module:
    """The model in a run folder, a state file, a `.mdlus` file or a PhysicsNeMo checkpoint folder.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    return load(path)[0]


def load(path: Path) -> tuple[Any, dict[str, Any] | None, Path]:
    """(model, configuration or None, folder for reports) of anything that `checkpoint=` takes.

    A run folder and its state files give the weights that training reports: the best on the
    validation split so far.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise checkpoint.CheckpointError(f"{path} does not exist: there is no checkpoint")
    is_run = path.is_dir() and any(
        (path / n).exists() for n in (checkpoint.LATEST, checkpoint.PREVIOUS)
    )
    if is_run or path.suffix == ".pt" and path.name.startswith("latest_checkpoint"):
        state = checkpoint.load_latest(path) if is_run else checkpoint.load_state(path)
        model = recipe_of(state["config"]).build_model(state["normalisation"])
        best = state["best"]
        model.load_state_dict(best["model"] if best else state["model"])
        return model, state["config"], path if is_run else path.parent
    inside = (path if path.is_dir() else path.parent).resolve()
    if path.suffix == ".pt":
        raise checkpoint.CheckpointError(
            f"{path} is not one of ours; give the run folder, latest_checkpoint.pt, a .mdlus file"
            " or the folder it lies in"
        )
    config = run_folder.load_config(inside.parent)
    return model_files.load_model(path), config, inside.parent if config else inside


def readers(wanted: int | None, machine: Machine) -> int:
    """Processes that read data for one rank: as asked, else one for each core beyond the first, at
    most 4 where nothing else shares the machine.
    """
    if wanted is not None:
        if wanted < 0:
            raise ValueError(f"data.workers must be null or >= 0; got {wanted}")
        return wanted
    return min(machine.cores - 1, 4) if machine.world_size == 1 else machine.cores - 1
