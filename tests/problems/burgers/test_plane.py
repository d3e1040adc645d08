"""The hybrid step on a square: exact solution, stepper, a training of seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from physics_hybrid.problems.burgers.networks import PeriodicUNet
from physics_hybrid.problems.burgers.plane.exact import exact_means, initial_states
from physics_hybrid.problems.burgers.plane.step import PlaneStep, PlaneStepper
from physics_hybrid.problems.burgers.plane.stepper import advance, prolong, resample, restrict
from tests.problems.burgers.test_learning import configured

VELOCITY = np.array([[0.7, -0.4], [-1.0, 0.3]])


@pytest.mark.exact
def test_a_wave_moves_and_decays_as_it_must():
    x = (np.arange(64) + 0.5) / 64
    u = np.sin(2 * np.pi * (2 * x[:, None] + x))[None]
    a, nu, t = VELOCITY[:1], 0.02, 0.3
    later = exact_means(u, a, nu, 64, [t])[0, 0]
    phase = 2 * (x[:, None] - 0.7 * t) + (x + 0.4 * t)
    decayed = np.exp(-4 * np.pi**2 * 5 * nu / np.pi * t)
    np.testing.assert_allclose(later, decayed * np.sin(2 * np.pi * phase), atol=1e-10)


@pytest.mark.exact
def test_the_stepper_converges_with_nearly_second_order_and_keeps_the_mean():
    errors = []
    x = (np.arange(64) + 0.5) / 64
    u = np.stack([np.sin(2 * np.pi * (x[:, None] + x)), np.cos(2 * np.pi * x[:, None]) + 0 * x])
    for cells in (16, 32):
        frames = torch.from_numpy(exact_means(u, VELOCITY, 0.01, cells, [0.0, 0.2]))
        after = advance(frames[:, 0], torch.from_numpy(VELOCITY), 0.2, 0.01)
        torch.testing.assert_close(after.mean(dim=(1, 2)), frames[:, 0].mean(dim=(1, 2)))
        errors.append(float((after - frames[:, 1]).abs().mean()))
    assert (np.diff(np.log2(errors)) < -1.3).all(), errors


def test_samples_of_a_batch_do_not_see_each_other():
    u = torch.rand(2, 16, 16, dtype=torch.float64)
    velocity = torch.tensor([[0.1, 0.2], [1.0, -0.9]], dtype=torch.float64)
    together = advance(u, velocity, 0.3, 0.001)
    alone = [advance(u[i : i + 1], velocity[i : i + 1], 0.3, 0.001) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))


def test_a_full_cell_a_step_is_an_exact_shift():
    u = torch.rand(1, 8, 8)
    from physics_hybrid.problems.burgers.plane.stepper import sweep

    for c, axis in ((1.0, 1), (-1.0, 1), (1.0, 2), (-1.0, 2)):
        moved = sweep(u, torch.tensor([[[c]]]), axis)
        torch.testing.assert_close(moved, torch.roll(u, int(c), dims=axis))


def test_between_grids_means_are_kept():
    c = torch.rand(2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(restrict(prolong(c, 4), 8), c)
    assert resample(c, 16).shape == (2, 16, 16)
    assert resample(c, 4).shape == (2, 4, 4)


def test_it_begins_as_its_baseline_and_keeps_the_mean():
    torch.manual_seed(0)
    velocity = torch.from_numpy(VELOCITY).float()
    states, _ = initial_states(2, 16, [0])
    u = torch.from_numpy(states).float().flatten(1)
    backbone = PeriodicUNet(4, width=8, levels=1, kernel=3, dimension=2)
    step = PlaneStep(backbone, 16, "additive", None, 0.05, 256, [0.001], ["mean"])
    alone = PlaneStepper(16, 0.05, 0.001)
    assert torch.equal(step(u, velocity), alone.step(u, velocity))
    torch.testing.assert_close(step.path(u, velocity, 3), alone.path(u, velocity, 3))
    for p in step.parameters():
        p.data += 0.1 * torch.randn_like(p)
    path = step.path(u, velocity, 3)
    torch.testing.assert_close(path.mean(dim=2)[:, 3], u.mean(dim=1), rtol=0, atol=1e-6)
    assert float((path - alone.path(u, velocity, 3)).abs().max()) > 1e-3
    with pytest.raises(ValueError, match="model.cells must be a divisor of the 16 cells; got 12"):
        PlaneStep(backbone, 12, "additive", None, 0.05, 256, [0.001])


@pytest.mark.slow
def test_it_trains_behind_the_same_seam(tmp_path):
    from physics_hybrid.run.train import train

    words = ["experiment=burgers_plane", "data.cells=16", "model.cells=8", "data.frames=8"]
    words += ["evaluation.steppers=[8,16]", "model.backbone.levels=1", "training.figures_every=0"]
    place = [f"runs_folder={tmp_path}", f"data.folder={tmp_path / 'data'}", "run=square"]
    folder = train(configured(*words, *place))
    tested = json.loads((folder / "evaluation/metrics.json").read_text())["nu0.001"]
    assert tested["one_step"]["mean"] < tested["stepper8_one_step"]["mean"]
    assert tested["mean_drift"]["max"] < 1e-6
    report = (folder / "evaluation/report.md").read_text()
    assert "| nu0.001 | stepper, 16 x 16 cells |" in report
    assert (folder / "evaluation/maps.png").exists()
