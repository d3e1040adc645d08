"""Residual blocks: what is promised at step 0, their formulas, equal size, and networks of any."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from physicsnemo.core.module import Module

from physics_hybrid.models.blocks import BLOCKS, IDENTITIES, LAYER_SCALE, Norm, SpectralBlock
from physics_hybrid.models.fno import ResidualFNO, ResidualFNO2D
from physics_hybrid.models.spectral import SpectralConv2d
from physics_hybrid.models.unet import UNet2D
from physics_hybrid.models.uno import UNO2D, UNO3D

#: Shape without batch and channels, modes.
GRIDS = {2: ((10, 9), (3, 3)), 3: ((8, 6, 7), (3, 2, 3))}
NETWORKS = {
    ResidualFNO2D: (2, {"width": 8, "depth": 2}),
    UNO2D: (2, {"width": 8, "depth": 3}),
    ResidualFNO: (3, {"width": 8, "depth": 2}),
    UNO3D: (3, {"width": 8, "depth": 3}),
}


def network(kind, **options):
    axes, usual = NETWORKS[kind]
    torch.manual_seed(0)
    return kind(2, 1, modes=list(GRIDS[axes][1]), **{**usual, **options})


def stirred(model):
    """Without weights that are zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


@pytest.mark.parametrize("block", IDENTITIES)
@pytest.mark.parametrize("axes", GRIDS)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_identity_at_step_0_to_the_bit(block, axes, kernel_size):
    grid, modes = GRIDS[axes]
    x = 1e3 * torch.randn(2, *grid, 4)
    assert torch.equal(SpectralBlock(4, modes, block, kernel_size)(x), x)


def test_the_others_are_not():
    x = torch.randn(2, 10, 9, 4)
    for block in set(BLOCKS) - set(IDENTITIES):
        assert (SpectralBlock(4, (3, 3), block)(x) - x).abs().max() > 1e-3


@pytest.mark.parametrize("block", BLOCKS)
def test_each_is_its_formula(block):
    layer = stirred(SpectralBlock(4, (3, 3), block, 3)).double()
    x = torch.randn(2, 10, 9, 4, dtype=torch.float64)

    def branch(z):
        return F.gelu(layer.spectral(z) + layer.pointwise(z))

    expected = {
        "zero_linear": lambda: x + layer.out(branch(x)),
        "post_gelu": lambda: x + branch(x),
        "norm_last_zero": lambda: x + layer.out(branch(x)),
        "norm_last_one": lambda: x + layer.out(branch(x)),
        "layerscale": lambda: x + layer.out.weight * branch(x),
        "rezero": lambda: x + layer.out.weight * branch(x),
        "pre_norm": lambda: x + branch(layer.before(x)),
    }[block]()
    assert torch.allclose(layer(x), expected, rtol=1e-10, atol=1e-12)
    assert layer.monitored


def test_norms_scales_and_zeros_begin_as_they_say():
    tails = {block: SpectralBlock(4, (3, 3), block).out for block in BLOCKS}
    assert not any(p.any() for p in tails["norm_last_zero"].parameters())
    assert (tails["norm_last_one"].weight == 1).all()
    assert (tails["layerscale"].weight == LAYER_SCALE).all()
    assert tails["layerscale"].weight.shape == (4,)
    assert tails["rezero"].weight.shape == ()
    x = 3 + 2 * torch.randn(2, 50, 50, 4)
    y = Norm(4)(x)
    assert y.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    assert (y.std(dim=(1, 2, 3)) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_of_all_blocks_are_equal_in_parameters_to_5_percent(kind):
    sizes = [sum(p.numel() for p in network(kind, block=b).parameters()) for b in BLOCKS]
    assert max(sizes) < 1.05 * min(sizes)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("block", BLOCKS)
def test_round_trip_through_mdlus_gradients_and_a_start_at_zero(kind, block, tmp_path):
    grid, _ = GRIDS[NETWORKS[kind][0]]
    x = torch.randn(1, 2, *grid)
    fresh = network(kind, block=block)
    assert not fresh(x).any()
    model = stirred(fresh).eval()
    model.save(str(tmp_path / "m.mdlus"))
    loaded = Module.from_checkpoint(str(tmp_path / "m.mdlus")).eval()
    y = loaded(x)
    assert torch.equal(y, model(x))
    assert y.shape == (1, 1, *grid)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in loaded.parameters())


def test_growth_with_depth_at_the_start():
    """GELU after a sum adds a mean that does not cancel; identities add nothing."""
    x = torch.randn(2, 16, 16, 8)
    growth = {}
    for block in BLOCKS:
        torch.manual_seed(0)
        y = x
        for _ in range(12):
            y = SpectralBlock(8, (4, 4), block, 3)(y)
        growth[block] = float(y.detach().square().mean().sqrt() / x.square().mean().sqrt())
    assert all(growth[block] == 1 for block in IDENTITIES)
    assert growth["post_gelu"] > 2
    assert 1 < growth["layerscale"] < 0.7 * growth["post_gelu"]


def test_a_spectral_convolution_of_two_axes_is_that_of_the_fft():
    torch.manual_seed(0)
    layer, x = SpectralConv2d(3, 4, (4, 3)).double(), torch.randn(2, 10, 13, 3).double()
    kept = torch.fft.rfft2(x, dim=(1, 2), norm="forward")
    weight = torch.view_as_complex(layer.weight.view(2, 4, 3, 3, 2, 4).movedim(4, -1).contiguous())
    out = torch.zeros(2, 10, 7, 4, dtype=torch.complex128)
    for k in range(4):
        out[:, k, :3] = torch.einsum("bwi,wio->bwo", kept[:, k, :3], weight[0, k])
        out[:, -1 - k, :3] = torch.einsum("bwi,wio->bwo", kept[:, -1 - k, :3], weight[1, k])
    expected = torch.fft.irfft2(out, s=(10, 13), dim=(1, 2), norm="forward")
    bias, add = torch.randn(4).double(), torch.randn(2, 10, 13, 4).double()
    assert torch.allclose(layer(x), expected, rtol=1e-10, atol=1e-12)
    assert torch.allclose(layer(x, add, bias), expected + add + bias, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (17, 11)])
def test_any_grid_on_two_axes(size):
    x = torch.randn(1, 2, *size)
    for net in (network(UNO2D, levels=2), UNet2D(2, 1, width=4, levels=2), network(ResidualFNO2D)):
        assert net(x).shape == (1, 1, *size)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network(UNO2D, block="best"), "model.backbone.block must be one of zero_linear"),
        (lambda: network(UNO2D, depth=2, levels=2), "depth=2 blocks are too few for 2 levels"),
        (lambda: UNO2D(1, modes=[3, 3, 3]), "must be two whole numbers"),
        (lambda: UNO3D(1, modes=[3, 3]), "must be three whole numbers"),
        (lambda: network(UNO2D)(torch.zeros(1, 2, 4, 9)), r"3 Fourier modes along H exceed .*4, 9"),
        (lambda: UNet2D(2, width=4, levels=3)(torch.zeros(1, 2, 8, 9)), r"\(8, 9\) is too small"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
