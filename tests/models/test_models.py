"""Networks: they round-trip through .mdlus, take any grid, start at the baseline, and carry over to
a finer grid.
"""

import json
import zipfile

import pytest
import torch
from physicsnemo.core.module import Module

from physics_hybrid.models.blocks import check_modes
from physics_hybrid.models.fno import PlainFNO, ResidualFNO
from physics_hybrid.models.unet import PlainUNet, UNet3D
from physics_hybrid.models.uno import UNO3D
from physics_hybrid.problems.potential.baseline import PointSourceBaseline
from physics_hybrid.problems.potential.geometry import GeometryEncoder
from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels, widened
from physics_hybrid.problems.potential.physics.conductor import distance_from
from physics_hybrid.problems.potential.surrogate import coordinates, model_inputs

BACKBONES = {
    "fno": lambda c, **k: PlainFNO(c, width=8, depth=2, modes=[4, 3, 3], **k),
    "fno_residual": lambda c, **k: ResidualFNO(c, width=8, depth=2, modes=[4, 3, 3], **k),
    "unet": lambda c, **k: UNet3D(c, width=4, levels=2, **k),
    "uno": lambda c, **k: UNO3D(c, width=4, depth=2, modes=[4, 3, 3], **k),
}


def hybrid(name="fno_residual", composition="multiplicative", kernel=3, whole=False, **options):
    """whole : sees whole tensors, else diagonal ones."""
    torch.manual_seed(0)
    components = 6 if whole else 3
    encoder = GeometryEncoder(components + 1, 5, 1, kernel)
    baseline = options.pop("baseline", PointSourceBaseline())
    model = HybridWrapper(
        BACKBONES[name](feature_channels(components, 5), **options),
        encoder,
        baseline,
        composition,
        components,
        sigma_mean=[-1.0] * 3 + [0.0] * 3 * whole,
        sigma_std=[0.8] * 3 + [1.0] * 3 * whole,
    )
    return model


