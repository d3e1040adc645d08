r"""Equation and charge for truth made by finite elements, with the operator that made that truth.

The counterpart of `losses.Physics`. Networks predict phi at voxel centres, elements have it at
nodes. The centres of an element solution are means of its nodes, which cannot be undone; so element
data carry their node values, and a prediction is measured by the nodal field

    phi_n = u_n + lift(phi - u)
    lift: mean over the tissue voxels round a node, 0 on grounded nodes

with u the truth at centres and u_n that at nodes: phi = u gives u_n, whose residual r = K phi_n - f
vanishes to the solver's tolerance. The sum of r over the nodes of a box is the current that leaves
the box less the current injected in it, the flux through the ends included. What lift averages
away, an error that alternates from voxel to voxel, is not seen here: that is the part of the mean
square error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.physics.conductor import Conductor, outside_sphere
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.nodes import lift, voxels_round_nodes
from physics_hybrid.problems.potential.physics.elements.source import ElementSource
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator
from physics_hybrid.problems.potential.physics.ends import Ends

#: A node's residual sees voxel centres up to one and a half voxels away along each axis.
REACH = 1.5 * math.sqrt(3)


@runtime_checkable
class ElementTruth(Protocol):
    """What is read of a batch whose truth finite elements made.

    sigma (B, C, D, H, W) S/m; spacing, source_point, return_point (B, 3) m; current (B,) A;
    u (B, D, H, W) V at voxel centres; nodes (B, D+1, H+1, W+1) V; counted (B, D, H, W): the tissue
    that losses are taken over; shape: the grid (D, H, W).
    """

    @property
    def sigma(self) -> Tensor: ...

    @property
    def spacing(self) -> Tensor: ...

    @property
    def source_point(self) -> Tensor: ...

    @property
    def return_point(self) -> Tensor | None: ...

    @property
    def current(self) -> Tensor: ...

    @property
    def u(self) -> Tensor: ...

    @property
    def nodes(self) -> Tensor | None: ...

    @property
    def counted(self) -> Tensor: ...

    @property
    def shape(self) -> Grid: ...


@dataclass(frozen=True)
class ElementPhysics:
    """The discrete problem of a batch of element data, shared by the PDE and the charge loss."""

    operator: ElementOperator
    source: ElementSource

    @property
    def ends(self) -> Ends:
        return self.operator.ends

    @classmethod
    def of(
        cls,
        conductor: Conductor,
        source: PointSource,
        dtype: torch.dtype,
        singularity: str = "subtraction",
    ) -> "ElementPhysics":
        """Built in float64 (float32 on MPS) and rounded to `dtype`.

        `singularity` must be that of the truth.

        Raises
        ------
        ValueError
            As `ElementOperator.of` and `ElementSource.of`.
        """
        build = torch.float32 if conductor.sigma.device.type == "mps" else torch.float64
        operator = ElementOperator.of(conductor, build)
        known = ElementSource.of(conductor, operator, source, singularity)
        return cls(operator.to(dtype), known.to(dtype))

    def nodal(
        self, phi: Float[Tensor, "B D H W"], batch: ElementTruth
    ) -> Float[Tensor, "B D+1 H+1 W+1"]:
        """The nodal field of a prediction phi, both in volts."""
        tissue = self.operator.tissue
        away = torch.where(tissue, phi - batch.u.to(phi.dtype), 0.0)
        return _nodes(batch, phi) + torch.where(self.operator.free, lift(away, tissue), 0.0)

    def residual(
        self, phi: Float[Tensor, "B D H W"], batch: ElementTruth
    ) -> Float[Tensor, "B D+1 H+1 W+1"]:
        """r at the free nodes, A; 0 elsewhere."""
        return self.source.residual(self.operator, self.nodal(phi, batch))

    def pde(
        self,
        phi: Float[Tensor, "B D H W"],
        batch: ElementTruth,
        sigma_threshold: float = 0.0,
        exclude_radius: float = 3.0,
    ) -> Float[Tensor, " B"]:
        """sum (r_i / K_ii)^2 / sum u_i^2 over nodes in tissue.

        Of tissue whose mean diagonal sigma > `sigma_threshold` S/m. Nodes are left out so far round
        the electrodes that no voxel within `exclude_radius` voxels of them gets a gradient.
        r_i / K_ii is what one Jacobi sweep would change, in volts, as in `losses.PDELoss`.
        """
        tissue = self.operator.tissue
        conducts = batch.sigma[:, :3].mean(dim=1) > sigma_threshold
        poor = tissue & ~(conducts & batch.counted)
        mask = self.operator.free & (voxels_round_nodes(poor.to(phi.dtype)) == 0)
        mask = mask & _far_from_electrodes(batch, exclude_radius + REACH)
        diagonal = torch.where(mask, self.operator.diagonal, 1.0)
        volts = torch.where(mask, self.residual(phi, batch) / diagonal, 0.0)
        size = _sum(torch.where(mask, _nodes(batch, phi), 0.0) ** 2)
        return torch.where(size > 0, _sum(volts**2), 0.0) / torch.where(size > 0, size, 1.0)

    def charge(
        self,
        phi: Float[Tensor, "B D H W"],
        batch: ElementTruth,
        surfaces: Sequence[Bool[Tensor, "B D H W"]],
    ) -> Float[Tensor, " B"]:
        """Gauss's law, mean over surfaces of (D / I - 1)^2.

        D - I is the sum of r over the nodes of the voxels inside.

        surfaces : insides of closed surfaces round the source, as `losses.ChargeLoss.surfaces`
            gives them; the whole grid stands for what leaves through the ends. Where no current
            passes these (sink, pair) that one is 0 for every phi.
        """
        r = self.residual(phi, batch)
        current = batch.current.to(r)
        defects = []
        for inside in surfaces:
            within = voxels_round_nodes(inside.to(r.dtype)) > 0
            defects.append(_sum(torch.where(within, r, 0.0)) / current)
        return torch.stack(defects).pow(2).mean(dim=0)


def _nodes(batch: ElementTruth, like: Tensor) -> Tensor:
    if batch.nodes is None:
        raise ValueError("this truth has no values at nodes: finite elements did not make it")
    return batch.nodes.to(like.dtype)


def _far_from_electrodes(batch: ElementTruth, radius: float) -> Tensor:
    """True at nodes farther than `radius` voxels from every electrode. (B, D+1, H+1, W+1)"""
    D, H, W = batch.shape
    nodes = (D + 1, H + 1, W + 1)  # the centres of a grid one voxel larger, moved by half a voxel
    moved = batch.source_point + batch.spacing / 2
    far = outside_sphere(moved, nodes, batch.spacing, radius)
    if batch.return_point is not None:
        moved = batch.return_point + batch.spacing / 2
        far = far & outside_sphere(moved, nodes, batch.spacing, radius)
    return far


def _sum(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3))
