"""A run folder belongs to one training."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import psutil
import pytest

from physics_hybrid.run import folder as run_folder
from physics_hybrid.run import owner
from physics_hybrid.run.owner import FolderTaken, Owner, owned
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from physics_hybrid.run.owner import FolderTaken, owned
try:
    with owned(Path(sys.argv[1]), 60):
        print("owns", flush=True)
        time.sleep(float(sys.argv[2]))
except FolderTaken as error:
    print(error, flush=True)
"""


def holder(folder, seconds: float) -> subprocess.Popen:
    """Another process that owns the folder, or prints why it does not."""
    words = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def claim(folder, of: Owner, age: float = 0.0):
    """What a process left there that touched it `age` seconds ago."""
    path = folder / owner.CLAIM.format(1)
    path.write_text(json.dumps(asdict(of)))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def elsewhere():
    return replace(Owner.this(), host="node17", process=4711)


@pytest.mark.slow
def test_of_several_that_start_at_once_one_owns_the_folder_and_is_named(tmp_path):
    processes = [holder(tmp_path, 3) for _ in range(3)]
    said = [process.stdout.readline().strip() for process in processes]
    winner = said.index("owns")
    others = [line for line in said if line != "owns"]
    assert len(others) == 2
    for line in others:
        assert f"process {processes[winner].pid} on " in line, line
        assert str(tmp_path) in line
    for process in processes:
        process.wait()
    assert not list(tmp_path.iterdir())


def test_after_kill_9_the_folder_is_free_at_once(tmp_path):
    process = holder(tmp_path, 60)
    assert process.stdout.readline().strip() == "owns"
    refused = rf"process {process.pid} on .*another run=NAME"
    with pytest.raises(FolderTaken, match=refused), owned(tmp_path, 60):
        pass
    process.send_signal(signal.SIGKILL)  # not waited for: a zombie is dead
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    started = time.monotonic()
    with owned(tmp_path, 60):
        assert [p.name for p in tmp_path.iterdir()] == ["owner.2.json"]
    assert time.monotonic() - started < 1
    assert not list(tmp_path.iterdir())
    process.wait()


def test_a_process_number_that_another_process_has_now_is_no_owner(tmp_path):
    claim(tmp_path, replace(Owner.this(), started=Owner.this().started - 3600))
    with owned(tmp_path, 60):
        pass


@pytest.mark.parametrize("change", [{"host": "node17"}, {"place": "another container"}])
def test_an_owner_elsewhere_is_gone_when_it_has_been_silent(tmp_path, change, capsys):
    """As the next job of a chain finds it, on another node, where the walltime killed the last."""
    claim(tmp_path, replace(Owner.this(), **change), age=100)
    started = time.monotonic()
    with owned(tmp_path, 60):
        assert time.monotonic() - started < 1
    claim(tmp_path, replace(Owner.this(), **change))
    with owned(tmp_path, 0.5):
        assert time.monotonic() - started > 0.4
    assert "looking for" in capsys.readouterr().err


def test_an_owner_elsewhere_that_touches_its_claim_is_alive(tmp_path, elsewhere):
    path, stop = claim(tmp_path, elsewhere), threading.Event()
    beat = threading.Thread(target=owner._beat, args=(path, elsewhere, 0.05, stop))
    beat.start()
    started = time.monotonic()
    refused = "process 4711 on node17, started 20"
    with pytest.raises(FolderTaken, match=refused), owned(tmp_path, 20):
        pass
    stop.set()
    beat.join()
    assert time.monotonic() - started < 5
    assert path.exists()


@pytest.mark.parametrize("content", ["", '{"host": "nod'])
def test_a_claim_that_was_cut_short_holds_nothing(tmp_path, content, monkeypatch):
    monkeypatch.setattr(owner, "UNWRITTEN", 0.1)
    (tmp_path / owner.CLAIM.format(3)).write_text(content)
    with owned(tmp_path, 60):
        assert [p.name for p in tmp_path.iterdir()] == ["owner.4.json"]


def test_who_was_thought_dead_and_comes_back_leaves_without_writing(
    tmp_path, elsewhere, monkeypatch, capsys
):
    """Frozen for longer than its patience, and its folder has gone to another host."""
    left = threading.Event()

    monkeypatch.setattr(os, "_exit", lambda status: left.set() if status == 1 else None)
    with owned(tmp_path, 0.5):
        path = claim(tmp_path, elsewhere)
        assert left.wait(5)
    assert json.loads(path.read_text())["host"] == "node17"  # not ours to remove
    assert "another training has taken the run folder" in capsys.readouterr().err


def test_names_made_of_the_time_are_never_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "2026-11-20_10-00-00")
    names = [run_folder.fresh(tmp_path / "runs").name for _ in range(3)]
    assert names == ["2026-11-20_10-00-00", "2026-11-20_10-00-00-2", "2026-11-20_10-00-00-3"]


def test_a_training_in_a_folder_that_is_taken_is_refused_before_anything_is_written(
    typed, tmp_path
):
    init = psutil.Process(1)  # lives
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    claim(folder, replace(Owner.this(), process=1, started=init.create_time()))
    done = typed("train", "run=a", expect=1)
    assert f"error: {tmp_path}/runs/a belongs to another training that runs: process 1 on" in (
        done.stderr
    )
    assert [p.name for p in folder.iterdir()] == ["owner.1.json"]


def test_a_report_that_cannot_be_written_is_refused_first_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    place = run_folder.report_folder
    refused = r"file/x \(Not a directory\): .*output=FOLDER"
    with pytest.raises(OSError, match=refused), place(tmp_path, str(tmp_path / "file/x")):
        pass
    with pytest.raises(OSError, match="evaluations"), place(tmp_path / "file", None):
        pass
    with pytest.raises(RuntimeError), place(tmp_path, None):
        raise RuntimeError("evaluation failed")
    assert not list((tmp_path / "evaluations").iterdir())
