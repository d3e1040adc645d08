"""A loss is zero on truth, positive off it, and has a gradient there."""

import dataclasses

import pytest
import torch

from physics_hybrid.problems.potential.losses import (
    ChargeLoss,
    GradientLoss,
    MaskedMSE,
    PDELoss,
    Physics,
    PotentialLoss,
    outflow,
    select,
)
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.report.markdown import aggregate


@pytest.fixture(scope="module")
def physics(exact_batch):
    return Physics.of(exact_batch, "grounded")


def off_truth(batch, size=0.05):
    noise = torch.randn(
        batch.u.shape, generator=torch.Generator().manual_seed(5), dtype=batch.u.dtype
    )
    return (batch.u * (1 + size * noise)).requires_grad_()


@pytest.mark.parametrize("loss", [PDELoss(), ChargeLoss(boxes=3)], ids=["pde", "charge"])
def test_physics_losses_vanish_on_truth_and_have_a_gradient_off_it(loss, exact_batch, physics):
    truth = exact_batch.u.clone().requires_grad_()
    assert float(loss(truth, exact_batch, physics).detach()) ** 0.5 <= 1e-9
    phi = off_truth(exact_batch)
    value = loss(phi, exact_batch, physics)
    value.backward()
    assert float(value.detach()) > 1e-6
    assert float(phi.grad.abs().sum()) > 0


def test_pde_residual_is_small_against_the_right_hand_side(exact_batch, physics):
    r = physics.subtraction.residual(physics.operator, exact_batch.u)
    assert float(r.norm() / physics.subtraction.rhs.norm()) <= 1e-9


def test_pde_loss_grows_with_the_perturbation(exact_batch, physics):
    values = [
        float(PDELoss()(off_truth(exact_batch, s).detach(), exact_batch, physics))
        for s in (0.01, 0.02, 0.04)
    ]
    assert values[1] == pytest.approx(4 * values[0], rel=0.1)
    assert values[2] == pytest.approx(4 * values[1], rel=0.1)


def test_charge_loss_sees_current_that_does_not_leave(exact_batch, physics):
    """Twice the potential carries twice the current out of the ends, by closed form plus
    correction: D = 2 I.
    """
    J = physics.subtraction.current_density(physics.operator, exact_batch.u)
    whole = torch.ones_like(exact_batch.u)
    out = outflow(J, whole, physics.operator.spacing)
    assert torch.allclose(out, exact_batch.current, rtol=1e-9)
    extra = physics.operator.current_density(exact_batch.u)
    assert torch.allclose(
        outflow(extra, whole, physics.operator.spacing), exact_batch.current, rtol=0.35
    )


def test_charge_loss_gradient_comes_from_the_ends(exact_batch, physics):
    """With the inner faces alone the sum telescopes to zero for every field; the flux through the
    ends is what remains.
    """
    phi = off_truth(exact_batch)
    ChargeLoss(boxes=0)(phi, exact_batch, physics).backward()
    assert phi.grad[:, [0, -1]].abs().sum() > 0
    assert phi.grad[:, 1:-1].abs().sum() == 0


@pytest.mark.parametrize("boxes", [1, 2, 5])
def test_gauss_boxes_surround_the_source(exact_batch, boxes):
    surfaces = ChargeLoss(boxes).surfaces(exact_batch)
    assert len(surfaces) == boxes + 1
    index = (exact_batch.source_point / exact_batch.spacing).long()
    for inside in surfaces:
        for b, i in enumerate(index):
            assert bool(inside[b, i[0], i[1], i[2]])


def test_masked_voxels_get_exactly_zero_gradient(exact_batch, physics):
    mask = select(exact_batch, "muscle", 3.0)
    assert 0 < int(mask.sum()) < int(exact_batch.tissue.sum())
    for value in (
        lambda p: MaskedMSE()(p, exact_batch.u, mask),
        lambda p: MaskedMSE("absolute")(p, exact_batch.u, mask),
        lambda p: GradientLoss()(p, exact_batch.u, mask, exact_batch.spacing),
    ):
        phi = off_truth(exact_batch)
        value(phi).backward()
        assert torch.equal(phi.grad[~mask], torch.zeros_like(phi.grad[~mask]))
        assert phi.grad[mask].abs().min() >= 0
        assert phi.grad.abs().sum() > 0
    phi = off_truth(exact_batch)
    PDELoss(exclude_radius=3.0)(phi, exact_batch, physics).backward()
    near = exact_batch.tissue & ~select(exact_batch, "conductive", 3.0)
    assert torch.equal(phi.grad[near], torch.zeros_like(phi.grad[near]))
    assert torch.equal(
        phi.grad[~exact_batch.tissue], torch.zeros_like(phi.grad[~exact_batch.tissue])
    )


def test_air_may_hold_anything(exact_batch, physics):
    """A prediction of NaN in air changes no loss."""
    phi = torch.where(exact_batch.tissue, off_truth(exact_batch).detach(), float("nan"))
    clean = torch.where(exact_batch.tissue, phi, 0.0)
    loss = PotentialLoss({"mse": 1.0, "gradient": 0.1, "pde": 0.1, "charge": 0.1})
    assert float(loss(phi, exact_batch)[0]) == pytest.approx(
        float(loss(clean, exact_batch)[0]), rel=1e-12
    )


