"""train.py and evaluate.py as a user types them.

Where no process is tested, the same words are typed in this one: `typed`.
"""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from physics_hybrid.training import checkpoint
from tests.conftest import ROOT


def folder_of(done) -> Path:
    return Path(done.stdout.strip().splitlines()[-1])


def table_of(done) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith("| ")]


def final_weights(folder: Path) -> torch.Tensor:
    state = checkpoint.load_state(folder / checkpoint.LATEST)
    return torch.cat([v.flatten().double() for v in state["model"].values()])


@pytest.mark.program
def test_train_leaves_everything_in_the_folder_it_prints_and_evaluate_agrees(
    program, typed, tmp_path, blank_pictures
):
    # no key, no terminal: nothing is asked
    drawn = ("training.figures_every=10", "evaluation.pictures=true")
    done = program("train", "tracker=wandb", "tracker.mode=offline", *drawn)
    folder = folder_of(done)
    for name in (
        "config.yaml",
        "latest_checkpoint.pt",
        "log.jsonl",
        "figures/epoch0002_train.png",
        "figures/epoch0002_validation.png",
        "figures/training.png",
        "evaluation/metrics.json",
        "evaluation/samples.csv",
        "evaluation/report.md",
        "evaluation/slices_16x12x12.png",
        "evaluation/errors_by_distance.png",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert "epoch 2/2" in done.stdout + done.stderr
    metrics = json.loads((folder / "evaluation/metrics.json").read_text())
    for grid in ("16x12x12", "32x24x24"):
        for name in (
            "relative_l2",
            "mse",
            "max_error",
            "rdm",
            "mag",
            "field_error",
            "pde_residual",
            "charge_defect",
            "seconds",
            "peak_memory_MB",
            "baseline_relative_l2",
        ):
            assert set(metrics[grid][name]) == {"mean", "std", "median", "p95", "max"}
        assert any(k.startswith("relative_l2_muscle") for k in metrics[grid])
        assert "relative_l2_20-40mm" in metrics[grid]
    assert "upsampled_relative_l2" in metrics["32x24x24"]
    assert "upsampled_relative_l2" not in metrics["16x12x12"]
    assert {"checkpoint", "commit", "seed", "hardware", "samples"} <= set(metrics)
    with open(folder / "evaluation/samples.csv") as file:
        assert len(list(csv.DictReader(file))) == 4

    model = next((folder / "best").glob("*.mdlus"))
    trained = table_of(done)
    assert len(trained) >= 6
    for way, where in (
        (program, folder),
        (typed, folder / "latest_checkpoint.pt"),
        (typed, folder / "best"),
        (typed, model),
    ):
        again = way("evaluate", f"checkpoint={where}", f"output={tmp_path / 'report'}")
        assert table_of(again) == trained  # six digits
        assert folder_of(again) == tmp_path / "report"
    # the same command again: nothing to train, the same numbers
    assert table_of(typed("train", f"run={folder.name}")) == trained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "tiny"),
    [
        ([], ("limbs", "unet")),
        (["model=fno"], ("limbs", "fno")),
        (
            [
                "model.composition=direct",
                "training.ema=0.5",
                "training.clipping.mode=agc",
                "training.precision=bf16",
            ],
            ("limbs", "fno"),
        ),
        (
            ["loss.pde.weight=0.1", "loss.charge.weight=0.1", "loss.mask=[muscle,fat]"],
            ("limbs", "fno"),
        ),
        (
            ["data=generated", "data.train_samples=6", "data.workers=1", "tracker=tensorboard"],
            ("limbs", "fno"),
        ),
        (["problem.ends=robin", "loss.pde.weight=0.1", "loss.charge.weight=0.1"], ("limbs", "fno")),
        (["problem.ends=sink", "loss.pde.weight=0.1", "loss.charge.weight=0.1"], ("limbs", "fno")),
        (
            [
                "problem.ends=pair",
                "data.phantom.pair_distance=0.08",
                "loss.pde.weight=0.1",
                "loss.charge.weight=0.1",
            ],
            ("limbs", "fno"),
        ),
        (
            [
                "data.phantom.pennation=[10,25]",
                "data.sigma_components=6",
                "loss.pde.weight=0.1",
                "loss.charge.weight=0.1",
            ],
            ("limbs", "fno"),
        ),
        (
            [
                "data.solver=finite_element",
                "data.phantom.pennation=[10,25]",
                "data.sigma_components=6",
                "data.phantom.bone_shape=tibia_fibula",
                "loss.pde.weight=0.1",
                "loss.charge.weight=0.1",
            ],
            ("limbs", "unet"),
        ),
        (
            [
                "model=uno",
                "model.backbone.depth=2",
                "model.backbone.block=layerscale",
                "training.clipping.mode=agc",
                "training.clipping.threshold=0.1",
                "training.monitor_every=2",
            ],
            ("limbs", "fno"),
        ),
    ],
    ids=[
        "unet",
        "fno",
        "direct-ema-agc-bf16",
        "physics",
        "generated",
        "robin",
        "sink",
        "pair",
        "oblique",
        "elements",
        "uno-layerscale-agc",
    ],
)
def test_other_choices_train_the_same_way(trained_here, overrides, tiny):
    folder = trained_here(overrides, tiny)
    metrics = json.loads((folder / "evaluation/metrics.json").read_text())
    assert metrics["16x12x12"]["relative_l2"]["mean"] < 2
    log = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    expected = {"mse", "gradient"} | (
        {"pde", "charge"} if "loss.pde.weight=0.1" in overrides else set()
    )
    assert expected == {k.removeprefix("train/") for k in log if k.startswith("train/")} - {
        "loss",
        "gradient_norm",
        "parameter_norm",
        "learning_rate",
    }


