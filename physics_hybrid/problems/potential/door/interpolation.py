"""Values between voxel centres: trilinear in the tissue.

    u(r) = sum_i w_i u_i,        w_i >= 0, sum_i w_i = 1, w_i = 0 in air

over the eight centres round r. The same weights deposit a current: what is read there with them is
the transpose of what is injected, so that reciprocity holds to rounding.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor

CORNERS = tuple(itertools.product((0, 1), repeat=3))


@dataclass(frozen=True)
class Weights:
    """voxels : flat indices into (D, H, W). values : they add up to 1 at each point."""

    voxels: Int[Tensor, "P 8"]
    values: Float[Tensor, "P 8"]

    @classmethod
    def at(cls, conductor: Conductor, points: Float[Tensor, "P 3"], alike: bool = False) -> Weights:
        """Of points (P, 3) m in tissue, or on its surface.

        alike : of voxels that conduct as the one that holds the point: what jumps at an interface.
        """
        held = conductor.in_tissue(points)
        spacing = conductor.spacing[0].to(points)
        size = torch.tensor(conductor.shape, device=points.device)
        place = held / spacing - 0.5
        low = place.detach().floor()
        share = place - low
        low = low.long()
        tissue = conductor.tissue[0].flatten()
        sigma = conductor.sigma[0].detach().flatten(1)
        own = conductor.sigma_at(held.detach()).T
        voxels, values = [], []
        for corner in CORNERS:
            up = torch.tensor(corner, device=points.device)
            index = low + up
            inside = ((index >= 0) & (index < size)).all(dim=1)
            index = torch.minimum(index.clamp_min(0), size - 1)
            flat = (index[:, 0] * size[1] + index[:, 1]) * size[2] + index[:, 2]
            weight = torch.where(up.bool(), share, 1 - share).prod(dim=1)
            voxels.append(flat)
            counts = inside & tissue[flat]
            if alike:
                counts &= (sigma[:, flat] == own).all(dim=0)
            values.append(torch.where(counts, weight, 0.0))
        total = torch.stack(values, dim=1)
        return cls(torch.stack(voxels, dim=1), total / total.sum(dim=1, keepdim=True))

    def of(self, field: Float[Tensor, "K D H W"]) -> Float[Tensor, "K P"]:
        """Values of fields there."""
        return (field.flatten(1)[:, self.voxels] * self.values).sum(dim=-1)
