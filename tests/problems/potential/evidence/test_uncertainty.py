"""What measures uncertain conductivities: figures that mean what their names say, and a picture."""

import pytest

from physics_hybrid.problems.potential.evidence import door, uncertainty


@pytest.mark.slow
def test_figures_are_right_and_stand_in_a_table(monkeypatch, tmp_path):
    monkeypatch.setattr(door, "ROUND", 2)
    monkeypatch.setattr(door, "ALONG", 1)
    monkeypatch.setattr(uncertainty, "DIPOLES", 1)
    few = {name: uncertainty.SPREAD[name] for name in ("muscle.along", "fat")}
    monkeypatch.setattr(uncertainty, "SPREAD", few)
    monkeypatch.setattr(uncertainty, "INDEPENDENT", 2)
    found = uncertainty.measure((16, 8, 8), 8, 2, tmp_path / "u.png")
    voltages, lead = found["voltages"], found["lead_fields"]
    assert voltages["values"] == lead["values"] == 2
    for part in (voltages, lead):
        assert part["broken"] == 0
        assert part["worst_bound_over_sd"] <= 0.0101
        assert 0.7 < sum(part["sobol"].values()) < 1.3
    # quantiles between the 8 samples leave the two outermost out
    assert found["coverage"]["same"]["mean"] == pytest.approx(6 / 8)
    assert (tmp_path / "u.png").stat().st_size > 10_000
    text = uncertainty.tables(found)
    assert "| errors above their bound | 0 | 0 |" in text
    assert "| plain samples at the same conductivities | 75.0% | 75.0% | 75.0% |" in text
