"""Quadrature along one axis: Gauss points on many intervals at once, plain or graded.

A rule takes the intervals [low, high] (..., metres) and the coordinate `at` of an electrode,
broadcastable to them, and gives points and weights (..., points).
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

#: Gauss points for each axis of a voxel.
FAR_POINTS = 2

#: Those of the rule near the electrode, which is split at the electrode and graded towards it
#: (points at distance ~ xi^GRADING), since there the integrand may rise as 1/r^2.
NEAR_POINTS = 8
GRADING = 3


def gauss(points: int, like: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Gauss-Legendre points and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(points)
    return torch.from_numpy((x + 1) / 2).to(like), torch.from_numpy(w / 2).to(like)


def plain_rule(
    low: Float[Tensor, "K n"], high: Float[Tensor, "K n"], at: Float[Tensor, "K 1"]
) -> tuple[Float[Tensor, "K n points"], Float[Tensor, "K n points"]]:
    """Far from the electrode, wherever that is."""
    x, w = gauss(FAR_POINTS, low)
    length = (high - low)[..., None]
    return low[..., None] + length * x, length * w


def graded_rule(
    low: Float[Tensor, "K n"], high: Float[Tensor, "K n"], at: Float[Tensor, "K 1"]
) -> tuple[Float[Tensor, "K n points"], Float[Tensor, "K n points"]]:
    """Split where the interval is closest to `at` and graded towards that point."""
    x, w = gauss(NEAR_POINTS, low)
    middle = torch.minimum(torch.maximum(at, low), high)[..., None]
    x, w = x**GRADING, GRADING * x ** (GRADING - 1) * w
    below, above = middle - low[..., None], high[..., None] - middle
    points = torch.cat([middle - below * x, middle + above * x], dim=-1)
    weights = torch.cat([below * w, above * w], dim=-1)
    return points, weights
