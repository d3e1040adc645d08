"""The loop, on a problem that is not ours: fitting a line."""

import itertools
import math
import os
import signal
import threading
import time

import pytest
import torch
from physicsnemo.core.module import Module
from torch import nn
from tqdm import tqdm

from physics_hybrid.cluster.machine import Machine, initialize
from physics_hybrid.cluster.signals import Requeue, Signals
from physics_hybrid.training import checkpoint, log
from physics_hybrid.training.settings import TrainingSettings
from physics_hybrid.training.tracker import TensorBoardTracker, Tracker, WandbTracker
from physics_hybrid.training.trainer import Trainer, TrainingStopped


class Line(Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        return self.layer(x)


class Points(list):
    def __init__(self, key):
        generator = torch.Generator().manual_seed(key)
        self.x = torch.randn(8, 4, generator=generator)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5, 3.0])[:, None]
        self.names = (f"points-{key}",)
        super().__init__(range(8))


class Fit:
    monitor = "error"

    def __init__(self, steps=5, poison=(), hook=None):
        self.steps_per_epoch, self.poison, self.hook, self.seen = steps, set(poison), hook, []

    def steps_left(self, epoch, done):
        return self.steps_per_epoch - sum(ranks * batches for ranks, batches in done)

    def train_batches(self, epoch, start, done):
        for i in range(
            self.steps_per_epoch - self.steps_left(epoch, done) + start, self.steps_per_epoch
        ):
            yield Points(100 * epoch + i)

    def loss(self, model, batch):
        key = int(batch.names[0].split("-")[1])
        self.seen.append(key)
        if self.hook:
            self.hook(key)
        value = (model(batch.x) - batch.y).square().mean()
        return (value * math.nan if key in self.poison else value), {"mse": value.detach()}

    def validate(self, model):
        batch = Points(9999)
        with torch.no_grad():
            return {"error": float((model(batch.x) - batch.y).square().mean())}

    def draw(self, model, folder, tag):
        return {}


def settings(**change):
    return TrainingSettings(
        **{
            **{
                "epochs": 3,
                "learning_rate": 0.05,
                "weight_decay": 0.0,
                "betas": (0.9, 0.99),
                "warmup_steps": 2,
                "final_learning_rate": 1e-4,
                "accumulate": 1,
                "precision": "float32",
                "clipping_mode": "norm",
                "clipping_threshold": 1.0,
                "clipping_eps": 1e-3,
                "ema": 0.0,
                "checkpoint_every": 2,
                "validate_every": 1,
                "figures_every": 10,
                "log_every": 1,
                "max_bad_steps": 3,
                "requeue_exit_code": 85,
            },
            **change,
        }
    )


def trainer(folder, problem=None, tracker=None, **change):
    initialize("cpu")
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    return Trainer(
        Line(),
        problem or Fit(),
        settings(**change),
        Machine(0, 1, torch.device("cpu")),
        folder,
        tracker or Tracker(),
        {},
        {},
    )


def weights(t):
    return torch.cat([p.detach().flatten() for p in t.evaluated.parameters()])


def test_it_learns_and_keeps_the_best(tmp_path):
    t = trainer(tmp_path, epochs=20)
    t.fit()
    assert t.best["score"] < 0.5 * Fit().validate(trainer(tmp_path / "fresh").model)["error"]
    assert (tmp_path / "best").is_dir()
    assert (tmp_path / "final").is_dir()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 20
    assert "train/mse" in lines[0]
    assert "train/gradient_norm" in lines[0]
    assert "train/parameter_norm" in lines[0]


def killed_after(batches):
    """A hook of `Fit`: the batch after so many is the end."""
    count = itertools.count()

    def kill(key):
        if next(count) == batches:
            raise KeyboardInterrupt

    return kill


