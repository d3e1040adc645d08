"""Quadrature on [0, 1]^n: plain Gauss, and graded towards the electrode for its neighbours."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

#: Near an electrode points lie at distances ~ t^GRADING of it.
GRADING = 3


@dataclass(frozen=True)
class Orders:
    """Gauss points along an axis: of a plain rule, and on each side of the electrode."""

    plain: int
    graded: int


#: The rule that counts, and the one that tells how right it is.
FINE, CHECK = Orders(plain=3, graded=5), Orders(plain=2, graded=4)


def gauss(points: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Gauss-Legendre points and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(points)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)


def plain(count: int, points: int) -> tuple[Float[Tensor, "n P"], Float[Tensor, "n P"]]:
    """The same rule for each of `count` intervals."""
    x, w = gauss(points)
    return x.expand(count, -1), w.expand(count, -1)


def graded(at: Float[Tensor, " n"], points: int) -> tuple[Tensor, Tensor]:
    """Split at the place of [0, 1] that is nearest to `at`, and graded towards it. (n, 2 points)"""
    x, w = gauss(points)
    x, w = x**GRADING, GRADING * x ** (GRADING - 1) * w
    middle = at.clamp(0, 1)[:, None]
    places = torch.cat([middle - middle * x, middle + (1 - middle) * x], dim=1)
    weights = torch.cat([middle * w, (1 - middle) * w], dim=1)
    return places, weights


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
