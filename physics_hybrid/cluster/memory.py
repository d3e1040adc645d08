"""Memory that a training frees stays with the process, for the next step.

Activations of some megabytes are made and dropped in every step. Left alone, the C library gives
their pages back and the kernel clears new ones: a tenth to a third of a step on a CPU.
"""

from __future__ import annotations

import contextlib
import ctypes

#: Parameters of glibc's mallopt(3): what is given back at the top of the heap from so many bytes
#: on, what the heap grows by, and from how many bytes on a block is one of the kernel's.
TRIM, TOP_PAD, MAP = -1, -2, -3
#: The most that mallopt takes, and what the heap grows by: bytes.
NEVER, GROWTH, LARGEST = 2**31 - 1, 2**26, 2**25


def keep_freed() -> None:
    """Keep what is freed, in blocks of up to 32 MB; where the C library is not glibc, nothing."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((TRIM, NEVER), (TOP_PAD, GROWTH), (MAP, LARGEST)):
            mallopt(parameter, value)
