r"""Trilinear finite elements on voxels: the weak form, once for solver, losses and residuals.

    a(phi, v) + int_ends beta sigma_DD phi v dS = I v(r_s)                                 [A]
    a(phi, v) = int grad v . sigma grad phi dV

One hexahedron for each tissue voxel, nodes at voxel corners. Air is no element: zero flux at the
skin is natural, and nodes without tissue are no unknowns. sigma is constant in a voxel and may be a
full tensor: this is where oblique fibres belong, which a 7-point stencil cannot represent. Ends:
grounded nodes are no unknowns; robin is the boundary mass term above. (Hughes, The Finite Element
Method, 2000, ch. 3; Braess, Finite Elements, 2007, ch. II.)

Units: volts at nodes, amperes for what the operator makes of them.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor, require_way_out
from physics_hybrid.problems.potential.physics.elements.hexahedron import (
    element_matrices,
    end_matrix,
)
from physics_hybrid.problems.potential.physics.elements.nodes import (
    corners,
    gather_at_nodes,
    voxels_round_nodes,
)
from physics_hybrid.problems.potential.physics.ends import Ends


@dataclass(frozen=True)
class ElementOperator:
    """phi at nodes in volts -> current out of every node in amperes; matrix-free, differentiable.

    Nodes are (K, D+1, H+1, W+1) here, for K fields in B = K conductors, or in B = 1.

    sigma : S/m, 0 in air; C = 1, 3 or 6.
    spacing : metres.
    ends : Ends
    """

    sigma: Float[Tensor, "B C D H W"]
    spacing: Float[Tensor, "B 3"]
    ends: Ends

    @classmethod
    def of(cls, conductor: Conductor, dtype: torch.dtype = torch.float64) -> "ElementOperator":
        """
        Raises
        ------
        ValueError
            Where tissue does not reach an end that should carry the current away.
        """
        require_way_out(conductor)
        sigma = conductor.sigma.to(dtype) * conductor.tissue[:, None]
        return cls(sigma, conductor.spacing.to(dtype), Ends.of(conductor.ends))

    def to(self, dtype: torch.dtype) -> "ElementOperator":
        return ElementOperator(self.sigma.to(dtype), self.spacing.to(dtype), self.ends)

    @property
    def tissue(self) -> Bool[Tensor, "B D H W"]:
        return self.sigma[:, 0] > 0

    @cached_property
    def matrices(self) -> Float[Tensor, "B C 8 8"]:
        """The element matrices of the components that sigma has."""
        K = element_matrices(self.spacing)
        components = self.sigma.shape[1]
        if components == 1:
            return K[:, :3].sum(dim=1, keepdim=True)
        return K[:, :components]

    @cached_property
    def in_tissue(self) -> Bool[Tensor, "B nD nH nW"]:
        """Nodes that touch tissue."""
        return voxels_round_nodes(self.tissue.to(self.sigma.dtype)) > 0

    @cached_property
    def free(self) -> Bool[Tensor, "B nD nH nW"]:
        """Nodes whose potential is unknown: those in tissue that are not grounded."""
        free = self.in_tissue.clone()
        if self.ends.kind == "grounded":
            free[:, [0, -1]] = False
        return free

    @cached_property
    def diagonal(self) -> Float[Tensor, "B nD nH nW"]:
        """Diagonal of the operator, A/V; 0 in air."""
        entries = torch.diagonal(self.matrices, dim1=-2, dim2=-1)
        out = gather_at_nodes(torch.einsum("zcdhw,zci->zidhw", self.sigma, entries))
        if self.ends.kind == "robin":
            entry = torch.diagonal(end_matrix(self.spacing), dim1=-2, dim2=-1)[:, :, None, None]
            for end in (0, -1):
                out[:, end] += gather_at_nodes(self._exchange_of(end) * entry)
        return out

    def stiffness(self, phi: Float[Tensor, "K nD nH nW"]) -> Float[Tensor, "K nD nH nW"]:
        """a(phi, N_i): the current that leaves node i through the tissue, A."""
        at_corners = corners(phi)
        sigma, known = self.sigma.flatten(2), at_corners.flatten(2)
        currents = torch.zeros_like(known)
        for c in range(sigma.shape[1]):
            currents = currents + sigma[:, c : c + 1] * (self.matrices[:, c] @ known)
        return gather_at_nodes(currents.view(-1, *at_corners.shape[1:]))

    def exchange(self, phi: Float[Tensor, "K nD nH nW"]) -> Float[Tensor, "K nD nH nW"]:
        """int beta sigma_DD phi N_i dS: what leaves the body at node i through a robin end, A."""
        out = torch.zeros_like(phi)
        if self.ends.kind == "robin":
            M = end_matrix(self.spacing)
            for end in (0, -1):
                at_corners = corners(phi[:, end])
                mass = (M @ at_corners.flatten(2)).view(-1, *at_corners.shape[1:])
                out[:, end] += gather_at_nodes(self._exchange_of(end) * mass)
        return out

    def _exchange_of(self, end: int) -> Tensor:
        """beta sigma_DD in the voxels of a robin end, S/m^2. (B, 1, H, W)"""
        return self.ends.exchange * self.sigma[:, :1, end]

    def __call__(self, phi: Float[Tensor, "K nD nH nW"]) -> Float[Tensor, "K nD nH nW"]:
        """Stiffness and exchange together: the matrix that finite elements assemble."""
        return self.stiffness(phi) + self.exchange(phi)
