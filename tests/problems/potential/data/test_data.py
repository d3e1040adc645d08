"""The order of an epoch: the same samples in the same order, whatever the number of ranks, and each
once where that number changes.
"""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from physics_hybrid.problems.potential.data.file_data import FileData
from physics_hybrid.problems.potential.data.files import Address
from physics_hybrid.problems.potential.data.generated import generate
from physics_hybrid.problems.potential.data.limb_data import LimbData
from physics_hybrid.problems.potential.data.loading import Entry, Files
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.losses import PotentialLoss
from tests.conftest import ROOT, limb_distribution

KEY = (0, 3)
ONE_GRID, SEVERAL = (
    [(16, 12, 12)] * 23,
    [(16, 12, 12)] * 12 + [(20, 12, 10)] * 7 + [(24, 8, 8)] * 2 + [(8, 8, 8)],
)


def global_batches(shapes, ranks, batch_size=2, done=(), key=KEY):
    """The numbers of the samples in each batch of all ranks together."""
    entries = [Entry(Address(Path("f.h5"), i), shape, str(i)) for i, shape in enumerate(shapes)]
    shares = [
        Files(entries, batch_size, torch.device("cpu"), rank=r, world_size=ranks).rows(key, done)
        for r in range(ranks)
    ]
    assert all(len({len(share) for share in batch}) == 1 for batch in zip(*shares, strict=True))
    return [[a.row for share in batch for a in share] for batch in zip(*shares, strict=True)]


def distinct(batches):
    return list(dict.fromkeys(itertools.chain(*batches)))


@pytest.mark.parametrize("shapes", [ONE_GRID, SEVERAL], ids=["one", "several"])
def test_every_epoch_has_each_sample_in_batches_of_one_grid(shapes):
    for ranks in (1, 2, 3, 8):
        batches = global_batches(shapes, ranks)
        assert sorted(distinct(batches)) == list(range(len(shapes)))
        assert all(len({shapes[i] for i in batch}) == 1 for batch in batches)
    assert distinct(batches) != distinct(global_batches(shapes, 8, key=(0, 4)))


@pytest.mark.parametrize("shapes", [ONE_GRID, SEVERAL], ids=["one", "several"])
def test_ranks_times_batch_size_decides_the_global_batches(shapes):
    """Up to the samples that are repeated at the end of a grid, for equal shares."""
    alone = global_batches(shapes, 1, batch_size=8)
    for ranks, batch_size in ((2, 4), (4, 2), (8, 1)):
        together = global_batches(shapes, ranks, batch_size)
        assert [batch[: len(whole)] for batch, whole in zip(together, alone, strict=True)] == alone
        assert all(
            len(batch) - len(whole) < ranks for batch, whole in zip(together, alone, strict=True)
        )


@pytest.mark.parametrize("shapes", [ONE_GRID, SEVERAL], ids=["one", "several"])
def test_the_order_within_a_grid_does_not_depend_on_the_number_of_ranks(shapes):
    def of_grid(ranks, shape):
        return [i for i in distinct(global_batches(shapes, ranks)) if shapes[i] == shape]

    for shape in set(shapes):
        assert of_grid(1, shape) == of_grid(2, shape) == of_grid(5, shape)


@pytest.mark.parametrize("shapes", [ONE_GRID, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3), (4, 2)])
def test_another_number_of_ranks_goes_on_with_exactly_the_samples_that_are_left(
    shapes, before, after
):
    whole = global_batches(shapes, before)
    for count in range(len(whole) + 1):
        seen = distinct(whole[:count])
        rest = distinct(global_batches(shapes, after, done=[(before, count)]))
        assert not set(seen) & set(rest)
        assert len(seen) + len(rest) == len(shapes)
        again = distinct(global_batches(shapes, after, done=[(before, count)])[:1])
        last = distinct(global_batches(shapes, before, done=[(before, count), (after, 1)]))
        assert sorted(seen + again + last) == list(range(len(shapes)))
        if len(set(shapes)) == 1:
            assert seen + rest == distinct(whole)


class Numbers(list):
    def split(self, size):
        return [Numbers(self[k : k + size]) for k in range(0, len(self), size)]


@pytest.fixture
def numbers(monkeypatch):
    """Streams give the numbers of the limbs, unsolved."""
    monkeypatch.setattr(LimbStream, "batch", lambda self, numbers: Numbers(numbers))


def limb_data(limbs, ranks, rank):
    return LimbData(
        limbs=limbs,
        solver=Solver(),
        grid=(16, 12, 12),
        batch_size=2,
        seed=0,
        device=torch.device("cpu"),
        folder="data",
        samples_per_epoch=10,
        validation_samples=1,
        rank=rank,
        world_size=ranks,
    )


