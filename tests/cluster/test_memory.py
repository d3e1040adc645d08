"""Memory that is freed stays with the process."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from physics_hybrid.cluster.memory import keep_freed

#: A step that makes and drops six fields of 16 MB; of 4096 pages each.
FIELDS, VALUES, PAGES = 6, 2**22, 2**12


def faults(steps: int) -> int:
    """Pages that the kernel hands out in some steps after the first."""
    before = 0
    for step in range(steps + 1):
        fields = [torch.ones(VALUES) for _ in range(FIELDS)]
        del fields
        if step == 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_is_freed_is_taken_again_without_new_pages():
    plain = [sys.executable, "-c", f"import {__name__} as t; print(t.faults(5))"]
    without = subprocess.run(plain, check=True, capture_output=True, text=True)
    assert int(without.stdout) > 5 * PAGES  # each step anew: what the function is there for
    keep_freed()
    faults(5)
    assert faults(5) < PAGES
