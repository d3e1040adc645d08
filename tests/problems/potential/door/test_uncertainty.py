"""Uncertain conductivities at the door: plain solves, exact laws, derivatives, files, mistakes."""

import h5py
import numpy as np
import pytest

import physics_hybrid as ph
from tests.problems.potential.uncertain.scenes import SKIN, SOURCE, layered

SPREAD = {"fat": ph.LogNormal(cv=0.4), "muscle": ph.Uniform(0.6, 1.8)}
VOLTAGE = ph.Voltage(SOURCE, SKIN)


def bar(first=3, second=6):
    """Two tissues one after the other along D."""
    labels = np.repeat([1, 2], [first, second])[:, None, None] * np.ones((1, 2, 2), dtype=int)
    sigma = np.where(labels == 1, 0.3, 0.05)
    return ph.Body(sigma, (0.012, 0.003, 0.005), labels=labels, names={1: "muscle", 2: "fat"})


@pytest.mark.exact
@pytest.mark.slow
def test_resistors_in_a_row_have_the_law_of_one_over_sigma():
    """V = I (a / sigma_1 + b / sigma_2): a sum, so that the indices are shares of variances."""
    body = bar()
    d, h, w = body.spacing
    area = 4 * h * w
    laws = {"muscle": ph.LogNormal(0.3, cv=0.5), "fat": ph.LogNormal(0.05, cv=0.1)}
    first, last = (ph.Patch((z, h, w), 0.004) for z in (0.5 * d, 8.5 * d))
    assert len(first.voxels(body)) == 4
    asked = ph.Voltage(first, first, 1e-3, returns=last, reference=last)
    found = ph.uncertainty(body, laws, asked, samples=300, tolerance=1e-3, progress=False)
    a, b = 1e-3 * 2.5 * d / area, 1e-3 * 5.5 * d / area
    sigma_1, sigma_2 = found.conductivities.T
    assert np.allclose(found.samples, a / sigma_1 + b / sigma_2, rtol=1e-5)
    # the variance of 1 / sigma of a lognormal
    pairs = zip((a, b), laws.values(), strict=True)
    parts = np.array([(k / law.centre * (1 + law.cv**2) * law.cv) ** 2 for k, law in pairs])
    assert np.abs(found.indices(4096).first - parts / parts.sum()).max() < 0.02
    assert np.allclose(found.sensitivity, [-a / 0.3**2, -b / 0.05**2], rtol=1e-6)


@pytest.fixture(scope="module")
def body():
    return layered()


@pytest.fixture(scope="module")
def found(body):
    """Of three voltages."""
    return ph.uncertainty(body, SPREAD, VOLTAGE, samples=100, progress=False)


