"""The training loop. It knows no physics: a problem brings batches, loss, validation and figures.

What it promises: killed at any moment and started again, a training continues to the same weights
as one never killed; a signal is answered with a checkpoint; a non-finite loss never reaches the
weights.

Several processes train one model (DistributedDataParallel). At every step each has as many samples
as the others, so that the mean of their gradients is the gradient of the mean; one small all-reduce
a step carries losses and signals, and every rank decides alike. Rank 0 alone writes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.cluster.signals import Signals
from physics_hybrid.models import model_files
from physics_hybrid.problem import Problem
from physics_hybrid.training import checkpoint
from physics_hybrid.training.clipping import clipper
from physics_hybrid.training.tracker import Tracker


@dataclass(frozen=True)
class TrainingSettings:
    """conf/training, one field a key; see the comments there."""

    epochs: int
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_steps: int
    final_learning_rate: float
    accumulate: int
    precision: str
    clipping_mode: str
    clipping_threshold: float
    clipping_eps: float
    ema: float
    checkpoint_every: int
    validate_every: int
    figures_every: int
    log_every: int
    max_bad_steps: int
    requeue_exit_code: int

    def __post_init__(self):
        for name in (
            "epochs",
            "accumulate",
            "checkpoint_every",
            "validate_every",
            "figures_every",
            "log_every",
            "max_bad_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1; got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"training.learning_rate must be > 0; got {self.learning_rate}")
        if self.precision not in ("float32", "bf16", "fp16"):
            raise ValueError(
                f"training.precision must be float32, bf16 or fp16; got {self.precision!r}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"training.ema must lie in [0, 1) (0: off); got {self.ema}")


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why and which checkpoint is good."""


