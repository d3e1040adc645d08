"""The uncertain start: ensembles, their scores, and three stages that follow each other."""

from __future__ import annotations

import json

import pytest
import torch

from physics_hybrid.problem import Place
from physics_hybrid.problems.burgers.stepper import prolong
from physics_hybrid.problems.burgers.uncertain.networks import (
    SMALLEST,
    Consistency,
    Denoiser,
    MeanForecast,
    ResidualDiffusion,
    consistent,
)
from physics_hybrid.problems.burgers.uncertain.observation import Observation, Posterior
from physics_hybrid.problems.burgers.uncertain.scores import Ensemble, fair_crps, scores
from tests.conftest import ROOT

SEEN = Observation(cells=8, noise=0.1, ahead=2, dt=0.05, nu=1e-3, stepper=16)
TINY = [
    "tracker=none",
    "training.device=cpu",
    "training.epochs=1",
    "training.validate_every=1",
    "training.figures_every=0",
    "data.train=8",
    "data.validation=2",
    "data.test=2",
    "data.batch_size=4",
    "data.frames=8",
    "data.initial_step=4",
    "data.cells=32",
    "problem.cells=8",
    "problem.stepper=16",
    "problem.ahead=0.1",
    "problem.starts=[1,4]",
    "evaluation.members=3",
    "evaluation.pictures=false",
]
SMALL = ["model.width=8", "model.levels=1"]


def configured(*overrides: str) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        named = {word.split("=")[0] for word in overrides}
        tiny = [word for word in TINY if word.split("=")[0] not in named]
        config = compose("config", overrides=[*overrides[:1], *tiny, *overrides[1:]])
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- scores


def test_the_fair_score_of_two_members_is_its_closed_form():
    """(|a - u| + |b - u|) / 2 - |a - b| / 2"""
    a, b, u = torch.randn(3, 4, 5).unbind()
    expected = ((a - u).abs() + (b - u).abs() - (a - b).abs()) / 2
    torch.testing.assert_close(fair_crps(torch.stack([a, b]), u), expected.mean(dim=1))


def test_the_fair_score_does_not_know_how_many_members_there_are():
    """E|X - u| - E|X - X'| / 2 of a normal distribution, at u = 0: (sqrt 2 - 1) / sqrt pi."""
    truth, known = torch.zeros(1, 40_000), (2**0.5 - 1) / torch.pi**0.5
    for members in (2, 8):
        drawn = torch.randn(members, 1, 40_000, generator=noise())
        assert float(fair_crps(drawn, truth)) == pytest.approx(known, abs=0.01)


def test_an_ideal_ensemble_has_as_much_spread_as_error():
    u = torch.randn(200, 64, generator=noise(1))
    members = torch.randn(8, 200, 64, generator=noise(2))
    rows = scores(Ensemble(members, 1.0), u)
    spread, error = (
        torch.tensor([r[k] for r in rows]).mean() for k in ("variance", "square_error")
    )
    assert float(spread / error) == pytest.approx(1, abs=0.03)
    assert rows[0]["roughness"] == pytest.approx(1, abs=0.4)


# --- what physics alone makes


def waves(count: int) -> torch.Tensor:
    x = (torch.arange(32) + 0.5) / 32
    phase = 6.28 * torch.rand(count, 1, generator=noise())
    size = 0.5 + torch.rand(count, 1, generator=noise(1))
    return 0.2 + size * torch.sin(2 * torch.pi * x + phase)


def test_the_posterior_is_the_observation_where_it_is_sure_and_the_prior_where_it_is_not():
    states = waves(300)
    truth = states[:5]
    for size, expected in ((1e-4, 0.02), (100.0, 0.5)):
        seen = Observation(8, size, 2, 0.05, 1e-3, 16)
        starts = Posterior.of(seen, states).starts(seen.observe(truth, noise()), 50, noise(3))
        error = float((starts.mean(dim=0) - truth).square().mean().sqrt())
        assert error < expected if size < 1 else error > expected
    assert float(starts.std()) == pytest.approx(float(states.std()), rel=0.2)


def test_the_spread_of_the_posterior_is_its_error():
    states = waves(2000)
    posterior = Posterior.of(SEEN, states)
    truth = states[:300]
    starts = posterior.starts(SEEN.observe(truth, noise()), 30, noise(3))
    error = (starts.mean(dim=0) - truth).square().mean()
    assert float(starts.var(dim=0).mean() / error) == pytest.approx(1, abs=0.15)
    assert posterior(SEEN.observe(truth[:2], noise()), 3, noise()).shape == (3, 2, 32)


