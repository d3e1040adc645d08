"""The volume conductor: what is known about the body before anything is solved.

Everything in this package takes a `Conductor`: conductivity on voxels, the size of a voxel, and what
happens at the two cut ends of the limb (`Ends`). A body surrounded by air passes no current through its skin.

Units: metres, siemens per metre. Axes: (D, H, W); D is the long axis of the limb and the fibre axis.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from physics_hybrid.grid import Grid

ENDS = {
    "grounded": "phi = 0 on the two cut faces of the limb",
    "robin": "d phi / dn = -beta phi on the two cut faces: the limb goes on",
    "sink": "zero flux everywhere; the current leaves evenly through all tissue, and phi has zero mean",
    "pair": "zero flux everywhere; a second electrode takes the current out, and phi has zero mean",
}

#: Components of sigma: scalar; diagonal (DD, HH, WW); symmetric (DD, HH, WW, DH, DW, HW).
COMPONENTS = (1, 3, 6)

#: A point so close to a voxel face, in voxels, lies on it: rounding coordinates to float32 must move no electrode into another tissue.
ON_FACE = 1e-4


@dataclass(frozen=True)
class Ends:
    """How the current leaves: the boundary condition that makes the potential of one electrode unique.

    kind : str
        ``grounded``, ``robin``, ``sink`` or ``pair``, see `ENDS`.
    beta : float or None
        1/m, for ``robin`` only: a limb that goes on for 1/beta metres to a grounded end has this on its cut face, once the field there
        is one-dimensional.

    One number says it all to an operator: `beta` is infinite where the end is grounded and 0 where nothing passes.

    Raises
    ------
    ValueError
        For another kind, with the four choices; for a beta that is missing, not positive, or given where it means nothing.
    """

    kind: str = "grounded"
    beta: float | None = None

    def __post_init__(self):
        if self.kind not in ENDS or (self.kind == "robin" and self.beta == 0):
            raise ValueError(
                f"ends must say how the current leaves; got {self.kind!r}{' with beta=0' if self.kind == 'robin' else ''}. (Zero flux on the whole surface "
                "with one electrode has no solution: the current that comes in has no way out.) Choose: "
                + "; ".join(f"{kind}: {meaning}" for kind, meaning in ENDS.items())
            )
        if self.kind == "robin" and not (self.beta is not None and 0 < self.beta < math.inf):
            raise ValueError(f"ends=robin needs a positive beta in 1/m (d phi / dn = -beta phi); got {self.beta}")
        if self.kind != "robin" and self.beta is not None:
            raise ValueError(f"beta={self.beta:g} has a meaning for ends=robin only, not for ends={self.kind}: leave it out")

    @classmethod
    def of(cls, ends: Ends | str) -> Ends:
        return ends if isinstance(ends, Ends) else cls(ends)

    @property
    def floating(self) -> bool:
        """Whether no current passes the ends, so that phi is known up to a constant and has zero mean by choice."""
        return self.kind in ("sink", "pair")

    @property
    def exchange(self) -> float:
        """beta of every kind: infinity where grounded, 0 where floating. 1/m"""
        return {"grounded": math.inf, "robin": self.beta}.get(self.kind, 0.0)


@dataclass(frozen=True)
class Conductor:
    """A batch of voxelised bodies.

    Parameters
    ----------
    sigma : Tensor (B, C, D, H, W)
        Conductivity in S/m at voxel centres, C in {1, 3, 6}; 0 is air.
    spacing : Tensor (B, 3)
        Edge lengths of a voxel in metres, in the order (D, H, W).
    ends : Ends or str
        What happens on the first and last face along D, and how the current leaves.

    Raises
    ------
    ValueError
        For a wrong shape, a negative or non-finite sigma, a tensor that conducts across D only, a spacing that is not positive, unknown ends.
    """

    sigma: Tensor
    spacing: Tensor
    ends: Ends | str = "grounded"

    def __post_init__(self):
        object.__setattr__(self, "ends", Ends.of(self.ends))
        if self.sigma.ndim != 5 or self.sigma.shape[1] not in COMPONENTS:
            raise ValueError(
                f"sigma must have shape (B, C, D, H, W) with C in {COMPONENTS}; got {tuple(self.sigma.shape)}"
            )
        if tuple(self.spacing.shape) != (self.sigma.shape[0], 3):
            raise ValueError(
                f"spacing must have shape (B, 3) = ({self.sigma.shape[0]}, 3); got {tuple(self.spacing.shape)}"
            )
        if not bool(torch.isfinite(self.sigma).all()):
            raise ValueError("sigma must be finite (S/m); it holds NaN or infinity")
        if not bool((self.sigma[:, :3] >= 0).all()):
            raise ValueError(f"sigma must be >= 0 (S/m); its smallest diagonal value is {float(self.sigma[:, :3].min()):g}")
        if bool(((self.sigma[:, 1:3] > 0) & (self.sigma[:, :1] <= 0)).any()):
            raise ValueError("sigma is 0 along D and positive across it in some voxel: a tensor must be 0 (air) or conduct along D, too")
        if not bool((torch.isfinite(self.spacing) & (self.spacing > 0)).all()):
            raise ValueError(f"spacing must be positive and finite (m); got {self.spacing.tolist()}")

    @property
    def shape(self) -> Grid:
        """Grid (D, H, W)."""
        return tuple(self.sigma.shape[-3:])

    @property
    def tissue(self) -> Tensor:
        """True where current can flow. (B, D, H, W)"""
        return self.sigma[:, 0] > 0

    @property
    def oblique(self) -> bool:
        """Whether sigma has off-diagonal components anywhere."""
        return self.sigma.shape[1] == 6 and bool((self.sigma[:, 3:] != 0).any())

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
        if self.oblique:
            raise ValueError(
                "sigma has off-diagonal components (oblique fibres): the 7-point finite volume operator represents "
                "scalar and diagonal tensors only"
            )
        return self.sigma[:, :3].expand(-1, 3, -1, -1, -1)

    def voxel_of(self, point: Tensor) -> Tensor:
        """Index (B, 3) of the voxel that holds `point` (B, 3), metres from the outer corner of voxel (0, 0, 0).

        A point on a face (within `ON_FACE`) belongs to the voxel above it.

        Raises
        ------
        ValueError
            If a point is not inside the grid (the last face along an axis does not count as inside).
        """
        index, inside = self._index(point)
        if not bool(inside.all()):
            raise ValueError(f"source point {point.tolist()} m lies on or outside the outer faces of the grid {self.shape} of spacing {self.spacing.tolist()} m")
        return index

    def _index(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """The voxels (..., K, 3) that hold points (..., K, 3) in metres, and whether each is one of the grid (..., K); clamped to the grid."""
        last = torch.tensor(self.shape, device=point.device) - 1
        index = (point / self.spacing.to(point) + ON_FACE).floor().long()
        inside = torch.minimum(index.clamp_min(0), last)
        return inside, (index == inside).all(dim=-1)

    def in_tissue(self, point: Tensor) -> Tensor:
        """The points (K, 3) in metres; those on a face, edge or corner between voxels (within `ON_FACE`) are moved, by 2 `ON_FACE` voxels along each axis
        that it takes, into the one that conducts best, by the mean diagonal of sigma: never into air, of equal ones into the one whose neighbours there conduct
        best, and of those the one above.

        On an interface the medium that carries most of the current is the one whose closed form leaves the smaller rest.
        """
        down = torch.tensor(list(itertools.product((0, -1), repeat=3)), dtype=point.dtype, device=point.device)
        moved = point + 2 * ON_FACE * down[:, None] * self.spacing.to(point)
        conducts = self._conducts(moved)[0]
        eight = conducts.unflatten(0, (2, 2, 2))
        beside = sum(eight.flip(axis) for axis in range(3)).flatten(0, 2)  # on an edge that three of four share: the middle one
        best = _first_largest(conducts + 1e-4 * beside)
        return moved[best, torch.arange(len(point), device=point.device)]

    def _conducts(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean diagonal of sigma (n, K) and sigma (n, K, C) in the voxels of n points (n, K, 3); 0 outside the grid."""
        index, inside = self._index(points)
        sigma = at(self.sigma, index.flatten(0, 1)).unflatten(0, points.shape[:2]) * inside[..., None]
        return sigma[..., :3].mean(dim=-1), sigma

    def best_near(self, point: Tensor, reach: float) -> Tensor:
        """Conductivity (K, C) of the best conductor, by its mean diagonal, within `reach` < 1 voxels of `point` (K, 3) in metres: looked for in the 26
        directions of a voxel's neighbours.

        Raises
        ------
        ValueError
            As `sigma_at`.
        """
        self.sigma_at(point)
        towards = torch.tensor(sorted(itertools.product((-1, 0, 1), repeat=3), key=any), dtype=point.dtype, device=point.device)  # first of all: where it is
        step = reach * towards / towards.norm(dim=1, keepdim=True).clamp_min(1)
        conducts, sigma = self._conducts(point + step[:, None] * self.spacing.to(point))
        return sigma[_first_largest(conducts), torch.arange(len(point), device=point.device)]

    def sigma_at(self, point: Tensor) -> Tensor:
        """Conductivity (B, C) of the voxel that holds `point` (B, 3) in metres.

        Raises
        ------
        ValueError
            If a point lies outside the grid or in air.
        """
        index = self.voxel_of(point)
        value = at(self.sigma, index)
        if not bool((value[:, 0] > 0).all()):
            b = int((value[:, 0] <= 0).nonzero()[0])
            raise ValueError(
                f"source of sample {b} lies in air (voxel {tuple(index[b].tolist())}, sigma = 0): no current can flow from it"
            )
        return value


