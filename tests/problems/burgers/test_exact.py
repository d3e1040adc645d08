"""The exact solution, and the stepper that is held to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from physics_hybrid.problems.burgers.exact import InitialStates, exact_means
from physics_hybrid.problems.burgers.guards import energy_excess, keep_mean
from physics_hybrid.problems.burgers.stepper import (
    advance,
    prolong,
    reconstruct,
    resample,
    restrict,
)

NU = 1e-3
TIMES = [round(0.05 * k, 10) for k in range(21)]


@pytest.fixture(scope="module")
def exact():
    """Six trajectories to t = 1, (6, 21, 256)."""
    return exact_means(InitialStates(6, seed=1), NU, 256, TIMES)


@pytest.mark.exact
def test_the_exact_solution_agrees_with_a_finer_quadrature(exact):
    few = InitialStates(6, seed=1).rows([0, 1])
    fine = exact_means(few, NU, 256, [0, 0.05, 1.0], nodes=1024)
    for frame, k in enumerate((0, 1, 20)):
        error = np.sqrt(((exact[:2, k] - fine[:, frame]) ** 2).mean(1))
        assert (error < 2e-5 * np.sqrt((fine[:, frame] ** 2).mean(1))).all()


@pytest.mark.exact
def test_the_exact_solution_keeps_its_mean_and_loses_energy(exact):
    assert np.ptp(exact.mean(axis=2), axis=1).max() < 1e-12
    energy = (exact**2).mean(axis=2)
    assert (np.diff(energy, axis=1) < 0).all()


@pytest.mark.exact
def test_a_small_wave_decays_as_the_heat_equation_says():
    """u = m + a sin(2 pi (x - m t)) exp(-4 pi^2 eps t) for a -> 0."""

    class Wave(InitialStates):
        def __call__(self, x):
            return np.tile(0.3 + 1e-4 * np.sin(2 * np.pi * x), (len(self), 1))

    nu, t, edges = 0.05, 0.5, np.arange(129) / 128
    u = exact_means(Wave(1, seed=0), nu, 128, [t])[0, 0]
    primitive = -np.cos(2 * np.pi * (edges - 0.3 * t)) / (2 * np.pi)
    decayed = math.exp(-4 * math.pi**2 * nu / math.pi * t)
    wave = 0.3 + 1e-4 * decayed * np.diff(primitive) * 128
    np.testing.assert_allclose(u, wave, rtol=0, atol=2e-7)


def test_initial_states_are_those_of_their_numbers():
    states, x = InitialStates(400, seed=2), np.linspace(0, 1, 257)
    np.testing.assert_array_equal(states.rows([3, 7])(x), states(x)[[3, 7]])
    np.testing.assert_allclose(states(x)[:, 0], states(x)[:, -1], atol=1e-6)  # periodic
    assert set(np.unique((states.wavenumber > 0).sum(axis=1))) == {1, 2}
    assert 0.05 < states.absolute.mean() < 0.15
    assert states(x).mean(axis=1).std() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nu": 5e-4}, "proven for nu >= 0.001; got 0.0005"),
        ({"times": [0.02]}, "0.05 apart or more; got 0.02"),
        ({"times": [0.1, 0.1]}, "times must be >= 0 and increase"),
        ({"cells": 100}, "cells must be a divisor of 512, such as 256; got 100"),
    ],
)
def test_what_the_exact_solution_is_unproven_for_is_refused(change, message):
    asked = {"nu": 0.01, "times": [0.1], "cells": 64, **change}
    with pytest.raises(ValueError, match=message):
        exact_means(InitialStates(1, seed=0), **asked)


# --- the stepper


@pytest.mark.exact
def test_the_stepper_converges_with_nearly_second_order():
    """The limiter clips extrema: below 2."""
    nu, errors = 0.05, []
    states = InitialStates(2, seed=4)
    for cells in (64, 128, 256, 512):
        u = exact_means(states, nu, cells, [0.0, 0.1])
        after = advance(torch.from_numpy(u[:, 0]), 0.1, nu)
        errors.append(float((after - torch.from_numpy(u[:, 1])).abs().mean()))
    orders = np.diff(np.log2(errors))
    assert (orders < -1.4).all(), orders


@pytest.mark.exact
def test_the_stepper_is_as_good_as_it_was_measured(exact):
    u = torch.from_numpy(exact).float()
    for cells, most in ((64, 0.07), (256, 0.012), (1024, 0.0025)):
        after = resample(advance(resample(u[:, 9], cells), 0.05, NU), cells)
        for _ in range(10):
            after = advance(after, 0.05, NU)
        error = (resample(after, 256) - u[:, 20]).norm(dim=1) / u[:, 20].norm(dim=1)
        assert float(error.mean()) < most


def test_forty_frames_keep_the_mean_in_float32(exact):
    u = torch.from_numpy(exact[:, 0]).float()
    before = u.double().mean(dim=1)
    for _ in range(40):
        u = advance(u, 0.05, NU)
    assert float((u.double().mean(dim=1) - before).abs().max()) < 1e-6


def test_a_sample_does_not_know_its_neighbours_in_the_batch(exact):
    u = torch.from_numpy(exact[:3, 0]).float() * torch.tensor([[1.0], [0.3], [0.1]])
    nu = torch.tensor([1e-3, 1e-2, 1e-3])
    together = advance(u, 0.05, nu)
    for i in range(3):
        assert torch.equal(together[i : i + 1], advance(u[i : i + 1], 0.05, nu[i : i + 1]))


def test_a_state_that_has_diverged_is_no_number_and_its_neighbours_go_on(exact):
    u = torch.from_numpy(exact[:2, 0]).float()
    wild = torch.stack([u[0], 1e9 * u[1], torch.full_like(u[0], math.inf)])
    after = advance(wild, 0.05, NU)
    assert torch.equal(after[:1], advance(u[:1], 0.05, NU))
    assert after[1:].isnan().all()


def test_gradients_are_finite_where_states_are_constant():
    """The limiter's 0 / 0."""
    u = torch.full((2, 16), 0.3, requires_grad=True)
    (advance(u, 0.05, NU).sum() + reconstruct(u, torch.rand(9)).sum()).backward()
    assert bool(torch.isfinite(u.grad).all())


