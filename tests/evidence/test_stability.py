"""Failures are counted as defined, intervals are Wilson's, and the verdict is its rule's."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from physics_hybrid.evidence.stability import (
    Rule,
    Summary,
    failed_at,
    outcome,
    report,
    summarise,
    verdict,
    wilson,
)
from physics_hybrid.evidence.study import Cell, Study, run, stopped, train_here

RULE = Rule("control", "clipped", "scaled", {"4": ["4", "4 harsh"], "12": ["12", "12 harsh"]})


def lines(*losses, **last):
    out = [{"epoch": i, "train/loss": loss} for i, loss in enumerate(losses, start=1)]
    if last:
        out.append({"epoch": len(losses) + 1, **last})
    return out


@pytest.mark.parametrize(
    ("records", "epoch"),
    [
        (lines(1.0, 0.5, 0.4, 3.9), None),
        (lines(1.0, 0.5, 0.4, 4.0), 4),
        (lines(1.0, 11.0, 0.1), 2),
        (lines(1.0, 0.5, stopped="loss nan"), 3),
        (lines(1.0, 0.5, **{"train/loss": 0.4, "skipped": 1}), 3),
        ([{"epoch": 1}], 1),
        ([], None),
    ],
)
def test_a_failure_is_what_is_not_finite_or_ten_times_the_minimum(records, epoch):
    assert failed_at(records) == epoch


@pytest.mark.exact
def test_wilson_solves_its_equation_and_holds_the_rate():
    for failures, runs in [(0, 10), (3, 10), (10, 10), (1, 3)]:
        low, high = wilson(failures, runs)
        p = failures / runs
        assert 0 <= low <= p <= high <= 1
        for bound in (low, high):  # (p - b)^2 = z^2 b (1 - b) / n
            off = (p - bound) ** 2 - 1.959964**2 * bound * (1 - bound) / runs
            assert abs(off) < 1e-9
    assert wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)


def entry(arm, samples, median, failures, runs=10):
    return Summary(
        arm=arm,
        samples=samples,
        runs=runs,
        failures=failures,
        useless=0,
        interval=wilson(failures, runs),
        failed_after=None,
        median=median,
        quartiles=None,
        gradient=1.0,
        growth_first=1.0,
        growth_last=1.0,
    )


def arm(name, medians, harsh_failures, usual_failures=(0, 0)):
    out = []
    pairs = zip(("4", "12"), medians, harsh_failures, usual_failures, strict=True)
    for depth, median, harsh, usual in pairs:
        out.append(entry(name, depth, median, usual))
        out.append(entry(name, f"{depth} harsh", None, harsh))
    return out


CONTROL = arm("control", (0.10, 0.20), (4, 8))


@pytest.mark.parametrize(
    ("others", "medal", "named"),
    [
        (arm("a", (0.09, 0.19), (3, 7)) + arm("b", (0.09, 0.10), (3, 7)), "gold", "b"),
        (arm("a", (0.09, 0.19), (3, 8)), "pivot", "scaled"),  # no fewer failures at one depth
        (arm("a", (0.09, 0.21), (0, 0)), "pivot", "scaled"),  # a higher median at one depth
        (arm("clipped", (0.10, 0.21), (4, 7)), "silver", "clipped"),
        (arm("clipped", (0.12, 0.24), (0, 0)), "pivot", "scaled"),  # 20 % worse
        (arm("clipped", (0.01, 0.01), (4, 8)), "pivot", "scaled"),  # as many failures
        (arm("clipped", (0.09, 0.19), (3, 7)), "silver", "clipped"),  # no block
        (arm("a", (None, 0.1), (0, 0)), "pivot", "scaled"),
        (arm("a", (0.09, 0.19), (4, 8), (0, 0)), "pivot", "scaled"),
    ],
)
def test_the_verdict_follows_its_rule(others, medal, named):
    found = verdict(CONTROL + others, RULE)
    assert (found.medal, found.arm) == (medal, named)


def test_without_a_control_there_is_no_verdict():
    assert verdict(arm("a", (0.1, 0.1), (0, 0)), RULE) is None


@pytest.fixture
def study():
    return Study(
        name="x",
        common=[],
        seeds=[0, 1, 2],
        samples={"4": []},
        arms={"control": [], "a": []},
        reference="control",
        panels={},
        verdict={"control": "control", "clipped": "c", "fallback": "a", "depths": {"4": ["4"]}},
    )


def written(cell: Cell, output, losses, error, growth=2.0):
    folder = output / cell.name
    (folder / "evaluation").mkdir(parents=True)
    records = lines(*losses)
    for record in records:
        record["train/gradient_norm"] = 3.0
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    blocks = {"b": {"rms": growth, "rms_in": 1.0}}
    watched = [{"step": s, "blocks": blocks} for s in (0, 5)]
    (folder / "activations.jsonl").write_text("\n".join(map(json.dumps, watched)) + "\n")
    table = {"misfit": {"mean": error}, "blank_misfit": {"mean": 0.35}}
    about = {"commit": "c" * 40, "hardware": "a CPU", "samples": {"lines": 1}, "alone": "blank_"}
    (folder / "evaluation/metrics.json").write_text(json.dumps({**about, "lines": table}))


def test_outcomes_are_those_of_the_runs_and_the_report_says_what_is_missing(study, tmp_path):
    cells = study.cells(tmp_path)
    errors = iter((0.1, 0.2, 0.3, 0.4))
    for cell in cells[:4]:
        blown = cell.arm == "control" and cell.seed == 1
        written(cell, tmp_path, (1.0, 0.5, 9.0 if blown else 0.4), next(errors))
    outcomes = [outcome(cell, tmp_path) for cell in cells[:4]]
    assert [o.failed for o in outcomes] == [None, None, 3, None]
    control, a = summarise(outcomes, study)
    assert (control.runs, control.failures, control.failed_after) == (2, 1, 3)
    assert control.median == 0.1  # of the one that came through
    assert a.median == pytest.approx(0.3)
    assert (control.useless, a.useless) == (0, 1)  # 0.4 is above the blank object
    assert a.quartiles == pytest.approx((0.25, 0.35))
    assert a.growth_first == 2.0
    text = report(cells, study, tmp_path)
    assert "| 4 | control | 2 | 1 | 0.50 (0.09 to 0.91) | 3 | 0 | 0.1 |" in text
    assert "| a | 3.000 | 0.00 |" in text  # what the rule looks at
    assert "Not finished: 2 of 6 runs." in text
    assert "Verdict, had the study ended here: **pivot: a**" in text
    assert json.loads((tmp_path / "study.json").read_text())["verdict"]["medal"] == "pivot"
    assert (tmp_path / "study.png").stat().st_size > 10_000


def test_a_training_that_stops_is_an_outcome_and_not_run_again(study, tmp_path, capsys):
    asked = []

    def launch(cell, output):
        asked.append(cell.name)
        (output / cell.name).mkdir(exist_ok=True)
        record = {"epoch": 2, "step": 7, "stopped": "loss nan"}
        (output / cell.name / "log.jsonl").write_text(json.dumps(record) + "\n")
        return 1

    cells = study.cells(tmp_path, seeds=[0])
    assert run(cells, tmp_path, launch) == []
    assert run(cells, tmp_path, launch) == []
    assert len(asked) == 2
    assert all(stopped(cell, tmp_path) for cell in cells)
    assert outcome(cells[0], tmp_path).failed == 2
    assert "stopped: not finite" in capsys.readouterr().out
    # another study calls it a failure
    assert len(run([replace(c, stops_count=False) for c in cells], tmp_path, launch)) == 2


SMALL = [
    "data.frame=16",
    "data.size=40",
    "data.lines=30",
    "data.radius=4",
    "data.step=8",
    "model.backbone.width=4",
    "model.backbone.modes=[2,2]",
    "training.epochs=2",
]


@pytest.mark.slow
def test_the_smoke_study_trains_here_and_a_wild_one_stops(tmp_path, capsys):
    smoke = Study.read("stability_smoke")
    cells = smoke.cells(tmp_path, [0], SMALL)
    chosen = [c for c in cells if c.arm == "post_gelu" and c.samples.startswith("depth 4")]
    assert run(chosen, tmp_path, train_here) == []
    usual, harsh = (outcome(c, tmp_path) for c in chosen)
    assert usual.error is not None
    assert math.isfinite(usual.growth_first)
    config = (tmp_path / chosen[1].name / "config.yaml").read_text()
    assert "learning_rate: 0.015" in config or "learning_rate: 0.05" in config  # five times
    assert not (tmp_path / chosen[0].name / "figures").exists()
    assert harsh.arm == "post_gelu"
    wild = Cell("wild", "x", 0, (*chosen[0].overrides, "training.learning_rate=1e30"), True)
    threads = torch.get_num_threads()
    assert run([wild], tmp_path, train_here) == []
    torch.set_num_threads(threads)
    assert outcome(wild, tmp_path).failed is not None
