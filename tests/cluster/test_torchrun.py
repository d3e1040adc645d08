"""torchrun with the signals and the exit status of its ranks, on ranks that are small scripts."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.cluster

SAVES = """
import os, signal, sys, time
told = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda n, frame: told.append(n))
sys.stdout.write(f"rank {os.environ['RANK']} ready\\n")  # in one piece: the ranks share a pipe
sys.stdout.flush()
while not told:
    time.sleep(0.02)
sys.stdout.write(f"rank {os.environ['RANK']} was told {told[0]}\\n")
time.sleep(0.5)  # the state is written
sys.exit(85)
"""
DIES = """
import os, signal, time
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""


def start(tmp_path, code):
    script = tmp_path / "rank.py"
    script.write_text(code)
    words = [
        sys.executable,
        "-m",
        "physics_hybrid",
        "torchrun",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        str(script),
    ]
    return subprocess.Popen(
        words,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_rank_and_their_exit_status_comes_back(tmp_path, number):
    launcher = start(tmp_path, SAVES)
    ready = 0
    while ready < 2:
        line = launcher.stdout.readline()
        assert line, "torchrun ended before its ranks were ready"
        ready += line.endswith("ready\n")
    launcher.send_signal(number)
    printed = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 85, printed
    assert printed.count(f"was told {int(number)}") == 2, printed


def test_a_rank_that_is_killed_ends_the_others_and_is_named(tmp_path):
    launcher = start(tmp_path, DIES)
    printed = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 128 + signal.SIGKILL, printed
    assert "rank 1 on" in printed
    assert "was killed by SIGKILL" in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_one_that_waits_for_other_nodes(tmp_path, number):
    """The second node never comes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "physics_hybrid",
        "torchrun",
        "--nnodes",
        "2",
        "--node-rank",
        "0",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(port),
        "train.py",
    ]
    launcher = subprocess.Popen(
        words,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
    time.sleep(1)  # it listens, and waits
    launcher.send_signal(number)
    assert launcher.wait(timeout=30) == -number


def test_success_is_success(tmp_path):
    launcher = start(tmp_path, "print('done')")
    assert launcher.communicate(timeout=60)[0].count("done") == 2
    assert launcher.returncode == 0
