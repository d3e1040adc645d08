"""Clipping does what its paper says, on the right axis of every kind of weight."""

import pytest
import torch
from torch import nn

from physics_hybrid.models.blocks import Local2d, Pointwise
from physics_hybrid.models.fno import ResidualFNO
from physics_hybrid.models.spectral import SpectralConv2d, SpectralConv3d
from physics_hybrid.models.uno import UNO2D
from physics_hybrid.training.clipping import clipper, last_linear, unit_axes


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
    last = {*last_linear(model).parameters()}
    assert {*model.head[2].parameters()} == last
    for p, axis in unit_axes(model).items():
        if p in last:
            assert p.grad.norm() > 1  # left alone
            continue
        others = [a for a in range(p.ndim) if a != axis]
        gradient, weight = (torch.linalg.vector_norm(t, dim=others) for t in (p.grad, p.data))
        assert (gradient <= 0.1 * weight.clamp_min(1e-3) * (1 + 1e-4)).all()


def test_output_axis_of_spectral_and_pointwise_weights():
    axes = unit_axes(ResidualFNO(3, width=4, depth=1, modes=[2, 2, 2]))
    by_shape = {(tuple(p.shape), axis) for p, axis in axes.items()}
    assert ((32, 4, 2, 4), 3) in by_shape
    assert ((4, 3, 1, 1, 1), 0) in by_shape
    assert ((4,), None) in by_shape


#: A layer of each layout of the house, what comes in, and how many units come out.
LAYERS = {
    "linear": (lambda: nn.Linear(3, 5), (2, 3), 1),
    "convolution": (lambda: nn.Conv2d(3, 5, 3), (2, 3, 6, 6), 1),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 5, 2, stride=2), (2, 3, 4, 4), 1),
    "volumes, transposed": (lambda: nn.ConvTranspose3d(3, 5, 2, stride=2), (2, 3, 4, 4, 4), 1),
    "pointwise": (lambda: Pointwise(3, 5), (2, 4, 4, 3), -1),
    "local": (lambda: Local2d(3, 5, 3, padding=1), (2, 4, 4, 3), -1),
    "spectral, two axes": (lambda: SpectralConv2d(3, 5, (2, 2)), (2, 6, 6, 3), -1),
    "spectral, three axes": (lambda: SpectralConv3d(3, 5, (2, 2, 2)), (2, 6, 6, 6, 3), -1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_unit_is_what_one_output_channel_comes_from(name):
    """The loss of one output channel alone has a gradient in one unit alone: in all of it."""
    make, shape, channels = LAYERS[name]
    torch.manual_seed(0)
    layer = make()
    y = layer(torch.randn(shape)).movedim(channels, 0)
    y[3].square().sum().backward()
    axis = unit_axes(layer)[layer.weight]
    per_unit = layer.weight.grad.movedim(axis, 0).flatten(1).norm(dim=1)
    assert len(per_unit) == 5
    assert per_unit[3] > 0
    assert per_unit[[0, 1, 2, 4]].abs().max() == 0
    # and clipping it leaves the others alone
    layer.weight.grad = 10 * torch.ones_like(layer.weight)
    layer.weight.grad.movedim(axis, 0)[3] *= 100
    with torch.no_grad():
        layer.weight.fill_(1000.0)
        layer.weight.movedim(axis, 0)[3] *= 1e-3
    clipper(nn.Sequential(layer, nn.Linear(2, 2)), "agc", 0.1, 1e-3)()
    clipped = layer.weight.grad.movedim(axis, 0)
    assert (clipped[[0, 1, 2, 4]] == 10).all()
    assert torch.allclose(clipped[3], torch.full_like(clipped[3], 0.1))


def test_scalars_and_vectors_are_one_unit_and_zero_weights_have_room():
    model = UNO2D(1, 2, width=4, depth=2, modes=[2, 2], block="rezero")
    axes = unit_axes(model)
    gain = model.bottom[0].out.weight
    assert gain.ndim == 0
    assert axes[gain] is None
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    clipper(model, "agc", 0.1, 1e-3)()
    assert float(gain.grad) == pytest.approx(1e-4)  # lambda eps
    assert (model.head[2].weight.grad == 1).all()


def test_the_last_linear_layer_is_that_of_the_head_wherever_it_stands():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = ResidualFNO(3, width=4, depth=1, modes=[2, 2, 2])
            self.encoder = nn.Linear(3, 3)

    model = Wrapped()
    assert last_linear(model) is model.backbone.head[2]
    plain = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 1), nn.Softplus())
    assert last_linear(plain) is plain[2]
    assert last_linear(nn.LayerNorm(3)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("soft", 1.0), "training.clipping.mode"), (("norm", 0.0), "threshold must be > 0")],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        clipper(nn.Linear(2, 2), *arguments, 1e-3)