def test_ensembles_of_physics_spread_round_the_forecast():
    u = waves(4)
    y = SEEN.observe(u, noise())
    features = SEEN.features(y, 32)
    torch.testing.assert_close(features[:, 0], prolong(y, 4))
    torch.testing.assert_close(features[:, 1], SEEN.forecast(y, 32))
    members = SEEN.perturbed(y, 64, 32, noise(1))
    assert members.shape == (64, 4, 32)
    assert float((members.mean(dim=0) - features[:, 1]).abs().mean()) < 0.05
    assert 0.02 < float(members.std(dim=0).mean()) < 0.2


# --- the models


def test_the_mean_begins_as_the_stepper():
    features = torch.randn(2, 2, 32)
    assert torch.equal(MeanForecast(8, 1)(features), features[:, 1])


def test_a_consistency_model_is_the_identity_at_the_smallest_noise():
    network = Denoiser(8, 1)
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    x, condition = torch.randn(3, 1, 32), torch.randn(3, 3, 32)
    same = consistent(network, x, torch.full((3,), SMALLEST), condition)
    torch.testing.assert_close(same, x)
    other = consistent(network, x, torch.full((3,), 1.0), condition)
    assert float((other - x).detach().abs().max()) > 0.1


def test_few_steps_of_heun_are_refused():
    mean = {"width": 8, "levels": 1}
    with pytest.raises(ValueError, match=r"model.steps \(two of Heun's steps diverge\) must be at"):
        ResidualDiffusion(mean, 0.1, 8, 1, steps=2)
    diffusion = ResidualDiffusion(mean, 0.1, 8, 1)
    with pytest.raises(ValueError, match="must be at least 4; got 3"):
        diffusion.ensemble(torch.randn(1, 2, 32), 2, noise(), steps=3)
    with pytest.raises(ValueError, match="model.steps must be 1, 2 or 3 for consistency; got 4"):
        Consistency(diffusion.arguments, steps=4)


