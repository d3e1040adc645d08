"""The laws that the closure keeps, whatever its weights."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from physics_hybrid.problems.flavour.losses import TERMS, FlavourLoss
from physics_hybrid.problems.flavour.networks import (
    INVARIANTS,
    OF_BOX3D,
    FlavourEquivariant,
    FlavourMLP,
)
from physics_hybrid.problems.flavour.physics.fluxes import SWAP, boost, is_physical
from physics_hybrid.problems.flavour.predictor import Predictor
from tests.problems.flavour.states import random_states, rotated, rotations

COMMON = {
    "quadrature": {"kind": "product", "polar": 24, "azimuth": 16, "order": 35},
    "guard": True,
    "mean": [0.0] * (INVARIANTS + OF_BOX3D),
    "std": [0.1] * (INVARIANTS + OF_BOX3D),
    "target_scale": 0.3,
}


def wild(network, seed=0):
    """Weights as large as those of a trained network, at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.15 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def shaped(dtype):
    """The shipped weights in float32; in float64 any: the laws do not depend on them, and rounding
    is amplified by what a network does with its inputs.
    """
    if dtype == torch.float64:
        return wild(FlavourEquivariant(**COMMON)).double()
    return Predictor.load().model


def velocities(count, fastest=0.6, seed=3):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    v = fastest * v / v.norm(dim=1, keepdim=True) * torch.rand(count, 1, generator=generator)
    gamma = 1 / (1 - (v**2).sum(1, keepdim=True)).sqrt()
    return torch.cat([gamma * v, gamma], dim=1)


@pytest.mark.exact
@pytest.mark.parametrize("kind", [FlavourMLP, FlavourEquivariant])
def test_zero_weights_are_box3d_to_the_bit(kind):
    F, u = random_states(500).float() * 1e33, velocities(500).float()
    network = wild(kind(**COMMON))
    assert not torch.equal(network(F, u), network.box3d(F, u))
    for layer in (network.network.leave.weight, network.network.leave.bias):
        torch.nn.init.zeros_(layer)
    assert torch.equal(network(F, u), network.box3d(F, u))
    assert torch.equal(network(F), network.box3d(F))
    assert torch.equal(kind(**COMMON).eval()(F), network.box3d(F))  # and so it starts


@pytest.mark.exact
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@torch.no_grad()
def test_the_equivariant_closure_keeps_the_laws(dtype, within):
    count = 2000
    F = random_states(count)
    network = shaped(dtype)
    before = F.to(dtype)
    after = network(before)
    assert ((after - network.box3d(before)).abs().amax(dim=(1, 2)) > 1e-3).double().mean() > 0.3
    change = (after - before).double()
    assert change[..., 3].sum(dim=1).abs().max() < within
    assert (change[:, :3, 3] - change[:, 3:, 3]).abs().max() < within
    # sums of fluxes over flavours, too
    assert change.reshape(-1, 2, 3, 4).sum(dim=2).abs().max() < within
    Q = rotations(count)
    assert (rotated(after.double(), Q) - network(rotated(F, Q).to(dtype))).abs().max() < within
    assert (after[:, SWAP, :] - network(before[:, SWAP, :])).abs().max() < within


@pytest.mark.exact
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@torch.no_grad()
def test_boosts_commute_with_it(dtype, within):
    F, u, w = random_states(1000, 0.8), velocities(1000), velocities(1000, seed=4)
    network = shaped(dtype)
    into = boost(w)
    moved, moved_u = F @ into.transpose(1, 2), (into @ u[..., None])[..., 0]
    scale = moved[..., 3].sum(dim=1)[:, None, None]
    first = network(F.to(dtype), u.to(dtype)).double() @ into.transpose(1, 2) / scale
    second = network(moved.to(dtype), moved_u.to(dtype)).double() / scale
    assert (first - second).abs().max() < within


