r"""A current that also varies across the faces: linear normal components, still conserved.

A Raviart-Thomas field q_a does not vary across axis b, and that is most of its error. On a face
normal to a let q . n have the slope S_ab X_b more (X_b from -1 to 1), the same for both voxels.
With S-, S+ on the faces below and above,

    q_a += X_b ((S- + S+) + X_a (S+ - S-)) / 2,    q_b += (S+ - S-) h_b / (4 h_a) (1 - X_b^2)

has no divergence and passes nothing through the faces normal to b. (Brezzi, Douglas, Duran and
Fortin, Numer. Math. 51 (1987) 237: the first of their spaces on bricks.) S is chosen as what leaves
the smallest q + sigma grad v on both sides of the face; it is 0 on skin and on sealed ends.
"""

from dataclasses import replace
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.flux import Flux, quadrature_points
from physics_hybrid.problems.potential.certify.shapes import flat_haar


def with_slopes(flux: Flux) -> Flux:
    """The same with the slopes that make it smallest, face by face."""
    body = flux.body
    moments = _moments(flux)
    slopes = {}
    for a, b in permutations(range(3), 2):
        S = _shared(body, moments[a, b], a)
        if a == 0 and not body.ends.floating:
            for end in (0, -1):
                S[end] = _on_end(flux, moments[a, b], end, b)
        n = body.shape[a]
        slopes[a, b] = (S.narrow(a, 0, n), S.narrow(a, 1, n))
    return replace(flux, slopes=slopes)


def _moments(flux: Flux) -> dict[tuple[int, int], Float[Tensor, "D H W"]]:
    """The slope along b of component a in every voxel, A/m^2."""
    found: dict[tuple[int, int], Tensor] = {}
    for m, _, components in flux.modes():
        if sum(m) != 1 or 1 not in m:
            continue
        b = m.index(1)
        for a in range(3):
            value = components[a]
            if a != b:
                there = torch.zeros(flux.body.shape, dtype=torch.float64)
                found[a, b] = there if value is None else value.clone()
    for voxels, xi, weights in quadrature_points(flux.body, flux, flux, rules.CHECK):
        p = flux.at(voxels, xi)
        where = voxels.unbind(dim=1)
        for a, b in found:
            wave = 2 * xi[..., b] - 1
            found[a, b][where] = 3 * (p[..., a] * wave * weights).sum(dim=1)
    return found


def _shared(body: Body, moment: Float[Tensor, "D H W"], axis: int) -> Float[Tensor, "_ _ _"]:
    """S on all faces normal to an axis: least squares over the two voxels of a face; 0 on skin."""
    n = body.shape[axis]
    rho = body.resistivity[min(axis, len(body.sigma) - 1)]
    low, high = (rho.narrow(axis, i, n - 1) for i in (0, 1))
    both = body.tissue.narrow(axis, 0, n - 1) & body.tissue.narrow(axis, 1, n - 1)
    pull = rho * moment
    total = pull.narrow(axis, 0, n - 1) + pull.narrow(axis, 1, n - 1)
    inner = torch.where(both, -total / torch.where(both, low + high, 1.0), 0.0)
    shape = list(body.shape)
    shape[axis] += 1
    S = torch.zeros(shape, dtype=torch.float64)
    S.narrow(axis, 1, n - 1).copy_(inner)
    return S


def _on_end(flux: Flux, moment: Tensor, end: int, b: int) -> Float[Tensor, "H W"]:
    """S on an end that conducts: what the voxel behind it wants, or on robin ends what v does."""
    body = flux.body
    if not body.robin:
        return torch.where(body.tissue[end], -moment[end], 0.0)
    outward = -1.0 if end == 0 else 1.0
    gamma = body.exchange * body.diagonal[0][end]
    wave = flat_haar(flux.nodes[end])[(1, 0) if b == 1 else (0, 1)]
    return outward * flux.sign * gamma * wave
