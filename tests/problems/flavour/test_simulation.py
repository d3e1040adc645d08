"""The simulation that makes truth, against what is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from physics_hybrid.problems.flavour.physics.box3d import convert
from physics_hybrid.problems.flavour.physics.dispersion import growth, largest_growth
from physics_hybrid.problems.flavour.physics.families import CROSSING, FAMILIES, draw
from physics_hybrid.problems.flavour.physics.simulation import Box, Run, Spinors, simulate
from physics_hybrid.problems.flavour.physics.sphere import Quadrature, frame, product
from physics_hybrid.problems.flavour.physics.units import RATE_OF_DENSITY
from tests.problems.flavour.states import beams, rotated

N0 = 4.891290819e32  # 1/cm^3


def fitted_rate(times: torch.Tensor, electron: torch.Tensor, low: float, high: float) -> float:
    """Growth of the amplitude while 1 - P_e is between `low` and `high`."""
    gone = 1 - electron[:, 0]
    there = (gone > low) & (gone < high)
    return 0.5 * np.polyfit(times[there].numpy(), gone[there].log().numpy(), 1)[0]


@pytest.mark.exact
@pytest.mark.parametrize("share", [-1.0, -2.0, -3.0])
def test_two_beams_grow_as_they_must(share):
    """gamma = sqrt(4 mu^2 - (k + 2 mu)^2), -4 mu < k < 0"""
    mu, k = 0.5, share * 0.5
    two = Quadrature(
        torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64),
        torch.ones(2, dtype=torch.float64),
    )
    box = Box(length=2 * math.pi / abs(k), cells=50, step=0.1)
    G = mu * torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    start = Spinors.noise([(0,)], 50, 2, 0.0)
    z = (torch.arange(50, dtype=torch.float64) + 0.5) * box.length / box.cells
    start.q[1] = 1e-7 * torch.cos(k * z)[:, None]
    start.q[4] = 1e-7 * torch.sin(k * z)[:, None]
    duration = 18.0
    run = Run.of(G, two, box, torch.tensor([duration], dtype=torch.float64))
    _, _, times, electron = run.go(start, fused=False)
    exact = math.sqrt(4 * mu**2 - (k + 2 * mu) ** 2)
    assert fitted_rate(times * duration, electron, 1e-10, 1e-5) == pytest.approx(exact, rel=0.01)
    waves = growth(G[0], two.directions, torch.tensor([[0.0, 0.0, k]], dtype=torch.float64))
    assert float(waves) == pytest.approx(exact, rel=1e-6)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("state", "rate"),
    [
        (beams(N0, N0, [0, 0, 1 / 3], [0, 0, -1 / 3]), 6.49e10),
        (beams(N0, N0, [0, 0, 1 / 3], [0, 1 / 3, 0]), 4.59e10),
        (beams(N0, 2 * N0 / 3, [0, 0, 0], [0, 0, -1 / 3]), 1.34e10),
    ],
)
def test_the_dispersion_relation_gives_known_rates(state, rate):
    """Known for distributions linear in the angle, g = N / (4 pi) (1 + 3 f . n)."""
    rule = product(16, 4)
    turned = rotated(state[None], frame(state[None]))[0]
    g = (turned[:, 3:] + 3 * turned[:, :3] @ rule.directions.T) / (4 * math.pi)
    k = torch.zeros(61, 3, dtype=torch.float64)
    k[:, 2] = torch.linspace(-1.2, 1.2, 61)
    scale = float(state[:, 3].sum())
    found = growth((g[0] - g[3]) / scale * rule.weights, rule.directions, k).max()
    assert float(found) * scale * RATE_OF_DENSITY == pytest.approx(rate, rel=0.02)


def test_minerbo_grows_as_linear_distributions_where_the_crossing_is_deep():
    state = beams(0.5, 0.5, [0, 0, 1 / 3], [0, 0, -1 / 3])
    found = largest_growth(state, product(12, 4), np.linspace(-1, 1, 41).tolist())
    assert float(found) * 2 * N0 * RATE_OF_DENSITY == pytest.approx(6.49e10, rel=0.02)


def test_a_simulation_conserves_and_grows_as_the_dispersion_relation_says():
    state = beams(0.5, 0.5, [0, 0, 1 / 3], [0, 0, -1 / 3])
    box = Box(length=48.0, cells=48, azimuth=2, noise=1e-5, shortest=100.0, longest=100.0)
    out = simulate(state[None], box, [(1, 2)])
    assert (out.drift < 1e-6).all()
    assert out.increment.sum(dim=1).abs().max() < 1e-12
    assert (out.increment[:, 0, 3] - out.increment[:, 3, 3]).abs() < 1e-12
    # equal sides: nearly a third of the electron flavour survives
    assert 1 / 6 < float(state[0, 3] + out.increment[0, 0, 3]) < 0.21
    # time is in units of sum w |G|: that of I+ + I-
    found = convert(state[None], box.rule)
    unit = float(found.plus + found.minus)
    expected = float(largest_growth(state, box.rule, np.linspace(-1, 1, 41).tolist())) / unit
    rate = fitted_rate(out.times * 100, out.electron, 1e-7, 1e-4)
    assert rate == pytest.approx(expected, rel=0.12)


def test_families_are_what_they_say_and_follow_from_their_number():
    for family in FAMILIES:
        states = torch.stack([draw(family, 3, number) for number in (0, 1)])
        crossing = convert(states, product(24, 16)).crossing
        low, high = CROSSING[family]
        assert ((crossing > low) & (crossing <= high)).all()
        assert (draw(family, 3, 1) == states[1]).all()
        assert not (states[0] == states[1]).all()


def test_convergence_is_measured_against_the_reference_and_goes_on(tmp_path, monkeypatch):
    from physics_hybrid.problems.flavour.evidence import convergence

    base = Box(length=16.0, cells=8, polar=6, azimuth=2, step=0.4, shortest=20.0, longest=20.0)
    boxes = {
        "reference": ({}, 0),
        "the same": ({}, 0),
        "half the step": ({"step": 0.2}, 0),
        "other noise": ({}, 1),
    }
    monkeypatch.setattr(convergence, "BOXES", boxes)
    result = convergence.measure(2, tmp_path, fused=False, base=base)
    assert list(result["boxes"]) == ["the same", "half the step", "other noise"]
    assert len(result["boxes"]["the same"]["random"]) == 1
    for differences in result["boxes"]["the same"].values():
        assert set(differences) == {0.0}
    largest = {k: max(sum(by.values(), [])) for k, by in result["boxes"].items()}
    assert 0 < largest["half the step"] < largest["other noise"]
    assert "| half the step |" in convergence.convergence_table(result)
    assert "2 states" in convergence.convergence_table(result)
    monkeypatch.setattr(convergence, "simulate", None)  # all of it is there
    assert convergence.measure(2, tmp_path, fused=False, base=base) == result
