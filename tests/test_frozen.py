"""What commit f438f82 wrote, before the code had rooms, is still read: a run, models, solved limbs.

`.mdlus` files and configurations hold the names of modules. The files in `tests/frozen` were made
by that commit's own train.py at a tiny size, and are never written again.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture
def run(tmp_path):
    """A copy: evaluating writes into the folder of a run."""
    return Path(shutil.copytree(FROZEN / "run", tmp_path / "run"))


@pytest.mark.parametrize(
    "name", ["run", "run/latest_checkpoint.pt", "run/best", "run/best/HybridWrapper.0.2.mdlus"]
)
def test_a_run_is_loaded_by_each_of_its_names_and_predicts_what_it_did(
    name, tmp_path, run, monkeypatch
):
    monkeypatch.setattr(
        "physics_hybrid.problems.potential.learning.OnGrid.picture", lambda *_: None
    )
    monkeypatch.setattr(
        "physics_hybrid.problems.potential.figures.errors_by_distance", lambda *_: None
    )
    from physics_hybrid.problem import Place
    from physics_hybrid.run.evaluate import evaluate
    from physics_hybrid.run.load import load, recipe_of

    model, config, home = load(tmp_path / name)
    assert home == run
    config["data"]["folder"] = str(tmp_path)
    # its test samples, not solved again
    shutil.copy(FROZEN / "limbs_test_12x10x10_2_22ba9d81.h5", tmp_path)
    problem = recipe_of(config).open(Place(torch.device("cpu")))
    result = evaluate(problem, model, tmp_path, {})
    then = json.loads((run / "evaluation/metrics.json").read_text())["12x10x10"]
    for metric in ("relative_l2", "baseline_relative_l2", "rdm", "charge_defect"):
        assert result.tables["12x10x10"][metric]["mean"] == pytest.approx(
            then[metric]["mean"],
            rel=1e-2,  # it left voxels at 3 voxels' distance to rounding
        )


@pytest.mark.parametrize("kept", ["best", "final"])
def test_a_run_whose_state_was_deleted_gives_its_weights_and_is_not_begun_anew(kept, run):
    from physics_hybrid.models.model_files import CheckpointError
    from physics_hybrid.run.folder import resume
    from physics_hybrid.run.load import load

    expected, config, _ = load(run)
    (run / "latest_checkpoint.pt").unlink()
    (run / "best").rename(run / kept)
    model, known, home = load(run)
    assert (known, home) == (config, run)
    weights = model.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in expected.state_dict().items())
    with pytest.raises(CheckpointError, match="latest_checkpoint.pt is gone"):
        resume(run, config)
    shutil.rmtree(run / "evaluation")  # killed before it had a state: the same command begins it
    assert resume(run, config) is None


def test_the_solved_limbs_of_its_seed_have_the_name_they_had(tmp_path, run):
    """The name is a digest of all settings: another one would solve everything again."""
    from physics_hybrid.problem import Place
    from physics_hybrid.run.load import load, recipe_of

    _, config, _ = load(run)
    config["data"]["folder"] = str(tmp_path)
    recipe_of(config).open(Place(torch.device("cpu"))).test_sets()
    assert (tmp_path / "limbs_test_12x10x10_2_22ba9d81.h5").exists()


@pytest.mark.parametrize("name", ["fno", "unet"])
def test_other_models_load_too(name):
    from physics_hybrid.models.model_files import load_model

    model = load_model(FROZEN / f"{name}.mdlus")
    assert sum(p.numel() for p in model.parameters()) > 100
    assert torch.isfinite(model(torch.ones(1, 7, 12, 10, 10), torch.full((1, 3), 0.004))).all()


def test_the_run_can_go_on(run, tmp_path, capsys):
    """The same command with today's configuration: the run is complete."""
    from physics_hybrid.run.load import load
    from physics_hybrid.run.train import train

    _, config, _ = load(run)
    config |= {"runs_folder": str(tmp_path), "run": "run"}
    config["data"]["folder"] = str(tmp_path)
    config["evaluation"]["after_training"] = False
    config["training"]["owner_silent_seconds"] = 120  # a key that came later
    assert train(config) == run
    assert "training is complete already" in capsys.readouterr().out
