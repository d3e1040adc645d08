"""The tables of docs/flavour.md say what the runs of its studies say."""

from __future__ import annotations

import json

import pytest

from physics_hybrid.evidence.study import Study
from physics_hybrid.problems.flavour.evidence import times
from physics_hybrid.problems.flavour.evidence.pages import families, fresh, grid
from physics_hybrid.problems.flavour.predictor import SHIPPED

SETS = ("all", "random", "merger", "isotropic", "shallow", "stable")


def write(folder, cell, error, sets=SETS):
    """metrics.json of a run: Box3D is wrong by 0.2 everywhere."""
    one = {"error": error, "baseline_error": 0.2, "control_error": 0.15}
    laws = {"number": 2e-8, "lepton": 5e-8, "unphysical": 0.0}
    laws |= {f"control_{k}": v for k, v in (("number", 2e-4), ("lepton", 1e-4))}
    one |= laws | {"control_unphysical": 0.05}
    tables = {name: {k: {"mean": v, "max": v} for k, v in one.items()} for name in sets}
    about = {"seed": cell.seed, "commit": "b" * 40, "hardware": "a CPU", "torch": "2"}
    about |= {"date": "2026-01-01", "parameters": 22197, "samples": dict.fromkeys(sets, 400)}
    (folder / cell.name / "evaluation").mkdir(parents=True)
    (folder / cell.name / "evaluation" / "metrics.json").write_text(json.dumps(about | tables))


def test_the_table_by_family_has_spreads_over_seeds_and_what_is_conserved(tmp_path):
    cells = Study.read("flavour_families").cells(tmp_path)
    with pytest.raises(ValueError, match=r"18 of 18 runs of flavour_families are not finished"):
        families(tmp_path)
    for cell in cells:
        random = cell.arm == "random split"
        error = (0.1, 0.12, 0.14)[cell.seed] if random else 0.19
        write(tmp_path, cell, error, SETS if random else ("all",))
    text = families(tmp_path)
    row = "0.200 ± 0.000 | 0.150 ± 0.000 | 0.120 ± 0.020 | 0.600 ± 0.100 |"
    assert f"| merger, random split | {row}" in text
    assert "| merger, held out | 0.200 ± 0.000 | 0.150 ± 0.000 | 0.190 ± 0.000 |" in text
    assert "over seeds 0, 1, 2. a CPU, torch 2, commit bbbbbbbbbb" in text
    assert "number is off by 2e-08 of N_tot at most, lepton number by 5e-08" in text
    assert "and 0 states are unphysical" in text
    assert "5.0 % of its states are unphysical" in text


def test_the_table_of_the_grid_has_a_row_an_arm(tmp_path):
    for cell in Study.read("flavour_grid").cells(tmp_path):
        write(tmp_path, cell, 0.1 if cell.arm == "default" else 0.12)
    text = grid(tmp_path)
    assert "| default | 22 197 | 0.100 ± 0.000 | 0.500 ± 0.000 |" in text
    assert "| width 32 | 22 197 | 0.120 ± 0.000 |" in text


def test_the_table_of_fresh_states_has_a_row_a_family(tmp_path):
    cell = Study.read("flavour_grid").cells(tmp_path)[0]
    write(tmp_path, cell, 0.05)
    text = fresh(tmp_path / cell.name / "evaluation")
    assert "| shallow | 0.200 | 0.050 | 0.250 |" in text
    assert "over 400 states. a CPU, torch 2, commit bbbbbbbbbb" in text


@pytest.mark.slow
def test_every_contender_has_its_time_of_a_state(monkeypatch):
    monkeypatch.setattr(times, "BATCHES", (50,))
    found = times.measure(SHIPPED)
    for who in ("Box3D alone", "closure"):
        taken = found["microseconds"][who]["50"]
        assert taken > 0
        assert f"| {who} | {taken:.3g} |" in times.times_table(found)
