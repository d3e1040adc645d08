"""Which machine is this: device and process layout, through PhysicsNeMo's DistributedManager.

One process so far; several (torchrun, mpirun, PBS) will be decided here and nowhere else.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Machine:
    """rank of world_size processes, on `device`."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process writes files (rank 0)."""
        return self.rank == 0

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"{torch.get_num_threads()} threads"
        return f"rank {self.rank} of {self.world_size} on {self.device} ({name})"


def initialize(device: str = "auto") -> Machine:
    """Set up DistributedManager for this process and choose its device.

    Parameters
    ----------
    device : auto (CUDA, else Apple MPS, else CPU), cpu, cuda or mps.

    Raises
    ------
    RuntimeError
        If the device asked for is not there, or if more than one process was launched: a silent fall-back to several
        independent trainings would waste an allocation.
    """
    names = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE") + (("SLURM_NTASKS",) if "SLURM_PROCID" in os.environ else ())
    size = next((int(os.environ[k]) for k in names if os.environ.get(k, "").isdigit()), 1)
    if size > 1:
        raise RuntimeError(f"{size} processes were launched, and training runs in one process so far: start `python train.py` once")
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise RuntimeError(f"training.device must be auto, cpu, cuda or mps; got {device!r}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device != "auto" and not available[device]:
        raise RuntimeError(f"training.device={device} was asked for, and this machine has none; use training.device=auto")
    chosen = device if device != "auto" else next(k for k in ("cuda", "mps", "cpu") if available[k])

    from physicsnemo.distributed import DistributedManager

    if not DistributedManager.is_initialized():
        for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):  # one process: leave nothing that could start a process group
            os.environ.pop(name, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Could not initialize using ENV, SLURM or OPENMPI": right for one process
            DistributedManager.initialize()
    manager = DistributedManager()
    return Machine(manager.rank, manager.world_size, torch.device(chosen if chosen != "cuda" else manager.device))
