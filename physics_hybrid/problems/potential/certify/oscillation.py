r"""What the closed form does on faces that a Raviart-Thomas field cannot follow.

On a face F of G that is skin, or behind which G ends, q . n differs from what it should be by
g = J_s . n - (its mean over F). In the voxel K of G behind it, of sides h_1 along the normal and
h_2, h_3 across it, let g = sum g_kl cos(k pi y / h_2) cos(l pi z / h_3). The current

    c = -sigma grad psi,
    psi = sum g_kl cos(k pi y / h_2) cos(l pi z / h_3) cosh(kappa t)
              / (sigma_1 kappa sinh(kappa h_1)),
    sigma_1 kappa^2 = sigma_2 (k pi / h_2)^2 + sigma_3 (l pi / h_3)^2,

t from the opposite face, has no divergence, takes g in through F and lets nothing through the five
other faces: q + c has what q lacks. It is added for k, l < `WAVES` or `NEAR_WAVES`; of the rest,
g_r, no more is needed than, for functions w on the voxel K on one side of F,

    |int_F g_r w dS| <= C |g_r|_F |sigma^(1/2) grad w|_K,
    C^2 = coth(kappa h_1) / (mu sigma_1 kappa)

with the least kappa of what is left, and mu as in `Body.stiffest`. There is no smaller C: that is
the least energy of a current that enters as one such wave and leaves nowhere else.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.rules import Orders
from physics_hybrid.problems.potential.certify.shapes import trilinear

#: Waves along each side of a face that are corrected, and of the faces of the electrode's own
#: voxel, where g may be a peak.
WAVES, NEAR_WAVES = 3, 7

#: Where g was sampled, for its integrals: voxels, places in them, and weights times g, A.
Points = list[tuple[Int[Tensor, "n 3"], Float[Tensor, "n P 3"], Float[Tensor, "n P"]]]


#: Rows of faces, places on them, weights and g, A/m^2.
Samples = list[tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Faces:
    """Faces of voxels, of all directions.

    voxels : behind them. axis : of their normal. side : below (0) or above (1).
    """

    voxels: Int[Tensor, "n 3"]
    axis: Int[Tensor, " n"]
    side: Int[Tensor, " n"]

    @classmethod
    def loose(cls, body: Body, form: ClosedForm) -> "Faces":
        """Those of G that are skin, or behind which G ends."""
        found = []
        inside = form.medium.nonzero()
        for axis in range(3):
            for side in (0, 1):
                beside = inside.clone()
                beside[:, axis] += 2 * side - 1
                outside = (beside[:, axis] < 0) | (beside[:, axis] >= body.shape[axis])
                d, h, w = _clamped(body, beside).unbind(dim=1)
                joined = ~outside & form.medium[d, h, w]
                if axis == 0 and not body.ends.floating:
                    joined = joined | outside  # no condition, or one that `Flux` has
                voxels = inside[~joined]
                found.append((voxels, axis, side))
        count = [len(voxels) for voxels, _, _ in found]
        axes, sides = (
            torch.tensor([one[i] for one in found]).repeat_interleave(torch.tensor(count))
            for i in (1, 2)
        )
        return cls(torch.cat([voxels for voxels, _, _ in found]), axes, sides)

    @property
    def order(self) -> Int[Tensor, "n 3"]:
        """The axis of the normal, and the two others."""
        return torch.tensor([[0, 1, 2], [1, 0, 2], [2, 0, 1]])[self.axis]

    @property
    def outward(self) -> Float[Tensor, " n"]:
        """1 above a voxel, -1 below it."""
        return (2 * self.side - 1).double()

    def chosen(self, rows: Tensor) -> "Faces":
        """Some of them."""
        return Faces(self.voxels[rows], self.axis[rows], self.side[rows])

    def beside(self) -> Int[Tensor, "n 3"]:
        """The voxels on the other side; outside of the grid some of them."""
        step = torch.nn.functional.one_hot(self.axis, 3) * (2 * self.side - 1)[:, None]
        return self.voxels + step

    def number(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where they stand in arrays of faces: an index for each axis."""
        d, h, w = (self.voxels + self.side[:, None] * torch.eye(3).long()[self.axis]).unbind(dim=1)
        return d, h, w

    def places(self, flat: Float[Tensor, "n P 2"]) -> Float[Tensor, "n P 3"]:
        """From [0, 1]^2 on a face to [0, 1]^3 of the voxel behind it."""
        normal = self.side.double()[:, None, None].expand(*flat.shape[:2], 1)
        ordered = torch.cat([normal, flat], dim=-1)
        order = self.order[:, None].expand_as(ordered)
        return torch.zeros_like(ordered).scatter(-1, order, ordered)


