r"""The finite volume operator as a network of resistors in groups: affine, exactly.

Between voxels s and t along axis a the conductance is sigma_h / h_a^2 with the harmonic mean

    theta = 2 c_s r_s c_t r_t / (c_s r_s + c_t r_t),        theta = c inside one tissue,

the same on all faces between the same two media. With P such groups of faces

    A(mu) = sum_p theta_p(mu) K_p,        K_p = D_p^T D_p positive semidefinite          [W/V^2]

(times the volume of a voxel: v^T A v is a power in W). D is a signed incidence matrix with rows
scaled by sqrt(V w), w = conductance / theta. Nothing is interpolated: the same operator as
`physics.flux`, to rounding. (Patankar 1980, eq. 4.9; affine parameters: Hesthaven, Rozza and Stamm,
Certified Reduced Basis Methods, 2016, sec. 3.3)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor, Faces
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.uncertain.conductivities import Conductivities


@dataclass(frozen=True)
class Groups:
    """Which media each group of faces lies between: components and ratios, (P,) each.

    constant : whether both are fixed; theta is then 1.
    """

    first: np.ndarray
    first_ratio: np.ndarray
    second: np.ndarray
    second_ratio: np.ndarray
    constant: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def theta(self, c: Float[Tensor, "*n C"]) -> Float[Tensor, "*n P"]:
        """theta of components in S/m."""
        x = c[..., self.first] * torch.from_numpy(self.first_ratio)
        y = c[..., self.second] * torch.from_numpy(self.second_ratio)
        alike = torch.from_numpy((self.first == self.second) & ~self.constant)
        theta = torch.where(alike, c[..., self.first], 2 * x * y / (x + y))
        return torch.where(torch.from_numpy(self.constant), 1.0, theta)


@dataclass(frozen=True)
class Network:
    """Faces that conduct, in the order of their groups.

    shape : grid. voxel : flat indices of the n voxels of tissue. volume : of a voxel, m^3.
    starts : the first face of every group (P,). D : (faces, n), S^1/2 m^1/2 less theta.
    axis, face : where each face lies: axis, and flat index among all faces normal to it.
    weight : w, 1/m^2. edge : h_a, m.
    """

    conductivities: Conductivities
    groups: Groups
    shape: tuple[int, int, int]
    voxel: np.ndarray
    volume: float
    starts: np.ndarray
    D: sparse.csr_matrix
    axis: np.ndarray
    face: np.ndarray
    weight: np.ndarray
    edge: np.ndarray

    @classmethod
    def of(cls, conductivities: Conductivities, conductor: Conductor, mu: np.ndarray) -> Network:
        """conductor : the body at the parameters mu, with its ends."""
        operator = FluxOperator.of(conductor)
        spacing = conductor.spacing[0].double().cpu().numpy()
        found = _Found(conductivities)
        for normal, faces in enumerate(operator.conductance):
            found.add(normal, faces[0].cpu().numpy())
        groups, group = found.groups()
        order = np.argsort(group, kind="stable")
        axis, face, low, high, conductance = (part[order] for part in found.joined())
        c = conductivities.components(torch.from_numpy(mu))
        theta = groups.theta(c).numpy()[group[order]]
        weight, volume = conductance / theta, float(spacing.prod())
        tissue = np.flatnonzero(conductivities.index.ravel() >= 0)
        starts = np.searchsorted(group[order], np.arange(len(groups)))
        return cls(
            conductivities=conductivities,
            groups=groups,
            shape=conductor.shape,
            voxel=tissue,
            volume=volume,
            starts=starts,
            D=_incidence(low, high, np.sqrt(volume * weight), tissue),
            axis=axis,
            face=face,
            weight=weight,
            edge=spacing[axis],
        )

    def theta(self, mu: Float[Tensor, "*n T"]) -> Float[Tensor, "*n P"]:
        """theta_p(mu)."""
        return self.groups.theta(self.conductivities.components(mu))

    @property
    def group(self) -> np.ndarray:
        """Of every face."""
        sizes = np.diff(np.append(self.starts, len(self.axis)))
        return np.repeat(np.arange(len(self.starts)), sizes)

    def by_group(self, products: np.ndarray) -> np.ndarray:
        """Sums over the faces of every group. (faces, ...) -> (P, ...)"""
        sums: np.ndarray = np.add.reduceat(products, self.starts, axis=0)
        return sums

    def slices(self) -> list[slice]:
        """The faces of every group."""
        ends = [*self.starts[1:].tolist(), len(self.axis)]
        return [slice(a, b) for a, b in zip(self.starts.tolist(), ends, strict=True)]

    def gathered(self, values: Faces | tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Values of one sample, on all faces normal to each axis, on those of the network."""
        out = np.empty(len(self.axis))
        for axis, value in enumerate(values):
            own = self.axis == axis
            out[own] = np.asarray(value).reshape(-1)[self.face[own]]
        return out

    def density(self, current: np.ndarray) -> np.ndarray:
        """A current density on faces in A/m^2 as D has them, so that D^T of it is amperes."""
        scaled: np.ndarray = current * np.sqrt(self.volume / self.weight) / self.edge
        return scaled

    def applied(self, theta: np.ndarray, u: np.ndarray) -> np.ndarray:
        """A u in A, for u (n, L) in V."""
        out: np.ndarray = self.D.T @ (theta[self.group][:, None] * (self.D @ u))
        return out

    def on_grid(self, values: np.ndarray) -> Tensor:
        """Values in tissue (n, L) as fields (L, D, H, W), 0 in air."""
        fields = np.zeros((values.shape[1], int(np.prod(self.shape))))
        fields[:, self.voxel] = values.T
        return torch.from_numpy(fields).reshape(-1, *self.shape)

    def in_tissue(self, fields: Tensor) -> np.ndarray:
        """Fields (L, D, H, W) as values in tissue (n, L)."""
        values: np.ndarray = fields.reshape(len(fields), -1).cpu().numpy()[:, self.voxel].T
        return np.ascontiguousarray(values)


