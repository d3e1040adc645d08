"""Bounds at the door: `certify` proves them, here they are asked for as users do."""

import math
import re
import sys
import warnings

import nibabel
import numpy as np
import pytest

import physics_hybrid as ph
from physics_hybrid.problems.potential.door import bounds
from physics_hybrid.problems.potential.door.bounds import split
from physics_hybrid.problems.potential.door.formats import read_volts
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.reading import FileError


@pytest.fixture(scope="module")
def block():
    sigma = np.full((8, 7, 7), 0.3)
    sigma[:, :, 5:] = 0.1
    return ph.Body(sigma, (0.004,) * 3, np.diag([4.0, 4.0, 4.0, 1.0]))


AT = (0.0181, 0.0139, 0.0102)


def test_a_wrong_field_has_a_larger_bound_and_an_interval_holds_a_finer_answer(block):
    field = ph.solve(block, AT, certify=True)
    assert "off in energy" in repr(field)
    worse = ph.solve(block, AT, start=1.3 * field.phi, tolerance=0.9)
    assert field.bound < worse.bound
    patch = ph.Patch((0.018, 0.014, 0.028), 0.006)
    low, high = field.interval(patch)
    fine = split(block, 4)
    d, h, w = np.meshgrid(*(np.arange(4),) * 3, indexing="ij")
    voxels = 4 * patch.voxels(block)[:, None] + np.stack([d, h, w], axis=-1).reshape(-1, 3)
    better = ph.solve(fine, AT).phi[tuple(voxels.reshape(-1, 3).T)].mean()
    assert low < better < high < 1.02 * low  # closer than the field itself, which is 1.4 % off
    lowest, highest = field.interval(patch, to=0.002)
    assert low <= lowest < better < highest < high
    assert highest - lowest <= 0.002 * (highest + lowest)
    for wrong in (0, -0.01, math.nan, math.inf, True, "0.01", [0.01]):
        with pytest.raises(ValueError, match="to is a half-width as a share of the voltage"):
            field.interval(patch, to=wrong)


def test_a_width_that_is_not_reached_is_said(block, monkeypatch):
    monkeypatch.setattr(bounds, "MOST", 1.0)
    field, patch = ph.solve(block, AT), ph.Patch((0.025, 0.013, 0.005), 0.004)
    own = field.interval(patch)
    with pytest.warns(UserWarning, match="to=1e-09 was not reached: the half-width is .* V of"):
        assert field.interval(patch, to=1e-9) == own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        field.interval(patch, to=0.9)


def test_a_solver_that_gives_up_on_cut_voxels_ends_the_search_not_the_interval(block, monkeypatch):
    module = "physics_hybrid.problems.potential.certify.interval"
    field, patch = ph.solve(block, AT), ph.Patch((0.025, 0.013, 0.005), 0.004)
    own = field.interval(patch)
    monkeypatch.setattr(sys.modules[module], "GRADED", 1e-14)
    monkeypatch.setattr(sys.modules[module], "MANY", 1)
    with pytest.warns(UserWarning, match="was not reached"):
        assert field.interval(patch, to=1e-3) == own


def test_a_pair_in_one_voxel_has_a_bound():
    body = ph.Body(np.full((8, 7, 7), 0.3), (0.004,) * 3)
    pair = ph.solve(body, AT, returns=(0.0175, 0.0132, 0.0095))
    assert 0 < pair.bound < np.inf