@pytest.mark.slow
@torch.no_grad()
def test_none_of_a_hundred_thousand_states_becomes_unphysical():
    network = wild(FlavourEquivariant(**COMMON))
    mlp = wild(FlavourMLP(**COMMON))
    unguarded = wild(FlavourMLP(**{**COMMON, "guard": False}))
    F = random_states(100_000, 0.999).float()
    assert is_physical(F).all()
    assert is_physical(network(F)).all()
    assert is_physical(mlp(F[:10_000])).all()
    assert not is_physical(unguarded(F[:10_000])).all()


@torch.no_grad()
def test_without_a_crossing_it_leaves_states_alone():
    F = random_states(300, 0.5)
    F[:, 0] = 8 * F[:, 0]
    F = F / F[..., 3].sum(dim=1)[:, None, None]
    network = wild(FlavourEquivariant(**COMMON)).double()
    same = (network.box3d(F) == F).all(dim=2).all(dim=1)
    assert same.sum() > 50
    assert torch.equal(network(F)[same], F[same])


@torch.no_grad()
def test_it_survives_its_file_and_far_states_get_box3d(tmp_path):
    from physics_hybrid.models.model_files import export_model, load_model

    F = random_states(50).float()
    for kind in (FlavourMLP, FlavourEquivariant):
        network = wild(kind(**COMMON, width=16, depth=1))
        again = load_model(export_model(tmp_path / "closure.mdlus", network)).eval()
        assert torch.equal(again(F), network(F))
    far = wild(FlavourEquivariant(**{**COMMON, "std": [1e-4] * (INVARIANTS + OF_BOX3D)}))
    torch.testing.assert_close(far(F), far.box3d(F), atol=1e-7, rtol=0)


def test_the_loss_vanishes_on_truth_and_knows_its_terms():
    before, truth = random_states(20).float(), random_states(20, seed=1).float()
    loss = FlavourLoss(dict.fromkeys(TERMS, 1.0))
    value, terms = loss(truth, truth, before)
    assert set(terms) == set(TERMS)
    assert float(value) < 1e-5
    F = (truth * 1.1).requires_grad_()
    value, terms = loss(F, truth, before)
    value.backward()
    assert F.grad.isfinite().all()
    assert all(float(term) > 0 for name, term in terms.items() if name not in DIRECTIONS)
    outside = torch.zeros(1, 6, 4)
    outside[..., 3] = 1 / 6
    outside[0, 0, 0] = 1.0  # |F| / N = 6: five too many
    terms = loss.terms(outside, outside, outside)
    assert float(terms["unphysical"]) == pytest.approx(25 / 6, rel=1e-4)


#: Terms that a prediction of the right directions, inside the light cone, does not have.
DIRECTIONS = ("direction", "unphysical")


def test_the_door_takes_arrays_and_tensors_of_any_shape():
    network = wild(FlavourEquivariant(**COMMON))
    closure = Predictor(network)
    F = random_states(6).numpy() * 1e33
    after = closure(F.reshape(2, 3, 6, 4))
    assert isinstance(after, np.ndarray)
    assert after.shape == (2, 3, 6, 4)
    assert after.dtype == np.float64
    np.testing.assert_allclose(after.reshape(6, 6, 4)[4], closure(F[4]), rtol=1e-12)
    single = closure(torch.from_numpy(F).float(), [0.0, 0.0, 0.0, 1.0])
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy() / 1e33, after.reshape(6, 6, 4) / 1e33, atol=1e-6)
    with pytest.raises(ValueError, match=r"F must have shape \(\.\.\., 6, 4\)"):
        closure(F.reshape(6, 4, 6))
    with pytest.raises(ValueError, match=r"u must have shape"):
        closure(F, np.zeros((3, 4)))


@pytest.mark.slow
def test_it_is_fast_enough_to_stand_inside_a_simulation():
    """60 microseconds a state on two cores; here in CPU time, so that a busy machine does not
    count.
    """
    closure = Predictor(FlavourEquivariant(**COMMON, width=64, depth=2))
    F = random_states(10_000).float()
    closure(F[:100])
    started = time.process_time()
    closure(F)
    assert (time.process_time() - started) / len(F) < 120e-6
