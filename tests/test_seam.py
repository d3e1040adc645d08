"""The test of the seam: a second problem lives in this file alone, and gets everything that a run
has.

The period of a pendulum. For small swings T0 = 2 pi sqrt(L / g); a network learns what that leaves
out,

    T = T0 (1 + NN(amplitude)),      truth: T = T0 (2 / pi) K(sin^2(amplitude / 2))

(K the complete elliptic integral; Landau and Lifshitz, Mechanics, paragraph 11). Pointwise, no
grid.

    python tests/test_seam.py run=NAME [key=value ...]

trains it, as train.py trains the flagship.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from physicsnemo.core.module import Module
from scipy.special import ellipk
from torch import Tensor, nn

from physics_hybrid.problem import Config, Place, refuse_foreign
from physics_hybrid.training.order import Stored

GRAVITY = 9.81  # m/s^2
SPLITS = {"train": 0, "validation": 1, "small": 2, "large": 3}


# --- the problem: everything a second problem needs -----------------------------------------------


class PendulumNetwork(Module):
    """Period in s from length in m and amplitude in rad, (B,) each."""

    def __init__(self, width: int, mean: float, std: float):
        super().__init__()
        self.mean, self.std = mean, std
        self.correction = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))
        nn.init.zeros_(self.correction[-1].weight)
        nn.init.zeros_(self.correction[-1].bias)

    def forward(self, length: Tensor, amplitude: Tensor) -> Tensor:
        correction = self.correction(((amplitude - self.mean) / self.std)[:, None])[:, 0]
        return small_swing(length) * (1 + correction)


def small_swing(length: Tensor) -> Tensor:
    """The baseline, T0 = 2 pi sqrt(L / g)."""
    return 2 * math.pi * torch.sqrt(length / GRAVITY)


@dataclass(frozen=True)
class Swings:
    length: Tensor
    amplitude: Tensor
    period: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def of(self, rows: list[int]) -> Swings:
        names = tuple(self.names[i] for i in rows)
        return Swings(self.length[rows], self.amplitude[rows], self.period[rows], names)


def swings(split: str, count: int, seed: int) -> Swings:
    random = np.random.default_rng([seed, SPLITS[split]])
    length = torch.from_numpy(random.uniform(0.1, 2.0, count)).float()
    low, high = {"small": (0.1, 1.0), "large": (1.0, 2.5)}.get(split, (0.1, 2.5))
    amplitude = torch.from_numpy(random.uniform(low, high, count)).float()
    ratio = 2 / math.pi * ellipk(np.sin(amplitude.double().numpy() / 2) ** 2)
    period = small_swing(length) * torch.from_numpy(ratio).float()
    return Swings(length, amplitude, period, tuple(f"{split}-{i}" for i in range(count)))


@dataclass(frozen=True)
class Amplitudes:
    """A test set: small swings, or large ones."""

    name: str
    samples: Swings

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self) -> Iterator[Swings]:
        yield self.samples

    def rivals(
        self, model: nn.Module, batch: Swings, reference: nn.Module | None
    ) -> dict[str, Tensor]:
        return {"baseline_": small_swing(batch.length)}

    def measure(
        self, predictions: Mapping[str, Tensor], batch: Swings
    ) -> dict[str, list[dict[str, float]]]:
        measured = {}
        for who, period in predictions.items():
            errors = ((period - batch.period) / batch.period).abs()
            measured[who] = [{"relative_error": float(e)} for e in errors]
        return measured

    def picture(self, model: nn.Module, index: int, row: dict, folder: Path) -> None:
        return None


@dataclass(frozen=True)
class Pendulum:
    train: Swings
    order: Stored
    seed: int
    pause: float
    monitor: str = "relative_error"
    varies: str = "swing"
    alone: str = "baseline_"
    columns: tuple = (("relative_error", "relative error"),)

    @property
    def contenders(self) -> dict[str, str]:
        return {"": "network", "baseline_": "small-swing formula"}

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_left(0, ())

    def steps_left(self, epoch: int, done) -> int:
        return len(self.order.batches((self.seed, epoch), done))

    def train_batches(self, epoch: int, start: int, done) -> Iterator[Swings]:
        for rows in self.order.batches((self.seed, epoch), done)[start:]:
            time.sleep(self.pause)
            yield self.train.of(rows)

    def predict(self, model: nn.Module, batch: Swings) -> Tensor:
        return model(batch.length, batch.amplitude)

    def loss(self, model: nn.Module, batch: Swings) -> tuple[Tensor, dict[str, Tensor]]:
        error = self.predict(model, batch) / batch.period - 1
        loss = error.square().mean()
        return loss, {"mse": loss.detach()}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        batch = swings("validation", 64, self.seed)
        error = self.predict(model, batch) / batch.period - 1
        return {"relative_error": float(error.abs().mean())}

    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        return {}

    def statistics(self) -> dict[str, float]:
        amplitude = self.train.amplitude
        return {"mean": float(amplitude.mean()), "std": float(amplitude.std())}

    def prepare(self) -> None: ...

    def ready(self) -> None: ...

    def check_model(self, model: nn.Module) -> None: ...

    def splits(self) -> dict:
        return {}

    def notes(self, model: nn.Module) -> list[str]:
        return []

    def test_sets(self) -> list[Amplitudes]:
        return [Amplitudes(name, swings(name, 50, self.seed)) for name in ("small", "large")]

    def summary(self, tables: Mapping, folder: Path) -> tuple[str, dict[str, Path]]:
        return "Small swings are below 1 rad.", {}


@dataclass(frozen=True)
class PendulumRecipe:
    config: Config

    def __post_init__(self):
        refuse_foreign(self.config, "data", {"samples", "batch_size", "pause"}, "pendulum")
        refuse_foreign(self.config, "model", {"width"}, "pendulum")

    def open(self, place: Place) -> Pendulum:
        data, seed = self.config["data"], self.config["seed"]
        train = swings("train", data["samples"], seed)
        order = Stored(len(train), data["batch_size"], place.rank, place.world_size)
        return Pendulum(train, order, seed, data["pause"])

    def build_model(self, statistics: dict[str, float]) -> PendulumNetwork:
        return PendulumNetwork(self.config["model"]["width"], **statistics)

    def statistics_of(self, model: PendulumNetwork) -> dict[str, float]:
        return {"mean": model.mean, "std": model.std}

    def for_evaluation(self, options: Config, model: nn.Module) -> PendulumRecipe:
        return replace(self)

    def predictor(self, model: nn.Module):
        def period(length: float, amplitude: float) -> float:
            with torch.no_grad():
                return float(model(torch.tensor([length]), torch.tensor([amplitude])))

        return period


#: What conf/ would hold for it.
CONF = {
    "problem": {"_target_": "tests.test_seam.PendulumRecipe"},
    "data": {"samples": 60, "batch_size": 4, "pause": 0.0},
    "model": {"width": 16},
    "loss": {},
}


def configured(*overrides: str) -> dict:
    """conf/config.yaml with this problem's groups in place of the flagship's."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    folder = str(Path(__file__).resolve().parents[1] / "conf")
    tiny = ["tracker=none", "training.device=cpu", "training.threads=1", "training.epochs=3"]
    tiny += ["training.learning_rate=0.02", "training.checkpoint_every=1"]
    with initialize_config_dir(version_base="1.3", config_dir=folder):
        config = compose("config", overrides=tiny)
    config = OmegaConf.merge(
        {**OmegaConf.to_container(config), **CONF}, OmegaConf.from_dotlist(overrides)
    )
    return OmegaConf.to_container(config, resolve=True)


