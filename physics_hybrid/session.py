"""From a resolved configuration to a training or an evaluation: what `train.py` and `evaluate.py` call."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from physics_hybrid import run_folder
from physics_hybrid.heartbeat import Heartbeat
from physics_hybrid.launch import Machine, finalize, initialize
from physics_hybrid.potential.data import LimbData
from physics_hybrid.potential.evaluation import default_grids, evaluate, log_to, markdown_table, provenance, write
from physics_hybrid.potential.problem import PotentialProblem, build_data, build_model, build_problem, sigma_statistics
from physics_hybrid.staging import staged
from physics_hybrid.training import checkpoint
from physics_hybrid.training.tracker import Tracker
from physics_hybrid.training.trainer import Requeue, Trainer, TrainingSettings


@dataclass
class Session:
    """One run: its configuration, folder, problem, trainer and tracker."""

    config: dict[str, Any]
    folder: Path
    machine: Machine
    problem: PotentialProblem
    trainer: Trainer
    tracker: Tracker


def train(config: dict[str, Any]) -> Path | None:
    """Train, then evaluate; the run folder on the rank that writes, None on the others. This is `train.py`.

    Raises
    ------
    ValueError, OSError, RuntimeError
        Whatever is wrong with the configuration, the data or the machine, before any training where it can be known.
    Requeue
        A signal asked us to leave; the state is saved.
    """
    training = config["training"]
    if training["threads"]:
        torch.set_num_threads(training["threads"])
    machine = initialize(training["device"])
    folder = Path(config["runs_folder"]) / str(config["run"])
    tracker: Tracker = Tracker()
    try:
        with Heartbeat(machine.rank, machine.world_size, training["lost_rank_seconds"], os.environ.get("MASTER_ADDR", "localhost")):
            if machine.writes:
                run_folder.open_run(config)
                run_folder.write_status(folder, "running")
            with contextlib.ExitStack() as stack:
                session = open_session(config, machine, folder, stack)
                tracker = session.tracker
                session.trainer.fit()
        finalize()
        if machine.writes:
            evaluate_run(session)
            run_folder.write_status(folder, "finished")
        return folder if machine.writes else None
    except BaseException as error:
        if machine.writes and folder.is_dir():
            with contextlib.suppress(OSError):
                run_folder.write_status(folder, "requeue" if isinstance(error, Requeue) else "failed", str(error))
        raise
    finally:
        tracker.finish()


def open_session(config: dict[str, Any], machine: Machine, folder: Path, stack: contextlib.ExitStack) -> Session:
    """Build everything a training needs, and go on from the state in the run folder where there is one.

    `stack` takes what must be undone at the end (staged data). Raises what `train` raises.
    """
    from hydra.utils import instantiate

    training, data_config = config["training"], config["data"]
    state = run_folder.resume(folder, config)
    if machine.writes:
        print(f"run {folder}: {machine}", flush=True)
        run_folder.save_config(folder, config)
    torch.manual_seed(config["seed"])
    np.random.seed(config["seed"])  # DistributedManager seeds NumPy with the rank
    tag = f"{folder.name}-{os.environ.get('PBS_JOBID', os.getpid() if machine.world_size == 1 else 'job')}".replace("[", "_").replace("]", "_")
    stage = lambda source: stack.enter_context(staged(source, data_config["stage_to"], machine, tag))
    here = data_config  # as read on this node; the run keeps the configuration as it was given
    if data_config["kind"] == "files":
        here = {**data_config, "path": stage(data_config["path"])}
    data = build_data({**config, "data": here}, machine.device, machine.rank, machine.world_size)
    if machine.writes:
        data.prepare()
    if machine.world_size > 1:
        dist.barrier()  # what rank 0 solved is there now
        data.prepare()
    if isinstance(data, LimbData) and data.train_samples:
        data.read_training_from(stage(str(data.training_file())))
    problem = build_problem(config, data)
    model_config = config["model"]
    if state:
        normalisation = state["normalisation"]
    else:
        normalisation = sigma_statistics(data, model_config["sigma_input"], model_config["sigma_eps"], model_config["statistics_samples"])
    model = build_model(config, normalisation)
    if not state and training["init_from"]:
        try:
            model.load_state_dict(weights_of(Path(training["init_from"])).state_dict())
        except RuntimeError as error:
            if isinstance(error, checkpoint.CheckpointError):
                raise
            raise checkpoint.CheckpointError(f"training.init_from={training['init_from']} holds another model than the configuration builds: {error}") from error
    with torch.no_grad():  # a grid that the network cannot take fails here, with its reason
        problem.predict(model.to(machine.device).eval(), data.sample_train())
    tracker: Tracker = instantiate(config["tracker"]) if machine.writes else Tracker()
    trainer = Trainer(model, problem, settings_of(training), machine, folder, tracker, config, normalisation)
    if machine.writes:
        print(f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {model_config['composition']}; {trainer.total_steps} steps", flush=True)
    if state:
        trainer.restore(state)
        done = trainer.progress
        if machine.writes:
            print("training is complete already" if done["finished"] else f"going on from epoch {done['epoch']}, step {done['step']}", flush=True)
    tracker.start(folder, config, state["tracker_run"] if state else None)
    return Session(config, folder, machine, problem, trainer, tracker)


def settings_of(training: dict[str, Any]) -> TrainingSettings:
    """conf/training as the trainer takes it."""
    return TrainingSettings(
        **{k: training[k] for k in TrainingSettings.__dataclass_fields__ if k in training},
        clipping_mode=training["clipping"]["mode"], clipping_threshold=training["clipping"]["threshold"],
    )


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
