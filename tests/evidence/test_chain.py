"""Chains: stages in order, each from what the one before made; killed, they come to the same bits.
Studies, chains and sweeps end in one table, and are one group of the tracker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml

from physics_hybrid.evidence.chain import Chain, Stage
from physics_hybrid.evidence.pipeline import conclude, grouped
from physics_hybrid.evidence.study import run
from physics_hybrid.run import ledger
from physics_hybrid.training import checkpoint
from physics_hybrid.training.tracker import Tracker
from tests.conftest import ROOT
from tests.problems.flavour.test_learning import TINY, small
from tests.run.made_runs import make, resolved
from tests.test_seam import configured
from tests.test_seam import train_here as train_pendulum

CHAIN = {
    "common": ["training.epochs=2"],
    "stages": {
        "first": [],
        "second one": ["training.init_from={first}", "data.samples=40"],
        "third": ["training.init_from={second one}/best"],
    },
}


@pytest.fixture
def chain(tmp_path):
    (tmp_path / "three.yaml").write_text(yaml.safe_dump(CHAIN))
    return Chain.read(str(tmp_path / "three.yaml"))


def weights(run):
    state = checkpoint.load_latest(run)
    return torch.cat([v.flatten().double() for v in state["model"].values()])


class Killed(BaseException):
    """As SIGKILL: nothing is saved on the way."""


def train_here(stage, output) -> int:
    from physics_hybrid.run.train import train

    train(configured(f"run={stage.name}", *stage.overrides))
    return 0


def test_stages_know_the_folders_of_those_before(chain, tmp_path):
    stages = chain.cells(tmp_path / "a [1]", ["seed=3"])
    assert [stage.name for stage in stages] == ["first", "second-one", "third"]
    assert stages[1].overrides == (
        "training.epochs=2",
        f"training.init_from='{tmp_path}/a [1]/first'",
        "data.samples=40",
        "seed=3",
        f"runs_folder='{tmp_path}/a [1]'",
    )
    assert f"training.init_from='{tmp_path}/a [1]/second-one/best'" in stages[2].overrides


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"a": ["training.init_from={b}"], "b": []}, "names 'b', and the stages before are none"),
        ({"a b": [], "a-b": []}, "differ in letters or digits"),
        ({}, "stages must be there"),
        ({"a": "seed=1"}, r"c.yaml: stages.a must be a list of overrides, .* got 'seed=1'"),
        (["a"], r"stages must be names, each with a list of overrides, .* got \['a'\]"),
    ],
)
def test_a_chain_that_is_none_says_why(stages, message, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"common": ["data.splits={train: 0.7}"], "stages": stages}))
    with pytest.raises(ValueError, match=message):
        Chain.read(str(path))
    with pytest.raises(ValueError, match="there is no chain 'nothing'.* one of .*flavour_transfer"):
        Chain.read("nothing")
    path.write_text("common: [\nstages: {")
    with pytest.raises(ValueError, match="c.yaml cannot be read as YAML: while parsing"):
        Chain.read(str(path))


@pytest.mark.slow
def test_killed_at_three_random_moments_it_comes_to_the_same_bits(chain, tmp_path, monkeypatch):
    from physics_hybrid.training.trainer import Trainer

    whole = chain.cells(tmp_path / "whole")
    assert run(whole, tmp_path / "whole", train_here, in_order=True) == []
    step, left = Trainer.step, []

    def counted(self, batches):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return step(self, batches)

    monkeypatch.setattr(Trainer, "step", counted)
    stages, folder = chain.cells(tmp_path / "killed"), tmp_path / "killed"
    kills = 0
    for steps in [*np.random.default_rng(5).integers(3, 40, 3), 10_000]:
        left[:] = [int(steps)]
        if kills == 2:  # and it may be moved in between
            folder = folder.rename(tmp_path / "moved")
            stages = chain.cells(folder)
        try:
            assert run(stages, folder, train_here, in_order=True) == []
        except Killed:
            kills += 1
    assert kills == 3
    for stage in stages:
        assert torch.equal(weights(folder / stage.name), weights(tmp_path / "whole" / stage.name))
    assert not torch.equal(weights(folder / "first"), weights(folder / "third"))
    runs = [ledger.read(folder / stage.name) for stage in stages]
    assert {run.state for run in runs} == {"finished"}
    text = conclude(runs, "killed", folder)
    assert "relative_error, small" in text
    assert "| third | finished | pendulum |" in (folder / "runs.md").read_text()


def test_a_stage_that_fails_ends_the_chain(chain, tmp_path, capsys):
    def launch(stage, output):
        if stage.name == "second-one":
            return 1
        make(output / stage.name, resolved("experiment=flavour"), error=0.1)
        return 0

    failures = run(chain.cells(tmp_path), tmp_path, launch, in_order=True)
    assert len(failures) == 1
    assert "second-one: exit status 1" in failures[0]
    assert "third" not in capsys.readouterr().out


def test_a_stage_is_done_when_it_is_trained_and_tested_as_it_is_to_be(tmp_path):
    config = resolved("experiment=flavour")
    stages = [Stage(name, ()) for name in ("part", "untested", "never", "tested")]
    make(tmp_path / "part", config, trained=0.5)
    make(tmp_path / "untested", config)
    untested = {**config, "evaluation": {**config["evaluation"], "after_training": False}}
    make(tmp_path / "never", untested)
    make(tmp_path / "tested", config, error=0.1)
    assert [stage.done(tmp_path) for stage in stages] == [False, False, True, True]


def test_a_training_whose_runner_was_killed_is_waited_for(tmp_path, capsys):
    from physics_hybrid.evidence.study import wait_for_owner

    words = "import sys, time; from pathlib import Path\n"
    words += "from physics_hybrid.run.owner import owned\n"
    words += "with owned(Path(sys.argv[1]), 60.0): print(flush=True); time.sleep(0.7)"
    (tmp_path / "run").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", words, tmp_path / "run"], cwd=ROOT, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    wait_for_owner(tmp_path / "run")
    assert f"waiting for process {process.pid} on" in capsys.readouterr().out
    assert not list((tmp_path / "run").glob("owner.*"))
    process.communicate()


def test_a_pipeline_is_one_group_of_the_tracker_with_its_table(tmp_path, monkeypatch):
    import wandb

    asked, logged = [], []

    class Fake:
        id = "7"

        def log(self, values, **_):
            logged.append(values)

        def finish(self): ...

    def init(**options):
        asked.append(options)
        return Fake()

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", init)
    config = resolved("experiment=flavour", "tracker=wandb")
    runs = [ledger.read(make(tmp_path / n, config, error=e)) for n, e in (("a", 0.1), ("b", 0.2))]
    with grouped("outer"):
        conclude(runs, "transfer", tmp_path)
        assert os.environ["PHYSICS_HYBRID_GROUP"] == "outer"
    assert "PHYSICS_HYBRID_GROUP" not in os.environ
    assert [(o["group"], o["name"], o["mode"]) for o in asked] == [
        ("transfer", "transfer table", "offline")
    ]
    table = logged[0]["runs"]
    assert table.columns[:2] == ["run", "state"]
    assert [row[0] for row in table.data] == ["a", "b"]


class Recorder(Tracker):
    """What a tracker is given."""

    given: ClassVar[dict] = {}

    def summarise(self, values):
        self.given["summary"] = dict(values)

    def keep(self, kind, paths):
        self.given[kind] = [path.name for path in paths]


def test_a_tracker_gets_summary_weights_report_and_model_card(tmp_path):
    train_pendulum(tmp_path, "run=kept", f"tracker._target_={__name__}.Recorder")
    summary = Recorder.given.pop("summary")
    assert Recorder.given == {
        "weights": ["best"],
        "report": ["report.md"],
        "model card": ["model_card.md"],
    }
    run = ledger.read(tmp_path / "runs" / "kept")
    assert summary["test/relative_error"] == run.value
    assert summary["test/baseline_relative_error"] == run.baseline
    card = (run.folder / "evaluation" / "model_card.md").read_text()
    assert card.splitlines()[0] == "# PendulumNetwork: pendulum"
    assert "| data.samples | 60 |" in card
    assert f"| small | {run.value:.6g} | {run.baseline:.6g} |" in card


def test_a_sweep_of_hydra_ends_in_the_same_table(tmp_path, monkeypatch, capsys):
    from physics_hybrid.verbs.train import main

    groups = []

    def train(config):
        groups.append(os.environ["PHYSICS_HYBRID_GROUP"])
        return make(tmp_path / f"seed{config['seed']}", config, error=0.1 * config["seed"])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("physics_hybrid.run.train.train", train)
    main(["-m", "seed=2,1", "experiment=flavour", "tracker=none"])
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("run "))
    assert [line.split()[:2] for line in lines[at + 1 : at + 3]] == [
        ["seed1", "finished"],
        ["seed2", "finished"],
    ]
    assert len(set(groups)) == 1
    assert groups[0].startswith("sweep ")
    assert "PHYSICS_HYBRID_GROUP" not in os.environ


def test_tensorboard_gets_texts_and_the_table(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from physics_hybrid.training.tracker import TensorBoardTracker

    tracker = TensorBoardTracker()
    tracker.start(tmp_path, {})
    (tmp_path / "report.md").write_text("# Evaluation")
    tracker.keep("report", [tmp_path / "report.md"])
    tracker.summarise({"test/error": 0.1})
    tracker.table("runs", ["run"], [["a"]])
    tracker.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {tag.split("/")[0] for tag in events.Tags()["tensors"]} == {"report", "summary", "runs"}


@pytest.mark.program
@pytest.mark.slow
def test_a_real_chain_killed_with_all_it_started_comes_to_the_same_bits(tmp_path):
    """SIGKILL, to the runner alone and to everything: what lives on is waited for."""
    path = small(tmp_path / "set.h5")
    tiny = [*TINY, "training.checkpoint_every=1", f"data.path={path}", "data.batch_size=2"]
    stages = {"one": [], "two": ["training.init_from={one}", "training.learning_rate=1.0e-4"]}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"common": tiny, "stages": stages}))
    words = [sys.executable, "-m", "physics_hybrid", "chain", tmp_path / "two.yaml"]

    def start(output):
        return subprocess.Popen(
            [*words, "--output", output],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    random = np.random.default_rng(int(time.time()))
    for kill in range(3):
        process = start(tmp_path / "killed")
        time.sleep(float(random.uniform(5, 10)))
        if kill == 1:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for output in ("killed", "whole"):
        process = start(tmp_path / output)
        said = process.communicate()[0]
        assert process.returncode == 0, said
    for stage in stages:
        pair = (weights(tmp_path / output / stage) for output in ("killed", "whole"))
        assert torch.equal(*pair)
    rows = (tmp_path / "killed" / "runs.md").read_text().splitlines()
    assert sum("finished" in row for row in rows) == 2
    origin = json.loads((tmp_path / "killed" / "two" / "origin.json").read_text())
    assert origin["group"] == "killed"
