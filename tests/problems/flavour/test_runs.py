"""The flavour closure gets what a run has: killed and started again it comes to the same bits, two
ranks train what one does.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import ROOT
from tests.problems.flavour.test_learning import TINY, configured, small

#: No chance in a step: two ranks draw other masks than one.
PLAIN = [
    *TINY,
    "training.epochs=3",
    "training.checkpoint_every=1",
    "model.network.dropout=0.0",
    "evaluation.after_training=false",
]


def weights(run):
    from physics_hybrid.training import checkpoint

    state = checkpoint.load_latest(run)
    return torch.cat([v.flatten().double() for v in state["model"].values()])


def words(folder, run, *overrides):
    return [f"runs_folder={folder}", f"run={run}", f"data.path={folder / 'set.h5'}", *overrides]


def started(launcher, folder, run, *overrides):
    """train.py as it is typed."""
    named = {word.split("=")[0] for word in overrides}
    plain = [word for word in PLAIN if word.split("=")[0] not in named]
    return subprocess.Popen(
        [sys.executable, *launcher, *plain, *words(folder, run, *overrides)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(process) -> str:
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    return output


def train_here(folder, run, *overrides):
    from physics_hybrid.run.train import train

    return train(configured(*PLAIN[len(TINY) :], *words(folder, run, *overrides)))


@pytest.fixture
def folder(tmp_path):
    small(tmp_path / "set.h5")
    return tmp_path


@pytest.mark.program
def test_killed_and_started_again_as_it_is_typed_it_comes_to_the_same_bits(folder, capsys):
    size = "data.batch_size=2"
    process = started(["train.py"], folder, "killed", size)
    previous = folder / "killed" / "latest_checkpoint.previous.pt"
    deadline = time.monotonic() + 120
    while not previous.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    train_here(folder, "killed", size)
    assert "going on from epoch" in capsys.readouterr().out
    whole = train_here(folder, "whole", size)
    assert torch.equal(weights(folder / "killed"), weights(whole))
    assert (whole / "figures" / "training.png").exists()


@pytest.mark.cluster
def test_two_ranks_train_what_one_does_with_the_same_global_batch(folder):
    launcher = ["-m", "physics_hybrid", "torchrun", "--standalone", "--nproc-per-node", "2"]
    two = started([*launcher, "train.py"], folder, "two", "data.batch_size=4", "training.epochs=1")
    assert "rank 0 of 2" in finished(two)
    one, half = (
        train_here(folder, f"one-{size}", f"data.batch_size={size}", "training.epochs=1")
        for size in (8, 4)
    )
    # Adam divides gradients that are rounding by themselves: the norm, and what is no such thing
    apart, other = ((weights(run) - weights(one)).norm() for run in (folder / "two", half))
    assert apart < 0.02 * other
