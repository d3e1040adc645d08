"""A lost rank is noticed, named, and not waited for.

Every rank tells a small store each few seconds that it lives, and looks whether the others did. A
rank that leaves with an error puts the reason there first. One that has been silent for too long is
gone (killed, its node down). Either way the rest say which one, on which host and why, and leave
with exit code 86, instead of hanging in a collective until the walltime. The thread beats through
validation, figures and file writing alike.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch exports it unsaid

from physics_hybrid.cluster.signals import Requeue

LOST_RANK_EXIT_CODE = 86


def of_a_collective(error: BaseException | None) -> bool:
    """Whether an error says that ranks did not come together, not what is wrong on this one.

    gloo's have no class of their own.
    """
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def _store(host: str, port: int, patience: float, *, is_master: bool) -> Any:
    return TCPStore(
        host,
        port,
        is_master=is_master,
        wait_for_workers=False,
        timeout=timedelta(seconds=patience),
    )


def _reason(error: BaseException) -> str:
    """Why a rank leaves, as the others read it."""
    return str(error) if isinstance(error, Requeue) else f"{type(error).__name__}: {error}"


class Heartbeat:
    """Started by all ranks of an initialised process group; `patience` in seconds.

    Use as a context manager; leaving it in order, or with a `Requeue` that all ranks agreed on,
    tells the others not to miss this rank.
    """

    def __init__(self, rank: int, world_size: int, patience: float, master: str):
        self.rank, self.world_size, self.patience = rank, world_size, patience
        self.interval = max(0.2, patience / 10)
        self.stop, self.last_word = threading.Event(), threading.Lock()
        self.lost: str | None = None
        # called ahead of an exit that unwinds nothing
        self.before_leaving: list[Callable[[], None]] = []
        if world_size == 1:
            return
        port: list[Any] = [None]
        if rank == 0:
            self.store = _store("0.0.0.0", 0, patience, is_master=True)
            port[0] = self.store.port
        dist.broadcast_object_list(port, src=0)
        if rank != 0:
            self.store = _store(master, port[0], patience, is_master=False)
        self.hosts = [""] * world_size
        dist.all_gather_object(self.hosts, socket.gethostname())
        self.answered = time.monotonic()
        self.heard = {r: self.answered for r in range(world_size) if r != rank}
        self.threads = [
            threading.Thread(target=f, name="heartbeat", daemon=True)
            for f in (self._beat, self._watch)
        ]

    def __enter__(self) -> Heartbeat:
        if self.world_size > 1:
            for thread in self.threads:
                thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self.world_size == 1:
            return
        if error is not None and of_a_collective(error):
            self.blame(error)
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=self.patience)
        wait = self.patience
        with contextlib.suppress(RuntimeError):  # the store's process has left before us
            if error is None or (isinstance(error, Requeue) and error.agreed):
                self.store.set(f"done/{self.rank}", "1")
            else:
                wait = 3 * self.interval
                self._tell(_reason(error))
            if self.rank == 0:
                self._wait_for_the_others(wait)

    def _wait_for_the_others(self, seconds: float) -> None:
        """The store lives in this process: stay until the others have read it and left."""
        deadline = time.monotonic() + seconds
        others = range(1, self.world_size)
        while time.monotonic() < deadline and not all(map(self._has_left, others)):
            time.sleep(self.interval / 4)

    def _has_left(self, rank: int) -> bool:
        return bool(self.store.check([f"done/{rank}"]) or self.store.check([f"failed/{rank}"]))

    def blame(self, error: BaseException) -> None:
        """A collective failed: give the watch time to find out who is gone, and leave."""
        deadline = time.monotonic() + 1.5 * self.patience
        while self.lost is None and time.monotonic() < deadline:
            time.sleep(self.interval / 4)
        if self.lost is None:
            self.lost = f"no rank is silent, but a collective failed: {str(error).splitlines()[0]}"
            with contextlib.suppress(RuntimeError):  # the store's process has left before us
                self._tell(self.lost)
        self._leave(self.lost)

    def _tell(self, why: str) -> None:
        """Give the others the reason for which this rank leaves."""
        self.store.set(f"failed/{self.rank}", why[:500])

    def _leave(self, why: str) -> None:
        # never released: the watch and a failed collective may both come here, and one of them ends
        # the process
        self.last_word.acquire()
        print(
            f"error: rank {self.rank} on {self.hosts[self.rank]}: {why}. Start the same command"
            " again: it goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        cleaning = threading.Thread(target=self._clean, daemon=True)
        cleaning.start()
        cleaning.join(self.patience)  # a disk that hangs must not keep us
        if self.rank == 0:
            # the store lives in this process: the others read there who it was
            time.sleep(1.5 * self.interval)
        os._exit(LOST_RANK_EXIT_CODE)  # no clean-up: the main thread may hang in a collective

    def _clean(self) -> None:
        for undo in self.before_leaving:
            undo()

    def _beat(self) -> None:
        """Tell the store that this rank lives, and hear what it says of the others.

        Hangs where the store's process is frozen.
        """
        beat = 0
        last: dict[int, bytes | None] = dict.fromkeys(self.heard)
        while not self.stop.wait(self.interval):
            beat += 1
            try:
                self.store.set(f"beat/{self.rank}", str(beat))
                for rank in list(last):
                    self._listen(rank, last)
                self.answered = time.monotonic()
            except RuntimeError:
                if not self.stop.is_set():
                    self.lost = f"rank 0 on {self.hosts[0]} is gone: its store does not answer"

    def _listen(self, rank: int, last: dict[int, bytes | None]) -> None:
        """What the store says of another rank; `last`: the last beat of each."""
        if self.store.check([f"done/{rank}"]):
            del last[rank], self.heard[rank]
        elif self.store.check([f"failed/{rank}"]):
            why = self.store.get(f"failed/{rank}").decode()
            self.lost = f"rank {rank} on {self.hosts[rank]} failed: {why}"
        elif self.store.check([f"beat/{rank}"]):
            now = self.store.get(f"beat/{rank}")
            if now != last[rank]:
                last[rank], self.heard[rank] = now, time.monotonic()

    def _watch(self) -> None:
        """Leave when a rank has been silent for too long; the store's silence is that of rank 0."""
        while not self.stop.wait(self.interval / 2):
            now = time.monotonic()
            silent = [r for r, when in list(self.heard.items()) if now - when > self.patience]
            if now - self.answered > self.patience:
                silent = [0]
            if silent and not self.lost:
                self.lost = (
                    f"rank {silent[0]} on {self.hosts[silent[0]]} has not been heard of for"
                    f" {self.patience:g} s"
                )
            if self.lost:
                self._leave(self.lost)
