r"""Values: linear functionals of reduced solutions, corrected by their own reduced solutions.

For a load k with solution u and a functional j with solution z of the same A, so that
a(u, z) = j(u) = k(z), reduced v and w with mismatches p and p* (`basis`),

    j(u) = j(v) + k(w) - a(v, w) + <p, p*> / 2   +-   rho rho* / 2 + eps rho* + rho eps* + eps eps*

u - v and z - w are projections P of p and p* on gradients, and 2 P - 1 is a reflection. (Prager and
Synge 1947; primal and dual: Prud'homme et al., J. Fluids Eng. 124 (2002) 70; as here for voxels:
`certify.interval`.) The error is a product: with both bases good to 1e-3 a value is to 1e-6.

In mu the corrected value is stationary at v and w: its derivative at fixed v and w,

    d j(u) = d_mu [j(w.) + k(w) - a(v, w)],

is exact where v = u and w = z: the adjoint method, one solve for each functional.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.uncertain.basis import Basis, Reduced, chunks, mixed
from physics_hybrid.problems.potential.uncertain.load import Offset


@dataclass(frozen=True)
class Values:
    """values, and what each is off by at most: (S, K, J)."""

    values: Float[Tensor, "S K J"]
    bound: Float[Tensor, "S K J"]


class Pairs:
    """K loads and J functionals, and the products of their bases."""

    def __init__(self, loads: Basis, functionals: Basis, offsets: Sequence[Offset]) -> None:
        self.loads, self.functionals, self.offsets = loads, functionals, offsets
        groups = len(loads.network.groups)
        #: <x, y>_p for x of a load, y of a functional. (P, K, J, V, V')
        self.cross = torch.zeros(groups, len(loads.loads), len(functionals.loads), 0, 0).double()

    def grow(self) -> None:
        """Products of what the bases have got since the last time."""
        rows, columns = (b.parts + len(b) for b in (self.loads, self.functionals))
        before = self.cross
        if before.shape[3:] == (rows, columns):
            return
        cross = before.new_zeros(*before.shape[:3], rows, columns)
        known = before.shape[3:]
        cross[..., : known[0], : known[1]] = before
        slices = self.loads.network.slices()
        new = {j: self.functionals.vector(j) for j in range(known[1], columns)}
        for i in range(rows):
            missing = new if i < known[0] else range(columns)
            if not len(missing):
                continue
            x = self.loads.vector(i)
            for j in missing:
                y = new[j] if j in new else self.functionals.vector(j)
                for p, faces in enumerate(slices):
                    cross[p, :, :, i, j] = torch.from_numpy(x[faces].T @ y[faces])
        self.cross = cross
        self._prepare()

    def _prepare(self) -> None:
        """What does not depend on mu."""
        k, j = self.loads, self.functionals
        JX = k.at[:, None, None, :, None] * (k.E[:, None] @ self.cross)
        XJ = (self.cross @ j.E.mT) * j.at[:, None, None, None, :]
        #: Products of currents with currents, and with potentials.
        self.JJ = (JX @ j.E.mT) * j.at[:, None, None, None, :]
        self.JX, self.XJ = JX.sum(dim=0), XJ.sum(dim=0)
        self.constant_of_loads = _dots(k.loads.constant, j.solutions)  # (N', K, J)
        self.constant_of_functionals = _dots(j.loads.constant, k.solutions).mT  # (N, K, J)

    def lagrangian(
        self, mu: Float[Tensor, "S T"], v: Float[Tensor, "S K V"], w: Float[Tensor, "S J V"]
    ) -> Float[Tensor, "S K J"]:
        """j(v) + k(w) - a(v, w), and what has no solution in it."""
        k, j = self.loads, self.functionals
        theta = k.network.theta(mu)
        power = mixed(theta, self.cross)
        value = -torch.einsum("ski,skjil,sjl->skj", v, power, w)
        if k.parts and j.parts:
            head, tail = v[..., : k.parts], w[..., : j.parts]
            inner = power[..., : k.parts, : j.parts]
            value = value + torch.einsum("ski,skjil,sjl->skj", head, inner, tail)
        c, d = v[..., k.parts :], w[..., j.parts :]
        value = value + torch.einsum("ski,ikj->skj", c, self.constant_of_functionals)
        value = value + torch.einsum("sjl,lkj->skj", d, self.constant_of_loads)
        return value + self.offset(mu, theta)

    def offset(self, mu: Tensor, theta: Tensor) -> Tensor:
        """What has no solution in it. (S, K, J)"""
        c = self.loads.network.conductivities.components(mu)
        total = mu.new_zeros(len(mu), 1, 1)
        for offset in self.offsets:
            weight = mu.new_ones(len(mu)) if offset.group is None else theta[:, offset.group]
            for component in offset.over:
                weight = weight / c[:, component]
            total = total + weight[:, None, None] * torch.from_numpy(offset.values)
        return total

    def at(self, mu: Float[Tensor, "S T"]) -> Values:
        """The values at S parameters, with their bounds."""
        self.grow()
        values, bounds = [], []
        for rows in self._chunks(len(mu)):
            some = mu[rows]
            v, w = self.loads.reduced(some), self.functionals.reduced(some)
            mismatch = self._mismatch(some, v, w)
            values.append(self.lagrangian(some, v.v, w.v) + mismatch / 2)
            bounds.append(v.bounds.of_products(w.bounds))
        return Values(torch.cat(values), torch.cat(bounds))

    def without_bounds(self, mu: Float[Tensor, "S T"]) -> Float[Tensor, "S K J"]:
        """The values at S parameters, corrected by Galerkin's solutions alone: sooner."""
        self.grow()
        parts = []
        for rows in self._chunks(len(mu)):
            some = mu[rows]
            v, w = self.loads.galerkin(some), self.functionals.galerkin(some)
            parts.append(self.lagrangian(some, v, w))
        return torch.cat(parts)

    def _chunks(self, count: int) -> Iterator[slice]:
        """Samples that are taken together."""
        cross = int(np.prod(self.cross.shape[1:]))
        return chunks(count, max(cross, self.loads.numbers, self.functionals.numbers))

    def _mismatch(self, mu: Tensor, v: Reduced, w: Reduced) -> Tensor:
        """<p, p*>. (S, K, J)"""
        theta = self.loads.network.theta(mu)
        terms = "ski,skjil,sjl->skj"
        total = torch.einsum(terms, v.a, mixed(1 / theta, self.JJ), w.a)
        total = total + torch.einsum(terms, v.v, mixed(theta, self.cross), w.v)
        total = total - torch.einsum("ski,kjil,sjl->skj", v.a, self.JX, w.v)
        return total - torch.einsum("ski,kjil,sjl->skj", v.v, self.XJ, w.a)

    def slopes(self, mu: Float[Tensor, " T"]) -> Float[Tensor, "T K J"]:
        """d value / d mu at parameters that both bases have solutions of: exact there."""
        at = mu[None]
        self.grow()
        v, w = self.loads.galerkin(at), self.functionals.galerkin(at)
        M, other = self.loads.parts, self.functionals.parts

        def value(given: Tensor) -> Tensor:
            """The corrected value at fixed solutions."""
            heads = [
                torch.cat([-basis.coefficients(given[None]).inverse, fixed[..., parts:]], dim=-1)
                for basis, fixed, parts in (
                    (self.loads, v, M),
                    (self.functionals, w, other),
                )
            ]
            return self.lagrangian(given[None], heads[0], heads[1])[0]

        return _jacobian(value, mu)


def _jacobian(of: Callable[[Tensor], Tensor], at: Float[Tensor, " T"]) -> Tensor:
    """d of / d at, the parameters first. Few parameters and many values: forward, by going back
    twice."""
    given = at.clone().requires_grad_()
    values = of(given)
    weight = torch.zeros_like(values, requires_grad=True)
    (back,) = torch.autograd.grad(values, given, weight, create_graph=True)
    slopes = []
    for along in torch.eye(len(at), dtype=at.dtype):
        (slope,) = torch.autograd.grad(back, weight, along, retain_graph=True)
        slopes.append(slope)
    return torch.stack(slopes)


def _dots(constant: np.ndarray, solutions: list[np.ndarray]) -> Tensor:
    """constant_a . solution_b of every solution. (N, a, b)"""
    return torch.from_numpy(np.stack([constant.T @ u for u in solutions]))
