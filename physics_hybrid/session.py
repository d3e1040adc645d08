"""From a resolved configuration to a training or an evaluation: what `train.py` and `evaluate.py` call."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from physics_hybrid import run_folder
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.heartbeat import LOST_RANK_EXIT_CODE, Heartbeat
from physics_hybrid.launch import Machine, agreed, finalize, initialize
from physics_hybrid.potential.data.sources import FileData, LimbData
from physics_hybrid.potential.evaluation import (
    default_grids,
    evaluate,
    log_to,
    markdown_table,
    write,
)
from physics_hybrid.potential.problem import (
    PotentialProblem,
    build_data,
    build_model,
    build_problem,
    sigma_statistics,
)
from physics_hybrid.report.curve import training_curve
from physics_hybrid.run.provenance import provenance
from physics_hybrid.staging import staged
from physics_hybrid.training import checkpoint
from physics_hybrid.training.signals import Signals
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


def train(config: dict[str, Any]) -> Path | None:
    """Train, then evaluate; the run folder on the rank that writes, None on the others. This is `train.py`.

    Raises
    ------
    ValueError, OSError, RuntimeError
        Whatever is wrong with the configuration, the data or the machine, before any training where it can be known.
    Requeue
        A signal asked us to leave; the exit status says whether a state was saved.
    """
    training = config["training"]
    if training["threads"] is not None and (not isinstance(training["threads"], int) or training["threads"] < 1):
        raise ValueError(f"training.threads must be null or at least 1; got {training['threads']}")
    if training["lost_rank_seconds"] <= 0:
        raise ValueError(f"training.lost_rank_seconds must be > 0; got {training['lost_rank_seconds']}")
    if not 3 <= training["requeue_exit_code"] <= 125 or training["requeue_exit_code"] == LOST_RANK_EXIT_CODE:
        raise ValueError(f"training.requeue_exit_code must be 3 to 125 and not {LOST_RANK_EXIT_CODE}: the others mean something else; got {training['requeue_exit_code']}")
    if config["seed"] < 0:
        raise ValueError(f"seed must be >= 0; got {config['seed']}")
    if config["evaluation"]["after_training"] not in (None, True, False):
        raise ValueError(f"evaluation.after_training must be true, false or null; got {config['evaluation']['after_training']!r}")
    with Signals(training["requeue_exit_code"]) as signals:
        machine = initialize(training["device"])
        if training["threads"]:
            torch.set_num_threads(training["threads"])
        config = {**config, "run": agreed(str(config["run"]))}  # a name made of the time differs between ranks
        folder = Path(config["runs_folder"]) / config["run"]
        with contextlib.ExitStack() as stack:
            master = os.environ.get("MASTER_ADDR", "localhost")
            with Heartbeat(machine.rank, machine.world_size, training["lost_rank_seconds"], master) as heartbeat:
                if machine.writes:
                    run_folder.open_run(config)
                session = open_session(config, machine, folder, stack, signals, heartbeat)
                session.trainer.fit()
            finalize()
            if machine.writes:
                finish_run(session)
        return folder if machine.writes else None


def open_session(config: dict[str, Any], machine: Machine, folder: Path, stack: contextlib.ExitStack, signals: Signals, heartbeat: Heartbeat) -> Session:
    """Build everything a training needs, and go on from the state in the run folder where there is one.

    `stack` takes what must be undone at the end (staged data, tracker), `heartbeat` what must be undone even where a lost rank ends us. Raises
    what `train` raises.
    """
    from hydra.utils import instantiate

    training, data_config = config["training"], config["data"]
    state = run_folder.resume(folder, config)
    if machine.writes:
        print(f"run {folder}: {machine}", flush=True)
        print(f"after an interruption the same command with run={folder.name} goes on where it stopped", flush=True)
        run_folder.save_config(folder, config)
    torch.manual_seed(config["seed"])
    np.random.seed(config["seed"])  # DistributedManager seeds NumPy with the rank
    job = os.environ.get("PBS_JOBID", str(os.getpid()) if machine.world_size == 1 else "job")
    def stage(source):
        return stack.enter_context(staged(source, data_config["stage_to"], machine, folder, job, heartbeat.before_leaving))
    here = {**data_config, "workers": readers(data_config["workers"], machine)}  # as on this node; the run keeps the configuration as given
    if data_config["kind"] == "files":
        here["path"] = stage(data_config["path"])
    data = build_data({**config, "data": here}, machine.device, machine.rank, machine.world_size)
    if isinstance(data, FileData):
        data.check_ranks()
    grids = grids_of(config["evaluation"], data)
    data.check_loss(config["loss"]["mask"])
    problem = build_problem(config, data)
    model_config = config["model"]
    if state:
        normalisation = state["normalisation"]
    else:
        normalisation = sigma_statistics(data, model_config["sigma_input"], model_config["sigma_eps"], model_config["statistics_samples"])
    source = weights_of(Path(training["init_from"])) if training["init_from"] and not state else None
    if source is not None:  # weights belong to the scale of the inputs they were trained on
        normalisation = {name: getattr(source, name).flatten().tolist() for name in ("sigma_mean", "sigma_std")}
    model = build_model(config, normalisation)
    if source is not None:
        try:
            model.load_state_dict(source.state_dict())
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise checkpoint.CheckpointError(f"training.init_from={training['init_from']} holds another model than the configuration builds: {first}") from error
    for grid in {*data.training_grids(), *grids}:
        model.check_grid(grid)
    if machine.writes:
        data.prepare()
    if machine.world_size > 1:
        dist.barrier()  # what rank 0 solved is there now
        data.prepare()
    if isinstance(data, LimbData) and data.train_samples:
        data.read_training_from(stage(str(data.training_file())))
    tracker: Tracker = instantiate(config["tracker"]) if machine.writes else Tracker()
    trainer = Trainer(model, problem, settings_of(training), machine, folder, tracker, config, normalisation, signals)
    stack.callback(tracker.finish)
    if machine.writes:
        print(f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {model_config['composition']}; {trainer.total_steps} steps", flush=True)
    if state:
        trainer.restore(state)
        done = trainer.progress
        if machine.writes:
            print("training is complete already" if done["finished"] else f"going on from epoch {done['epoch']}, step {done['step']}", flush=True)
    tracker.start(folder, config, state["tracker_run"] if state else None)
    return Session(config, folder, machine, problem, trainer, tracker)


def readers(wanted: int | None, machine: Machine) -> int:
    """Processes that read data for one rank: as asked, else one for each core beyond the first, at most 4 where nothing else shares the machine."""
    if wanted is not None:
        if wanted < 0:
            raise ValueError(f"data.workers must be null or >= 0; got {wanted}")
        return wanted
    return min(machine.cores - 1, 4) if machine.world_size == 1 else machine.cores - 1


def settings_of(training: dict[str, Any]) -> TrainingSettings:
    """conf/training as the trainer takes it."""
    return TrainingSettings(
        **{k: training[k] for k in TrainingSettings.__dataclass_fields__ if k in training},
        clipping_mode=training["clipping"]["mode"], clipping_threshold=training["clipping"]["threshold"], clipping_eps=training["clipping"]["eps"],
    )


def grids_of(evaluation: dict[str, Any], data: LimbData | FileData) -> list[Grid]:
    """The grids to evaluate on. Raises ValueError for anything but a list of three sizes, and for a number of samples below 1."""
    wanted = evaluation["resolutions"]
    if wanted is not None:
        def shape(g):
            return isinstance(g, (list, tuple)) and len(g) == 3 and all(isinstance(n, int) and n >= 2 for n in g)
        if not isinstance(wanted, list) or not wanted or not all(shape(g) for g in wanted):
            raise ValueError(f"evaluation.resolutions must be a list of grids such as [[48,24,24],[96,48,48]]; got {wanted}")
    if not isinstance(evaluation["samples"], int) or evaluation["samples"] < 1 or evaluation["batch_size"] < 1:
        raise ValueError(f"evaluation.samples and batch_size must be at least 1; got {evaluation['samples']} and {evaluation['batch_size']}")
    grids = [tuple(g) for g in wanted or default_grids(data)]
    if isinstance(data, FileData) and not data.entries["test"]:
        raise ValueError("data.splits leaves no sample for the test split")
    missing = [g for g in grids if isinstance(data, FileData) and g not in data.test_grids()]
    if missing:
        raise ValueError(f"no test sample has the grid {name_of(missing[0])} (evaluation.resolutions); the test split has {', '.join(name_of(g) for g in data.test_grids())}")
    return grids


def finish_run(session: Session) -> None:
    """Draw the training curve and, as evaluation.after_training says, test the best weights: by default not where other nodes would wait for it."""
    records = [json.loads(line) for line in (session.folder / "log.jsonl").read_text().splitlines()]
    curve = training_curve(records, session.problem.monitor, session.folder / "figures" / "training.png")
    if curve:
        session.tracker.figure("figures/training", curve, session.trainer.progress["step"])
    wanted = session.config["evaluation"]["after_training"]
    if wanted or wanted is None and session.machine.nodes == 1:
        evaluate_run(session)
    else:
        print(f"not evaluated yet: python evaluate.py checkpoint={session.folder}, or qsub -v CHECKPOINT={session.folder} pbs/evaluate.pbs", flush=True)


def evaluate_run(session: Session) -> None:
    """Test the best weights of a training on all grids, print the table, write the report, log to the tracker."""
    config, trainer = session.config, session.trainer
    model = trainer.evaluated
    if trainer.best is not None:
        model.load_state_dict(trainer.best["model"])
    evaluation, data = config["evaluation"], session.problem.data
    folder = session.folder / "evaluation"
    data.batch_size = evaluation["batch_size"]
    about = provenance(str(session.folder), config["seed"], session.machine.device, model)
    result = evaluate(session.problem, model, grids_of(evaluation, data), evaluation["samples"], folder, about)
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
        raise checkpoint.CheckpointError(f"{path} does not exist: there is no checkpoint")
    is_run = path.is_dir() and any((path / n).exists() for n in (checkpoint.LATEST, checkpoint.PREVIOUS))
    if is_run or path.suffix == ".pt" and path.name.startswith("latest_checkpoint"):
        state = checkpoint.load_latest(path) if is_run else checkpoint.load_state(path)
        model = build_model(state["config"], state["normalisation"])
        best = state["best"]
        model.load_state_dict(best["model"] if best else state["model"])
        return model, state["config"], path if is_run else path.parent
    inside = (path if path.is_dir() else path.parent).resolve()
    if path.suffix == ".pt":
        raise checkpoint.CheckpointError(f"{path} is not one of ours; give the run folder, latest_checkpoint.pt, a .mdlus file or the folder it lies in")
    config = run_folder.load_config(inside.parent)
    return checkpoint.load_model(path), config, inside.parent if config else inside


def evaluate_checkpoint(options: dict[str, Any], defaults: dict[str, Any]) -> Path:
    """What `evaluate.py` does. `options`: conf/evaluate.yaml, resolved; `defaults`: conf/config.yaml, for a model without a run.

    Returns the folder of the report.
    """
    machine = initialize(options["device"])
    if machine.world_size > 1:
        raise RuntimeError(f"evaluate.py runs in one process, and {machine.world_size} were launched: start `python evaluate.py` once")
    model, config, home = load(Path(options["checkpoint"]))
    if config is None:
        print(f"{options['checkpoint']} carries no configuration: data and metrics are those of conf/config.yaml", file=sys.stderr)
        config = defaults
    other = options.get("data")  # Hydra leaves the key out where no data=... was chosen
    config = {**config, "data": dict(other or config["data"]), "evaluation": dict(config["evaluation"])}
    own_files = bool(other) and other["kind"] == "files"
    if options["split"] not in ("all", "train", "validation", "test"):
        raise ValueError(f"split must be all, train, validation or test; got {options['split']!r}")
    own = own_files or bool(other) and other["kind"] == "labels"
    if own and options["split"] == "all":
        config["data"]["splits"] = {"train": 0.0, "validation": 0.0, "test": 1.0}
    evaluation = config["evaluation"]
    if other:  # other data: their grids, all of their samples
        evaluation["resolutions"] = None
        evaluation["samples"] = sys.maxsize if own_files else evaluation["samples"]
    for key in ("resolutions", "samples", "batch_size"):
        if options[key] is not None:
            evaluation[key] = options[key]
    config["data"]["sigma_components"] = model.sigma_components
    config["data"]["batch_size"] = evaluation["batch_size"]
    if config["training"]["threads"]:
        torch.set_num_threads(config["training"]["threads"])
    config["data"]["workers"] = readers(config["data"]["workers"], machine)
    data = build_data(config, machine.device)
    if own_files and options["split"] in ("train", "validation"):
        data.entries["test"] = data.entries[options["split"]]
    problem = build_problem(config, data)
    model = model.to(machine.device)
    reference = load(Path(options["reference"]))[0].to(machine.device) if options["reference"] else None
    grids = grids_of(evaluation, data)
    for grid in grids:
        model.check_grid(grid)
    folder = Path(options["output"]) if options["output"] else home / "evaluations" / time.strftime("%Y-%m-%d_%H-%M-%S")
    about = provenance(str(options["checkpoint"]), config["seed"], machine.device, model)
    result = evaluate(problem, model, grids, evaluation["samples"], folder, about, reference)
    paths = write(result, folder)
    from hydra.utils import instantiate

    tracker: Tracker = instantiate(options["tracker"])
    tracker.start(folder, {"evaluation": options})
    log_to(tracker, result, 0)
    tracker.finish()
    print(f"{markdown_table(result.tables)}\n\nreport: {paths['report']}", flush=True)
    return folder
