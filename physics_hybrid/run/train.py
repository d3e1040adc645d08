"""From a resolved configuration to a training: what `train.py` calls. It knows no problem."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from physics_hybrid.checks import positive, within
from physics_hybrid.cluster.heartbeat import LOST_RANK_EXIT_CODE, Heartbeat
from physics_hybrid.cluster.machine import Machine, agreed, finalize, initialize
from physics_hybrid.cluster.signals import Signals
from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.problem import Place, Problem, Recipe
from physics_hybrid.report.curve import training_curve
from physics_hybrid.report.plots import spared
from physics_hybrid.run import folder as run_folder
from physics_hybrid.run import splits as run_splits
from physics_hybrid.run.card import write_card
from physics_hybrid.run.evaluate import evaluate, log_to, write
from physics_hybrid.run.ledger import ORIGIN, read
from physics_hybrid.run.load import readers, recipe_of, weights_of
from physics_hybrid.run.owner import release
from physics_hybrid.run.provenance import provenance, surroundings
from physics_hybrid.run.staging import staged
from physics_hybrid.training import log
from physics_hybrid.training.settings import TrainingSettings
from physics_hybrid.training.tracker import GROUP, Tracker
from physics_hybrid.training.trainer import Trainer
from physics_hybrid.writing import write_text

#: That NumPy takes.
LARGEST_SEED = 2**32 - 1


@dataclass
class Session:
    """One run: its configuration, folder, problem, trainer and tracker."""

    config: dict[str, Any]
    folder: Path
    machine: Machine
    problem: Problem[Any, Any]
    trainer: Trainer
    tracker: Tracker


def train(config: dict[str, Any]) -> Path | None:
    """Train, then evaluate: this is `train.py`. The run folder on the rank that writes, else None.

    Raises
    ------
    ValueError, OSError, RuntimeError
        Whatever is wrong with the configuration, the data or the machine, before any training where
        it can be known.
    Requeue
        A signal asked us to leave; the exit status says whether a state was saved.
    """
    check_settings(config)
    training = config["training"]
    with Signals(training["requeue_exit_code"]) as signals:
        machine = initialize(training["device"])
        if training["threads"]:
            torch.set_num_threads(training["threads"])
        with contextlib.ExitStack() as stack:
            master = os.environ.get("MASTER_ADDR", "localhost")
            patience = training["lost_rank_seconds"]
            with Heartbeat(machine.rank, machine.world_size, patience, master) as heartbeat:
                name = ""
                if machine.writes:
                    folder = stack.enter_context(run_folder.opened(config))
                    heartbeat.before_leaving.append(partial(release, folder))
                    name = str(config["run"] or folder.name)
                config = {**config, "run": agreed(name)}
                folder = Path(config["runs_folder"]) / config["run"]
                session = open_session(config, machine, folder, stack, signals, heartbeat)
                session.trainer.fit()
            finalize()
            if machine.writes:
                finish_run(session)
        return folder if machine.writes else None


def check_settings(config: dict[str, Any]) -> None:
    """Raise ValueError for a setting of the run or the training that cannot be meant."""
    training = config["training"]
    threads, code = training["threads"], training["requeue_exit_code"]
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"training.threads must be null or at least 1; got {threads}")
    for key in ("lost_rank_seconds", "owner_silent_seconds"):
        positive(f"training.{key}", training[key])
    if not 3 <= code <= 125 or code == LOST_RANK_EXIT_CODE:
        raise ValueError(
            f"training.requeue_exit_code must be 3 to 125 and not {LOST_RANK_EXIT_CODE}: "
            f"the others mean something else; got {code}"
        )
    within(0, LARGEST_SEED, "seed", config["seed"])
    settings_of(training)  # refused before limbs are solved
    after = config["evaluation"]["after_training"]
    if after not in (None, True, False):
        raise ValueError(f"evaluation.after_training must be true, false or null; got {after!r}")


def open_session(
    config: dict[str, Any],
    machine: Machine,
    folder: Path,
    stack: contextlib.ExitStack,
    signals: Signals,
    heartbeat: Heartbeat,
) -> Session:
    """Build everything a training needs, and go on from the state in the run folder, if any.

    `stack` takes what must be undone at the end (staged data, tracker), `heartbeat` what must be
    undone even where a lost rank ends us. Raises what `train` raises.
    """
    from hydra.utils import instantiate

    resumed = run_folder.resume(folder, config)
    state = resumed.state if resumed else None
    if machine.writes:
        print(f"run {folder}: {machine}", flush=True)
        print(
            f"after an interruption the same command with run={folder.name} goes on where it"
            " stopped",
            flush=True,
        )
        run_folder.save_config(folder, config)
    torch.manual_seed(config["seed"])
    np.random.seed(config["seed"])  # a problem may draw from it  # noqa: NPY002
    tracker: Tracker = instantiate(config["tracker"]) if machine.writes else Tracker()
    recipe = recipe_of(config)
    problem = recipe.open(_place(config, machine, folder, stack, heartbeat))
    if known := run_splits.recall(folder) if state else None:
        note = run_splits.hold(known, problem.splits(), folder)
        if note and machine.writes:
            print(note, file=sys.stderr, flush=True)
    elif machine.writes:
        run_splits.remember(folder, problem.splits())
    model, statistics = _model(config, recipe, problem, state)
    problem.check_model(model)
    if machine.writes:
        problem.prepare()
    if machine.world_size > 1:
        dist.barrier()  # what rank 0 made is there now
        problem.prepare()
    problem.ready()
    settings = settings_of(config["training"])
    trainer = Trainer(
        model=model,
        problem=problem,
        settings=settings,
        machine=machine,
        folder=folder,
        tracker=tracker,
        config=config,
        normalisation=statistics,
        signals=signals,
    )
    stack.callback(tracker.finish)
    if machine.writes:
        write_origin(folder, machine, model)
        _introduce(trainer, problem.notes(model) if not state else ())
    if resumed:
        trainer.restore(resumed.state, resumed.changes)
        if machine.writes:
            print(_going_on(trainer), flush=True)
    tracker.start(folder, config, state["tracker_run"] if state else None)
    return Session(
        config=config,
        folder=folder,
        machine=machine,
        problem=problem,
        trainer=trainer,
        tracker=tracker,
    )


def write_origin(folder: Path, machine: Machine, model: nn.Module) -> None:
    """origin.json: what a run was begun with, and the study, chain or sweep that began it.

    A run that goes on keeps the one that it has.
    """
    path = folder / ORIGIN
    if path.exists():
        return
    about = {
        **surroundings(machine.device),
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "group": os.environ.get(GROUP),
    }
    write_text(path, json.dumps(about, indent=1))


def _introduce(trainer: Trainer, notes: Sequence[str]) -> None:
    """What is trained, and what its problem says of that."""
    millions = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    print(f"model: {millions:.2f} M parameters; {trainer.total_steps} steps", flush=True)
    for note in notes:
        print(note, file=sys.stderr, flush=True)


def _going_on(trainer: Trainer) -> str:
    """From where a run goes on, and with what other settings."""
    progress = trainer.progress
    if progress.finished:
        return "training is complete already"
    line = f"going on from epoch {progress.epoch}, step {progress.step}"
    if progress.changed:
        line += (
            f", with other settings ({'; '.join(progress.changed)}): the learning rate follows"
            f" their schedule, from {trainer.optimisation.learning_rate:.3g} here"
        )
    return line


def _place(
    config: dict[str, Any],
    machine: Machine,
    folder: Path,
    stack: contextlib.ExitStack,
    heartbeat: Heartbeat,
) -> Place:
    """This rank's place. Of a problem's data two keys are the run's: workers and stage_to."""
    data = config.get("data") or {}
    own = str(os.getpid()) if machine.world_size == 1 else "job"
    job = os.environ.get("PBS_JOBID", own)

    def stage(source: str) -> str:
        copy = staged(
            source,
            data.get("stage_to"),
            machine,
            run=folder,
            job=job,
            at_loss=heartbeat.before_leaving,
        )
        return str(stack.enter_context(copy))

    workers = readers(data.get("workers"), machine)
    return Place(
        device=machine.device,
        rank=machine.rank,
        world_size=machine.world_size,
        workers=workers,
        stage=stage,
    )


