"""A network on grids that it was not trained on, at the price of the one it was."""

import dataclasses

import pytest
import torch
from physicsnemo.core.module import Module

from physics_hybrid.models.fno import ResidualFNO
from physics_hybrid.problems.potential.baseline import PointSourceBaseline
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.geometry import GeometryEncoder
from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.predictor import Predictor
from physics_hybrid.problems.potential.resample import upsample
from physics_hybrid.problems.potential.surrogate import Surrogate, model_inputs, on_coarser
from tests.conftest import limb_distribution

CPU = torch.device("cpu")
HOME, FINE = (16, 10, 10), (32, 20, 20)


def network(home=None, composition="multiplicative"):
    torch.manual_seed(0)
    backbone = ResidualFNO(feature_channels(3, 5), width=8, depth=1, modes=[3, 3, 3])
    model = HybridWrapper(
        backbone, GeometryEncoder(4, 5, 1, 1), PointSourceBaseline(), composition, home=home
    )
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return model.eval()


def limbs(grid, ends="grounded"):
    distribution = limb_distribution(pair_distance=0.05)
    solver = Solver(tolerance=1e-4, ends=Ends(ends))
    return LimbStream(distribution, grid, 0, "test", solver, CPU).batch(range(2))


def test_on_the_grid_of_training_and_coarser_ones_home_changes_nothing():
    for grid in (HOME, (14, 10, 10)):
        batch = limbs(grid)
        assert torch.equal(Surrogate(network(HOME))(batch), Surrogate(network())(batch))


def test_it_is_trained_on_the_grids_that_it_is_given():
    """As the trainer's wrapper of several ranks sees it, too, which has no methods but forward."""
    batch, model = limbs(FINE), network(HOME).train()
    wrapped = torch.nn.Sequential()
    wrapped.forward = model.forward
    assert torch.equal(Surrogate(wrapped)(batch), Surrogate(network().train())(batch))


@pytest.mark.parametrize("composition", ["multiplicative", "additive", "direct"])
def test_on_a_finer_grid_the_correction_of_home_meets_the_baseline_of_the_grid(composition):
    batch, model = limbs(FINE), network(HOME, composition)
    seen = []
    model.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-3:]))
    phi = Surrogate(model)(batch)
    assert seen == [HOME]
    small = on_coarser(batch, HOME)
    c = model.correction(model_inputs(small), small.spacing)[:, 0]
    c = upsample(c, small.tissue, FINE)
    base = Surrogate(model).baseline(batch)
    if composition == "multiplicative":
        assert torch.allclose(phi, base * (1 + c), rtol=1e-5)
    assert float((phi - base).abs().max()) > 0
    assert torch.equal(phi[~batch.tissue], torch.zeros_like(phi[~batch.tissue]))


def test_a_model_that_is_asked_on_a_finer_grid_knows_where_the_electrode_is():
    batch, model = limbs(FINE), network(HOME)
    expected = Surrogate(model)(batch)
    for b in range(len(batch)):
        phi = Predictor(model).predict(
            batch.sigma[b].movedim(0, -1), batch.spacing[b], batch.source_point[b], batch.current[b]
        )
        assert torch.allclose(phi, expected[b], rtol=1e-3, atol=1e-3 * float(phi.abs().max()))


def test_no_correction_is_the_baseline_of_the_grid_and_a_constant_one_a_factor():
    batch, model = limbs(FINE), network(HOME)
    with torch.no_grad():
        for p in model.backbone.head[-1].parameters():
            p.zero_()
    surrogate = Surrogate(model)
    assert torch.allclose(surrogate(batch), surrogate.baseline(batch), rtol=1e-6)
    with torch.no_grad():
        model.backbone.head[-1].bias.fill_(0.5)
    assert torch.allclose(surrogate(batch), 1.5 * surrogate.baseline(batch), rtol=1e-5)


def test_a_pair_is_two_electrodes_and_the_current_is_the_same_on_both_grids():
    batch = limbs(FINE, "pair")
    small = on_coarser(batch, HOME)
    for fine, coarse in ((batch.source, small.source), (batch.source.abs(), small.source.abs())):
        currents = [
            (s.sum(dim=(1, 2, 3)) * spacing.prod(dim=1))
            for s, spacing in ((fine, batch.spacing), (coarse, small.spacing))
        ]
        assert torch.allclose(*currents, rtol=1e-5, atol=1e-9)
    surrogate = Surrogate(network(HOME), Ends("pair"))
    phi = surrogate(batch)
    assert phi.shape == batch.u.shape
    assert float(phi.mean(dim=(1, 2, 3)).abs().max()) < 1e-6 * float(phi.abs().max())


def test_the_electrodes_of_a_pair_that_meet_in_one_coarse_voxel_do_not_cancel():
    batch = limbs(FINE, "pair")
    voxel = (batch.source_point / batch.spacing).floor()
    beside = voxel + 1 - 2 * (voxel % 2)  # the diagonal neighbour in the same voxel of HOME
    source = batch.source.clamp_min(0)
    for b, (d, h, w) in enumerate(beside.long().tolist()):
        source[b, d, h, w] = -source[b].sum()
    close = dataclasses.replace(batch, source=source, return_point=(beside + 0.5) * batch.spacing)
    assert float(on_coarser(close, HOME).source.abs().max()) < 1e-6 * float(source.max())
    phi = Surrogate(network(HOME), Ends("pair"))(close)
    assert bool(torch.isfinite(phi).all())
    assert float(phi.abs().max()) > 0


def test_the_model_file_knows_its_home(tmp_path):
    model = network(HOME)
    model.save(str(tmp_path / "m.mdlus"))
    assert Module.from_checkpoint(str(tmp_path / "m.mdlus")).home == HOME
