"""The hybrid step: it begins as its baseline, knows no place, and refuses what it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from physics_hybrid.problems.burgers.metrics import Forecast, Metrics, nrmse, paired_ratio
from physics_hybrid.problems.burgers.networks import PeriodicFNO, PeriodicUNet
from physics_hybrid.problems.burgers.rivals import (
    Persistence,
    SteadyState,
    Stepper,
    Transport,
    forecast,
)
from physics_hybrid.problems.burgers.step import (
    HybridStep,
    refuse_beyond,
    rollout,
    steps_to,
)
from physics_hybrid.problems.burgers.stepper import CFL, advance

NU = torch.tensor([1e-3, 1e-2])
BACKBONES = {
    "unet": lambda channels: PeriodicUNet(channels, width=8, levels=2),
    "fno": lambda channels: PeriodicFNO(channels, width=8, depth=1, modes=8, decoder_width=8),
}


def hybrid(backbone="unet", cells=32, composition="additive", guards=()):
    torch.manual_seed(0)
    channels = 3 if composition == "additive" else 2
    return HybridStep(
        BACKBONES[backbone](channels),
        cells=cells,
        composition=composition,
        scale=None,
        dt=0.05,
        points=32,
        nu=[1e-3, 1e-2],
        guards=guards,
        cfl=CFL,
    )


def stirred(step):
    """Weights that do something."""
    torch.manual_seed(1)
    for p in step.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return step


@pytest.fixture
def u():
    x = (torch.arange(32) + 0.5) / 32
    return torch.stack([torch.sin(2 * torch.pi * x), 0.5 + torch.cos(4 * torch.pi * x)])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("composition", "cells"), [("additive", 32), ("additive", 8), ("direct", 32)]
)
def test_it_begins_as_its_baseline_to_the_bit(u, backbone, composition, cells):
    step = hybrid(backbone, cells, composition)
    base = step.baseline(u, NU)
    assert torch.equal(step(u, NU), base)
    assert torch.equal(base, u) == (composition == "direct")
    loss = step(u, NU).square().sum()
    loss.backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in step.parameters())


@pytest.mark.parametrize(
    ("backbone", "cells", "shift"), [("fno", 32, 1), ("unet", 32, 4), ("fno", 8, 4)]
)
def test_it_commutes_with_shifts(u, backbone, cells, shift):
    step = stirred(hybrid(backbone, cells))
    moved = step(torch.roll(u, shift, dims=1), NU)
    torch.testing.assert_close(moved, torch.roll(step(u, NU), shift, dims=1), rtol=0, atol=2e-5)
    assert bool((step(u, NU) - step.baseline(u, NU)).abs().max() > 1e-3)


def test_a_rollout_keeps_the_mean_where_it_is_guarded(u):
    drift = {}
    for guards in ((), ("mean",)):
        path = rollout(stirred(hybrid(guards=guards)), u, NU, 5)
        assert path.shape == (2, 6, 32)
        drift[guards] = float((path.mean(dim=2) - u.mean(dim=1, keepdim=True)).abs().max())
    assert drift[("mean",)] < 1e-6 < 1e-4 < drift[()]


def test_it_travels_as_a_file(u, tmp_path):
    from physics_hybrid.models.model_files import export_model, load_model

    step = stirred(hybrid(guards=("mean",)))
    again = load_model(export_model(tmp_path / "step.mdlus", step))
    assert torch.equal(again.step(u, NU), step.step(u, NU))
    assert again.statistics == {"dt": 0.05, "points": 32, "nu": [1e-3, 1e-2]}


def test_what_it_was_not_trained_on_is_refused():
    known = {"dt": 0.05, "points": 256, "nu": [1e-3, 1e-2]}
    refuse_beyond(known, 0.05, 256, [2e-3])
    for asked, message in (
        ((0.1, 256, [1e-3]), "makes steps of 0.05, and 0.1 is asked for"),
        ((0.05, 512, [1e-3]), "trained on 256 cells, and 512 are given"),
        ((0.05, 256, [0.02]), "trained with nu = 0.001, 0.01, and 0.02 lies beyond"),
    ):
        with pytest.raises(ValueError, match=message):
            refuse_beyond(known, *asked)
    assert steps_to([0.0, 0.15, 1.0], 0.05) == [0, 3, 20]
    with pytest.raises(ValueError, match="multiples >= 0 of the model's step 0.05; got 0.12"):
        steps_to([0.12], 0.05)


def test_choices_that_cannot_be_meant_are_refused(u):
    with pytest.raises(ValueError, match="model.cells must be a divisor of the 32 cells"):
        hybrid(cells=12)
    with pytest.raises(ValueError, match="model.composition must be additive or direct"):
        hybrid(composition="multiplicative")
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        PeriodicUNet(1, width=8, levels=2)(torch.zeros(1, 1, 30))
    with pytest.raises(ValueError, match="20 Fourier modes are more than a grid"):
        PeriodicFNO(1, width=8, depth=1, modes=20)(torch.zeros(1, 1, 32))


def test_backbones_work_in_two_dimensions():
    x = torch.randn(2, 3, 16, 16)
    for network in (
        PeriodicUNet(3, width=8, levels=2, dimension=2),
        PeriodicFNO(3, width=8, depth=1, modes=4, decoder_width=8, dimension=2),
    ):
        assert network(x).shape == (2, 1, 16, 16)
        assert float(network(x).abs().max()) == 0


# --- metrics


def test_physicsnemos_layout_has_units_second_and_its_decoder_is_left_out():
    from physics_hybrid.training.clipping import last_linear, unit_axes

    model = PeriodicFNO(3, width=6, depth=1, modes=4, decoder_width=5)
    spectral = dict(model.named_parameters())["operator.spec_encoder.spconv_layers.0.weights1"]
    assert spectral.shape == (6, 6, 4, 2)
    assert unit_axes(model)[spectral] == 1
    assert last_linear(model) is model.operator.decoder_net.final_layer.linear


def test_metrics_of_known_errors():
    u = torch.rand(3, 12, 16) + 1
    late, rest = u[:, 10:], u[:, 1:]
    right = Metrics(10)(Forecast(late=late, whole=rest, single=rest), u)
    assert all(row["nrmse"] == row["one_step"] == row["nrmse_from_start"] == 0 for row in right)
    wrong = Forecast(late=1.1 * late, whole=0.8 * rest, single=rest + 0.5, milliseconds=2.0)
    row = Metrics(10)(wrong, u)[0]
    assert row["nrmse"] == pytest.approx(0.1, rel=1e-5)
    assert row["nrmse_from_start"] == pytest.approx(0.2, rel=1e-5)
    assert row["milliseconds"] == 2.0
    assert nrmse(1.1 * late, late) == pytest.approx(0.1, rel=1e-5)
    growing = torch.cat([1.0 * rest[:, :1] * 0 + k for k in range(1, 12)], dim=1)
    assert Metrics(10)(Forecast(late, growing, rest), u)[0]["energy_increases"] > 0.8


def test_the_interval_of_a_paired_ratio_holds_what_is_known():
    random = np.random.default_rng(0)
    theirs = random.lognormal(size=200)
    ratio, low, high = paired_ratio(theirs * random.uniform(0.7, 0.9, 200), theirs)
    assert low < ratio < high < 1
    assert ratio == pytest.approx(0.8, abs=0.02)


def test_compiled_it_is_the_same(u):
    """Without the C++ compiler, which takes a minute."""
    from physics_hybrid.problems.burgers.rivals import compiled_advance
    from physics_hybrid.problems.burgers.stepper import advance

    assert torch.equal(compiled_advance("eager")(u, 0.05, NU), advance(u, 0.05, NU))


def test_rivals_are_what_they_say(u):
    frames = u[:, None].expand(2, 6, 32) + 0.0
    still = forecast(Persistence(), frames, NU, 3)
    assert torch.equal(still.late, frames[:, 3:])
    assert torch.equal(still.single, frames[:, 1:])
    mean = forecast(SteadyState(), frames, NU, 3)
    torch.testing.assert_close(mean.whole.std(dim=2), torch.zeros(2, 5))
    wave = u + 2 - u.mean(dim=1, keepdim=True)  # at a mean of 2, half a box in a quarter of time
    torch.testing.assert_close(Transport(0.25).step(wave, NU), torch.roll(wave, 16, dims=1))
    for cells in (16, 32, 64):
        alone = forecast(Stepper(cells, 0.05), frames, NU, 3)
        assert alone.late.shape == (2, 3, 32)
        assert alone.milliseconds > 0
    same = forecast(Stepper(32, 0.05), frames, NU, 3)
    step = hybrid(cells=32)
    torch.testing.assert_close(forecast(step, frames, NU, 3).whole, same.whole)


def test_the_file_says_which_substeps_the_baseline_takes(u, tmp_path):
    """A network corrects the stepper that it was trained beside, whatever today's default is."""
    from physics_hybrid.models.model_files import load_model

    for cfl in (0.3, 0.9):
        step = HybridStep(BACKBONES["unet"](3), 32, "additive", None, 0.05, 32, [1e-3], cfl=cfl)
        step.save(str(tmp_path / "step.mdlus"))
        again = load_model(tmp_path / "step.mdlus")
        assert torch.equal(again.baseline(u, NU), advance(u, 0.05, NU, cfl=cfl))
    older = HybridStep(BACKBONES["unet"](3), 32, "additive", None, 0.05, 32, [1e-3])
    assert torch.equal(older.baseline(u, NU), advance(u, 0.05, NU, cfl=0.8))
    assert not torch.equal(older.baseline(u, NU), again.baseline(u, NU))
