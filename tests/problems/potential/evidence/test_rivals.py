"""Rivals are put on one scale: the same matrix, the same right-hand side, the same error; nothing
here is held to a time.
"""

import json

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import spsolve

from physics_hybrid.problems.potential.evidence import rivals
from physics_hybrid.problems.potential.evidence.pages import pictured
from physics_hybrid.problems.potential.evidence.rivals_cylinder import Known, on_surfaces
from physics_hybrid.problems.potential.evidence.rivals_matrix import (
    matrix_of,
    python_with_petsc,
    solve_by_hypre,
)
from physics_hybrid.problems.potential.evidence.rivals_report import (
    cylinder_verdict,
    networks_table,
    tables,
    verdict,
)
from physics_hybrid.problems.potential.evidence.rivals_voxels import (
    ELEMENTS,
    GOALS,
    OURS,
    OURS_TOGETHER,
    PYAMG,
    Limb,
    Rung,
    as_rows,
    to_goals,
)
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from tests.conftest import ROOT

TOLERANCES = [1e-1, 1e-2, 1e-4, 1e-6, 1e-8]


def body(ends="grounded", shape=(7, 5, 6)):
    """Random tissue with air round a column."""
    torch.manual_seed(0)
    sigma = torch.rand(1, 3, *shape, dtype=torch.float64) + 0.05
    sigma[:, :, :, 0], sigma[:, :, :3, 1] = 0, 0
    return Conductor(sigma, torch.tensor([[0.004, 0.003, 0.002]], dtype=torch.float64), ends)


@pytest.mark.parametrize("ends", [Ends("grounded"), Ends("robin", 20.0)])
def test_the_matrix_in_rows_is_the_operator(ends):
    operator = FluxOperator.of(body(ends))
    A, tissue = matrix_of(operator), operator.diagonal > 0
    phi = torch.rand(1, *operator.shape, dtype=torch.float64) * tissue
    assert torch.from_numpy(A @ phi[tissue].numpy()).allclose(operator(phi)[tissue], rtol=1e-12)
    assert abs(A - A.T).max() == 0
    assert A.has_sorted_indices
    assert np.linalg.eigvalsh(A.toarray()).min() > 0  # the ends let the current out


