"""Seconds of the processor, one thread: what another program does meanwhile is not in them."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")

#: Calls that have taken so many seconds together are enough.
ENOUGH = 2.0


def clocked(call: Callable[[], T], repeats: int) -> tuple[float, T]:
    """Median seconds of at most `repeats` calls, and what the last one gave.

    A first call warms up, and counts only where it is the only one: of what takes longer than
    `ENOUGH` seconds.

    Examples
    --------
    >>> clocked(lambda: 3, repeats=2)[1]
    3
    """
    seconds: list[float] = []
    while True:
        started = time.process_time()
        given = call()
        seconds.append(time.process_time() - started)
        if len(seconds) > repeats or sum(seconds) > ENOUGH:
            return statistics.median(seconds[1:] or seconds), given


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch works in one thread, and then in as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