@pytest.mark.slow
def test_intervals_and_seeds(body, found):
    again = ph.uncertainty(body, SPREAD, VOLTAGE, samples=2, method="plain", progress=False)
    other = ph.uncertainty(body, SPREAD, VOLTAGE, samples=2, seed=1, method="plain", progress=False)
    assert np.array_equal(found.conductivities[:2], again.conductivities)
    assert not np.array_equal(found.conductivities[:2], other.conductivities)
    low, high = found.interval(0.9)
    share = ((found.samples > low) & (found.samples < high)).mean(axis=0)
    assert np.allclose(share, 0.9, atol=0.01)
    lowest, highest = found.interval(0.9, certain=True)
    assert (lowest < low).all()
    assert (highest > high).all()
    assert np.abs(found.sobol.sum(axis=0) - 1).max() < 0.1
    for wrong in (0, 1, "wide", True):
        with pytest.raises(ValueError, match="level must lie in"):
            found.interval(wrong)
    with pytest.raises(ValueError, match="points must be a power of 2"):
        found.indices(100)
    for wrong in ([[0.1, -0.2]], [[0.1, np.inf]], np.zeros((0, 2)), [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="conductivities must be"):
            found.at(wrong)


@pytest.mark.slow
def test_a_picture_and_files(body, found, tmp_path):
    assert found.plot(tmp_path / "spread.png").stat().st_size > 10_000
    with np.load(found.save(tmp_path / "spread.npz")) as file:
        assert np.array_equal(file["samples"], found.samples)
        assert file["sobol"].shape == (2, 3)
        assert file["names"].tolist() == [b"fat", b"muscle"]
    with h5py.File(found.save(tmp_path / "spread.h5")) as file:
        assert np.array_equal(file["bound"][:], found.bound)
        assert file["unit"][()] == b"V"
    with pytest.raises(ValueError, match=r"uncertainties are written as .npz or .h5"):
        found.save(tmp_path / "spread.csv")
    plain = ph.uncertainty(body, SPREAD, VOLTAGE, samples=2, method="plain", progress=False)
    assert plain.plot(tmp_path / "plain.png").exists()
    assert plain.save(tmp_path / "plain.npz").exists()
    asks = (lambda: plain.sobol, lambda: plain.sensitivity, lambda: plain.interval(certain=True))
    for ask in asks:
        with pytest.raises(ValueError, match="method='reduced'"):
            ask()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"distribution": {"fatt": ph.LogNormal(cv=0.2)}}, "did you mean fat"),
        ({"distribution": {"brain": ph.LogNormal(cv=0.2)}}, "no tissue 'brain'.*skin, fat, muscle"),
        ({"distribution": {"fat": 0.3}}, r"distribution\['fat'\] must be a ph.LogNormal"),
        ({"distribution": {}}, "distribution must be {tissue"),
        ({"distribution": {"fat.along": ph.LogNormal(cv=0.2)}}, "conducts alike in all directions"),
        (
            {"distribution": {n: ph.LogNormal(cv=0.2) for n in ("muscle", "muscle.along")}},
            "as a whole, or its parts",
        ),
        ({"distribution": {"muscle.along": ph.LogNormal(cv=0.2)}}, "along and across vary apart"),
        ({"distribution": -0.2}, "cv must be > 0"),
        ({"quantity": "voltage"}, "quantity must be a ph.Voltage"),
        ({"samples": 1}, "samples must be a whole number >= 2"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"tolerance": 2}, "tolerance must lie in"),
        ({"method": "quick"}, "method must be 'reduced' or 'plain'"),
        ({"quantity": ph.Voltage((9, 9, 9), (0, 0, 0))}, "at = .* lies outside the box"),
        ({"quantity": ph.FieldAt(SOURCE, SOURCE, "B")}, "what must be"),
        ({"quantity": ph.Voltage(SOURCE, SKIN, reference=SKIN)}, "reference must be one place"),
        ({"samples": 10**13}, "fewer samples"),
        ({"quantity": ph.LeadFieldAt(SOURCE, (0, 0, 0))}, "points = .* lies in air"),
        ({"body": ph.Body(np.full((4, 4, 4), 0.3), (0.01,) * 3)}, "the body has no tissues"),
    ],
)
def test_what_is_wrong_is_said(body, change, says):
    asked = {
        "body": body,
        "distribution": SPREAD,
        "quantity": VOLTAGE,
    } | change
    with pytest.raises(ValueError, match=says):
        ph.uncertainty(**asked, progress=False)


def test_bodies_that_have_no_one_conductivity_a_tissue_are_refused():
    body = bar()
    sigma = body.sigma[0, 0].numpy().copy()
    sigma[0] *= 2
    asked = ph.Voltage((0.01, 0.003, 0.005), (0.02, 0.003, 0.005))
    mixed = ph.Body(sigma, body.spacing, labels=body.labels, names=body.names)
    with pytest.raises(ValueError, match="tissue 'muscle' conducts 0.3 to 0.6 S/m"):
        ph.uncertainty(mixed, 0.2, asked)
    oblique = np.zeros((*body.shape, 6))
    oblique[..., :3], oblique[..., 3] = 0.3, 0.1
    with pytest.raises(ValueError, match="off-diagonal"):
        ph.uncertainty(ph.Body(oblique, body.spacing, labels=body.labels), 0.2, asked)
    with pytest.raises(ValueError, match="labels must have the shape"):
        ph.uncertainty(ph.Body(sigma, body.spacing, labels=np.ones(3, dtype=int)), 0.2, asked)