@pytest.mark.parametrize(
    "change",
    [{}, {"ema": 0.9}, {"accumulate": 2}, {"precision": "bf16"}],
    ids=["plain", "ema", "accumulate", "bf16"],
)
def test_stopped_after_any_step_and_resumed_gives_the_same_bits(tmp_path, change):
    whole = trainer(tmp_path / "whole", **change)
    whole.fit()
    for stop in (1, 3, 6, 8):
        folder = tmp_path / f"cut{stop}"
        # 5 batches an epoch in steps of 2, 2, 1
        batches_before = stop if "accumulate" not in change else stop // 3 * 5 + 2 * (stop % 3)

        with pytest.raises(KeyboardInterrupt):
            trainer(
                folder, Fit(hook=killed_after(batches_before)), **{"checkpoint_every": 1, **change}
            ).fit()
        again = trainer(folder, **change)
        state = checkpoint.load_latest(folder)
        assert state["progress"]["step"] == stop
        torch.manual_seed(1234)  # the resumed process has another random history
        again.restore(state)
        again.fit()
        assert torch.equal(weights(again), weights(whole))
        assert again.best["score"] == whole.best["score"]
        assert len(log.records(folder)) == len(log.records(tmp_path / "whole")) == 3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_that_two_ranks_began_goes_on_with_what_they_left(tmp_path, accumulate):
    """Two ranks had three of their batches in the second epoch: six of the eight of one rank."""
    t = trainer(tmp_path, epochs=1, accumulate=accumulate)
    t.save()
    state = checkpoint.load_latest(tmp_path)
    state["progress"].update(epoch=1, position=3, step=8)
    state["world_size"] = 2
    problem = Fit(steps=8)
    t = trainer(tmp_path, problem, epochs=3, accumulate=accumulate)
    t.restore(state)
    total = 3 * t.updates_per_epoch
    assert t.progress.step == 2 * t.updates_per_epoch - t.updates_per_epoch // 4
    assert t.progress.done == [[2, 3]]
    t._epoch(tqdm(disable=True))
    assert problem.seen == [106, 107]
    assert t.progress.step == 2 * t.updates_per_epoch
    t.fit()
    assert problem.seen[2:] == list(range(200, 208))
    assert t.progress.step == total
    assert t.progress.done == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_and_leaves_with_its_code(tmp_path, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    t = trainer(
        tmp_path, Fit(hook=lambda key: os.kill(os.getpid(), number) if key == 101 else None)
    )
    with pytest.raises(Requeue) as left:
        t.fit()
    assert left.value.code == (130 if name == "SIGINT" else 85)
    progress = checkpoint.load_latest(tmp_path)["progress"]
    assert (progress["epoch"], progress["position"], progress["step"]) == (1, 2, 7)
    assert signal.getsignal(number) is before


class Starved(Fit):
    """Its data stop coming in the second epoch: a disk that hangs, say."""

    def train_batches(self, epoch, start, done):
        for i, batch in enumerate(super().train_batches(epoch, start, done)):
            if epoch == 1 and start + i == 3:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                time.sleep(600)
            yield batch


def test_ctrl_c_does_not_wait_for_data_that_do_not_come(tmp_path, monkeypatch):
    monkeypatch.setattr("physics_hybrid.cluster.signals.PATIENCE", 0.2)
    with pytest.raises(Requeue) as left:
        trainer(tmp_path, Starved()).fit()
    assert left.value.code == 130
    state = checkpoint.load_latest(tmp_path)
    assert (state["progress"]["epoch"], state["progress"]["position"]) == (1, 3)
    again, whole = trainer(tmp_path), trainer(tmp_path / "whole")
    again.restore(state)
    for t in (again, whole):
        t.fit()
    assert torch.equal(weights(again), weights(whole))


def test_non_finite_losses_are_skipped_counted_and_stop_at_three_in_a_row(tmp_path, capsys):
    t = trainer(tmp_path, Fit(poison=[1, 3]))
    t.fit()
    assert t.progress.skipped == 2
    assert torch.isfinite(weights(t)).all()
    assert "points-1" in capsys.readouterr().err
    t = trainer(tmp_path / "bad", Fit(poison=[101, 102, 103]))
    with pytest.raises(TrainingStopped, match="points-103.*latest_checkpoint.pt"):
        t.fit()
    assert torch.isfinite(checkpoint.load_latest(tmp_path / "bad")["model"]["layer.weight"]).all()


def test_accumulated_batches_are_one_big_batch(tmp_path):
    """Gradients of 2 batches of 8 summed with their weights are the gradient of one batch of 16."""
    t = trainer(tmp_path, clipping_mode="none", accumulate=2)
    both = [Points(0), Points(1)]
    t.step(both)
    ours = [p.grad.clone() for p in t.model.parameters()]
    x, y = torch.cat([b.x for b in both]), torch.cat([b.y for b in both])
    model = trainer(tmp_path / "b").model
    (model(x) - y).square().mean().backward()
    for a, b in zip(ours, model.parameters(), strict=True):
        assert torch.allclose(a, b.grad, rtol=1e-5)


def test_schedule_warms_up_then_falls_as_a_cosine(tmp_path):
    t = trainer(tmp_path, epochs=20)
    rates = [0.05 * t.optimisation.rate_factor(s) for s in range(101)]
    assert rates[0] == pytest.approx(0.025)
    assert rates[2] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(1e-4)
    assert rates[51] == pytest.approx((0.05 + 1e-4) / 2, rel=1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[2:]))


