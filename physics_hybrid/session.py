"""From a resolved configuration to a training or an evaluation: what `train.py` and `evaluate.py` call."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from physics_hybrid import run_folder
from physics_hybrid.launch import Machine, initialize
from physics_hybrid.potential.evaluation import default_grids, evaluate, log_to, markdown_table, provenance, write
from physics_hybrid.potential.problem import PotentialProblem, build_data, build_model, build_problem, sigma_statistics
from physics_hybrid.training import checkpoint
from physics_hybrid.training.tracker import Tracker
from physics_hybrid.training.trainer import Trainer, TrainingSettings


@dataclass
class Session:
    """One run: its configuration, folder, problem, trainer and tracker."""

    config: dict[str, Any]
    folder: Path
    machine: Machine
    problem: PotentialProblem
    trainer: Trainer
    tracker: Tracker

    def close(self) -> None:
        self.tracker.finish()


def open_session(config: dict[str, Any]) -> Session:
    """Build everything a training needs, and go on from the state in the run folder where there is one.

    Raises
    ------
    ValueError, OSError, RuntimeError
        Whatever is wrong with the configuration, the data or the machine, before any training.
    """
    from hydra.utils import instantiate

    training = config["training"]
    if training["threads"]:
        torch.set_num_threads(training["threads"])
    machine = initialize(training["device"])
    folder = run_folder.open_run(config)
    state = run_folder.resume(folder, config)
    print(f"run {folder}: {machine}", flush=True)
    run_folder.save_config(folder, config)
    torch.manual_seed(config["seed"])
    data = build_data(config, machine.device)
    problem = build_problem(config, data)
    model_config = config["model"]
    if state:
        normalisation = state["normalisation"]
    else:
        normalisation = sigma_statistics(data, model_config["sigma_input"], model_config["sigma_eps"], model_config["statistics_samples"])
    model = build_model(config, normalisation)
    clipping = training["clipping"]
    settings = TrainingSettings(
        **{k: training[k] for k in TrainingSettings.__dataclass_fields__ if k in training},
        clipping_mode=clipping["mode"], clipping_threshold=clipping["threshold"],
    )
    tracker: Tracker = instantiate(config["tracker"])
    trainer = Trainer(model, problem, settings, machine, folder, tracker, config, normalisation)
    print(f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {config['model']['composition']}; {trainer.total_steps} steps", flush=True)
    if state:
        trainer.restore(state)
        done = trainer.progress
        print(f"going on from epoch {done['epoch']}, step {done['step']}" if not done["finished"] else "training is complete already", flush=True)
    elif training["init_from"]:
        weights = weights_of(Path(training["init_from"])).state_dict()
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise checkpoint.CheckpointError(f"training.init_from={training['init_from']} holds another model than the configuration builds: {error}") from error
    data.validation()  # solved or checked now, not after the first epoch
    with torch.no_grad():  # a grid that the network cannot take fails here, with its reason
        problem.predict(model.eval(), data.sample_train())
    tracker.start(folder, config, state["tracker_run"] if state else None)
    return Session(config, folder, machine, problem, trainer, tracker)


def evaluate_run(session: Session) -> None:
    """Test the best weights of a training on all grids, print the table, write the report, log to the tracker."""
    config, trainer = session.config, session.trainer
    model = trainer.evaluated
    if trainer.best is not None:
        model.load_state_dict(trainer.best["model"])
    from physics_hybrid.potential.figures import training_curve

    evaluation = config["evaluation"]
    folder = session.folder / "evaluation"
    grids = [tuple(g) for g in evaluation["resolutions"] or default_grids(session.problem.data)]
    about = provenance(str(session.folder), config["seed"], evaluation["samples"], session.machine.device, model)
    session.problem.data.batch_size = evaluation["batch_size"]
    result = evaluate(session.problem, model, grids, evaluation["samples"], folder, about)
    import json

    records = [json.loads(line) for line in (session.folder / "log.jsonl").read_text().splitlines()]
    curve = training_curve(records, session.problem.monitor, session.folder / "figures" / "training.png")
    if curve:
        session.tracker.figure("figures/training", curve, trainer.progress["step"])
    paths = write(result, folder)
    log_to(session.tracker, result, trainer.progress["step"])
    print(f"\nbest epoch {trainer.best['epoch'] if trainer.best else trainer.progress['epoch']}, test split:\n{markdown_table(result.tables)}\n\nreport: {paths['report']}", flush=True)


def weights_of(path: Path):
    """The model in a run folder, a state file, a `.mdlus` file or a PhysicsNeMo checkpoint folder.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    return load(path)[0]


