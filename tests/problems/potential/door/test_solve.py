"""`ph.solve` and what it gives: physics first, then derivatives, then shapes."""

import json
import math

import numpy as np
import pytest
import torch

import physics_hybrid as ph


def test_near_an_electrode_it_is_the_closed_form_and_between_voxels_too():
    body = ph.Body(np.full((24, 24, 24), 0.3), (0.0055,) * 3)
    at = np.array([0.0637, 0.0661, 0.0629])
    field = ph.solve(body, at, 1e-3, ends="pair", returns=at + [0.04, 0, 0], tolerance=1e-8)
    for step in ([0, 0.0011, 0], [0.0007, -0.001, 0.0005]):
        expected = 1e-3 / (4 * math.pi * 0.3 * np.linalg.norm(step))
        other = 1e-3 / (4 * math.pi * 0.3 * np.linalg.norm(np.array(step) - [0.04, 0, 0]))
        assert field.at(at + step) == pytest.approx(expected - other, rel=0.02)


def test_all_current_passes_every_section_and_is_ohms(limb):
    field = ph.solve(limb, limb.electrode, 2e-3, tolerance=1e-10)
    assert field.ends.kind == "grounded"
    sigma = np.moveaxis(limb.sigma[0].numpy(), 0, -1)
    assert np.allclose(field.J, sigma * field.E, rtol=1e-12, atol=1e-15)
    assert not field.E[~limb.tissue].any()
    assert not field.phi[~limb.tissue].any()
    # the mean of both faces of a voxel: sections next to the ends
    area = limb.spacing[1] * limb.spacing[2]
    through = field.J[..., 0].sum(axis=(1, 2)) * area
    out = through[-2] - through[1]
    assert out == pytest.approx(2e-3, rel=1e-6)


def test_potentials_of_many_sources_are_those_of_each_and_add_up(cylinder):
    points = cylinder.nearest([[0.02, 0.03, 0.02], [0.03, 0.04, 0.03]])
    many = ph.solve(cylinder, points, [1e-3, -2e-3], tolerance=1e-9)
    assert many.phi.shape == (2, *cylinder.shape)
    assert many.E.shape == (2, *cylinder.shape, 3)
    for k, current in enumerate([1e-3, -2e-3]):
        one = ph.solve(cylinder, points[k], current, tolerance=1e-9)
        assert np.allclose(many.phi[k], one.phi, rtol=1e-6, atol=1e-9)
        assert many.at(points[0])[k] == pytest.approx(one.at(points[0]), rel=1e-6)


def test_sources_that_do_not_fit_together_give_the_same(cylinder, monkeypatch):
    from physics_hybrid.problems.potential.door import equations

    points = cylinder.nearest(np.random.default_rng(0).uniform(0, 0.05, (3, 3)))
    together = ph.solve(cylinder, points, tolerance=1e-9)
    monkeypatch.setattr(equations, "TOGETHER", 1)
    assert np.allclose(ph.solve(cylinder, points, tolerance=1e-9).phi, together.phi, atol=1e-10)
    monkeypatch.setattr(equations, "SOLVE_BYTES", 10**12)
    with pytest.raises(ValueError, match=r"GB to solve.*GB are free"):
        ph.solve(cylinder, points)


def test_a_pair_is_the_difference_of_two_and_has_zero_mean(closed):
    a, b = closed.nearest([[0.02, 0.02, 0.02], [0.03, 0.05, 0.03]])
    pair = ph.solve(closed, a, returns=b, tolerance=1e-10)
    single = ph.solve(closed, [a, b], ends="sink", tolerance=1e-10).phi
    assert pair.ends.kind == "pair"
    assert np.allclose(pair.phi, single[0] - single[1], atol=1e-7)
    assert abs(pair.phi[closed.tissue].mean()) < 1e-12


def test_a_patch_of_one_voxel_is_that_voxel_and_its_voltage_their_mean(closed):
    (place,) = closed.nearest([[0.02, 0.0, 0.02]])
    patch = ph.Patch(place, 0.001)
    assert len(patch.voxels(closed)) == 1
    nodal = ph.solve(closed, place, singularity="nodal", tolerance=1e-10)
    assert np.allclose(ph.solve(closed, patch, tolerance=1e-10).phi, nodal.phi, atol=1e-9)
    wide = ph.Patch(place, 0.009)
    d, h, w = wide.voxels(closed).T
    assert nodal.at(wide) == pytest.approx(nodal.phi[d, h, w].mean())
    assert nodal.at([wide, patch]).shape == (2,)
    with pytest.raises(ValueError, match="cover the same voxels for source 0"):
        ph.solve(closed, wide, returns=wide)


