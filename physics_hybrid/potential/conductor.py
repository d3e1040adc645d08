"""The volume conductor: what is known about the body before anything is solved.

Everything in this package takes a `Conductor`: conductivity on voxels, the size of a voxel, and what
happens at the two cut ends of the limb. A body surrounded by air passes no current through its skin.

Units: metres, siemens per metre. Axes: (D, H, W); D is the long axis of the limb and the fibre axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: What may happen on the two cut faces of the limb (SPEC 1).
ENDS = ("grounded",)

#: Components of sigma: scalar; diagonal (DD, HH, WW); symmetric (DD, HH, WW, DH, DW, HW).
COMPONENTS = (1, 3, 6)


@dataclass(frozen=True)
class Conductor:
    """A batch of voxelised bodies.

    Parameters
    ----------
    sigma : Tensor (B, C, D, H, W)
        Conductivity in S/m at voxel centres, C in {1, 3, 6}; 0 is air.
    spacing : Tensor (B, 3)
        Edge lengths of a voxel in metres, in the order (D, H, W).
    ends : str
        Boundary condition on the first and last face along D. ``grounded``: phi = 0 there.

    Raises
    ------
    ValueError
        For a wrong shape, a negative or non-finite sigma, a spacing that is not positive, unknown ends.
    """

    sigma: Tensor
    spacing: Tensor
    ends: str = "grounded"

    def __post_init__(self):
        if self.sigma.ndim != 5 or self.sigma.shape[1] not in COMPONENTS:
            raise ValueError(
                f"sigma must have shape (B, C, D, H, W) with C in {COMPONENTS}; got {tuple(self.sigma.shape)}"
            )
        if tuple(self.spacing.shape) != (self.sigma.shape[0], 3):
            raise ValueError(
                f"spacing must have shape (B, 3) = ({self.sigma.shape[0]}, 3); got {tuple(self.spacing.shape)}"
            )
        if self.ends not in ENDS:
            raise ValueError(f"ends must be one of {ENDS}; got {self.ends!r}")
        if not bool(torch.isfinite(self.sigma).all()):
            raise ValueError("sigma must be finite (S/m); it holds NaN or infinity")
        if not bool((self.sigma[:, :3] >= 0).all()):
            raise ValueError(f"sigma must be >= 0 (S/m); its smallest diagonal value is {float(self.sigma[:, :3].min()):g}")
        if not bool((torch.isfinite(self.spacing) & (self.spacing > 0)).all()):
            raise ValueError(f"spacing must be positive and finite (m); got {self.spacing.tolist()}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid (D, H, W)."""
        return tuple(self.sigma.shape[-3:])

    @property
    def tissue(self) -> Tensor:
        """True where current can flow. (B, D, H, W)"""
        return self.sigma[:, 0] > 0

    @property
    def voxel_volume(self) -> Tensor:
        """dD dH dW in m^3. (B,)"""
        return self.spacing.prod(dim=1)

    def diagonal(self) -> Tensor:
        """(sigma_DD, sigma_HH, sigma_WW). (B, 3, D, H, W)

        Raises
        ------
        ValueError
            For an oblique tensor: a 7-point stencil cannot represent it and never approximates it silently.
        """
        if self.sigma.shape[1] == 6 and bool((self.sigma[:, 3:] != 0).any()):
            raise ValueError(
                "sigma has off-diagonal components (oblique fibres): the 7-point finite volume operator represents "
                "scalar and diagonal tensors only"
            )
        return self.sigma[:, :3].expand(-1, 3, -1, -1, -1)

    def voxel_of(self, point: Tensor) -> Tensor:
        """Index (B, 3) of the voxel that holds `point` (B, 3), metres from the outer corner of voxel (0, 0, 0).

        A point on a face belongs to the voxel above it.

        Raises
        ------
        ValueError
            If a point is not inside the grid (its outer faces do not count as inside).
        """
        size = torch.tensor(self.shape, device=point.device)
        position = point / self.spacing.to(point)
        if not bool(((position > 0) & (position < size)).all()):
            raise ValueError(f"source point {point.tolist()} m lies on or outside the outer faces of the grid {self.shape} of spacing {self.spacing.tolist()} m")
        return torch.minimum(position.floor().long(), size - 1)

    def sigma_at(self, point: Tensor) -> Tensor:
        """Conductivity (B, C) of the voxel that holds `point` (B, 3) in metres.

        Raises
        ------
        ValueError
            If a point lies outside the grid or in air.
        """
        index = self.voxel_of(point)
        value = self.sigma[torch.arange(len(index), device=index.device), :, index[:, 0], index[:, 1], index[:, 2]]
        if not bool((value[:, 0] > 0).all()):
            b = int((value[:, 0] <= 0).nonzero()[0])
            raise ValueError(
                f"source of sample {b} lies in air (voxel {tuple(index[b].tolist())}, sigma = 0): no current can flow from it"
            )
        return value


def face_positions(size: int, spacing: Tensor) -> Tensor:
    """Coordinates (B, size + 1) in metres of the voxel faces along one axis; spacing (B,)."""
    return torch.arange(size + 1, device=spacing.device, dtype=spacing.dtype) * spacing[:, None]


def centre_positions(size: int, spacing: Tensor) -> Tensor:
    """Coordinates (B, size) in metres of the voxel centres along one axis; spacing (B,)."""
    return (torch.arange(size, device=spacing.device, dtype=spacing.dtype) + 0.5) * spacing[:, None]


def distance_from(point: Tensor, shape: tuple[int, int, int], spacing: Tensor) -> Tensor:
    """Distance |r - point| in metres of every voxel centre. point, spacing (B, 3) -> (B, D, H, W)."""
    return sum(offset**2 for offset in offsets_from(point, shape, spacing)).sqrt()


def offsets_from(point: Tensor, shape: tuple[int, int, int], spacing: Tensor) -> list[Tensor]:
    """Components of r - point in metres at voxel centres, each broadcastable to (B, D, H, W)."""
    out = []
    for axis in range(3):
        offset = centre_positions(shape[axis], spacing[:, axis]) - point[:, axis, None]
        view = [len(spacing), 1, 1, 1]
        view[axis + 1] = shape[axis]
        out.append(offset.view(view))
    return out


def outside_sphere(point: Tensor, shape: tuple[int, int, int], spacing: Tensor, radius: float) -> Tensor:
    """True where a voxel is farther than `radius` *voxels* from the source. (B, D, H, W)

    The distance is counted in voxels along each axis: sqrt(sum_a ((r - r_s)_a / h_a)^2) > radius.
    """
    square = sum(
        (offset / spacing[:, axis].view(-1, 1, 1, 1)) ** 2
        for axis, offset in enumerate(offsets_from(point, shape, spacing))
    )
    return square.sqrt() > radius