def stir(model):
    """Give zero-initialised layers weights, so that a test sees the whole network."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("composition", ["multiplicative", "additive", "direct"])
def test_round_trip_through_mdlus(tmp_path, batch, name, composition):
    model = stir(hybrid(name, composition))
    x = model_inputs(batch)
    before = model(x, batch.spacing)
    model.save(str(tmp_path / "m.mdlus"))
    loaded = Module.from_checkpoint(str(tmp_path / "m.mdlus")).eval()
    assert type(loaded) is HybridWrapper
    assert loaded.composition == composition
    assert torch.equal(loaded(x, batch.spacing), before)
    assert torch.equal(loaded.sigma_mean, model.sigma_mean)


@pytest.mark.parametrize("kind", [PlainFNO, ResidualFNO])
def test_default_modes_are_stored_as_a_list(tmp_path, kind):
    kind(2, width=4, depth=1).save(str(tmp_path / "m.mdlus"))
    with zipfile.ZipFile(tmp_path / "m.mdlus") as file:
        stored = json.loads(file.read("args.json"))["__args__"]
    assert stored["modes"] == [8, 6, 6]
    loaded = Module.from_checkpoint(str(tmp_path / "m.mdlus"))
    assert loaded.modes == [8, 6, 6]
    loaded(torch.zeros(1, 2, 16, 12, 12))


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("grid", [(24, 12, 12), (17, 13, 11), (9, 8, 10)])
def test_any_grid_and_gradients_reach_every_weight(name, grid, limbs):
    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver

    batch = LimbStream(limbs, grid, 0, "train", Solver(), torch.device("cpu")).batch([0])
    model = stir(hybrid(name)).train()
    phi = model(model_inputs(batch), batch.spacing)
    assert phi.shape == (1, 1, *grid)
    assert torch.equal(phi[:, 0][~batch.tissue], torch.zeros_like(phi[:, 0][~batch.tissue]))
    phi.square().sum().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # an extent without jitter leaves the modulation's first layer a constant input, but never
    # without gradient
    assert not idle


@pytest.mark.parametrize("name", ["fno_residual", "unet", "uno"])
def test_multiplicative_hybrid_starts_as_the_baseline(name, batch):
    model = hybrid(name)
    phi = model(model_inputs(batch), batch.spacing)
    phi_a = (
        model.baseline(batch.sigma, batch.source_point, batch.current, batch.spacing)
        * batch.tissue[:, None]
    )
    assert torch.allclose(phi, phi_a, rtol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_for_diagonal_tensors_are_widened_to_whole_ones(name, batch):
    """The same potential where there is nothing off the diagonal; and what there is can be learned,
    for its weights have gradients."""
    narrow, whole = stir(hybrid(name)), stir(hybrid(name, whole=True))
    whole.load_state_dict(widened(narrow.state_dict(), narrow, whole))
    x = model_inputs(batch)
    none = torch.zeros_like(x[:, :3])
    wide = torch.cat([x[:, :3], none, x[:, 3:]], dim=1)
    assert torch.allclose(whole(wide, batch.spacing), narrow(x, batch.spacing), rtol=1e-4)
    tilted = torch.cat([x[:, :3], none + 0.1, x[:, 3:]], dim=1)
    whole(tilted, batch.spacing).square().sum().backward()
    assert (whole.encoder.first.weight.grad[:, 3:6].abs().sum(dim=(0, 2, 3, 4)) > 0).all()


def test_physicsnemos_unet_is_as_deep_as_asked_and_says_what_grids_it_takes():
    net = PlainUNet(3, width=8, levels=2, blocks=1)
    x = torch.randn(1, 3, 12, 8, 8)
    assert net(x).shape == (1, 1, 12, 8, 8)
    pools = [m for m in net.modules() if isinstance(m, torch.nn.MaxPool3d)]
    assert len(pools) == 2
    net.check_grid((48, 24, 24))
    for grid in ((48, 24, 22), (4, 24, 24)):
        with pytest.raises(ValueError, match="multiple of 4, and at least 8"):
            net.check_grid(grid)


def test_compositions_are_what_they_say(batch):
    x = model_inputs(batch)
    phi = {
        c: stir(hybrid("fno_residual", c))(x, batch.spacing)
        for c in ("multiplicative", "additive", "direct")
    }
    model = hybrid("fno_residual")
    tissue = batch.tissue[:, None]
    phi_a = tissue * model.baseline(batch.sigma, batch.source_point, batch.current, batch.spacing)
    unit = phi_a.sum(dim=(2, 3, 4), keepdim=True) / tissue.sum(dim=(2, 3, 4), keepdim=True)
    assert torch.allclose(phi["additive"] - phi["direct"], phi_a, rtol=1e-4, atol=1e-7)
    assert torch.allclose(
        (phi["multiplicative"] - phi_a) * unit, phi["direct"] * phi_a, rtol=1e-3, atol=1e-9
    )


def test_output_is_linear_in_the_current_and_blind_to_units_of_length(batch):
    """phi(2 I) = 2 phi(I), and lengths times s divide phi by s: the network sees ratios only."""
    model = stir(hybrid("fno_residual"))
    phi = model(model_inputs(batch), batch.spacing)
    x = model_inputs(batch)
    x[:, 3] *= 2
    assert torch.allclose(model(x, batch.spacing), 2 * phi, rtol=1e-4, atol=1e-6)
    x = model_inputs(batch)
    x[:, 3] /= 8  # the same current in voxels of twice the size
    assert torch.allclose(model(x, 2 * batch.spacing), phi / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["fno", "fno_residual"])
@pytest.mark.parametrize("padding", [0.0, 0.25])
def test_fno_is_one_operator_on_two_grids(name, padding):
    """A smooth periodic input: the same weights give the same function at twice the resolution
    (pointwise layers, few modes).
    """
    torch.manual_seed(0)
    net = stir(BACKBONES[name](2, padding=padding))

    def field(n):
        d, h, w = coordinates(n, "cell", torch.device("cpu"))
        return torch.stack(
            [torch.cos(torch.pi * d) * torch.sin(torch.pi * h), torch.sin(torch.pi * w)]
        )[None]

    coarse, fine = net(field((24, 16, 16))), net(field((48, 32, 32)))
    pooled = torch.nn.functional.avg_pool3d(fine, 2)
    tolerance = 0.02 if padding == 0 else 0.1  # padding cuts the field off: no longer smooth
    assert float((pooled - coarse).norm() / coarse.norm()) < tolerance


def test_the_same_fno_weights_run_on_both_grids_of_the_quickstart(limbs):
    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver

    torch.manual_seed(0)
    model = stir(
        HybridWrapper(
            ResidualFNO(feature_channels(3, 8)), GeometryEncoder(4, 8, 1, 1), PointSourceBaseline()
        )
    )
    correction = []
    for grid in ((48, 24, 24), (96, 48, 48)):
        batch = LimbStream(
            limbs, grid, 0, "test", Solver(tolerance=1e-4), torch.device("cpu")
        ).batch([1])
        with torch.no_grad():
            phi = model(model_inputs(batch), batch.spacing)
            phi_a = model.baseline(batch.sigma, batch.source_point, batch.current, batch.spacing)
        assert torch.isfinite(phi).all()
        correction.append((phi / phi_a)[0, 0][batch.tissue[0]].mean())
    assert float(correction[0]) == pytest.approx(float(correction[1]), rel=0.1)


def test_checkpointed_activations_change_nothing(batch):
    x = model_inputs(batch)
    for name in ("fno_residual", "unet"):
        grads = []
        for option in (False, True):
            model = stir(hybrid(name, activation_checkpointing=option)).train()
            model(x, batch.spacing).square().sum().backward()
            grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert torch.allclose(*grads, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", BACKBONES)
def test_bfloat16_autocast_is_close_to_float32(name, batch):
    model = stir(hybrid(name))
    full = model(model_inputs(batch), batch.spacing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(model_inputs(batch), batch.spacing)
    assert half.dtype == torch.float32
    assert float((half - full).norm() / full.norm()) < 0.05


@pytest.mark.parametrize(("modes", "axis"), [([9, 3, 3], "D"), ([4, 7, 3], "H"), ([4, 3, 9], "W")])
def test_modes_above_the_grid_name_grid_axis_and_limit(modes, axis):
    net = ResidualFNO(2, width=4, depth=1, modes=modes)
    with pytest.raises(
        ValueError, match=rf"along {axis} exceed what the grid \(16, 12, 12\) holds \(at most"
    ):
        net(torch.zeros(1, 2, 16, 12, 12))
    check_modes([8, 6, 7], (16, 12, 12))


def test_unet_refuses_a_grid_too_small_for_its_depth():
    with pytest.raises(ValueError, match=r"grid \(16, 8, 9\) is too small to be halved 3 times"):
        UNet3D(2, width=4, levels=3)(torch.zeros(1, 2, 16, 8, 9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hybrid(composition="sum"), "model.composition"),
        (lambda: PointSourceBaseline("oblique"), "model.baseline.kind"),
        (lambda: PointSourceBaseline(sigma_ref=-1.0), "sigma_ref"),
        (lambda: PointSourceBaseline(sigma_ref="mean"), "sigma_ref"),
        (lambda: GeometryEncoder(4, 8, 1, 2), "kernel_size must be odd"),
        (lambda: hybrid()(torch.zeros(1, 6, 8, 8, 8), torch.ones(1, 3)), "x must be"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_baseline_is_its_formula(batch):
    """I / (4 pi sigma_ref sqrt(r^2 + eps^2)), sigma_ref the mean over tissue of the mean diagonal,
    eps 0.1 voxel.
    """
    phi = PointSourceBaseline()(batch.sigma, batch.source_point, batch.current, batch.spacing)[:, 0]
    r = distance_from(batch.source_point, batch.shape, batch.spacing)
    for b in range(len(batch)):
        sigma = batch.sigma[b].mean(dim=0)[batch.tissue[b]].mean()
        eps = 0.1 * batch.spacing[b].min()
        expected = batch.current[b] / (4 * torch.pi * sigma * torch.sqrt(r[b] ** 2 + eps**2))
        assert torch.allclose(phi[b], expected, rtol=1e-5)


def test_baselines_agree_in_an_isotropic_block_and_local_is_local(batch):
    sigma = torch.full_like(batch.sigma, 0.3)
    arguments = (sigma, batch.source_point, batch.current, batch.spacing)
    reference = PointSourceBaseline(sigma_ref=0.3)(*arguments)
    for kind in ("isotropic", "anisotropic"):
        for ref in ("conductive_mean", "local"):
            assert torch.allclose(PointSourceBaseline(kind, ref)(*arguments), reference, rtol=1e-5)
    muscle = PointSourceBaseline("anisotropic", "local").reference(
        batch.sigma, batch.source_point, batch.spacing
    )
    assert torch.equal(muscle, batch.conductor("grounded").sigma_at(batch.source_point))
    # an electrode on the skin has the skin's conductivity
    halved = torch.where(torch.arange(sigma.shape[3])[:, None] < 6, sigma, 0.0)
    on_skin = torch.stack(
        [batch.source_point[:, 0], 6 * batch.spacing[:, 1], batch.source_point[:, 2]], dim=1
    )
    assert torch.equal(
        PointSourceBaseline(sigma_ref="local").reference(halved, on_skin, batch.spacing),
        sigma[:, :, 0, 0, 0],
    )


def test_coordinates():
    cell = coordinates((4, 2, 8), "cell", torch.device("cpu"))
    assert cell[0, :, 0, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    fine = coordinates((8, 4, 16), "cell", torch.device("cpu"))
    assert torch.allclose(torch.nn.functional.avg_pool3d(fine[None], 2)[0], cell)
    assert coordinates((5, 2, 2), "node", torch.device("cpu"))[0, :, 0, 0].tolist() == [
        -1,
        -0.5,
        0,
        0.5,
        1,
    ]
    with pytest.raises(ValueError, match="problem.coordinates"):
        coordinates((4, 4, 4), "corner", torch.device("cpu"))