def test_an_untrained_diffusion_draws_the_prior_of_its_residual():
    """D = c_skip x at the start: the flow of a normal distribution of standard deviation 1."""
    diffusion = ResidualDiffusion({"width": 8, "levels": 1}, 0.5, 8, 1, steps=12)
    features = torch.randn(2, 2, 32)
    members = diffusion.ensemble(features, 200, noise())
    assert members.shape == (200, 2, 32)
    assert float(members.std(dim=0).mean()) == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(members.mean(dim=0), features[:, 1], rtol=0, atol=0.2)
    again = diffusion.ensemble(features, 200, noise())
    assert torch.equal(again, members)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Runs of the three stages."""
    from physics_hybrid.run.train import train

    folder = tmp_path_factory.mktemp("uncertain")
    place = [f"runs_folder={folder}", f"data.folder={folder / 'data'}"]
    train(configured("experiment=burgers_mean", *SMALL, *place, "run=mean"))
    before = f"model.from={folder / 'mean'}"
    drawn = "evaluation.pictures=true"
    train(
        configured("experiment=burgers_diffusion", *SMALL, *place, before, drawn, "run=diffusion")
    )
    before = f"model.from={folder / 'diffusion'}"
    train(configured("experiment=burgers_consistency", *place, before, "run=consistency"))
    return folder


def test_three_stages_follow_each_other_and_stand_beside_physics(chain, tmp_path):
    from physics_hybrid.models.model_files import load_model
    from physics_hybrid.problems.burgers.evidence.pages import uncertain_table

    mean, diffusion, last = (
        load_model(chain / n / "best") for n in ("mean", "diffusion", "consistency")
    )
    for name, weight in mean.state_dict().items():
        assert torch.equal(weight, diffusion.mean.state_dict()[name]), name
    for name, weight in diffusion.state_dict().items():
        assert torch.equal(weight, last.teacher.state_dict()[name]), name
    tested = json.loads((chain / "consistency/evaluation/metrics.json").read_text())["nu0.001"]
    for who in ("", "two_", "three_", "heun8_", "mean_", "posterior_", "physics_", "stepper_"):
        assert tested[f"{who}crps"]["mean"] > 0
    text = uncertain_table(chain)
    assert f"| **consistency, 1 step** | {tested['crps']['mean']:.3g} |" in text
    assert "| diffusion, Heun 8 | " in text
    for seed in ("seed0", "seed1"):
        (tmp_path / seed).symlink_to(chain)
    assert f"| {tested['crps']['mean']:.3g} ± 0 |" in uncertain_table(tmp_path)
    report = (chain / "consistency/evaluation/report.md").read_text()
    assert "| nu0.001 | physics ensemble: perturbed observation, stepper |" in report
    assert "| Gaussian posterior of the start, stepper |" in report
    assert "CRPS of consistency, 1 step over it (95 %, paired)" in report
    assert (chain / "consistency/evaluation/spread_skill.png").exists()
    assert (chain / "diffusion/evaluation/ensemble_nu0.001.png").exists()


def test_a_stage_that_is_killed_goes_on_to_the_same_bits(chain, monkeypatch):
    """The consistency stage has the most to remember: noise, target, average, frozen teacher."""
    import os
    import signal

    from physics_hybrid.cluster.signals import Requeue
    from physics_hybrid.problems.burgers.uncertain import learning
    from physics_hybrid.run.train import train
    from physics_hybrid.training import checkpoint

    place = [
        f"runs_folder={chain}",
        f"data.folder={chain / 'data'}",
        "evaluation.after_training=false",
    ]
    words = ["experiment=burgers_consistency", *place, f"model.from={chain / 'diffusion'}"]
    train(configured(*words, "run=whole"))
    steps, original = [], learning.LOSSES["consistency"]

    def told_to_leave(*batch):
        steps.append(len(steps))
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*batch)

    monkeypatch.setitem(learning.LOSSES, "consistency", told_to_leave)
    with pytest.raises(Requeue):
        train(configured(*words, "run=killed"))
    assert len(steps) == 1
    train(configured(*words, "run=killed"))
    whole, killed = (checkpoint.load_latest(chain / n)["model"] for n in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_stage_is_tested_again_with_the_same_numbers_without_the_one_before(chain, tmp_path):
    import shutil

    from physics_hybrid.run.evaluate import evaluate_checkpoint

    alone = tmp_path / "alone"
    shutil.copytree(chain / "consistency", alone)
    before = json.loads((alone / "evaluation/metrics.json").read_text())["nu0.001"]
    config = (alone / "config.yaml").read_text().replace(str(chain / "diffusion"), "gone")
    (alone / "config.yaml").write_text(config)
    options = dict.fromkeys(("batch_size", "samples", "output", "reference", "resolutions"))
    options |= {"checkpoint": str(alone), "device": "cpu", "split": "all", "data": None}
    options |= {
        "tracker": {"_target_": "physics_hybrid.training.tracker.Tracker"},
        "pictures": False,
    }
    folder = evaluate_checkpoint(options, {})
    after = json.loads((folder / "metrics.json").read_text())["nu0.001"]
    for name in ("crps", "heun8_crps", "posterior_crps", "spread"):
        assert after[name]["mean"] == pytest.approx(before[name]["mean"], rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=burgers_diffusion", "model.from=nowhere"], "nowhere is not there: train the"),
        (["experiment=burgers_mean", "problem.noise=0"], "problem.noise must be > 0; got 0"),
        (["experiment=burgers_mean", "problem.ahead=0.12"], "problem.ahead must be a multiple of"),
        (["experiment=burgers_mean", "problem.starts=[1,7]"], "problem.starts must be two frames"),
        (["experiment=burgers_mean", "problem.ahead=0.25", "problem.starts=[0,1]"], "is tested"),
        (
            ["experiment=burgers_mean", "problem.cells=12"],
            "problem.cells must divide data.cells=32",
        ),
        (["experiment=burgers_mean", "loss=default"], "burgers_uncertain does not know loss"),
        (
            ["experiment=burgers_mean", "evaluation.members=1"],
            "evaluation.members must be at least",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, message):
    from physics_hybrid.run.load import recipe_of

    with pytest.raises(ValueError, match=message):
        recipe_of(configured(*overrides)).open(Place(torch.device("cpu"))).statistics()


def test_a_rival_that_was_not_tested_leaves_its_ratio_out():
    from physics_hybrid.problems.burgers.evidence.pages import _over

    runs = [[{"crps": "1", "physics_crps": "2"}, {"crps": "1.5", "physics_crps": "3"}]]
    assert _over(runs, "", "heun8_") == ""
    assert _over(runs, "", "physics_").startswith("0.500 (0.500 to 0.500)")


def test_a_stage_refuses_a_model_that_saw_something_else(chain):
    """The one before does not know its features: its run does."""
    from physics_hybrid.run.train import train

    place = [f"runs_folder={chain}", f"data.folder={chain / 'data'}"]
    words = ["experiment=burgers_diffusion", *SMALL, *place, f"model.from={chain / 'mean'}"]
    for key, value in (("noise", 0.2), ("cfl", 0.5)):
        with pytest.raises(ValueError, match=rf"problem.{key}=0\.\d, and this is {value}"):
            train(configured(*words, f"problem.{key}={value}", f"run=other-{key}"))
