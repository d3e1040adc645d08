"""SIGTERM, SIGINT and, where the system has it, SIGUSR1: save and leave.

The exit code says whether it was possible to save.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

#: Seconds in which a second SIGINT is the first once more: from a terminal, and handed on by a
#: launcher.
ECHO = 1.0

#: Seconds in which data that are waited for may still come after a signal. A wait that is cut short
#: leaves readers in the middle of handing over, who complain.
PATIENCE = 3.0

#: Seconds that a process that reads data outlives SIGTERM.
WORKER_GRACE = 20


class Requeue(SystemExit):
    """A signal asked us to leave: what can be saved is saved, start again to go on. `code` is the
    exit status.

    agreed : all ranks leave together; else the others do not know of it.
    """

    def __init__(self, code: int, name: str, agreed: bool):
        super().__init__(code)
        self.name, self.agreed = name, agreed

    def __str__(self) -> str:
        return f"{self.name} asked this rank to leave"


class Signals:
    """A context in which those signals end the program: at once, or, inside `deferred()`, when the
    work in hand looks at `number`; a second Ctrl-C at once all the same. The old handlers come back
    at the end.

    The exit status is `code` where this program has saved a state (`saved`): starting it again goes
    on from there. Else it is 128 and the signal's number, as of a program that knows no signals:
    starting it again would come no further. For SIGINT it is always that, 130.
    """

    def __init__(self, code: int):
        self.code, self.saved = code, False
        self.number: int | None = None
        self._waiting = False
        self._heeded = False
        self._since = 0.0  # when the signal came
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
            if hasattr(signal, name):
                # not the main thread: signals stay with whoever has it
                with contextlib.suppress(ValueError):
                    number = getattr(signal, name)
                    self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now, since = time.monotonic(), self._since
        again = self.number == number == signal.SIGINT and now - since > ECHO
        self.number = int(number)
        if not again:
            self._since = now
        if again or not self._waiting:
            self.leave()
        if self._heeded:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[Signals]:
        """Only remember a signal."""
        self._waiting = True
        try:
            yield self
        finally:
            self._waiting = False

    @contextlib.contextmanager
    def heeded(self) -> Iterator[Signals]:
        """Inside `deferred()`: a wait that a signal ends with `Requeue`, unless what is waited for
        comes within `PATIENCE` seconds.
        """
        if not self.active or not hasattr(signal, "setitimer"):
            yield self
            return
        old = signal.signal(signal.SIGALRM, lambda *_: self.leave())
        self._heeded = True
        try:
            yield self
        finally:
            self._heeded = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)

    @property
    def active(self) -> bool:
        """Whether the handlers are ours at present."""
        return bool(self._old)

    @property
    def name(self) -> str:
        """SIGTERM, say: of the signal that came."""
        assert self.number is not None
        return signal.Signals(self.number).name

    def leave(self, agreed: bool = False) -> NoReturn:
        """Raise Requeue with the status that belongs to the signal."""
        assert self.number is not None
        again = self.saved and self.number != signal.SIGINT
        raise Requeue(self.code if again else 128 + self.number, self.name, agreed)


def quiet_worker(_worker: int) -> None:
    """For processes that read data: a signal to the whole group is answered by the training
    process.

    SIGTERM must still end them, for Python sends it to workers left over at exit; but later, when
    the step in hand has had its data and the state is saved, and as a success, since PyTorch makes
    an error of any other end.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))
