"""Clipping does what its paper says, on the right axis of every kind of weight."""

import pytest
import torch
from torch import nn

from physics_hybrid.models.fno import ResidualFNO
from physics_hybrid.training.clipping import clipper, unit_axes


def filled(seed=0):
    torch.manual_seed(seed)
    model = ResidualFNO(3, width=4, depth=1, modes=[2, 2, 2])
    for p in model.parameters():
        p.data = torch.randn_like(p)
        p.grad = 10 * torch.randn_like(p)
    return model


def norm(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()]).norm()


@pytest.mark.parametrize("mode", ["none", "norm", "value", "agc"])
def test_the_norm_reported_is_the_one_before_clipping(mode):
    model = filled()
    before = norm(model)
    assert float(clipper(model, mode, 0.5, 1e-3)()) == pytest.approx(float(before), rel=1e-5)
    assert (norm(model) == before) if mode == "none" else (norm(model) < before)


def test_norm_and_value():
    model = filled()
    clipper(model, "norm", 0.5, 1e-3)()
    assert float(norm(model)) == pytest.approx(0.5, rel=1e-4)
    model = filled()
    clipper(model, "value", 0.01, 1e-3)()
    assert max(float(p.grad.abs().max()) for p in model.parameters()) <= 0.01 + 1e-9


def test_agc_bounds_every_output_unit_and_only_the_offenders():
    model = filled()
    spectral = model.blocks[0].spectral.weight
    spectral.grad *= 1e-6
    spectral.grad[..., 2] = 1e3  # one output channel explodes
    calm = spectral.grad[..., [0, 1, 3]].clone()
    clipper(model, "agc", 0.1, 1e-3)()
    assert torch.equal(spectral.grad[..., [0, 1, 3]], calm)
    ratio = spectral.grad[..., 2].norm() / spectral.detach()[..., 2].norm()
    assert float(ratio) == pytest.approx(0.1, rel=1e-4)
    for p, axis in unit_axes(model).items():
        others = [a for a in range(p.ndim) if a != axis]
        gradient, weight = (torch.linalg.vector_norm(t, dim=others) for t in (p.grad, p.data))
        assert (gradient <= 0.1 * weight.clamp_min(1e-3) * (1 + 1e-4)).all()


def test_output_axis_of_spectral_and_pointwise_weights():
    axes = unit_axes(ResidualFNO(3, width=4, depth=1, modes=[2, 2, 2]))
    by_shape = {(tuple(p.shape), axis) for p, axis in axes.items()}
    assert ((32, 4, 2, 4), 3) in by_shape
    assert ((4, 3, 1, 1, 1), 0) in by_shape
    assert ((4,), None) in by_shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("soft", 1.0), "training.clipping.mode"), (("norm", 0.0), "threshold must be > 0")],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        clipper(nn.Linear(2, 2), *arguments, 1e-3)
