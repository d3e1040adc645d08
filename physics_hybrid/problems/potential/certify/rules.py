"""Quadrature in voxels and on faces: plain Gauss, and graded towards the electrode for its
neighbours.

All rules are products of rules along the axes, and so are most factors of what is integrated: these
are worked out along the axes, many voxels at a time, and meet at the points.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Near an electrode points lie at distances ~ t^GRADING of it.
GRADING = 3


@dataclass(frozen=True)
class Orders:
    """Gauss points along an axis: of a plain rule, and on each side of the electrode."""

    plain: int
    graded: int


#: Voxels away from an electrode that are worked on at a time.
BATCH = 4000

#: The rule that counts, and the one that tells how right it is.
FINE, CHECK = Orders(plain=3, graded=6), Orders(plain=2, graded=5)


@cache
def gauss(points: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Gauss-Legendre points and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(points)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)


@dataclass(frozen=True)
class Points:
    """A product of rules along the axes, in each of some voxels.

    voxels : (n, 3). places : along every axis, in [0, 1], (n, P) each; one place on a face.
    weights : of these; on a face 1 along its normal. alike : places are the same in all voxels and
    along all axes.
    """

    voxels: Int[Tensor, "n 3"]
    places: list[Float[Tensor, "n _"]]
    weights: list[Float[Tensor, "n _"]]
    alike: bool = False

    def xi(self, axis: int) -> Float[Tensor, "n _ _ _"]:
        """Places along an axis, to meet those along the others."""
        return _along(self.places[axis], axis)

    def metres(self, axis: int, spacing: Float[Tensor, " 3"]) -> Float[Tensor, "n _ _ _"]:
        """The same from the corner of the grid."""
        return _along((self.places[axis] + self.voxels[:, axis, None]) * spacing[axis], axis)

    @cached_property
    def weight(self) -> Float[Tensor, "n P Q R"]:
        """Of every point."""
        d, h, w = (_along(weight, axis) for axis, weight in enumerate(self.weights))
        return d * h * w

    def mean(self, values: Float[Tensor, "n P Q R"]) -> Float[Tensor, " n"]:
        """Over every voxel, or face."""
        return (values * self.weight).sum(dim=(1, 2, 3))

    def of_voxels(self, values: Float[Tensor, "D H W"]) -> Float[Tensor, "n 1 1 1"]:
        """A field's values in the voxels, to meet the points."""
        d, h, w = self.voxels.unbind(dim=1)
        return values[d, h, w].view(-1, 1, 1, 1)


def _along(values: Float[Tensor, "n P"], axis: int) -> Float[Tensor, "n _ _ _"]:
    """Values along one axis of three."""
    shape = [len(values), 1, 1, 1]
    shape[axis + 1] = values.shape[1]
    return values.reshape(shape)


def _plain(count: int, points: int) -> tuple[Float[Tensor, "n P"], Float[Tensor, "n P"]]:
    """The same rule for each of `count` intervals."""
    x, w = gauss(points)
    return x.expand(count, -1), w.expand(count, -1)


def graded(at: Float[Tensor, " n"], points: int) -> tuple[Tensor, Tensor]:
    """Split at the place of [0, 1] that is nearest to `at`, and graded towards it: (n, 2 points),
    half of them without weight where `at` lies outside."""
    x, w = gauss(points)
    x, w = x**GRADING, GRADING * x ** (GRADING - 1) * w
    middle = at.clamp(0, 1)[:, None]
    places = torch.cat([middle - middle * x, middle + (1 - middle) * x], dim=1)
    weights = torch.cat([middle * w, (1 - middle) * w], dim=1)
    return places, weights


def nearest(
    places: list[Float[Tensor, " 3"]], voxels: Int[Tensor, "n 3"], spacing: Float[Tensor, " 3"]
) -> tuple[Bool[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Which voxels lie beside an electrode, and where the nearest one is, in voxels from their
    lower corner; places of electrodes in metres."""
    if len(places) == 1:
        at = places[0] / spacing - voxels
        return (torch.floor(at).abs() <= 1).all(dim=1), at
    near = torch.zeros(len(voxels), dtype=torch.bool)
    at = torch.zeros(len(voxels), 3, dtype=torch.float64)
    least = torch.full((len(voxels),), torch.inf, dtype=torch.float64)
    for place in places:
        local = place / spacing - voxels
        distance = (local - 0.5).norm(dim=1)
        at = torch.where((distance < least)[:, None], local, at)
        least = torch.minimum(distance, least)
        near |= (voxels - torch.floor(place / spacing)).abs().amax(dim=1) <= 1
    return near, at


#: A rule along an axis for each of n intervals: places and weights.
Line = tuple[Float[Tensor, "n _"], Float[Tensor, "n _"]]


def lines(
    places: list[Float[Tensor, " 3"]],
    voxels: Int[Tensor, "n 3"],
    axes: Int[Tensor, "n axes"],
    spacing: Float[Tensor, " 3"],
    orders: Orders,
) -> list[tuple[Tensor, list[Line]]]:
    """Rows of voxels, and for these a rule along each of some axes, which may be others in every
    voxel: plain ones, and those of voxels beside an electrode."""
    near, at = nearest(places, voxels, spacing)
    out: list[tuple[Tensor, list[Line]]] = []
    count = axes.shape[1]
    batches = torch.split((~near).nonzero()[:, 0], BATCH)
    out += [(far, [_plain(len(far), orders.plain)] * count) for far in batches if len(far)]
    close = near.nonzero()[:, 0]
    if len(close):
        at = at[close].gather(1, axes[close])
        out.append((close, [graded(at[:, i], orders.graded) for i in range(count)]))
    return out


def box_points(
    places: list[Float[Tensor, " 3"]],
    voxels: Int[Tensor, "n 3"],
    spacing: Float[Tensor, " 3"],
    orders: Orders,
) -> list[Points]:
    """Rules in voxels: graded beside an electrode, plain elsewhere."""
    axes = torch.arange(3).expand(len(voxels), 3)
    out = []
    for rows, rules in lines(places, voxels, axes, spacing, orders):
        alike = rules[0] is rules[1]
        out.append(Points(voxels[rows], [x for x, _ in rules], [w for _, w in rules], alike))
    return out


def on_faces(orders: Orders) -> Orders:
    """Rules for faces: of more points."""
    return Orders(orders.plain + 1, orders.graded + 6)


def face_points(
    places: list[Float[Tensor, " 3"]],
    voxels: Int[Tensor, "n 3"],
    axis: int,
    side: int,
    spacing: Float[Tensor, " 3"],
    orders: Orders,
) -> list[Points]:
    """Rules on the faces of voxels that are normal to an axis, below (0) or above (1)."""
    across = [other for other in range(3) if other != axis]
    axes = torch.tensor(across).expand(len(voxels), 2)
    out = []
    for rows, rules in lines(places, voxels, axes, spacing, on_faces(orders)):
        x, w = [torch.empty(0)] * 3, [torch.empty(0)] * 3
        x[axis] = torch.full((len(rows), 1), float(side), dtype=torch.float64)
        w[axis] = torch.ones_like(x[axis])
        for other, (places_there, weights) in zip(across, rules, strict=True):
            x[other], w[other] = places_there, weights
        out.append(Points(voxels[rows], x, w))
    return out
