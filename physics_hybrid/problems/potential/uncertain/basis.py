r"""A reduced basis for each of many loads, and a bound of its error that needs no constant.

With the solutions u_i at some mu_i, at any mu: the potential v = sum_j c_j u_j of least energy
error (Galerkin), and from the currents that belong to the same solutions,

    J_i = theta(mu_i) (D u_i - sum_m alpha_m / c_m(mu_i)),      q = sum_i a_i J_i,  sum_i a_i = 1.

All J_i have the same divergence, that of the constant part of the load, so that q is an admissible
current at every mu. Then (Prager and Synge, Quart. Appl. Math. 5 (1947) 241)

    |u - v|_A <= rho = |p|,   p = theta^-1/2 (q - theta (D v - sum_m alpha_m / c_m(mu)))

for any a: those with the least rho are taken. All norms are Gram matrices of D u_i and alpha_m,
group by group: at a new mu nothing has the size of the grid. No coercivity constant is in it, and
no Riesz representer. (Certificates by dual currents in reduced bases: Yano, CMAME 287 (2015) 290.)

A solver leaves D^T J_i off by r_i. `certify.repair` carries r_i off by a current d_i, exactly, and

    eps = sum_i |a_i| |theta^-1/2 d_i|

is what this may add: |u - v|_A <= rho + eps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.uncertain.load import Loads
from physics_hybrid.problems.potential.uncertain.network import Network
from physics_hybrid.problems.potential.uncertain.solutions import Solver

#: Directions of a basis that carry less than this share of its energy are left out.
SMALL = 1e-13
#: Numbers that are held at once for some samples.
HELD = 2**23
#: Rounding of sums of products, over the sizes of what is added: rho^2 is raised by it.
ROUNDING = 1e-14


@dataclass(frozen=True)
class Coefficients:
    """What depends on mu, for S samples: theta (S, P), 1 / c_m of the loads (S, L, M)."""

    theta: Float[Tensor, "S P"]
    inverse: Float[Tensor, "S L M"]


@dataclass(frozen=True)
class Bounds:
    """rho and eps of S samples and L loads, W^1/2: see above."""

    rho: Float[Tensor, "S L"]
    eps: Float[Tensor, "S L"]

    def of_products(self, other: Bounds) -> Float[Tensor, "S K J"]:
        """What the values of K loads and J functionals are off by at most: see `pairs`."""
        rho, eps = self.rho[:, :, None], self.eps[:, :, None]
        own, off = other.rho[:, None], other.eps[:, None]
        return rho * own / 2 + eps * own + rho * off + eps * off


@dataclass(frozen=True)
class Reduced:
    """Of S samples and L loads. v : coefficients of (alpha, u), the first -1 / c_m (S, L, M + N).
    a : of the currents (S, L, N).
    """

    v: Float[Tensor, "S L V"]
    a: Float[Tensor, "S L N"]
    bounds: Bounds


class Basis:
    """The solutions of L loads at N parameters, and what any other needs of them."""

    def __init__(self, network: Network, loads: Loads, solver: Solver) -> None:
        self.network, self.loads, self.solver = network, loads, solver
        self.mu: list[np.ndarray] = []
        self.solutions: list[np.ndarray] = []
        #: <x, y>_p for x, y of (alpha_1 .., D u_1 ..). (P, L, M + N, M + N)
        self.gram = _grown(self, [])
        #: |d_i|^2 in every group. (P, L, N)
        self.repair = torch.zeros(len(network.groups), len(loads), 0, dtype=torch.float64)

    @property
    def parts(self) -> int:
        """M."""
        return int(self.loads.alpha.shape[2])

    def __len__(self) -> int:
        return len(self.mu)

    def vector(self, number: int) -> np.ndarray:
        """alpha_m, then D u_i, of all loads. (faces, L)"""
        if number < self.parts:
            return self.loads.alpha[:, :, number]
        out: np.ndarray = self.network.D @ self.solutions[number - self.parts]
        return out

    def add(self, mu: np.ndarray, start: np.ndarray | None = None) -> None:
        """Solve at parameters (T,). start : (n, L) V to begin with.

        Raises
        ------
        SolverError
            The tolerance was not reached.
        """
        rhs = self.loads.rhs(self.network, mu)
        u = self.solver.solved(mu, rhs, start)
        lost = rhs - self.network.applied(self._theta(mu).numpy(), u)
        repair = torch.from_numpy(self.solver.repaired(lost, rhs))[..., None]
        self.mu.append(np.array(mu))
        self.solutions.append(u)
        self.repair = torch.cat([self.repair, repair], dim=-1)
        self.gram = _grown(self, [self.gram])
        self._prepare()

    def potential(self, mu: Float[Tensor, " T"]) -> np.ndarray:
        """v at voxels of tissue, V. (n, L)"""
        c = self.galerkin(mu[None])[0, :, self.parts :].numpy()
        out = np.zeros_like(self.solutions[0])
        for i, u in enumerate(self.solutions):
            out += c[:, i] * u
        return out

    def coefficients(self, mu: Float[Tensor, "S T"]) -> Coefficients:
        """What depends on mu."""
        inverse = self.loads.inverse(self.network.conductivities.components(mu))
        return Coefficients(self.network.theta(mu), inverse)

    def _theta(self, mu: np.ndarray) -> Tensor:
        return self.network.theta(torch.from_numpy(mu))

    def _prepare(self) -> None:
        """What does not depend on mu: the currents in terms of the vectors, and good bases."""
        M, N = self.parts, len(self)
        at = self.coefficients(torch.from_numpy(np.stack(self.mu)))
        #: J_i = theta_p(mu_i) (E (alpha, D u))_i. E : (L, N, M + N); at.theta : (N, P)
        self.E = torch.cat(
            [
                -at.inverse.movedim(0, 1),
                torch.eye(N, dtype=torch.float64).expand(len(self.loads), N, N),
            ],
            dim=-1,
        )
        self.at = at.theta.T.contiguous()  # (P, N)
        JG = self.at[:, None, :, None] * (self.E @ self.gram)
        self.JJ = (JG @ self.E.mT) * self.at[:, None, None, :]  # (P, L, N, N)
        self.JG = JG.sum(dim=0)  # (L, N, M + N)
        self.constant = torch.from_numpy(
            np.stack([(self.loads.constant * u).sum(axis=0) for u in self.solutions], axis=1)
        )
        first = self.at[:, 0]
        self.T = _orthonormal(torch.einsum("p,plij->lij", first, self.gram[:, :, M:, M:]))
        self.TJ = _orthonormal(torch.einsum("p,plij->lij", 1 / first, self.JJ))

    @property
    def numbers(self) -> int:
        """What a sample needs."""
        return int(np.prod(self.gram.shape[1:]))

    def bounds(self, mu: Float[Tensor, "S T"]) -> Bounds:
        """rho and eps at parameters mu."""
        parts = [self.reduced(mu[rows]).bounds for rows in chunks(len(mu), 4 * self.numbers)]
        return Bounds(torch.cat([b.rho for b in parts]), torch.cat([b.eps for b in parts]))

    def galerkin(self, mu: Float[Tensor, "S T"]) -> Float[Tensor, "S L V"]:
        """v alone."""
        return self._galerkin(self.coefficients(mu))[0]

    def _galerkin(self, of: Coefficients) -> tuple[Tensor, Tensor]:
        """v, and the matrix of the energy of all vectors."""
        M = self.parts
        gram = mixed(of.theta, self.gram)
        rhs = self.constant + torch.einsum("slm,slmj->slj", of.inverse, gram[:, :, :M, M:])
        c = _solved(gram[:, :, M:, M:], rhs, self.T)
        return torch.cat([-of.inverse, c], dim=-1), gram

    def reduced(self, mu: Float[Tensor, "S T"]) -> Reduced:
        """v, and its bound, at parameters mu."""
        of = self.coefficients(mu)
        v, gram = self._galerkin(of)
        H = mixed(1 / of.theta, self.JJ)
        g = torch.einsum("lij,slj->sli", self.JG, v)
        a = _least(H, g, self.TJ)
        parts = [(a * (H @ a[..., None])[..., 0]).sum(dim=-1), -2 * (a * g).sum(dim=-1)]
        parts.append((v * (gram @ v[..., None])[..., 0]).sum(dim=-1))
        sizes = _size(H, a) + _size(gram, v)
        rho = (torch.stack(parts).sum(dim=0).clamp_min(0) + ROUNDING * sizes).sqrt()
        off = mixed(1 / of.theta, self.repair).clamp_min(0).sqrt()
        return Reduced(v, a, Bounds(rho, (a.abs() * off).sum(dim=-1)))


def chunks(count: int, each: int) -> Iterator[slice]:
    """Samples that are taken together, where one needs `each` numbers."""
    together = max(1, HELD // max(each, 1))
    for first in range(0, count, together):
        yield slice(first, first + together)


def mixed(weight: Float[Tensor, "S P"], terms: Float[Tensor, "P ..."]) -> Float[Tensor, "S ..."]:
    """sum_p weight_p terms_p, for every sample."""
    return (weight @ terms.flatten(1)).reshape(len(weight), *terms.shape[1:])


def _size(matrix: Tensor, x: Tensor) -> Tensor:
    """(sum_i |x_i| sqrt(matrix_ii))^2: what x^T matrix x is made of."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return (x.abs() * diagonal).sum(dim=-1) ** 2


