"""Shared by all tests: small limbs, solved batches, and a way to run the programs as a user
does.
"""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")
# before torch is imported: tests run beside each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import numpy as np
import pytest
import torch
import yaml
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]

#: Modules whose annotations the whole suite holds to: the shapes that they say are those that come.
#: Those of inner loops would take two thirds of a solve: `test_shapes.py` holds them to theirs.
POTENTIAL = "physics_hybrid.problems.potential"
FLAVOUR = "physics_hybrid.problems.flavour"
BURGERS = "physics_hybrid.problems.burgers"
PHYSICS = ROOT / "physics_hybrid" / "problems" / "potential" / "physics"
TYPED: list[str] = [
    "physics_hybrid.models",
    *(
        f"{POTENTIAL}.physics.{module.name}"
        for module in pkgutil.iter_modules(
            [str(ROOT / "physics_hybrid/problems/potential/physics")]
        )
        if module.name not in ("stencil", "multigrid")
    ),
    *(f"{FLAVOUR}.{name}" for name in ("physics", "networks", "losses", "metrics")),
    *(
        f"{POTENTIAL}.{name}"
        for name in (
            "scene",
            "surrogate",
            "losses",
            "metrics",
            "baseline",
            "hybrid",
            "geometry",
            "resample",
        )
    ),
    *(
        f"{BURGERS}.{name}"
        for name in (
            "guards",
            "networks",
            "step",
            "metrics",
            "rivals",
            "latent.autoencoder",
            "latent.step",
            "uncertain.networks",
            "uncertain.observation",
            "uncertain.scores",
        )
    ),
    *(
        f"physics_hybrid.problems.ptychography.{name}"
        for name in ("physics", "losses", "metrics", "networks", "predictor")
    ),
]


def pytest_configure(config):
    """Checks of shapes take two fifths of the quick answer: only the whole suite makes them."""
    if "not slow" not in config.option.markexpr:
        install_import_hook(TYPED, "beartype.beartype")  # before anything imports these modules


#: The limbs of conf/data/stream.yaml, without jitter of the box.
LIMBS = {
    **yaml.safe_load((ROOT / "conf/data/stream.yaml").read_text())["phantom"],
    "extent_jitter": 0.0,
}


def limb_distribution(**change):
    from physics_hybrid.problems.potential.bodies.limb import LimbDistribution

    return LimbDistribution.of({**LIMBS, **change})


@pytest.fixture(scope="session")
def limbs():
    return limb_distribution()


@pytest.fixture(scope="session")
def stream(limbs):
    """Solved limbs on a small grid, to 1e-7."""
    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver

    return LimbStream(limbs, (24, 12, 12), 0, "train", Solver(), torch.device("cpu"))


@pytest.fixture(scope="session")
def batch(stream):
    return stream.batch(range(3))


@pytest.fixture(scope="session")
def exact_batch(limbs):
    """Two limbs in float64, solved to rounding: what losses must vanish on."""
    import dataclasses

    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
    from physics_hybrid.problems.potential.physics.solve import solve

    batch = LimbStream(limbs, (24, 14, 13), 3, "train", Solver(), torch.device("cpu")).batch(
        range(2)
    )

    def double(t):
        return t.double() if t.is_floating_point() else t

    batch = dataclasses.replace(
        batch,
        **{
            k: double(getattr(batch, k))
            for k in ("sigma", "source", "spacing", "source_point", "current")
        },
    )
    phi = solve(batch.conductor("grounded"), batch.point_source(), 1e-12).phi
    return dataclasses.replace(batch, u=phi)


#: Overrides that make a training of seconds, by what they belong to.
TINY = {
    "always": [
        "training.epochs=2",
        "training.threads=1",
        "training.device=cpu",
        "training.figures_every=0",
        "training.ema=0.0",
        "evaluation.pictures=false",
        "data.workers=0",
        "evaluation.samples=2",
        "model.statistics_samples=2",
        "tracker=none",
    ],
    "limbs": [
        "data.grid=[16,12,12]",
        "data.samples_per_epoch=6",
        "data.batch_size=2",
        "data.validation_samples=2",
        "evaluation.resolutions=[[16,12,12],[32,24,24]]",
    ],
    "files": ["data=files"],
    "fno": ["model.backbone.modes=[3,3,3]", "model.backbone.width=8", "model.backbone.depth=2"],
    "unet": ["model=unet", "model.backbone.width=4", "model.backbone.levels=2"],
}


