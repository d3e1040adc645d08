"""inspect and plot, for any problem."""

from __future__ import annotations

import json

import pytest

from physics_hybrid.evidence.inspect import inspect
from physics_hybrid.kinds import UsageError
from physics_hybrid.run.drawing import draw
from tests.run.made_runs import make, resolved
from tests.test_seam import train_here


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A pendulum: a problem that has nothing to say besides."""
    folder = tmp_path_factory.mktemp("inspected")
    train_here(folder, "run=whole")
    return folder / "runs" / "whole"


def values(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: float(value) for name, value in lines[2:]}


def test_a_problem_without_its_own_statistics_shows_loss_and_metrics(run):
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    tested = inspect(run, "test", 0, 50)
    assert "split test, samples 0 to 49" in tested
    seen = values(tested)
    for name, key in (("mean", "mean"), ("p95", "p95"), ("max", "max")):
        known = metrics["small"]["relative_error"][key]
        assert seen[f"small, relative_error, {name}"] == pytest.approx(known, rel=1e-4)
    train = inspect(run, "train", 5, 3)
    assert "samples 4 to 7" in train  # whole batches of four
    assert values(train)["loss, mean"] == pytest.approx(values(train)["loss, mse, mean"])
    assert "all samples" in inspect(run, "validation", 0, 1)
    with pytest.raises(ValueError, match="split test has 50 samples: nothing from 60 on"):
        inspect(run, "test", 60, 3)
    with pytest.raises(ValueError, match="--count must be at least 1; got 0"):
        inspect(run, "test", 0, 0)


def test_metrics_and_curves_of_several_runs_are_drawn(tmp_path):
    config = resolved("experiment=flavour")
    for name, error in (("a", 0.1), ("b", 0.2)):
        make(tmp_path / name, config, error=error)
    make(tmp_path / "untested", config, trained=0.5)
    paths = draw([], tmp_path)
    assert [path.name for path in paths] == ["metrics.png", "curves.png"]
    assert all(path.stat().st_size > 5000 for path in paths)
    assert paths[0].parent == tmp_path / "comparisons"
    (curve,) = draw(["untested"], tmp_path, output=tmp_path / "out")
    assert curve == tmp_path / "out" / "curves.png"
    with pytest.raises(UsageError, match="no run has --metric eror .* there are error"):
        draw(["a"], tmp_path, metric="eror")
