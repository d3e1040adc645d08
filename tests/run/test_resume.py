"""A run goes on with more epochs, another batch size or another learning rate; nothing else."""

import json
import math

import numpy as np
import pytest

from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.run import folder as run_folder
from physics_hybrid.training import checkpoint
from physics_hybrid.training.order import Endless, Stored
from tests.test_seam import Pendulum, train_here

#: 60 samples in batches of 4: 15 steps an epoch.
OPTIONS = ("run=r", "evaluation.after_training=false", "training.warmup_steps=5")


def go(folder, *overrides):
    train_here(folder, *OPTIONS, *overrides)


def stop_after(monkeypatch, steps: int) -> list[str]:
    """The training dies when it has had so many batches; the names of the samples it had."""
    seen: list[str] = []
    batches = Pendulum.train_batches

    def limited(self, epoch, start, done):
        for batch in batches(self, epoch, start, done):
            if len(seen) >= 4 * steps:
                raise RuntimeError("killed")
            seen.extend(batch.names)
            yield batch

    monkeypatch.setattr(Pendulum, "train_batches", limited)
    return seen


def log(folder):
    return [json.loads(line) for line in (folder / "runs/r/log.jsonl").read_text().splitlines()]


def rate(step: int, total: int, peak: float) -> float:
    """Warm-up of 5 steps, then a cosine to conf's 1e-5."""
    share = (step - 5) / (total - 5)
    return 1e-5 + (peak - 1e-5) * 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.slow
def test_more_epochs_lay_the_schedule_anew(tmp_path, capsys):
    go(tmp_path, "training.epochs=2")
    assert "going on" not in capsys.readouterr().out
    go(tmp_path, "training.epochs=4")
    said = capsys.readouterr().out
    assert "going on from epoch 2, step 30, with other settings (training.epochs: 2 -> 4)" in said
    assert f"from {rate(30, 60, 0.02):.3g} here" in said
    records = log(tmp_path)
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    assert [r.get("changed") for r in records] == [
        None,
        None,
        ["training.epochs: 2 -> 4"],
        None,
    ]
    third = np.mean([rate(step, 60, 0.02) for step in range(30, 45)])
    assert records[2]["train/learning_rate"] == pytest.approx(third, rel=1e-9)
    assert run_folder.load_config(tmp_path / "runs/r")["training"]["epochs"] == 4
    with pytest.raises(CheckpointError, match="has trained 4 epochs, and training.epochs=3 leaves"):
        go(tmp_path, "training.epochs=3")
    with pytest.raises(CheckpointError, match="leaves none for training.learning_rate: ask"):
        go(tmp_path, "training.epochs=4", "training.learning_rate=0.01")


@pytest.mark.slow
def test_another_learning_rate_and_batch_size_in_the_middle_of_an_epoch(
    tmp_path, monkeypatch, capsys
):
    """5 of 15 batches of the second epoch are done: the other 40 samples come once, in 7 batches of
    6; killed and started again it still has what was done.
    """
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        with pytest.raises(RuntimeError, match="killed"):
            go(tmp_path)
    others = ("data.batch_size=6", "training.learning_rate=0.004")
    with monkeypatch.context() as patch:
        seen = stop_after(patch, 4)  # 3 batches of 6
        with pytest.raises(RuntimeError, match="killed"):
            go(tmp_path, *others)
        assert len(seen) == 18
    said = capsys.readouterr().out
    # 10 steps of 6 an epoch; 20 - 7
    assert "going on from epoch 1, step 13, with other settings (data.batch_size: 4 -> 6;" in said
    assert f"from {rate(13, 30, 0.004):.3g} here" in said
    with monkeypatch.context() as patch:
        rest = stop_after(patch, 100)
        go(tmp_path, *others)
    second = rest[: 40 - 18]
    train = Stored(60, 4).batches((0, 1))
    first = {f"train-{i}" for batch in train[:5] for i in batch}
    assert sorted([*seen, *second]) == sorted({f"train-{i}" for i in range(60)} - first)
    changed = log(tmp_path)[1]["changed"]
    assert changed == ["data.batch_size: 4 -> 6", "training.learning_rate: 0.02 -> 0.004"]
    state = checkpoint.load_latest(tmp_path / "runs/r")
    assert state["progress"]["step"] == 30
    assert state["optimizer"]["param_groups"][0]["initial_lr"] == 0.004


def test_everything_else_that_differs_is_refused(tmp_path):
    go(tmp_path, "training.epochs=1")
    for other in ("training.weight_decay=0.5", "seed=3", "model.width=8"):
        with pytest.raises(CheckpointError, match=other.split("=")[0]):
            go(tmp_path, "training.epochs=2", other)


@pytest.mark.parametrize(
    "done",
    [
        [(1, 3, 4)],  # 12 of batches of 4
        [(2, 1, 4), (1, 2, 2)],  # 8 and 4, on two ranks and on one
        [(1, 4)],  # as a state of before says it: of the present size, 3
    ],
)
def test_what_was_done_in_batches_of_another_size_is_not_done_again(done):
    order = Stored(count=30, batch_size=3)
    left = [i for batch in order.batches((7, 0), done) for i in batch]
    whole = [i for batch in order.batches((7, 0)) for i in batch]
    assert left == whole[12:]
    endless = Endless(per_epoch=30, batch_size=3)
    assert endless.steps(done) == 6
    assert endless.numbers(2, 0, done) == range(72, 75)


def test_a_run_of_before_there_were_blocks_goes_on_with_its_own():
    from physics_hybrid.run.folder import changed

    before = {"model": {"backbone": {"width": 8}}}
    now = {"model": {"backbone": {"width": 8, "block": "zero_linear"}}}
    assert changed(before, now) == {}
    assert changed(before, before) == {}
    now["model"]["backbone"]["block"] = "rezero"
    assert changed(before, now) == {"model.backbone.block": ("zero_linear", "rezero")}
    assert changed({"problem": {}}, {"problem": {"cfl": 0.8}}) == {}
    assert changed({"problem": {}}, {"problem": {"cfl": 0.6}}) == {"problem.cfl": (0.8, 0.6)}
