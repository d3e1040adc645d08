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
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.rules import Orders, Points
from physics_hybrid.problems.potential.certify.shapes import Edges, bent, trilinear

#: Waves along each side of a face that are corrected, and of the faces of the electrode's own
#: voxel, where g may be a peak.
WAVES, NEAR_WAVES = 3, 7


@dataclass(frozen=True)
class Sampled:
    """Values on some faces, by a rule for each along both of its sides.

    rows : which faces of those that were asked for. places, weights : (n, P) along the first and
    second side. values : at the points. sides : of an electrode on which there are points.
    """

    rows: Int[Tensor, " n"]
    places: list[Float[Tensor, "n P"]]
    weights: list[Float[Tensor, "n P"]]
    values: Float[Tensor, "n P P"]
    sides: int

    @cached_property
    def weight(self) -> Float[Tensor, "n P P"]:
        """Of every point."""
        u, v = self.weights
        return u[:, :, None] * v[:, None]

    @property
    def rooted(self) -> Float[Tensor, "n PP"]:
        """Values times the roots of weights."""
        return (self.values * self.weight.sqrt()).flatten(1)

    @property
    def smoother(self) -> Float[Tensor, "PP modes"]:
        """As `rules.smoother` has it, of that."""
        return rules.smoother(self.values.shape[1] // self.sides, 2, self.sides)

    def cosines(self, count: int) -> list[Float[Tensor, "n P k"]]:
        """cos(k pi y / h) along both sides."""
        k = torch.arange(count, dtype=torch.float64)
        return [torch.cos(torch.pi * k * x[..., None]) for x in self.places]


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
        box = tuple(slice(a, b) for a, b in zip(form.low, form.high, strict=True))
        medium = form.medium[box]
        shape = [n + 2 for n in medium.shape]
        joined = torch.zeros(shape, dtype=torch.bool)
        joined[1:-1, 1:-1, 1:-1] = medium
        if not body.ends.floating:  # no condition, or one that `Flux` has
            joined[0] |= form.low[0] == 0
            joined[-1] |= form.high[0] == body.shape[0]
        free = []
        for axis, n in enumerate(medium.shape):
            there = [slice(1, -1)] * 3
            for first in (0, 2):
                there[axis] = slice(first, first + n)
                free.append(medium & ~joined[tuple(there)])
        number, *voxel = torch.stack(free).nonzero().unbind(dim=1)
        voxels = torch.stack(voxel, dim=1) + torch.tensor(form.low)
        return cls(voxels, number // 2, number % 2)

    @cached_property
    def order(self) -> Int[Tensor, "n 3"]:
        """The axis of the normal, and the two others."""
        return torch.tensor(_ORDER)[self.axis]

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

    def points(self, axis: int, rows: Tensor, places: list[Float[Tensor, "n P"]]) -> Points:
        """Places along both sides of faces of one direction, as points of the voxels behind."""
        voxels = self.voxels[rows]
        along = [x[rows] for x in places]
        along.insert(axis, self.side[rows, None].double())
        return Points(voxels, along, along)

    def number(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where they stand in arrays of faces: an index for each axis."""
        d, h, w = (self.voxels + self.side[:, None] * torch.eye(3).long()[self.axis]).unbind(dim=1)
        return d, h, w


def _clamped(body: Body, voxels: Tensor) -> Tensor:
    """Voxels, moved into the grid."""
    return voxels.clamp_min(0).minimum(torch.tensor(body.shape) - 1)


@dataclass(frozen=True)
class Correction:
    """c of the faces of one G.

    waves : g_kl, A/m^2. sigma : of the voxels behind, along the normal and across, S/m; edges : of
    these, m. kappa : of every wave, 1/m.
    """

    faces: Faces
    waves: Float[Tensor, "n k l"]
    sigma: Float[Tensor, "n 3"]
    edges: Float[Tensor, "n 3"]
    kappa: Float[Tensor, "n k l"]

    @classmethod
    def of(cls, body: Body, faces: Faces, waves: Float[Tensor, "n k l"]) -> "Correction":
        """With these waves on faces of a body."""
        sigma, edges = _along_order(body, faces, faces.voxels), body.spacing[faces.order]
        return cls(faces, waves, sigma, edges, _kappa(sigma, edges, waves.shape[-1]))

    def among(self, voxels: Int[Tensor, "n 3"]) -> tuple["Correction", Int[Tensor, " m"]]:
        """Of the faces of these voxels, as often as they are named, and the row of each."""
        faces = _number(self.faces.voxels)
        numbers, order = _number(voxels).sort()
        first = torch.searchsorted(numbers, faces)
        count = torch.searchsorted(numbers, faces, right=True) - first
        row = torch.repeat_interleave(count)
        before = first - (count.cumsum(dim=0) - count)
        where = order[before[row] + torch.arange(len(row))]
        some = Correction(
            faces=self.faces.chosen(row),
            waves=self.waves[row],
            sigma=self.sigma[row],
            edges=self.edges[row],
            kappa=self.kappa[row],
        )
        return some, where

    def add_to(
        self, p: list[Float[Tensor, "n P P P"]], rows: Int[Tensor, " m"], points: Points
    ) -> None:
        """Add c at points, A/m^2, to the components of a current there. rows : of the voxels behind
        the faces; rules have as many places along every axis."""
        if points.alike:
            xi = points.places[0][:1, None].expand(1, 3, -1)
        else:
            xi = torch.stack(points.places, dim=1)[rows]
            xi = xi.gather(1, self.faces.order[..., None].expand_as(xi))
        c = self._of(xi)
        counts = torch.bincount(self.faces.axis, minlength=3).tolist()
        first = 0
        for normal, count in enumerate(counts):
            there = slice(first, first + count)
            first += count
            for component, value in zip(_ORDER[normal], c, strict=True):
                p[component].index_add_(0, rows[there], value[there].permute(_TURNED[normal]))

    def _of(self, xi: Float[Tensor, "_ 3 P"]) -> list[Tensor]:
        """c at places of the voxels behind the faces, those of each or the same for all:
        components, axes and places in the order normal, first and second side. (m, P, P, P) each"""
        normal, u, v = xi.unbind(dim=1)
        above = self.faces.side[:, None] == 1
        t = torch.where(above, normal, 1 - normal)[:, :, None]
        m, P, count = len(self.waves), t.shape[1], self.waves.shape[-1]
        length, scale, inward = self._profile
        near, far = torch.exp(-length * (1 - t)), torch.exp(-length * (1 + t))
        psi = (near + far) * inward
        along = (far - near) * scale
        k = torch.pi * torch.arange(count, dtype=torch.float64)[:, None]
        angle_u, angle_v = k * u[:, None], k * v[:, None]
        cos_u, cos_v = torch.cos(angle_u), torch.cos(angle_v)
        steep_u, steep_v = k * torch.sin(angle_u), k * torch.sin(angle_v)
        out = []
        sigma, edges = self.sigma[..., None, None], self.edges[..., None, None]
        for profile, first, second in (
            (along, cos_u, cos_v),
            (psi * (sigma[:, 1] / edges[:, 1]), steep_u, cos_v),
            (psi * (sigma[:, 2] / edges[:, 2]), cos_u, steep_v),
        ):
            shape = first[:, :, None, :, None] * second[:, None, :, None]
            shape = shape.reshape(len(xi), count**2, P * P)
            waves = profile @ (shape[0] if len(xi) == 1 else shape)
            out.append(waves.view(m, P, P, P))
        return out

    @cached_property
    def _profile(self) -> tuple[Tensor, Tensor, Tensor]:
        """kappa h, g_kl outward over 1 - exp(-2 kappa h), A/m^2, and g_kl over that and sigma_1
        kappa, V: of every wave, (m, 1, k l)."""
        kappa = self.kappa.flatten(1)[:, None]
        length = kappa * self.edges[:, :1, None]
        scale = self.waves.flatten(1)[:, None] / (1 - torch.exp(-2 * length))
        outward = scale * self.faces.outward.view(-1, 1, 1)
        return length, outward, scale / (self.sigma[:, :1, None] * kappa)


#: Axis of the normal and of both sides, by that of the normal.
_ORDER = ((0, 1, 2), (1, 0, 2), (2, 0, 1))

#: From n, normal, first and second side to n, D, H and W.
_TURNED = ((0, 1, 2, 3), (0, 2, 1, 3), (0, 2, 3, 1))


def _number(voxels: Int[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """One number for each voxel of any grid."""
    d, h, w = voxels.unbind(dim=1)
    return (d << 42) + (h << 21) + w


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
    """forms, corrections : to be added to q, each of a closed form.

    sizes : sum of C |g_r|_F over the faces that a voxel answers for, W^(1/2), raised by what a
        coarser quadrature changes.
    rest : g_r on the faces of each correction, A/m^2.
    """

    body: Body
    forms: list[ClosedForm]
    corrections: list[Correction]
    sizes: Float[Tensor, "D H W"]
    rest: list[list[Sampled]]

    @classmethod
    def of(cls, body: Body, closed: list[ClosedForm]) -> "Oscillation":
        """Of the closed forms of a body."""
        sizes, coarser = (torch.zeros(body.shape, dtype=torch.float64) for _ in range(2))
        corrections: list[Correction] = []
        rest: list[list[Sampled]] = []
        forms: list[ClosedForm] = []
        for form, faces, waves in _tiers(body, closed):
            forms.append(form)
            samples = _sampled(body, form, faces, rules.FINE)
            correction = Correction.of(body, faces, _waves(faces, samples, waves))
            corrections.append(correction)
            rest.append(_left(correction, samples))
            owners = _owners(body, faces)
            constant = trace_constant(body, faces, owners, waves)
            for part in rest[-1]:
                rows, rooted = part.rows, part.rooted
                scale = constant[rows] * (body.volume / correction.edges[rows, 0]).sqrt()
                owner = owners[rows].unbind(dim=1)
                for total, values in ((sizes, rooted), (coarser, rooted @ part.smoother)):
                    norm = torch.linalg.vector_norm(values, dim=1)
                    total.index_put_(owner, norm * scale, accumulate=True)
        found = cls(body, forms, corrections, sizes, rest)
        if corrections:
            # what quadrature misses of the first waves has a larger C than the waves that are left
            some, other = sizes[found.there], coarser[found.there]
            some += math.sqrt(NEAR_WAVES) * (some - other)
        return found

    def moment(
        self, nodes: Float[Tensor, "nD nH nW"], edges: Edges | None = None
    ) -> tuple[float, float]:
        """Sum over faces of int_F g_r w dS for w from nodes and edges as in `Flux`, W if w is in V;
        and its doubt."""
        fine, coarse = (self._moment(rest, nodes, edges) for rest in (self.rest, self.check))
        return fine, abs(fine - coarse)

    @cached_property
    def check(self) -> list[list[Sampled]]:
        """rest by another rule."""
        return [
            _left(one, _sampled(self.body, form, one.faces, rules.CHECK))
            for form, one in zip(self.forms, self.corrections, strict=True)
        ]

    def _moment(self, rest: list[list[Sampled]], nodes: Tensor, edges: Edges | None) -> float:
        """By one rule."""
        total = 0.0
        for correction, samples in zip(self.corrections, rest, strict=True):
            for part in samples:
                faces, weighted = correction.faces.chosen(part.rows), part.values * part.weight
                for axis in range(3):
                    there = (faces.axis == axis).nonzero()[:, 0]
                    points = faces.points(axis, there, part.places)
                    w = trilinear(nodes, points)
                    if edges is not None:
                        w = w + bent(edges, points)
                    area = self.body.volume / float(self.body.spacing[axis])
                    total += area * float((w.squeeze(axis + 1) * weighted[there]).sum())
        return total

    @cached_property
    def there(self) -> tuple[slice, slice, slice]:
        """Voxels that hold all that answer for a face."""
        faces = torch.cat([correction.faces.voxels for correction in self.corrections])
        low, high = faces.amin(dim=0) - 1, faces.amax(dim=0) + 2
        d, h, w = (slice(max(0, a), b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        return d, h, w

    @property
    def norm(self) -> float:
        """Of all voxels, W^(1/2)."""
        return float(torch.linalg.vector_norm(self.sizes))


def _tiers(body: Body, closed: list[ClosedForm]) -> Iterator[tuple[ClosedForm, Faces, int]]:
    """The loose faces of every closed form, and how many waves are corrected on them."""
    for form in closed:
        faces = Faces.loose(body, form)
        own = (faces.voxels == torch.tensor(form.voxel)).all(dim=1)
        for chosen, waves in ((own, NEAR_WAVES), (~own, WAVES)):
            if bool(chosen.any()):
                yield form, faces.chosen(chosen), waves


def _sampled(body: Body, form: ClosedForm, faces: Faces, orders: Orders) -> list[Sampled]:
    """g on loose faces."""
    mean = torch.zeros(len(faces.voxels), dtype=torch.float64)
    number = faces.number()
    for axis, means in enumerate(form.through_faces):
        along = faces.axis == axis
        d, h, w = (i[along] - first for i, first in zip(number, form.window[0], strict=True))
        mean[along] = means[d, h, w]
    order = faces.order
    spacing = body.spacing[order]
    lower = faces.voxels.gather(1, order) * spacing
    lower[:, 0] += faces.side * spacing[:, 0]
    inverse = form.inverse[order[:, :, None], order[:, None]].permute(1, 2, 0)[..., None, None]
    out = []
    for group in rules.grouped(form.places, faces.voxels, body.spacing):
        rows = group.rows
        lines = group.lines(order[rows, 1:], rules.on_faces(orders))
        (u, weight_u), (v, weight_v) = lines
        _, h_u, h_v = spacing[rows].T[..., None]
        J = torch.zeros(())
        for charge in form.charges:
            n, below_u, below_v = (lower[rows] - charge.point[0][order[rows]]).T[..., None]
            offset = [n[:, :, None], (below_u + u * h_u)[..., None], (below_v + v * h_v)[:, None]]
            _, dense = form.seen_from(charge, offset, inverse[:, :, rows])
            J = J + dense * offset[0]
        g = faces.outward[rows].view(-1, 1, 1) * (J - mean[rows].view(-1, 1, 1))
        sides = 1 if group.at is None else 2
        out.append(Sampled(rows, [u, v], [weight_u, weight_v], g, sides))
    return out


def _waves(faces: Faces, samples: list[Sampled], count: int) -> Float[Tensor, "n k l"]:
    """The first waves of g, A/m^2."""
    waves = torch.zeros(len(faces.voxels), count, count, dtype=torch.float64)
    size = torch.full((count,), 2.0, dtype=torch.float64)
    size[0] = 1.0
    for part in samples:
        cos_u, cos_v = part.cosines(count)
        waves[part.rows] = cos_u.mT @ (part.values * part.weight) @ cos_v * size[:, None] * size
    waves[:, 0, 0] = 0.0
    return waves


def _left(correction: Correction, samples: list[Sampled]) -> list[Sampled]:
    """g_r: g without its first waves."""
    out = []
    for part in samples:
        waves = correction.waves[part.rows]
        cos_u, cos_v = part.cosines(waves.shape[-1])
        out.append(replace(part, values=part.values - cos_u @ waves @ cos_v.mT))
    return out


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
    if len(body.sigma) == 6:
        square = square / body.stiffest[voxels.unbind(dim=1)]
    return square.sqrt()
