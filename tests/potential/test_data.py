"""Training batches are a function of seed, epoch and position, on one grid or on several in turn."""

import dataclasses

import torch

from physics_hybrid.potential.data import LimbData
from physics_hybrid.potential.stream import Solver

GRIDS = ((16, 12, 12), (12, 10, 8), (10, 8, 8))


def test_batches_take_the_grids_in_turn_wherever_they_are_entered_and_all_ranks_alike(limbs):
    data = LimbData(limbs, Solver(), GRIDS[0], 2, 0, torch.device("cpu"), "data", 14, 1, grids=GRIDS)
    assert data.steps_per_epoch == 7 and data.training_grids() == list(GRIDS)
    first, second = list(data.train_batches(0, 0)), list(data.train_batches(1, 0))
    assert [b.shape for b in first + second] == [GRIDS[i % 3] for i in range(14)]  # an epoch ends anywhere in the round
    assert len({name for b in first + second for name in b.names}) == 28  # no limb twice
    for entered, whole in zip(data.train_batches(1, 5), second[5:], strict=True):
        assert torch.equal(entered.u, whole.u) and entered.names == whole.names
    halves = [list(dataclasses.replace(data, batch_size=1, rank=r, world_size=2).train_batches(1, 0)) for r in range(2)]
    for a, b, whole in zip(*halves, second, strict=True):
        assert a.shape == b.shape == whole.shape and (*a.names, *b.names) == whole.names


def test_without_grids_nothing_changes(limbs):
    data = LimbData(limbs, Solver(), GRIDS[0], 1, 0, torch.device("cpu"), "data", 3, 1)
    assert {b.shape for b in data.train_batches(0, 0)} == {GRIDS[0]} and data.training_grids() == [GRIDS[0]]
