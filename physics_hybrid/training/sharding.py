"""Weights, gradients and moments divided among the ranks, each keeping a part, and put together
again where they are looked at or kept (training.parallel=fsdp).

Zhao et al., PyTorch FSDP, VLDB 16 (2023) 3848, in its second form, `fully_shard`. A checkpoint
holds whole tensors, as that of a training that divides nothing: each goes on from the other's.

Everything here but `refuse_undivided` and `divided` is a collective: all ranks must call it, in
the same order. What is not divided passes unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from physics_hybrid.cluster.machine import Machine


def sharded(model: nn.Module, machine: Machine) -> FSDPModule:
    """A twin of a model whose weights, those of rank 0, are divided among the ranks; those that do
    not train are not.

    Raises
    ------
    ValueError
        It has weights that cannot be divided.
    """
    refuse_undivided(model)
    twin = copy.deepcopy(model)
    for value in twin.state_dict().values():
        dist.broadcast(value, 0)
    mesh = init_device_mesh(machine.device.type, (machine.world_size,))
    frozen = {p for p in twin.parameters() if not p.requires_grad}
    return fully_shard(twin, mesh=mesh, ignored_params=frozen)


def refuse_undivided(model: nn.Module) -> None:
    """Raise ValueError for weights that are single numbers, or complex."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    strange = [name for name, p in trained.items() if p.ndim == 0 or p.is_complex()]
    if strange:
        raise ValueError(
            f"training.parallel=fsdp cannot divide {strange[0]}: it is a single number, or complex."
            " Use training.parallel=ddp"
        )


def whole(value: Any) -> Any:
    """Tensors as they are without ranks, in whatever lists and mappings hold them."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def divided(value: Any, like: Tensor) -> Any:
    """This rank's part of a tensor that every rank has, divided as another is; else the value."""
    if not isinstance(like, DTensor) or not torch.is_tensor(value) or value.shape != like.shape:
        return value
    mine = value.to(like.device)
    return distribute_tensor(mine, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def take(model: nn.Module, source: nn.Module) -> None:
    """Take up the weights and buffers of a model that is whole."""
    known = source.state_dict()
    for name, value in model.state_dict().items():
        value.copy_(divided(known[name], value))


def moments(model: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimizer, of whole tensors, as that of the weights of `model`."""
    kept = {
        number: {key: divided(value, p) for key, value in state["state"][number].items()}
        for number, p in enumerate(model.parameters())
        if number in state["state"]
    }
    return {**state, "state": kept}


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The global norm, to the bit that of the same tensors undivided: one at a time is whole."""
    if not any(isinstance(t, DTensor) for t in tensors):
        return nn.utils.get_total_norm(tensors)
    norms = [nn.utils.get_total_norm([whole(t)]) for t in tensors]
    return nn.utils.get_total_norm(norms)
