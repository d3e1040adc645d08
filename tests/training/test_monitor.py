"""The monitor says what comes out of blocks, changes nothing, and is gone between its steps."""

import json

import pytest
import torch

from physics_hybrid.models.blocks import BLOCKS, IDENTITIES
from physics_hybrid.models.fno import ResidualFNO2D
from physics_hybrid.models.uno import UNO2D
from physics_hybrid.training.monitor import Monitor, growth, record
from tests.training.test_trainer import trainer


def network(block="post_gelu", **options):
    torch.manual_seed(0)
    return ResidualFNO2D(1, 2, width=4, depth=3, modes=[2, 2], block=block, **options)


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_is_right_and_changes_nothing(checkpointing):
    model, plain = (network(activation_checkpointing=checkpointing) for _ in range(2))
    with torch.no_grad():
        for net in (model, plain):
            net.head[2].weight.fill_(0.1)
    x = torch.randn(2, 1, 8, 8)
    monitor = Monitor(model, every=5)
    with monitor.watching(step=10):
        model(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert torch.equal(gradients(model), gradients(plain))
    seen = monitor.blocks()
    assert list(seen) == ["blocks.0", "blocks.1", "blocks.2"]
    fields = [plain.lift(x.movedim(1, -1)).detach().requires_grad_()]
    for block in plain.blocks:
        fields.append(block(fields[-1]))
        fields[-1].retain_grad()
    plain.head(fields[-1]).square().sum().backward()
    for (before, after), taken in zip(
        zip(fields, fields[1:], strict=False), seen.values(), strict=True
    ):
        assert taken["mean"] == pytest.approx(float(after.detach().mean()), rel=1e-5)
        assert taken["std"] == pytest.approx(float(after.detach().std()), rel=1e-5)
        assert taken["rms"] == pytest.approx(float(after.detach().square().mean().sqrt()), rel=1e-5)
        assert taken["rms_in"] == pytest.approx(
            float(before.detach().square().mean().sqrt()), rel=1e-5
        )
        expected = float(after.grad.square().mean().sqrt())
        assert taken["gradient_rms"] == pytest.approx(expected, rel=1e-4)
    assert growth(seen) == pytest.approx(seen["blocks.2"]["rms"] / seen["blocks.0"]["rms_in"])
    assert not any(layer._forward_hooks for layer in model.modules())
    with monitor.watching(step=11):
        model(x)
    assert monitor.blocks() == {}
    assert not Monitor(model, every=0).due(0)


@pytest.mark.parametrize("block", BLOCKS)
def test_growth_at_the_start_is_1_where_the_identity_is_promised(block):
    torch.manual_seed(0)
    model = UNO2D(1, width=8, depth=12, modes=[4, 4], block=block)
    monitor = Monitor(model, every=1)
    with monitor.watching(0):
        model(torch.randn(2, 1, 16, 16))
    assert len(monitor.blocks()) == 12
    assert (growth(monitor.blocks()) == pytest.approx(1, rel=1e-5)) == (block in IDENTITIES)


def test_what_is_not_finite_is_null():
    line = json.dumps(record(3, {"a": {"rms": float("nan"), "mean": 1.0}}), allow_nan=False)
    assert json.loads(line) == {"step": 3, "blocks": {"a": {"rms": None, "mean": 1.0}}}


def test_a_run_keeps_a_record_for_each_watched_step(tmp_path):
    run = trainer(tmp_path / "run", monitor_every=3)
    run.activations = Monitor(torch.nn.ModuleDict({"line": _watched(run.model)}), every=3)
    run.fit()
    lines = (tmp_path / "run/activations.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == list(range(0, run.total_steps, 3))
    assert json.loads(lines[0])["blocks"]["line"]["rms"] > 0


def _watched(model):
    model.monitored = True
    return model
