"""Pictures are written for every sample that may come: sources and sinks, grids of different
extent.
"""

import dataclasses

import matplotlib.image
import pytest
import torch

from physics_hybrid.problems.potential.figures import errors_by_distance, slices
from physics_hybrid.report.curve import training_curve
from tests.conftest import limb_distribution


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_slices_of_a_source_and_of_a_sink(batch, tmp_path, sign):
    batch = dataclasses.replace(batch, u=sign * batch.u, current=sign * batch.current)
    picture = matplotlib.image.imread(
        slices(batch, 1.1 * batch.u, 0.5 * batch.u, tmp_path / "a.png", "title")
    )
    assert picture.shape[0] > 500
    assert picture.std() > 0.05


@pytest.mark.slow
def test_slices_of_a_pair(tmp_path):
    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
    from physics_hybrid.problems.potential.physics.ends import Ends

    batch = LimbStream(
        limb_distribution(pair_distance=0.06),
        (24, 12, 12),
        0,
        "train",
        Solver(ends=Ends("pair")),
        torch.device("cpu"),
    ).batch([0])
    picture = matplotlib.image.imread(
        slices(batch, 1.1 * batch.u, 0.5 * batch.u, tmp_path / "a.png", "title")
    )
    assert picture.shape[0] > 500
    assert picture.std() > 0.05


@pytest.mark.slow
def test_a_perfect_prediction_can_be_drawn(batch, tmp_path):
    assert slices(batch, batch.u, batch.u, tmp_path / "a.png", "title").stat().st_size > 0


def test_shells_are_drawn_where_they_belong(tmp_path, monkeypatch):
    """A grid that lacks the first shell starts at the second tick."""
    import matplotlib.axes

    drawn = []
    original = matplotlib.axes.Axes.errorbar
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "errorbar",
        lambda self, x, y, **k: drawn.append((list(x), list(y))) or original(self, x, y, **k),
    )

    def shell(v):
        return {"median": v, "p95": 2 * v}

    tables = {
        "48x24x24": {
            "relative_l2_20-40mm": shell(0.2),
            "relative_l2_40mm+": shell(0.4),
            "baseline_relative_l2_20-40mm": shell(0.5),
            "baseline_relative_l2_40mm+": shell(0.6),
        },
        "96x48x48": {
            "relative_l2_0-20mm": shell(0.1),
            "relative_l2_20-40mm": shell(0.2),
            "relative_l2_40mm+": shell(0.4),
            "baseline_relative_l2_0-20mm": shell(0.5),
        },
    }
    errors_by_distance(tables, tmp_path / "a.png")
    assert drawn[0] == ([1, 2], [20.0, 40.0])
    assert drawn[2][0] == [0, 1, 2]


def test_training_curve_needs_records(tmp_path):
    assert training_curve([], "relative_l2", tmp_path / "a.png") is None
    records = [
        {"step": 1, "train/loss": 0.5, "train/mse": 0.4, "validation/relative_l2": 0.6},
        {"step": 2, "train/loss": 0.3, "train/mse": 0.2},
    ]
    assert training_curve(records, "relative_l2", tmp_path / "a.png").exists()
