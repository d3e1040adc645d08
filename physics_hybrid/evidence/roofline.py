r"""What the forward pass of an FNO must move and compute at least, and what this machine can do.

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
its own. Once for the network: 4 B N (channels in + channels out) bytes. Then (Williams, Waterman
and Patterson, CACM 52 (2009) 65)

    floor = max(bytes / bandwidth, operations / rate)          [s]

with bandwidth that of a copy (bytes read and written) and rate that of a float32 matrix product,
both measured here. (Where PyTorch runs convolutions in TF32, they may be faster than rate; these
networks are bound by bytes.)
"""

from __future__ import annotations

import math

import torch
from torch import nn

from physics_hybrid.cluster.machine import Machine
from physics_hybrid.evidence.bench import seconds
from physics_hybrid.grid import Grid


def count(
    backbone: nn.Module, channels_in: int, batch: int, grid: Grid
) -> tuple[float, float] | None:
    """(bytes, operations) of one forward pass to one channel; None for a network without
    PhysicsNeMo's SpectralConv3d.
    """
    from physicsnemo.nn import SpectralConv3d

    D, H, W = grid
    N = D * H * W
    moved, operations, spectral = 4.0 * batch * N * (channels_in + 1), 0.0, False
    for module in backbone.modules():
        if isinstance(module, SpectralConv3d):
            spectral = True
            i, o, m1, m2, m3 = (
                module.in_channels,
                module.out_channels,
                module.modes1,
                module.modes2,
                module.modes3,
            )
            modes = 4 * m1 * m2 * m3
            transform = (
                2.5 * N * math.log2(W)
                + 5 * D * H * m3 * math.log2(H)
                + 5 * D * 2 * m2 * m3 * math.log2(D)
            )
            moved += 4 * batch * N * (2 * i + o) + 8 * i * o * modes
            operations += batch * (i + o) * transform + 8 * batch * i * o * modes
        elif isinstance(module, (nn.Conv3d, nn.Linear)):
            operations += 2 * batch * N * module.weight.numel()
    return (moved, operations) if spectral else None


def peaks(
    machine: Machine, elements: int | None = None, side: int | None = None
) -> dict[str, float]:
    """bandwidth (bytes/s) of a copy of `elements` floats and matmul (operations/s) of `side` x
    `side` float32 matrices: the best of several.
    """
    gpu = machine.device.type == "cuda"
    elements, side = elements or (2**28 if gpu else 2**24), side or (8192 if gpu else 1024)
    source = torch.ones(elements, device=machine.device)
    target = torch.empty_like(source)
    copy = min(seconds(lambda: target.copy_(source), machine) for _ in range(6))
    a = torch.rand(side, side, device=machine.device)
    product = min(seconds(lambda: a @ a, machine) for _ in range(6))
    return {"bandwidth": 8 * elements / copy, "matmul": 2 * side**3 / product}


def floor(moved: float, operations: float, peak: dict[str, float]) -> float:
    """Seconds that no implementation on this machine can do without."""
    return max(moved / peak["bandwidth"], operations / peak["matmul"])
