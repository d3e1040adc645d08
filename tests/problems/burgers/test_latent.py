"""The latent simulator: exact means, any points, a cache that belongs to its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from physics_hybrid.problem import Place
from physics_hybrid.problems.burgers.data.trajectories import Trajectories
from physics_hybrid.problems.burgers.latent.autoencoder import Autoencoder, WindowOperator, centres
from physics_hybrid.problems.burgers.latent.cache import latents
from physics_hybrid.problems.burgers.latent.step import LatentStep
from physics_hybrid.problems.burgers.stepper import reconstruct, restrict
from physics_hybrid.reading import FileError
from tests.conftest import ROOT

SIZES = {"points": 32, "tokens": 8, "channels": 5, "means": 2}
NU = torch.tensor([1e-3, 1e-2])


def stirred(model):
    torch.manual_seed(1)
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return model.eval()


def latent_step(means: int = 2) -> LatentStep:
    torch.manual_seed(0)
    learned = 5 - means
    return stirred(
        LatentStep(
            {**SIZES, "means": means},
            mean=[0.1] * learned,
            std=[0.5] * learned,
            weight=[1.0] * 5,
            dt=0.05,
            points=32,
            nu=[1e-3, 1e-2],
            width=16,
            depth=2,
            heads=2,
            window=4,
        )
    )


@pytest.fixture
def u():
    x = (torch.arange(32) + 0.5) / 32
    return torch.stack([0.3 + torch.sin(2 * torch.pi * x), 0.5 * torch.cos(4 * torch.pi * x)])


def test_the_coarse_means_are_in_the_latent_and_come_back_exactly(u):
    autoencoder = stirred(Autoencoder(**SIZES))
    z = autoencoder.encode(u)
    assert z.shape == (2, 8, 5)
    assert torch.equal(autoencoder.coarse(z), restrict(u, 16))
    for cells in (32, 64):
        decoded = autoencoder.on_grid(z, cells)
        torch.testing.assert_close(restrict(decoded, 16), restrict(u, 16), rtol=0, atol=2e-6)
        linear = reconstruct(restrict(u, 16), centres(cells))
        assert bool((decoded - linear).abs().max() > 1e-3)


def test_an_untrained_decoder_is_limited_linear_reconstruction(u):
    autoencoder = Autoencoder(**SIZES)
    x = torch.rand(50)
    expected = reconstruct(restrict(u, 16), x)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(u), x), expected)


def test_points_are_the_grid_and_the_field_is_periodic_and_continuous(u):
    autoencoder = stirred(Autoencoder(**{**SIZES, "means": 0}))
    z = autoencoder.encode(u)
    grid = autoencoder.on_grid(z, 64)
    torch.testing.assert_close(autoencoder.decode(z, centres(64)[[5, 60]]), grid[:, [5, 60]])
    edges = torch.tensor([0.0, 1 - 1e-6, 3 / 16 - 1e-6, 3 / 16 + 1e-6])  # between tokens, too
    value = autoencoder.decode(z, edges)
    torch.testing.assert_close(value[:, 0], value[:, 1], rtol=0, atol=1e-4)
    torch.testing.assert_close(value[:, 2], value[:, 3], rtol=0, atol=1e-4)


def test_finer_states_are_restricted_before_they_are_encoded(u):
    autoencoder = stirred(Autoencoder(**SIZES))
    fine = u.repeat_interleave(4, dim=1)
    torch.testing.assert_close(autoencoder.encode(fine), autoencoder.encode(u))


def test_a_rollout_in_the_latent_space_keeps_the_mean(u):
    path = latent_step().path(u, NU, 8)
    drift = (path.double().mean(dim=2) - u.double().mean(dim=1, keepdim=True)).abs()
    assert float(drift.max()) < 1e-6
    assert float((path[:, 8] - u).abs().max()) > 0.05
    pure = latent_step(means=0).path(u, NU, 8)
    assert float((pure.mean(dim=2) - u.mean(dim=1, keepdim=True)).abs().max()) > 1e-4


def test_the_operator_knows_no_place_and_reaches_beyond_its_window():
    operator = stirred(WindowOperator(5, 5, width=16, depth=2, heads=2, window=4))
    z, condition = torch.randn(1, 16, 5), torch.tensor([[-3.0, -1.3]])
    moved = operator(torch.roll(z, 4, dims=1), condition)
    torch.testing.assert_close(moved, torch.roll(operator(z, condition), 4, dims=1))
    z.requires_grad_(True)
    operator(z, condition)[0, 5].sum().backward()
    reached = (z.grad[0].abs().sum(dim=1) > 0).nonzero().flatten().tolist()
    assert set(reached) > set(range(4, 8))
    assert len(reached) < 16


def test_a_step_travels_as_a_file(u, tmp_path):
    from physics_hybrid.models.model_files import export_model, load_model

    step = latent_step()
    again = load_model(export_model(tmp_path / "step.mdlus", step))
    torch.testing.assert_close(again.step(u, NU), step.step(u, NU))


def test_a_cache_of_other_weights_is_refused(u, tmp_path):
    autoencoder = stirred(Autoencoder(**SIZES))
    frames = u[:, None].expand(2, 3, 32).contiguous()
    known = Trajectories(frames, 0.05, NU, ("a", "b"))
    path = tmp_path / "latents.h5"
    first = latents(autoencoder, known, path)
    assert first.shape == (2, 3, 8, 5)
    assert torch.equal(latents(autoencoder, known, path), first)
    other = Trajectories(frames + 1, 0.05, NU, ("a", "b"))
    with pytest.raises(FileError, match="made with another encoder, or from other trajectories"):
        latents(autoencoder, other, path)
    next(autoencoder.encoder.parameters()).data[0] += 1e-3
    with pytest.raises(FileError, match="made with another encoder, or from other trajectories"):
        latents(autoencoder, known, path)


def test_sizes_that_do_not_divide_each_other_are_refused():
    for change in ({"tokens": 5}, {"means": 5}, {"means": 3, "channels": 8}):
        with pytest.raises(ValueError, match="must divide the 32 cells"):
            Autoencoder(**{**SIZES, **change})


# --- behind the seam

TINY = [
    "tracker=none",
    "training.device=cpu",
    "training.epochs=2",
    "training.validate_every=1",
    "training.figures_every=0",
    "data.train=8",
    "data.validation=2",
    "data.test=2",
    "data.batch_size=4",
    "data.frames=8",
    "data.initial_step=4",
    "evaluation.steppers=[16]",
    "evaluation.pictures=false",
]


def configured(*overrides: str) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("config", overrides=[*overrides[:1], *TINY, *overrides[1:]])
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def blank(what, *others):
    path = next(other for other in (what, *others) if isinstance(other, Path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_two_stages_follow_each_other(tmp_path, monkeypatch):
    from physics_hybrid.models.model_files import load_model
    from physics_hybrid.problems.burgers.evidence.pages import latent_table
    from physics_hybrid.run.train import train

    for figure in ("growth", "spectra"):  # drawn elsewhere
        monkeypatch.setattr(f"physics_hybrid.problems.burgers.figures.{figure}", blank)
    place = [f"runs_folder={tmp_path}", f"data.folder={tmp_path / 'data'}"]
    sizes = ["model.points=32", "model.tokens=8", "model.channels=5"]
    words = [*sizes, "data.cells=64", *place, "run=autoencoder"]
    train(configured("experiment=burgers_autoencoder", *words))
    tested = json.loads((tmp_path / "autoencoder/evaluation/metrics.json").read_text())["nu0.001"]
    assert tested["nrmse"]["mean"] < tested["means_nrmse"]["mean"]
    assert tested["linear_nrmse"]["mean"] < 1e-6 < tested["linear_points"]["mean"]
    before = f"model.from={tmp_path / 'autoencoder'}"
    words = ["data.cells=32", "model.width=16", "model.depth=2", "model.heads=2", "model.window=4"]
    words += [before, f"problem.cache={tmp_path / 'latents'}", *place, "run=step"]
    train(configured("experiment=burgers_latent_step", *words))
    tested = json.loads((tmp_path / "step/evaluation/metrics.json").read_text())["nu0.001"]
    assert tested["mean_drift"]["max"] < 1e-5
    assert len(list((tmp_path / "latents").glob("*.h5"))) == 1
    text = latent_table(tmp_path)
    assert f"| latent step, exact means | {tested['nrmse']['mean']:.3g} |" in text
    assert "| limited linear, 256 means | " in text
    weights = load_model(tmp_path / "autoencoder/best").state_dict()
    kept = load_model(tmp_path / "step/best").autoencoder.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=burgers_latent_step", "model.from=nowhere"], "nowhere is not there: train"),
        (["experiment=burgers_autoencoder", "data.cells=96"], "model.points=256 must divide data"),
        (["experiment=burgers_latent_step", "model=burgers_unet"], "does not know model.backbone"),
        (["experiment=burgers_latent_step", "evaluation.compiled=true"], "evaluation.compiled is"),
        (["experiment=burgers_latent_step", "data.cells=24"], "16 is no divisor and no multiple"),
        (["experiment=burgers_autoencoder", "data.frames=null"], "data.frames must be at least"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, message):
    from physics_hybrid.run.load import recipe_of

    with pytest.raises(ValueError, match=message):
        recipe_of(configured(*overrides, "run=x")).open(Place(torch.device("cpu"))).statistics()
