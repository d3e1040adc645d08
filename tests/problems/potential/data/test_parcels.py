"""Batches come from reading processes, or an error says why not."""

import os
import signal
import threading
import time

import psutil
import pytest
import torch
from torch.utils.data import Dataset

from physics_hybrid.cluster import signals as signals_module
from physics_hybrid.cluster.signals import Requeue, Signals
from physics_hybrid.problems.potential.data.parcels import ReaderLost, received, warn_of_pipes
from physics_hybrid.problems.potential.data.sample import SampleError


class Repeated(Dataset):
    """The same batch again and again, or what `at` does for one of them."""

    def __init__(self, batch, at=None, what=None):
        self.batch, self.at, self.what = batch, at, what

    def __getitem__(self, index):
        if index == self.at:
            self.what()
        return self.batch


def no_room(_tensor):
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def refuse():
    raise SampleError("thigh.npz", "u", "holds NaN")


class Odd(Exception):
    """An error that cannot be pickled."""

    def __reduce__(self):
        raise TypeError("cannot pickle")


def refuse_oddly():
    raise Odd("not today")


@pytest.mark.parametrize("room", [True, False], ids=["shared memory", "no room in it"])
def test_what_arrives_is_what_was_read(batch, room, monkeypatch, capsys):
    if not room:
        monkeypatch.setattr(torch.Tensor, "share_memory_", no_room)  # reading processes are forks
    warn_of_pipes.cache_clear()
    for workers in (0, 1, 1):
        several = list(received(Repeated(batch), 3, workers, pin=False))
        assert len(several) == 3
        for got in several:
            assert got.names == batch.names
            assert torch.equal(got.u, batch.u)
            assert torch.equal(got.labels, batch.labels)
            assert got.nodes is None
    warnings = capsys.readouterr().err.count("/dev/shm has no room")
    assert warnings == (0 if room else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        (refuse, SampleError, "^thigh.npz: key 'u': holds NaN$"),
        (refuse_oddly, RuntimeError, "^Odd: not today$"),
        (die, ReaderLost, r"lost.*data.workers=0.*/dev/shm"),
    ],
)
def test_a_reader_that_fails_or_dies_is_an_error_of_one_line(batch, what, kind, message):
    with pytest.raises(kind, match=message) as raised:
        list(received(Repeated(batch, at=2, what=what), 4, workers=1, pin=False))
    assert "\n" not in str(raised.value)


def test_a_reader_killed_from_outside_is_not_waited_for(batch):
    slow = received(Repeated(batch, at=1, what=lambda: time.sleep(600)), 2, workers=1, pin=False)
    next(slow)
    reader = max(psutil.Process().children(), key=lambda p: p.create_time())
    threading.Timer(0.3, reader.kill).start()
    with pytest.raises(ReaderLost):
        next(slow)


def test_a_wait_for_data_ends_soon_after_a_signal(monkeypatch):
    monkeypatch.setattr(signals_module, "PATIENCE", 0.2)
    with Signals(85) as signals, signals.deferred():
        with signals.heeded():
            signal.raise_signal(signal.SIGTERM)  # the data come in time
        time.sleep(0.3)  # in a step, which is not interrupted
        with pytest.raises(Requeue) as left, signals.heeded():
            wait_in_vain(signal.SIGTERM)
    assert left.value.code == 143


def wait_in_vain(number):
    signal.raise_signal(number)
    time.sleep(60)


def test_a_second_ctrl_c_does_not_wait_and_its_echo_is_none(monkeypatch):
    clock = iter([0.0, 0.3, 5.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Signals(85) as signals, signals.deferred():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Requeue):
            signal.raise_signal(signal.SIGINT)