LONGER = [
    "data.samples_per_epoch=40",
    "training.checkpoint_every=3",
    "evaluation.samples=1",
    "evaluation.after_training=false",
]


def saved_at(folder):
    """When a state was last saved, ns; 0 where there is none, or one just takes another's place."""
    try:
        return (folder / checkpoint.LATEST).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.program
@pytest.mark.parametrize(
    ("kills", "grids"),
    [(1, "null"), (2, "[[16,12,12],[12,10,8],[20,12,12]]")],
    ids=["one grid", "mixed grids"],
)
def test_killed_in_the_middle_and_started_again_gives_the_same_bits(
    program, typed, tmp_path, blank_pictures, kills, grids
):
    """kill -9 at a random moment of training; the same command again."""
    longer = [*LONGER, f"data.grids={grids}"]
    whole = folder_of(typed("train", "run=whole", *longer))
    cut = tmp_path / "runs" / "cut"
    chance = random.Random(0)
    for _ in range(kills):
        process = program("train", "run=cut", *longer, start=True)
        before = saved_at(cut)
        while process.poll() is None and saved_at(cut) <= before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    middle = checkpoint.load_latest(cut)["progress"]
    assert 0 < middle["step"] < 40
    assert not middle["finished"]
    done = typed("train", "run=cut", *longer)
    assert "going on from" in done.stdout
    assert torch.equal(final_weights(cut), final_weights(whole))
    assert (
        (cut / "log.jsonl").read_text().count("\n")
        == (whole / "log.jsonl").read_text().count("\n")
        == 2
    )


@pytest.mark.program
def test_sigterm_saves_exits_with_its_code_and_a_damaged_latest_falls_back(
    program, typed, tmp_path, blank_pictures
):
    folder = tmp_path / "runs" / "r"
    process = program("train", "run=r", *LONGER, start=True)
    while process.poll() is None and not (folder / checkpoint.PREVIOUS).exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 85, output
    assert "SIGTERM: state saved" in output
    latest = folder / checkpoint.LATEST
    latest.write_bytes(latest.read_bytes()[:-1000])
    done = typed("train", "run=r", *LONGER)
    assert "cannot be read" in done.stderr
    assert "instead" in done.stderr
    assert "going on from" in done.stdout