def load(path: Path) -> tuple[Any, dict[str, Any] | None, Path]:
    """(model, configuration or None, folder for reports) of anything that `checkpoint=` takes.

    A run folder and its state files give the weights that training reports: the best on the validation split so far.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise checkpoint.CheckpointError(f"checkpoint={path} does not exist")
    is_run = path.is_dir() and any((path / n).exists() for n in (checkpoint.LATEST, checkpoint.PREVIOUS))
    if is_run or path.suffix == ".pt" and path.name.startswith("latest_checkpoint"):
        state = checkpoint.load_latest(path) if is_run else checkpoint.load_state(path)
        model = build_model(state["config"], state["normalisation"])
        best = state["best"]
        model.load_state_dict(best["model"] if best else state["model"])
        return model, state["config"], path if is_run else path.parent
    inside = path if path.is_dir() else path.parent
    if path.suffix == ".pt":
        raise checkpoint.CheckpointError(f"{path} is not one of ours; give the run folder, latest_checkpoint.pt, a .mdlus file or the folder it lies in")
    return checkpoint.load_model(path), run_folder.load_config(inside.parent), inside


def evaluate_checkpoint(options: dict[str, Any], defaults: dict[str, Any]) -> Path:
    """What `evaluate.py` does. `options`: conf/evaluate.yaml, resolved; `defaults`: conf/config.yaml, for a model without a run.

    Returns the folder of the report.
    """
    machine = initialize(options["device"])
    model, config, home = load(Path(options["checkpoint"]))
    if config is None:
        print(f"{options['checkpoint']} carries no configuration: data and metrics are those of conf/config.yaml", file=sys.stderr)
        config = defaults
    if options.get("data"):
        config = {**config, "data": options["data"]}
        if options["data"]["kind"] == "files":
            if options["split"] == "all":
                config["data"] = {**options["data"], "splits": {"train": 0.0, "validation": 0.0, "test": 1.0}}
            elif options["split"] not in options["data"]["splits"]:
                raise ValueError(f"split must be all, train, validation or test; got {options['split']!r}")
            else:
                config["data"] = {**options["data"]}
    config["data"] = {**config["data"], "sigma_components": model.sigma_components}
    evaluation = config["evaluation"]
    config["data"]["batch_size"] = options["batch_size"] or evaluation["batch_size"]
    if config["training"]["threads"]:
        torch.set_num_threads(config["training"]["threads"])
    data = build_data(config, machine.device)
    if options["split"] not in ("all", "test") and hasattr(data, "entries"):
        data.entries["test"] = data.entries[options["split"]]
    problem = build_problem(config, data)
    model = model.to(machine.device)
    reference = load(Path(options["reference"]))[0].to(machine.device) if options["reference"] else None
    own = None if options.get("data") else evaluation["resolutions"]
    grids = [tuple(g) for g in options["resolutions"] or own or default_grids(data)]
    samples = options["samples"] or (None if config["data"]["kind"] == "files" else evaluation["samples"])
    folder = Path(options["output"]) if options["output"] else home / "evaluation"
    about = provenance(str(options["checkpoint"]), config["seed"], samples, machine.device, model)
    result = evaluate(problem, model, grids, samples, folder, about, reference)
    paths = write(result, folder)
    if options["tracker"]["_target_"]:
        from hydra.utils import instantiate

        tracker: Tracker = instantiate(options["tracker"])
        tracker.start(folder, {"evaluation": options})
        log_to(tracker, result, 0)
        tracker.finish()
    print(f"{markdown_table(result.tables)}\n\nreport: {paths['report']}", flush=True)
    return folder