def in_turn(limbs, samples_per_epoch):
    """Streamed limbs on several grids."""
    one = limb_data(limbs, 1, 0)
    return dataclasses.replace(one, grid=GRIDS[0], grids=GRIDS, samples_per_epoch=samples_per_epoch)


def streamed(limbs, ranks, epoch, done=()):
    shares = [limb_data(limbs, ranks, r) for r in range(ranks)]
    batches = [
        sum(parts, [])
        for parts in zip(*[s.train_batches(epoch, 0, done) for s in shares], strict=True)
    ]
    assert len(batches) == shares[0].steps_left(epoch, done)
    assert all(len(b) == 2 * ranks for b in batches)
    return batches


def test_streamed_epochs_of_a_size_that_the_global_batch_does_not_divide_begin_at_the_same_limb(
    limbs, numbers
):
    for epoch in (0, 3):
        for ranks in (1, 2, 3):
            assert sum(streamed(limbs, ranks, epoch), [])[:10] == list(
                range(10 * epoch, 10 * epoch + 10)
            )
    assert limb_data(limbs, 3, 0).steps_per_epoch == 2


def test_streamed_limbs_go_on_where_other_ranks_left_them(limbs, numbers):
    for before, after in ((2, 1), (1, 3), (3, 2)):
        for count in range(limb_data(limbs, before, 0).steps_per_epoch):
            seen = sum(streamed(limbs, before, 1)[:count], [])
            assert (seen + sum(streamed(limbs, after, 1, [(before, count)]), []))[:10] == list(
                range(10, 20)
            )
    assert limb_data(limbs, 1, 0).steps_left(1, [(3, 2)]) == 0


def test_limbs_solved_ahead_come_in_the_same_order(limbs, numbers):
    for ranks in (1, 2):
        for at_once in (1, 2, 6, 7, 100):
            ahead = [
                dataclasses.replace(limb_data(limbs, ranks, r), solve_together=at_once)
                for r in range(ranks)
            ]
            plains = [limb_data(limbs, ranks, r) for r in range(ranks)]
            for plain, data in zip(plains, ahead, strict=True):
                for start in range(4):
                    assert list(data.train_batches(1, start)) == list(plain.train_batches(1, start))


def test_limbs_solved_ahead_are_the_same_limbs_and_the_same_bits_on_a_resume(limbs):
    plain = limb_data(limbs, 1, 0)
    ahead = dataclasses.replace(plain, solve_together=6)
    whole = list(ahead.train_batches(0, 0))
    for a, b in zip(whole, plain.train_batches(0, 0), strict=True):
        assert a.names == b.names
        assert torch.equal(a.sigma, b.sigma)
        assert torch.equal(a.source, b.source)
        assert float((a.u - b.u).norm() / b.u.norm()) < 1e-6
    for a, b in zip(whole[4:], ahead.train_batches(0, 4), strict=True):
        assert torch.equal(a.u, b.u)


GRIDS = ((16, 12, 12), (12, 10, 8), (10, 8, 8))


def test_batches_take_the_grids_in_turn_wherever_they_are_entered_and_all_ranks_alike(limbs):
    data = in_turn(limbs, 14)
    assert data.steps_per_epoch == 7
    assert data.training_grids() == list(GRIDS)
    first, second = list(data.train_batches(0, 0)), list(data.train_batches(1, 0))
    # an epoch ends anywhere in the round
    assert [b.shape for b in first + second] == [GRIDS[i % 3] for i in range(14)]
    assert len({name for b in first + second for name in b.names}) == 28  # no limb twice
    for entered, whole in zip(data.train_batches(1, 5), second[5:], strict=True):
        assert torch.equal(entered.u, whole.u)
        assert entered.names == whole.names
    halves = [
        list(dataclasses.replace(data, batch_size=1, rank=r, world_size=2).train_batches(1, 0))
        for r in range(2)
    ]
    for a, b, whole in zip(*halves, second, strict=True):
        assert a.shape == b.shape == whole.shape
        assert (*a.names, *b.names) == whole.names


def test_grids_in_turn_are_solved_ahead_in_the_same_order(limbs, numbers):
    plain = in_turn(limbs, 26)
    for at_once in (1, 4, 7, 100):
        ahead = dataclasses.replace(plain, solve_together=at_once)
        for epoch in range(3):
            for start in range(13):
                assert (
                    list(ahead.train_batches(epoch, start))
                    == list(plain.train_batches(epoch, 0))[start:]
                )