class _Found:
    """Faces as they are found, axis by axis."""

    def __init__(self, conductivities: Conductivities) -> None:
        self.of = conductivities
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.pairs: list[np.ndarray] = []
        medium: dict[tuple[int, float], int] = {}
        keys = zip(
            conductivities.component.ravel(), conductivities.ratio.ravel().round(12), strict=True
        )
        numbers = [medium.setdefault((int(c), float(r)), len(medium)) for c, r in keys]
        #: Medium of every tissue along every axis; its component and ratio.
        self.medium = np.array(numbers).reshape(conductivities.component.shape)
        self.component = np.array([c for c, _ in medium])
        self.ratio = np.array([r for _, r in medium])

    def add(self, axis: int, conductance: np.ndarray) -> None:
        """Faces normal to an axis, S/m^3."""
        where = np.nonzero(conductance > 0)
        low, high = [list(where), list(where)]
        low[axis] = where[axis] - 1
        size = self.of.index.shape[axis]
        beyond = (low[axis] < 0, high[axis] >= size)
        low[axis], high[axis] = np.maximum(low[axis], 0), np.minimum(high[axis], size - 1)
        shape = self.of.index.shape
        medium = self.medium[self.of.index, axis]
        self.pairs.append(np.stack([medium[tuple(low)], medium[tuple(high)]]))
        flat_low, flat_high = (np.ravel_multi_index(tuple(v), shape) for v in (low, high))
        flat_low[beyond[0]], flat_high[beyond[1]] = -1, -1
        face = np.ravel_multi_index(where, conductance.shape)
        axes = np.full(len(face), axis)
        self.parts.append((axes, face, flat_low, flat_high, conductance[where]))

    def joined(self) -> list[np.ndarray]:
        """axis, face, low, high, conductance of all faces."""
        return [np.concatenate(column) for column in zip(*self.parts, strict=True)]

    def groups(self) -> tuple[Groups, np.ndarray]:
        """The groups, and that of every face."""
        pair = np.sort(np.concatenate(self.pairs, axis=1), axis=0)
        component = self.component[pair]
        fixed = (self.of.parameter[component] < 0).all(axis=0)
        alike = component[0] == component[1]
        # inside one component the ratio is in the weight; between fixed ones the conductance is
        key = np.where(alike, -1 - component[0], pair[0] * len(self.ratio) + pair[1])
        key = np.where(fixed, len(self.ratio) ** 2, key)
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        found = Groups(
            first=component[0][first],
            first_ratio=self.ratio[pair[0][first]],
            second=component[1][first],
            second_ratio=self.ratio[pair[1][first]],
            constant=fixed[first],
        )
        return found, group


def _incidence(
    low: np.ndarray, high: np.ndarray, scale: np.ndarray, tissue: np.ndarray
) -> sparse.csr_matrix:
    """Rows scale (u_high - u_low), 0 beyond the ends."""
    row = np.arange(len(low))
    rows, columns, values = [], [], []
    for side, sign in ((low, -1.0), (high, 1.0)):
        inside = side >= 0
        rows.append(row[inside])
        columns.append(np.searchsorted(tissue, side[inside]))
        values.append(sign * scale[inside])
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.coo_matrix(entries, shape=(len(low), len(tissue))).tocsr()
