"""What a configuration or a checkpoint stands for: a recipe, a model, readers of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from physics_hybrid.checks import not_negative
from physics_hybrid.cluster.machine import Machine
from physics_hybrid.models import model_files
from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.problem import Config, Recipe
from physics_hybrid.run import folder as run_folder
from physics_hybrid.training import checkpoint

#: The problem of configurations from before there were several.
FIRST_PROBLEM = "physics_hybrid.problems.potential.problem.PotentialRecipe"

#: Models inside the package, NAME.mdlus.
SHIPPED = Path(__file__).resolve().parents[1] / "pretrained"


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
    built: Recipe[Any, Any] = recipe(config)
    return built


def weights_of(path: Path) -> nn.Module:
    """The model in a run folder, a state file, a `.mdlus` file or a PhysicsNeMo checkpoint folder;
    or, where there is none of that name, the one inside the package.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    shipped = SHIPPED / f"{path}.mdlus"
    if not path.exists() and shipped.exists():
        path = shipped
    model: nn.Module = load(path)[0]
    return model


def load(path: Path) -> tuple[Any, dict[str, Any] | None, Path]:
    """(model, configuration or None, folder for reports) of anything that `checkpoint=` takes.

    A run folder and its state files give the weights that training reports: the best on the
    validation split so far. Should the state be gone, they are in its folder `best`, too; where
    nothing was validated, those of the last epoch in `final`.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: there is no checkpoint")
    folder = path if path.is_dir() else path.parent
    if state := _state(path):
        return reported_model(state), state["config"], folder
    if path.suffix == ".pt":
        raise CheckpointError(
            f"{path} is not one of ours; give the run folder, latest_checkpoint.pt, a .mdlus file"
            " or the folder it lies in"
        )
    for kept in (path / "best", path / "final"):  # of a run folder whose state was deleted
        if kept.is_dir():
            return load(kept)
    inside = folder.resolve()
    config = run_folder.load_config(inside.parent)
    return model_files.load_model(path), config, inside.parent if config else inside


def _state(path: Path) -> dict[str, Any] | None:
    """The state in a run folder or a state file; None where a path is neither."""
    if path.is_dir():
        states = (path / name for name in (checkpoint.LATEST, checkpoint.PREVIOUS))
        return checkpoint.load_latest(path) if any(p.exists() for p in states) else None
    if path.suffix == ".pt" and path.name.startswith("latest_checkpoint"):
        return checkpoint.load_state(path)
    return None


def reported_model(state: dict[str, Any]) -> nn.Module:
    """The model of a training's state, with the weights that training reports."""
    model = recipe_of(state["config"]).build_model(state["normalisation"])
    best = state["best"]
    model.load_state_dict(best["model"] if best else state["model"])
    return model


def readers(wanted: int | None, machine: Machine) -> int:
    """Processes that read data for one rank: as asked, else one for each core beyond the first.

    At most 4 where nothing else shares the machine.
    """
    if wanted is not None:
        not_negative("data.workers", wanted, null=True)
        return wanted
    spare = machine.cores - 1
    return min(spare, 4) if machine.world_size == 1 else spare
