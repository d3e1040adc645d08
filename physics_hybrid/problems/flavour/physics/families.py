"""Families of initial states: what a closure is trained on, and held out from.

    random      any densities, directions and flux factors, with a crossing
    merger      like the remnant of two neutron stars: antineutrinos outnumber neutrinos, fluxes
                gather round one direction, heavy species are the most forward
    isotropic   small flux factors, nearly as many nu_e as nubar_e
    shallow     random states with I_small / I_large below 0.05
    stable      random states without a crossing

Mu and tau are alike. All are divided by N_tot, and drawn by rejection: a state belongs to a family
by what Box3D's integrals say of it.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from physics_hybrid.problems.flavour.physics.box3d import convert
from physics_hybrid.problems.flavour.physics.sphere import product

FAMILIES = ("random", "merger", "isotropic", "shallow", "stable")

#: Crossings I_small / I_large of each family: above the first, up to the second.
CROSSING = {
    "random": (0.05, 1.0),
    "merger": (0.05, 1.0),
    "isotropic": (0.05, 1.0),
    "shallow": (0.005, 0.05),
    "stable": (-1.0, 0.0),
}
#: Beyond this flux factor 12 polar directions do not resolve a beam.
SHARPEST = 0.85


def draw(family: str, seed: int, number: int) -> Float64[Tensor, "6 4"]:
    """State `number` of a family; a function of its arguments alone."""
    random = np.random.default_rng([seed, FAMILIES.index(family), number])
    low, high = CROSSING[family]
    rule = product(24, 16)
    while True:
        states = torch.stack([_state(family, random) for _ in range(16)])
        crossing = convert(states, rule).crossing
        fits = torch.nonzero((crossing > low) & (crossing <= high))
        if len(fits):
            return states[int(fits[0])]


def _state(family: str, random: np.random.Generator) -> Float64[Tensor, "6 4"]:
    densities, fluxes = DRAWN.get(family, _any)(random)
    kinds = np.concatenate([densities[:, None] * fluxes, densities[:, None]], axis=1)
    e, x, ebar, xbar = kinds
    F = np.stack([e, x, x, ebar, xbar, xbar])
    return torch.from_numpy(F / F[:, 3].sum())


def _directions(random: np.random.Generator, count: int) -> np.ndarray:
    vectors = random.normal(size=(count, 3))
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _any(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Densities (4,) and flux factors as vectors (4, 3) of e, x, ebar, xbar."""
    factors = random.uniform(0, SHARPEST, 4)
    return random.uniform(0, 1, 4), factors[:, None] * _directions(random, 4)


def _merger(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    electron = 1.0
    anti = random.uniform(0.95, 1.5)
    heavy = random.uniform(0.15, 0.7)
    factor = random.uniform(0.01, 0.3)
    factors = factor * np.array([1, random.uniform(1, 3.5), random.uniform(1, 2.5), 1])
    factors[3] = factors[1]
    axis = _directions(random, 1) + random.uniform(0.1, 0.8) * _directions(random, 4)
    axis[3] = axis[1]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    densities = np.array([electron, heavy, anti, heavy * random.uniform(0.95, 1.05)])
    return densities, np.minimum(factors, SHARPEST)[:, None] * axis


def _isotropic(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    heavy = random.uniform(0.1, 0.9)
    densities = np.array([1.0, heavy, random.uniform(0.85, 1.15), heavy])
    factors = random.uniform(0, 0.15, 4)
    return densities, factors[:, None] * _directions(random, 4)


DRAWN: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "merger": _merger,
    "isotropic": _isotropic,
}
