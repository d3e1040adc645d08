"""Where a number was made, and what it cost."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn


def surroundings(device: torch.device) -> dict[str, Any]:
    """Commit, hardware, torch, date."""
    root = Path(__file__).resolve().parents[2]
    commit = "unknown"
    if (root / ".git").exists():
        with contextlib.suppress(OSError):  # git need not be installed
            asked = subprocess.run(
                ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
            )
            commit = asked.stdout.strip() or commit
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {
        "commit": commit,
        "hardware": hardware,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def provenance(
    checkpoint: str, seed: int, device: torch.device, model: nn.Module
) -> dict[str, Any]:
    """What a number needs beside it: checkpoint, seed, size of the model, and its surroundings."""
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "checkpoint": checkpoint,
        "seed": seed,
        "parameters": parameters,
        **surroundings(device),
    }


def peak_memory(device: torch.device) -> float:
    """Peak memory in MB; NaN where the system cannot tell.

    What the GPU's allocator held, else the resident size of this process since its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    per_megabyte = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_megabyte
