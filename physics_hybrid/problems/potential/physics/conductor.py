"""The volume conductor: what is known about the body before anything is solved.

Everything in this package takes a `Conductor`: conductivity on voxels, the size of a voxel, and
what happens at the two cut ends of the limb (`Ends`). A body surrounded by air passes no current
through its skin.

Units: metres, siemens per metre. Axes: (D, H, W); D is the long axis of the limb and the fibre
axis. B counts bodies, K sources; many sources may share one body (B = 1).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.grid import Grid, along, per_sample
from physics_hybrid.problems.potential.physics.ends import Ends

#: Components of sigma: scalar; diagonal (DD, HH, WW); symmetric (DD, HH, WW, DH, DW, HW).
COMPONENTS = (1, 3, 6)

#: A point so close to a voxel face, in voxels, lies on it: rounding coordinates to float32 must
#: move no electrode into another tissue.
ON_FACE = 1e-4

#: Relative difference of two distances that are the same but for rounding.
TIE = 1e-5

#: One value on every face normal to D, to H and to W.
Faces = tuple[
    Float[Tensor, "K D_faces H W"],
    Float[Tensor, "K D H_faces W"],
    Float[Tensor, "K D H W_faces"],
]


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
        For a wrong shape, a negative or non-finite sigma, a tensor that conducts across D only, a
        spacing that is not positive, unknown ends.
    """

    sigma: Float[Tensor, "B C D H W"]
    spacing: Float[Tensor, "B 3"]
    ends: Ends

    def __init__(self, sigma: Tensor, spacing: Tensor, ends: Ends | str = "grounded") -> None:
        # written out, so that `ends` takes a name and always holds `Ends`
        object.__setattr__(self, "sigma", sigma)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "ends", Ends.of(ends))
        self._check_shapes()
        self._check_values()

    def _check_shapes(self) -> None:
        """Raise ValueError where sigma and spacing are no batch of bodies."""
        if self.sigma.ndim != 5 or self.sigma.shape[1] not in COMPONENTS:
            raise ValueError(
                f"sigma must have shape (B, C, D, H, W) with C in {COMPONENTS}; "
                f"got {tuple(self.sigma.shape)}"
            )
        if tuple(self.spacing.shape) != (self.sigma.shape[0], 3):
            raise ValueError(
                f"spacing must have shape (B, 3) = ({self.sigma.shape[0]}, 3); "
                f"got {tuple(self.spacing.shape)}"
            )

    def _check_values(self) -> None:
        """Raise ValueError for a conductivity or a spacing that no body has."""
        smallest, largest = (float(value) for value in self.sigma.detach().aminmax())
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise ValueError("sigma must be finite (S/m); it holds NaN or infinity")
        if smallest < 0 and self.sigma.shape[1] > 3:
            smallest = float(self.sigma[:, :3].min())
        if smallest < 0:
            raise ValueError(
                f"sigma must be >= 0 (S/m); its smallest diagonal value is {smallest:g}"
            )
        across = self.sigma[:, 1:3]
        if across.shape[1] and bool(((across > 0) & (self.sigma[:, :1] <= 0)).any()):
            raise ValueError(
                "sigma is 0 along D and positive across it in some voxel: "
                "a tensor must be 0 (air) or conduct along D, too"
            )
        if not bool((torch.isfinite(self.spacing) & (self.spacing > 0)).all()):
            raise ValueError(
                f"spacing must be positive and finite (m); got {self.spacing.tolist()}"
            )

    @property
    def shape(self) -> Grid:
        """Grid (D, H, W)."""
        d, h, w = self.sigma.shape[-3:]
        return d, h, w

    @property
    def tissue(self) -> Bool[Tensor, "B D H W"]:
        """True where current can flow."""
        return self.sigma[:, 0] > 0

    @property
    def oblique(self) -> bool:
        """Whether sigma has off-diagonal components anywhere."""
        return self.sigma.shape[1] == 6 and bool((self.sigma[:, 3:] != 0).any())

    @property
    def voxel_volume(self) -> Float[Tensor, " B"]:
        """dD dH dW in m^3."""
        return self.spacing.prod(dim=1)

    def diagonal(self) -> Float[Tensor, "B 3 D H W"]:
        """(sigma_DD, sigma_HH, sigma_WW).

        Raises
        ------
        ValueError
            For an oblique tensor: a 7-point stencil cannot represent it and never approximates it
            silently.
        """
        if self.oblique:
            raise ValueError(
                "sigma has off-diagonal components (oblique fibres): the 7-point finite volume "
                "operator represents scalar and diagonal tensors only"
            )
        return self.sigma[:, :3].expand(-1, 3, -1, -1, -1)

    def voxel_of(self, point: Float[Tensor, "K 3"]) -> Int[Tensor, "K 3"]:
        """Index of the voxel that holds `point`, metres from the outer corner of voxel (0, 0, 0).

        A point on a face (within `ON_FACE`) belongs to the voxel above it.

        Raises
        ------
        ValueError
            If a point is not inside the grid (the last face along an axis does not count as
            inside).
        """
        index, inside = self.index_of(point)
        if not bool(inside.all()):
            raise ValueError(
                f"source point {point.tolist()} m lies on or outside the outer faces of the grid "
                f"{self.shape} of spacing {self.spacing.tolist()} m"
            )
        return index

    def index_of(
        self, point: Float[Tensor, "*n K 3"]
    ) -> tuple[Int[Tensor, "*n K 3"], Bool[Tensor, "*n K"]]:
        """The voxels that hold points in metres, clamped to the grid, and whether each is one of
        the grid."""
        last = torch.tensor(self.shape, device=point.device) - 1
        index = (point / self.spacing.to(point) + ON_FACE).floor().long()
        inside = torch.minimum(index.clamp_min(0), last)
        return inside, (index == inside).all(dim=-1)

    def in_tissue(self, point: Float[Tensor, "K 3"]) -> Float[Tensor, "K 3"]:
        """The points in metres; those on a face, edge or corner between voxels (within `ON_FACE`)
        are moved, by 2 `ON_FACE` voxels along each axis that it takes, into the one that conducts
        best, by the mean diagonal of sigma: never into air, of equal ones into the one whose
        neighbours there conduct best, and of those the one above.

        On an interface the medium that carries most of the current is the one whose closed form
        leaves the smaller rest.
        """
        down = torch.tensor(
            list(itertools.product((0, -1), repeat=3)), dtype=point.dtype, device=point.device
        )
        moved = point + 2 * ON_FACE * down[:, None] * self.spacing.to(point)
        conducts = self._conducts(moved)[0]
        eight = torch.unflatten(conducts, 0, (2, 2, 2))
        # on an edge that three of four share: the middle one
        beside = (eight.flip(0) + eight.flip(1) + eight.flip(2)).flatten(0, 2)
        best = _first_largest(conducts + 1e-4 * beside)
        return moved[best, torch.arange(len(point), device=point.device)]

    def _conducts(
        self, points: Float[Tensor, "n K 3"]
    ) -> tuple[Float[Tensor, "n K"], Float[Tensor, "n K C"]]:
        """Mean diagonal of sigma, and sigma, in the voxels of n points; 0 outside the grid."""
        index, inside = self.index_of(points)
        held = torch.unflatten(at(self.sigma, index.flatten(0, 1)), 0, points.shape[:2])
        sigma = held * inside[..., None]
        return sigma[..., :3].mean(dim=-1), sigma

    def best_near(self, point: Float[Tensor, "K 3"], reach: float) -> Float[Tensor, "K C"]:
        """Conductivity of the best conductor, by its mean diagonal, within `reach` < 1 voxels of
        `point` in metres: looked for in the 26 directions of a voxel's neighbours.

        Raises
        ------
        ValueError
            As `sigma_at`.
        """
        self.sigma_at(point)
        # first of all: where it is
        directions = sorted(itertools.product((-1, 0, 1), repeat=3), key=any)
        towards = torch.tensor(directions, dtype=point.dtype, device=point.device)
        step = reach * towards / towards.norm(dim=1, keepdim=True).clamp_min(1)
        conducts, sigma = self._conducts(point + step[:, None] * self.spacing.to(point))
        return sigma[_first_largest(conducts), torch.arange(len(point), device=point.device)]

    def sigma_at(self, point: Float[Tensor, "K 3"]) -> Float[Tensor, "K C"]:
        """Conductivity of the voxel that holds `point` in metres.

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
                f"source of sample {b} lies in air (voxel {tuple(index[b].tolist())}, sigma = 0): "
                "no current can flow from it"
            )
        return value


def require_way_out(conductor: Conductor) -> None:
    """Raise ValueError where the ends should carry the current away and no tissue touches them."""
    sealed = ~conductor.tissue[:, [0, -1]].flatten(1).any(dim=1)
    if not conductor.ends.floating and bool(sealed.any()):
        raise ValueError(
            f"sample {int(sealed.nonzero()[0])}: no tissue touches the first or last plane along "
            f"D, so that ends={conductor.ends.kind} is zero flux on the whole surface, and one "
            "electrode has no solution. A closed body needs ends=sink or ends=pair; a limb must "
            "reach the cut faces"
        )


def _first_largest(values: Float[Tensor, "n K"]) -> Int[Tensor, " K"]:
    """Row of the largest of each column of values >= 0; what rounding tells apart is equal, and of
    equal ones it is the first."""
    largest = values >= (1 - 1e-5) * values.amax(dim=0)
    return largest.to(torch.uint8).argmax(dim=0)


def matrix(sigma: Float[Tensor, "*n C"]) -> Float[Tensor, "*n 3 3"]:
    """The tensors as matrices; C = 1, 3 or 6 (DD, HH, WW, DH, DW, HW)."""
    if sigma.shape[-1] < 6:
        return torch.diag_embed(sigma.expand(*sigma.shape[:-1], 3))
    DD, HH, WW, DH, DW, HW = sigma.unbind(dim=-1)
    rows = torch.stack([DD, DH, DW, DH, HH, HW, DW, HW, WW], dim=-1)
    return torch.unflatten(rows, -1, (3, 3))


def at(field: Float[Tensor, "B C D H W"], index: Int[Tensor, "K 3"]) -> Float[Tensor, "K C"]:
    """Values of a field at voxels; B is K, or 1 where all voxels belong to one body."""
    rows = torch.arange(len(index), device=index.device) % len(field)
    return field[rows, :, index[:, 0], index[:, 1], index[:, 2]]


def zero_mean(
    phi: Float[Tensor, "K D H W"], where: Bool[Tensor, "#K D H W"]
) -> Float[Tensor, "K D H W"]:
    """phi less its mean over the voxels marked, and 0 elsewhere."""
    count = where.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    mean = torch.where(where, phi, 0.0).sum(dim=(1, 2, 3), keepdim=True) / count
    return torch.where(where, phi - mean, 0.0)


def face_positions(size: int, spacing: Float[Tensor, " B"]) -> Float[Tensor, "B {size}+1"]:
    """Coordinates in metres of the voxel faces along one axis."""
    number = torch.arange(size + 1, device=spacing.device, dtype=spacing.dtype)
    return number * spacing[:, None]


def centre_positions(size: int, spacing: Float[Tensor, " B"]) -> Float[Tensor, "B {size}"]:
    """Coordinates in metres of the voxel centres along one axis."""
    number = torch.arange(size, device=spacing.device, dtype=spacing.dtype)
    return (number + 0.5) * spacing[:, None]


def distance_from(
    point: Float[Tensor, "K 3"], shape: Grid, spacing: Float[Tensor, "K 3"]
) -> Float[Tensor, "K D H W"]:
    """Distance |r - point| in metres of every voxel centre."""
    d, h, w = offsets_from(point, shape, spacing)
    return (d**2 + h**2 + w**2).sqrt()


def offsets_from(
    point: Float[Tensor, "K 3"], shape: Grid, spacing: Float[Tensor, "K 3"]
) -> list[Float[Tensor, " K #D #H #W"]]:
    """Components of r - point in metres at voxel centres, each along its own axis."""
    offsets = []
    for axis in range(3):
        centres = centre_positions(shape[axis], spacing[:, axis])
        offsets.append(along(centres - point[:, axis, None], axis))
    return offsets


def outside_sphere(
    point: Float[Tensor, "K 3"], shape: Grid, spacing: Float[Tensor, "K 3"], radius: float | int
) -> Bool[Tensor, "K D H W"]:
    """True where a voxel is `radius` *voxels* or farther from the source.

    The distance is counted in voxels along each axis: sqrt(sum_a ((r - r_s)_a / h_a)^2) >= radius.
    Of a source in the middle of a voxel many centres lie at a whole number of voxels: `TIE` keeps
    them on one side, whatever a processor's rounding says.
    """
    offsets = offsets_from(point, shape, spacing)
    d, h, w = (offset / per_sample(spacing[:, axis]) for axis, offset in enumerate(offsets))
    return (d**2 + h**2 + w**2).sqrt() > radius * (1 - TIE)