@pytest.mark.parametrize("what", ["at", "returns", "current", "sigma"])
def test_derivatives_are_those_of_finite_differences(what):
    random = np.random.default_rng(2)
    sigma = torch.from_numpy(random.uniform(0.05, 0.5, (8, 6, 7, 3)))
    sigma[:, :, 0] = 0.0
    start = {
        "at": torch.tensor([0.0131, 0.0119, 0.0142]),
        "returns": torch.tensor([0.0251, 0.0178, 0.0223]),
        "current": torch.tensor(1e-3),
        "sigma": sigma,
    }
    start = {name: value.double() for name, value in start.items()}
    step = {"at": 1e-6, "returns": 1e-6, "current": 1e-4, "sigma": 1e-5}[what]

    def volts(value):
        given = {**start, what: value}
        body = ph.Body(given["sigma"], (0.004,) * 3)
        field = ph.solve(
            body, given["at"], given["current"], returns=given["returns"], tolerance=1e-12
        )
        return field.at([0.021, 0.01, 0.0181])

    value = start[what].clone().requires_grad_()
    volts(value).backward()
    gradient = value.grad.flatten()
    assert not torch.isnan(gradient).any()
    for k in gradient.abs().argsort(descending=True)[:1].tolist():
        ahead, behind = start[what].flatten().clone(), start[what].flatten().clone()
        ahead[k] += step
        behind[k] -= step
        shape = start[what].shape
        slope = (volts(ahead.reshape(shape)) - volts(behind.reshape(shape))) / (2 * step)
        assert float(gradient[k]) == pytest.approx(float(slope), rel=1e-5)


def test_tensors_in_tensors_out_and_arrays_stay_arrays(cylinder):
    (at,) = cylinder.nearest([[0.02, 0.03, 0.02]])
    assert isinstance(ph.solve(cylinder, torch.tensor(at)).phi, torch.Tensor)
    one = ph.solve(cylinder, at)
    assert isinstance(one.phi, np.ndarray)
    assert isinstance(one.at(torch.tensor(at)), torch.Tensor)
    assert one.at(at + 0.001).shape == ()


def test_refining_a_good_guess_takes_fewer_iterations_and_comes_to_the_same(limb):
    rough = ph.solve(limb, limb.electrode, tolerance=1e-5)
    cold = ph.solve(limb, limb.electrode, tolerance=1e-10)
    fine = ph.refine(rough, 1e-10)
    assert fine.iterations < cold.iterations
    assert np.allclose(fine.phi, cold.phi, atol=1e-9)
    assert ph.refine(cold, 1e-9).iterations == 0
    # from anything at all, and from an array
    noise = np.random.default_rng(0).normal(size=limb.shape)
    wild = ph.solve(limb, limb.electrode, start=noise, tolerance=1e-10)
    assert np.allclose(wild.phi, cold.phi, atol=1e-9)


def test_one_layer_cut_into_two_that_conduct_alike_changes_nothing():
    labels = np.zeros((12, 10, 10), dtype=int)
    labels[:, 1:-1, 1:-1] = 1
    labels[:, 3:-3, 3:-3] = 2
    one = ph.Body(np.array([0, 0.05, 0.3])[labels], (0.004,) * 3)
    labels[:, 1:-1, 1:5][labels[:, 1:-1, 1:5] == 1] = 3
    two = ph.Body(np.array([0, 0.05, 0.3, 0.05])[labels], (0.004,) * 3, labels=labels)
    at = (0.021, 0.009, 0.02)
    phi = [ph.solve(body, at, tolerance=1e-11).phi for body in (one, two)]
    assert np.abs(phi[0] - phi[1]).max() <= 1e-8 * np.abs(phi[0]).max()


@pytest.mark.parametrize("change", ["mirror D", "mirror W", "swap H W", "swap all"])
def test_a_mirrored_or_turned_body_has_the_mirrored_or_turned_field(change):
    random = np.random.default_rng(1)
    sigma = random.choice([0.05, 0.3, 1.0], size=(8, 9, 10)) * np.ones((1, 1, 1))
    spacing, at = np.array([0.004, 0.005, 0.003]), np.array([0.0113, 0.0231, 0.0102])
    back = np.array([0.0251, 0.0131, 0.0222])
    here = ph.solve(ph.Body(sigma, spacing), at, returns=back, tolerance=1e-12).phi
    kind, _, axes = change.partition(" ")
    if kind == "mirror":
        axis = "DHW".index(axes)
        extent = spacing * sigma.shape
        mirrored = ph.Body(np.flip(sigma, axis), spacing)
        flip = np.eye(3)[axis].astype(bool)
        points = [np.where(flip, extent - p, p) for p in (at, back)]
        there = ph.solve(mirrored, points[0], returns=points[1], tolerance=1e-12).phi
        there = np.flip(there, axis)
    else:
        order = [0, 2, 1] if axes == "H W" else [2, 0, 1]
        turned = ph.Body(sigma.transpose(order), spacing[order])
        there = ph.solve(turned, at[order], returns=back[order], tolerance=1e-12).phi
        there = there.transpose(np.argsort(order))
    assert np.abs(here - there).max() <= 1e-8 * np.abs(here).max()


