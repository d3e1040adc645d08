"""Fields between grids, errors by wavelength, and the table that puts direct inference beside
interpolation.
"""

import argparse
import dataclasses
import json
import math

import pytest
import torch

from physics_hybrid.problems.potential.evidence import resolution_matrix as matrix
from physics_hybrid.problems.potential.resample import cosine, into_air, upsample
from physics_hybrid.problems.potential.wavelengths import by_wavelength, wavelength_names

ALL = torch.ones(1, 16, 12, 10, dtype=torch.bool)


def smooth(grid):
    """A field of cosines that both grids can tell."""
    x = [math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n for n in grid]
    return (
        1 + torch.cos(3 * x[0])[:, None, None] * torch.cos(2 * x[1])[:, None] * torch.cos(4 * x[2])
    )[None]


@pytest.mark.parametrize("grid", [(32, 24, 20), (27, 19, 21), (16, 12, 10), (8, 6, 9)])
def test_fourier_interpolation_is_exact_for_what_both_grids_can_tell(grid):
    torch.testing.assert_close(cosine(smooth((16, 12, 10)), ALL, grid), smooth(grid))


def test_interpolation_takes_nothing_from_air():
    tissue = ALL.clone()
    tissue[..., 5:] = False
    field = torch.where(tissue, 3.0, -100.0)
    assert torch.equal(into_air(field, tissue), torch.full_like(field, 3.0))
    fine = upsample(field, tissue, (32, 24, 20))
    assert torch.allclose(cosine(field, tissue, (32, 24, 20)), torch.tensor(3.0))
    assert torch.allclose(fine[..., :10], torch.tensor(3.0))


def test_wavelengths_are_found_in_metres_and_add_up():
    spacing = torch.tensor([[0.004, 0.004, 0.004]])
    # 8 voxels: 32 mm
    wave = torch.cos(2 * math.pi * torch.arange(16) * 2 / 16)[None, :, None, None].expand(
        1, 16, 12, 10
    )
    bands = by_wavelength(0.1 * wave, torch.ones(1, 16, 12, 10), ALL, spacing, [0.04, 0.02, 0.01])
    assert (
        list(bands)
        == wavelength_names([0.04, 0.02, 0.01])
        == ["40mm+", "20-40mm", "10-20mm", "0-10mm"]
    )
    assert bands["20-40mm"].item() == pytest.approx(0.1 / math.sqrt(2), rel=1e-5)
    assert bands["40mm+"].item() < 1e-6
    torch.manual_seed(0)
    error, truth, mask = (
        torch.randn(2, 9, 8, 7),
        torch.randn(2, 9, 8, 7),
        torch.rand(2, 9, 8, 7) > 0.3,
    )
    bands = by_wavelength(
        error,
        truth,
        mask,
        torch.tensor([[0.004, 0.003, 0.005], [0.002, 0.002, 0.002]]),
        [0.02, 0.01],
    )

    def norm(f):
        return torch.where(mask, f, 0.0).flatten(1).norm(dim=1)

    torch.testing.assert_close(sum(b**2 for b in bands.values()).sqrt(), norm(error) / norm(truth))


@pytest.mark.slow
def test_a_perfect_correction_is_carried_to_another_grid(stream, trained, monkeypatch):
    """With the truth for a prediction, interpolating the correction must come near it, and nearer
    than interpolating the potential.
    """
    from physics_hybrid.problem import Place
    from physics_hybrid.problems.potential.problem import PotentialRecipe
    from physics_hybrid.problems.potential.surrogate import Surrogate
    from physics_hybrid.run.load import load

    run = trained()
    model, config, _ = load(run)
    problem = PotentialRecipe(config).open(Place(torch.device("cpu")))
    coarse, fine = stream.batch([0]), dataclasses.replace(stream, grid=(48, 24, 24)).batch([0])
    monkeypatch.setattr(Surrogate, "__call__", lambda self, batch: batch.u)
    with torch.no_grad():
        phi, _ = matrix.contenders(problem, model, fine, coarse)
    error = {who: problem.metrics(p, fine)[0]["relative_l2"] for who, p in phi.items()}
    assert error["direct"] < 1e-6
    assert error["correction, trilinear"] < error["potential, trilinear"] < error["baseline"]
    assert all(not p[~fine.tissue].any() for p in phi.values())


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    runs = [
        trained(),
        trained("seed=1"),
        trained("data.grid=[20,16,16]"),
        trained("data.grids=[[16,12,12],[20,16,16]]"),
    ]
    result = matrix.run_matrix(
        runs, [(16, 12, 12), (20, 16, 16), (23, 17, 13)], 2, [0.032, 0.016], "cpu"
    )
    matrix.write(result, folder)
    return folder, result


