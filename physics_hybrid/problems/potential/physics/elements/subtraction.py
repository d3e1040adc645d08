r"""Singularity subtraction: what the closed form leaves to be carried by the elements.

phi = phi_inf + phi_c, with phi_inf the closed form in the medium at the source, sigma_inf. The
current of phi_inf is J_inf = I d / (4 pi sqrt(det sigma_inf) (d^T sigma_inf^-1 d)^(3/2)), and

    a(phi_c, v) = int S . grad v dV
    S = (sigma sigma_inf^-1 - 1) J_inf             (zero in the tissue of the source)

This is eq. 3.6 of Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24 (full subtraction: Drechsler et
al., NeuroImage 46 (2009) 1055): their surface integral over skin and cut faces is the same volume
integral over the layer of air outside, where sigma = 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import along
from physics_hybrid.problems.potential.physics.conductor import face_positions, matrix
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements import quadrature
from physics_hybrid.problems.potential.physics.elements.hexahedron import AXES, CORNERS
from physics_hybrid.problems.potential.physics.elements.nodes import gather_at_nodes
from physics_hybrid.problems.potential.physics.elements.quadrature import Rule
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator

#: Voxels so near the electrode, along every axis, have the graded rule.
NEAR = 2

#: Quadrature points handled at once: bounds the memory.
CHUNK = 4_000_000


def subtraction_load(
    operator: ElementOperator, source: PointSource, sigma_inf: Float[Tensor, "K C"]
) -> Float[Tensor, "K nD nH nW"]:
    """int S . grad N_i dV over the voxels of the grid and of a layer of air round it, A."""
    closed = _ClosedForm.of(operator, source, sigma_inf)
    near = _Neighbours.of(closed)
    load = _far_load(closed, near)
    _add_near_load(load, closed, near)
    return load[:, 1:-1, 1:-1, 1:-1]


@dataclass(frozen=True)
class _ClosedForm:
    """K sources in their media, on a grid with a layer of air round it.

    sigma : (B, C, D+2, H+2, W+2), S/m. inverse : sigma_inf^-1, (K, 3, 3), m/S.
    spacing : (K, 3), metres.
    faces : of the voxels along each axis, (K, D+3), ..., metres from the grid's outer corner.
    """

    sigma: Tensor
    spacing: Tensor
    faces: list[Tensor]
    source: PointSource
    inverse: Tensor

    @classmethod
    def of(cls, operator: ElementOperator, source: PointSource, sigma_inf: Tensor) -> "_ClosedForm":
        spacing = operator.spacing.expand(len(source.point), 3)
        sigma = F.pad(operator.sigma, (1,) * 6)
        faces = []
        for axis, n in enumerate(sigma.shape[2:]):
            h = spacing[:, axis]
            faces.append(face_positions(n, h) - h[:, None])
        return cls(sigma, spacing, faces, source, torch.linalg.inv(matrix(sigma_inf)))

    @property
    def shape(self) -> torch.Size:
        return self.sigma.shape[2:]

    @property
    def rows(self) -> Tensor:
        """The number of each source, to index with. (K, 1, 1, 1)"""
        count = len(self.source.point)
        return torch.arange(count, device=self.sigma.device).view(-1, 1, 1, 1)

    def excess(self, sigma: Tensor, counted: Tensor) -> Tensor:
        """sigma sigma_inf^-1 - 1 in the voxels that are counted (K, D, H, W), 0 in others.

        (K, D, H, W, 3) where sigma (B, C, D, H, W) is diagonal, else (K, D, H, W, 3, 3).
        """
        sigma = sigma.movedim(1, -1)
        if sigma.shape[-1] < 6:
            diagonal = torch.diagonal(self.inverse, dim1=1, dim2=2)[:, None, None, None]
            return (sigma * diagonal - 1) * counted[..., None]
        one = torch.eye(3).to(sigma)
        return (matrix(sigma) @ self.inverse[:, None, None, None] - one) * counted[..., None, None]

    def loads(
        self, low: Sequence[Tensor], high: Sequence[Tensor], excess: Tensor, rule: Rule
    ) -> Tensor:
        """int S . grad N_i dV, A, for voxels between `low` and `high`. (K, 8, D, H, W)

        low, high : three (K, n) each, metres.

        J_inf is parallel to d, so that each of its components is one scalar field times a function
        of one coordinate: all integrals are contractions of that field, axis by axis.
        """
        axes = []
        for axis in range(3):
            at = self.source.point[:, axis, None]
            axes.append(_Axis.of(low[axis], high[axis], at, rule))
        full = excess.ndim == 6
        field = self._field([one.offset for one in axes], full)
        total = excess.new_zeros(())
        for a, b in product(range(3), repeat=2):  # components of grad v and of J_inf
            if a != b and not full:
                continue
            weights = [one.weights(axis == a, axis == b) for axis, one in enumerate(axes)]
            share = excess[..., a, b] if full else excess[..., a]
            total = total + share[:, None] * _contracted(field, weights)
        return total

    def _field(self, offsets: list[Tensor], full: bool) -> Tensor:
        """|J_inf| / |d| at all points, A/m^3. (K, D, p, H, q, W, r) from three (K, n, p)"""
        d = [_one_axis(offset, axis) for axis, offset in enumerate(offsets)]
        square = self.inverse.new_zeros(())
        for a, b in AXES if full else AXES[:3]:
            times = 1 if a == b else 2
            square = square + times * _one_number(self.inverse[:, a, b]) * d[a] * d[b]
        strength = self.source.current * torch.linalg.det(self.inverse).sqrt() / (4 * math.pi)
        smallest = torch.finfo(square.dtype).tiny ** 0.5
        return _one_number(strength) * square.clamp_min(smallest) ** -1.5


@dataclass(frozen=True)
class _Neighbours:
    """The voxels within NEAR of each source.

    index : along each axis, (K, n), clamped to the grid. inside : (K, n, n, n), which were in it.
    """

    index: list[Tensor]
    inside: Tensor

    @classmethod
    def of(cls, closed: _ClosedForm) -> "_Neighbours":
        source, index, inside = closed.source, [], []
        step = torch.arange(-NEAR, NEAR + 1, device=source.point.device)
        voxel = torch.floor(source.point / closed.spacing).long() + 1
        for axis, n in enumerate(closed.shape):
            i = voxel[:, axis, None] + step
            inside.append(along((i >= 0) & (i < n), axis))
            index.append(i.clamp(0, n - 1))
        return cls(index, inside[0] & inside[1] & inside[2])

    @property
    def where(self) -> tuple[Tensor, ...]:
        """The index of every voxel along each axis, three (K, n, n, n)."""
        return tuple(along(i, axis).expand_as(self.inside) for axis, i in enumerate(self.index))


def _far_load(closed: _ClosedForm, near: _Neighbours) -> Tensor:
    """What all voxels but the neighbours give to the nodes, A. (K, D+3, H+3, W+3)"""
    count, shape = len(closed.source.point), closed.shape
    # an image may lie so far outside that indices were clamped: what is no neighbour stays far
    marked = torch.zeros(count, *shape, dtype=torch.int32, device=closed.sigma.device)
    marked.index_put_((closed.rows, *near.where), near.inside.int(), accumulate=True)
    far = marked == 0

    out = closed.sigma.new_zeros(count, *(n + 1 for n in shape))
    step = max(1, CHUNK // (count * shape[1] * shape[2] * quadrature.FAR_POINTS**3))
    low, high = [f[:, :-1] for f in closed.faces], [f[:, 1:] for f in closed.faces]
    for start in range(0, shape[0], step):
        planes = slice(start, start + step)
        loads = closed.loads(
            [low[0][:, planes], *low[1:]],
            [high[0][:, planes], *high[1:]],
            closed.excess(closed.sigma[:, :, planes], far[:, planes]),
            quadrature.plain_rule,
        )
        out[:, start : start + loads.shape[2] + 1] += gather_at_nodes(loads)
    return out


def _add_near_load(load: Tensor, closed: _ClosedForm, near: _Neighbours) -> None:
    """Add what the neighbours give to the nodes, A; load : (K, D+3, H+3, W+3)."""
    rows, where = closed.rows, near.where
    i, j, k = where
    sigma = closed.sigma[rows % len(closed.sigma), :, i, j, k].movedim(-1, 1)
    low, high = [], []
    for faces, index in zip(closed.faces, near.index, strict=True):
        low.append(torch.gather(faces, 1, index))
        high.append(torch.gather(faces, 1, index + 1))
    loads = closed.loads(low, high, closed.excess(sigma, near.inside), quadrature.graded_rule)
    for c, corner in enumerate(CORNERS):
        at = tuple(i + step for i, step in zip(where, corner, strict=True))
        load.index_put_((rows, *at), loads[:, c], accumulate=True)


@dataclass(frozen=True)
class _Axis:
    """Quadrature points on the n voxels of one axis, and the two N_i of it.

    offset : from the source, (K, n, p), metres.
    values, slopes : weights times N_i and N_i', (K, n, p, 2), metres and 1.
    """

    offset: Tensor
    values: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, low: Tensor, high: Tensor, at: Tensor, rule: Rule) -> "_Axis":
        x, w = rule(low, high, at)
        h = (high - low)[..., None]
        t = (x - low[..., None]) / h
        values = torch.stack([1 - t, t], dim=-1) * w[..., None]
        slopes = torch.stack([-w / h, w / h], dim=-1)
        return cls(x - at[..., None], values, slopes)

    def weights(self, slope: bool, offset: bool) -> Tensor:
        """(K, n, p, 2) of N_i or its slope, times the offset where J_inf has it."""
        out = self.slopes if slope else self.values
        return out * self.offset[..., None] if offset else out


def _contracted(field: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The sum over points, one axis after the other. (K, D, p, H, q, W, r) -> (K, 8, D, H, W)"""
    value = torch.einsum("kdphqwr,kwrc->kdphqwc", field, weights[2])
    value = torch.einsum("kdphqwc,khqb->kdphbwc", value, weights[1])
    return torch.einsum("kdphbwc,kdpa->kabcdhw", value, weights[0]).flatten(1, 3)


def _one_axis(values: Tensor, axis: int) -> Tensor:
    """(K, n, p), shaped to meet a field (K, D, p, H, q, W, r)."""
    shape = [1] * 6
    shape[2 * axis : 2 * axis + 2] = values.shape[1:]
    return values.view(len(values), *shape)


def _one_number(values: Tensor) -> Tensor:
    """(K,), shaped to meet a field (K, D, p, H, q, W, r)."""
    return values.view(-1, *[1] * 6)