def _first_largest(values: Tensor) -> Tensor:
    """Row of the largest of each column of values (n, K) >= 0; what rounding tells apart is equal, and of equal ones it is the first. (K,)"""
    return (values >= (1 - 1e-5) * values.amax(dim=0)).to(torch.uint8).argmax(dim=0)


def at(field: Tensor, index: Tensor) -> Tensor:
    """Values (K, C) of a field (B, C, D, H, W) at voxels (K, 3); B is K, or 1 where all voxels belong to one body."""
    rows = torch.arange(len(index), device=index.device) % len(field)
    return field[rows, :, index[:, 0], index[:, 1], index[:, 2]]


def zero_mean(phi: Tensor, where: Tensor) -> Tensor:
    """phi less its mean over the voxels marked, and 0 elsewhere. (B, D, H, W)"""
    count = where.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    mean = torch.where(where, phi, 0.0).sum(dim=(1, 2, 3), keepdim=True) / count
    return torch.where(where, phi - mean, 0.0)


def face_positions(size: int, spacing: Tensor) -> Tensor:
    """Coordinates (B, size + 1) in metres of the voxel faces along one axis; spacing (B,)."""
    return torch.arange(size + 1, device=spacing.device, dtype=spacing.dtype) * spacing[:, None]


def centre_positions(size: int, spacing: Tensor) -> Tensor:
    """Coordinates (B, size) in metres of the voxel centres along one axis; spacing (B,)."""
    return (torch.arange(size, device=spacing.device, dtype=spacing.dtype) + 0.5) * spacing[:, None]