def test_the_stepper_has_the_gradient_of_finite_differences():
    torch.manual_seed(0)
    u = torch.randn(1, 12, dtype=torch.float64).mul(0.2).add(1.0).requires_grad_(True)
    weight = torch.randn(1, 12, dtype=torch.float64)
    (advance(u, 0.02, 0.05) * weight).sum().backward()
    direction = torch.randn(1, 12, dtype=torch.float64)
    with torch.no_grad():
        h = 1e-6
        ahead, behind = (advance(u + s * h * direction, 0.02, 0.05) for s in (1, -1))
        slope = float(((ahead - behind) * weight).sum() / (2 * h))
    assert slope == pytest.approx(float((u.grad * direction).sum()), rel=1e-5)


def test_between_grids_means_are_kept(exact):
    c = torch.from_numpy(exact[:, 3, ::4])
    torch.testing.assert_close(restrict(prolong(c, 4), 64), c)
    centres = (torch.arange(256, dtype=c.dtype) + 0.5) / 256
    torch.testing.assert_close(reconstruct(c, centres), prolong(c, 4))
    with pytest.raises(ValueError, match="64 cells cannot be joined to 48: take a divisor"):
        restrict(c, 48)


def test_guards_keep_the_mean_and_see_energy_that_rises():
    u = torch.tensor([[1.0, 2.0, 3.0, 2.0]])
    torch.testing.assert_close(keep_mean(u + 0.5, u), u)
    assert float(energy_excess(1.1 * u, u)) == pytest.approx(0.21)
    assert float(energy_excess(0.9 * u, u)) == 0
