"""What measures the door: figures that mean what their names say, on a limb of some voxels."""

import pytest

from physics_hybrid.problems.potential.evidence import door


def test_figures_of_the_door_are_right_and_stand_in_a_table(monkeypatch):
    monkeypatch.setattr(door, "ROUND", 2)
    monkeypatch.setattr(door, "ALONG", 2)
    monkeypatch.setattr(door, "TOLERANCES", (1e-2, 1e-6))
    found = door.measure((24, 12, 12), 40, head=16)
    lead = found["lead_field"]
    assert lead["electrodes"] == 4
    assert lead["error"] < 0.05
    assert lead["against_deposited"] < 1e-5
    assert lead["solved_against_solve"] < 1e-4
    assert all(row["error"] < 1e-4 for row in found["refine"] if row["tolerance"] == 1e-6)
    assert found["head"]["voxels"] == 4096
    text = door.tables(found)
    assert "| 4 electrodes at 24x12x12, s |" in text
    assert "from a field that is 8% off" in text


def test_a_wave_is_an_error_of_the_size_that_it_says():
    from physics_hybrid.problems.potential.door.body import Limb

    limb = Limb.random(0, (24, 12, 12))
    assert (door.wave(limb)[limb.tissue] ** 2).mean() == pytest.approx(1)