#: A rank of two; the second finds one sample fewer, as a node that fails to read it.
FINDS = """
import sys, torch
from physics_hybrid.cluster.machine import initialize
from physics_hybrid.problems.potential.data.file_data import FileData
machine = initialize("cpu")
data = FileData(
    path=sys.argv[1],
    batch_size=1,
    seed=0,
    device=torch.device("cpu"),
    splits={"train": 0.5, "validation": 0.25, "test": 0.25},
    on_error="skip",
    rank=machine.rank,
    world_size=2,
)
data.check_ranks()
data.entries["train"] = data.entries["train"][machine.rank:]
try:
    data.check_ranks()
except RuntimeError as error:
    print(error, flush=True)
"""


@pytest.mark.cluster
def test_ranks_that_find_different_samples_say_so_and_do_not_wait_for_each_other(
    tmp_path, sample_arrays
):
    for i in range(4):
        np.savez(
            tmp_path / f"{i}.npz", **{**sample_arrays, "sigma": sample_arrays["sigma"] * (1 + i)}
        )
    words = [
        sys.executable,
        "-m",
        "physics_hybrid",
        "torchrun",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
        sys.executable,
        "-c",
        FINDS,
        str(tmp_path),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    found = "ranks have found different samples under data.path: rank 0 4, rank 1 3"
    assert done.stdout.count(found) == 2, done.stderr
    assert "on_error=skip" in done.stdout


@pytest.mark.slow
def test_truth_of_every_kind_may_lie_in_one_folder(tmp_path):
    """Volumes and elements, subtracted and nodal, with tissue labels and without: each batch has
    one kind, none is left out, and losses take them all.
    """
    solvers = [
        Solver(),
        Solver(singularity="nodal"),
        Solver("finite_element"),
        Solver("finite_element", singularity="nodal"),
    ]
    for k, solver in enumerate(solvers):
        generate(
            tmp_path / f"{k}.h5",
            LimbStream(limb_distribution(), (16, 12, 12), k, "train", solver, torch.device("cpu")),
            3,
            progress=False,
        )
    with h5py.File(tmp_path / "0.h5") as file, h5py.File(tmp_path / "without.h5", "w") as out:
        for key in ("sigma", "source", "u", "spacing"):
            out[key] = file[key][:] * (2 if key == "sigma" else 1)
    data = FileData(str(tmp_path), 2, 0, torch.device("cpu"), {"train": 1.0})
    loss = PotentialLoss({"mse": 1.0, "pde": 1.0, "charge": 1.0}, boxes=2)
    for key in (None, (0, 1)):
        batches = list(data.files("train").batches(key))
        assert sorted(name for batch in batches for name in batch.names) == sorted(
            str(e.address) for e in data.entries["train"]
        )
        assert len(batches) == 10
        assert sum(len(batch) for batch in batches) == 15
        assert sum(batch.labels is None for batch in batches) == 2
        assert all(loss(batch.u, batch)[0].isfinite() for batch in batches)


@pytest.mark.gpu
def test_a_gpu_solves_as_many_limbs_at_once_as_fit_a_share_of_its_memory(limbs, monkeypatch):
    data = dataclasses.replace(limb_data(limbs, 1, 0), device=torch.device("cuda"))
    count = {}
    for gigabytes in (8, 24, 140):
        monkeypatch.setattr(
            torch.cuda,
            "get_device_properties",
            lambda device, gigabytes=gigabytes: SimpleNamespace(total_memory=gigabytes << 30),
        )
        count[gigabytes] = [
            data.solved_at_once(grid) for grid in ((96, 48, 48), (192, 96, 96), (768, 384, 384))
        ]
        assert count[gigabytes][0] * 96 * 48 * 48 * 340 <= (gigabytes << 30) / 16
    assert count[24][0] >= 20
    assert count[140][0] >= 5 * count[24][0]
    assert count[8][2] == 1
    assert dataclasses.replace(data, solve_together=3).solved_at_once((96, 48, 48)) == 3
    assert limb_data(limbs, 1, 0).solved_at_once((96, 48, 48)) == 1


def test_a_split_that_is_not_named_is_empty_and_an_error_says_so(tmp_path, sample_arrays):
    for factor in (1, 2):
        arrays = {**sample_arrays, "sigma": factor * sample_arrays["sigma"]}
        np.savez(tmp_path / f"{factor}.npz", **arrays)
    splits = {"train": 0.5, "validation": 0.5}
    data = FileData(
        path=str(tmp_path), batch_size=1, seed=0, device=torch.device("cpu"), splits=splits
    )
    assert data.test_grids() == []
    with pytest.raises(ValueError, match="data.splits leaves no sample for the test split"):
        data.check_tested([(8, 6, 6)])