def test_gradient_loss_is_exact_for_a_linear_field(exact_batch):
    """E of a linear potential is constant: doubling the slope is a relative square error of exactly
    1, for unequal spacing too.
    """
    batch = dataclasses.replace(
        exact_batch, spacing=torch.tensor([[0.004, 0.002, 0.003]] * 2, dtype=torch.float64)
    )
    d, h, w = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in batch.shape), indexing="ij"
    )
    field = (3.0 * d * 0.004 - 2.0 * h * 0.002 + 5.0 * w * 0.003).expand_as(batch.u)
    mask = select(batch, "conductive", 3.0)
    assert float(GradientLoss()(2 * field, field, mask, batch.spacing)) == pytest.approx(
        1.0, rel=1e-12
    )
    assert float(GradientLoss()(field + 7, field, mask, batch.spacing)) < 1e-20


def test_relative_mse_is_the_square_of_relative_l2(exact_batch):
    mask = select(exact_batch, "conductive", 3.0)
    assert float(MaskedMSE()(1.1 * exact_batch.u, exact_batch.u, mask)) == pytest.approx(
        0.01, rel=1e-9
    )


def test_terms_are_switched_by_weight_and_reported_unweighted(exact_batch):
    phi = off_truth(exact_batch)
    total, terms = PotentialLoss({"mse": 2.0, "gradient": 0.0, "pde": 0.5, "charge": 0.0})(
        phi, exact_batch
    )
    assert set(terms) == {"mse", "pde"}
    assert float(total) == pytest.approx(
        2 * float(terms["mse"]) + 0.5 * float(terms["pde"]), rel=1e-12
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: PotentialLoss({"mse": -1.0}), "must be >= 0"),
        (lambda b: PotentialLoss({"mse": 0.0}), "nothing to train on"),
        (lambda b: select(b, "cartilage"), "name tissues out of"),
        (lambda b: select(dataclasses.replace(b, labels=None), ["fat"]), "needs tissue labels"),
        (lambda b: MaskedMSE("per voxel"), "must be one of"),
    ],
)
def test_refusals(call, message, exact_batch):
    with pytest.raises(ValueError, match=message):
        call(exact_batch)


def test_metrics_of_known_errors(exact_batch):
    """1.1 phi*: RE = 0.1, RDM = 0, MAG = 1.1 (Meijs 1989); truth itself: no residual, no defect."""
    rows = Metrics()(1.1 * exact_batch.u, exact_batch)
    for row in rows:
        assert row["relative_l2"] == pytest.approx(0.1)
        assert row["mag"] == pytest.approx(1.1)
        assert row["rdm"] < 1e-12
        assert row["field_error"] == pytest.approx(0.1)
        assert row["relative_l2_muscle"] == pytest.approx(0.1)
    perfect = Metrics()(exact_batch.u, exact_batch)[0]
    assert perfect["relative_l2"] == 0
    assert perfect["pde_residual"] < 1e-9
    assert perfect["charge_defect"] < 1e-9
    flipped = Metrics()(-exact_batch.u, exact_batch)[0]
    assert flipped["rdm"] == pytest.approx(2.0)


def test_aggregate():
    table = aggregate([{"a": 1.0}, {"a": 3.0, "b": 5.0}])
    assert table["a"] == {"mean": 2.0, "std": 1.0, "median": 2.0, "p95": 2.9, "max": 3.0}
    assert table["b"]["mean"] == 5.0


def test_a_prediction_of_zero_has_a_finite_physics_loss(exact_batch):
    """What a network with a zero last layer predicts in the direct form at step 0."""
    phi = torch.zeros_like(exact_batch.u).requires_grad_()
    total, _ = PotentialLoss({"mse": 1.0, "gradient": 0.1, "pde": 0.1, "charge": 0.1})(
        phi, exact_batch
    )
    total.backward()
    assert torch.isfinite(total.detach())
    assert torch.isfinite(phi.grad).all()
    assert phi.grad.abs().sum() > 0


def test_a_sample_without_the_masked_tissue_counts_nothing(exact_batch):
    nothing = torch.zeros_like(exact_batch.tissue)
    half = torch.stack([nothing[0], exact_batch.tissue[1]])
    phi = off_truth(exact_batch)
    both = MaskedMSE()(phi, exact_batch.u, exact_batch.tissue)
    assert float(MaskedMSE()(phi, exact_batch.u, nothing).detach()) == 0
    assert 0 < float(MaskedMSE()(phi, exact_batch.u, half).detach()) < float(both.detach())
    assert torch.isfinite(GradientLoss()(phi, exact_batch.u, half, exact_batch.spacing).detach())


def test_a_prediction_that_is_not_finite_is_not_averaged_away(exact_batch):
    phi = exact_batch.u.clone()
    phi[1] = float("nan")
    table = aggregate(Metrics()(phi, exact_batch))
    assert table["relative_l2"]["mean"] != table["relative_l2"]["mean"]  # NaN
    with pytest.raises(ValueError, match=exact_batch.names[0]):
        Metrics(exclude_radius=100.0)(exact_batch.u, exact_batch)