def _clamped(body: Body, voxels: Tensor) -> Tensor:
    """Voxels, moved into the grid."""
    return voxels.clamp_min(0).minimum(torch.tensor(body.shape) - 1)


@dataclass(frozen=True)
class Correction:
    """c of the faces of one G.

    rows : which face a voxel has in each of six directions, or -1. waves : g_kl, A/m^2. sigma : of
    the voxels behind, along the normal and across, S/m; edges : of these, m.
    """

    faces: Faces
    rows: Int[Tensor, "D H W 6"]
    waves: Float[Tensor, "n k l"]
    sigma: Float[Tensor, "n 3"]
    edges: Float[Tensor, "n 3"]

    @classmethod
    def of(cls, body: Body, faces: Faces, waves: Float[Tensor, "n k l"]) -> "Correction":
        """With these waves on faces of a body."""
        rows = torch.full((*body.shape, 6), -1, dtype=torch.long)
        d, h, w = faces.voxels.unbind(dim=1)
        rows[d, h, w, 2 * faces.axis + faces.side] = torch.arange(len(waves))
        sigma = _along_order(body, faces, faces.voxels)
        return cls(faces, rows, waves, sigma, body.spacing[faces.order])

    @property
    def marked(self) -> Bool[Tensor, "D H W"]:
        """The voxels in which it is not 0."""
        return (self.rows >= 0).any(dim=-1)

    def at(self, voxels: Int[Tensor, "n 3"], xi: Float[Tensor, "n P 3"]) -> Float[Tensor, "n P 3"]:
        """c at places of voxels, A/m^2; 0 in voxels that have none."""
        d, h, w = voxels.unbind(dim=1)
        rows = self.rows[d, h, w]
        which, direction = (rows >= 0).nonzero(as_tuple=True)
        out = torch.zeros_like(xi)
        if len(which):
            out.index_add_(0, which, self._of(rows[which, direction], xi[which]))
        return out

    def _of(self, row: Int[Tensor, " m"], xi: Float[Tensor, "m P 3"]) -> Float[Tensor, "m P 3"]:
        """c of some faces at places of the voxels behind them."""
        order = self.faces.order[row][:, None].expand_as(xi)
        normal, u, v = xi.gather(-1, order).unbind(dim=-1)
        above = self.faces.side[row][:, None] == 1
        t = torch.where(above, normal, 1 - normal)[..., None, None]
        sigma, edges = self.sigma[row], self.edges[row]
        count = self.waves.shape[-1]
        kappa = _kappa(sigma, edges, count)[:, None]
        length = kappa * edges[:, 0, None, None, None]
        near, far = torch.exp(-length * (1 - t)), torch.exp(-length * (1 + t))
        scale = self.waves[row][:, None] / (1 - torch.exp(-2 * length))
        k = torch.arange(count, dtype=torch.float64)
        cos_u, sin_u = (
            torch.cos(torch.pi * k * u[..., None]),
            torch.sin(torch.pi * k * u[..., None]),
        )
        cos_v, sin_v = (
            torch.cos(torch.pi * k * v[..., None]),
            torch.sin(torch.pi * k * v[..., None]),
        )
        psi = (near + far) * (scale / (sigma[:, 0, None, None, None] * kappa))
        along = -((near - far) * scale * cos_u[..., None] * cos_v[..., None, :]).sum(dim=(-1, -2))
        across = torch.pi * sigma[:, 1:] / edges[:, 1:]
        first = (psi * (sin_u * k)[..., None] * cos_v[..., None, :]).sum(dim=(-1, -2))
        second = (psi * cos_u[..., None] * (sin_v * k)[..., None, :]).sum(dim=(-1, -2))
        ordered = torch.stack(
            [
                self.faces.outward[row][:, None] * along,
                across[:, :1] * first,
                across[:, 1:] * second,
            ],
            dim=-1,
        )
        return torch.zeros_like(ordered).scatter(-1, order, ordered)


