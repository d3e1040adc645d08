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

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import AXES, Body, around, gathered, slabs
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
    total = torch.zeros([n + 1 for n in body.shape], dtype=torch.float64)
    for planes in slabs(body.shape):
        part, u = body.slab(planes), phi[planes]
        beyond = slice(planes.start, planes.stop + 1)
        currents = (J[0][0, beyond], J[1][0, planes], J[2][0, planes])
        if len(body.sigma) == 6:
            there = _at_nodes(part, u, *_resisted(part, currents))
        else:
            drops = [values[planes] for values in body.drops]
            there = _weighted(part.mean * u, drops, *_sides_of(currents))
        total[beyond] += there
    for form in closed:
        part = body.part(form.voxels_there)
        total[form.nodes_there] -= _at_nodes(part, form.at_centres, *_field(form))
    return _finished(body, total, closed)


def bent_from_centres(
    body: Body,
    phi: Float[Tensor, "D H W"],
    J: Faces,
    closed: list[ClosedForm],
) -> tuple[Float[Tensor, "nD nH nW"], Edges]:
    """The same with c_a on edges: what the field says of its second derivatives, the mean over the
    voxels round an edge weighted by conductivity; 0 on ends that conduct."""
    total = torch.zeros([n + 1 for n in body.shape], dtype=torch.float64)
    edges = []
    for axis in range(3):
        shape = [n + (a != axis) for a, n in enumerate(body.shape)]
        edges.append(torch.zeros(shape, dtype=torch.float64))
    for planes, part, u, low, high in _slabs(body, phi, J, closed):
        beyond = slice(planes.start, planes.stop + 1)
        total[beyond] += _at_nodes(part, u, low, high)
        for axis, c in enumerate(edges):
            bend = part.mean * (high[axis] - low[axis]) * (float(body.spacing[axis]) / 8)
            first, second = others(axis)
            c[beyond if axis else planes] += gathered(gathered(bend, first), second)
    for axis, c in enumerate(edges):
        first, second = others(axis)
        weight = gathered(gathered(body.mean, first), second)
        shares = torch.where(weight > 0, 1 / weight, 0.0)
        c.mul_(shares)
        for form in closed:
            there = form.edges_there(axis)
            own = gathered(gathered(body.mean[form.voxels_there], first), second)
            c[there] += form.bend(axis, own * shares[there])
        if axis and not body.ends.floating:
            c[[0, -1]] = 0.0
    return _finished(body, total, closed), edges


def _slabs(
    body: Body, phi: Float[Tensor, "D H W"], J: Faces, closed: list[ClosedForm]
) -> Iterator[tuple[slice, Body, Tensor, list[Tensor], list[Tensor]]]:
    """In some planes across D: u, V, and E of u on the faces below and above every voxel, V/m."""
    for planes in slabs(body.shape):
        part = body.slab(planes)
        u = phi[planes].clone() if closed else phi[planes]
        beyond = slice(planes.start, planes.stop + 1)
        low, high = _resisted(part, (J[0][0, beyond], J[1][0, planes], J[2][0, planes]))
        for form in closed:
            _take_off(form, planes, u, low, high)
        yield planes, part, u, low, high


def _take_off(
    form: ClosedForm, planes: slice, u: Tensor, low: list[Tensor], high: list[Tensor]
) -> None:
    """Take phi_s from u and its field from E, in the window of a closed form."""
    along, *across = form.voxels_there
    first, last = max(planes.start, along.start), min(planes.stop, along.stop)
    if first >= last:
        return
    there = (slice(first - planes.start, last - planes.start), *across)
    own = slice(first - along.start, last - along.start)
    u[there] -= form.at_centres[own]
    below, above = _field(form)
    for E, E_s in zip([*low, *high], [*below, *above], strict=True):
        E[there] -= E_s[own]


def _field(form: ClosedForm) -> tuple[list[Tensor], list[Tensor]]:
    """sigma_inf^-1 J_s on the faces below and above every voxel of the window, V/m."""
    below, above = _sides_of(form.through_faces)
    rows = form.inverse.tolist()
    return [_turned(row, below) for row in rows], [_turned(row, above) for row in rows]


def _turned(row: list[float], vector: list[Tensor]) -> Tensor:
    """A row of a matrix times a vector."""
    parts = [rho * value for rho, value in zip(row, vector, strict=True) if rho != 0]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _finished(
    body: Body, total: Float[Tensor, "nD nH nW"], closed: list[ClosedForm]
) -> Float[Tensor, "nD nH nW"]:
    """w from the sums at nodes."""
    nodes = total.mul_(body.shares)
    for form in closed:
        nodes[form.nodes_there] += (_share(body, form) - form.cutoff_at_nodes) * form.at_nodes
    return grounded(body, nodes)


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
    below, above = _sides_of(J)
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


def _at_nodes(
    body: Body, u: Tensor, low: list[Tensor], high: list[Tensor]
) -> Float[Tensor, "nD nH nW"]:
    """Sum over the voxels round a node of what each says of it, times conductivity."""
    drops = [body.mean * (float(h) / 8) for h in body.spacing]
    return _weighted(body.mean * u, drops, low, high)


def _weighted(
    u: Tensor, drops: list[Tensor], low: list[Tensor], high: list[Tensor]
) -> Float[Tensor, "nD nH nW"]:
    """The same of u times conductivity and of what falls along each axis, low and high times
    drops."""
    steps = []
    for axis in range(3):
        both = low[axis] + high[axis]
        below = torch.add(both, low[axis], alpha=2).mul_(drops[axis])
        above = both.add_(high[axis], alpha=2).mul_(drops[axis]).neg_()
        steps.append(gathered(below, axis, above))
    total = gathered(u, 0).add_(steps[0])
    total = gathered(total, 1).add_(gathered(steps[1], 0))
    return gathered(total, 2).add_(gathered(gathered(steps[2], 0), 1))


def _share(body: Body, form: ClosedForm) -> Float[Tensor, "nD nH nW"]:
    """Of the weight at nodes of the window, what its voxels have; 0 in air."""
    return around(body.mean[form.voxels_there]) * body.shares[form.nodes_there]
