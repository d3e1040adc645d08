"""Batches come from the processes that read them, or an error says why not: never a wait for ever.

A reading process puts a batch into shared memory (/dev/shm) itself, and where that has no room it
sends bytes through a pipe. Left to PyTorch, it fails in a thread of the reading process that loses
the batch, and the training waits for it (as in pytorch issue 1355). An error travels as a value, as
PyTorch's way of raising it again knows only errors of one argument.
"""

from __future__ import annotations

import functools
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from physics_hybrid.cluster.signals import quiet_worker
from physics_hybrid.problems.potential.scene import Batch


class ReaderLost(RuntimeError):
    """A process that reads data has died, or could not be started. Says what to do."""


@dataclass(frozen=True)
class Parcel:
    """What a reading process sends.

    batch : its tensors lie in shared memory; None where that has no room.
    pickled : then it is here.
    error : why there is no batch.
    """

    batch: Batch | None = None
    pickled: bytes = b""
    error: Exception | None = None

    @classmethod
    def of(cls, batch: Batch) -> Parcel:
        try:
            return cls(batch=batch.each(Tensor.share_memory_))
        except (RuntimeError, OSError):  # no room in /dev/shm
            return cls(pickled=pickle.dumps(batch))

    @classmethod
    def of_error(cls, error: Exception) -> Parcel:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error that cannot travel: its words can
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error=error)

    def open(self) -> Batch:
        """The batch. Raises the error of the reading process."""
        if self.error is not None:
            raise self.error
        if self.batch is not None:
            return self.batch
        batch: Batch = pickle.loads(self.pickled)
        return batch

    def pin_memory(self) -> Parcel:
        """PyTorch calls it, in a thread of its own."""
        if self.error is not None:
            return self
        return Parcel(batch=self.open().pin_memory())


class Posted(Dataset[Parcel]):
    """Batches as parcels, made in a reading process."""

    def __init__(self, batches: Dataset[Batch]):
        self.batches = batches

    def __getitem__(self, index: int) -> Parcel:
        try:
            return Parcel.of(self.batches[index])
        except Exception as error:
            return Parcel.of_error(error)


def received(batches: Dataset[Batch], count: int, workers: int, *, pin: bool) -> Iterator[Batch]:
    """Batches 0 to `count` - 1, read by so many processes, or here where there are none.

    Raises
    ------
    ReaderLost
        A reading process has died.
    Exception
        Whatever reading raises.
    """
    if workers == 0:
        for index in range(count):
            batch = batches[index]
            yield batch.pin_memory() if pin else batch
        return
    lost: ReaderLost | None = None
    try:
        parcels = _started(batches, count, workers, pin)
    except (RuntimeError, OSError) as error:
        raise _lost(error) from error
    while True:
        try:
            parcel = next(parcels)
        except StopIteration:
            return
        except ReaderLost as error:
            lost = ReaderLost(*error.args)
        except Exception as error:  # whatever reading raises comes as a parcel
            lost = _lost(error)
        if lost is not None:
            # what is left of the readers goes now: PyTorch's error would hold them, and they would
            # be missed again and again
            del parcels
            raise lost
        if parcel.pickled:
            warn_of_pipes()
        yield parcel.open()


@functools.cache
def warn_of_pipes() -> None:
    """Once."""
    print(
        "WARNING: /dev/shm has no room for what data.workers read: it comes through pipes, which is"
        " slower. data.workers=0, or a larger /dev/shm (docker run --shm-size=1g)",
        file=sys.stderr,
        flush=True,
    )


def _started(batches: Dataset[Batch], count: int, workers: int, pin: bool) -> Iterator[Parcel]:
    loader = DataLoader(
        Posted(batches),
        batch_size=None,
        sampler=range(count),
        num_workers=workers,
        pin_memory=pin,
        # it draws a seed for its workers from the global state else, which must not depend on when
        # a run was resumed
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=quiet_worker,
    )
    parcels = iter(loader)
    _explain_deaths()
    return parcels


def _explain_deaths() -> None:
    """PyTorch raises where a reader's death finds the main thread, in a step, say: there, too, it
    says what to do.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    torchs: Any = getattr(signal, "SIGCHLD", None) and signal.getsignal(signal.SIGCHLD)
    if not callable(torchs) or hasattr(torchs, "explains"):
        return

    def explained(number: int, frame: FrameType | None) -> None:
        try:
            torchs(number, frame)
        except RuntimeError as error:
            raise _lost(error) from None

    explained.explains = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGCHLD, explained)


def _lost(error: Exception) -> ReaderLost:
    why = str(error).splitlines()[0].rstrip(". ") if str(error) else type(error).__name__
    return ReaderLost(
        f"a process that reads data was lost ({why}): no memory, or a /dev/shm too small, as in"
        " a container. Read without such processes (data.workers=0), with fewer, or with a larger"
        " /dev/shm (docker run --shm-size=1g)"
    )