def _along_order(body: Body, faces: Faces, voxels: Tensor) -> Float[Tensor, "n 3"]:
    """Diagonal of sigma in voxels, along the normals of faces and across, S/m."""
    d, h, w = voxels.unbind(dim=1)
    sigma = torch.stack([one[d, h, w] for one in body.diagonal], dim=1)
    return sigma.gather(1, faces.order)


def _kappa(
    sigma: Float[Tensor, "n 3"], edges: Float[Tensor, "n 3"], count: int
) -> Float[Tensor, "n k l"]:
    """kappa of every wave, 1/m; that of the constant, which no g has, is 1 / h."""
    k = torch.arange(count, dtype=torch.float64)
    u, v = (sigma[:, i] / sigma[:, 0] * (torch.pi / edges[:, i]) ** 2 for i in (1, 2))
    square = (u[:, None] * k**2)[:, :, None] + (v[:, None] * k**2)[:, None]
    return torch.where(square > 0, square, (edges[:, 0] ** -2)[:, None, None]).sqrt()


@dataclass(frozen=True)
class Oscillation:
    """corrections : to be added to q.

    sizes : sum of C |g_r|_F over the faces that a voxel answers for, W^(1/2), raised by what a
        coarser quadrature changes.
    points, check : for int_F g_r w dS, by two rules.
    """

    corrections: list[Correction]
    sizes: Float[Tensor, "D H W"]
    points: Points
    check: Points

    @classmethod
    def of(cls, body: Body, closed: list[ClosedForm]) -> "Oscillation":
        """Of the closed forms of a body."""
        sizes, coarser = (torch.zeros(body.shape, dtype=torch.float64) for _ in range(2))
        corrections: list[Correction] = []
        points: Points = []
        check: Points = []
        for form, faces, waves in _tiers(body, closed):
            fine, coarse = (
                _sampled(body, form, faces, orders) for orders in (rules.FINE, rules.CHECK)
            )
            correction = Correction.of(body, faces, _waves(faces, fine, waves))
            corrections.append(correction)
            points += _add(sizes, body, correction, fine)
            check += _add(coarser, body, correction, coarse)
        # what quadrature misses of the first waves has a larger C than the waves that are left
        doubt = math.sqrt(NEAR_WAVES) * (sizes - coarser).abs()
        return cls(corrections, sizes + doubt, points, check)

    def moment(self, nodes: Float[Tensor, "nD nH nW"]) -> tuple[float, float]:
        """Sum over faces of int_F g_r w dS for a trilinear w, W if w is in V; and its doubt."""
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


def _tiers(body: Body, closed: list[ClosedForm]) -> Iterator[tuple[ClosedForm, Faces, int]]:
    """The loose faces of every closed form, and how many waves are corrected on them."""
    for form in closed:
        faces = Faces.loose(body, form)
        own = (faces.voxels == torch.tensor(form.voxel)).all(dim=1)
        for chosen, waves in ((own, NEAR_WAVES), (~own, WAVES)):
            if bool(chosen.any()):
                yield form, faces.chosen(chosen), waves