@pytest.mark.program
def test_a_signal_while_nothing_can_be_saved_does_not_ask_for_the_same_again(
    program, typed, tmp_path
):
    """Ahead of training, and in the evaluation of a run that is complete: 143, not the status that
    submits a job again. After training: saved.
    """
    folder, slow = (
        tmp_path / "runs" / "r",
        [
            "training.epochs=1",
            "evaluation.samples=400",
            "evaluation.resolutions=[[48,24,24]]",
        ],
    )

    def told(when, *words):
        process = program("train", "run=r", *words, start=True)
        for line in process.stdout:
            if when in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        return process.returncode

    assert told("run ", "data.validation_samples=4000") == 143
    assert not (folder / checkpoint.LATEST).exists()
    assert told("epoch 1/1", *slow) == 85
    assert checkpoint.load_latest(folder)["progress"]["finished"]
    assert told("complete already", *slow) == 143
    done = typed("train", "run=r", *slow, "evaluation.after_training=false")
    assert "not evaluated yet" in done.stdout
    assert "pbs/evaluate.pbs" in done.stdout
    assert not (folder / "evaluation").exists()


@pytest.mark.program
def test_sigterm_to_the_whole_group_finds_the_readers_alive_until_the_state_is_saved(
    program, tmp_path
):
    """As PBS sends it: to every process of a job, those that read data included."""
    folder = tmp_path / "runs" / "r"
    process = program(
        "train",
        "run=r",
        "data=generated",
        "data.train_samples=40",
        "data.workers=2",
        "training.epochs=50",
        "training.checkpoint_every=3",
        start=True,
    )
    while process.poll() is None and not (folder / checkpoint.PREVIOUS).exists():
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 85, output
    assert "SIGTERM: state saved" in output
    assert "Traceback" not in output


@pytest.mark.program
def test_a_users_own_files(typed, tmp_path, limbs, blank_pictures):
    """Training and evaluation on .npz files of two grids, without labels or masks; broken ones
    skipped when asked.
    """
    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver

    folder = tmp_path / "mine"
    folder.mkdir()
    for grid, numbers in (((16, 12, 12), range(5)), ((20, 12, 10), range(5, 8))):
        batch = LimbStream(limbs, grid, 9, "train", Solver(), torch.device("cpu")).batch(numbers)
        for i, n in enumerate(numbers):
            np.savez(
                folder / f"{n}.npz",
                sigma=np.moveaxis(batch.sigma[i].numpy(), 0, -1),
                source=batch.source[i].numpy(),
                u=batch.u[i].numpy(),
                spacing=batch.spacing[i].numpy(),
            )
    options = [f"data.path={folder}", "data.splits={train: 0.5, validation: 0.25, test: 0.25}"]
    done = typed("train", *options, "experiment=native", "run=mine", tiny=("files", "fno"))
    metrics = json.loads((folder_of(done) / "evaluation/metrics.json").read_text())
    assert {k for k in metrics if "x" in k and k[0].isdigit()} <= {"16x12x12", "20x12x10"}
    (folder / "zz.npz").write_bytes(b"broken")
    failed = typed("train", *options, "run=another", tiny=("files", "fno"), expect=1)
    assert "zz.npz" in failed.stderr
    assert "Traceback" not in failed.stderr
    evaluated = typed(
        "evaluate",
        f"checkpoint={folder_of(done)}",
        "data=files",
        f"data.path={folder}",
        "data.on_error=skip",
        f"output={tmp_path / 'e'}",
    )
    assert "zz.npz" in evaluated.stderr
    assert "1 skipped, 8 samples left" in evaluated.stderr
    report = json.loads((tmp_path / "e/metrics.json").read_text())
    assert {"16x12x12", "20x12x10"} <= set(report)
    with open(tmp_path / "e/samples.csv") as file:
        assert len(list(csv.DictReader(file))) == 8


