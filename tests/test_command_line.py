"""What a program does with its words: jobs of a sweep, pages that are cut short."""

import subprocess
import sys

import pytest

from physics_hybrid import command_line
from physics_hybrid.command_line import CONF
from tests.conftest import ROOT


@pytest.fixture
def swept(tmp_path, monkeypatch, capsys):
    """Type words; `work` gets the configuration of each job. (exit status, standard error)"""

    def call(work, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        status = 0
        try:
            command_line.run(work, CONF, "config")
        except SystemExit as left:
            status = left.code
        return status, capsys.readouterr().err

    return call


@pytest.mark.slow
def test_jobs_that_fail_let_the_others_run_and_are_listed_at_the_end(swept):
    done = []

    def work(config):
        done.append((config["seed"], config["model"]["backbone"]["_target_"].split(".")[-1]))
        if done[-1] == (1, "PlainFNO"):
            raise ValueError("too few")
        if done[-1] == (2, "PlainFNO"):
            raise KeyError("a fault of ours")

    status, errors = swept(work, "-m", "seed=1,2", "tracker=none", "model=fno,unet")
    assert done == [(seed, model) for seed in (1, 2) for model in ("PlainFNO", "UNet3D")]
    assert status == 1
    assert errors.strip().splitlines()[-3:] == [
        "error: 2 failed:",
        "seed=1 model=fno: too few",
        "seed=2 model=fno: 'a fault of ours'",
    ]
    assert errors.count("Traceback") == 1  # of the fault of ours


@pytest.mark.slow
def test_a_signal_ends_all_jobs(swept):
    done = []

    def work(config):
        done.append(config["seed"])
        raise SystemExit(85)

    assert swept(work, "-m", "seed=1,2")[0] == 85
    assert done == [1]


def test_one_job_ends_in_one_line(swept):
    def work(config):
        raise OSError("no such disk")

    assert swept(work) == (1, "error: no such disk\n")


def test_ctrl_c_ends_in_no_trace(swept):
    def work(config):
        raise KeyboardInterrupt

    assert swept(work) == (130, "")


@pytest.mark.parametrize("words", [("train.py", "--cfg", "job"), ("-m", "physics_hybrid")])
def test_a_page_that_nobody_reads_to_its_end_leaves_no_trace(words):
    page = subprocess.Popen(
        [sys.executable, "-u", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    page.stdout.close()
    assert page.stderr.read() == ""
    page.wait()


def test_usage_lines_can_be_typed_as_they_stand(monkeypatch, capsys):
    from physics_hybrid.__main__ import main

    monkeypatch.setattr(sys, "argv", ["__main__.py"])
    with pytest.raises(SystemExit):
        main(["runs", "--help"])
    assert capsys.readouterr().out.startswith("usage: python -m physics_hybrid runs ")
    with pytest.raises(SystemExit):
        main(["train", "trainin.epochs=1"])
    assert "(python -m physics_hybrid train --help)" in capsys.readouterr().err
