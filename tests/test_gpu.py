"""What can be known of a GPU without one: no tensor is left behind on the CPU. See
`pretend_cuda`.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.pretend_cuda import CANNOT_PRETEND

pytestmark = [pytest.mark.gpu, pytest.mark.program]
SMALL = [
    "data.grid=[24,12,12]",
    "data.samples_per_epoch=4",
    "data.validation_samples=1",
    "training.epochs=1",
    "training.threads=1",
    "data.workers=0",
    "evaluation.samples=1",
    "evaluation.resolutions=[[24,12,12]]",
    "tracker=none",
    "data.solve_together=2",
    "loss.gradient.weight=0.1",
    "loss.pde.weight=0.1",
    "loss.charge.weight=0.1",
]


def run(*command, folder):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == CANNOT_PRETEND:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    return done


@pytest.mark.parametrize(
    ("overrides", "pictures"),
    [
        (["training.ema=0.9", "data.phantom.source_margin=0", "loss.mask=[muscle,fat]"], []),
        (
            [
                "problem.ends=pair",
                "data.phantom.pair_distance=0.06",
                "model=unet",
                "data.solver=finite_element",
                "data.phantom.pennation=[10,25]",
                "data.sigma_components=6",
            ],
            ["--no-pictures"],
        ),
        (
            [
                "data.phantom.pennation=[10,25]",
                "data.sigma_components=6",
                "problem.ends=robin",
                "problem.beta=5",
                "model.baseline.kind=coarse_solve",
            ],
            ["--no-pictures"],
        ),
    ],
    ids=["near the end", "pair of elements", "oblique, robin, coarse solve"],
)
def test_a_training_on_a_gpu_leaves_no_tensor_on_the_cpu_and_finds_the_same(
    overrides, pictures, tmp_path, typed, blank_pictures
):
    def metrics(where):
        return json.loads((tmp_path / where / "one/evaluation/metrics.json").read_text())

    def words(where):
        return ["run=one", f"runs_folder={tmp_path / where}", *SMALL, *overrides]

    done = run("-m", "tests.pretend_cuda", *pictures, *words("gpu"), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    typed("train", "training.device=cpu", *words("cpu"), tiny=None)
    gpu, cpu = metrics("gpu")["24x12x12"], metrics("cpu")["24x12x12"]
    for name in ("relative_l2", "baseline_relative_l2", "rdm", "pde_residual", "charge_defect"):
        assert gpu[name]["mean"] == pytest.approx(cpu[name]["mean"], rel=1e-3), name


def test_what_cuda_would_refuse_is_refused(tmp_path):
    wrong = [
        "there + here",
        "here[index]",
        "torch.where(there > 0, there, here)",
        "there.index_put((index,), here)",
        "torch.stack([there, here])",
        "torch.stack([there.sum(), here.sum()])",
        "there.numpy()",
        "np.asarray(there)",
    ]
    right = [
        "there + 1",
        "there * torch.tensor(2.0)",
        "there[here.long() * 0]",
        "there.cpu() + here",
        "torch.zeros(3, device=GPU).copy_(here) + there",
        "there[[0, -1]].tolist()",
    ]
    script = f"""
from tests.pretend_cuda import *
take_over()
with PretendCuda():
    there, here, index = torch.ones(3, device=GPU), torch.ones(3), torch.arange(3, device=GPU)
    for wrong in {wrong}:
        try:
            eval(wrong)
            print("let through:", wrong)
        except (RuntimeError, TypeError) as error:
            assert "two devices" in str(error) or "numpy" in str(error), error
    for right in {right}:
        eval(right)
"""
    done = run("-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    assert not done.stdout
