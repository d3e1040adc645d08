"""What a network is likely to be wrong by: of bodies like those it knows, and of no others."""

from __future__ import annotations

import json
import math
import shutil
import warnings

import numpy as np
import pytest
import torch

import physics_hybrid as ph
from physics_hybrid.problems.potential.certify.conformal import Likeness
from physics_hybrid.problems.potential.evidence.calibration import calibrate, drawn, errors
from physics_hybrid.problems.potential.experience import FEATURES, Experience, features
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.predictor import FOLDER, Predictor
from physics_hybrid.verbs.calibrate import FEWEST

GRID = (24, 12, 12)


def of_limb(limb: ph.Body, change=lambda sigma: sigma, point=None):
    sigma = change(torch.as_tensor(limb.plain.sigma))
    point = limb.electrode if point is None else point
    body = Conductor(sigma, torch.as_tensor(limb.plain.spacing), "grounded")
    return features(body, torch.as_tensor(np.asarray(point)[None], dtype=torch.float64))[0]


def test_features_know_no_mirror_no_padding_and_no_name_of_an_axis():
    limb = ph.Limb.random(3, grid=GRID)
    own = of_limb(limb)
    assert len(own) == len(FEATURES)
    assert bool(torch.isfinite(own).all())
    d, h, w = limb.electrode
    width = GRID[1] * float(limb.spacing[1])
    mirrored = of_limb(limb, lambda s: s.flip(3), (d, width - h, w))
    assert torch.allclose(own, mirrored, atol=1e-12)
    padded = of_limb(
        limb,
        lambda s: torch.nn.functional.pad(s, (2, 1, 3, 0)),
        (d, h + 3 * float(limb.spacing[1]), w + 2 * float(limb.spacing[2])),
    )
    assert torch.allclose(own, padded, atol=1e-12)
    exchanged = Conductor(
        limb.plain.sigma[:, [0, 2, 1]].transpose(3, 4), limb.plain.spacing[:, [0, 2, 1]]
    )
    turned = features(exchanged, torch.tensor([[d, w, h]], dtype=torch.float64))[0]
    assert torch.allclose(own, turned, atol=1e-12)


def test_a_cylinder_has_the_features_that_it_should():
    """Radius 40 mm, length 192 mm, 0.3 S/m, an electrode in the middle: all by hand."""
    edge, count = 0.002, 48
    y = (np.arange(count) + 0.5 - count / 2) * edge
    disk = y[:, None] ** 2 + y[None] ** 2 <= 0.04**2
    sigma = np.broadcast_to(0.3 * disk, (96, count, count))
    body = Conductor(torch.tensor(sigma[None, None]), torch.full((1, 3), edge).double())
    found = features(body, torch.tensor([[0.096, 0.048, 0.048]]).double())[0]
    named = dict(zip(FEATURES, found.tolist(), strict=True))
    assert named["size of the cross-section"] == pytest.approx(
        math.log(math.pi * 0.04**2), abs=0.02
    )
    assert named["length along D"] == pytest.approx(math.log(0.192))
    assert named["mean conductivity"] == named["conductivity at the electrode"]
    assert named["mean conductivity"] == pytest.approx(math.log(0.3))
    assert named["depth of the electrode"] == pytest.approx(math.log(0.04), abs=0.05)
    assert named["distance of the electrode from the ends"] == pytest.approx(0.5, abs=0.01)
    for zero in ("change of the cross-section along D", "shape of the cross-section"):
        assert named[zero] == pytest.approx(0, abs=1e-9)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """The model of the package, calibrated on few limbs of a grid that takes no time."""
    folder = tmp_path_factory.mktemp("pretrained") / "own"
    shutil.copytree(FOLDER, folder)
    return folder, calibrate(folder, [(48, 24, 24)], 12)


def test_it_is_read_back_as_it_was_written(calibrated):
    folder, made = calibrated
    read = Predictor.load(folder).experience
    assert read.written() == json.loads(json.dumps(made.written()))
    assert read.likely(0.5) == made.likely(0.5) > 0


def test_a_network_says_what_is_likely_and_warns_of_a_body_of_another_kind(calibrated):
    folder, _ = calibrated
    limb = ph.Limb.random(5, grid=(48, 24, 24))
    model = Predictor.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        field = ph.solve(limb, limb.electrode, engine="network", model=model)
    assert "statistics, no bound" in field.why
    assert field.likely(0.5) == pytest.approx(model.experience.likely(0.5))
    assert field.likely(0.99) == math.inf  # of 12 limbs nobody knows
    with pytest.raises(ValueError, match="between 0 and 1"):
        field.likely(1.0)
    finer = ph.Body(np.repeat(limb.sigma[0, 0], 2, axis=0), limb.spacing / 2)
    with pytest.warns(UserWarning, match=r"voxels have edges of"):
        field = ph.solve(finer, limb.electrode / 2, engine="network", model=model)
    assert field.likely(0.5) == math.inf
    assert "statistics" not in field.why


@pytest.mark.parametrize("key", ["pinned", "samples"])
def test_a_model_that_does_not_say_its_limbs_is_refused_in_a_line(calibrated, tmp_path, key):
    folder = tmp_path / "older"
    shutil.copytree(calibrated[0], folder)
    facts = json.loads((folder / "limb.json").read_text())
    del facts[key]
    (folder / "limb.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=f"does not say {key}.*ship RUN_FOLDER"):
        calibrate(folder, None, 12)


def test_as_few_limbs_as_the_command_takes_can_tell_a_body_of_another_kind():
    near = torch.randn(2 * FEWEST, 3, generator=torch.Generator().manual_seed(0))
    far = torch.full((1, 3), 100.0)
    assert bool(Likeness.of(near[:FEWEST], near[FEWEST:]).unlike(far).all())
    assert not bool(Likeness.of(near[:FEWEST], near[FEWEST + 1 :]).unlike(far).any())


def test_what_is_not_of_a_calibrated_network_says_so():
    limb = ph.Limb.random(5, grid=GRID)
    field = ph.solve(limb, limb.electrode)
    with pytest.raises(ValueError, match="of the solver: field.certify"):
        field.likely()


@pytest.mark.slow
def test_the_shipped_model_keeps_what_it_says_on_limbs_of_another_seed():
    """Of 40 limbs that neither trained nor calibrated it, 90 % lie within the interval of 90 %:
    fewer than 29 would be a chance of one in 10 000.
    """
    model = Predictor.load()
    experience = model.experience
    found = [error for error, _ in errors(model, [(48, 24, 24)], 20_000, 40)]
    held = sum(error <= experience.likely(0.9) for error in found)
    assert held >= 29
    others = drawn(model, [(48, 24, 24)], "test", 100)
    assert int(experience.likeness.unlike(others).sum()) <= 7  # 1 is expected
    far = others.clone()
    far[:, FEATURES.index("mean conductivity")] += math.log(100)
    assert bool(experience.likeness.unlike(far).all())
    assert isinstance(experience, Experience)
