"""Quadrature on [0, 1]^n: plain Gauss, and graded towards the electrode for its neighbours."""

from dataclasses import dataclass
from functools import cache

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


#: The rule that counts, and the one that tells how right it is.
FINE, CHECK = Orders(plain=3, graded=6), Orders(plain=2, graded=5)


@cache
def gauss(points: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Gauss-Legendre points and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(points)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)


def plain(count: int, points: int) -> tuple[Float[Tensor, "n P"], Float[Tensor, "n P"]]:
    """The same rule for each of `count` intervals."""
    x, w = gauss(points)
    return x.expand(count, -1), w.expand(count, -1)


def graded(at: Float[Tensor, " n"], points: int) -> tuple[Tensor, Tensor]:
    """Split at the place of [0, 1] that is nearest to `at`, and graded towards it: (n, points), or
    (n, 2 points) where some `at` lies inside."""
    x, w = gauss(points)
    x, w = x**GRADING, GRADING * x ** (GRADING - 1) * w
    if not bool(_inside(at).any()):
        from_low = (at <= 0)[:, None]
        return torch.where(from_low, x, 1 - x), w.expand(len(at), -1)
    middle = at.clamp(0, 1)[:, None]
    places = torch.cat([middle - middle * x, middle + (1 - middle) * x], dim=1)
    weights = torch.cat([middle * w, (1 - middle) * w], dim=1)
    return places, weights


def _inside(at: Tensor) -> Tensor:
    """Strictly between 0 and 1."""
    return (at > 0) & (at < 1)


def product(
    rules: list[tuple[Float[Tensor, "n _"], Float[Tensor, "n _"]]],
) -> tuple[Float[Tensor, "n P axes"], Float[Tensor, "n P"]]:
    """Tensor product of rules, axis by axis."""
    places, weights = rules[0][0][..., None], rules[0][1]
    for x, w in rules[1:]:
        n, before, axes = places.shape
        old = places[:, :, None].expand(n, before, x.shape[1], axes)
        new = x[:, None, :, None].expand(n, before, x.shape[1], 1)
        places = torch.cat([old, new], dim=-1).flatten(1, 2)
        weights = (weights[:, :, None] * w[:, None]).flatten(1)
    return places, weights


def nearest(
    places: list[Float[Tensor, " 3"]], voxels: Int[Tensor, "n 3"], spacing: Float[Tensor, " 3"]
) -> tuple[Bool[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Which voxels lie beside an electrode, and where the nearest one is, in voxels from their
    lower corner; places of electrodes in metres."""
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


#: Rows of what was asked for, places and weights.
Rule = list[tuple[Tensor, Tensor, Tensor]]


def face_points(
    places: list[Float[Tensor, " 3"]],
    voxels: Int[Tensor, "n 3"],
    across: Int[Tensor, "n 2"],
    spacing: Float[Tensor, " 3"],
    orders: Orders,
) -> Rule:
    """Rows of voxels, places in [0, 1]^2 on a face of each that lies along the axes `across`, and
    weights."""
    finer = Orders(orders.plain + 1, orders.graded + 6)
    return _points(places, voxels, across, spacing, finer)


def box_points(
    places: list[Float[Tensor, " 3"]],
    voxels: Int[Tensor, "n 3"],
    spacing: Float[Tensor, " 3"],
    orders: Orders,
) -> Rule:
    """Rows of voxels, places in them and weights: graded beside an electrode, plain elsewhere."""
    axes = torch.arange(3).expand(len(voxels), 3)
    return _points(places, voxels, axes, spacing, orders)


def _points(
    places: list[Float[Tensor, " 3"]],
    voxels: Int[Tensor, "n 3"],
    axes: Int[Tensor, "n axes"],
    spacing: Float[Tensor, " 3"],
    orders: Orders,
) -> Rule:
    """Rows, places along some axes and weights; those beside an electrode in groups, by the axes
    along which it lies between their faces."""
    near, at = nearest(places, voxels, spacing)
    count, out = axes.shape[1], []
    far = (~near).nonzero()[:, 0]
    if len(far):
        out.append((far, *product([plain(len(far), orders.plain)] * count)))
    close = near.nonzero()[:, 0]
    at = at[close].gather(1, axes[close])
    kind = (_inside(at) * 2 ** torch.arange(count)).sum(dim=1)
    for one in sorted(set(kind.tolist())):
        chosen = kind == one
        each = [graded(at[chosen][:, i], orders.graded) for i in range(count)]
        out.append((close[chosen], *product(each)))
    return out