class Trainer:
    def __init__(
        self,
        model: nn.Module,
        problem: Problem[Any, Any],
        settings: TrainingSettings,
        machine: Machine,
        folder: Path,
        tracker: Tracker,
        config: dict,
        normalisation: dict,
        signals: Signals | None = None,
    ):
        self.model, self.problem, self.settings, self.machine = (
            model.to(machine.device),
            problem,
            settings,
            machine,
        )
        self.folder, self.tracker, self.config, self.normalisation = (
            Path(folder),
            tracker,
            config,
            normalisation,
        )
        s = settings
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=s.learning_rate,
            weight_decay=s.weight_decay,
            betas=tuple(s.betas),
        )
        self.total_steps = s.epochs * self.updates_per_epoch
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._schedule)
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=s.precision == "fp16")
        self.averaged = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(s.ema), use_buffers=True)
            if s.ema
            else None
        )
        self.network: nn.Module = model
        if machine.world_size > 1:
            devices = [machine.device] if machine.device.type == "cuda" else None
            with warnings.catch_warnings():
                # broadcast_buffers gets another name in torch 2.15
                warnings.simplefilter("ignore", FutureWarning)
                self.network = DistributedDataParallel(
                    model, device_ids=devices, broadcast_buffers=False
                )
        self.clip = clipper(model, s.clipping_mode, s.clipping_threshold, s.clipping_eps)
        # position: batches of the epoch; done: [ranks, batches] of those that other numbers of
        # ranks had before
        self.progress = {
            "epoch": 0,
            "position": 0,
            "done": [],
            "step": 0,
            "bad_steps": 0,
            "skipped": 0,
            "seconds": 0.0,
            "finished": False,
        }
        self.epoch_sums: dict[str, float] = {}
        self.best: dict | None = None
        self.signals = signals or Signals(settings.requeue_exit_code)
        self.leaving: int | None = None  # a signal that all ranks know of

    # --- schedule

    @property
    def updates_per_epoch(self) -> int:
        return math.ceil(self.problem.steps_per_epoch / self.settings.accumulate)

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine to final_learning_rate (Loshchilov and Hutter, SGDR, ICLR
        2017).
        """
        s = self.settings
        if step < s.warmup_steps:
            return (step + 1) / s.warmup_steps
        share = min(1.0, (step - s.warmup_steps) / max(1, self.total_steps - s.warmup_steps))
        floor = s.final_learning_rate / s.learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are validated and kept: the moving average where there is one."""
        return self.averaged.module if self.averaged is not None else self.model

    # --- state ------------------------------------------------------------------------------------

    def state(self) -> dict:
        """Everything to go on from. With several ranks all of them must call it: each brings its
        random states.
        """
        rng = [checkpoint.rng_state()]
        if self.machine.world_size > 1:
            rng = [None] * self.machine.world_size
            dist.all_gather_object(rng, checkpoint.rng_state())
        return {
            "format": 1,
            "model": self.model.state_dict(),
            "ema": self.averaged.state_dict() if self.averaged is not None else None,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": dict(self.progress),
            "epoch_sums": dict(self.epoch_sums),
            "rng": rng,
            "world_size": self.machine.world_size,
            "normalisation": self.normalisation,
            "config": self.config,
            "tracker_run": self.tracker.run_id,
        }

    def save(self) -> Path:
        """Collect the state of all ranks; rank 0 writes it."""
        state = self.state()
        path = (
            checkpoint.save_state(self.folder, state)
            if self.machine.writes
            else self.folder / checkpoint.LATEST
        )
        self.signals.saved = True
        return path

    def restore(self, state: dict) -> None:
        """Go on from a state that `state` gave. Raises CheckpointError where the model does not
        fit.
        """
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise checkpoint.CheckpointError(
                f"the checkpoint in {self.folder} holds another model than the configuration builds"
                f" ({str(error).splitlines()[1].strip()}). Use another run=NAME, or the"
                " configuration saved beside it"
            ) from error
        if self.averaged is not None and state["ema"] is not None:
            self.averaged.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress, self.epoch_sums, self.best = (
            {**self.progress, **state["progress"]},
            dict(state["epoch_sums"]),
            state["best"],
        )
        self.progress["finished"] = self.progress["epoch"] >= self.settings.epochs
        if self.machine.rank < len(state["rng"]):
            checkpoint.set_rng_state(state["rng"][self.machine.rank])
        if state["world_size"] != self.machine.world_size:
            self._reshard(state["world_size"])
        if self.machine.world_size > 1:
            everyone: list = [None] * self.machine.world_size
            dist.all_gather_object(
                everyone, (self.progress["epoch"], self.progress["position"], self.progress["step"])
            )
            if len(set(everyone)) > 1:
                raise checkpoint.CheckpointError(
                    f"ranks have read different states from {self.folder} (epoch, position, step:"
                    f" {everyone}): a node does not see the newest file. Start again"
                )

    def _reshard(self, before: int) -> None:
        """Go on with another number of ranks: the samples of the epoch that are left come in larger
        or smaller global batches, and the step is
        counted anew from the end of the epoch."""
        progress = self.progress
        if progress["position"]:
            progress["done"] = [*progress["done"], [before, progress["position"]]]
            progress["position"] = 0
        progress["step"] = (progress["epoch"] + 1) * self.updates_per_epoch - math.ceil(
            self._length() / self.settings.accumulate
        )
        self.scheduler.last_epoch = progress["step"]
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.base_lrs):
            group["lr"] = rate * self._schedule(progress["step"])
        self.scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _length(self) -> int:
        """Batches of the present epoch, without those of other numbers of ranks."""
        done = self.progress["done"]
        return (
            self.problem.steps_left(self.progress["epoch"], done)
            if done
            else self.problem.steps_per_epoch
        )

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
            bar = tqdm(
                total=self.total_steps,
                initial=self.progress["step"],
                unit="step",
                desc="training",
                disable=not self.machine.writes,
                mininterval=0.5 if sys.stderr.isatty() else 10.0,
                dynamic_ncols=True,
            )
            with bar:
                while self.progress["epoch"] < self.settings.epochs:
                    self._epoch(bar)
            self.leaving = self._signal_anywhere()
            # it came while the last epoch was finished: nothing is left to save
            if self.leaving is not None:
                self.signals.number = self.leaving
                self.signals.leave(agreed=True)

    def _epoch(self, bar: tqdm) -> None:
        progress = self.progress
        self.model.train()
        with contextlib.closing(
            self.problem.train_batches(progress["epoch"], progress["position"], progress["done"])
        ) as batches:
            self._steps(batches, bar)
        self._finish_epoch(bar)

    def _steps(self, batches: Iterator[Any], bar: tqdm) -> None:
        s, progress, length = self.settings, self.progress, self._length()
        while progress["position"] < length:
            started = time.perf_counter()
            share = min(s.accumulate, length - progress["position"])
            try:
                taken = [next(batches) for _ in range(share)]
            except RuntimeError:
                if self.signals.number is None or self.machine.world_size > 1:
                    raise
                self.leaving = self.signals.number  # it has ended the processes that read data, too
                self._leave(bar)
            values = self.step(taken)
            progress["position"] += share
            progress["step"] += 1
            progress["seconds"] += time.perf_counter() - started
            for name, value in values.items():
                if math.isfinite(value):
                    self.epoch_sums[name] = self.epoch_sums.get(name, 0.0) + value
                    self.epoch_sums[f"n/{name}"] = self.epoch_sums.get(f"n/{name}", 0.0) + 1
            bar.update(1)
            bar.set_postfix(
                epoch=f"{progress['epoch'] + 1}/{s.epochs}",
                loss=f"{values['loss']:.4g}",
                refresh=False,
            )
            if progress["step"] % s.log_every == 0 and self.machine.writes:
                self.tracker.log({f"train/{k}": v for k, v in values.items()}, progress["step"])
            if self.leaving is not None:
                self._leave(bar)
            if progress["step"] % s.checkpoint_every == 0 and progress["position"] < length:
                self.save()

    def step(self, batches: list) -> dict[str, float]:
        """One optimiser step on the mean loss of some batches. A non-finite loss or gradient leaves
        the weights alone.
        """
        progress = self.progress
        self.optimizer.zero_grad(set_to_none=True)
        count = sum(len(b) for b in batches)
        sums: dict[str, Tensor] = {}
        for batch in batches:
            last = batch is batches[-1]
            quiet = (
                contextlib.nullcontext()
                if last or self.network is self.model
                else self.network.no_sync()
            )
            with quiet:
                with self._autocast():
                    loss, terms = self.problem.loss(self.network, batch)
                weight = len(batch) / count
                self.scaler.scale(loss * weight).backward()
            for name, value in {"loss": loss.detach(), **terms}.items():
                sums[name] = sums.get(name, 0.0) + value * weight
        self.scaler.unscale_(self.optimizer)
        norm = self.clip()
        values = self._agree(sums)
        values["gradient_norm"] = float(norm)
        values["parameter_norm"] = float(
            nn.utils.get_total_norm([p.detach() for p in self.model.parameters()])
        )
        values["learning_rate"] = self.scheduler.get_last_lr()[0]
        # a scaler skips non-finite gradients itself and halves its scale, at first often; a scale
        # below 1 is no longer a search
        searching = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not math.isfinite(values["loss"]) or (
            not math.isfinite(values["gradient_norm"]) and not searching
        ):
            self._bad_step(batches, values)
        else:
            progress["bad_steps"] = 0
            self.scaler.step(self.optimizer)
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
        self.scaler.update()
        self.scheduler.step()
        return values

    def _agree(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Means over ranks; and a signal that reached one rank reaches all. All ranks act on what
        was exchanged here, never on a signal that
        came since: they would part ways."""
        packed = torch.stack([*sums.values()])
        self.leaving = self.signals.number
        if self.machine.world_size > 1:
            packed = torch.cat([packed, packed.new_tensor([float(self.leaving or 0)])])
            everyone = [torch.empty_like(packed) for _ in range(self.machine.world_size)]
            dist.all_gather(everyone, packed)
            together = torch.stack(everyone)
            self.leaving = int(together[:, -1].max()) or None
            packed = together[:, :-1].mean(dim=0)
        return dict(zip(sums, packed.tolist()))

    def _signal_anywhere(self) -> int | None:
        """A signal that any rank has had. All must call it."""
        number = torch.tensor([self.signals.number or 0], device=self.machine.device)
        if self.machine.world_size > 1:
            dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number) or None

    def _autocast(self):
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(
            self.settings.precision, torch.float32
        )
        return torch.autocast(
            self.machine.device.type, dtype=dtype, enabled=self.settings.precision != "float32"
        )

    def _bad_step(self, batches: list, values: dict[str, float]) -> None:
        progress = self.progress
        progress["bad_steps"] += 1
        progress["skipped"] += 1
        names = [n for b in batches for n in b.names]
        what = (
            f"loss {values['loss']:g}, gradient norm {values['gradient_norm']:g} at step"
            f" {progress['step']} (samples {', '.join(names[:8])})"
        )
        tqdm.write(f"WARNING: {what}: step skipped", file=sys.stderr)
        if progress["bad_steps"] >= self.settings.max_bad_steps:
            last = self.folder / checkpoint.LATEST
            raise TrainingStopped(
                f"{progress['bad_steps']} steps in a row were not finite; the last: {what}. "
                + (
                    f"The last good state is {last}"
                    if last.exists()
                    else "No checkpoint was written yet"
                )
                + "; lower training.learning_rate or look at these samples"
            )

    def _finish_epoch(self, bar: tqdm) -> None:
        s, progress = self.settings, self.progress
        progress["epoch"] += 1
        progress["position"], progress["done"] = 0, []
        last = progress["epoch"] == s.epochs
        progress["finished"] = last
        record: dict[str, Any] = {
            "epoch": progress["epoch"],
            "step": progress["step"],
            "seconds": round(progress["seconds"], 3),
        }
        record |= {
            f"train/{k}": v / self.epoch_sums[f"n/{k}"]
            for k, v in self.epoch_sums.items()
            if not k.startswith("n/")
        }
        self.epoch_sums = {}
        if progress["epoch"] % s.validate_every == 0 or last:
            self.evaluated.eval()
            values = self.problem.validate(self.evaluated)
            record |= {f"validation/{k}": v for k, v in values.items()}
            score = values[self.problem.monitor]
            if math.isfinite(score) and (self.best is None or score < self.best["score"]):
                weights = {
                    k: v.detach().cpu().clone() for k, v in self.evaluated.state_dict().items()
                }
                self.best = {"score": score, "epoch": progress["epoch"], "model": weights}
        improved = self.best is not None and self.best["epoch"] == progress["epoch"]
        # models first: a run that is killed in between repeats the epoch and writes them again
        if self.machine.writes:
            if improved:
                model_files.save_model(
                    self.folder / "best",
                    self.evaluated,
                    progress["epoch"],
                    {"score": self.best["score"], "monitor": self.problem.monitor},
                )
            if last:
                model_files.save_model(
                    self.folder / "final",
                    self.evaluated,
                    progress["epoch"],
                    {"monitor": self.problem.monitor},
                )
            self._report(record, bar)
        self.save()
        if self.machine.writes and (progress["epoch"] % s.figures_every == 0 or last):
            self._draw()

    def _draw(self) -> None:
        """Figures never stop a training."""
        try:
            figures = self.problem.draw(
                self.evaluated, self.folder / "figures", f"epoch{self.progress['epoch']:04d}"
            )
        except Exception as error:
            tqdm.write(
                f"WARNING: no figures for epoch {self.progress['epoch']}: {error}", file=sys.stderr
            )
            return
        for name, path in figures.items():
            self.tracker.figure(name, path, self.progress["step"])

    def _report(self, record: dict, bar: tqdm) -> None:
        self.tracker.log(
            {k: v for k, v in record.items() if k not in ("epoch", "step")}, record["step"]
        )
        path = self.folder / "log.jsonl"
        kept = []
        # a resumed training repeats what came after its checkpoint: keep one record an epoch
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    old = json.loads(line)
                except json.JSONDecodeError:  # a line cut by a kill
                    continue
                if old["epoch"] < record["epoch"]:
                    kept.append(line)
        temporary = path.with_name(f".{path.name}")
        temporary.write_text("\n".join([*kept, json.dumps(record)]) + "\n")
        os.replace(temporary, path)
        monitored = record.get(f"validation/{self.problem.monitor}")
        note = (
            f", validation {self.problem.monitor} {monitored:.4f}" if monitored is not None else ""
        )
        bar.write(
            f"epoch {record['epoch']}/{self.settings.epochs}: loss {record['train/loss']:.4g}{note}"
            if "train/loss" in record
            else f"epoch {record['epoch']}: no finite loss"
        )

    def _leave(self, bar: tqdm) -> None:
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
                f"{self.signals.name}: state saved to {path} at epoch {self.progress['epoch']},"
                f" step {self.progress['step']}; the same command with run={self.folder.name} goes"
                " on from there",
                flush=True,
            )
        self.signals.leave(agreed=True)
