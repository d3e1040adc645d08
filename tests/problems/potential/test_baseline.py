"""The coarse solution as a baseline: how close it is alone, on any grid, with any ends, and inside
the hybrid.
"""

import dataclasses

import pytest
import torch
from physicsnemo.core.module import Module

from physics_hybrid.models.fno import ResidualFNO
from physics_hybrid.problems.potential.baseline import (
    CoarseSolveBaseline,
    PointSourceBaseline,
    SolveBaseline,
    build_baseline,
)
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.geometry import GeometryEncoder
from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.resample import tissue_mean
from physics_hybrid.problems.potential.surrogate import baseline_potential, model_inputs
from tests.conftest import limb_distribution

CPU = torch.device("cpu")


def solved(grid, ends="grounded", count=3, components=3, **limbs):
    ends = Ends(ends, 5.0 if ends == "robin" else None)
    limbs = limb_distribution(extent_jitter=0.1, pair_distance=0.05, **limbs)
    return (
        LimbStream(
            limbs, grid, 0, "test", Solver(tolerance=1e-5, ends=ends), CPU, components
        ).batch(range(count)),
        ends,
    )


def alone(baseline, batch, ends):
    """Mean relative L2 of a baseline by itself, and its values."""
    phi = baseline_potential(baseline, batch, ends)
    rows = Metrics(ends=ends)(phi, batch)
    return sum(row["relative_l2"] for row in rows) / len(rows), phi


def call(baseline, batch):
    return baseline(batch.sigma, batch.source_point, batch.current, batch.spacing)


@pytest.mark.parametrize(
    ("ends", "half", "quarter"),
    [("grounded", 0.08, 0.2), ("robin", 0.04, 0.12), ("sink", 0.14, 0.35), ("pair", 0.12, 0.25)],
)
def test_alone_it_is_far_better_than_the_closed_form_and_the_better_the_finer(ends, half, quarter):
    batch, ends = solved((48, 24, 24), ends)
    errors = {
        c: alone(CoarseSolveBaseline(c, ends.kind, ends.beta), batch, ends)[0] for c in (2, 4)
    }
    assert errors[2] < half
    assert errors[2] < errors[4] < quarter < 0.5 * alone(PointSourceBaseline(), batch, ends)[0]
    phi = call(CoarseSolveBaseline(2, ends.kind, ends.beta), batch)
    assert phi.shape == (3, 1, 48, 24, 24)
    assert phi.isfinite().all()
    assert phi.dtype == torch.float32
    # a multiplicative correction meets no zero, whatever the ends
    assert (phi[:, 0][batch.tissue] > 0).all()


@pytest.mark.parametrize(
    ("grid", "components", "limbs"),
    [((49, 25, 23), 3, {}), ((30, 17, 19), 3, {}), ((32, 16, 16), 6, {"pennation": (20.0, 20.0)})],
    ids=["odd", "small", "oblique"],
)
def test_any_grid_and_any_tensor(grid, components, limbs):
    batch, ends = solved(grid, count=2, components=components, **limbs)
    assert (
        alone(CoarseSolveBaseline(2), batch, ends)[0]
        < 0.16
        < 0.5 * alone(PointSourceBaseline(), batch, ends)[0]
    )


@pytest.mark.parametrize("kind", ["grounded", "robin", "sink", "pair"])
def test_solved_on_the_grid_itself_it_is_the_truth_where_that_is_the_solvers_own(kind):
    batch, ends = solved((24, 12, 12), kind)
    error, _ = alone(SolveBaseline(ends.kind, ends.beta), batch, ends)
    assert error < 1e-3
    phi = call(build_baseline("solve", ends, [24, 12, 12]), batch)[:, 0]
    assert (phi[batch.tissue] > 0).all()  # a multiplicative correction meets no zero


def test_solved_on_the_grid_itself_leaves_what_separates_finite_elements_from_volumes():
    limbs = limb_distribution()
    ends, solver = Ends(), Solver("finite_element", tolerance=1e-8)
    batch = LimbStream(limbs, (24, 12, 12), 0, "test", solver, CPU).batch(range(2))
    error, _ = alone(SolveBaseline(), batch, ends)
    assert 0.01 < error < 0.3 * alone(PointSourceBaseline(), batch, ends)[0]


def test_a_scalar_conductor():
    batch, ends = solved(
        (24, 12, 12),
        count=1,
        sigma={"skin": [0.1] * 3, "fat": [0.05] * 3, "muscle": [0.3] * 3, "bone": [0.02] * 3},
    )
    whole = call(CoarseSolveBaseline(2), batch)
    assert torch.allclose(
        call(CoarseSolveBaseline(2), dataclasses.replace(batch, sigma=batch.sigma[:, :1])),
        whole,
        rtol=1e-4,
    )


def test_one_coarse_grid_for_all_leaves_the_same_correction_on_a_finer_grid():
    """With `home` the error that a network has to learn changes less from grid to grid than with a
    coarse grid for each.
    """
    (small, _), (large, _) = solved((32, 16, 16)), solved((64, 32, 32))
    weight = torch.where(small.tissue & small.away(3.0), small.u, 0.0)

    def change(baseline):
        wrong = [
            torch.where(b.tissue, b.u / call(baseline, b)[:, 0] - 1, 0.0) for b in (small, large)
        ]
        fine = torch.nn.functional.avg_pool3d(wrong[1][:, None], 2)[:, 0]
        return float(((wrong[0] - fine) * weight).norm() / weight.norm())

    assert change(CoarseSolveBaseline(4, home=[32, 16, 16])) < 0.7 * change(CoarseSolveBaseline(4))