def test_a_model_that_does_not_fit_the_checkpoint_is_named(tmp_path):
    t = trainer(tmp_path)
    t.save()
    state = checkpoint.load_latest(tmp_path)
    state["model"].pop("layer.weight")
    with pytest.raises(checkpoint.CheckpointError, match="another model"):
        t.restore(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "training.epochs"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"precision": "half"}, "training.precision"),
        ({"ema": 1.5}, "training.ema"),
        ({"betas": [0.9, 1.0]}, r"each of training.betas must lie in \[0, 1\)"),
        ({"weight_decay": -1.0}, "training.weight_decay"),
        ({"warmup_steps": -1}, "training.warmup_steps"),
        ({"clipping_mode": "soft"}, "training.clipping.mode"),
        ({"clipping_threshold": 0.0}, "training.clipping.threshold"),
        ({"parallel": "tensor"}, "training.parallel"),
        ({"parallel": "fsdp", "ema": 0.9}, "fsdp is not built for training.ema=0.9"),
        ({"parallel": "fsdp", "clipping_mode": "agc"}, "fsdp is not built for .*mode=agc"),
        ({"parallel": "fsdp", "precision": "fp16"}, "fsdp is not built for .*precision=fp16"),
    ],
)
def test_settings_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)


@pytest.mark.slow
def test_wandb_offline_writes_and_without_a_key_never_asks(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    tracker = WandbTracker("p", "online")
    tracker.start(tmp_path, {"a": 1})
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert "logging offline" in capsys.readouterr().err
    assert list(tmp_path.glob("wandb/offline-run-*"))
    assert tracker.run_id
    again = WandbTracker("p", "offline")
    again.start(tmp_path, {}, tracker.run_id)
    assert again.run_id == tracker.run_id
    again.finish()


def test_tensorboard_writes(tmp_path):
    tracker = TensorBoardTracker()
    tracker.start(tmp_path, {})
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_broken_tracker_does_not_stop_training(tmp_path, monkeypatch, capsys):
    import wandb

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(OSError("no room")))
    trainer(tmp_path, tracker=(tracker := WandbTracker("p", "offline")))
    tracker.start(tmp_path, {})
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert "goes on without it" in capsys.readouterr().err


def get_signal(number):
    os.kill(os.getpid(), number)
    signal.sigtimedwait([], 0.1)


def test_signals_leave_at_once_or_wait_for_the_work_in_hand():
    with Signals(85) as signals:
        with pytest.raises(Requeue) as left:
            get_signal(signal.SIGTERM)
        # nothing was saved: the same again would come no further
        assert left.value.code == 128 + signal.SIGTERM
        signals.number, signals.saved = None, True
        with pytest.raises(Requeue) as left:
            get_signal(signal.SIGTERM)
        assert left.value.code == 85
        signals.number = None
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGINT
        assert signals.name == "SIGINT"
    assert not signals.active


def test_a_signal_during_the_last_validation_still_leaves_with_its_code(tmp_path):
    class Late(Fit):
        def validate(self, model):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().validate(model)

    t = trainer(tmp_path, Late(), epochs=1)
    with pytest.raises(Requeue):
        t.fit()
    assert checkpoint.load_latest(tmp_path)["progress"]["finished"]


@pytest.mark.parametrize(("every", "epochs"), [(0, []), (2, [2, 3]), (5, [3])])
def test_figures_are_drawn_every_so_many_epochs_and_at_the_end_or_never(tmp_path, every, epochs):
    drawn = []

    class Drawing(Fit):
        def draw(self, model, folder, tag):
            drawn.append(int(tag.removeprefix("epoch")))
            return {}

    trainer(tmp_path, Drawing(), figures_every=every).fit()
    assert drawn == epochs


def test_figures_never_stop_a_training(tmp_path, capsys):
    class Ugly(Fit):
        def draw(self, model, folder, tag):
            raise ValueError("vmin must be less than vmax")

    trainer(tmp_path, Ugly()).fit()
    assert "no figures for epoch 3: vmin" in capsys.readouterr().err