@pytest.mark.slow
def test_hypre_solves_our_matrix_in_a_program_of_its_own():
    python = python_with_petsc()
    if python is None:
        pytest.skip("no Python here has petsc4py")
    A = matrix_of(FluxOperator.of(body()))
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    exact = spsolve(A.tocsc(), b)
    found = solve_by_hypre(python, A, b, [1e-2, 1e-10], repeats=1)
    assert found.x.shape == (len(found.names), 2, len(b))
    for loose, tight in found.x:
        assert np.linalg.norm(b - A @ loose) <= 1e-2 * np.linalg.norm(b)
        assert np.linalg.norm(tight - exact) <= 1e-8 * np.linalg.norm(exact)
    assert (found.iterations[:, 0] < found.iterations[:, 1]).all()
    assert (found.setup > 0).all()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bench of one small limb, with a network that an older commit trained."""
    plan = rivals.Plan(
        checkpoints=[ROOT / "tests/frozen/run"],
        overrides=[],
        grids=[(12, 10, 10)],
        limbs=1,
        tolerances=TOLERANCES,
        repeats=1,
        spacings=[0.008],
        element_spacings=[0.008],
        meshes={},
    )
    *_, result = rivals.run_bench(plan)
    folder = tmp_path_factory.mktemp("bench")
    rivals.write(result, folder)
    return folder, result


@pytest.mark.slow
def test_every_solver_comes_to_both_goals_on_the_same_limb(made):
    folder, result = made
    assert json.loads((folder / "bench.json").read_text()) == json.loads(json.dumps(result))
    (grid,) = result["grids"]
    solvers = {row["solver"] for row in grid["rows"]}
    assert {OURS, OURS_TOGETHER, ELEMENTS, *PYAMG} <= solvers
    assert len(solvers) == 5 + 2 * (python_with_petsc() is not None)
    for solver in solvers:
        rows = [row for row in grid["rows"] if row["solver"] == solver]
        # an error of the same size as the residual, whoever solves
        assert all(row["error"] < 3 * row["tolerance"] for row in rows)
        assert rows[-1]["error"] <= min(GOALS) < rows[-2]["error"]
        assert all(min(row["setup"], row["source"], row["solve"]) > 0 for row in rows)
    assert all("solve" in row for row in grid["goals"])
    assert (folder / "bench.png").stat().st_size > 10_000


def test_what_a_network_is_worth_is_counted_against_every_solver(made):
    (network,) = made[1]["networks"]
    log = (ROOT / "tests/frozen/run/log.jsonl").read_text().splitlines()
    assert network["training_seconds"] == json.loads(log[-1])["seconds"]
    assert {row["solver"] for row in network["against"]} == {
        row["solver"] for row in made[1]["grids"][0]["rows"]
    }
    for row in network["against"]:
        assert row["error"] <= network["error"]
        saved = row["seconds"] - network["seconds"]
        if saved <= 0:
            assert row["pays_after"] is None
            continue
        expected = network["training_seconds"] / saved
        assert row["pays_after"] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_its_page_takes_table_and_figure(made, tmp_path):
    text = pictured(made[0] / "bench.json", "bench", tables, "caption", tmp_path)
    assert f"| {OURS} | 1 % |" in text
    assert (tmp_path / "docs/bench.png").exists()


def rung(solver, tolerance, error, setup, solve):
    return Rung(solver, tolerance, error, 1, setup, 0.0, solve)


def test_a_goal_takes_the_loosest_tolerance_of_every_limb():
    easy = [rung("a", 1e-1, 5e-3, 1.0, 2.0), rung("a", 1e-2, 1e-7, 1.0, 9.0)]
    hard = [rung("a", 1e-1, 5e-2, 1.0, 2.0), rung("a", 1e-2, 1e-3, 1.0, 4.0)]
    to_percent, to_millionth = to_goals([easy, hard])
    assert (to_percent["solve"], to_percent["tolerance"]) == (3.0, 1e-2)
    assert to_percent["largest_error"] == 5e-3
    assert "solve" not in to_millionth  # the hard limb does not get there
    assert [row["error"] for row in as_rows([easy, hard])] == pytest.approx([0.0275, 5.0005e-4])


def test_a_rival_that_is_faster_is_said_to_be():
    limb = [
        rung(OURS, 1e-2, 1e-3, 1.0, 4.0),
        rung(OURS, 1e-7, 1e-7, 1.0, 8.0),
        rung("theirs", 1e-2, 1e-3, 5.0, 2.0),
        rung("theirs", 1e-7, 1e-7, 5.0, 3.0),
        rung(OURS_TOGETHER, 1e-2, 1e-3, 0.1, 0.1),  # is ours, too
    ]
    said = verdict({"grid": "G", "goals": to_goals([limb])}).splitlines()
    assert said == [
        "- G, to 1 %, setup counted: ours is the fastest.",
        "- G, to 1 %, setup not counted: faster than ours: theirs (2.0 times).",
        "- G, to 1e-06, setup counted: faster than ours: theirs (1.1 times).",
        "- G, to 1e-06, setup not counted: faster than ours: theirs (2.7 times).",
    ]


def test_a_mesh_that_is_closer_and_faster_is_said_to_be():
    def row(method, error, mesh, solve):
        return {
            "method": method,
            "size": 0.002,
            "error": error,
            "mesh": mesh,
            "setup": 0.0,
            "solve": solve,
        }

    rows = [row(OURS, 0.03, 0.0, 1.0), row(OURS, 0.01, 0.0, 4.0), row("theirs", 2e-3, 5.0, 2.0)]
    assert cylinder_verdict(rows).splitlines() == [
        "- Closer than our best (0.01 at 2 mm) and faster, mesh counted: nobody.",
        "- Closer than our best (0.01 at 2 mm) and faster, mesh not counted: theirs at 2 mm.",
        "- Closest of all: theirs, 0.002.",
    ]


def test_a_training_that_saves_nothing_never_pays():
    rows = [
        {"solver": "s", "tolerance": t, "error": e, "setup": 0.5, "source": 0.1, "solve": seconds}
        for t, e, seconds in ((1e-1, 0.2, 0.1), (1e-2, 0.04, 0.3), (1e-3, 1e-3, 0.9))
    ]
    network = {"name": "n", "grid": "G", "error": 0.05, "seconds": 0.5, "training_seconds": 100.0}
    (row,) = rivals.against(network, rows)
    assert row["tolerance"] == 1e-2
    assert row["pays_after"] == pytest.approx(250)  # 100 s / (0.9 s - 0.5 s)
    assert row["pays_after_without_setup"] is None
    cells = networks_table([{**network, "against": [row]}]).splitlines()[-1].split(" | ")
    assert (cells[8], cells[10].rstrip(" |")) == ("250", "never")


def test_missing_libraries_are_a_line_and_no_row(monkeypatch, capsys):
    monkeypatch.setattr(rivals, "has_ngsolve", lambda: False)
    plan = rivals.Plan(
        checkpoints=[],
        overrides=[],
        grids=[],
        limbs=1,
        tolerances=TOLERANCES,
        repeats=1,
        spacings=[],
        element_spacings=[],
        meshes={2: [0.02]},
    )
    assert [result["cylinder"] for result in rivals.run_bench(plan)] == [[]]
    assert capsys.readouterr().err == f"{rivals.NO_NGSOLVE}\n"
    with pytest.raises(ValueError, match="--limbs must be at least 1; got 0"):
        rivals.Plan(**{**vars(plan), "limbs": 0})


def test_a_matrix_without_a_way_out_is_refused():
    source = PointSource(torch.tensor([[0.01, 0.01, 0.005]]), torch.tensor([1e-3]))
    with pytest.raises(ValueError, match=r"set problem\.ends=grounded"):
        Limb.of(body("sink"), source)


@pytest.mark.exact
def test_the_exact_cylinder_is_compared_beyond_ten_millimetres():
    known = Known.at(0.008)
    assert known.error(known.posed.exact) == 0
    electrode = known.posed.source.point[0].numpy() - [0, 0.04, 0.04]
    away = np.linalg.norm(known.points - electrode, axis=1)
    assert away.min() > 0.010
    assert known.error(1.1 * known.posed.exact[known.where]) == pytest.approx(0.1)


@pytest.mark.exact
@pytest.mark.slow
def test_a_mesh_that_follows_the_surfaces_meets_the_series():
    pytest.importorskip("ngsolve")
    (row,) = on_surfaces({2: [0.03]}, compared=0.008, repeats=1)
    assert row.error < 0.006
    assert min(row.mesh, row.setup, row.solve) > 0
