"""The spectral layer is PhysicsNeMo's to rounding, with its weights, and else like any layer."""

import copy
import io

import pytest
import torch
from physicsnemo.nn import SpectralConv3d as Theirs

from physics_hybrid.models.spectral import ChannelsFirst, SpectralConv3d, optimizer_state

#: Even and odd sides, as many modes as fit, one of everything.
CASES = [
    ((24, 12, 12), (6, 4, 5)),
    ((17, 13, 15), (6, 4, 5)),
    ((8, 6, 6), (4, 3, 4)),
    ((5, 3, 7), (1, 1, 1)),
]


def pair(modes, dtype=torch.float32):
    torch.manual_seed(0)
    theirs = Theirs(5, 7, *modes).to(dtype)
    ours = ChannelsFirst(5, 7, modes).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def apart(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("shape", "modes"), CASES)
def test_result_and_gradients_are_physicsnemos(shape, modes):
    ours, theirs = pair(modes)
    x = torch.randn(2, 5, *shape, requires_grad=True)
    a, b = ours(x), theirs(x)
    assert apart(a, b) < 1e-6
    g = torch.randn_like(b)
    at_x, at_weight = torch.autograd.grad(a, [x, ours.weight], g)
    theirs_at_x, *theirs_at_weights = torch.autograd.grad(b, [x, *theirs.parameters()], g)
    assert apart(at_x, theirs_at_x) < 1e-6
    ours.weight.data = at_weight
    for mine, their in zip(ours.to_physicsnemo().values(), theirs_at_weights, strict=True):
        assert apart(mine, their) < 1e-6


def test_weights_come_from_physicsnemo_and_go_back_exactly():
    ours, theirs = pair((3, 2, 4))
    assert set(ours.to_physicsnemo()) == set(theirs.state_dict())
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.to_physicsnemo()[name], weight)
    with pytest.raises(RuntimeError, match="weight"):
        ours.load_state_dict({"weights1": theirs.weights1})


def test_what_is_added_on_the_way_is_added():
    layer = SpectralConv3d(3, 4, (3, 2, 2))
    x, there, bias = torch.randn(2, 9, 8, 7, 3), torch.randn(2, 9, 8, 7, 4), torch.randn(4)
    assert torch.allclose(layer(x, add=there, bias=bias), layer(x) + there + bias, atol=1e-6)


def test_a_wave_is_multiplied_by_its_weight():
    """cos(2 pi (2 d / D - h / H + w / W)) meets the weight of mode (2, -1, 1) alone."""
    layer = SpectralConv3d(1, 1, (3, 2, 2)).double()
    d, h, w = (torch.arange(n).double() / n for n in (10, 9, 8))
    turns = 2 * d[:, None, None] - h[:, None] + w
    x = torch.cos(2 * torch.pi * turns)[None, ..., None]
    real, imaginary = layer.to_physicsnemo()["weights3"][0, 0, 2, 1, 1]  # k_H = -1 is the last
    there = real * x - imaginary * torch.sin(2 * torch.pi * turns)[None, ..., None]
    assert torch.allclose(layer(x), there, atol=1e-12)


@pytest.mark.slow
def test_bfloat16_compile_and_onnx_need_no_special_case():
    layer = SpectralConv3d(3, 4, (3, 2, 2))
    x = torch.randn(1, 8, 6, 6, 3)
    with torch.no_grad():
        full = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert apart(layer(x).float(), full) < 0.02
    exported = torch.export.export(layer, (x,))
    assert torch.allclose(exported.module()(x), full, atol=1e-6)
    assert not any("fft" in str(node.target) for node in exported.graph.nodes)
    assert torch.allclose(torch.compile(layer, backend="aot_eager")(x), full, atol=1e-6)


def test_inference_mode_does_not_spoil_a_later_gradient():
    layer = SpectralConv3d(2, 2, (2, 2, 2))
    x = torch.randn(1, 6, 10, 6, 2)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert torch.isfinite(layer.weight.grad).all()


def test_a_state_saved_is_a_state_loaded():
    layer, other = SpectralConv3d(2, 3, (2, 2, 2)), SpectralConv3d(2, 3, (2, 2, 2))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(layer.weight, other.weight)


def test_an_optimizer_of_physicsnemos_weights_goes_on_with_ours():
    """Three steps with their layer, then one more: the same weights as with ours from there on."""
    theirs = torch.nn.Sequential(Theirs(2, 2, 2, 2, 2), torch.nn.Conv3d(2, 1, 1))
    ours = torch.nn.Sequential(ChannelsFirst(2, 2, (2, 2, 2)), torch.nn.Conv3d(2, 1, 1))
    x = torch.randn(1, 2, 6, 6, 6)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    before = torch.optim.AdamW(theirs.parameters(), eps=1e-3)
    for _ in range(3):
        step(theirs, before)
    ours.load_state_dict(theirs.state_dict())
    after = torch.optim.AdamW(ours.parameters(), eps=1e-3)
    after.load_state_dict(copy.deepcopy(optimizer_state(ours, before.state_dict())))
    step(theirs, before)
    step(ours, after)
    for name, weight in theirs[0].state_dict().items():
        assert torch.allclose(ours[0].to_physicsnemo()[name], weight, atol=1e-6)
    kept = after.state_dict()
    assert optimizer_state(ours, kept) is kept
