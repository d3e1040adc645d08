r"""Where to solve: at the sample with the worst bound, until every sample's is small enough.

The samples themselves are what is searched, so that the bound of each is known, and small. (Greedy
choice: Veroy, Prud'homme, Rovas and Patera, AIAA 2003-3847.) A solution more of the K loads costs K
solves, of the J functionals J: the side is extended that has lately lowered the bound most for its
price.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.uncertain.basis import Basis
from physics_hybrid.problems.potential.uncertain.pairs import Pairs, Values

#: A value that hardly varies is held to this share of the largest instead.
FLAT = 1e-6


@dataclass(frozen=True)
class Search:
    """values : at all samples. worst : the largest bound over what it should be; 1 or less where
    all are. solves : how many systems were solved."""

    values: Values
    worst: float
    solves: int


def search(
    pairs: Pairs,
    mu: Float[Tensor, "S T"],
    tolerance: float,
    most: int,
    seen: Callable[[float], None],
) -> Search:
    """Extend both bases until no bound exceeds `tolerance` times the standard deviation of its
    value.

    most : solutions of a side, at most. seen : is told the worst bound over what it should be.
    """
    sides = (pairs.loads, pairs.functionals)
    price = [len(side.loads) for side in sides]
    gain = [1.0, 1.0]  # of the logarithm of the worst bound, by a solution more
    bounds = [side.bounds(mu) for side in sides]
    found, goal, before, last = None, None, math.inf, None
    while True:
        if goal is None or _doubled(sides):
            found = pairs.at(mu)
            goal = _goal(found.values, tolerance)
        over = bounds[0].of_products(bounds[1]) / goal
        worst = float(over.max())
        sample = mu[int(over.amax(dim=(1, 2)).argmax())]
        open_sides = [s for s in (0, 1) if len(sides[s]) < most and not _has(sides[s], sample)]
        if worst <= 1 or not open_sides:
            found = pairs.at(mu)
            goal = _goal(found.values, tolerance)  # of what is now known of the spread
            worst = float((found.bound / goal).max())
            if worst <= 1 or not open_sides:
                solves = sum(p * len(s) for p, s in zip(price, sides, strict=True))
                return Search(found, worst, solves)
        seen(worst)
        if last is not None:
            fallen = max(math.log(before / worst), 0.0)
            gain[last] = (gain[last] + fallen) / 2
        last = max(open_sides, key=lambda s: (gain[s] / price[s], -price[s]))
        before = worst
        extend(sides[last], sample)
        bounds[last] = sides[last].bounds(mu)


def extend(side: Basis, sample: Float[Tensor, " T"]) -> None:
    """A solution at a sample, from what the basis says of it."""
    start = None
    if len(side):
        start = side.potential(sample)
    side.add(sample.numpy(), start)


def _goal(values: Float[Tensor, "S K J"], tolerance: float) -> Float[Tensor, "K J"]:
    """What no bound should exceed."""
    spread = values.std(dim=0)
    least = FLAT * values.abs().max()
    return (tolerance * torch.maximum(spread, least)).clamp_min(torch.finfo(spread.dtype).tiny)


def _doubled(sides: tuple[Basis, Basis]) -> bool:
    """Whether the two bases have grown to a power of two: time to look at the spread again."""
    size = len(sides[0]) + len(sides[1])
    return size & (size - 1) == 0


def _has(side: Basis, sample: Tensor) -> bool:
    """Whether a basis has a solution there."""
    return any(bool((torch.from_numpy(mu) == sample).all()) for mu in side.mu)