def _sampled(body: Body, form: ClosedForm, faces: Faces, orders: Orders) -> Samples:
    """g on loose faces."""
    mean = torch.zeros(len(faces.voxels), dtype=torch.float64)
    number = faces.number()
    for axis, means in enumerate(form.through_faces):
        along = faces.axis == axis
        d, h, w = (i[along] for i in number)
        mean[along] = means[0][d, h, w]
    out = []
    points = rules.face_points(form.places, faces.voxels, faces.order[:, 1:], body.spacing, orders)
    for rows, flat, weights in points:
        some = faces.chosen(rows)
        places = (some.voxels[:, None] + some.places(flat)) * body.spacing
        normal = some.axis[:, None, None].expand(*flat.shape[:2], 1)
        J = form.current_at(places).gather(-1, normal)[..., 0]
        out.append((rows, flat, weights, some.outward[:, None] * (J - mean[rows][:, None])))
    return out


def _cosines(flat: Float[Tensor, "n P 2"], waves: int) -> tuple[Tensor, Tensor]:
    """cos(k pi y / h_2) and cos(l pi z / h_3) at places on faces."""
    k = torch.arange(waves, dtype=torch.float64)
    u, v = flat.unbind(dim=-1)
    return torch.cos(torch.pi * k * u[..., None]), torch.cos(torch.pi * k * v[..., None])


def _waves(faces: Faces, samples: Samples, count: int) -> Float[Tensor, "n k l"]:
    """The first waves of g, A/m^2."""
    waves = torch.zeros(len(faces.voxels), count, count, dtype=torch.float64)
    size = torch.full((count,), 2.0, dtype=torch.float64)
    size[0] = 1.0
    for rows, flat, weights, g in samples:
        cos_u, cos_v = _cosines(flat, count)
        found = torch.einsum("np,npk,npl->nkl", weights * g, cos_u, cos_v)
        waves[rows] = found * size[:, None] * size
    waves[:, 0, 0] = 0.0
    return waves


def _add(sizes: Tensor, body: Body, correction: Correction, samples: Samples) -> Points:
    """Add C |g_r|_F to the voxels that answer for the faces; and the points of g_r."""
    points: Points = []
    for rows, flat, weights, g in samples:
        some = correction.faces.chosen(rows)
        area = (body.volume / correction.edges[rows, 0])[:, None]
        count = correction.waves.shape[-1]
        cos_u, cos_v = _cosines(flat, count)
        rest = g - torch.einsum("nkl,npk,npl->np", correction.waves[rows], cos_u, cos_v)
        norm = (area * rest**2 * weights).sum(dim=1).sqrt()
        owner = _owners(body, some)
        size = norm * trace_constant(body, some, owner, count)
        sizes.index_put_(owner.unbind(dim=1), size, accumulate=True)
        points.append((some.voxels, some.places(flat), area * rest * weights))
    return points


def _owners(body: Body, faces: Faces) -> Int[Tensor, "n 3"]:
    """The better conductor of the two voxels on a face."""
    beside = faces.beside()
    clamped = _clamped(body, beside)
    inside = (beside == clamped).all(dim=1)
    other = torch.where(inside[:, None], clamped, faces.voxels)
    mine, theirs = (body.mean[v.unbind(dim=1)] for v in (faces.voxels, other))
    return torch.where((theirs > mine)[:, None], other, faces.voxels)


def trace_constant(
    body: Body, faces: Faces, voxels: Int[Tensor, "n 3"], wave: int = 1
) -> Float[Tensor, " n"]:
    """C of faces of voxels for waves from `wave` on, m^(1/2) (S/m)^(-1/2)."""
    sigma, edges = _along_order(body, faces, voxels), body.spacing[faces.order]
    slopes = (sigma[:, 1:] / sigma[:, :1]).sqrt() / edges[:, 1:]
    kappa = wave * torch.pi * slopes.amin(dim=1)
    square = 1 / (torch.tanh(kappa * edges[:, 0]) * sigma[:, 0] * kappa)
    return (square / body.stiffest[voxels.unbind(dim=1)]).sqrt()
