"""Box3D: what is known of it without running it."""

from __future__ import annotations

import pytest
import torch

from physics_hybrid.problems.flavour.physics.box3d import box3d, convert, growth_rate
from physics_hybrid.problems.flavour.physics.fluxes import (
    AT_REST,
    SWAP,
    boost,
    invariants,
    is_physical,
    physical_share,
    reversed_velocity,
    swapped_invariants,
)
from physics_hybrid.problems.flavour.physics.minerbo import (
    distribution,
    inverse_langevin,
    langevin,
)
from physics_hybrid.problems.flavour.physics.sphere import lebedev, product, quadrature
from physics_hybrid.problems.flavour.physics.units import RATE_OF_DENSITY
from tests.problems.flavour.states import beams, random_states, rotated, rotations

RULE = product(24, 16)


def test_minerbo_is_inverted_and_has_its_moments():
    f = torch.cat([torch.linspace(0, 0.999, 500), torch.tensor([1e-9, 1e-5, 0.0331])]).double()
    assert (langevin(inverse_langevin(f)) - f).abs().max() < 1e-12
    assert inverse_langevin(torch.tensor([1.0, 1.1])).isfinite().all()
    F = random_states(50, 0.8)
    fine = product(48, 48)
    moments = distribution(F, fine.directions) @ fine.moments()
    torch.testing.assert_close(moments, F, rtol=1e-9, atol=1e-12)
    nothing = distribution(torch.zeros(1, 6, 4), fine.directions)
    assert (nothing == 0).all()


@pytest.mark.exact
def test_without_a_crossing_nothing_changes():
    F = random_states(400, 0.5)
    F[:, 0] = 5 * F[:, 0]  # electron neutrinos outnumber the others in every direction
    found = convert(F / F[..., 3].sum(1)[:, None, None], RULE)
    none = found.crossing == 0
    assert 50 < none.sum() < 350
    assert (found.increment[none] == 0).all()
    assert (found.increment[~none].abs().amax(dim=(1, 2)) > 0).all()
    same = torch.full((1, 6, 4), 0.1)  # neutrinos and antineutrinos alike: G = 0 everywhere
    assert (convert(same, RULE).increment == 0).all()


@pytest.mark.exact
def test_equal_sides_end_in_equipartition():
    F = random_states(40, 0.9, alike=True)
    F[:, 3:] = F[:, :3] * torch.tensor([-1.0, -1.0, -1.0, 1.0])  # the mirror image: G is odd
    after = box3d(F, RULE)
    for sign in (slice(0, 3), slice(3, 6)):
        mean = F[:, sign].mean(dim=1, keepdim=True).expand(-1, 3, -1)
        torch.testing.assert_close(after[:, sign, 3], mean[..., 3], atol=2e-4, rtol=0)
        torch.testing.assert_close(after[:, sign], mean, atol=2e-3, rtol=0)


@pytest.mark.exact
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_it_conserves_and_turns_with_the_axes(dtype, within):
    F = random_states(3000)
    before = F.to(dtype)
    after = box3d(before, RULE)
    change = (after - before).double()
    assert change[..., 3].sum(dim=1).abs().max() < within
    assert (change[:, :3, 3] - change[:, 3:, 3]).abs().max() < within  # of every flavour
    Q = rotations(len(F))
    turned = box3d(rotated(F, Q).to(dtype), RULE)
    assert (rotated(after.double(), Q) - turned).abs().max() < within
    swapped = box3d(before[:, SWAP, :], RULE)
    assert (after[:, SWAP, :] - swapped).abs().max() < within
    assert is_physical(after).all()


def test_parallel_fluxes_do_not_know_their_azimuth():
    F = random_states(500, 0.9)
    F[..., :2] = 0  # all along z
    after = box3d(F.float(), RULE).double()
    Q = rotations(len(F))
    turned = box3d(rotated(F, Q).float(), RULE)
    assert (rotated(after, Q) - turned).abs().max() < 1e-6


def test_the_rules_of_directions_agree():
    F = random_states(200, 0.8)
    fine = convert(F, product(96, 96)).increment
    for rule, within in ((lebedev(17), 6e-3), (lebedev(35), 2.5e-3), (RULE, 2.5e-3)):
        assert (convert(F, rule).increment - fine).abs().max() < within
    with pytest.raises(ValueError, match=r"quadrature\.order must be an order"):
        quadrature("lebedev", 0, 0, 18)
    with pytest.raises(ValueError, match=r"quadrature\.azimuth must be even; got 7"):
        quadrature("product", 8, 7, 0)


def test_units_and_growth():
    assert pytest.approx(1.92552e-22, rel=1e-5) == RATE_OF_DENSITY
    F = beams(1.0, 1.0, [0, 0, 1 / 3], [0, 0, -1 / 3])[None] * 4.891290819e32
    found = convert(F / F[..., 3].sum(), RULE)
    rate = float(found.plus) * 2 * 4.891290819e32 * 1.92552e-22
    assert float(growth_rate(F, RULE)) == pytest.approx(rate, rel=1e-6)


def test_a_step_ends_before_it_is_unphysical():
    F = random_states(20000, 0.999)
    step = 3 * random_states(20000, seed=5) * torch.randn(20000, 6, 4, dtype=torch.float64)
    share = physical_share(F, step)
    assert (share < 1).any()
    assert is_physical(F + share * step).all()
    cut = share[:, 0, 0] < 1
    assert (~is_physical(F + share / 0.99 * step))[cut].all()
    empty = torch.zeros(1, 6, 4)
    empty[:, 1:, 3] = 0.2
    out_of_nothing = torch.zeros(1, 6, 4)
    out_of_nothing[:, 0] = torch.tensor([0.01, 0.0, 0.0, -0.02])
    assert physical_share(empty, out_of_nothing) == 0
    assert physical_share(empty, -out_of_nothing) == 1


def test_invariants_are_invariant_and_boosts_undo_each_other():
    F = random_states(100)
    rest = torch.tensor(AT_REST, dtype=torch.float64).expand(100, 4)
    velocity = 0.8 * torch.rand(100, 3, dtype=torch.float64) - 0.4
    gamma = 1 / (1 - (velocity**2).sum(1)).sqrt()
    u = torch.cat([gamma[:, None] * velocity, gamma[:, None]], dim=1)
    there, back = boost(u), boost(reversed_velocity(u))
    eye = torch.eye(4, dtype=torch.float64).expand(100, 4, 4)
    torch.testing.assert_close(there @ back, eye)
    assert (boost(rest) == eye).all()
    torch.testing.assert_close((there @ u[..., None])[..., 0], rest)
    moved = F @ there.transpose(1, 2)
    torch.testing.assert_close(invariants(F, u), invariants(moved, rest))
    swapped = invariants(F[:, SWAP, :], u)
    torch.testing.assert_close(invariants(F, u)[:, swapped_invariants()], swapped)
