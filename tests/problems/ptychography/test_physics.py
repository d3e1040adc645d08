"""Far fields, objects, ePIE and assembly, held to sums, laws and their own truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from physics_hybrid.problems.ptychography.data.simulate import Setting, simulate
from physics_hybrid.problems.ptychography.losses import FarFieldLoss, misfit, poisson_deviance
from physics_hybrid.problems.ptychography.metrics import compare, phase_errors
from physics_hybrid.problems.ptychography.physics.assemble import (
    aligned,
    assemble,
    in_phase,
    interior,
)
from physics_hybrid.problems.ptychography.physics.epie import apart, epie
from physics_hybrid.problems.ptychography.physics.forward import (
    amplitude,
    detected,
    far_field,
    near_field,
    patches,
    photon_scale,
)
from physics_hybrid.problems.ptychography.physics.objects import draw_lines, line_object
from physics_hybrid.problems.ptychography.physics.probe import disk_probe

SMALL = Setting(
    frame=16,
    size=48,
    lines=40,
    set_phase=True,
    radius=4,
    edge=1,
    curvature=1.0,
    step=4,
    jitter=1,
    photons=None,
)


def random_patch(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, dtype=torch.complex128, generator=generator)


@pytest.mark.exact
@pytest.mark.parametrize("n", [8, 9])
def test_the_far_field_is_its_sum(n):
    """(1 / N) sum_r P(r) O(r) exp(-2 pi i k r / N), k from -N // 2 on."""
    probe, patch = random_patch(n), random_patch(n, 1)
    r = torch.arange(n, dtype=torch.float64)
    k = r - n // 2
    wave = torch.exp(-2j * torch.pi * torch.outer(k, r) / n)
    direct = (wave @ (probe * patch) @ wave.T / n).abs()
    assert (amplitude(probe, patch) - direct).abs().max() < 1e-6 * direct.max()
    single = amplitude(probe.to(torch.complex64), patch.to(torch.complex64))
    assert (single - direct).abs().max() < 1e-6 * direct.max()


@pytest.mark.exact
def test_parseval_and_back():
    probe, patch = random_patch(12), random_patch(12, 1)
    energy = (probe * patch).abs().square().sum()
    assert amplitude(probe, patch).square().sum() == pytest.approx(float(energy), rel=1e-12)
    assert torch.allclose(near_field(far_field(patch)), patch, rtol=0, atol=1e-12)


