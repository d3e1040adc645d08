"""The order of samples is one for all numbers of ranks, and an epoch can be entered anywhere."""

import itertools

import pytest

from physics_hybrid.training.order import Endless, Stored

EPOCH = (3, 1)  # seed, epoch


def ranks(count, batch_size, world_size, **rest):
    return [Stored(count, batch_size, rank, world_size, **rest) for rank in range(world_size)]


@pytest.mark.parametrize(("count", "batch_size"), [(12, 1), (13, 2), (7, 3), (1, 2)])
def test_ranks_share_the_batches_of_one_process_with_their_common_batch(count, batch_size):
    together = [order.batches(EPOCH) for order in ranks(count, batch_size, 2)]
    joined = [a + b for a, b in zip(*together, strict=True)]
    (alone,) = ranks(count, 2 * batch_size, 1)
    flat = list(itertools.chain(*joined))
    assert flat[:count] == list(itertools.chain(*alone.batches(EPOCH)))
    assert flat[count:] == flat[: len(flat) - count]  # repeated to make equal shares


def test_every_epoch_has_all_samples_in_another_order():
    (order,) = ranks(50, 4, 1)
    first, second = (list(itertools.chain(*order.batches((0, epoch)))) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert order.batches((0, 0)) == order.batches((0, 0))


@pytest.mark.parametrize("done", [[(2, 3)], [(2, 1), (4, 2)], [(1, 5)]])
def test_what_other_numbers_of_ranks_have_done_is_not_done_again(done):
    count, seen = 40, []
    before = []
    for world_size, batches in done:
        for order in ranks(count, 2, world_size):
            seen += itertools.chain(*order.batches(EPOCH, before)[:batches])
        before.append((world_size, batches))
    (order,) = ranks(count, 2, 1)
    left = list(itertools.chain(*order.batches(EPOCH, done)))
    assert sorted(seen + left) == list(range(count))


def test_a_batch_never_mixes_kinds_and_without_a_key_kinds_come_in_order():
    kinds = [i % 3 for i in range(20)]
    (order,) = ranks(20, 4, 1, kinds=kinds)
    for batch in (*order.batches(EPOCH), *order.batches(None)):
        assert len({kinds[i] for i in batch}) == 1
    flat = list(itertools.chain(*order.batches(None)))
    assert flat == sorted(range(20), key=lambda i: (kinds[i], i))


def test_endless_samples_are_numbered_through_all_epochs_and_ranks():
    two = [Endless(10, 2, rank, 2) for rank in (0, 1)]
    assert two[0].steps() == 3
    numbers = [[list(order.numbers(0, step)) for order in two] for step in range(3)]
    assert list(itertools.chain(*itertools.chain(*numbers))) == list(range(12))
    # the next epoch begins where it should, whatever the last batch took
    assert two[0].numbers(1, 0)[0] == 10


def test_endless_samples_go_on_with_another_number_of_ranks():
    alone, done = Endless(20, 2), [(2, 3)]  # two ranks have had three batches each: 12 samples
    assert alone.steps(done) == 4
    assert alone.numbers(1, 0, done) == range(32, 34)