@pytest.mark.parametrize(
    ("overrides", "tiny", "message"),
    [
        (
            ["model.backbone.modes=[3,9,3]"],
            ("limbs", "fno"),
            r"9 Fourier modes along H exceed what the grid \(16, 12, 12\) holds \(at most 6\)",
        ),
        (
            ["model.backbone.levels=4"],
            ("limbs", "unet"),
            r"grid \(16, 12, 12\) is too small to be halved 4 times",
        ),
        (["runs_folder=/proc/none"], ("limbs", "fno"), "cannot be written"),
        (["model.composition=sum"], ("limbs", "fno"), "multiplicative, additive, direct"),
        (["data.path=/nowhere"], ("files", "fno"), "does not exist"),
        (["data.solve.tolerance=1e-30"], ("limbs", "fno"), "did not reach a relative residual"),
        (["problem.ends=neumann"], ("limbs", "fno"), "grounded: .*robin: .*sink: .*pair: "),
        (["problem.ends=robin", "problem.beta=0"], ("limbs", "fno"), "no way out"),
        (
            ["model.baseline.kind=coarse_solve", "model.baseline.coarsen=4"],
            ("limbs", "fno"),
            "makes 4x3x3 voxels of the grid 16x12x12",
        ),
        (
            ["model.baseline.kind=cubic"],
            ("limbs", "fno"),
            "isotropic, anisotropic, coarse_solve or solve",
        ),
        (["data.solver=spectral"], ("limbs", "fno"), "finite_volume or finite_element"),
        (
            ["data.solver=finite_element", "data.solve.dtype=float32"],
            ("limbs", "fno"),
            "solved in float64",
        ),
        (
            ["problem.ends=sink", "loss.charge.weight=1", "loss.charge.boxes=0"],
            ("limbs", "fno"),
            "loss.charge.boxes of at least 1",
        ),
        (
            ["evaluation.resolutions=[[4,4,4]]"],
            ("limbs", "fno"),
            r"modes along D exceed what the grid \(4, 4, 4\)",
        ),
        (["evaluation.resolutions=[16,12,12]"], ("limbs", "fno"), "must be a list of grids"),
        (["evaluation.samples=0"], ("limbs", "fno"), "evaluation.samples"),
        (["model.backbone.modes=[3,3]"], ("limbs", "fno"), "must be three whole numbers"),
        (["tracker=wandb", "tracker.mode=foo"], ("limbs", "fno"), "tracker.mode must be"),
        (
            ["data.phantom.sigma.fat=[0.05,-0.1,0.05]"],
            ("limbs", "fno"),
            "data.phantom.sigma.fat must be three positive",
        ),
        (["training.init_from=/nowhere"], ("limbs", "fno"), "does not exist"),
        (
            ["data.grids=[[16,12,12],[4,4,4]]"],
            ("limbs", "fno"),
            r"exceed what the grid \(4, 4, 4\)",
        ),
        (
            ["data.grids=[16,12,12]"],
            ("limbs", "fno"),
            "each of data.grids must be three whole sizes",
        ),
        (
            ["data=generated", "data.grids=[[16,12,12],[32,24,24]]"],
            ("limbs", "fno"),
            "set data.train_samples=null",
        ),
        (["training.lost_rank_seconds=0"], ("limbs", "fno"), "lost_rank_seconds must be > 0"),
        (["training.requeue_exit_code=0"], ("limbs", "fno"), "requeue_exit_code must be 3 to 125"),
        (["training.requeue_exit_code=86"], ("limbs", "fno"), "not 86"),
    ],
    ids=lambda v: v[0].split("=")[0] if isinstance(v, list) else None,
)
def test_bad_settings_fail_before_training_in_one_line(refused, overrides, tiny, message):
    errors = refused(overrides, tiny)
    assert re.search(message, errors), errors
    assert [line for line in errors.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.epoch=3"], "did you mean training.epochs"),
        (["epochs=3"], "did you mean training.epochs"),
        (["modle=unet"], "did you mean model"),
        (["model=unett"], "fno_residual"),
        (["training.epochs=abc"], "a whole number is expected"),
        (["training.learning_rate=fast"], "a number is expected"),
        (["model.backbone.levels=3"], "no key"),
        (["epochs"], "write key=value"),
        (["data.grid=5"], "a list of 3 whole numbers or null is expected"),
        (["data.workers=true"], "a whole number"),
        (["data.path=/var/tmp/48213[7].pbs01"], "needs quotes"),
    ],
)
def test_typos_get_a_suggestion_at_once(typed, words, message):
    done = typed("train", *words, tiny=None, expect=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_explains_a_bad_checkpoint(typed, tmp_path):
    # quoted as evaluate.pbs does
    assert (
        "/nowhere/48213[7].pbs01 does not exist"
        in typed("evaluate", "checkpoint='/nowhere/48213[7].pbs01'", expect=1).stderr
    )
    (tmp_path / "x.mdlus").write_bytes(b"no")
    assert (
        "x.mdlus cannot be read"
        in typed("evaluate", f"checkpoint={tmp_path / 'x.mdlus'}", expect=1).stderr
    )
    assert "checkpoint" in typed("evaluate", expect=2).stderr


@pytest.mark.program
def test_other_settings_in_an_old_folder_are_refused(typed, blank_pictures):
    short = ["training.epochs=1", "evaluation.samples=1", "evaluation.after_training=false"]
    typed("train", "run=a", *short)
    done = typed("train", "run=a", *short, "model.backbone.width=12", expect=1)
    assert "model.backbone.width: 8 -> 12" in done.stderr
    typed("train", "run=b", *short, "training.init_from=runs/a")


@pytest.mark.parametrize(
    "word", ["training.epochs=0", "training.betas=[2,0.9]", "training.clipping.mode=soft"]
)
def test_settings_of_the_training_are_refused_before_limbs_are_solved(typed, tmp_path, word):
    done = typed("train", "data=generated", "data.train_samples=2", word, expect=1)
    assert word.split("=")[0] in done.stderr
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.program
def test_a_typo_ends_the_program_with_its_line_and_status(program):
    done = program("train", "training.epoch=3", tiny=None, expect=2)
    assert done.stderr.startswith("error: there is no key 'training.epoch'; did you mean")
    assert not done.stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("train", ("experiment=native data.path=FOLDER", "fno_residual")),
        ("evaluate", ("checkpoint=runs/mine",)),
    ],
)
def test_help_is_a_page(typed, script, words):
    page = typed(script, "--help", tiny=None).stdout
    for word in words:
        assert word in page


