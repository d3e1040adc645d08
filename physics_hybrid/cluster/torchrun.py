"""torchrun that answers signals as its ranks do and ends with their exit status.

    python -m physics_hybrid torchrun --nproc-per-node 4 train.py ...

torchrun ends with 1 whatever its ranks said, so that a job cannot tell "saved, start again" from an
error; it answers SIGTERM by killing them after 30 seconds, and dies of SIGUSR1, leaving them
behind. Here both are handed to the ranks, which save and leave.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from types import FrameType
from typing import Any

import psutil


def main(arguments: list[str] | None = None) -> None:
    """torchrun's command line.

    Raises
    ------
    SystemExit
        With the exit status of the first rank that failed, 128 + n where signal n killed it.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    torchs: Any = api
    start = torchs.PContext.start

    def listen_and_start(context: Any) -> None:
        # not before: torchrun may be waiting for other nodes, where Python's handlers do not run
        # and the signal itself must end it
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, hand_on)
        start(context)

    # torchrun installs it, for SIGTERM, SIGINT and more, when it starts the ranks
    torchs._terminate_process_handler = hand_on
    torchs.PContext.start = listen_and_start
    try:
        run.main(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code, how = failure.exitcode, f"ended with exit status {failure.exitcode}"
        if code < 0:  # a signal's number
            code, how = 128 - code, f"was killed by {signal.Signals(-code).name}"
        print(f"rank {rank} on {socket.gethostname()} {how}", file=sys.stderr, flush=True)
        sys.exit(code)


def hand_on(number: int, _frame: FrameType | None) -> None:
    """Pass a signal to the ranks; without any yet, leave."""
    ranks = []
    for rank in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has left in the meantime
            if rank.status() != psutil.STATUS_ZOMBIE:
                ranks.append(rank)
                rank.send_signal(number)
    if not ranks:
        sys.exit(128 + number)


if __name__ == "__main__":
    main()
