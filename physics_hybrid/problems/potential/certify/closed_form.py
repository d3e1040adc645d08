r"""The singular part of the potential, kept near its electrode.

    phi_s(x) = I / (4 pi sqrt(det sigma_inf) sqrt(d^T sigma_inf^-1 d)),   d = x - x_s          [V]
    J_s      = -sigma_inf grad phi_s = I d / (4 pi sqrt(det sigma_inf) (d^T sigma_inf^-1 d)^(3/2))

and the mirror image of both behind a grounded end that is near (`image`). phi_s is multiplied by a
cut-off theta, trilinear in every voxel, 1 round the electrode and 0 from `reach` voxels on, or
before tissue that conducts far better, where phi_s is no part of phi. J_s is used in the voxels G
where theta > 0 and sigma is close to sigma_inf: in other tissue its tangential part is wrong. On a
grounded end theta is 0, or phi_s is.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.certify.rules import Points
from physics_hybrid.problems.potential.physics.conductor import Conductor, Faces, matrix
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.image import with_image
from physics_hybrid.problems.potential.physics.point_source import (
    face_current_density,
    infinite_medium,
    potential,
)
from physics_hybrid.problems.potential.physics.subtraction import on_grid

#: Voxels on each side of that of the electrode in which the closed form is used.
REACH = 4

#: Voxels beyond these within which phi - phi_s, not phi, goes on from the centres of voxels: beyond
#: them phi_s varies as little as the rest.
MARGIN = 4

#: Tissue that conducts so many times better than that of the electrode stays outside of the
#: cut-off, where this leaves one voxel round it.
BETTER = 2.0

#: The medium is close to that of the electrode where neither sigma sigma_inf^-1 nor its inverse is
#: farther from 1 than this, by the norm of Frobenius.
CLOSE = 6.0

#: A cut-off of so many voxels at least takes two of them to fall from 1 to 0.
WIDE = 3


@dataclass(frozen=True)
class ClosedForm:
    """One electrode of one body.

    charges : the electrode and, where it has one, its image; each of one sample.
    sigma_inf : (1, C), S/m. inverse : sigma_inf^-1, ohm m.
    voxel : of the electrode. low, high : theta > 0 in voxels low <= i < high.
    medium : the voxels of G.
    cutoff : theta at the nodes along each axis; theta is the product of the three.
    spacing : metres. window : first voxels and their ends, of what is kept of phi_s and J_s on the
    grid.
    """

    charges: list[PointSource]
    sigma_inf: Float[Tensor, "1 C"]
    inverse: Float[Tensor, "3 3"]
    voxel: Grid
    low: Grid
    high: Grid
    medium: Bool[Tensor, "D H W"]
    cutoff: list[Float[Tensor, " nodes"]]
    spacing: Float[Tensor, " 3"]
    shape: Grid
    window: tuple[Grid, Grid]

    @classmethod
    def of(cls, conductor: Conductor, source: PointSource, reach: int = REACH) -> "ClosedForm":
        """Of one electrode in one body, both float64.

        Raises
        ------
        ValueError
            An electrode outside the grid or in air; a grid of two voxels along D.
        """
        charges, sigma_inf = with_image(conductor, source)
        d, h, w = (int(i) for i in conductor.voxel_of(charges[0].point)[0])
        voxel = (d, h, w)
        mirrored = len(charges) > 1
        window = (
            _clipped([i - reach - MARGIN for i in voxel], conductor.shape),
            _clipped([i + reach + MARGIN + 1 for i in voxel], conductor.shape),
        )
        reach = _clear(conductor, voxel, sigma_inf, reach)
        low, high, cutoff = [], [], []
        for axis, n in enumerate(conductor.shape):
            i = voxel[axis]
            below = above = reach
            if axis == 0 and conductor.ends.kind == "grounded":
                near_first = 2 * float(charges[0].point[0, 0]) <= n * float(conductor.spacing[0, 0])
                if not (mirrored and near_first):
                    below = min(reach, i)
                if not (mirrored and not near_first):
                    above = min(reach, n - 1 - i)
                if min(below, above) < 1:
                    raise ValueError(
                        "a certificate needs three voxels or more along D between grounded ends; "
                        f"got {n}"
                    )
            low.append(max(0, i - below))
            high.append(min(n, i + above + 1))
            cutoff.append(_cutoff(n, i, below, above))
        inverse = torch.linalg.inv(matrix(sigma_inf))[0]
        medium = _close(conductor, inverse, low, high)
        return cls(
            charges=charges,
            sigma_inf=sigma_inf,
            inverse=inverse,
            voxel=voxel,
            low=(low[0], low[1], low[2]),
            high=(high[0], high[1], high[2]),
            medium=medium,
            cutoff=cutoff,
            spacing=conductor.spacing[0],
            shape=conductor.shape,
            window=window,
        )

    @property
    def places(self) -> list[Float[Tensor, " 3"]]:
        """Of the electrode and its image, metres."""
        return [charge.point[0] for charge in self.charges]

    @cached_property
    def voxels(self) -> Int[Tensor, "n 3"]:
        """All in which theta > 0 somewhere."""
        sides = [torch.arange(a, b) for a, b in zip(self.low, self.high, strict=True)]
        return torch.cartesian_prod(*sides)

    def whole(self, voxels: Int[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """In which theta is 1 at all corners."""
        whole = torch.ones(len(voxels), dtype=torch.bool)
        for axis, values in enumerate(self.cutoff):
            i = voxels[:, axis]
            whole &= (values[i] == 1) & (values[i + 1] == 1)
        return whole

    def theta(self, points: Points) -> tuple[Float[Tensor, "n _ _ _"], list[Tensor]]:
        """theta at points, and the components of its gradient, 1/m."""
        value, slope = [], []
        for axis, values in enumerate(self.cutoff):
            i = points.voxels[:, axis]
            low, step = values[i].view(-1, 1, 1, 1), (values[i + 1] - values[i]).view(-1, 1, 1, 1)
            value.append(low + step * points.xi(axis))
            slope.append(step / self.spacing[axis])
        a, b, c = value
        bc = b * c
        gradient = [slope[0] * bc, a * (slope[1] * c), a * (slope[2] * b)]
        return a * bc, gradient

    def add_to(
        self,
        p: list[Float[Tensor, "n P Q R"]],
        points: Points,
        chi: Float[Tensor, " n"],
        sigma: Float[Tensor, "n 3"],
        ratio: Float[Tensor, "n 3"],
    ) -> None:
        """Add chi J_s + sigma grad(theta phi_s) at points, A/m^2, of a straight medium.

        sigma : along the axes, S/m. ratio : of it to sigma_inf.
        """
        i = points.voxels
        low = torch.stack([values[i[:, axis]] for axis, values in enumerate(self.cutoff)], dim=1)
        high = torch.stack(
            [values[i[:, axis] + 1] for axis, values in enumerate(self.cutoff)], dim=1
        )
        step = high - low
        t = [
            low[:, axis].view(-1, 1, 1, 1) + step[:, axis].view(-1, 1, 1, 1) * points.xi(axis)
            for axis in range(3)
        ]
        steep = (sigma * step / self.spacing).T[..., None, None, None]
        hw = t[1] * t[2]
        theta = t[0] * hw
        chi, ratio = chi.view(-1, 1, 1, 1), ratio.T[..., None, None, None]
        metres = [points.metres(axis, self.spacing) for axis in range(3)]
        inverse = self.inverse.view(3, 3, 1, 1, 1, 1)
        left = [torch.addcmul(chi, theta, part, value=-1) for part in ratio]
        for charge in self.charges:
            offset = [x - charge.point[0, axis] for axis, x in enumerate(metres)]
            phi, dense = self.seen_from(charge, offset, inverse)
            for axis in range(3):
                p[axis].addcmul_(left[axis] * dense, offset[axis])
            along = phi * t[0]
            p[0].addcmul_(phi * hw, steep[0])
            p[1].addcmul_(along * t[2], steep[1])
            p[2].addcmul_(along * t[1], steep[2])

    def at(self, points: Points) -> tuple[Float[Tensor, "n _ _ _"], list[Tensor]]:
        """phi_s at points, V, and the components of J_s, A/m^2."""
        phi, J = torch.zeros(()), [torch.zeros(())] * 3
        metres = [points.metres(axis, self.spacing) for axis in range(3)]
        for charge in self.charges:
            offset = [x - charge.point[0, axis] for axis, x in enumerate(metres)]
            near, dense = self.seen_from(charge, offset, self.inverse.view(3, 3, 1, 1, 1, 1))
            phi = phi + near
            J = [total + dense * x for total, x in zip(J, offset, strict=True)]
        return phi, J

    def seen_from(
        self, charge: PointSource, offset: list[Tensor], inverse: Float[Tensor, "3 3 *n"]
    ) -> tuple[Tensor, Tensor]:
        """phi_s of one charge, V, and J_s over the offset, A/m^3, at offsets along three axes in
        metres; sigma_inf^-1 along the same axes."""
        d, h, w = (inverse[a, a] * offset[a] ** 2 for a in range(3))
        square = d + h + w
        if not self.straight:
            for a, b in combinations(range(3), 2):
                square = square + 2 * inverse[a, b] * offset[a] * offset[b]
        root = square.clamp_min(_TINY).rsqrt()
        phi = root * self._strength(charge)
        return phi, root.square_().mul_(phi)

    @cached_property
    def straight(self) -> bool:
        """Whether the medium conducts along the axes."""
        return not bool((self.inverse - self.inverse.diag().diag()).any())

    def _strength(self, charge: PointSource) -> float:
        """I / (4 pi sqrt(det sigma_inf))."""
        return float(charge.current[0]) * self._root / (4 * math.pi)

    @cached_property
    def _root(self) -> float:
        """1 / sqrt(det sigma_inf)."""
        return math.sqrt(float(torch.linalg.det(self.inverse)))

    @property
    def voxels_there(self) -> tuple[slice, slice, slice]:
        """Voxels of the window."""
        d, h, w = (slice(a, b) for a, b in zip(*self.window, strict=True))
        return d, h, w

    @property
    def nodes_there(self) -> tuple[slice, slice, slice]:
        """Nodes of the window."""
        d, h, w = (slice(a, b + 1) for a, b in zip(*self.window, strict=True))
        return d, h, w

    @property
    def _moved(self) -> list[PointSource]:
        """The charges, from the corner of the window."""
        corner = torch.tensor(self.window[0]) * self.spacing
        return [PointSource(charge.point - corner, charge.current) for charge in self.charges]

    @property
    def _size(self) -> Grid:
        """Of the window, voxels."""
        d, h, w = (b - a for a, b in zip(*self.window, strict=True))
        return d, h, w

    @cached_property
    def at_nodes(self) -> Float[Tensor, "nD nH nW"]:
        """phi_s at the nodes of the window, V."""
        return self._between_voxels(None)

    def _between_voxels(self, along: int | None) -> Float[Tensor, "_ _ _"]:
        """phi_s at the nodes of the window, or in the middle of its edges along an axis, V."""
        total = self.spacing.new_zeros(())
        for charge in self._moved:
            offsets = []
            for axis, n in enumerate(self._size):
                places = torch.arange(n + 1, dtype=torch.float64)
                if axis == along:
                    places = places[:-1] + 0.5
                line = [1, 1, 1, 1]
                line[axis + 1] = -1
                metres = places * self.spacing[axis] - charge.point[0, axis]
                offsets.append(metres.reshape(line))
            smallest = 1e-3 * self.spacing.min()
            total = total + potential(offsets, charge.current, self.sigma_inf, clamp=smallest)[0]
        return total

    def edges_there(self, along: int) -> tuple[slice, slice, slice]:
        """Edges of the window along an axis."""
        slices = [self.nodes_there[axis] for axis in range(3)]
        slices[along] = self.voxels_there[along]
        return slices[0], slices[1], slices[2]

    def bend(self, along: int, share: Float[Tensor, "_ _ _"]) -> Float[Tensor, "_ _ _"]:
        """c of share phi_s - theta phi_s on the edges of the window along an axis, V: by how much
        it is larger in their middle than the mean of both ends; share on these edges."""
        middle, theta = self._between_voxels(along), self.cutoff_at_nodes
        return share * (middle - _middle(self.at_nodes, along)) - (
            _middle(theta, along) * middle - _middle(theta * self.at_nodes, along)
        )

    @property
    def cutoff_at_nodes(self) -> Float[Tensor, "nD nH nW"]:
        """theta at the nodes of the window."""
        lines = zip(self.cutoff, self.nodes_there, strict=True)
        a, b, c = (values[there] for values, there in lines)
        return a[:, None, None] * b[:, None] * c

    def added_to(self, nodes: Float[Tensor, "nD nH nW"], sign: float = 1.0) -> Tensor:
        """Values at the nodes of the grid and sign theta phi_s, V."""
        nodes = nodes.clone()
        nodes[self.nodes_there] += sign * self.cutoff_at_nodes * self.at_nodes
        return nodes

    @cached_property
    def at_centres(self) -> Float[Tensor, "D H W"]:
        """phi_s at the voxel centres of the window as `Subtraction` has it, V."""
        total = self.spacing.new_zeros(())
        for charge in self._moved:
            there = infinite_medium(self._size, self.spacing[None], charge, self.sigma_inf)
            total = total + there[0]
        return total

    @cached_property
    def through_faces(self) -> Faces:
        """Exact mean of J_s on every face of the window, A/m^2. (D+1, H, W) and so on"""
        parts = [
            face_current_density(self._size, self.spacing[None], charge, self.sigma_inf)
            for charge in self._moved
        ]
        d, h, w = (torch.cat([part[axis] for part in parts]).sum(dim=0) for axis in range(3))
        return d, h, w

    def everywhere(self) -> tuple[Float[Tensor, "D H W"], Float[Tensor, "2 H W"], Faces]:
        """As `subtraction.on_grid`, of all voxels: phi_s, V, also on the two cut faces, and the
        mean of J_s on faces, A/m^2. The window then has its part of these."""
        phi, phi_end, Phi = on_grid(
            self.shape, self.spacing[None], self.charges, self.sigma_inf, arctan=_arctan
        )
        d, h, w = self.voxels_there
        D, H, W = self.nodes_there
        kept = self.__dict__
        kept["at_centres"] = phi[0, d, h, w]
        kept["through_faces"] = Phi[0][0, D, h, w], Phi[1][0, d, H, w], Phi[2][0, d, h, W]
        return phi[0], phi_end[0], Phi

    def finer(self, factor: int) -> "ClosedForm":
        """The same on voxels that are `factor` times smaller along each axis: theta as it is."""
        cutoff = []
        for values in self.cutoff:
            nodes = np.arange((len(values) - 1) * factor + 1) / factor
            there = np.interp(nodes, np.arange(len(values)), values.numpy())
            cutoff.append(torch.from_numpy(there))
        medium = self.medium
        for axis in range(3):
            medium = medium.repeat_interleave(factor, dim=axis)
        return replace(
            self,
            low=_times(self.low, factor),
            high=_times(self.high, factor),
            medium=medium,
            cutoff=cutoff,
            spacing=self.spacing / factor,
            shape=_times(self.shape, factor),
            window=(_times(self.window[0], factor), _times(self.window[1], factor)),
        )


def _arctan(values: Tensor) -> Tensor:
    """By NumPy: on some processors several times faster."""
    return torch.from_numpy(np.arctan(values.numpy()))


def _middle(nodes: Float[Tensor, "nD nH nW"], along: int) -> Float[Tensor, "_ _ _"]:
    """Mean of both ends of the edges along an axis."""
    n = nodes.shape[along] - 1
    return (nodes.narrow(along, 0, n) + nodes.narrow(along, 1, n)) / 2


#: The least square of a length by sigma_inf^-1: never reached where it counts.
_TINY = 1e-60


def _clipped(voxels: list[int], shape: Grid) -> Grid:
    """Ends of a row of voxels along each axis, within the grid."""
    d, h, w = (min(max(i, 0), n) for i, n in zip(voxels, shape, strict=True))
    return d, h, w


def _times(sizes: Grid, factor: int) -> Grid:
    """Three sizes, each so many times."""
    d, h, w = sizes
    return d * factor, h * factor, w * factor


def _cutoff(n: int, voxel: int, below: int, above: int) -> Float[Tensor, " nodes"]:
    """theta at the nodes of one axis: 1 at those of the voxel, 0 `below` and `above` them."""
    node = torch.arange(n + 1, dtype=torch.float64)

    def side(distance: Tensor, reach: int) -> Tensor:
        """What falls from 1 to 0 on one side."""
        width = 2 if reach >= WIDE else 1
        return ((reach - distance) / width).clamp(0, 1)

    return torch.minimum(side(voxel - node, below), side(node - voxel - 1, above))


def _clear(conductor: Conductor, voxel: Grid, sigma_inf: Tensor, reach: int) -> int:
    """The largest reach up to `reach`, at least 1, that keeps better conductors out."""
    d, h, w = (slice(max(0, i - reach), i + reach + 1) for i in voxel)
    sigma = conductor.sigma[0, :3, d, h, w].mean(dim=0)
    better = (sigma > BETTER * sigma_inf[0, :3].mean()).nonzero()
    if not len(better):
        return reach
    centre = torch.tensor([min(reach, i) for i in voxel])
    nearest = int((better - centre).abs().amax(dim=1).min())
    return max(1, nearest - 1)


def _close(
    conductor: Conductor, inverse: Tensor, low: list[int], high: list[int]
) -> Bool[Tensor, "D H W"]:
    """The voxels of a box in which sigma is close to sigma_inf."""
    out = torch.zeros(conductor.shape, dtype=torch.bool)
    d, h, w = (slice(a, b) for a, b in zip(low, high, strict=True))
    sigma, tissue = conductor.sigma[0, :, d, h, w], conductor.tissue[0, d, h, w]
    if len(sigma) < 6 and not bool((inverse - inverse.diag().diag()).any()):
        ratio = sigma.expand(3, -1, -1, -1) * inverse.diag().view(3, 1, 1, 1)
        away, back = ((part - 1).square().sum(dim=0) for part in (ratio, 1 / ratio))
        out[d, h, w] = (torch.maximum(away, back) <= CLOSE**2) & tissue
        return out
    one = torch.eye(3, dtype=sigma.dtype)
    full = matrix(sigma.movedim(0, -1)) @ inverse
    ratio = torch.where(tissue[..., None, None], full, one)
    away = torch.maximum(_size(ratio - one), _size(torch.linalg.inv(ratio) - one))
    out[d, h, w] = (away <= CLOSE) & tissue
    return out


def _size(matrices: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n"]:
    """Norm of Frobenius."""
    return matrices.square().sum(dim=(-1, -2)).sqrt()