HEAVY = """
import runpy, sys
sys.argv = ["train.py", "--help"]
try:
    runpy.run_path(TRAIN, run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""


@pytest.mark.program
def test_help_does_not_wait_for_torch(tmp_path):
    code = HEAVY.replace("TRAIN", repr(str(ROOT / "train.py")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "fno_residual" in done.stdout


@pytest.mark.slow
def test_every_key_is_commented_and_used():
    """A key without a comment above it (or above its group) or without a reader in the package is a
    mistake.
    """
    sources = "\n".join(
        p.read_text() for p in [*ROOT.glob("*.py"), *(ROOT / "physics_hybrid").rglob("*.py")]
    )
    for path in (ROOT / "conf").rglob("*.yaml"):
        if "hydra" in path.parts or path.parent.name == "experiment":
            continue
        lines = path.read_text().splitlines()
        assert lines[0].startswith("#"), f"{path}: no comment on top"
        if path.parent.name in ("chain", "study"):  # their arms and stages have names
            lines = [line for line in lines if not line.startswith(" ")]
        for line in lines:
            key = re.match(r"\s*([a-z_]+):", line)
            if key and key[1] not in ("defaults", "hydra", "run", "output_subdir"):
                assert re.search(rf"\b{key[1]}\b", sources), f"{path}: nothing reads {key[1]}"