def test_tissues_have_the_names_of_their_table(tmp_path):
    labels = np.zeros((12, 8, 8), dtype=np.uint8)
    labels[:, 1:-1, 1:-1], labels[:, 3:-3, 3:-3] = 7, 9
    np.save(tmp_path / "nerve.npy", labels)
    table = {"nerve": {"label": 9, "sigma": 0.3}, "sheath": {"label": 7, "sigma": 0.01}}
    body = ph.read_labels(
        tmp_path / "nerve.npy", {**table, "air": {"label": 0, "sigma": 0}}, spacing=(0.004,) * 3
    )
    assert body.names == {9: "nerve", 7: "sheath"}
    asked = ph.Voltage((0.02, 0.016, 0.016), (0.03, 0.016, 0.016))
    found = ph.uncertainty(body, {"sheath": ph.LogNormal(cv=0.3)}, asked, samples=20)
    assert found.names == ("sheath",)
    assert found.samples.shape == (20,)


def typed(capsys, *words, status=0):
    """What the verb prints, and on standard error."""
    from physics_hybrid.verbs import uncertainty

    left = 0
    try:
        uncertainty.main([str(word) for word in words])
    except SystemExit as error:
        left = error.code or 0
    said = capsys.readouterr()
    assert left == status, said.err
    return said.out, said.err


@pytest.fixture
def segmentation(body, tmp_path):
    """The layers as a file, and what follows its name on a command line."""
    np.save(tmp_path / "layers.npy", body.labels.astype(np.uint8))
    return [tmp_path / "layers.npy", "--spacing", *body.spacing, "--no-progress"]


@pytest.mark.slow
def test_the_verb_says_and_writes_what_python_gives(segmentation, tmp_path, capsys):
    config = tmp_path / "spread.yaml"
    config.write_text("vary: [[fat, lognormal, own, 0.3], [bone, uniform, 0.01, 0.04]]\n")
    words = [*segmentation, "--config", config, "--at", *SOURCE]
    for place in SKIN[:2]:
        words += ["--electrode", *place]
    out = tmp_path / "spread.npz"
    said, _ = typed(capsys, *words, "--samples", 12, "--out", out, "--figure", tmp_path / "a.png")
    assert "S(fat)" in said
    assert (tmp_path / "a.png").exists()
    body = ph.read_labels(tmp_path / "layers.npy", spacing=layered().spacing)
    laws = {"fat": ph.LogNormal(0.05, cv=0.3), "bone": ph.Uniform(0.01, 0.04)}
    asked = ph.Voltage(SOURCE, SKIN[:2])
    plain = ph.uncertainty(body, laws, asked, samples=2, method="plain", progress=False)
    with np.load(out) as file:
        off = np.abs(file["samples"][:2] - plain.samples)
        assert (off <= file["bound"][:2] + 1e-6 * plain.samples.max()).all()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "--vary TISSUE KIND NUMBERS, or --cv NUMBER, is needed"),
        (["--cv", "0.2", "--vary", "fat", "normal", "1", "0.1"], 2, "one of them"),
        (["--vary", "fat", "gauss", "1"], 2, "lognormal, normal, uniform, triangular is expected"),
        (["--vary", "fat", "uniform", "1"], 2, "--vary fat uniform takes LOW HIGH"),
        (["--vary", "fat", "uniform", "-1", "2"], 1, "Uniform: low must be > 0 S/m"),
        (["--vary", "fatt", "uniform", "1", "2"], 1, "did you mean fat"),
        (["--cv", "0.2", "--out", "a.csv"], 1, "written as .npz or .h5"),
        (["--cv", "0.2", "--point", "0", "0", "0"], 2, "--at and --electrode are needed"),
        (["--cv", "0.2", "--what", "J"], 2, "--what says nothing of a voltage"),
        (["--cv", "0.2", "--figure", "a.csv"], 1, "a picture is written as"),
    ],
)
def test_the_verb_says_what_is_wrong_in_a_line(segmentation, capsys, words, status, says):
    asked = ["--at", *SOURCE, "--electrode", *SKIN[0]]
    _, said = typed(capsys, *segmentation, *asked, *words, status=status)
    assert says in said
    assert len(said.strip().splitlines()) == 1
