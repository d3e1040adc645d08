"""torchrun that answers signals as its ranks do and ends with their exit status: `python -m
physics_hybrid torchrun --nproc-per-node 4 train.py ...`.

torchrun ends with 1 whatever its ranks said, so that a job cannot tell "saved, start again" from an
error; it answers SIGTERM by killing them after 30 seconds, and dies of SIGUSR1, leaving them
behind. Here both are handed to the ranks, which save and leave.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys

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

    start = api.PContext.start

    def listen_and_start(context) -> None:
        # not before: torchrun may be waiting for other nodes, where Python's handlers do not run
        # and the signal itself must end it
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, hand_on)
        start(context)

    # torchrun installs it, for SIGTERM, SIGINT and more, when it starts the ranks
    api._terminate_process_handler = hand_on
    api.PContext.start = listen_and_start
    try:
        run.main(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = (
            f"ended with exit status {code}"
            if code >= 0
            else f"was killed by {signal.Signals(-code).name}"
        )
        print(f"rank {rank} on {socket.gethostname()} {how}", file=sys.stderr, flush=True)
        sys.exit(code if code >= 0 else 128 - code)


def hand_on(number: int, _frame) -> None:
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
