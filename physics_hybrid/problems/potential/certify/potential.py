r"""A continuous potential from values at voxel centres, for the price of a stencil.

v = w + sum theta phi_s, w trilinear. In every voxel the currents of the field say how it goes on
from the centre: with E = sigma^-1 J - sigma_inf^-1 Phi the field of u = phi - phi_s on two opposite
faces, linear in between,

    u(corner) = u - sum over axes of (+-h/2 (E_low + E_high) / 2 + h/8 (E_high - E_low))

and w at a node is the mean of its tissue voxels weighted by conductivity (Oswald's interpolation of
the postprocessed potential: Vohralik, SIAM J. Numer. Anal. 45 (2007) 1570), plus
(1 - theta) phi_s. On a grounded end w is 0. Beyond a window round the electrode u is phi itself.

A v that is free to be chosen (`interval`) is bent, too: plus the sum over axes of c_a (1 - X_a^2),
X_a from -1 to 1 along axis a and c_a bilinear across it, from its values on the edges along a: the
mean of h/8 (E_high - E_low) over the voxels round the edge (serendipity elements of the second
order: Arnold and Awanou, Found. Comput. Math. 11 (2011) 337).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import AXES, Body, around, gathered
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.current import sides
from physics_hybrid.problems.potential.certify.shapes import Edges, others
from physics_hybrid.problems.potential.physics.conductor import Faces


def from_centres(
    body: Body,
    phi: Float[Tensor, "D H W"],
    J: Faces,
    closed: list[ClosedForm],
) -> Float[Tensor, "nD nH nW"]:
    """w of a field phi, V, whose currents are J, A/m^2 (1, D+1, H, W) and so on."""
    return _smooth(body, phi, J, closed)[0]


def bent_from_centres(
    body: Body,
    phi: Float[Tensor, "D H W"],
    J: Faces,
    closed: list[ClosedForm],
) -> tuple[Float[Tensor, "nD nH nW"], Edges]:
    """The same with c_a on edges: what the field says of its second derivatives, the mean over the
    voxels round an edge weighted by conductivity; 0 on ends that conduct."""
    nodes, low, high = _smooth(body, phi, J, closed)
    edges = []
    for axis in range(3):
        step = float(body.spacing[axis]) / 8
        total = body.mean * (high[axis] - low[axis]) * step
        weight = body.mean
        for other in others(axis):
            total, weight = gathered(total, other), gathered(weight, other)
        c = torch.where(weight > 0, total / torch.where(weight > 0, weight, 1.0), 0.0)
        for form in closed:
            there, bend = form.edges_there(axis), form.bend(axis, _share(body, form))
            c[there] += bend
        if axis and not body.ends.floating:
            c[[0, -1]] = 0.0
        edges.append(c)
    return nodes, edges


def _smooth(
    body: Body, phi: Float[Tensor, "D H W"], J: Faces, closed: list[ClosedForm]
) -> tuple[Float[Tensor, "nD nH nW"], list[Tensor], list[Tensor]]:
    """w at nodes, and E without the closed form on the faces below and above every voxel, V/m."""
    u = phi.clone() if closed else phi
    low, high = _resisted(body, J)
    for form in closed:
        there = form.voxels_there
        u[there] -= form.at_centres
        below, above = _sides_of(form.through_faces)
        for a in range(3):
            for b in range(3):
                rho = float(form.inverse[a, b])
                if rho != 0:
                    low[a][there] -= rho * below[b]
                    high[a][there] -= rho * above[b]
    nodes = _averaged(body, u, low, high)
    for form in closed:
        nodes[form.nodes_there] += (_share(body, form) - form.cutoff_at_nodes) * form.at_nodes
    return grounded(body, nodes), low, high


def from_nodes(
    body: Body, nodes: Float[Tensor, "nD nH nW"], closed: list[ClosedForm]
) -> Float[Tensor, "nD nH nW"]:
    """w of a potential that is known at the nodes, V."""
    for form in closed:
        nodes = form.added_to(nodes, -1.0)
    return grounded(body, nodes)


def grounded(body: Body, nodes: Float[Tensor, "nD nH nW"]) -> Float[Tensor, "nD nH nW"]:
    """nodes with 0 on the ends, where these are grounded."""
    if body.ends.kind == "grounded":
        nodes = nodes.clone()
        nodes[[0, -1]] = 0.0
    return nodes


def _sides_of(J: Faces) -> tuple[list[Tensor], list[Tensor]]:
    """Currents on the faces below and above every voxel, along each axis."""
    pairs = [sides(J[axis], axis) for axis in range(3)]
    return [low for low, _ in pairs], [high for _, high in pairs]


def _resisted(body: Body, J: Faces) -> tuple[list[Tensor], list[Tensor]]:
    """sigma^-1 J on the faces below and above every voxel, V/m. Of an oblique tensor the current
    across an axis counts by its mean."""
    below, above = _sides_of((J[0][0], J[1][0], J[2][0]))
    low, high = [], []
    for axis in range(3):
        rho = body.resistivity[min(axis, len(body.sigma) - 1)]
        low.append(rho * below[axis])
        high.append(rho * above[axis])
    if len(body.sigma) == 6:
        for c, (a, b) in enumerate(AXES[3:]):
            rho = body.resistivity[3 + c]
            for i, j in ((a, b), (b, a)):
                mean = rho * (below[j] + above[j]) / 2
                low[i], high[i] = low[i] + mean, high[i] + mean
    return low, high


def _averaged(
    body: Body, u: Tensor, low: list[Tensor], high: list[Tensor]
) -> Float[Tensor, "nD nH nW"]:
    """Mean over the voxels round a node of what each says of it, weighted by conductivity."""
    steps = []
    for axis in range(3):
        step = float(body.spacing[axis]) / 8
        below = torch.add(high[axis], low[axis], alpha=3).mul_(body.mean).mul_(step)
        above = torch.add(low[axis], high[axis], alpha=3).mul_(body.mean).mul_(step)
        steps.append(gathered(below, axis, above.neg_()))
    total = gathered(body.mean * u, 0).add_(steps[0])
    total = gathered(total, 1).add_(gathered(steps[1], 0))
    total = gathered(total, 2).add_(gathered(gathered(steps[2], 0), 1))
    return total.mul_(body.shares)


def _share(body: Body, form: ClosedForm) -> Float[Tensor, "nD nH nW"]:
    """Of the weight at nodes of the window, what its voxels have; 0 in air."""
    return around(body.mean[form.voxels_there]) * body.shares[form.nodes_there]