def distance_from(point: Tensor, shape: Grid, spacing: Tensor) -> Tensor:
    """Distance |r - point| in metres of every voxel centre. point, spacing (B, 3) -> (B, D, H, W)."""
    return sum(offset**2 for offset in offsets_from(point, shape, spacing)).sqrt()


def offsets_from(point: Tensor, shape: Grid, spacing: Tensor) -> list[Tensor]:
    """Components of r - point in metres at voxel centres, each broadcastable to (B, D, H, W)."""
    out = []
    for axis in range(3):
        offset = centre_positions(shape[axis], spacing[:, axis]) - point[:, axis, None]
        view = [len(spacing), 1, 1, 1]
        view[axis + 1] = shape[axis]
        out.append(offset.view(view))
    return out


def outside_sphere(point: Tensor, shape: Grid, spacing: Tensor, radius: float) -> Tensor:
    """True where a voxel is farther than `radius` *voxels* from the source. (B, D, H, W)

    The distance is counted in voxels along each axis: sqrt(sum_a ((r - r_s)_a / h_a)^2) > radius.
    """
    square = sum(
        (offset / spacing[:, axis].view(-1, 1, 1, 1)) ** 2
        for axis, offset in enumerate(offsets_from(point, shape, spacing))
    )
    return square.sqrt() > radius
