"""The training loop. It knows no physics: a problem brings batches, loss, validation and figures.

What it promises: killed at any moment and started again, a training continues to the same weights
as one never killed; a signal is answered with a checkpoint; a non-finite loss never reaches the
weights.

Several processes train one model (DistributedDataParallel, or divided among them: `sharding`). At
every step each has as many samples as the others, so that the mean of their gradients is the
gradient of the mean; one small all-reduce a step carries losses and signals, and every rank decides
alike. Rank 0 alone writes.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.cluster.signals import Requeue, Signals
from physics_hybrid.models import model_files
from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.problem import Batch, Problem
from physics_hybrid.training import agreement, checkpoint, log, monitor, sharding
from physics_hybrid.training.optimisation import Optimisation
from physics_hybrid.training.progress import EpochMeans, Progress, progress_bar
from physics_hybrid.training.settings import TrainingSettings
from physics_hybrid.training.tracker import Tracker


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why and which checkpoint is good."""


class Trainer:
    """Trains a model on a problem, from where `progress` says.

    folder : of the run. tracker, config, normalisation : go into the checkpoint; normalisation is
        what the model was built with. signals : of a program that has its own.

    model, optimizer, evaluated, progress, best : as they stand; `best` has score, epoch, model (its
        weights), and is None before the first validation. whole : the model itself, unless ranks
        have divided it: then a copy that follows at the end of each epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        problem: Problem[Any, Any],
        settings: TrainingSettings,
        machine: Machine,
        folder: Path,
        tracker: Tracker,
        config: dict[str, Any],
        normalisation: dict[str, Any],
        signals: Signals | None = None,
    ):
        self.whole, self.problem = model.to(machine.device), problem
        self.settings, self.machine = settings, machine
        self.folder, self.tracker = Path(folder), tracker
        self.config, self.normalisation = config, normalisation
        self.total_steps = settings.epochs * self.updates_per_epoch
        self.model: nn.Module = model
        self.parallel: DistributedDataParallel | None = None
        self.sharded: FSDPModule | None = None
        if machine.world_size > 1 and settings.parallel == "fsdp":
            self.sharded = sharding.sharded(model, machine)
            self.model = cast(nn.Module, self.sharded)
        elif machine.world_size > 1:
            self.parallel = agreement.parallel(model, machine)
        self.optimisation = Optimisation(self.model, settings, self.total_steps, machine.device)
        self.progress, self.means = Progress(), EpochMeans()
        self.activations = monitor.Monitor(
            self.model, settings.monitor_every if machine.writes else 0
        )
        self.best: dict[str, Any] | None = None
        self.signals = signals or Signals(settings.requeue_exit_code)
        self.leaving: int | None = None  # a signal that all ranks know of

    @property
    def updates_per_epoch(self) -> int:
        return math.ceil(self.problem.steps_per_epoch / self.settings.accumulate)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.optimisation.optimizer

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are validated and kept: the moving average where there is one."""
        return self.whole if self.sharded is not None else self.optimisation.evaluated

    # --- state

    def state(self) -> dict[str, Any]:
        """Everything to go on from. With several ranks all of them must call it: each brings its
        random states.
        """
        rng = agreement.everyones(checkpoint.rng_state(), self.machine)
        return {
            "format": 1,
            "model": sharding.whole(self.model.state_dict()),
            "best": self.best,
            **sharding.whole(self.optimisation.state()),
            "progress": self.progress.state(),
            "epoch_sums": dict(self.means.sums),
            "rng": rng,
            "world_size": self.machine.world_size,
            "normalisation": self.normalisation,
            "config": self.config,
            "tracker_run": self.tracker.run_id,
        }

    def save(self) -> Path:
        """Collect the state of all ranks; rank 0 writes it."""
        state, path = self.state(), self.folder / checkpoint.LATEST
        if self.machine.writes:
            path = checkpoint.save_state(self.folder, state)
        self.signals.saved = True
        return path

    def restore(
        self, state: dict[str, Any], changes: Mapping[str, tuple[Any, Any]] | None = None
    ) -> None:
        """Go on from a state that `state` gave.

        changes : old and new value of settings that are others than those it was trained with, by
            key: epochs, learning rate, data.batch_size. The schedule of the learning rate is laid
            anew.

        Raises
        ------
        CheckpointError
            The model does not fit, or ranks have read different states.
        """
        try:
            self.whole.load_state_dict(state["model"])
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint in {self.folder} holds another model than the configuration builds"
                f" ({str(error).splitlines()[1].strip()}). Use another run=NAME, or the"
                " configuration saved beside it"
            ) from error
        if self.sharded is not None:
            sharding.take(self.model, self.whole)
        self.optimisation.restore(state)
        self.progress, self.means = Progress(**state["progress"]), EpochMeans(state["epoch_sums"])
        self.best = state["best"]
        progress = self.progress
        progress.finished = progress.epoch >= self.settings.epochs
        if self.machine.rank < len(state["rng"]):
            checkpoint.set_rng_state(state["rng"][self.machine.rank])
        changes = changes or {}
        progress.changed += [f"{key}: {old} -> {new}" for key, (old, new) in changes.items()]
        size, _ = changes.get("data.batch_size", (None, None))
        if state["world_size"] != self.machine.world_size or size is not None:
            self._reshard(state["world_size"], size)
        if changes:
            self.optimisation.go_to(progress.step)
        place = (progress.epoch, progress.position, progress.step)
        agreement.check_same_place(place, self.folder, self.machine)

    def _reshard(self, ranks: int, batch_size: int | None) -> None:
        """Go on with another number of ranks, or another batch size (that before; None: the same).

        The samples of the epoch that are left come in larger or smaller global batches, and the
        step is counted anew from the end of the epoch.
        """
        progress = self.progress
        if batch_size is not None:  # what has no size yet was of this one
            progress.done = [[*done, batch_size][:3] for done in progress.done]
        if progress.position:
            size = [] if batch_size is None else [batch_size]
            progress.done = [*progress.done, [ranks, progress.position, *size]]
            progress.position = 0
        left = math.ceil(self._length() / self.settings.accumulate)
        progress.step = (progress.epoch + 1) * self.updates_per_epoch - left
        self.optimisation.go_to(progress.step)

    def _length(self) -> int:
        """Batches of the present epoch, without those of other numbers of ranks."""
        if self.progress.done:
            return self.problem.steps_left(self.progress.epoch, self.progress.done)
        return self.problem.steps_per_epoch

    # --- the loop

    def fit(self) -> None:
        """Train to the last epoch.

        Raises
        ------
        Requeue
            A signal arrived; the state is saved.
        TrainingStopped
            Too many non-finite losses in a row.
        CheckpointError
            A checkpoint cannot be written.
        """
        # a program that has its own Signals lends them; else they are ours for the time of the fit
        with contextlib.ExitStack() as stack:
            if not self.signals.active:
                stack.enter_context(self.signals)
            stack.enter_context(self.signals.deferred())
            begun, shown = self.progress.step, self.machine.writes
            with progress_bar(self.total_steps, begun, shown=shown) as bar:
                while self.progress.epoch < self.settings.epochs:
                    self._epoch(bar)
            self.leaving = agreement.signal_anywhere(self.signals.number, self.machine)
            # it came while the last epoch was finished: nothing is left to save
            if self.leaving is not None:
                self.signals.number = self.leaving
                self.signals.leave(agreed=True)

    def _epoch(self, bar: tqdm[Any]) -> None:
        self.model.train()
        progress = self.progress
        batches = self.problem.train_batches(progress.epoch, progress.position, progress.done)
        # a generator: closing it lets go of what it reads with
        with contextlib.closing(cast(Generator[Any, None, None], batches)):
            self._steps(batches, bar)
        self._finish_epoch(bar)

    def _steps(self, batches: Iterator[Any], bar: tqdm[Any]) -> None:
        """All steps of an epoch that are left."""
        s, progress, length = self.settings, self.progress, self._length()
        while progress.position < length:
            started = time.perf_counter()
            share = min(s.accumulate, length - progress.position)
            taken = self._take(batches, share, bar)
            with self.activations.watching(progress.step):
                values = self.step(taken)
            self._note_activations()
            progress.position += share
            progress.step += 1
            progress.seconds += time.perf_counter() - started
            self.means.add(values)
            bar.update(1)
            epoch, loss = f"{progress.epoch + 1}/{s.epochs}", f"{values['loss']:.4g}"
            bar.set_postfix(epoch=epoch, loss=loss, refresh=False)
            if progress.step % s.log_every == 0 and self.machine.writes:
                self.tracker.log({f"train/{k}": v for k, v in values.items()}, progress.step)
            if self.leaving is not None:
                self._leave(bar)
            if progress.step % s.checkpoint_every == 0 and progress.position < length:
                self.save()

    def _note_activations(self) -> None:
        """Write down what the monitor has seen in this step, if it was watched."""
        step, blocks = self.progress.step, self.activations.blocks()
        if not blocks:
            return
        log.add_record(self.folder, monitor.record(step, blocks), monitor.FILE, order="step")
        self.tracker.log({"activations/growth": monitor.growth(blocks)}, step)

    def _take(self, batches: Iterator[Any], count: int, bar: tqdm[Any]) -> list[Any]:
        """The batches of a step. They may be long in coming: a signal does not wait for them."""
        try:
            with self._interrupted():
                return [next(batches) for _ in range(count)]
        except (Requeue, RuntimeError):
            if self.signals.number is None or self.machine.world_size > 1:
                raise
            self.leaving = self.signals.number  # it has ended the processes that read data, too
        self._leave(bar)

    def _interrupted(self) -> contextlib.AbstractContextManager[object]:
        """Where a signal may end a wait: between steps, unless other ranks are to leave, too."""
        if self.machine.world_size > 1:
            return contextlib.nullcontext()
        return self.signals.heeded()

    def step(self, batches: Sequence[Any]) -> dict[str, float]:
        """One optimiser step on the mean loss of some batches.

        A loss or gradient that is not finite leaves the weights alone.

        Returns
        -------
        dict
            loss and its terms, means over samples and ranks; gradient_norm before clipping,
            parameter_norm before the step, learning_rate.

        Raises
        ------
        TrainingStopped
            The last of too many steps in a row that were not finite.
        """
        update = self.optimisation
        update.begin()
        sums = self._gradients(batches)
        norm = update.gradient_norm()
        values, self.leaving = agreement.means_and_signal(sums, self.signals.number, self.machine)
        weights = [p.detach() for p in self.model.parameters()]
        values["gradient_norm"] = float(norm)
        values["parameter_norm"] = float(sharding.total_norm(weights))
        values["learning_rate"] = update.learning_rate
        steady = math.isfinite(values["gradient_norm"]) or update.searches_scale
        if math.isfinite(values["loss"]) and steady:
            self.progress.bad_steps = 0
            update.apply()
        else:
            self._bad_step(batches, values)
        update.advance()
        return values

    def _gradients(self, batches: Sequence[Any]) -> dict[str, Tensor]:
        """Gradients of the mean loss over samples; the loss and its terms."""
        count = sum(len(batch) for batch in batches)
        network = self.model if self.parallel is None else self.parallel
        sums: dict[str, Tensor] = {}
        for batch in batches:
            with self._quiet(last=batch is batches[-1]):
                with self.optimisation.autocast():
                    loss, terms = self.problem.loss(network, batch)
                weight = len(batch) / count
                self.optimisation.backward(loss * weight)
            for name, value in {"loss": loss.detach(), **terms}.items():
                sums[name] = sums.get(name, 0.0) + value * weight
        return sums

    def _quiet(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Ranks exchange gradients once a step: with its last batch."""
        if self.sharded is not None:
            self.sharded.unshard()  # a loss may look into parts of a model without its forward
            self.sharded.set_requires_gradient_sync(last)
        if last or self.parallel is None:
            return contextlib.nullcontext()
        return self.parallel.no_sync()

    def _bad_step(self, batches: Sequence[Batch], values: dict[str, float]) -> None:
        progress = self.progress
        progress.bad_steps += 1
        progress.skipped += 1
        names = [name for batch in batches for name in batch.names]
        sizes = f"loss {values['loss']:g}, gradient norm {values['gradient_norm']:g}"
        what = f"{sizes} at step {progress.step} (samples {', '.join(names[:8])})"
        tqdm.write(f"WARNING: {what}: step skipped", file=sys.stderr)
        if progress.bad_steps < self.settings.max_bad_steps:
            return
        last, good = self.folder / checkpoint.LATEST, "No checkpoint was written yet"
        if last.exists():
            good = f"The last good state is {last}"
        stopped = {"epoch": progress.epoch + 1, "step": progress.step, "stopped": what}
        if self.machine.writes:
            log.add_record(self.folder, stopped)
        raise TrainingStopped(
            f"{progress.bad_steps} steps in a row were not finite; the last: {what}. {good}; lower"
            " training.learning_rate or look at these samples"
        )

    # --- the end of an epoch

    def _finish_epoch(self, bar: tqdm[Any]) -> None:
        s, progress = self.settings, self.progress
        progress.epoch += 1
        progress.position, progress.done = 0, []
        progress.finished = progress.epoch == s.epochs
        record: dict[str, Any] = {
            **({"changed": progress.changed} if progress.changed else {}),
            "epoch": progress.epoch,
            "step": progress.step,
            "seconds": round(progress.seconds, 3),
            **({"skipped": progress.skipped} if progress.skipped else {}),
            **{f"train/{k}": v for k, v in self.means.means().items()},
        }
        self.means, progress.changed = EpochMeans(), []
        if self.sharded is not None:
            self.whole.load_state_dict(sharding.whole(self.model.state_dict()))
        if progress.epoch % s.validate_every == 0 or progress.finished:
            record |= {f"validation/{k}": v for k, v in self._validate().items()}
        # models first: a run that is killed in between repeats the epoch and writes them again
        if self.machine.writes:
            self._keep_models()
            self._report(record, bar)
        self.save()
        if self.machine.writes and self._figures_due():
            self._draw()

    def _validate(self) -> dict[str, float]:
        """Metrics of the evaluated weights, which become the best where they are."""
        self.evaluated.eval()
        values = self.problem.validate(self.evaluated)
        score = values[self.problem.monitor]
        if math.isfinite(score) and (self.best is None or score < self.best["score"]):
            state = self.evaluated.state_dict()
            weights = {name: value.detach().cpu().clone() for name, value in state.items()}
            self.best = {"score": score, "epoch": self.progress.epoch, "model": weights}
        return values

    def _keep_models(self) -> None:
        """Write best/ where this epoch is the best, final/ where it is the last."""
        epoch, about = self.progress.epoch, {"monitor": self.problem.monitor}
        if self.best is not None and self.best["epoch"] == epoch:
            score = {"score": self.best["score"], **about}
            model_files.save_model(self.folder / "best", self.evaluated, epoch, score)
        if self.progress.finished:
            model_files.save_model(self.folder / "final", self.evaluated, epoch, about)

    def _report(self, record: dict[str, Any], bar: tqdm[Any]) -> None:
        values = {k: v for k, v in record.items() if k not in ("changed", "epoch", "step")}
        self.tracker.log(values, record["step"])
        log.add_record(self.folder, record)
        if "train/loss" not in record:
            bar.write(f"epoch {record['epoch']}: no finite loss")
            return
        line = f"epoch {record['epoch']}/{self.settings.epochs}: loss {record['train/loss']:.4g}"
        monitor = self.problem.monitor
        monitored = record.get(f"validation/{monitor}")
        if monitored is not None:
            line += f", validation {monitor} {monitored:.4f}"
        bar.write(line)

    def _figures_due(self) -> bool:
        """Every so many epochs, and at the end; 0: never."""
        every = self.settings.figures_every
        return every > 0 and (self.progress.finished or self.progress.epoch % every == 0)

    def _draw(self) -> None:
        """Figures never stop a training."""
        epoch = self.progress.epoch
        try:
            folder, tag = self.folder / "figures", f"epoch{epoch:04d}"
            figures = self.problem.draw(self.evaluated, folder, tag)
        except Exception as error:
            tqdm.write(f"WARNING: no figures for epoch {epoch}: {error}", file=sys.stderr)
        else:
            for name, path in figures.items():
                self.tracker.figure(name, path, self.progress.step)

    def _leave(self, bar: tqdm[Any]) -> NoReturn:
        """Save and go, because of a signal. All ranks together."""
        path = self.save()
        self.signals.number = self.leaving
        if self.machine.world_size > 1:
            # a launcher that sees one rank leave may kill the others: nobody leaves before the
            # state is on disk
            dist.barrier()
        bar.close()
        if self.machine.writes:
            print(
                f"{self.signals.name}: state saved to {path} at epoch {self.progress.epoch},"
                f" step {self.progress.step}; the same command with run={self.folder.name} goes"
                " on from there",
                flush=True,
            )
        self.signals.leave(agreed=True)
