r"""Equation and charge for truth made by finite elements: the counterpart of `losses.Physics`, with the operator that made that truth.

Networks predict phi at voxel centres, elements have it at nodes. The centres of an element solution are means of its nodes, which
cannot be undone; so element data carry their node values, and a prediction is measured by the nodal field

    phi_n = u_n + lift(phi - u),        lift: mean over the tissue voxels round a node, 0 on grounded nodes

with u the truth at centres and u_n that at nodes: phi = u gives u_n, whose residual r = K phi_n - f vanishes to the solver's tolerance. The
sum of r over the nodes of a box is the current that leaves the box less the current injected in it, the flux through the ends included. What lift averages away, an error that alternates from voxel to voxel,
is not seen here: that is the part of the mean square error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from physics_hybrid.potential.physics.conductor import Conductor, Ends, outside_sphere
from physics_hybrid.potential.physics.elements.operator import (
    ElementOperator,
    ElementSource,
    lift,
    voxels_round_nodes,
)
from physics_hybrid.potential.physics.point_source import PointSource
from physics_hybrid.potential.scene import Batch

#: A node's residual sees voxel centres up to one and a half voxels away along each axis.
REACH = 1.5 * math.sqrt(3)


@dataclass(frozen=True)
class ElementPhysics:
    """The discrete problem of a batch of element data, shared by the PDE and the charge loss."""

    operator: ElementOperator
    source: ElementSource

    @property
    def ends(self) -> Ends:
        return self.operator.ends

    @classmethod
    def of(cls, conductor: Conductor, source: PointSource, dtype: torch.dtype, singularity: str = "subtraction") -> ElementPhysics:
        """Built in float64 (float32 on MPS) and rounded to `dtype`. `singularity` must be that of the truth.

        Raises
        ------
        ValueError
            As `ElementOperator.of` and `ElementSource.of`.
        """
        build = torch.float32 if conductor.sigma.device.type == "mps" else torch.float64
        operator = ElementOperator.of(conductor, build)
        return cls(operator.to(dtype), ElementSource.of(conductor, operator, source, singularity).to(dtype))

    def nodal(self, phi: Tensor, batch: Batch) -> Tensor:
        """The nodal field of a prediction phi (B, D, H, W) in volts. (B, D+1, H+1, W+1)"""
        tissue = self.operator.tissue
        away = torch.where(tissue, phi - batch.u.to(phi.dtype), 0.0)
        return batch.nodes.to(phi.dtype) + torch.where(self.operator.free, lift(away, tissue), 0.0)

    def residual(self, phi: Tensor, batch: Batch) -> Tensor:
        """r at the free nodes, A; 0 elsewhere. (B, D+1, H+1, W+1)"""
        return self.source.residual(self.operator, self.nodal(phi, batch))

    def pde(self, phi: Tensor, batch: Batch, sigma_threshold: float = 0.0, exclude_radius: float = 3.0) -> Tensor:
        """sum (r_i / K_ii)^2 / sum u_i^2 over nodes in tissue of mean diagonal sigma > `sigma_threshold` S/m. (B,)

        Nodes are left out so far round the electrodes that no voxel within `exclude_radius` voxels of them gets a gradient. r_i / K_ii is
        what one Jacobi sweep would change, in volts, as in `losses.PDELoss`.
        """
        good = batch.sigma[:, :3].mean(dim=1) > sigma_threshold
        mask = self.operator.free & (voxels_round_nodes((self.operator.tissue & ~good).to(phi.dtype)) == 0)
        nodes = tuple(n + 1 for n in batch.shape)  # the centres of a grid one voxel larger, moved by half a voxel
        for point in [batch.source_point] if batch.return_point is None else [batch.source_point, batch.return_point]:
            mask = mask & outside_sphere(point + batch.spacing / 2, nodes, batch.spacing, exclude_radius + REACH)
        volts = torch.where(mask, self.residual(phi, batch) / torch.where(mask, self.operator.diagonal, 1.0), 0.0)
        size = _sum(torch.where(mask, batch.nodes.to(phi.dtype), 0.0) ** 2)
        return torch.where(size > 0, _sum(volts**2), 0.0) / torch.where(size > 0, size, 1.0)

    def charge(self, phi: Tensor, batch: Batch, surfaces: Sequence[Tensor]) -> Tensor:
        """Gauss's law, mean over surfaces of (D / I - 1)^2 with D - I the sum of r over the nodes of the voxels inside. (B,)

        surfaces : insides of closed surfaces round the source, (B, D, H, W) bool, as `losses.ChargeLoss.surfaces` gives them; the whole
            grid stands for what leaves through the ends. Where no current passes these (sink, pair) that one is 0 for every phi.
        """
        r = self.residual(phi, batch)
        defects = [_sum(torch.where(voxels_round_nodes(inside.to(r.dtype)) > 0, r, 0.0)) / batch.current.to(r) for inside in surfaces]
        return torch.stack(defects).pow(2).mean(dim=0)


def _sum(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3))
