"""Runs as they lie on disk: their states, which is best, what differs, what is kept of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from physics_hybrid.kinds import UsageError
from physics_hybrid.run import ledger
from physics_hybrid.run.archive import archive
from physics_hybrid.run.comparison import Paired, compare, shared
from physics_hybrid.run.promotion import promote
from physics_hybrid.run.showing import shown
from tests.conftest import ROOT
from tests.run.made_runs import evaluated, forty, make, resolved

LIST = """
import sys, time
started = time.perf_counter()
from physics_hybrid.verbs.runs import main
main(["list", sys.argv[1]])
print(time.perf_counter() - started, "torch" in sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return place, forty(place)


def test_forty_runs_have_their_states_and_are_listed_in_a_second(place):
    folder, states = place
    assert len(states) == 40
    runs = ledger.runs_below(folder)
    assert {run.name: run.state for run in runs} == states
    # the time of the processor: the machine of a test may be busy
    started = time.process_time()
    text = ledger.leaderboard(ledger.ordered(ledger.runs_below(folder)))
    assert time.process_time() - started < 0.5
    assert len(text.split("\n\n")[0].splitlines()) == 41
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    seconds, torch = done.stderr.split()
    assert torch == "False"
    assert float(seconds) < 5
    assert "longer: unevaluated, tested at step 10, and trained on since" in done.stdout
    assert set(states.values()) == {*ledger.STATES}


def test_a_training_that_stopped_says_why(tmp_path):
    """Even in its last epoch: that one is not complete."""
    run = make(tmp_path / "a", resolved("experiment=flavour", "training.epochs=2"), trained=0.5)
    with open(run / "log.jsonl", "a") as file:
        file.write(json.dumps({"epoch": 2, "step": 17, "stopped": "loss nan"}) + "\n")
    found = ledger.read(run)
    assert (found.state, found.epoch) == ("interrupted", 1)
    assert found.why == "stopped at step 17: loss nan"


def test_a_run_without_its_state_is_not_said_to_go_on(tmp_path):
    run = make(tmp_path / "a", resolved("experiment=flavour", "training.epochs=2"), trained=0.5)
    assert ledger.read(run).why == "1 of 2 epochs"
    (run / "latest_checkpoint.pt").rename(run / "latest_checkpoint.previous.pt")
    assert ledger.read(run).why == "1 of 2 epochs"
    (run / "latest_checkpoint.previous.pt").unlink()
    assert "train under another name" in ledger.read(run).why


def test_an_evaluation_by_evaluate_counts_where_it_tests_the_same(tmp_path):
    run = make(tmp_path / "a", resolved("experiment=flavour"))
    assert ledger.read(run).state == "unevaluated"
    for name, error, more in (
        ("1", 0.1, {"as_trained": True}),
        ("2", 0.2, {"as_trained": False}),  # on other data
        ("3", 0.3, {}),  # by an older version
    ):
        (run / "evaluations").mkdir(exist_ok=True)
        evaluated(run / "evaluations" / name, error, step=600, seed=0)
        path = run / "evaluations" / name / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    found = ledger.read(run)
    assert (found.state, found.report) == ("finished", run / "evaluations" / "1")
    assert found.value == pytest.approx(0.1, rel=0.1)
    evaluated(run / "evaluation", 0.05, step=600, seed=0)
    assert ledger.read(run).report == run / "evaluation"
    assert shared(ledger.read(run), found)[0]["all", "error"][0].mean() < 0.06


def test_the_best_is_first_and_runs_are_chosen_by_columns_and_keys(place):
    runs = ledger.ordered(ledger.runs_below(place[0]))
    tested = [run for run in runs if run.problem == "flavour" and run.value is not None]
    assert [run.value for run in tested] == sorted(run.value for run in tested)
    assert runs[0].name == "grid/width-0_all_seed0"
    assert not any(run.tables for run in runs[len(runs) - 5 :])
    only = ledger.chosen(runs, ["state=finished", "model=Residual*"])
    assert {run.name for run in only} == {f"potential-{i:02d}" for i in range(1, 20, 2)}
    assert len(ledger.chosen(runs, ["problem.coordinates=cell"])) == 13
    worst = ledger.ordered(ledger.chosen(runs, ["state=finished"]), "-value")
    assert worst[0].name == "potential-19"
    with pytest.raises(UsageError, match=r"--sort valeu: neither a column \(run, state, .*"):
        ledger.ordered(runs, "valeu")
    with pytest.raises(UsageError, match="write KEY=VALUE"):
        ledger.chosen(runs, ["finished"])
    table = ledger.leaderboard(only, ["data.grid"], markdown=True)
    assert "| run | state |" in table
    assert "| [48,24,24] |" in table
    row = ledger.as_json(only[0], ["data.grid"])
    assert json.loads(json.dumps(row))["over_baseline"] == pytest.approx(0.22)
    with pytest.raises(UsageError, match="did you mean flavour-0"):
        ledger.find("flavour_00", place[0])


def test_a_run_is_shown_by_its_files_wherever_they_lie(place, tmp_path):
    moved = shutil.copytree(place[0] / "flavour-04", tmp_path / "elsewhere" / "other")
    run = ledger.find(str(moved), place[0])
    assert run.state == "finished"
    text = shown(run)
    assert "- state: finished: trained and tested" in text
    assert "| all | error | 0.14" in text
    assert "| 0.506" in text
    assert "commit: aaaaaaaa" in text


def test_intervals_are_of_the_samples_that_both_were_tested_on(place, tmp_path):
    runs = {run.name: run for run in ledger.runs_below(place[0])}
    a, b, other = (runs[f"{n}"] for n in ("flavour-00", "flavour-04", "grid/width-1_all_seed0"))
    pairs, why = shared(a, b)
    assert not why
    assert len(pairs["all", "error"][0]) == 20
    text = compare(b, a, tmp_path / "curves.png")
    found = Paired.of(*pairs["all", "error"])
    assert found.low < found.mean < found.high < 0.06
    assert found.mean == pytest.approx(b.value - a.value)
    assert "| -0.0405 [-0.0" in text
    assert "| 100 % | 20 |" in text
    assert "None: they are the same but for their place." in text
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert shared(a, other) == ({}, "No intervals: seeds 0 and 1 test other samples.")
    text = compare(a, other, None)
    assert "| seed | 0 | 1 |" in text
    assert "seeds 0 and 1 test other samples" in text
    assert "Not tested: untested-0" in compare(a, runs["untested-0"], None)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("data.train=480", ""),
        ("data.seed=1", "No intervals: data.seed is 0 and 1: other samples."),
    ],
)
def test_samples_with_a_seed_of_their_own_are_shared_by_runs_of_other_seeds(word, why, tmp_path):
    first = make(tmp_path / "a", resolved("experiment=burgers"), error=0.1)
    second = make(tmp_path / "b", resolved("experiment=burgers", word), error=0.2, seed=1)
    pairs, said = shared(ledger.read(first), ledger.read(second))
    assert said == why
    assert bool(pairs) == (not why)


