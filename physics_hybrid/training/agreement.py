"""What the ranks of a training tell each other, so that all decide alike.

Every function here is a collective where there are several ranks: all must call it, in the same
order. With one rank nothing is sent.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.models.model_files import CheckpointError

T = TypeVar("T")


def everyones(own: T, machine: Machine) -> list[T]:
    """A value of each rank, by rank."""
    values = [own] * machine.world_size
    if machine.world_size > 1:
        dist.all_gather_object(values, own)
    return values


def check_same_place(place: tuple[int, int, int], folder: Path, machine: Machine) -> None:
    """Raise CheckpointError unless all ranks go on from one (epoch, position, step)."""
    places = everyones(place, machine)
    if len(set(places)) > 1:
        raise CheckpointError(
            f"ranks have read different states from {folder} (epoch, position, step:"
            f" {places}): a node does not see the newest file. Start again"
        )


def means_and_signal(
    own: dict[str, Tensor], signal: int | None, machine: Machine
) -> tuple[dict[str, float], int | None]:
    """Means over ranks of values by name; and a signal that reached one rank reaches all.

    One exchange carries both: all ranks act on the signal that comes back, never on one that came
    since, or they would part ways.
    """
    packed = torch.stack([*own.values()])
    if machine.world_size > 1:
        packed = torch.cat([packed, packed.new_tensor([float(signal or 0)])])
        everyone = [torch.empty_like(packed) for _ in range(machine.world_size)]
        dist.all_gather(everyone, packed)
        together = torch.stack(everyone)
        signal = int(together[:, -1].max()) or None
        packed = together[:, :-1].mean(dim=0)
    return dict(zip(own, packed.tolist(), strict=True)), signal


def signal_anywhere(own: int | None, machine: Machine) -> int | None:
    """A signal that any rank has had."""
    number = torch.tensor([own or 0], device=machine.device)
    if machine.world_size > 1:
        dist.all_reduce(number, dist.ReduceOp.MAX)
    return int(number) or None


def parallel(model: nn.Module, machine: Machine) -> DistributedDataParallel:
    """The model as several ranks train it: backward passes end with means of gradients."""
    devices = [machine.device] if machine.device.type == "cuda" else None
    with warnings.catch_warnings():
        # broadcast_buffers gets another name in torch 2.15
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
