"""check: what it says of a training that nobody has run yet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from physics_hybrid.evidence import check as checking
from physics_hybrid.evidence.check import check
from physics_hybrid.verbs.check import main
from tests.conftest import composed
from tests.test_seam import configured


@pytest.fixture
def pendulum(monkeypatch, tmp_path):
    """Words mean the pendulum, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        checking, "configuration", lambda words: configured(f"runs_folder={tmp_path}/r", *words)
    )
    monkeypatch.setattr(checking, "LONG_ENOUGH", 0.2)
    return tmp_path


def test_the_time_of_steps_and_what_lies_on_disk_follow_by_counting(pendulum):
    said = {}
    words = ["training.epochs=40", "data.pause=0.02"]
    estimate = check(words, lambda part, what: said.update({part: what}), rate=3.6)
    assert list(said) == [
        *("configuration", "data", "training", "validation", "evaluation"),
        *("seconds", "memory", "disk", "money"),
    ]
    # 15 batches an epoch, each 20 ms in coming
    assert 600 * 0.02 < estimate.parts["training"] < 600 * 0.2
    assert "600 in all" in said["training"]
    assert "40 in all" in said["validation"]
    assert estimate.money(3.6) == pytest.approx(estimate.seconds / 1000)
    assert estimate.memory > 100
    assert 0 < estimate.disk < 5
    assert not [*pendulum.iterdir()]


def test_the_first_failure_ends_it_with_one_line(pendulum, capsys):
    with pytest.raises(SystemExit) as left:
        main(["training.epochs=0", "--rate", "2"])
    assert left.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "after nothing: FAILED\nerror: training.epochs must be at least 1; got 0\n"
    with pytest.raises(SystemExit):
        main(["model.width=-3"])
    assert "after configuration, data: FAILED" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_told(pendulum, monkeypatch, capsys):
    monkeypatch.setattr(checking, "FULL", 0.0)
    with pytest.raises(SystemExit):
        main(["training.epochs=1"])
    assert "MB are needed, and" in capsys.readouterr().err.splitlines()[-1]


def test_limbs_are_cut_down_and_counted_up_again(tmp_path):
    from physics_hybrid.problem import Place
    from physics_hybrid.run.load import recipe_of

    words = ["data=generated", "data.train_samples=40", "data.validation_samples=12"]
    words += ["data.grid=[12,8,8]", "evaluation.samples=10", "model.statistics_samples=32"]
    words += ["evaluation.resolutions=[[12,8,8]]", f"data.folder={tmp_path / 'there'}"]
    recipe = recipe_of(composed(tmp_path, "x", words, ("fno",)))
    cut = recipe.excerpt(16, tmp_path / "few")
    assert (cut.statistics, cut.prepare, cut.validate) == (2.0, 52 / 20, 3.0)
    assert (cut.tested, cut.samples) == (2.5, 10)
    assert cut.recipe.config["data"]["folder"] == str(tmp_path / "few")
    assert cut.recipe.config["evaluation"]["samples"] == 4
    place = Place(torch.device("cpu"))
    data = recipe.open(place).data
    data.files("validation", (12, 8, 8), 12)  # solved before: costs nothing again
    assert recipe.excerpt(16, tmp_path / "few").prepare == 40 / 20
    assert not Path(tmp_path / "few").exists()


def test_of_a_clocked_test_set_the_later_batches_count(monkeypatch):
    class Tests:
        name = "all"

        def __len__(self):
            return 4

        def batches(self):
            yield from ([1, 2], [3, 4])

    clock = iter([0.0, 10.0, 12.0])  # the first batch makes what the others use
    monkeypatch.setattr(checking.time, "perf_counter", lambda: next(clock))
    clocked = checking._Clocked(Tests())
    assert len([*clocked.batches()]) == 2
    assert clocked.name == "all"
    assert clocked.rest(10) == 3 * 2.0