def test_samples_of_a_batch_do_not_see_each_other():
    batch, _ = solved((24, 12, 12))
    assert not torch.allclose(batch.spacing[0], batch.spacing[1])
    together = call(CoarseSolveBaseline(2, tolerance=1e-6), batch)
    for i in range(len(batch)):
        one = [
            t[i : i + 1] for t in (batch.sigma, batch.source_point, batch.current, batch.spacing)
        ]
        assert torch.allclose(
            CoarseSolveBaseline(2, tolerance=1e-6)(*one)[0], together[i], rtol=1e-3
        )


def test_it_is_linear_in_the_current_and_blind_to_units_of_length():
    batch, _ = solved((24, 12, 12), "sink", 1)
    baseline = CoarseSolveBaseline(2, "sink")
    phi = call(baseline, batch)
    assert torch.allclose(
        baseline(batch.sigma, batch.source_point, -3 * batch.current, batch.spacing),
        -3 * phi,
        rtol=1e-5,
    )
    assert torch.allclose(
        baseline(batch.sigma, 2 * batch.source_point, batch.current, 2 * batch.spacing),
        phi / 2,
        rtol=1e-3,
    )


def test_a_coarse_grid_beside_better_tissue_is_no_reason_to_warn(recwarn):
    """Trainings warned at every step: a source in the middle of its fine voxel is anywhere in a
    coarse one.
    """
    sigma = torch.full((1, 1, 12, 8, 8), 0.02)
    sigma[:, :, :, 4:] = 1.0
    point, spacing = torch.tensor([[5.5, 3.5, 3.5]]) * 2e-3, torch.full((1, 3), 2e-3)
    CoarseSolveBaseline(2)(sigma, point, torch.ones(1), spacing)
    assert not recwarn.list


def hybrid(baseline):
    torch.manual_seed(0)
    encoder = GeometryEncoder(4, 5, 1, 1)
    return HybridWrapper(
        ResidualFNO(feature_channels(3, 5), width=8, depth=2, modes=[4, 3, 3]), encoder, baseline
    )


def test_inside_the_hybrid_it_starts_alone_trains_and_round_trips_through_mdlus(tmp_path):
    batch, ends = solved((24, 12, 12), "robin", 2)
    model = hybrid(build_baseline("coarse_solve", ends, [24, 12, 12], coarsen=3))
    x = model_inputs(batch)
    assert torch.allclose(
        model(x, batch.spacing), call(model.baseline, batch) * batch.tissue[:, None], rtol=1e-4
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    phi = model(x, batch.spacing)
    phi.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    # the coarse problem is not solved in bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            call(model.baseline, batch),
            call(hybrid(CoarseSolveBaseline(3, "robin", 5.0)).baseline, batch),
        )
    model.save(str(tmp_path / "m.mdlus"))
    loaded = Module.from_checkpoint(str(tmp_path / "m.mdlus"))
    assert type(loaded.baseline) is CoarseSolveBaseline
    assert loaded.baseline.ends == Ends("robin", 5.0)
    assert loaded.baseline.coarse((48, 24, 24)) == (8, 4, 4)
    assert torch.equal(loaded(x, batch.spacing), phi)


def test_the_solver_inside_the_hybrid_round_trips_through_mdlus(tmp_path):
    batch, ends = solved((24, 12, 12), "robin", 2)
    model = hybrid(build_baseline("solve", ends, [24, 12, 12]))
    model.save(str(tmp_path / "m.mdlus"))
    loaded = Module.from_checkpoint(str(tmp_path / "m.mdlus"))
    assert type(loaded.baseline) is SolveBaseline
    assert loaded.baseline.ends == Ends("robin", 5.0)
    x = model_inputs(batch)
    assert torch.equal(loaded(x, batch.spacing), model(x, batch.spacing))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_baseline("coarse", Ends(), None), "anisotropic, coarse_solve or solve"),
        (lambda: CoarseSolveBaseline(1), "coarsen must be a whole number"),
        (lambda: CoarseSolveBaseline(4, "robin"), "positive beta"),
        (
            lambda: hybrid(CoarseSolveBaseline(4)).check_grid((24, 12, 12)),
            "makes 6x3x3 voxels .* smaller model.baseline.coarsen",
        ),
    ],
)
def test_refusals_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_tissue_mean_conserves_tissue_and_ignores_air():
    sigma = torch.zeros(1, 1, 5, 4, 4)
    sigma[:, :, :, :2] = torch.arange(1.0, 6.0).view(1, 1, 5, 1, 1)
    coarse = tissue_mean(sigma, (3, 2, 2))[0, 0]
    assert torch.equal(coarse[:, 1], torch.zeros(3, 2))
    # voxels 0 and 2/3 of 1; 1/3 of 1, 2, 1/3 of 3; ...
    expected = torch.tensor([(1 + 2 * 2 / 3) / (5 / 3), 3.0, (5 + 4 * 2 / 3) / (5 / 3)])
    assert torch.allclose(coarse[:, 0], expected[:, None].expand(3, 2))
    assert torch.equal(tissue_mean(sigma, (5, 4, 4)), sigma)
