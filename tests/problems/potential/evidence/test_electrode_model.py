"""What measures electrodes: figures that mean what their names say, on a limb of some voxels."""

import pytest

from physics_hybrid.problems.potential.evidence import electrode_model


@pytest.mark.slow
def test_figures_of_electrodes_are_right_and_stand_in_a_table(monkeypatch, tmp_path):
    for name, value in {"RADII": (2.5,), "STRIPS": (5.3,), "SPLITS": (1,), "SMALL": (1.2,)}.items():
        monkeypatch.setattr(electrode_model, name, value)
    small = {
        "NARROWEST": 16,
        "TIMES": 1,
        "MANY": 2,
        "APART": 12,
        "LAYER": 24,
        "LONG": 48,
        "RADIUS": 0.012,
    }
    for name, value in small.items():
        monkeypatch.setattr(electrode_model, name, value)
    found = electrode_model.measure((24, 12, 12), 1)
    (disk,) = found["disk"]
    assert abs(disk["errors"][0]) < 0.05 < disk["without_edges"][0]
    assert abs(found["driving"][0]["error"]) < 0.01
    assert found["shunting"][0]["field"] < 0.001
    assert found["limb"]["delivered"] < 1e-10
    assert found["limb"]["least_eigenvalue"] > 0
    assert found["limb"]["pair_seconds"] > 0
    text = electrode_model.tables(found)
    assert f"| 2.5 | {abs(disk['errors'][0]):.2%} |" in text
    electrode_model.draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
