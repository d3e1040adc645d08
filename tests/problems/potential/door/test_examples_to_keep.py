"""The examples of docs/examples, at a small size: the physics that each claims, and a figure."""

import runpy

import numpy as np
import pytest
from matplotlib.image import imread

from tests.conftest import ROOT

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


def loaded(name):
    return runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))


def drawn(path):
    assert imread(path)[..., :3].std() > 0.02


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_has_its_figure_in_the_docs(path):
    assert len(path.read_text().splitlines()) < 120
    assert path.with_suffix(".png").exists()
    pages = [(ROOT / "docs" / page).read_text() for page in ("use_it.md", "anisotropy.md")]
    assert any(path.name in page for page in pages)


def test_surface_emg_is_that_of_the_layered_cylinder(tmp_path):
    example = loaded("surface_emg")
    small = {"HEIGHTS": np.array([0.04, 0.06]), "ANGLES": np.array([0.1, 0.0])}
    small |= {"FIBRES": [(0.0145, 0.0)], "MODES": (60, 20)}
    example["main"].__globals__.update(small)
    found = example["main"](0.002, tmp_path / "emg.png")
    assert found["error"] < 0.12
    example["animate"](np.random.default_rng(0).normal(size=(9, 2, 2)), tmp_path / "emg.gif")
    # what a fibre gives and takes adds up to nothing, at any time
    z, times = np.arange(0.015, 0.095, 0.5e-3), np.arange(0, 0.016, 1e-3)
    current = example["currents"](z, times)
    assert np.abs(current.sum(axis=1)).max() < 1e-9 * np.abs(current).sum(axis=1).max()
    drawn(tmp_path / "emg.png")
    assert (tmp_path / "emg.gif").stat().st_size > 1000


def test_bioimpedance_has_the_sensitivity_that_geselowitz_says(tmp_path):
    found = loaded("bioimpedance")["main"]((24, 12, 12), tmp_path / "z.png")
    assert found["Z"] > 0
    assert found["predicted"] == pytest.approx(found["found"], rel=0.06)
    drawn(tmp_path / "z.png")


def test_tdcs_on_spheres_comes_near_the_series(tmp_path):
    found = loaded("tdcs_spheres")["main"](0.006, tmp_path / "tdcs.png", places=4)
    assert found["error"] < 0.3
    assert found["volts"] > 0
    drawn(tmp_path / "tdcs.png")


@pytest.mark.slow
def test_fibres_along_muscles_and_by_diffusion_come_near_the_truth(tmp_path):
    found = loaded("fibres")["main"](0.005, tmp_path / "fibres.png")
    assert found["along D"]["degrees"] > 13
    assert found["own axes"]["degrees"] < 1
    assert found["diffusion"]["degrees"] < 6
    assert found["along D"]["error"] > 0.08
    assert found["own axes"]["error"] < 0.01
    assert found["diffusion"]["error"] < 0.04
    drawn(tmp_path / "fibres.png")
