"""Divided among two ranks, a training is the one that nobody divides."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from physics_hybrid.training.sharding import refuse_undivided
from tests.conftest import ROOT

LAUNCH = (sys.executable, "-m", "physics_hybrid", "torchrun", "--standalone", "--nproc_per_node=2")


@pytest.mark.cluster
def test_divided_weights_are_those_of_ddp_and_each_goes_on_from_the_other(tmp_path):
    made = subprocess.run(
        [*LAUNCH, "-m", "tests.training.divided", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    held = [found.pop("held") for found in ranks]
    assert held == [38, 22]
    for found in ranks:
        assert all(found.values()), found


def test_weights_that_cannot_be_divided_are_named():
    model = nn.Linear(2, 2)
    refuse_undivided(model)
    model.gain = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match="fsdp cannot divide gain"):
        refuse_undivided(model)
