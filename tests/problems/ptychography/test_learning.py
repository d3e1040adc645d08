"""Ptychography behind the seam: it trains, is tested beside ePIE, and takes a user's scan."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.conftest import ROOT

#: One small object, few steps.
QUICK = [
    "experiment=ptychography",
    "run=x",
    "tracker=none",
    "training.threads=1",
    "training.device=cpu",
    "training.epochs=2",
    "training.figures_every=100",
    "evaluation.epie_iterations=5",
]
SCANS = ["data.frame=16", "data.size=48", "data.lines=40", "data.radius=4", "data.step=4"]
NETWORK = ["model.backbone.width=4", "model.backbone.depth=2", "model.backbone.modes=[3,3]"]


def composed(*overrides: str) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("config", overrides=[*QUICK, *overrides])
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def configured(*overrides: str) -> dict:
    return composed(*SCANS, *NETWORK, *overrides)


def opened(*overrides: str):
    from physics_hybrid.problem import Place
    from physics_hybrid.run.load import recipe_of

    recipe = recipe_of(configured(*overrides))
    return recipe, recipe.open(Place(torch.device("cpu")))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from physics_hybrid.run.train import train

    folder = tmp_path_factory.mktemp("ptychography")
    return train(configured(f"runs_folder={folder}", "run=tiny", "training.epochs=6"))


def test_it_learns_and_its_table_and_picture_have_truth_network_and_epie(run):
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    misfits = [record["validation/misfit"] for record in records]
    assert misfits[-1] < 0.9 * misfits[0]
    lines = json.loads((run / "evaluation/metrics.json").read_text())["lines"]
    assert lines["misfit"]["mean"] < 0.97 * lines["blank_misfit"]["mean"]
    assert lines["epie_amplitude_mae"]["mean"] < lines["blank_amplitude_mae"]["mean"]
    for metric in ("phase_mae", "phase_ssim", "amplitude_psnr", "seconds"):
        assert all(f"{who}{metric}" in lines for who in ("", "epie_", "blank_"))
    report = (run / "evaluation/report.md").read_text()
    assert "| lines | ePIE |" in report
    assert (run / "evaluation/objects_test-0.png").stat().st_size > 10_000


def test_it_loads_and_makes_the_same_object(run):
    from physics_hybrid.run.load import load, recipe_of

    model, config, _ = load(run)
    recipe = recipe_of(config)
    _, problem = opened()
    found = recipe.predictor(model.eval())(problem.scans[0])
    assert torch.equal(found, problem.predict(model, problem.scans[0]).object)
    assert recipe.statistics_of(model) == problem.statistics()


@pytest.mark.parametrize(
    ("model", "words"),
    [("fno2d", NETWORK), ("unet2d", ["model.backbone.width=4", "model.backbone.levels=1"])],
)
def test_other_networks_start_as_an_empty_object(model, words):
    from physics_hybrid.problem import Place
    from physics_hybrid.run.load import recipe_of

    recipe = recipe_of(composed(f"model={model}", *words, *SCANS))
    problem = recipe.open(Place(torch.device("cpu")))
    network = recipe.build_model(problem.statistics())
    problem.check_model(network)
    patch = network(problem.frames["validation"].amplitude)
    assert torch.allclose(patch, torch.ones_like(patch))
    loss, _ = problem.loss(network, next(problem.train_batches(0, 0)))
    loss.backward()
    assert any(p.grad.abs().sum() > 0 for p in network.parameters())


def test_an_object_without_a_phase_has_no_phase_columns():
    recipe, problem = opened("data.set_phase=false")
    assert not any("phase" in name for name, _ in problem.columns)
    network = recipe.build_model(problem.statistics())
    found = problem.predict(network, problem.scans[0])
    assert not found.object.imag.any()
    tests = problem.test_sets()[0]
    row = tests.measure({"": found}, problem.scans[0])[""][0]
    assert "amplitude_mae" in row
    assert "phase_mae" not in row


@pytest.mark.slow
def test_a_scan_of_ones_own_is_trained_on_and_reconstructed_without_a_truth(tmp_path):
    from physics_hybrid.problems.ptychography.problem import PtychographyRecipe

    _, problem = opened()
    scan = problem.scans[0]
    content = {"diffraction": scan.amplitude, "probe": scan.probe, "positions": scan.positions}
    np.savez(tmp_path / "scan.npz", **{key: value.numpy() for key, value in content.items()})
    recipe, own = opened(f"data.path={tmp_path}/scan.npz")
    assert isinstance(recipe, PtychographyRecipe)
    assert [name for name, _ in own.columns] == ["misfit", "seconds"]
    assert sum(len(part) for part in own.splits().values()) == len(scan.amplitude)
    assert own.splits()["train"][0][0] == "scan.npz[0]"
    tests = own.test_sets()[0]
    network = recipe.build_model(own.statistics())
    predictions = {"": own.predict(network, own.scans[0]), **tests.rivals(network, scan, None)}
    rows = tests.measure(predictions, own.scans[0])
    assert rows["epie_"][0]["misfit"] < rows["blank_"][0]["misfit"]
    assert tests.picture(network, 0, rows[""][0], tmp_path).exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data=flavour", "problem=ptychography does not know data.axes"),
        ("model=fno", "problem=ptychography does not know model.baseline"),
    ],
)
def test_groups_of_another_problem_are_refused(word, message):
    from physics_hybrid.run.load import recipe_of

    with pytest.raises(ValueError, match=message):
        recipe_of(composed(word))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.mae.weight=0"], "nothing is left"),
        (["data.validation=1.0"], r"data.validation must lie in \(0, 1\)"),
        (["data.path=a.npz", "data.measured=counts"], "data.measured must be amplitude or inten"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        opened(*words)


def test_frames_too_small_for_the_modes_are_refused_before_training():
    recipe, problem = opened("model.backbone.modes=[9,9]")
    with pytest.raises(ValueError, match=r"9 Fourier modes along H exceed .* \(16, 16\)"):
        problem.check_model(recipe.build_model(problem.statistics()))
