"""A phi for the solver, and the same operator on a grid of half as many voxels along every side.

Coarse grids join 2 x 2 x 2 voxels (an odd side leaves one thin coarse voxel: any size works).
Between coarse voxels the conductance is the sum of the fine ones over half the distance, so that
every level is again a 7-point operator of the same family, with air, interfaces and grounded ends
inherited.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import Grid, pad
from physics_hybrid.problems.potential.physics.conductor import Faces
from physics_hybrid.problems.potential.physics.flux import both_sides


class Stencil:
    """The operator's conductances as six neighbour weights and a diagonal, applied in place.

    Algebraically `FluxOperator.__call__` (a test holds them equal); half the memory traffic, no
    gradient.

    conductance : three tensors (B, D+1, H, W), (B, D, H+1, W), (B, D, H, W+1)
        S/m^3 on the faces, as `FluxOperator` has them.
    diagonal : Tensor (B, D, H, W) or None
        S/m^3; None: the sum over the six faces.
    """

    def __init__(
        self, conductance: Faces, diagonal: Float[Tensor, "K D H W"] | None = None
    ) -> None:
        d, h, w = conductance[0].shape[1:]
        self.n: Grid = (d - 1, h, w)
        self.conductance = conductance
        self.inner = [k.narrow(a + 1, 1, self.n[a] - 1) for a, k in enumerate(conductance)]
        if diagonal is None:
            diagonal = both_sides(conductance)
        tiny = torch.finfo(diagonal.dtype).tiny
        self.diagonal = diagonal
        self.inverse = torch.where(diagonal > 0, 1 / diagonal.clamp_min(tiny), 0.0)

    def __call__(self, phi: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """A phi, A/m^3."""
        out = self.diagonal * phi
        for axis, k in enumerate(self.inner):
            m = self.n[axis] - 1
            below, above = phi.narrow(axis + 1, 0, m), phi.narrow(axis + 1, 1, m)
            out.narrow(axis + 1, 1, m).addcmul_(k, below, value=-1)
            out.narrow(axis + 1, 0, m).addcmul_(k, above, value=-1)
        return out

    def coarsen(self) -> "Stencil":
        """The operator on voxels twice as long, wide and high."""
        d, h, w = (_coarse_faces(k, axis) for axis, k in enumerate(self.conductance))
        return Stencil((d, h, w))


def _coarse_faces(conductance: Float[Tensor, "B _ _ _"], axis: int) -> Float[Tensor, "B _ _ _"]:
    """Conductance of the coarse faces normal to an axis, S/m^3."""
    last = conductance.shape[axis + 1] - 1
    kept = torch.tensor([*range(0, last, 2), last], device=conductance.device)
    k = conductance.index_select(axis + 1, kept)
    for other in range(3):
        if other != axis:
            k = pair_sum(k, other)
    # conductances are per volume (sigma / h^2): eight times the volume, half of the summed one
    return k / 16


def pair_sum(field: Float[Tensor, "B _ _ _"], axis: int) -> Float[Tensor, "B _ _ _"]:
    """Sums of two voxels after each other along an axis; of an odd number the last one is alone."""
    if field.shape[axis + 1] % 2:
        field = F.pad(field, pad(axis, before=0, after=1))
    return torch.unflatten(field, axis + 1, (-1, 2)).sum(dim=axis + 2)
