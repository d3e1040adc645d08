"""Burgers behind the seam: trained for seconds, tested beside its rivals, refused elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from physics_hybrid.problem import Place
from tests.conftest import ROOT
from tests.problems.burgers.files import write_pdebench

TINY = [
    "experiment=burgers",
    "tracker=none",
    "training.device=cpu",
    "training.epochs=10",
    "training.warmup_steps=3",
    "training.learning_rate=0.005",
    "training.validate_every=5",
    "data.train=32",
    "data.validation=4",
    "data.test=4",
    "data.batch_size=8",
    "data.frames=8",
    "data.initial_step=4",
    "data.cells=32",
    "model.cells=16",
    "model.backbone.width=8",
    "evaluation.steppers=[16,32,64]",
]


def configured(*overrides: str) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    named = {word.split("=")[0] for word in overrides}
    words = [word for word in TINY if word.split("=")[0] not in named] + list(overrides)
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("config", overrides=words)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def recipe(*overrides: str):
    from physics_hybrid.run.load import recipe_of

    return recipe_of(configured("run=x", *overrides))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    from physics_hybrid.run.train import train

    folder = tmp_path_factory.mktemp("burgers")
    return train(
        configured(f"runs_folder={folder / 'runs'}", f"data.folder={folder / 'data'}", "run=tiny")
    )


def test_forty_steps_beat_the_baseline_and_the_table_has_every_row(run):
    tested = json.loads((run / "evaluation/metrics.json").read_text())["nu0.001"]
    assert tested["one_step"]["mean"] < 0.8 * tested["stepper16_one_step"]["mean"]
    assert tested["nrmse"]["mean"] < tested["stepper16_nrmse"]["mean"]
    assert tested["stepper32_nrmse"]["mean"] > tested["stepper64_nrmse"]["mean"]
    assert tested["mean_drift"]["max"] < 1e-6
    report = (run / "evaluation/report.md").read_text()
    for who in (
        "persistence",
        "steady state (the mean)",
        "stepper, 64 cells",
        "U-Net + stepper 16",
    ):
        assert f"| nu0.001 | {who} |" in report
    assert "## U-Net + stepper 16 over each contender" in report
    for name in ("growth", "spectra", "space_time"):
        assert (run / f"evaluation/{name}_nu0.001.png").stat().st_size > 10_000


def test_the_tables_of_the_page_are_those_of_runs(run, tmp_path, monkeypatch):
    import shutil

    from physics_hybrid.evidence.study import Study
    from physics_hybrid.problems.burgers.evidence import pages

    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    tested = json.loads((run / "evaluation/metrics.json").read_text())["nu0.001"]
    text = pages.run_table(run)
    assert f"| nu0.001 | **U-Net + stepper 16** | {tested['nrmse']['mean']:.3g} |" in text
    assert "| nu0.001 | stepper, 64 cells | " in text
    assert "![Error against time, beside steppers](burgers_growth.png)" in text
    assert (tmp_path / "docs/burgers_growth.png").exists()
    cells = Study.read("burgers").cells(tmp_path)
    with pytest.raises(ValueError, match="no run of the study burgers is finished"):
        pages.study_table(tmp_path)
    shutil.copytree(run, tmp_path / cells[0].name)
    text = pages.study_table(tmp_path)
    assert f"| U-Net + stepper 256 | {tested['nrmse']['mean']:.3g} |" in text
    assert f"{len(cells) - 1} of {len(cells)} runs are not finished" in text


def test_a_run_simulates_and_refuses_what_it_was_not_trained_on(run):
    import physics_hybrid

    simulate = physics_hybrid.burgers.load(run / "best")
    u0 = np.sin(2 * np.pi * (np.arange(32) + 0.5) / 32)
    u = simulate(u0, times=[0.0, 0.1, 0.35], nu=0.001)
    assert u.shape == (3, 32)
    assert u.dtype == np.float64
    np.testing.assert_allclose(u[0], u0, atol=1e-7)
    assert np.abs(u.mean(axis=1)).max() < 1e-6
    assert np.abs(u[2] - u[1]).max() > 0.01
    both = simulate(torch.from_numpy(np.stack([u0, -u0])).float(), [0.1], 0.001)
    torch.testing.assert_close(both[0, 0].double(), torch.from_numpy(u[1]), rtol=0, atol=1e-6)
    backwards = simulate(u0[::-1], [0.1], 0.001)
    np.testing.assert_array_equal(backwards, simulate(u0[::-1].copy(), [0.1], 0.001))
    with pytest.raises(RuntimeError, match="nowhere does not exist"):
        physics_hybrid.burgers.load(run / "nowhere")
    for given, times, nu, message in (
        (u0, [0.12], 0.001, "multiples >= 0 of the model's step 0.05; got 0.12"),
        (u0, [], 0.001, "times must be a list of numbers, one at least"),
        (u0, 0.1, 0.001, "times must be a list of numbers, one at least"),
        (u0, [np.nan], 0.001, "times must be a list of numbers, one at least"),
        (u0, [0.1], [0.001], r"nu must be one number for all states; got \[0.001\]"),
        (1e9 * u0, [0.1], 0.001, "the rollout has diverged; u0 must be of order 1"),
        (np.zeros((0, 32)), [0.1], 0.001, r"shape \(N,\) or \(B, N\); got \(0, 32\)"),
        (u0, [0.1], 0.002, "trained with nu = 0.001, and 0.002 lies beyond"),
        (np.zeros(64), [0.1], 0.001, "trained on 32 cells, and 64 are given"),
        (np.zeros((1, 1, 32)), [0.1], 0.001, r"shape \(N,\) or \(B, N\)"),
        (np.full(32, np.nan), [0.1], 0.001, r"u0 must be finite; got nan at \[0\]"),
        (None, [0.1], 0.001, "u0 must be an array or a tensor of cell means"),
        ([[1.0], [1.0, 2.0]], [0.1], 0.001, "u0 must be an array or a tensor of cell means"),
        (u0, [0.1], 0, "nu must be > 0; got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate(given, times, nu)
    flavour = ROOT / "physics_hybrid/problems/flavour/pretrained/flavour.mdlus"
    with pytest.raises(RuntimeError, match="FlavourEquivariant, which makes no steps of Burgers"):
        physics_hybrid.burgers.load(flavour)


def test_states_larger_than_any_that_trained_are_flagged(run, tmp_path):
    import physics_hybrid
    from physics_hybrid.run.evaluate import evaluate
    from physics_hybrid.run.load import load, recipe_of

    model, config, _ = load(run)
    problem = recipe_of(config).open(Place(torch.device("cpu")))
    largest = model.statistics["largest"]
    assert largest == pytest.approx(float(problem.trajectories("train").u.abs().max()), rel=0.05)
    simulate = physics_hybrid.burgers.load(run / "best")
    u0 = np.sin(2 * np.pi * (np.arange(32) + 0.5) / 32)
    with pytest.warns(UserWarning, match=rf"u0 reaches .* trained on {largest:.3g}: larger ones"):
        simulate(1.1 * largest * u0 / u0.max(), [0.05], 0.001)
    assert "extrapolates" not in evaluate(problem, model, tmp_path, {}, pictures=False).summary
    model.largest = 0.01
    flagged = evaluate(problem, model, tmp_path, {}, pictures=False).summary
    assert "4 of the test trajectories of nu = 0.001 reach a larger |u|" in flagged


def test_other_data_than_it_was_trained_on_are_refused(run, capsys):
    from physics_hybrid.command_line import readable_errors
    from physics_hybrid.run.evaluate import evaluate_checkpoint

    options = options_of(run)
    for change, message in (
        ({"nu": [0.01]}, "trained with nu = 0.001, and 0.01 lies beyond"),
        ({"dt": 0.1}, "makes steps of 0.05, and 0.1 is asked for"),
        ({"cells": 64}, "trained on 32 cells, and 64 are given"),
    ):
        data = {**configured("run=x")["data"], **change}
        with pytest.raises(SystemExit), readable_errors():
            evaluate_checkpoint({**options, "data": data}, {})
        assert message in capsys.readouterr().err


def options_of(run: Path, **change) -> dict:
    """What evaluate.py is given."""
    options = dict.fromkeys(("batch_size", "samples", "output", "reference", "resolutions"))
    tracker = {"_target_": "physics_hybrid.training.tracker.Tracker"}
    options |= {"checkpoint": str(run), "device": "cpu", "split": "all", "tracker": tracker}
    return {**options, "pictures": False, **change}


def samples_of(run: Path, **change) -> dict[str, int]:
    from physics_hybrid.run.evaluate import evaluate_checkpoint

    folder = evaluate_checkpoint(options_of(run, **change), {})
    return json.loads((folder / "metrics.json").read_text())["samples"]


def test_a_file_of_ones_own_is_tested_whole_or_its_first_samples(run, tmp_path):
    path = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.001.hdf5", samples=5, frames=41)
    data = configured("run=x", "data=pdebench", f"data.path={path}", "data.frames=null")["data"]
    assert samples_of(run, data=data) == {"nu0.001": 5}
    assert samples_of(run, data=data, samples=2) == {"nu0.001": 2}
    with pytest.raises(ValueError, match="has 5 samples: the first tenth is tested"):
        samples_of(run, data=data, split="test")


@pytest.mark.slow
def test_pdebench_trains_from_a_file_and_remembers_its_samples(tmp_path):
    from physics_hybrid.run.train import train

    path = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.001.hdf5", samples=40, frames=41)
    words = [
        "evaluation.pictures=false",
        "data=pdebench",
        f"data.path={path}",
        "data.reduce=sample",
        "training.epochs=1",
    ]
    folder = train(configured(*words, f"runs_folder={tmp_path}", "run=file"))
    tested = json.loads((folder / "evaluation/metrics.json").read_text())
    assert tested["samples"] == {"nu0.001": 4}
    assert "[39]" in (folder / "splits.json").read_text()
    again = configured(*words, "run=x")["data"]
    assert samples_of(folder) == {"nu0.001": 4}
    assert samples_of(folder, samples=2) == {"nu0.001": 2}
    assert samples_of(folder, data=again) == {
        "nu0.001": 4,
        "nu0.001_train": 32,
        "nu0.001_validation": 4,
    }


def test_the_same_seed_gives_the_same_pairs_and_the_end_is_pushed():
    words = ("data.frames=8", "data.folder=unused")
    problem = recipe(*words, "training.epochs=10").open(Place(torch.device("cpu")))
    u = torch.arange(32.0)[:, None, None] + torch.arange(8.0)[None, :, None] / 100
    problem._open["train"] = trajectories(u.expand(32, 8, 32).contiguous())
    for epoch, pushed in ((0, False), (5, False), (6, True), (9, True)):
        first, again = ([*problem.train_batches(epoch, 0)] for _ in range(2))
        assert all(torch.equal(a.start, b.start) for a, b in zip(first, again, strict=True))
        assert [*problem.train_batches(epoch, 1)][0].names == first[1].names
        ahead = torch.cat([batch.ahead for batch in first])
        assert bool(ahead.any()) == pushed
        assert not ahead.all()
        for batch in first:
            gap = (batch.target - batch.start).mean(dim=1)
            torch.testing.assert_close(gap, 0.01 * (1 + batch.ahead), rtol=0, atol=1e-4)


def trajectories(u):
    from physics_hybrid.problems.burgers.data.trajectories import Trajectories

    names = tuple(f"t-{i}" for i in range(len(u)))
    return Trajectories(u=u, dt=0.05, nu=torch.full((len(u),), 1e-3), names=names)


def test_a_file_of_too_few_frames_is_refused(tmp_path):
    path = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.001.hdf5", samples=20, frames=21)
    words = ["data=pdebench", f"data.path={path}", "data.frames=null", "data.validation=2"]
    with pytest.raises(ValueError, match=r"has 5 frames at data.stride=5, and .* = 6 are needed"):
        recipe(*words).open(Place(torch.device("cpu")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": [[8]]}, r"does not know resolutions=\[\[8\]\] of evaluate.py: leave it"),
        ({"samples": 4, "split": "validation"}, "samples=4 counts test trajectories"),
    ],
)
def test_options_of_evaluate_without_effect_are_refused(options, message):
    given = {"batch_size": None, "samples": None, "resolutions": None, "split": "all", **options}
    with pytest.raises(ValueError, match=message):
        recipe().for_evaluation(given, torch.nn.Identity())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=pdebench", "data.frames=null"], "data=pdebench needs data.path=FILE.hdf5"),
        (["loss=default"], "problem=burgers does not know loss"),
        (["data.kind=files"], "data.kind must be generated or pdebench"),
        (["data.frames=5"], r"data.frames must be at least data.initial_step \+ 2 = 6; got 5"),
        (["evaluation.steppers=[48]"], "48 is no divisor and no multiple of data.cells=32"),
        (["problem.guards=[energy]"], "problem.guards must be one of mean; got 'energy'"),
        (["loss.pushforward=2"], r"loss.pushforward must lie in \[0, 1\]; got 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        recipe(*overrides).open(Place(torch.device("cpu")))
