"""Selection among candidates, beside its controls."""

from __future__ import annotations

import torch

from physics_hybrid.problems.burgers.metrics import frame_errors
from physics_hybrid.problems.burgers.rivals import Stepper
from physics_hybrid.problems.burgers.selection import REWARDS, Selection, compare

NU = torch.full((3,), 1e-3)


def trajectories(frames: int) -> torch.Tensor:
    """By the stepper that is also the model: its deterministic rollout is the truth."""
    x = (torch.arange(32) + 0.5) / 32
    u = torch.stack([torch.sin(2 * torch.pi * x + k) for k in range(3)])
    return Stepper(32, 0.05).path(u, NU, frames)


def compared(frames: int):
    settings = Selection(candidates=6, perturbation=0.05, cells=32)
    true = trajectories(frames)
    noise = torch.Generator().manual_seed(0)
    return compare(Stepper(32, 0.05), true, NU, settings, noise), true


def test_every_reward_and_every_control_is_there_with_its_cost():
    chosen, true = compared(3)
    assert set(chosen) == {"deterministic", "mean", "random", *REWARDS}
    assert {name: c.evaluations for name, c in chosen.items()} == {
        name: 1 if name == "deterministic" else 6 for name in chosen
    }
    assert all(c.path.shape == (3, 3, 32) for c in chosen.values())
    assert float(chosen["deterministic"].error(true[:, 1:]).max()) == 0


def test_the_oracle_is_the_best_of_the_candidates_in_one_step():
    chosen, true = compared(1)
    errors = {name: float(c.error(true[:, 1:]).mean()) for name, c in chosen.items()}
    # each way draws candidates of its own: of many, the best and the worst are alike
    assert errors["oracle"] < 1.05 * min(errors[name] for name in ("random", "mass", "energy"))
    assert errors["mean"] < errors["random"]
    # the stepper is the truth here: what is nearest to it is what the oracle takes
    assert abs(errors["residual"] - errors["oracle"]) < 0.2 * errors["oracle"]


def test_a_reward_takes_the_candidate_of_least_cost():
    before = torch.zeros(1, 4)
    candidates = torch.tensor([[1.0, 0, 0, 0], [0.5, -0.5, 0, 0], [0.1, 0.1, 0.1, 0.1]])[:, None]
    stepped, true = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.1, 0.1, 0.1, 0.0]])
    best = {k: int(cost(candidates, before, stepped, true).argmin()) for k, cost in REWARDS.items()}
    assert best == {"mass": 1, "residual": 0, "oracle": 2, "energy": 2}
    assert frame_errors(candidates[0][None], candidates[0][None]).item() == 0