def _orthonormal(matrix: Float[Tensor, "L N N"]) -> Float[Tensor, "L N N"]:
    """T with T^T matrix T = 1, or 0 in directions that are rounding."""
    scale = matrix.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(matrix.dtype).tiny).rsqrt()
    values, vectors = torch.linalg.eigh(scale[..., None] * matrix * scale[..., None, :])
    kept = values > SMALL * values[..., -1:]
    weight = torch.where(kept, values.clamp_min(torch.finfo(matrix.dtype).tiny).rsqrt(), 0.0)
    basis: Tensor = scale[..., None] * vectors * weight[..., None, :]
    return basis


def _within(matrix: Tensor, T: Tensor) -> Tensor:
    """T^T matrix T, 1 on the diagonal where T is 0."""
    inner = T.mT @ matrix @ T
    left_out = (T == 0).all(dim=-2).to(T)
    return inner + torch.diag_embed(left_out)


def _solved(matrix: Tensor, rhs: Tensor, T: Tensor) -> Tensor:
    """x with matrix x = rhs in the directions T. (S, L, N)"""
    inner = torch.linalg.solve(_within(matrix, T), (T.mT @ rhs[..., None]))
    x: Tensor = (T @ inner)[..., 0]
    return x


def _least(H: Tensor, g: Tensor, T: Tensor) -> Tensor:
    """a with the least a H a - 2 g a among those with sum 1. (S, L, N)"""
    ones = torch.ones_like(g)
    sides = T.mT @ torch.stack([g, ones], dim=-1)
    inner = T @ torch.linalg.solve(_within(H, T), sides)
    free, along = inner[..., 0], inner[..., 1]
    total = along.sum(dim=-1, keepdim=True)
    share = (1 - free.sum(dim=-1, keepdim=True)) / torch.where(total > 0, total, 1.0)
    # of a load that is 0, such as a reference against itself, any will do
    a = torch.where(total > 0, free + along * share, 1 / g.shape[-1])
    return a / a.sum(dim=-1, keepdim=True)  # to rounding


def _grown(basis: Basis, before: list[Tensor]) -> Tensor:
    """Gram matrices with one vector more; of nothing before, those of alpha."""
    network, L = basis.network, len(basis.loads)
    count = basis.parts + len(basis)
    gram = torch.zeros(len(network.groups), L, count, count, dtype=torch.float64)
    first = 0
    for known in before:
        first = known.shape[-1]
        gram[..., :first, :first] = known
    for new in range(first, count):
        vector = basis.vector(new)
        for other in range(new + 1):
            sums = torch.from_numpy(network.by_group(vector * basis.vector(other)))
            gram[..., new, other] = gram[..., other, new] = sums
    return gram