def tiny_overrides(folder: Path, groups, overrides) -> list[str]:
    words = [o for group in ("always", *groups) for o in TINY[group]]
    words += [f"runs_folder={folder / 'runs'}"] + (
        [f"data.folder={folder / 'data'}"] if "limbs" in groups else []
    )
    named = {o.split("=")[0] for o in overrides}
    return [w for w in words if w.split("=")[0] not in named] + list(overrides)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Run folders of trainings of seconds, in this process and without pictures:
    `trained(*overrides)`; the same overrides give the same folder.
    """
    home, runs, quiet = tmp_path_factory.mktemp("trained"), {}, pytest.MonkeyPatch()

    def call(*overrides) -> Path:
        if overrides not in runs:
            from physics_hybrid.evidence.bench import configuration
            from physics_hybrid.run.train import train

            quiet.setattr(
                "physics_hybrid.problems.potential.figures.errors_by_distance",
                lambda *_: Path("none.png"),
            )
            runs[overrides] = train(
                configuration(
                    [f"run={len(runs)}", *tiny_overrides(home, ("limbs", "fno"), overrides)]
                )
            )
            quiet.undo()
        return runs[overrides]

    return call


def composed(folder: Path, run: str, overrides, tiny) -> dict:
    """The configuration that train.py would have."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose(
            "config", overrides=[f"run={run}", *tiny_overrides(folder, tiny, overrides)]
        )
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.fixture
def blank_pictures(monkeypatch):
    """Sections that take no seconds to draw, where pictures are not what is tested."""
    import matplotlib.image

    from physics_hybrid.problems.potential import figures

    def blank(batch, phi, phi_a, path, title):
        path.parent.mkdir(parents=True, exist_ok=True)
        matplotlib.image.imsave(path, np.zeros((2, 2, 3)))
        return path

    monkeypatch.setattr(figures, "slices", blank)


@pytest.fixture
def trained_here(tmp_path, blank_pictures):
    """The run folder of a training in this process: what train.py does, without the seconds it
    takes to start one and to draw its sections.
    """

    def call(overrides, tiny) -> Path:
        from physics_hybrid.run.train import train

        return train(composed(tmp_path, "here", overrides, tiny))

    return call


@pytest.fixture
def refused(tmp_path, capsys):
    """What train.py prints on standard error when it refuses a configuration: the same calls,
    without starting a process.
    """

    def call(overrides, tiny) -> str:
        from physics_hybrid.command_line import readable_errors
        from physics_hybrid.run.train import train

        config = composed(tmp_path, "refused", overrides, tiny)
        with pytest.raises(SystemExit) as left, readable_errors():
            train(config)
        assert left.value.code == 1
        assert not list(tmp_path.glob("runs/*/log.jsonl"))
        return capsys.readouterr().err

    return call


def typed_words(folder: Path, script: str, overrides, tiny) -> list[str]:
    """What follows the name of the program; training gets the groups `tiny` of TINY."""
    return tiny_overrides(folder, tiny, overrides) if script == "train" and tiny else [*overrides]


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Type a command in this process, in a temporary folder: all that train.py and evaluate.py do,
    without the seconds that a process takes to start.

    As `program`: returns what was printed and the exit status.
    """

    def call(script, *overrides, tiny=("limbs", "fno"), expect=0):
        words = typed_words(tmp_path, script, overrides, tiny)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
        capsys.readouterr()
        status = 0
        try:
            importlib.import_module(f"physics_hybrid.verbs.{script}").main(words)
        except SystemExit as left:
            status = left.code or 0
        out, err = capsys.readouterr()
        assert status == expect, f"exit {status}\n{out}\n{err}"
        return subprocess.CompletedProcess(words, status, out, err)

    return call


@pytest.fixture
def program(tmp_path):
    """Run train.py or evaluate.py as a user does, in a temporary folder.

    `tiny` names the groups of TINY to add (train only). Returns the finished process, or the
    started one with start=True.
    """

    def call(script, *overrides, tiny=("limbs", "fno"), expect=0, start=False):
        words = [
            sys.executable,
            str(ROOT / f"{script}.py"),
            *typed_words(tmp_path, script, overrides, tiny),
        ]
        if start:
            return subprocess.Popen(
                words,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        done = subprocess.run(
            words,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def sample_arrays():
    """A healthy .npz sample as a dict: a homogeneous block with air on one side."""
    shape = (8, 6, 6)
    sigma = np.full(shape, 0.3, dtype=np.float32)
    sigma[:, :, 0] = 0
    source = np.zeros(shape, dtype=np.float32)
    source[4, 3, 3] = 1e-3 / 0.004**3
    u = np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)
    return {
        "sigma": sigma,
        "source": source,
        "mask": sigma > 0,
        "u": u,
        "spacing": np.full(3, 0.004),
        "source_point": np.array([4.5, 3.5, 3.5]) * 0.004,
    }