def test_the_interval_covers_a_known_difference_19_times_of_20():
    random = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        a = random.normal(size=60)
        found = Paired.of(a, a + 0.3 + random.normal(size=60))
        inside += found.low < 0.3 < found.high
    assert 180 <= inside <= 198


@pytest.fixture
def conf(tmp_path):
    return shutil.copytree(ROOT / "conf", tmp_path / "conf")


def leaves(conf, *words):
    from hydra import compose
    from omegaconf import OmegaConf

    from physics_hybrid.configuration import composing

    with composing(conf):
        return OmegaConf.to_container(compose("config", overrides=[*words]), resolve=True)


def test_the_baseline_of_a_run_is_what_its_problem_calls_so(tmp_path, conf):
    folder = make(tmp_path / "mine", resolved("experiment=burgers", "tracker=none"), error=0.1)
    path = folder / "evaluation" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["all"]["stepper256_error"] = {"mean": 0.4}
    path.write_text(json.dumps({**metrics, "alone": "stepper256_"}))
    assert ledger.read(folder).baseline == 0.4
    del metrics["all"]["stepper256_error"]
    path.write_text(json.dumps({**metrics, "alone": "stepper256_"}))
    assert ledger.read(folder).baseline is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["data=files", "data.path=FOLDER"],
        ["experiment=burgers_mean"],
        ["model=unet", "data=generated", "training.betas=[0.8,0.9]", "seed=7"],
        ["experiment=flavour", "model=flavour_mlp", "model.network.width=16", "data.path=a b.h5"],
    ],
)
def test_a_promoted_run_is_configured_the_same_again(words, conf, tmp_path):
    config = resolved(*words, "training.epochs=3", "tracker=none")
    run = ledger.read(make(tmp_path / "runs" / "mine", config, error=0.1, seed=config["seed"]))
    path = promote(run, "kept", conf)
    again = leaves(conf, "experiment=kept", "run=mine", f"runs_folder={tmp_path / 'runs'}")
    assert {k: v for k, v in again.items() if k != "tracker"} == {
        k: v for k, v in run.config.items() if k != "tracker"
    }
    text = path.read_text()
    assert "# Promoted from the run mine, commit aaaaaaaaaa:" in text
    assert "on all (baseline alone 0.5" in text
    assert len(yaml.safe_load(text)) <= 5  # what differs alone
    with pytest.raises(UsageError, match="there is an experiment kept already"):
        promote(run, "kept", conf)


