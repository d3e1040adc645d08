"""Random small bodies, each with a source: what the tests of certificates share."""

import torch
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends

GRID = (8, 6, 5)
SPACING = (0.004, 0.003, 0.0035)
ENDS = (Ends("grounded"), Ends("robin", 40.0), Ends("sink"), Ends("pair"))


def body(seed: int, ends: Ends, components: int, air: bool = True) -> Conductor:
    """Blocks of 2 x 2 x 2 voxels of random tissue, and air in a corner and in a hole."""
    random = torch.Generator().manual_seed(seed)
    blocks = [(n + 1) // 2 for n in GRID]
    if components == 6:
        root = torch.randn(*blocks, 3, 3, dtype=torch.float64, generator=random)
        full = 0.1 * root @ root.mT + 0.05 * torch.eye(3, dtype=torch.float64)
        pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
        sigma = torch.stack([full[..., a, b] for a, b in pairs])
    else:
        sigma = torch.rand(components, *blocks, dtype=torch.float64, generator=random) + 0.05
    for axis in (1, 2, 3):
        sigma = sigma.repeat_interleave(2, dim=axis)
    sigma = sigma[:, : GRID[0], : GRID[1], : GRID[2]].clone()
    if air:
        sigma[:, :, :2, :1] = 0
        sigma[:, 3:5, 4:, 3:] = 0
    return Conductor(sigma[None], torch.tensor([SPACING], dtype=torch.float64), ends)


def source(seed: int, conductor: Conductor) -> PointSource:
    """1 mA in random tissue, 0.15 voxels or more from its faces; out again far away for a pair."""
    random = torch.Generator().manual_seed(1000 + seed)
    tissue = conductor.tissue[0].nonzero()
    one = _place(tissue, conductor, random)
    other = None
    while conductor.ends.kind == "pair" and (other is None or _near(one, other)):
        other = _place(tissue, conductor, random)
    return PointSource(one, torch.tensor([1e-3], dtype=torch.float64), other)


def _place(tissue: Tensor, conductor: Conductor, random: torch.Generator) -> Tensor:
    voxel = tissue[torch.randint(len(tissue), (1,), generator=random)]
    inside = 0.15 + 0.7 * torch.rand(1, 3, dtype=torch.float64, generator=random)
    return (voxel + inside) * conductor.spacing


def _near(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() < 3 * max(SPACING))
