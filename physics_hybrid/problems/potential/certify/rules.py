"""Quadrature in voxels and on faces: plain Gauss, and graded towards the electrode for its
neighbours.

All rules are products of rules along the axes, and so are most factors of what is integrated: these
are worked out along the axes, many voxels at a time, and meet at the points.
"""

import functools
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


@cache
def smoother(points: int, axes: int, sides: int = 1) -> Float[Tensor, "points^axes modes"]:
    """From a function at Gauss points along some axes, times the roots of their weights, to its
    waves (orthonormal Legendre polynomials) but those of the highest order along any axis: of a
    product of two functions the sum over these is the integral that a rule of a point less has."""
    x, w = np.polynomial.legendre.leggauss(points)
    orders = np.arange(points - 1)
    waves = np.polynomial.legendre.legvander(x, points - 2) * np.sqrt(orders + 0.5)
    line = np.kron(np.eye(sides), waves * np.sqrt(w)[:, None])
    whole = functools.reduce(np.kron, [line] * axes)
    return torch.from_numpy(whole)


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
    def weight(self) -> Float[Tensor, "_ P Q R"]:
        """Of every point; the same in all voxels where places are."""
        weights = [weight[:1] if self.alike else weight for weight in self.weights]
        d, h, w = (_along(weight, axis) for axis, weight in enumerate(weights))
        return d * h * w

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Voxels, and points along each axis."""
        P, Q, R = (weight.shape[1] for weight in self.weights)
        return len(self.voxels), P, Q, R

    def mean(self, values: Float[Tensor, "n P Q R"]) -> Float[Tensor, " n"]:
        """Over every voxel, or face."""
        if self.alike:
            return values.flatten(1) @ self.weight.flatten()
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


def graded_parts(
    at: Float[Tensor, "m 3"], above: Bool[Tensor, "m 3"], points: int
) -> tuple[Float[Tensor, "m 3 P"], Float[Tensor, "m 3 P"]]:
    """The same along three axes, on one side of the place each."""
    x, w = gauss(points)
    x, w = x**GRADING, GRADING * x ** (GRADING - 1) * w
    middle = at.clamp(0, 1)
    length = torch.where(above, 1 - middle, -middle)[..., None]
    return middle[..., None] + length * x, length.abs() * w


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


@dataclass(frozen=True)
class Group:
    """Voxels that are integrated over alike.

    rows : which of those that were asked for. voxels : they. at : where the electrode that they lie
        beside is, in voxels from the lower corner of each; None: beside none.
    """

    rows: Int[Tensor, " n"]
    voxels: Int[Tensor, "n 3"]
    at: Float[Tensor, "n 3"] | None

    def lines(self, axes: Int[Tensor, "n axes"], orders: Orders) -> list[Line]:
        """A rule along each of some axes, which may be others in every voxel."""
        if self.at is None:
            return [_plain(len(self.rows), orders.plain)] * axes.shape[1]
        at = self.at.gather(1, axes)
        return [graded(at[:, i], orders.graded) for i in range(axes.shape[1])]

    def points(self, orders: Orders) -> Points:
        """Rules in the voxels; parts of a voxel beside an electrode count one by one."""
        if self.at is None:
            x, w = _plain(len(self.rows), orders.plain)
            return Points(self.voxels, [x] * 3, [w] * 3, alike=True)
        # boxes into which the planes through an electrode part the voxels beside it
        sides = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)
        full = torch.where(sides, self.at[:, None] < 1, self.at[:, None] > 0).all(dim=2)
        row, side = full.nonzero().unbind(dim=1)
        x, w = graded_parts(self.at[row], sides[side], orders.graded)
        return Points(self.voxels[row], list(x.unbind(dim=1)), list(w.unbind(dim=1)))


def grouped(
    places: list[Float[Tensor, " 3"]], voxels: Int[Tensor, "n 3"], spacing: Float[Tensor, " 3"]
) -> list[Group]:
    """Those beside an electrode, and the others, some at a time."""
    near, at = nearest(places, voxels, spacing)
    batches = torch.split((~near).nonzero()[:, 0], BATCH)
    out = [Group(far, voxels[far], None) for far in batches if len(far)]
    close = near.nonzero()[:, 0]
    if len(close):
        out.append(Group(close, voxels[close], at[close]))
    return out


def box_points(
    places: list[Float[Tensor, " 3"]],
    voxels: Int[Tensor, "n 3"],
    spacing: Float[Tensor, " 3"],
    orders: Orders,
) -> list[Points]:
    """Rules in voxels: graded beside an electrode, plain elsewhere."""
    return [group.points(orders) for group in grouped(places, voxels, spacing)]


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
    for group in grouped(places, voxels, spacing):
        rules = group.lines(axes[group.rows], on_faces(orders))
        x, w = [torch.empty(0)] * 3, [torch.empty(0)] * 3
        x[axis] = torch.full((len(group.rows), 1), float(side), dtype=torch.float64)
        w[axis] = torch.ones_like(x[axis])
        for other, (places_there, weights) in zip(across, rules, strict=True):
            x[other], w[other] = places_there, weights
        out.append(Points(group.voxels, x, w))
    return out