@pytest.mark.exact
def test_the_gradient_of_the_loss_is_its_finite_difference():
    probe = torch.from_numpy(disk_probe(8, 2.0))
    truth, patch = random_patch(8), random_patch(8, 1)
    measured = amplitude(probe, truth)
    loss = FarFieldLoss({"mae": 1.0, "poisson": 0.3}, float(measured.mean()))

    def value(real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
        predicted = amplitude(probe, torch.complex(real, imaginary))
        return loss(predicted[None], measured[None], 3.0)[0]

    parts = [patch.real.clone().requires_grad_(), patch.imag.clone().requires_grad_()]
    assert torch.autograd.gradcheck(value, parts, eps=1e-6, atol=1e-6)


@pytest.mark.exact
def test_the_loss_is_zero_at_the_truth_without_noise_and_nowhere_near():
    scan = simulate(SMALL, "one", (0, 0, 0))
    expected = scan.expected(scan.truth)
    loss = FarFieldLoss({"mae": 1.0, "poisson": 1.0}, float(scan.amplitude.mean()))
    value, terms = loss(expected, scan.amplitude, scan.photon_scale)
    assert float(value) < 1e-5
    assert set(terms) == {"mae", "poisson"}
    off = loss(1.01 * expected, scan.amplitude, scan.photon_scale)[1]
    assert float(off["mae"]) == pytest.approx(0.01, rel=0.01)
    # n log(n / m) - n + m at m = 1.0201 n
    assert float(off["poisson"]) == pytest.approx(0.0201 - np.log(1.0201), rel=0.01)
    turned = scan.truth * np.exp(0.7j)  # no far field tells
    assert misfit(scan.expected(turned), scan.amplitude) < 1e-5


def test_photons_are_counted_over_the_brightest_frame_and_noise_is_that_of_poisson():
    rng = np.random.default_rng(0)
    amplitudes = rng.random((3, 16, 16)) + 0.5
    scale = photon_scale(amplitudes, 1e6)
    assert ((scale * amplitudes) ** 2).sum(axis=(1, 2)).max() == pytest.approx(1e6)
    noise = 2 * scale * (detected(amplitudes, scale, rng) - amplitudes)
    assert noise.std() == pytest.approx(1.0, rel=0.05)  # sqrt(counts) has a deviation of 1/2
    bright = FarFieldLoss({"mae": 0.0, "poisson": 1.0}, 1.0)
    measured = torch.from_numpy(detected(amplitudes, scale, rng))
    deviance = float(bright(torch.from_numpy(amplitudes), measured, scale)[0])
    # half a unit for each pixel, over all photons
    photons = ((scale * amplitudes) ** 2).sum()
    assert deviance * photons / amplitudes.size == pytest.approx(0.5, rel=0.15)
    dark = torch.zeros(1, 4, 4)
    assert torch.isfinite(poisson_deviance(dark, torch.ones(1, 4, 4), 10.0))


def test_objects_are_lines_blurred_with_the_phase_of_their_formula():
    drawing = draw_lines(9, np.array([[[0, 0], [8, 8]], [[4, 0], [4, 8]]]))
    assert drawing.sum() == 17
    assert drawing.trace() == 9
    whole = line_object(64, 60, np.random.default_rng(0))
    light = np.abs(whole)
    assert light.mean() == pytest.approx(1)
    assert np.allclose(np.angle(whole), np.pi * np.tanh((light - light.max() / 2) / 3))
    flat = line_object(64, 60, np.random.default_rng(0), phase=False)
    assert (flat.imag == 0).all()
    assert np.allclose(flat.real, light)


def test_scans_follow_from_their_key_alone_and_cover_the_object():
    scan, again = (simulate(SMALL, "one", (3, 0, 1)) for _ in range(2))
    assert torch.equal(scan.amplitude, again.amplitude)
    assert not torch.equal(scan.truth, simulate(SMALL, "two", (3, 0, 2)).truth)
    assert scan.positions.min() == 0
    assert scan.positions.max() == 32
    off = scan.positions - 4 * torch.round(scan.positions / 4)
    assert 0 < off.abs().max() <= 1
    light = torch.linspace(0, 32, 9)
    assert len(scan.positions) == len(light) ** 2


@pytest.mark.exact
def test_true_patches_assemble_to_the_object_and_what_is_not_measured_goes():
    scan = simulate(SMALL, "one", (0, 0, 0))
    inside = interior(scan.positions, 16)
    patch = patches(scan.truth, scan.positions, 16)
    whole = assemble(patch, scan.probe, scan.positions, scan.shape)
    assert torch.allclose(whole[inside], scan.truth[inside], rtol=0, atol=1e-5)
    changed = 0.4 * np.exp(2.1j) * scan.truth
    assert torch.allclose(aligned(changed, scan.truth), scan.truth, rtol=0, atol=1e-5)
    errors = compare(changed, scan)
    assert errors["amplitude_mae"] < 1e-5
    assert errors["phase_mae"] < 1e-5
    assert errors["phase_ssim"] > 0.9999
    assert errors["misfit"] == pytest.approx(0.6, abs=1e-3)


def test_errors_that_are_known_and_phases_that_go_round():
    truth = torch.polar(torch.ones(20, 20), torch.linspace(-3, 3, 400).reshape(20, 20))
    found = truth * np.exp(0.5j)
    assert phase_errors(found, truth)["phase_mae"] == pytest.approx(0.5, rel=1e-4)
    # 20 log10(range / error)
    expected = 20 * np.log10(6 / 0.5)
    assert phase_errors(found, truth)["phase_psnr"] == pytest.approx(expected, rel=1e-4)


def test_phase_metrics_are_refused_where_the_object_has_none():
    flat = torch.ones(20, 20, dtype=torch.complex64)
    with pytest.raises(ValueError, match="has no phase, so that its errors mean nothing"):
        phase_errors(flat, flat)


def test_frames_of_a_set_do_not_overlap():
    scan = simulate(SMALL, "one", (0, 0, 0))
    sets = apart(scan.positions, 16)
    assert sorted(i for rows in sets for i in rows) == list(range(81))
    for rows in sets:
        corners = scan.positions[rows]
        gap = (corners[:, None] - corners[None]).abs().amax(dim=2) + 99 * torch.eye(len(rows))
        assert gap.min() >= 16
    assert len(sets) < 40


@pytest.mark.exact
def test_epie_converges_on_noise_free_data():
    scan = simulate(SMALL, "one", (0, 0, 0))
    inside = interior(scan.positions, 16)
    errors = []
    for iterations in (0, 20, 200):
        found = epie(scan.amplitude, scan.probe, scan.positions, scan.shape, iterations)
        errors.append(misfit(scan.expected(found), scan.amplitude))
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.2 * errors[1] < 0.02 * errors[0]
    assert (aligned(found[inside], scan.truth[inside]) - scan.truth[inside]).abs().mean() < 5e-3
    still = epie(scan.amplitude, scan.probe, scan.positions, scan.shape, 0)
    assert torch.equal(still, torch.ones_like(still))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 16}, r"data\.size must be at least 20; got 16"),
        ({"step": 0}, r"data\.step must be at least 1"),
        ({"photons": -1.0}, r"data\.photons must be > 0"),
        ({"jitter": -1}, r"data\.jitter must be >= 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(change, message):
    values = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        Setting(**{**values, **change})


@pytest.mark.exact
def test_patches_that_are_each_off_by_a_phase_come_back_into_phase():
    scan = simulate(SMALL, "one", (0, 0, 0))
    inside = interior(scan.positions, 16)
    patch = patches(scan.truth, scan.positions, 16)
    angle = 0.8 * torch.randn(len(patch), generator=torch.Generator().manual_seed(0))
    turned = torch.polar(torch.ones_like(angle), angle)[:, None, None] * patch
    off = assemble(turned, scan.probe, scan.positions, scan.shape)
    back = in_phase(turned, scan.probe, scan.positions, scan.shape, sweeps=200)
    whole = assemble(back, scan.probe, scan.positions, scan.shape)
    errors = [
        float((aligned(found[inside], scan.truth[inside]) - scan.truth[inside]).abs().mean())
        for found in (off, whole)
    ]
    assert errors[0] > 0.1
    assert errors[1] < 1e-3


@pytest.mark.exact
def test_a_flat_probe_does_not_tell_an_object_from_its_twin_and_a_curved_one_does():
    """o(r) and o*(-r) have one far field where P is real and even."""
    patch = random_patch(16)
    twin = patch.flip(0, 1).conj()
    flat, curved = (
        torch.from_numpy(disk_probe(16, 4.0, curvature=curvature)) for curvature in (0.0, 6.0)
    )
    assert torch.allclose(amplitude(flat, patch), amplitude(flat, twin), rtol=0, atol=1e-12)
    assert misfit(amplitude(curved, twin), amplitude(curved, patch)) > 0.1