def _model(
    config: dict[str, Any],
    recipe: Recipe[Any, Any],
    problem: Problem[Any, Any],
    state: dict[str, Any] | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and the statistics it normalises with: those of its weights, where it has any."""
    start_from = config["training"]["init_from"]
    source = weights_of(Path(start_from)) if start_from and not state else None
    if state:
        statistics = state["normalisation"]
    elif source is not None:  # weights belong to the scale of the inputs they were trained on
        statistics = recipe.statistics_of(source)
    else:
        statistics = problem.statistics()
    model = recipe.build_model(statistics)
    if source is not None:
        weights = source.state_dict()
        if hasattr(recipe, "widened"):
            weights = recipe.widened(weights, source, model)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise CheckpointError(
                f"training.init_from={start_from} holds another model than the configuration"
                f" builds: {first}"
            ) from error
    return model, statistics


def settings_of(training: dict[str, Any]) -> TrainingSettings:
    """conf/training as the trainer takes it."""
    clipping = training["clipping"]
    return TrainingSettings(
        **{f.name: training[f.name] for f in fields(TrainingSettings) if f.name in training},
        clipping_mode=clipping["mode"],
        clipping_threshold=clipping["threshold"],
        clipping_eps=clipping["eps"],
    )


def finish_run(session: Session) -> None:
    """Draw the training curve and, as evaluation.after_training says, test the best weights.

    By default not where other nodes would wait for it.
    """
    folder, tracker = session.folder, session.tracker
    if session.trainer.settings.figures_every:
        picture = folder / "figures" / "training.png"
        with spared("training curve"):
            curve = training_curve(log.records(folder), session.problem.monitor, picture)
            if curve:
                tracker.figure("figures/training", curve, session.trainer.progress.step)
    wanted = session.config["evaluation"]["after_training"]
    if wanted is None:
        wanted = session.machine.nodes == 1
    if wanted:
        evaluate_run(session)
    else:
        print(
            f"not evaluated yet: python evaluate.py checkpoint={folder}, "
            f"or qsub -v CHECKPOINT={folder} pbs/evaluate.pbs",
            flush=True,
        )


def evaluate_run(session: Session) -> None:
    """Test the best weights of a training: print the table, write the report, log it."""
    trainer, folder = session.trainer, session.folder / "evaluation"
    model, epoch = trainer.evaluated, trainer.progress.epoch
    if trainer.best is not None:
        model.load_state_dict(trainer.best["model"])
        epoch = trainer.best["epoch"]
    about = provenance(str(session.folder), session.config["seed"], session.machine.device, model)
    about |= {"epoch": epoch, "step": trainer.progress.step}
    drawn = session.config["evaluation"].get("pictures", True)
    result = evaluate(session.problem, model, folder, about, pictures=drawn)
    if not result.tables:
        print(f"best epoch {epoch}; there is no test split: nothing is tested", flush=True)
        return
    paths = write(result, folder)
    log_to(session.tracker, result, trainer.progress.step)
    with spared("files in the tracker"):
        _hand_over(session, [paths["report"], write_card(session.folder)])
    print(
        f"\nbest epoch {epoch}, test split:\n{result.table}\n\nreport: {paths['report']}",
        flush=True,
    )


def _hand_over(session: Session, texts: Sequence[Path]) -> None:
    """Summary, weights, report and model card to the tracker."""
    run, folder = read(session.folder), session.folder
    session.tracker.summarise(
        {
            f"test/{run.monitor}": run.value,
            f"test/baseline_{run.monitor}": run.baseline,
            "training_seconds": run.seconds,
            "parameters": run.parameters,
        }
    )
    weights = [path for path in (folder / "best", folder / "final") if path.exists()]
    session.tracker.keep("weights", weights[:1])
    for kind, path in zip(("report", "model card"), texts, strict=True):
        session.tracker.keep(kind, [path])
