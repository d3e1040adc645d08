"""A trained run becomes a model inside the package, and the one that is shipped gives the numbers
it was shipped with.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import physics_hybrid
from physics_hybrid.problems.potential.evidence import ship as shipping
from physics_hybrid.problems.potential.predictor import FOLDER, NAME
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def shipped(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    return folder, shipping.ship([trained(), trained("seed=1")], folder, samples=2)


@pytest.fixture(scope="module")
def body(stream):
    """sigma (D, H, W, 3), spacing, source point and current of a limb, as a user has them."""
    batch = stream.batch([0])
    return (
        batch.sigma[0].movedim(0, -1).numpy(),
        batch.spacing[0].numpy(),
        batch.source_point[0].numpy(),
        float(batch.current[0]),
    )


@pytest.mark.program
def test_importing_the_package_is_light():
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, physics_hybrid; print('torch' in sys.modules, 'numpy' in sys.modules)",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert loaded.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_a_shipped_model_predicts_as_the_run_does(shipped, stream):
    folder, model = shipped
    again = physics_hybrid.load_pretrained(folder=folder)
    batch = stream.batch([0, 1])
    from physics_hybrid.problems.potential.surrogate import Surrogate

    with torch.no_grad():
        expected = Surrogate(model.network)(batch)
    for i in range(2):
        phi = again.predict(
            batch.sigma[i].movedim(0, -1), batch.spacing[i], batch.source_point[i], batch.current[i]
        )
        assert isinstance(phi, torch.Tensor)
        assert phi.shape == batch.shape
        torch.testing.assert_close(phi, expected[i], rtol=1e-4, atol=1e-7)


def test_pinned_numbers_hold_and_a_changed_weight_is_found(shipped):
    folder, model = shipped
    expected = model.about["pinned"]["expected"]
    assert shipping.pinned(model, model.about["pinned"]) == expected
    assert len(expected) == 2
    other = physics_hybrid.load_pretrained(folder=folder)
    with torch.no_grad():
        other.network.backbone.head[-1].bias += 0.01
    assert (
        abs(
            shipping.pinned(other, model.about["pinned"])[0]["relative_l2"]
            / expected[0]["relative_l2"]
            - 1
        )
        > 1e-3
    )


def test_the_model_card_says_what_was_done(shipped):
    folder, model = shipped
    text = (folder / f"{NAME}.md").read_text()
    command = next(line for line in text.splitlines() if line.strip().startswith("python train.py"))
    # another network than that of the package: the quickstart with it
    assert "python train.py model=fno_residual seed=0 " in command
    assert "data.grid=[16,12,12]" in command
    assert "model.backbone.width=8" in command
    assert " ± " in text
    assert "| 0, 1 |" in text
    assert model.card == text
    assert {"0", "1"} == set(model.about["metrics"])
    words = command.split()[2:]
    from physics_hybrid.evidence.bench import configuration

    # the command is the recipe
    assert shipping.command(configuration(words)) == words


def test_the_recipe_of_the_package_is_named_where_a_run_is_of_it():
    from physics_hybrid.evidence.bench import configuration

    words = ["experiment=shipped", "seed=3", "training.epochs=2"]
    assert shipping.command(configuration(words)) == words
    words = ["model=fno_residual", "seed=3", "model.backbone.block=zero_linear"]
    before = configuration(words)
    del before["model"]["backbone"]["block"]  # runs of before there were others
    assert shipping.command(before) == words


def test_many_sources_scale_with_their_current_and_a_second_electrode_is_subtracted(shipped, body):
    _, model = shipped
    sigma, spacing, point, current = body
    points = np.stack([point, point + [0.5 * spacing[0], 0, 0], point - [2.3 * spacing[0], 0, 0]])
    phi = model.predict(sigma, spacing, points, [current, 2 * current, 0.0], batch_size=2)
    assert phi.shape == (3, *sigma.shape[:3])
    assert phi.dtype == np.float32
    one = model.predict(sigma, spacing, point, current)
    np.testing.assert_allclose(phi[0], one, rtol=1e-4, atol=1e-7)
    assert not phi[2].any()
    assert not one[sigma[..., 0] == 0].any()
    pair = model.predict(sigma, spacing, points[0], current, return_point=points[1])
    np.testing.assert_allclose(pair, phi[0] - phi[1] / 2, atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sigma": np.ones((3, 24, 12, 12))},
            r"\(D, H, W\), \(D, H, W, 3\) or \(D, H, W, 6\); got \(3, 24, 12, 12\)",
        ),
        ({"sigma": -np.ones((24, 12, 12))}, "must be >= 0"),
        ({"sigma": np.full((24, 12, 12), np.nan)}, "finite"),
        ({"sigma": np.ones((24, 4, 12))}, "Fourier modes along H exceed what the grid"),
        ({"sigma": np.ones((24, 12, 12, 6))}, "3 components of sigma"),
        ({"sigma": "limb"}, "numbers are expected"),
        ({"spacing": [0.004, 0.004]}, "spacing must hold three"),
        ({"spacing": [0.0, 0.004, 0.004]}, "spacing must be positive"),
        ({"source_point": [0.01, 0.01]}, "source_point must have shape"),
        ({"source_point": [1.0, 0.01, 0.01]}, "source_point 0: .*outside"),
        ({"source_point": [0.1, 0.0001, 0.0001]}, "source_point 0.*lies in air"),
        ({"source_point": [np.nan, 0.0, 0.0]}, "not finite"),
        ({"current": [1e-3, 1e-3]}, "for each of 1 sources"),
        ({"current": np.inf}, "finite number of amperes"),
        ({"return_point": [[0.1, 0.04, 0.04]]}, "return_point must have the shape"),
        ({"sigma": "short"}, "does not reach the first and the last face"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_input_is_explained(shipped, body, change, message):
    names = ("sigma", "spacing", "source_point", "current")
    arguments = dict(zip(names, body, strict=True)) | change
    if isinstance(arguments["sigma"], str) and arguments["sigma"] == "short":
        arguments["sigma"] = body[0].copy()
        arguments["sigma"][-1] = 0
    with pytest.raises(ValueError, match=message):
        shipped[1].predict(**arguments)


@pytest.mark.slow
def test_what_cannot_be_shipped_is_refused(trained, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="another recipe"):
        shipping.ship([trained(), trained("seed=2", "training.epochs=1")], tmp_path)
    monkeypatch.setattr(shipping, "LARGEST", 1e3)
    with pytest.raises(ValueError, match="train a smaller model"):
        shipping.ship([trained()], tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="no model is shipped"):
        physics_hybrid.load_pretrained(folder=tmp_path)


@pytest.mark.skipif(not (FOLDER / f"{NAME}.mdlus").exists(), reason="no model is shipped yet")
def test_the_shipped_model_gives_its_pinned_numbers():
    model = physics_hybrid.load_pretrained()
    facts = json.loads((FOLDER / f"{NAME}.json").read_text())
    assert (FOLDER / f"{NAME}.mdlus").stat().st_size <= shipping.LARGEST
    assert facts["parameters"] <= 4e6
    for now, then in zip(
        shipping.pinned(model, facts["pinned"]), facts["pinned"]["expected"], strict=True
    ):
        assert now["relative_l2"] == pytest.approx(then["relative_l2"], rel=1e-3)
        for here, there in zip(now["volts"], then["volts"], strict=True):
            assert here[:3] == there[:3]
            assert here[3] == pytest.approx(there[3], abs=1e-4 * then["largest_volts"])