def test_a_symmetric_body_has_a_symmetric_field():
    # an electrode on a face would be moved off it, by 2e-4 voxels
    h, w = np.meshgrid(np.arange(11) - 5, np.arange(11) - 5, indexing="ij")
    sigma = np.where(h**2 + w**2 < 26, 0.3, 0.0) * np.ones((13, 1, 1))
    body = ph.Body(sigma, (0.004,) * 3)
    phi = ph.solve(body, body.extent / 2, tolerance=1e-12).phi
    for other in (phi[::-1], phi[:, ::-1], phi[:, :, ::-1], phi.transpose(0, 2, 1)):
        assert np.abs(phi - other).max() <= 1e-8 * phi.max()


def test_the_solver_answers_where_no_model_is_and_says_why(limb, tmp_path, monkeypatch):
    from physics_hybrid.problems.potential import predictor
    from physics_hybrid.problems.potential.door import engines

    for module in (engines, predictor):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    field = ph.solve(limb, limb.electrode)
    assert (field.engine, field.why) == ("solver", "no model is shipped in this version")
    assert "solver: no model" in repr(field)
    with pytest.raises(FileNotFoundError, match="no model is shipped"):
        ph.solve(limb, limb.electrode, engine="network")
    facts = {"metrics": {"0": {"24x12x12": {"relative_l2": {"mean": 0.08}}}}}
    for about, why in (
        ({}, "no error of the model on limbs"),
        (facts, "to 0.08 in relative L2 on limbs it was not trained on, and a residual of"),
    ):  # the weights are not looked at
        (tmp_path / "limb.json").write_text(json.dumps(about))
        field = ph.solve(limb, limb.electrode)
        assert field.engine == "solver"
        assert why in field.why


def test_a_network_behind_the_door_and_the_solver_that_takes_it_farther(limb):
    from physics_hybrid.models.fno import ResidualFNO
    from physics_hybrid.problems.potential.baseline import PointSourceBaseline
    from physics_hybrid.problems.potential.geometry import GeometryEncoder
    from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels
    from physics_hybrid.problems.potential.predictor import Predictor

    backbone = ResidualFNO(feature_channels(3, 4), 1, width=4, depth=1, modes=[2, 2, 2])
    network = HybridWrapper(backbone, GeometryEncoder(4, 4, 1, 1), PointSourceBaseline())
    model = Predictor(network, about={"metrics": {"0": {"24x12x12": {"relative_l2": 0.08}}}})
    guess = ph.solve(limb, limb.electrode, engine="network", model=model)
    assert (guess.engine, guess.iterations) == ("network", None)
    cold = ph.solve(limb, limb.electrode, tolerance=1e-8)
    hybrid = ph.solve(limb, limb.electrode, tolerance=1e-8, engine="hybrid", model=model)
    assert np.allclose(hybrid.phi, cold.phi, atol=1e-7)
    assert np.allclose(ph.refine(guess, 1e-8).phi, cold.phi, atol=1e-7)
    chosen = ph.solve(limb, limb.electrode, tolerance=0.01, model=model)
    assert chosen.engine == "solver"
    assert "0.08" in chosen.why
    with pytest.raises(ValueError, match="trained with ends=grounded"):
        ph.solve(limb, limb.electrode, engine="network", model=model, ends="sink")


def test_a_bar_says_what_is_left_but_not_of_what_takes_a_moment(cylinder, capsys, monkeypatch):
    from physics_hybrid.problems.potential.door import progress

    points = cylinder.nearest([[0.02, 0.03, 0.02], [0.03, 0.04, 0.03]])
    ph.solve(cylinder, points)
    assert "left" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "DELAY", 0.0)
    ph.solve(cylinder, points)
    assert "left" in capsys.readouterr().err
    ph.solve(cylinder, points, progress=False)
    assert capsys.readouterr().err == ""