def test_refining_until_the_bound_says_so_splits_voxels(block):
    coarse = ph.solve(block, AT, certify=True)
    field = ph.solve(block, AT, error=0.8 * float(coarse.bound))
    assert field.bound <= 0.8 * coarse.bound
    assert field.body.shape == (16, 14, 14)
    # the same place in the world
    assert np.allclose(field.body.affine @ [-0.5, -0.5, -0.5, 1], [-2, -2, -2, 1])
    # twice the conductivity is half the voltage
    sigma = block.sigma[0, 0].clone().requires_grad_()
    tensor = ph.solve(ph.Body(sigma, block.spacing), AT, error=0.8 * float(coarse.bound))
    assert tensor.split == 2
    volts = tensor.at(AT)
    volts.backward()
    assert (sigma.detach() * sigma.grad).sum().item() == pytest.approx(-volts.item(), rel=1e-4)
    none = ph.solve(block, AT, current=0.0, error=0.01)
    assert none.bound == 0
    for parts in (0, 1.5, "two"):
        with pytest.raises(ValueError, match="refine must be a whole number >= 1"):
            none.certify(refine=parts)
        with pytest.raises(ValueError, match="refine must be a whole number >= 1"):
            none.interval(ph.Patch((0.018, 0.014, 0.028), 0.006), refine=parts)
    with pytest.raises(ValueError, match=r"million voxels take about .* GB to certify"):
        none.certify(refine=1000)
    with pytest.raises(ValueError, match="guess must be a Field"):
        ph.refine("none", 1e-3)
    with pytest.raises(ValueError, match="patch.radius must be numbers"):
        ph.Patch(AT, "wide").voxels(block)
    for error in (0, 1.5, "small"):
        with pytest.raises(ValueError, match=r"error must lie in \(0, 1\)"):
            ph.solve(block, AT, error=error)
    with pytest.raises(ValueError, match="certificates are of point electrodes"):
        ph.solve(block, ph.Patch((0.018, 0.014, 0.028), 0.006)).certify()


def test_a_bound_that_has_stopped_falling_ends_the_search(block):
    on_skin = (0.016, 0.0, 0.014)
    with pytest.raises(SolverError, match="voxels split in 2 are certainly right to"):
        ph.solve(block, on_skin, error=0.01)


def test_a_field_of_a_file_is_judged_from_the_command_line(tmp_path, capsys):
    from physics_hybrid.verbs.certify import main

    labels = np.full((8, 8, 9), 3, dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([4.0, 4, 4, 1])), tmp_path / "a.nii.gz")
    words = [str(tmp_path / "a.nii.gz"), "--at", *map(str, AT)]
    body = ph.read_labels(tmp_path / "a.nii.gz")
    field = ph.solve(body, AT, tolerance=1e-8)
    field.save(tmp_path / "phi.nii.gz")
    reading = ["--read", "0.018", "0.016", "0.032", "--radius", "0.006"]
    out = ["--out", str(tmp_path / "where.nii.gz")]
    to = ["--to", "0.04"]
    main([*words, "--field", str(tmp_path / "phi.nii.gz"), *reading, *to, *out])
    said = capsys.readouterr().out
    assert f"energy error at most {float(field.bound):.3g} of" in said
    voltage = re.search(r"voltage: (\S+) to (\S+) V, for certain", said)
    low, high = (float(volts) for volts in voltage.groups())
    assert 0 < high - low <= 0.04 * (high + low)
    assert nibabel.load(tmp_path / "where.nii.gz").get_fdata().sum() > 0
    main([*words, "--field", str(tmp_path / "phi.nii.gz"), "--refine", "2"])
    assert f"at least {float(field.certify(2).lower[0]):.3g} W^(1/2)" in capsys.readouterr().out
    main([*words, *reading, "--read-on", "skin", "--tolerance", "1e-8"])
    patch = ph.Patch((0.018, 0.016, 0.032), 0.006)
    low, high = field.interval(patch, on="skin")
    assert f"voltage: {low:.4g}"[:14] in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([*words, *reading, "--read-on", "bones"])
    assert left.value.code == 1
    assert "--read-on must be voxels or skin; got 'bones'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([*words, "--read", "0.018", "0.016", "0.032"])
    assert left.value.code == 2
    assert "--read needs --radius" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([*words, *to])
    assert left.value.code == 2
    assert "--to needs --read" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([*words, "--field", str(tmp_path / "phi.txt")])
    assert left.value.code == 1
    flat = nibabel.Nifti1Image(np.ones((8, 8), dtype=np.float32), np.eye(4))
    nibabel.save(flat, tmp_path / "flat.nii.gz")
    with pytest.raises(FileError, match=r"must hold volumes, 3D or 4D; got \(8, 8\)"):
        read_volts(body, tmp_path / "flat.nii.gz")
