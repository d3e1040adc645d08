r"""Electrodes as faces of voxels: what lies between tissue and metal.

    I_f = (U_l - phi) / (z / area + 1 / g)                                          [A] into tissue

U_l is the potential of the electrode that has the face f, z its contact impedance, g what the half
voxel of tissue behind the face conducts, sigma area / (h / 2) but at the edge of the electrode
(`electrode_edge`). Faces may be covered in part, and may lie between two voxels of tissue: the
share that is covered then passes nothing from one to the other.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Faces
from physics_hybrid.problems.potential.physics.flux import Leak


@dataclass(frozen=True)
class Contacts:
    """F faces of L electrodes of one body.

    voxels : of tissue behind each face. axis : of its normal. side : below (0) or above (1).
    electrode : which has it, 0 to L - 1.
    share : of the face that is covered.
    area : that is covered, m^2; on oblique skin as it is seen along the electrode's axis.
    tissue : g, S. contact : z / area, ohm.
    """

    voxels: Int[Tensor, "F 3"]
    axis: Int[Tensor, " F"]
    side: Int[Tensor, " F"]
    electrode: Int[Tensor, " F"]
    share: Float[Tensor, " F"]
    area: Float[Tensor, " F"]
    tissue: Float[Tensor, " F"]
    contact: Float[Tensor, " F"]
    count: int

    @property
    def conductance(self) -> Float[Tensor, " F"]:
        """From an electrode to the centre of the voxel, S."""
        return 1 / (self.contact + 1 / self.tissue)

    @property
    def totals(self) -> Float[Tensor, " L"]:
        """Sum of it for every electrode, S."""
        return self.gathered(self.conductance[None])[0]

    def gathered(self, values: Float[Tensor, "K F"]) -> Float[Tensor, "K L"]:
        """Sums over the faces of every electrode."""
        return values.new_zeros(len(values), self.count).index_add_(1, self.electrode, values)

    def leak(self, shape: Grid, volume: float) -> Leak:
        """To all electrodes at 0 V. volume : of a voxel, m^3."""
        conductance = self.on_grid(self.conductance, shape)
        inside = self.on_grid(self.conductance**2 / self.tissue, shape)
        share = torch.where(conductance > 0, inside / conductance, 0.0)
        return Leak(conductance[None] / volume, share[None])

    def coupling(self, shape: Grid, volume: float) -> Float[Tensor, "L D H W"]:
        """What 1 V on each electrode alone brings into the voxels, A/m^3."""
        rows = torch.zeros(self.count, *shape, dtype=torch.float64)
        where = (self.electrode, *self.voxels.unbind(dim=1))
        return rows.index_put_(where, self.conductance / volume, accumulate=True)

    def currents(
        self, phi: Float[Tensor, "K D H W"], volts: Float[Tensor, "K L"]
    ) -> Float[Tensor, "K F"]:
        """Through every face into tissue, A. volts : of the electrodes."""
        d, h, w = self.voxels.unbind(dim=1)
        return self.conductance * (volts[:, self.electrode] - phi[:, d, h, w])

    def along(
        self, currents: Float[Tensor, "K F"], shape: Grid, spacing: Float[Tensor, " 3"]
    ) -> Float[Tensor, "K D H W 3"]:
        """What they add to the mean of the current densities on opposite faces of every voxel,
        A/m^2."""
        out = torch.zeros(len(currents), *shape, 3, dtype=currents.dtype)
        d, h, w = self.voxels.unbind(dim=1)
        density = (1 - 2 * self.side) * currents * self._faces_of(spacing) / 2
        for k, row in enumerate(density):
            out[k].index_put_((d, h, w, self.axis), row, accumulate=True)
        return out

    def through_skin(
        self, currents: Float[Tensor, " F"], shape: Grid, spacing: Float[Tensor, " 3"]
    ) -> Faces:
        """Current densities on the faces, along the axes, A/m^2. (1, D+1, H, W) and so on"""
        density = (1 - 2 * self.side) * currents * self._faces_of(spacing)
        return self._on_faces(density, shape)

    def open_faces(self, tissue: Bool[Tensor, "D H W"]) -> Faces | None:
        """The share of every face that is not covered; None where that does not matter, of
        electrodes on skin."""
        if not self.inside_tissue(tissue):
            return None
        d, h, w = tissue.shape
        return _less(self._on_faces(self.share, (d, h, w), True))

    def inside_tissue(self, tissue: Bool[Tensor, "D H W"]) -> bool:
        """Whether any face has tissue on both sides."""
        beside = self.voxels.clone()
        beside.scatter_add_(1, self.axis[:, None], (2 * self.side - 1)[:, None])
        size = torch.tensor(tissue.shape)
        within = ((beside >= 0) & (beside < size)).all(dim=1)
        d, h, w = torch.minimum(beside.clamp_min(0), size - 1).unbind(dim=1)
        return bool((tissue[d, h, w] & within).any())

    def within(self, box: Box) -> "Contacts":
        """The same, of voxels of a box."""
        return Contacts(
            voxels=self.voxels - torch.tensor(box.low),
            axis=self.axis,
            side=self.side,
            electrode=self.electrode,
            share=self.share,
            area=self.area,
            tissue=self.tissue,
            contact=self.contact,
            count=self.count,
        )

    def _faces_of(self, spacing: Float[Tensor, " 3"]) -> Float[Tensor, " F"]:
        """1 / area of the whole faces, 1/m^2."""
        return spacing[self.axis] / spacing.prod()

    def on_grid(self, values: Float[Tensor, " F"], shape: Grid) -> Float[Tensor, "D H W"]:
        """Sums over the faces of every voxel."""
        out = torch.zeros(shape, dtype=values.dtype)
        return out.index_put_(tuple(self.voxels.unbind(dim=1)), values, accumulate=True)

    def _on_faces(self, values: Float[Tensor, " F"], shape: Grid, largest: bool = False) -> Faces:
        """Values on the faces of the grid: sums, or of the two sides of a face the largest."""
        faces = []
        for axis in range(3):
            size = list(shape)
            size[axis] += 1
            mine = self.axis == axis
            index = self.voxels[mine].clone()
            index[:, axis] += self.side[mine]
            flat = (index[:, 0] * size[1] + index[:, 1]) * size[2] + index[:, 2]
            out = torch.zeros(size[0] * size[1] * size[2], dtype=values.dtype)
            out.scatter_reduce_(0, flat, values[mine], "amax" if largest else "sum")
            faces.append(out.reshape(1, *size))
        return faces[0], faces[1], faces[2]


def _less(share: Faces) -> Faces:
    """What is left of 1."""
    return 1 - share[0], 1 - share[1], 1 - share[2]
