"""Checkpoints survive what machines do to them."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from physics_hybrid.models.model_files import CheckpointError, export_model, load_model, save_model
from physics_hybrid.training import checkpoint
from physics_hybrid.training.checkpoint import load_latest, load_state, save_state
from tests.conftest import ROOT


def state(step: int) -> dict:
    return {
        "progress": {"epoch": 0, "step": step},
        "weights": torch.randn(5000, generator=torch.Generator().manual_seed(step)),
        "rng": [checkpoint.rng_state()],
    }


def test_round_trip_keeps_the_one_before(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, state(step))
    assert load_latest(tmp_path)["progress"]["step"] == 2
    assert load_state(tmp_path / checkpoint.PREVIOUS)["progress"]["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [checkpoint.PREVIOUS, checkpoint.LATEST]


def test_a_file_cut_anywhere_is_refused_and_the_previous_used(tmp_path, capsys):
    for step in (1, 2):
        save_state(tmp_path, state(step))
    latest = tmp_path / checkpoint.LATEST
    whole = latest.read_bytes()
    for cut in [0, 1, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 20)]:
        latest.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="damaged"):
            load_state(latest)
        assert load_latest(tmp_path)["progress"]["step"] == 1
    assert "WARNING" in capsys.readouterr().err


def test_a_flipped_bit_is_found(tmp_path):
    save_state(tmp_path, state(1))
    latest = tmp_path / checkpoint.LATEST
    whole = bytearray(latest.read_bytes())
    whole[len(whole) // 2] ^= 1
    latest.write_bytes(whole)
    with pytest.raises(CheckpointError, match="checksum|damaged"):
        load_state(latest)


def test_killed_between_the_two_renames(tmp_path):
    """latest has become previous, the new file has no name yet: the previous one is used."""
    save_state(tmp_path, state(1))
    os.replace(tmp_path / checkpoint.LATEST, tmp_path / checkpoint.PREVIOUS)
    assert load_latest(tmp_path)["progress"]["step"] == 1


def test_nothing_and_nothing_readable_are_different(tmp_path):
    assert load_latest(tmp_path) is None
    (tmp_path / checkpoint.LATEST).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        load_latest(tmp_path)


@pytest.mark.program
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """The kernel itself refuses: a limit on file size in another process."""
    save_state(tmp_path, state(1))
    code = (
        "import resource, signal, sys, torch\nfrom pathlib import Path\nfrom"
        " physics_hybrid.training.checkpoint import save_state\nsignal.signal(signal.SIGXFSZ,"
        " signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000,"
        " 100_000))\nsave_state(Path(sys.argv[1]), {'progress': {'epoch': 9, 'step': 9}, 'weights':"
        " torch.zeros(1_000_000)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "could not write" in done.stderr
    assert "is intact" in done.stderr
    assert load_latest(tmp_path)["progress"]["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.LATEST]


def test_random_states_come_back():
    torch.manual_seed(1)
    np.random.seed(2)  # the state that is kept  # noqa: NPY002
    random.seed(3)
    kept = checkpoint.rng_state()

    def draw():
        legacy = np.random.rand(3).tolist()  # the state that is kept  # noqa: NPY002
        return (torch.rand(3).tolist(), legacy, random.random())

    first = draw()
    checkpoint.set_rng_state(kept)
    assert draw() == first


def test_pickled_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code was run",))

    torch.save({"x": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_state(tmp_path / "trap.pt")


def test_models_in_physicsnemos_format_replace_each_other_whole(tmp_path, monkeypatch):
    from physicsnemo.utils.checkpoint import load_checkpoint

    from physics_hybrid.cluster.machine import initialize
    from physics_hybrid.models.fno import ResidualFNO

    initialize("cpu")
    models = [ResidualFNO(2, width=4, depth=1, modes=[2, 2, 2]) for _ in range(2)]
    save_model(tmp_path / "best", models[0], 1, {"score": 0.5})
    save_model(tmp_path / "best", models[1], 2, {"score": 0.4})
    assert [p.name for p in (tmp_path / "best").glob("*.mdlus")] == ["ResidualFNO.0.2.mdlus"]
    assert torch.equal(load_model(tmp_path / "best").lift[0].weight, models[1].lift[0].weight)
    other = ResidualFNO(2, width=4, depth=1, modes=[2, 2, 2])
    load_checkpoint(str(tmp_path / "best"), models=other)  # PhysicsNeMo's own tool reads it
    assert torch.equal(other.lift[0].weight, models[1].lift[0].weight)

    def full(path, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("physicsnemo.utils.checkpoint.save_checkpoint", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(tmp_path / "best", models[0], 3, {})
    assert [p.name for p in (tmp_path / "best").glob("*.mdlus")] == ["ResidualFNO.0.2.mdlus"]
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_a_damaged_model_is_named(tmp_path):
    (tmp_path / "a.mdlus").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="a.mdlus"):
        load_model(tmp_path / "a.mdlus")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no .mdlus file"):
        load_model(tmp_path / "empty")


def test_models_are_saved_without_git_and_inside_a_repository_without_a_commit(
    tmp_path, monkeypatch
):
    from physics_hybrid.cluster.machine import initialize
    from physics_hybrid.models.fno import ResidualFNO

    initialize("cpu")
    model = ResidualFNO(2, width=4, depth=1, modes=[2, 2, 2])
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "best", model, 1, {})
    monkeypatch.setenv("PATH", str(tmp_path))
    save_model(tmp_path / "run [1]" / "best", model, 1, {})  # a PBS array job's name
    assert load_model(tmp_path / "run [1]" / "best").modes == [2, 2, 2]
    scratch = tmp_path / "pbs.48213[7].pbs01"  # and its TMPDIR
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    save_model(tmp_path / "best", model, 2, {})
    assert [p.name for p in (tmp_path / "best").glob("*.mdlus")] == ["ResidualFNO.0.2.mdlus"]
    assert not list(scratch.iterdir())


def test_the_only_copy_of_a_model_is_put_back(tmp_path, monkeypatch):
    """Killed between the two renames of `save_model`, and then the disk is full."""
    from physics_hybrid.cluster.machine import initialize
    from physics_hybrid.models.fno import ResidualFNO

    initialize("cpu")
    model = ResidualFNO(2, width=4, depth=1, modes=[2, 2, 2])
    save_model(tmp_path / "best", model, 1, {})
    os.replace(tmp_path / "best", tmp_path / ".best.old")

    def full(path, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("physicsnemo.utils.checkpoint.save_checkpoint", full)
    with pytest.raises(CheckpointError):
        save_model(tmp_path / "best", model, 2, {})
    assert load_model(tmp_path / "best").modes == [2, 2, 2]


@pytest.fixture
def network():
    from tests.test_seam import PendulumNetwork

    def call(width: int) -> PendulumNetwork:
        return PendulumNetwork(width, 0.0, 1.0)

    return call


@pytest.mark.parametrize(
    "name", ["thigh.mdlus", "my.model.v2.mdlus", "Model.0.12.mdlus", "7.mdlus"]
)
def test_the_only_model_of_a_folder_is_taken_whatever_its_name(tmp_path, network, name):
    export_model(tmp_path / name, network(3))
    (tmp_path / ".new.half.mdlus").write_bytes(b"cut short")
    assert load_model(tmp_path).correction[0].out_features == 3


def test_of_several_models_the_last_epoch_is_taken_or_the_choice_is_asked_for(tmp_path, network):
    for epoch in (2, 9, 10):
        export_model(tmp_path / f"Network.0.{epoch}.mdlus", network(epoch))
    assert load_model(tmp_path).correction[0].out_features == 10
    export_model(tmp_path / "thigh.mdlus", network(1))
    with pytest.raises(CheckpointError, match=r"Network.0.9.mdlus, thigh.mdlus. Give one of the"):
        load_model(tmp_path)