@pytest.mark.slow
def test_every_run_is_measured_on_every_grid_against_every_contender(made, trained):
    folder, result = made
    cells = matrix.index(json.loads((folder / "resolution_matrix.json").read_text()))
    # three rows, three grids: direct and analytical; four interpolations and home where there is a
    # coarser training grid
    assert len(cells) == 3 * 3 * 2 + 5 * 4
    one = cells["16x12x12", "20x16x16", "direct"]["relative_l2"]
    assert len(one["seeds"]) == 2
    assert one["mean"] == pytest.approx(sum(one["seeds"]) / 2)
    assert one["std"] > 0
    assert cells["16x12x12 and 20x16x16", "20x16x16", "potential, Fourier"]["from"] == "16x12x12"
    # 20x16x16 is finer along W
    assert cells["16x12x12 and 20x16x16", "23x17x13", "potential, Fourier"]["from"] == "16x12x12"
    for cell in cells.values():
        assert sum(cell[f"wavelength/{b}"]["mean"] ** 2 for b in result["bands"]) == pytest.approx(
            cell["relative_l2"]["mean"] ** 2, rel=0.2
        )
    measured = json.loads((trained() / "evaluation/metrics.json").read_text())["16x12x12"][
        "relative_l2"
    ]["mean"]
    # the same test limbs
    assert cells["16x12x12", "16x12x12", "direct"]["relative_l2"]["seeds"][0] == pytest.approx(
        measured, rel=1e-5
    )
    text = (folder / "resolution_matrix.md").read_text()
    assert "beats all four interpolations" in text
    assert "| 16x12x12 and 20x16x16 | 23x17x13 | 16x12x12 |" in text
    assert " ± " in text
    assert (folder / "resolution_matrix.png").stat().st_size > 10_000


@pytest.mark.slow
def test_runs_that_cannot_be_compared_are_refused(trained):
    with pytest.raises(ValueError, match="other limbs than .*data.phantom.current"):
        matrix.run_matrix(
            [trained(), trained("data.phantom.current=0.002", "training.epochs=1")],
            [(16, 12, 12)],
            1,
            [0.032],
            "cpu",
        )
    with pytest.raises(ValueError, match="leave 4x4x4 out of --grids"):
        matrix.run_matrix([trained()], [(4, 4, 4)], 1, [0.032], "cpu")
    with pytest.raises(ValueError, match="must be positive and fall"):
        matrix.run_matrix([trained()], [(16, 12, 12)], 1, [0.01, 0.032], "cpu")


@pytest.mark.slow
def test_runs_of_another_recipe_are_another_row(trained):
    from physics_hybrid.run.load import load

    (_, first, _), (_, seed, _) = load(trained()), load(trained("seed=1"))
    assert matrix.recipe_beside(first, seed) == ""
    other = {
        **first,
        "model": {
            **first["model"],
            "baseline": {**first["model"]["baseline"], "kind": "coarse_solve"},
        },
    }
    assert matrix.recipe_beside(first, other) == " (kind=coarse_solve)"


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["sink", "robin"])
def test_interpolation_has_no_poles_where_the_potential_has_no_zero_of_its_own(trained, ends):
    result = matrix.run_matrix(
        [trained(f"problem.ends={ends}", "training.epochs=1")], [(20, 16, 16)], 2, [0.032], "cpu"
    )
    assert all(cell["relative_l2"]["mean"] < 1.5 for cell in result["cells"])
    assert len(result["cells"]) == 7


@pytest.mark.parametrize("text", ["48x24", "48x24xfew", "48x24x1", ""])
def test_a_wrong_grid_on_the_command_line_is_explained(text):
    with pytest.raises(argparse.ArgumentTypeError, match="grids are written as 48x24x24,96x48x48"):
        matrix.grids_of(text)
    assert matrix.grids_of("48x24x24,9x8x7") == [(48, 24, 24), (9, 8, 7)]


@pytest.mark.slow
def test_its_page_takes_table_and_figure(made, tmp_path):
    from physics_hybrid.problems.potential.evidence.pages import pictured

    text = pictured(
        made[0] / "resolution_matrix.json", "matrix", matrix.matrix_table, "caption", tmp_path
    )
    assert "| trained on |" in text
    assert "](resolution_matrix.png)" in text
    assert (tmp_path / "docs/resolution_matrix.png").exists()
