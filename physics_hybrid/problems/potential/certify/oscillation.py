r"""What the closed form does on faces that a Raviart-Thomas field cannot follow.

On a face F of G that is skin, or behind which G ends, q . n differs from what it should be
by g = J_s . n - (its mean over F). For a function w on the voxel K on one side of F, of sides h_1
along the normal and h_2, h_3 across it,

    |int_F g w dS| <= C |g|_F |sigma^(1/2) grad w|_K,
    C^2 = coth(kappa h_1) / (mu sigma_1 kappa),
    kappa = pi min(sqrt(sigma_2 / sigma_1) / h_2, sqrt(sigma_3 / sigma_1) / h_3)

mu as in `Body.stiffest`. No smaller constant holds for all g of mean 0: g in cosines on F, the
least energy of a current that enters as g and leaves nowhere else is sum g_kl^2 coth(kappa_kl h_1)
/ (sigma_1 kappa_kl), which falls with kappa_kl.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.flux import face_points, trilinear
from physics_hybrid.problems.potential.certify.rules import Orders


Points = list[tuple[Int[Tensor, "n 3"], Float[Tensor, "n P 3"], Float[Tensor, "n P"]]]


@dataclass(frozen=True)
class Oscillation:
    """sizes : sum of C |g|_F over the faces that a voxel answers for, W^(1/2), raised by what a
    coarser quadrature changes.

    points, check : for int_F g w dS by two rules: voxels, places in them and weights times g, A.
    """

    sizes: Float[Tensor, "D H W"]
    points: Points
    check: Points

    @classmethod
    def of(cls, body: Body, closed: list[ClosedForm]) -> "Oscillation":
        """Of the closed forms of a body."""
        sizes, points = _faces(body, closed, rules.FINE)
        coarser, check = _faces(body, closed, rules.CHECK)
        return cls(sizes + (sizes - coarser).abs(), points, check)

    def moment(self, nodes: Float[Tensor, "nD nH nW"]) -> tuple[float, float]:
        """Sum over faces of int_F g w dS for a trilinear w, W if w is in V; and its doubt."""
        fine, coarse = (_moment(points, nodes) for points in (self.points, self.check))
        return fine, abs(fine - coarse)

    @property
    def norm(self) -> float:
        """Of all voxels, W^(1/2)."""
        return float((self.sizes**2).sum().sqrt())


def _moment(points: Points, nodes: Tensor) -> float:
    """By one rule."""
    total = 0.0
    for voxels, xi, weights in points:
        total += float((trilinear(nodes, voxels, xi) * weights).sum())
    return total


def _faces(body: Body, closed: list[ClosedForm], orders: Orders) -> tuple[Tensor, Points]:
    """sizes and points by one rule."""
    sizes = torch.zeros(body.shape, dtype=torch.float64)
    points: Points = []
    for form in closed:
        means = form.through_faces(body.shape)
        for axis in range(3):
            for side in (0, 1):
                voxels = _loose_faces(body, form, axis, side)
                if len(voxels):
                    _add(sizes, points, body, form, means[axis][0], voxels, axis, side, orders)
    return sizes, points


def _loose_faces(
    body: Body, form: ClosedForm, axis: int, side: int
) -> Int[Tensor, "n 3"]:
    """Voxels of G whose face below (side 0) or above (1) along an axis is skin or the end of G."""
    voxels = form.medium.nonzero()
    beside = voxels.clone()
    beside[:, axis] += 2 * side - 1
    n = body.shape[axis]
    outside = (beside[:, axis] < 0) | (beside[:, axis] >= n)
    d, h, w = beside.clamp_min(0).minimum(torch.tensor(body.shape) - 1).unbind(dim=1)
    joined = ~outside & form.medium[d, h, w]
    if axis == 0 and not body.ends.floating:
        joined = joined | outside  # an end that conducts: no condition, or one that `Flux` has
    return voxels[~joined]


def _add(
    sizes: Tensor,
    points: Points,
    body: Body,
    form: ClosedForm,
    means: Tensor,
    voxels: Tensor,
    axis: int,
    side: int,
    orders: Orders,
) -> None:
    """Add the faces of some voxels of G to sizes and points."""
    area = body.volume / float(body.spacing[axis])
    for some, xi, weights in face_points([form], voxels, axis, float(side), body.spacing, orders):
        d, h, w = some.unbind(dim=1)
        face = [d, h, w]
        face[axis] = face[axis] + side
        places = (some[:, None] + xi) * body.spacing
        outward = 2 * side - 1
        J = outward * form.current_at(places)[..., axis]
        g = J - outward * means[face[0], face[1], face[2]][:, None]
        norm = (area * (g**2 * weights).sum(dim=1)).sqrt()
        owner = _owners(body, some, axis, side)
        size = norm * trace_constant(body, owner, axis)
        o_d, o_h, o_w = owner.unbind(dim=1)
        sizes.index_put_((o_d, o_h, o_w), size, accumulate=True)
        points.append((some, xi, area * g * weights))


def _owners(body: Body, voxels: Tensor, axis: int, side: int) -> Tensor:
    """The better conductor of the two voxels on a face."""
    beside = voxels.clone()
    beside[:, axis] += 2 * side - 1
    inside = (beside[:, axis] >= 0) & (beside[:, axis] < body.shape[axis])
    beside = torch.where(inside[:, None], beside, voxels)
    mine, theirs = (_better(body, v) for v in (voxels, beside))
    return torch.where((theirs > mine)[:, None], beside, voxels)


def _better(body: Body, voxels: Tensor) -> Tensor:
    """Mean conductivity of voxels, S/m."""
    d, h, w = voxels.unbind(dim=1)
    return body.mean[d, h, w]


def trace_constant(body: Body, voxels: Int[Tensor, "n 3"], axis: int) -> Float[Tensor, " n"]:
    """C of the faces of voxels normal to an axis, m^(1/2) (S/m)^(-1/2)."""
    d, h, w = voxels.unbind(dim=1)
    sigma = [one[d, h, w] for one in body.diagonal]
    u, v = (a for a in range(3) if a != axis)
    kappa = torch.pi * torch.minimum(
        (sigma[u] / sigma[axis]).sqrt() / body.spacing[u],
        (sigma[v] / sigma[axis]).sqrt() / body.spacing[v],
    )
    square = 1 / (torch.tanh(kappa * body.spacing[axis]) * sigma[axis] * kappa)
    return (square / body.stiffest[d, h, w]).sqrt()