def test_what_is_not_promoted_says_why(conf, tmp_path):
    config, place = resolved("experiment=flavour"), tmp_path / "runs"
    good = ledger.read(make(place / "good", config, error=0.1))
    bad = ledger.read(make(place / "bad", config, error=0.2))
    part = ledger.read(make(place / "part", config, trained=0.5))
    strange = {**config, "model": {**config["model"], "depth_of_old": 3}}
    old = ledger.read(make(place / "old", strange, error=0.1))
    with pytest.raises(UsageError, match=r"part is interrupted \(30 of 60 epochs\)"):
        promote(part, "kept", conf)
    with pytest.raises(UsageError, match=r"bad is worse than good: error on all is 0\.2"):
        promote(bad, "kept", conf, against=good)
    with pytest.raises(UsageError, match="'../kept' is no name of an experiment"):
        promote(good, "../kept", conf)
    with pytest.raises(UsageError, match="part has no error on all"):
        promote(good, "kept", conf, against=part)
    assert not (conf / "experiment" / "kept.yaml").exists()
    nothing = ledger.read(make(place / "nothing", config, error=float("nan")))
    with pytest.raises(UsageError, match="the error of nothing on all is no number"):
        promote(nothing, "kept", conf)
    promote(good, "kept", conf, against=bad)
    with pytest.raises(ValueError, match=r"model\.depth_of_old"):
        promote(ledger.read(old.folder), "older", conf)


def test_runs_are_archived_only_with_yes_and_stay_runs(tmp_path, capsys):
    from physics_hybrid.run.owner import Owner

    config = resolved("experiment=flavour")
    for name in ("a", "study/cell"):
        make(tmp_path / name, config, error=0.1)
    make(tmp_path / "busy", config, trained=0.5, owner=Owner.this())
    with pytest.raises(UsageError, match="add --yes"):
        archive(["a", "study/cell"], tmp_path, sure=False)
    with pytest.raises(UsageError, match="busy is trained at present by process"):
        archive(["a", "busy"], tmp_path, sure=True)
    assert (tmp_path / "a").is_dir()
    assert archive(["a", "study/cell", "a"], tmp_path, sure=True) == [
        tmp_path / "archive" / "a",
        tmp_path / "archive" / "study" / "cell",
    ]
    assert [run.name for run in ledger.runs_below(tmp_path)] == ["busy", "study"]
    everything = {run.name: run.state for run in ledger.runs_below(tmp_path, archived=True)}
    assert everything["archive/study/cell"] == "finished"
    make(tmp_path / "a", config)
    with pytest.raises(UsageError, match="is there already: nothing was moved"):
        archive(["a"], tmp_path, sure=True)
