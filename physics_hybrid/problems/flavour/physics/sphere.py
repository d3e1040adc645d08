"""Directions and weights on the unit sphere, and a frame that turns with the state.

A quadrature fixed in space makes a closure that depends on how the axes lie, by its own error of
some 1e-3. Directions are taken in the frame of the state instead: z along the electron minus heavy
lepton number flux. Round z they are evenly spaced, so that where all fluxes are parallel, and x is
anybody's guess, the guess does not matter.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.integrate import lebedev_rule
from torch import Tensor

from physics_hybrid.checks import at_least, one_of

#: A vector shorter than this share of N_tot has no direction of its own.
NO_DIRECTION = 1e-3


@dataclass(frozen=True)
class Quadrature:
    """directions : unit vectors. weights : of sum 4 pi."""

    directions: Float64[Tensor, "A 3"]
    weights: Float64[Tensor, " A"]

    def __len__(self) -> int:
        return len(self.weights)

    def with_one(self) -> Float64[Tensor, "A 4"]:
        """(n, 1)"""
        one = torch.ones(len(self), 1, dtype=torch.float64)
        return torch.cat([self.directions, one], dim=1)

    def moments(self) -> Float64[Tensor, "A 4"]:
        """w (n, 1): what turns a distribution into a four-flux."""
        return self.with_one() * self.weights[:, None]


def product(polar: int, azimuth: int) -> Quadrature:
    """Gauss-Legendre in cos(theta) times even steps round z.

    `azimuth` is even, and no step lies on an axis: turning by 180 degrees round z changes nothing.
    """
    cosine, weight = np.polynomial.legendre.leggauss(polar)
    phi = 2 * math.pi * (np.arange(azimuth) + 0.5) / azimuth
    sine = np.sqrt(1 - cosine**2)
    x, y = np.outer(sine, np.cos(phi)), np.outer(sine, np.sin(phi))
    z = np.outer(cosine, np.ones(azimuth))
    directions = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    weights = np.repeat(weight * 2 * math.pi / azimuth, azimuth)
    return Quadrature(torch.from_numpy(directions), torch.from_numpy(weights))


def lebedev(order: int) -> Quadrature:
    """Lebedev's rule of an order (Lebedev and Laikov, Doklady Mathematics 59 (1999) 477)."""
    directions, weights = lebedev_rule(order)
    return Quadrature(torch.from_numpy(directions.T.copy()), torch.from_numpy(weights))


def quadrature(kind: str, polar: int, azimuth: int, order: int) -> Quadrature:
    """The rule that the configuration names; `order` is Lebedev's.

    Raises
    ------
    ValueError
        A kind that there is not, fewer than 2 steps, an odd number round z, no such order.
    """
    one_of(("product", "lebedev"), "problem.quadrature.kind", kind)
    if kind == "lebedev":
        try:
            return lebedev(order)
        except NotImplementedError as error:
            raise ValueError(
                f"problem.quadrature.order must be an order of Lebedev's rules, such as 17, 35 or"
                f" 59; got {order}"
            ) from error
    at_least(2, "problem.quadrature.polar", polar)
    at_least(2, "problem.quadrature.azimuth", azimuth)
    if azimuth % 2:
        raise ValueError(f"problem.quadrature.azimuth must be even; got {azimuth}")
    return product(polar, azimuth)


def frame(F: Float[Tensor, "B 6 4"]) -> Float64[Tensor, "B 3 3"]:
    """The axes (x, y, z) of a state as rows; F divided by N_tot.

    z : the electron minus heavy lepton number flux; where that has no direction the largest flux.
    x : the part across z of the flux that has most of it; where none has any, anywhere.
    """
    flux = F[..., :3].double()
    heavy = 0.5 * (flux[:, (1, 4)] + flux[:, (2, 5)])
    kinds = torch.stack([flux[:, 0], heavy[:, 0], flux[:, 3], heavy[:, 1]], dim=1)
    net = kinds[:, 0] - kinds[:, 1] - kinds[:, 2] + kinds[:, 3]
    z = _unit(_first_direction(net, _longest(kinds)))
    across = kinds - (kinds * z[:, None]).sum(-1, keepdim=True) * z[:, None]
    x = _longest(across)
    x = torch.where((x.norm(dim=-1) > 1e-12)[:, None], x, _any_across(z))
    x = _unit(x - (x * z).sum(-1, keepdim=True) * z)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=1)


def _unit(vector: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3"]:
    unit: Tensor = vector / vector.norm(dim=-1, keepdim=True)
    return unit


def _longest(vectors: Float[Tensor, "B K 3"]) -> Float[Tensor, "B 3"]:
    index = vectors.norm(dim=-1).argmax(dim=1)
    longest: Tensor = vectors[torch.arange(len(vectors), device=vectors.device), index]
    return longest


def _first_direction(
    vector: Float[Tensor, "B 3"], instead: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 3"]:
    """`vector` where it is long enough, else `instead`, else the z axis."""
    axis = vector.new_tensor((0.0, 0.0, 1.0)).expand_as(vector)
    instead = torch.where((instead.norm(dim=-1) > 1e-12)[:, None], instead, axis)
    return torch.where((vector.norm(dim=-1) > NO_DIRECTION)[:, None], vector, instead)


def _any_across(z: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
    """A vector that is not along z: the axis of the smallest component."""
    axis = torch.zeros_like(z).scatter(1, z.abs().argmin(dim=1, keepdim=True), 1.0)
    return axis - (axis * z).sum(-1, keepdim=True) * z
