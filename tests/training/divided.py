"""Two ranks train a small network, divided and not, and say what came out: `test_sharding.py`."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from physics_hybrid.cluster.machine import finalize, initialize
from physics_hybrid.cluster.signals import Requeue
from physics_hybrid.training import checkpoint
from physics_hybrid.training.tracker import Tracker
from physics_hybrid.training.trainer import Trainer
from tests.training.test_trainer import Fit, settings

MACHINE = initialize("cpu")


class Share(Fit):
    """Each rank has points of its own."""

    def train_batches(self, epoch, start, done):
        return super().train_batches(50 * MACHINE.rank + epoch, start, done)

    def loss(self, model, batch):
        """A part that does not train follows one that does."""
        found = super().loss(model, batch)
        layers = getattr(model, "module", model)
        with torch.no_grad():
            layers[2].bias.lerp_(layers[0].bias[:3], 0.1)
        return found


def network():
    """Sizes that two ranks cannot halve, one of them 1, and weights that do not train."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))
    layers[2].bias.requires_grad_(False)
    return layers


def trainer(folder, hook=None, fused=True, **change):
    folder.mkdir(exist_ok=True, parents=True)
    model = network()
    made = Trainer(model, Share(hook=hook), settings(**change), MACHINE, folder, Tracker(), {}, {})
    made.optimizer.param_groups[0]["fused"] = fused
    return made


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.evaluated.parameters()])


def trained(folder, **change):
    made = trainer(folder, **change)
    made.fit()
    return weights(made)


def broken_off(folder, first, then, **change):
    """Left in the middle of the second epoch as `first`, and gone on with as `then`."""
    made = trainer(folder, parallel=first, **change)
    made.problem.hook = lambda key: stop(made, key)
    with pytest.raises(Requeue):
        made.fit()
    again = trainer(folder, parallel=then, **change)
    again.restore(checkpoint.load_latest(folder))
    again.fit()
    return weights(again)


def stop(made, key):
    if key % 5000 % 100 == 2 and made.progress.epoch == 1:
        made.signals.number = 15


def main(folder):
    exact = {"fused": False, "clipping_threshold": 0.05, "accumulate": 2}
    ddp, fsdp = (trained(folder / p, parallel=p, **exact) for p in ("ddp", "fsdp"))
    fused = {p: trained(folder / f"fused {p}", parallel=p) for p in ("ddp", "fsdp")}
    values = {
        p: trained(folder / f"value {p}", parallel=p, clipping_mode="value", fused=False)
        for p in ("ddp", "fsdp")
    }
    divided = [
        p for p in trainer(folder / "n", parallel="fsdp").model.parameters() if p.requires_grad
    ]
    held = sum(p.to_local().numel() for p in divided)
    found = {
        "the same bits": torch.equal(ddp, fsdp),
        "moved": not torch.equal(ddp, weights(trainer(folder / "new"))),
        "clipped by value": torch.equal(values["ddp"], values["fsdp"]),
        "fused, to rounding": torch.allclose(fused["ddp"], fused["fsdp"], rtol=1e-6, atol=1e-6),
        "held": held,
    }
    for first, then in (("fsdp", "fsdp"), ("fsdp", "ddp"), ("ddp", "fsdp")):
        went = broken_off(folder / first / then, first, then, **exact)
        found[f"{first}, then {then}"] = torch.equal(went, ddp)
    resumed = broken_off(folder / "fused again", "fsdp", "fsdp")
    found["fused, resumed"] = torch.equal(resumed, fused["fsdp"])
    (folder / f"{MACHINE.rank}.json").write_text(json.dumps(found))
    finalize()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
