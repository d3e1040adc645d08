r"""What the forward pass of a network must move and compute at least, and what this machine can do.

For batch B, grid N = D H W, float32 (4 bytes, complex 8). A spectral convolution from i to o
channels with m1, m2, m3 modes (M = 4 m1 m2 m3 complex weights for each pair of channels):

    bytes       4 B N (2 i + o) + 8 i o M
    operations  B (i + o) T + 8 B i o M
    T           2.5 N log2 W + 5 D H m3 log2 H + 5 D (2 m2) m3 log2 D

bytes: the state is read for the transform, read again where its inverse is joined with the
pointwise branch, and written: a transform needs the whole field before anything can be written, all
else can be fused into these passes. T: transforms of the kept modes alone, one real and two
complex, 5 n log2 n operations for n complex values (Cooley and Tukey; a real one half of it). A
pointwise convolution or linear layer from i to o channels adds 2 B N i o operations and no bytes of
its own. Once for the network: 4 B N (channels in + channels out) bytes. A network of convolutions
has these and its products (`torch.utils.flop_counter`). Then (Williams, Waterman and Patterson,
CACM 52 (2009) 65)

    floor = max(bytes / bandwidth, operations / rate)          [s]

with bandwidth that of a copy (bytes read and written) and rate that of a float32 matrix product,
both measured here, on a CPU in one thread and in seconds of the processor: what other programs do
meanwhile is not in them. (Where PyTorch runs convolutions in TF32, they may be faster than rate;
FNOs are bound by bytes.)
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.evidence.bench import seconds
from physics_hybrid.grid import Grid

if TYPE_CHECKING:
    from physics_hybrid.models.spectral import SpectralConv3d

#: Floats that are copied, and the side of the matrices: past all caches, and done in a moment.
GPU_SIZES = (2**28, 8192)
CPU_SIZES = (2**24, 1024)

#: What networks of convolutions alone have weights in.
PLAIN = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear, nn.GroupNorm)

#: The peak is the best of so many calls.
CALLS = 6


def count(
    backbone: nn.Module, channels_in: int, batch: int, grid: Grid
) -> tuple[float, float] | None:
    """(bytes, operations) of one forward pass to one channel; None for a network that is neither
    one of our SpectralConv3d nor one of convolutions alone.
    """
    from physics_hybrid.models.spectral import SpectralConv3d

    voxels = math.prod(grid)
    moved, operations = 4.0 * batch * voxels * (channels_in + 1), 0.0
    spectral = False
    for module in backbone.modules():
        if isinstance(module, SpectralConv3d):
            spectral = True
            moved += spectral_bytes(module, batch, grid)
            operations += spectral_operations(module, batch, grid)
        elif isinstance(module, (nn.Conv3d, nn.Linear)):
            operations += 2 * batch * voxels * module.weight.numel()
    if spectral:
        return moved, operations
    if any(
        list(m.parameters(recurse=False)) and not isinstance(m, PLAIN) for m in backbone.modules()
    ):
        return None
    return moved, float(products(backbone, channels_in, batch, grid))


def products(backbone: nn.Module, channels_in: int, batch: int, grid: Grid) -> int:
    """Operations of all convolutions and matrix products of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    twin = copy.deepcopy(backbone).to("meta")
    with FlopCounterMode(display=False) as counter:
        twin(torch.empty(batch, channels_in, *grid, device="meta"))
    return int(counter.get_total_flops())


def weights_of(layer: SpectralConv3d) -> int:
    """M: complex weights for each pair of channels."""
    return 4 * math.prod(layer.modes)


def spectral_bytes(layer: SpectralConv3d, batch: int, grid: Grid) -> int:
    i, o = layer.in_channels, layer.out_channels
    return int(4 * batch * math.prod(grid) * (2 * i + o) + 8 * i * o * weights_of(layer))


def spectral_operations(layer: SpectralConv3d, batch: int, grid: Grid) -> float:
    i, o = layer.in_channels, layer.out_channels
    transforms = batch * (i + o) * transform_operations(layer, grid)
    return float(transforms + 8 * batch * i * o * weights_of(layer))


def transform_operations(layer: SpectralConv3d, grid: Grid) -> float:
    """T: one transform of one channel."""
    D, H, W = grid
    _, m2, m3 = layer.modes
    return float(
        2.5 * math.prod(grid) * math.log2(W)
        + 5 * D * H * m3 * math.log2(H)
        + 5 * D * 2 * m2 * m3 * math.log2(D)
    )


def peaks(
    machine: Machine, elements: int | None = None, side: int | None = None
) -> dict[str, float]:
    """bandwidth (bytes/s) of a copy of `elements` floats and matmul (operations/s) of `side` x
    `side` float32 matrices: the best of several.
    """
    usual = GPU_SIZES if machine.device.type == "cuda" else CPU_SIZES
    elements, side = elements or usual[0], side or usual[1]
    source = torch.ones(elements, device=machine.device)
    target = torch.empty_like(source)
    move = functools.partial(target.copy_, source)
    a = torch.rand(side, side, device=machine.device)
    product = functools.partial(torch.matmul, a, a)
    copied = min(clock(move, machine) for _ in range(CALLS))
    multiplied = min(clock(product, machine) for _ in range(CALLS))
    return {"bandwidth": 8 * elements / copied, "matmul": 2 * side**3 / multiplied}


def clock(call: Callable[[], object], machine: Machine) -> float:
    """Seconds of one call: on a CPU those of the processor, all threads together."""
    if machine.device.type == "cuda":
        return seconds(call, machine)
    started = time.process_time()
    call()
    return time.process_time() - started


def floor(moved: float, operations: float, peak: Mapping[str, float]) -> float:
    """Seconds that no implementation on this machine can do without."""
    return max(moved / peak["bandwidth"], operations / peak["matmul"])
