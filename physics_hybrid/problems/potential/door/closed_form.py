"""The closed form of point electrodes, on the grid and anywhere else.

What is interpolated between voxels is the rest, which is smooth.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.image import with_image
from physics_hybrid.problems.potential.physics.point_source import infinite_medium, potential

#: Distances are never shorter, in voxels: as `infinite_medium` has it.
CLAMP = 0.1


def charges(
    conductor: Conductor, source: PointSource
) -> Iterator[tuple[PointSource, Float[Tensor, "K C"]]]:
    """Every charge of the sources, mirror images included, and its medium, S/m."""
    for electrode in source.electrodes:
        parts, sigma_inf = with_image(conductor, electrode)
        for charge in parts:
            yield charge, sigma_inf


def on_grid(conductor: Conductor, source: PointSource) -> Float[Tensor, "K D H W"]:
    """phi_inf at voxel centres, V; 0 in air."""
    total = torch.zeros(1).to(source.point)
    spacing = conductor.spacing.expand(len(source.point), 3)
    for charge, sigma_inf in charges(conductor, source):
        total = total + infinite_medium(conductor.shape, spacing, charge, sigma_inf)
    return total * conductor.tissue


def at_places(
    conductor: Conductor, source: PointSource, places: Float[Tensor, "P 3"]
) -> Float[Tensor, "K P"]:
    """phi_inf at places in m, V."""
    clamp = CLAMP * float(conductor.spacing.min())
    total = torch.zeros(1).to(source.point)
    for charge, sigma_inf in charges(conductor, source):
        away = places[None] - charge.point[:, None]
        offsets = [away[:, None, None, :, axis] for axis in range(3)]
        total = total + potential(offsets, charge.current, sigma_inf, clamp=clamp)[:, 0, 0]
    return total