# --- what it gets for it


def weights(folder: Path, run: str) -> Tensor:
    from physics_hybrid.training import checkpoint

    state = checkpoint.load_latest(folder / "runs" / run)
    return torch.cat([v.flatten() for v in state["model"].values()])


def start(folder: Path, *overrides: str, ranks: int = 1) -> subprocess.Popen:
    root = str(Path(__file__).resolve().parents[1])
    launcher = ["-m", "physics_hybrid", "torchrun", "--standalone", "--nproc-per-node", str(ranks)]
    words = [
        sys.executable,
        *(launcher if ranks > 1 else []),
        __file__,
        f"runs_folder={folder}/runs",
    ]
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*words, *overrides],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def train_here(folder: Path, *overrides: str) -> None:
    """In this process."""
    from physics_hybrid.run.train import train

    train(configured(f"runs_folder={folder}/runs", *overrides))


def finish(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training in this process; its folder."""
    folder = tmp_path_factory.mktemp("seam")
    train_here(folder, "run=whole", "training.epochs=20")
    return folder


def test_it_trains_and_is_tested_against_its_baseline(run):
    metrics = json.loads((run / "runs/whole/evaluation/metrics.json").read_text())
    assert metrics["samples"] == {"small": 50, "large": 50}
    for name in ("small", "large"):
        errors = {k: metrics[name][f"{k}relative_error"]["mean"] for k in ("", "baseline_")}
        assert errors[""] < 0.3 * errors["baseline_"]
    report = (run / "runs/whole/evaluation/report.md").read_text()
    assert "| swing | what | relative error | relative error, p95 |" in report
    assert "| large | small-swing formula |" in report
    assert "below 1 rad" in report


def test_its_checkpoints_load_and_are_tested_again(run, tmp_path, capsys):
    from physics_hybrid.run.evaluate import evaluate_checkpoint
    from physics_hybrid.run.load import load, recipe_of

    model, config, _ = load(run / "runs/whole")
    period = recipe_of(config).predictor(model.eval())
    assert period(1.0, 2.0) == pytest.approx(float(swing_of(1.0, 2.0)), rel=0.05)
    options = {"device": "cpu", "checkpoint": str(run / "runs/whole"), "reference": None}
    options |= {
        "output": str(tmp_path),
        "tracker": {"_target_": "physics_hybrid.training.tracker.Tracker"},
    }
    evaluate_checkpoint(options, lambda _: {})
    first = json.loads((run / "runs/whole/evaluation/metrics.json").read_text())
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["large"]["relative_error"] == first["large"]["relative_error"]
    assert "| large | network |" in capsys.readouterr().out


def swing_of(length: float, amplitude: float) -> float:
    return (
        2
        * math.pi
        * math.sqrt(length / GRAVITY)
        * 2
        / math.pi
        * ellipk(math.sin(amplitude / 2) ** 2)
    )


@pytest.mark.program
def test_killed_and_started_again_it_comes_to_the_same_bits(tmp_path, capsys):
    train_here(tmp_path, "run=never-killed")
    process = start(tmp_path, "run=killed", "data.pause=0.1")
    previous = tmp_path / "runs/killed/latest_checkpoint.previous.pt"
    deadline = time.monotonic() + 120
    while not previous.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    capsys.readouterr()
    train_here(tmp_path, "run=killed", "data.pause=0.1")
    assert "going on from epoch" in capsys.readouterr().out
    assert torch.equal(weights(tmp_path, "killed"), weights(tmp_path, "never-killed"))


@pytest.mark.cluster
def test_two_ranks_train_what_one_does_with_the_same_global_batch(tmp_path):
    output = finish(start(tmp_path, "run=two", "data.batch_size=2", ranks=2))
    assert "rank 0 of 2" in output
    train_here(tmp_path, "run=one", "data.batch_size=4")
    torch.testing.assert_close(
        weights(tmp_path, "two"), weights(tmp_path, "one"), rtol=1e-4, atol=1e-6
    )


def test_groups_of_another_problem_are_refused():
    from physics_hybrid.run.load import recipe_of

    config = configured("run=x")
    with pytest.raises(ValueError, match=r"problem=pendulum does not know data\.grid"):
        recipe_of({**config, "data": {"grid": [1, 2, 3]}})
    potential = {"_target_": "physics_hybrid.problems.potential.problem.PotentialRecipe"}
    with pytest.raises(ValueError, match=r"problem=potential does not know model\.width"):
        recipe_of({**config, "problem": potential})
    with pytest.raises(ValueError, match="is no recipe"):
        recipe_of({"problem": {"_target_": "tests.test_seam.Nothing"}})


if __name__ == "__main__":
    from physics_hybrid.run.train import train

    train(configured(*sys.argv[1:]))
