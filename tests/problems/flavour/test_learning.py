"""The flavour problem behind the seam, on the shipped set."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from physics_hybrid.problems.flavour.data.files import Layout, read, write
from physics_hybrid.problems.flavour.metrics import Metrics, equipartition
from physics_hybrid.problems.flavour.physics.sphere import product
from physics_hybrid.problems.flavour.problem import SHIPPED
from tests.conftest import ROOT
from tests.problems.flavour.states import random_states

TINY = [
    "experiment=flavour",
    "tracker=none",
    "training.threads=1",
    "training.device=cpu",
    "training.epochs=1",
    "training.figures_every=100",
    "evaluation.control.epochs=1",
    "problem.quadrature.polar=8",
    "problem.quadrature.azimuth=4",
]


def configured(*overrides: str) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("config", overrides=[*TINY, *overrides])
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def small(path, samples: int = 50):
    """The first samples of the shipped set."""
    states = read(SHIPPED, Layout(families="dirname")).rows(range(samples))
    arrays = {"F_init": states.before.numpy(), "F_true": states.after.numpy()}
    write(path, {**arrays, "dirname": list(states.families), "sim_id": list(states.names)}, {})
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from physics_hybrid.run.train import train

    folder = tmp_path_factory.mktemp("flavour")
    path = small(folder / "set.h5")
    with pytest.MonkeyPatch.context() as quick:  # one picture of its kind is drawn elsewhere
        quick.setattr("physics_hybrid.problems.flavour.figures.angles", blank)
        return train(configured(f"data.path={path}", f"runs_folder={folder}", "run=tiny"))


def blank(sample, F, path, title):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_the_shipped_set_is_whole_and_says_where_it_comes_from():
    import h5py

    states = read(SHIPPED, Layout(families="dirname"))
    counts = {family: states.families.count(family) for family in set(states.families)}
    assert set(counts) == {"random", "merger", "isotropic", "shallow", "stable"}
    assert len(set(counts.values())) == 1
    assert len(states) == 2000
    change = (states.after - states.before).double()
    assert change[..., 3].sum(dim=1).abs().max() < 1e-6
    assert (change[:, :3, 3] - change[:, 3:, 3]).abs().max() < 1e-6
    with h5py.File(SHIPPED) as file:
        assert "precision=float32" in file.attrs["box"]
        assert file["drift"][()].max() < 1e-3


def test_it_trains_and_its_table_has_every_row(run):
    metrics = json.loads((run / "evaluation/metrics.json").read_text())
    assert set(metrics["samples"]) == {"all", "random", "merger", "isotropic", "shallow", "stable"}
    report = (run / "evaluation/report.md").read_text()
    for who in ("no change", "equipartition", "Box3D alone", "MLP (control)", "equivariant"):
        assert f"| merger | {who} |" in report
    assert "## Error over that of Box3D" in report
    assert metrics["random"]["unchanged_error"]["mean"] == 1
    for law in ("number", "lepton", "unphysical"):
        assert metrics["all"][law]["max"] < 1e-6
    assert metrics["all"]["control_lepton"]["mean"] > 1e-4
    assert metrics["stable"]["error"]["max"] < 1e-3
    assert (run / "evaluation/errors_by_crossing.png").exists()
    assert (run / "evaluation/angles_all.png").exists()


def test_a_run_is_inspected_and_loads_as_a_closure(run, capsys):
    from physics_hybrid.problems.flavour.predictor import Predictor
    from physics_hybrid.verbs.inspect import main

    main([str(run), "--split", "validation", "--count", "5"])
    text = capsys.readouterr().out
    assert "samples 0 to 4" in text
    assert "| loss, density |" in text
    assert "| flux factor, predicted, max |" in text
    with pytest.raises(SystemExit):
        main([str(run), "--split", "nothing"])
    assert "--split must be one of train, validation, test" in capsys.readouterr().err
    after = Predictor.load(run / "best")(random_states(3).numpy())
    assert np.isfinite(after).all()


def test_states_without_a_crossing_are_tested_without_a_figure_of_depth(tmp_path):
    from physics_hybrid.problem import Place
    from physics_hybrid.run.evaluate import evaluate
    from physics_hybrid.run.load import recipe_of

    options = ["run=x", "data.hold_out=stable", "evaluation.control.epochs=0"]
    recipe = recipe_of(configured(*options, f"data.path={small(tmp_path / 'set.h5')}"))
    problem = recipe.open(Place(torch.device("cpu")))
    result = evaluate(problem, recipe.build_model(problem.statistics()), tmp_path, {})
    assert list(result.figures) == ["slices_all"]
    assert result.tables["all"]["error"] == result.tables["all"]["baseline_error"]


def test_angular_distributions_are_drawn(tmp_path):
    from physics_hybrid.problems.flavour import figures

    states = read(SHIPPED, Layout(families="dirname")).rows([0])
    path = figures.angles(states, states.after, tmp_path / "angles.png", "a state")
    assert path.stat().st_size > 10_000


def test_metrics_of_known_errors():
    F = random_states(4, alike=True).float()
    after = equipartition(F)
    from physics_hybrid.problems.flavour.data.states import States

    batch = States.of(F.double(), after.double(), list("abcd"), ["f"] * 4)
    metrics = Metrics(0.01, product(8, 4))
    right, unchanged = metrics(batch.after, batch), metrics(batch.before, batch)
    assert all(row["error"] == 0 and row["growth"] < 1e-6 for row in right)
    assert all(row["error"] == pytest.approx(1) and row["growth"] > 0.99 for row in unchanged)
    wrong = batch.after.clone()
    wrong[:, 0, 3] += 0.5
    rows = metrics(wrong, batch)
    assert all(row["over_number"] == pytest.approx(0.5) for row in rows)
    assert all(row["number"] > 0.49 for row in rows)
    outside = batch.after.clone()
    outside[0, 2, :3] = 1.0
    assert [row["unphysical"] for row in metrics(outside, batch)] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.hold_out=merging"], "data.hold_out must be one of isotropic, merger"),
        (["model.target_scale=0"], "model.target_scale must be p99 or a number > 0; got 0"),
        (["data=emu"], r"data=emu needs data.path=FILE.h5"),
        (["loss=default"], "problem=flavour does not know loss"),
        (["problem.quadrature.kind=gauss"], "problem.quadrature.kind must be product or lebedev"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, message, tmp_path):
    from physics_hybrid.problem import Place
    from physics_hybrid.run.load import recipe_of

    with pytest.raises(ValueError, match=message):
        recipe_of(configured("run=x", *overrides)).open(Place(torch.device("cpu")))


def test_a_generation_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    from physics_hybrid.problems.flavour.data import generate as made
    from physics_hybrid.problems.flavour.physics.simulation import Box

    monkeypatch.setattr(made, "PART", 2)
    box = Box(length=8.0, cells=8, polar=4, azimuth=2, shortest=2.0, longest=2.0)
    parts = made.generate(4, tmp_path / "parts", box, fused=False)
    first = {path: dict(np.load(path)) for path in parts}
    parts[1].unlink()
    shutil.copy(parts[0], tmp_path / "kept.npz")
    again = made.generate(4, tmp_path / "parts", box, fused=False)
    assert again == parts
    for path in parts:
        for key, values in np.load(path).items():
            np.testing.assert_array_equal(values, first[path][key])
    with pytest.raises(ValueError, match="holds parts of another set"):
        made.generate(4, tmp_path / "parts", Box(cells=16), fused=False)
    made.write_set(parts, tmp_path / "set.h5", box, 0)
    axes = ("samples", "species", "components")
    states = read(tmp_path / "set.h5", Layout(axes=axes, families="dirname"))
    assert states.families == ("random", "merger", "isotropic", "shallow")


def test_a_model_without_its_run_is_tested_as_the_flavour_closure(tmp_path, monkeypatch, capsys):
    """A lone .mdlus file says by its class which problem it is of."""
    from physics_hybrid.evidence import bench
    from physics_hybrid.run.evaluate import evaluate_checkpoint

    model = shutil.copy(SHIPPED.parent.parent / "pretrained" / "flavour.mdlus", tmp_path / "lone")
    model = model.rename(tmp_path / "lone.mdlus")
    path = small(tmp_path / "set.h5")
    monkeypatch.setattr("physics_hybrid.problems.flavour.figures.angles", blank)
    monkeypatch.setattr(
        bench, "configuration", lambda words: configured(*words, "run=x", f"data.path={path}")
    )
    options = {"device": "cpu", "checkpoint": str(model), "reference": None, "split": "all"}
    options |= {"output": str(tmp_path / "out"), "batch_size": None}
    options |= {"tracker": {"_target_": "physics_hybrid.training.tracker.Tracker"}}
    evaluate_checkpoint(options, bench.configuration_for)
    said = capsys.readouterr()
    assert "| merger | equivariant |" in said.out
    assert "not known which samples this model was trained on" in said.out
    assert "are those of conf/ for FlavourRecipe" in said.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["all"]["error"]["mean"] < 0.8 * metrics["all"]["baseline_error"]["mean"]


def test_a_model_of_another_problem_is_no_potential():
    from physics_hybrid.models.model_files import load_model
    from physics_hybrid.problems.potential.problem import PotentialRecipe

    class Bare(PotentialRecipe):
        def __post_init__(self) -> None: ...

    model = load_model(SHIPPED.parent.parent / "pretrained" / "flavour.mdlus")
    with pytest.raises(ValueError, match="FlavourEquivariant is no model of the potential"):
        Bare({}).for_evaluation({"split": "test"}, model)
