r"""q + s sigma grad v on voxels, and its integrals.

q is a lowest-order Raviart-Thomas field (a normal component on each face, linear in between) and v
trilinear, so that in a voxel, with P_0 = 1 and P_1(x) = 2 x - 1 along each axis,

    component a = q_a + s sum_b sigma_ab d_b v  =  sum over m of c_a[m] P_m1 P_m2 P_m3

over seven m in {0, 1}^3 and, of `slopes` and a bent w, some with P_2. Products integrate exactly,
to V times the sum of c[m] . sigma^-1 c'[m] times the mean square of the wave, 1/3 for each P_1 and
1/5 for each P_2; squares as a sum of squares. Where the closed form is at work, in some hundred
voxels, quadrature takes over.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import AXES, Body, slabs
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.oscillation import Correction
from physics_hybrid.problems.potential.certify.rules import (
    Group,
    Orders,
    Points,
    face_points,
)
from physics_hybrid.problems.potential.certify.shapes import (
    CORNERS,
    Edges,
    Mode,
    bent_gradient,
    corners_of,
    flat_haar,
    gradient,
    haar,
    others,
    sums,
    trilinear,
)
from physics_hybrid.problems.potential.physics.conductor import matrix

#: m of all components where w is trilinear.
MODES = tuple(m for m in CORNERS if sum(m) < 3)

#: Mean squares of P_0, P_1 and P_2.
MEAN_SQUARE = (1.0, 1 / 3, 1 / 5)

Vector = list[Tensor | None]


@dataclass(frozen=True)
class Flux:
    """q + sign sigma grad v, A/m^2, and on robin ends q . n - sign gamma v, gamma = beta sigma_DD.

    nodes, edges : w, V, with v = w + sum over electrodes of theta phi_s: trilinear from nodes, and
        where there are edges the sum over axes of c_a (1 - X_a^2), c_a bilinear across the axis.
    low, high : normal component of the Raviart-Thomas part on the faces of every voxel below and
        above, along each axis, A/m^2; q is that + J_s in the box of each electrode.
    closed : the electrodes. corrections, slopes : what else belongs to q (`oscillation`,
        `slopes`).
    """

    body: Body
    nodes: Float[Tensor, "nD nH nW"]
    low: list[Float[Tensor, "D H W"]]
    high: list[Float[Tensor, "D H W"]]
    closed: list[ClosedForm] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    slopes: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    sign: float = 1.0
    edges: Edges | None = None

    def slab(self, planes: slice) -> "Flux":
        """In some planes across D, without what is known of the closed form."""
        slopes = {ab: (low[planes], high[planes]) for ab, (low, high) in self.slopes.items()}
        return Flux(
            self.body.slab(planes),
            self.nodes[planes.start : planes.stop + 1],
            [q[planes] for q in self.low],
            [q[planes] for q in self.high],
            slopes=slopes,
            sign=self.sign,
            edges=self._edges_of(planes),
        )

    def _edges_of(self, planes: slice) -> Edges | None:
        """Those in some planes."""
        if self.edges is None:
            return None
        along, *across = self.edges
        return [along[planes], *(values[planes.start : planes.stop + 1] for values in across)]

    def modes(self) -> Iterator[tuple[Mode, float, Vector]]:
        """m, the mean square of its wave and the three components c[m] without the closed form;
        None is 0."""
        slopes = self._slopes()
        for axis in range(3 if self.slopes else 0):
            slopes.setdefault(twice(axis), [None] * 3)
        for m, slope in slopes.items():
            components = self._conducted(slope)
            for axis in range(3):
                own = self._own(m, axis)
                if own is not None:
                    there = components[axis]
                    components[axis] = own if there is None else there + own
            yield m, math.prod(MEAN_SQUARE[i] for i in m), components

    def _slopes(self) -> dict[Mode, Vector]:
        """grad w by modes, V/m."""
        waves = haar(self.nodes)
        out: dict[Mode, Vector] = {}
        for m in MODES:
            out[m] = [
                None if m[axis] else waves[_with(m, axis, 1)] * (2 / self.body.spacing[axis])
                for axis in range(3)
            ]
        for axis, values in enumerate(self.edges or []):
            for m, c in haar(values, others(axis)).items():
                # (1 - X^2)' = -2 X and 1 - X^2 = 2/3 (P_0 - P_2)
                _add(out, _with(m, axis, 1), axis, c * (-4 / self.body.spacing[axis]))
                for other in others(axis):
                    if m[other]:
                        step = c * (4 / (3 * self.body.spacing[other]))
                        _add(out, _with(m, other, 0), other, step)
                        _add(out, _with(_with(m, other, 0), axis, 2), other, -step)
        return out

    def _bend(self, axis: int) -> Tensor | None:
        """The part of component `axis` that is 1 - P_2 along the axis, from the slopes."""
        total = None
        for a in range(3):
            if (a, axis) in self.slopes:
                low, high = self.slopes[a, axis]
                part = (high - low) * (self.body.spacing[axis] / (6 * self.body.spacing[a]))
                total = part if total is None else total + part
        return total

    def _own(self, m: Mode, axis: int) -> Tensor | None:
        """Component of the Raviart-Thomas part and its slopes in mode m."""
        if m == twice(axis):
            bend = self._bend(axis)
            return None if bend is None else -bend
        if max(m) > 1 or sum(m) > 2:
            return None
        if sum(m) == 0:
            mean, bend = (self.low[axis] + self.high[axis]) / 2, self._bend(axis)
            return mean if bend is None else mean + bend
        if sum(m) == 1 and m[axis]:
            return (self.high[axis] - self.low[axis]) / 2
        across = [b for b in range(3) if b != axis and m[b]]
        if len(across) != 1 or (axis, across[0]) not in self.slopes:
            return None
        low, high = self.slopes[axis, across[0]]
        return (high - low) / 2 if m[axis] else (high + low) / 2

    def _conducted(self, slopes: Vector) -> Vector:
        """sign sigma g."""
        if len(self.body.sigma) < 6:
            out: Vector = []
            for axis, slope in enumerate(slopes):
                sigma = self.body.diagonal[axis]
                part = None if slope is None else sigma * slope
                out.append(part if part is None or self.sign == 1 else part * self.sign)
            return out
        out = [None, None, None]
        for c, (a, b) in enumerate(AXES):
            for i, j in {(a, b), (b, a)}:
                slope = slopes[j]
                if slope is None:
                    continue
                part = self.sign * self.body.sigma[c] * slope
                before = out[i]
                out[i] = part if before is None else before + part
        return out

    def at(self, points: Points) -> list[Float[Tensor, "n P Q R"]]:
        """The components of the whole of it at points."""
        return Local.of(self, points.voxels).at(points)

    def same(self, form: ClosedForm, voxels: Int[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Whether voxels are of the medium of the closed form."""
        here, there = self.body.at(voxels), form.sigma_inf
        if here.shape[1] == there.shape[1]:
            return (here == there).all(dim=1)
        return (matrix(here) == matrix(there)).flatten(1).all(dim=1)

    @cached_property
    def mixed(self) -> Int[Tensor, "n 3"]:
        """The voxels in which the closed form does not cancel: those of quadrature."""
        found = [torch.zeros(0, 3, dtype=torch.long)]
        for form in self.closed:
            voxels = _in_tissue(self.body, form.voxels)
            plain = form.whole(voxels) & self.same(form, voxels) & (self.sign == 1)
            found.append(voxels[~plain])
        found += [correction.faces.voxels for correction in self.corrections]
        _, H, W = self.body.shape
        numbers = torch.cat(found) @ torch.tensor([H * W, W, 1])
        marked = torch.zeros(self.body.tissue.numel(), dtype=torch.bool)
        marked[numbers] = True
        flat = marked.nonzero()[:, 0]
        return torch.stack([flat // (H * W), flat // W % H, flat % W], dim=1)

    def on_ends(self, end: int) -> Iterator[tuple[float, Float[Tensor, "H W"]]]:
        """Weights and modes of q . n - sign gamma v on a robin end, without the closed form."""
        outward, side = (-1.0, self.low[0]) if end == 0 else (1.0, self.high[0])
        gamma = self.body.exchange * self.body.diagonal[0][end]
        plane = self.nodes[end]
        for (i, j), wave in flat_haar(plane).items():
            value = -self.sign * gamma * wave
            if i + j == 0:
                value = value + outward * side[end]
            elif i + j == 1 and self.slopes:
                value = value + outward * self.slopes[0, 1 if i else 2][end != 0][end]
            yield 3.0 ** -(i + j), value

    def at_ends(self, end: int, points: Points) -> Float[Tensor, "n 1 P P"]:
        """q . n - sign gamma v, the closed form with it, at points on the end."""
        outward, side = (-1.0, self.low[0]) if end == 0 else (1.0, self.high[0])
        gamma = self.body.exchange * points.of_voxels(self.body.diagonal[0])
        v = trilinear(self.nodes, points)
        q = points.of_voxels(side)
        for b in (1, 2):
            if self.slopes:
                S = self.slopes[0, b][end != 0]
                q = q + points.of_voxels(S) * (2 * points.xi(b) - 1)
        for form in self.closed:
            phi, J = form.at(points)
            q = q + points.of_voxels(form.medium.double()) * J[0]
            v = v + form.theta(points)[0] * phi
        return outward * q - self.sign * gamma * v


@dataclass(frozen=True)
class Local:
    """A flux in some voxels: what is the same everywhere in each.

    corners : w, V. low, high : on the faces below and above along each axis, A/m^2. sigma : S/m.
    corrections : of faces of these voxels, with their rows.
    """

    flux: Flux
    voxels: Int[Tensor, "n 3"]
    corners: Float[Tensor, "n 2 2 2"]
    low: list[Float[Tensor, "n 1 1 1"]]
    high: list[Float[Tensor, "n 1 1 1"]]
    sigma: Float[Tensor, "n C"]
    corrections: list[tuple[Correction, Tensor]]

    @classmethod
    def of(cls, flux: Flux, voxels: Int[Tensor, "n 3"]) -> "Local":
        """In these voxels."""
        where = voxels.unbind(dim=1)
        low, high = (
            [values[where].view(-1, 1, 1, 1) for values in side] for side in (flux.low, flux.high)
        )
        there = [correction.among(voxels) for correction in flux.corrections]
        return cls(
            flux=flux,
            voxels=voxels,
            corners=corners_of(flux.nodes, voxels),
            low=low,
            high=high,
            sigma=flux.body.at(voxels),
            corrections=[(some, rows) for some, rows in there if len(rows)],
        )

    def at(self, points: Points) -> list[Float[Tensor, "n P Q R"]]:
        """The components at points of these voxels."""
        flux, spacing = self.flux, self.flux.body.spacing
        E = gradient(self.corners, points, spacing)
        if flux.edges is not None:
            more = bent_gradient(flux.edges, points, spacing)
            E = [one + other for one, other in zip(E, more, strict=True)]
        q = [
            torch.addcmul(low, high - low, points.xi(axis))
            for axis, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        ]
        X = [2 * points.xi(axis) - 1 for axis in range(3)] if flux.slopes else []
        for (a, b), (S_low, S_high) in flux.slopes.items():
            low, high = points.of_voxels(S_low), points.of_voxels(S_high)
            share = spacing[b] / (4 * spacing[a])
            q[a] = q[a] + X[b] * ((low + high + X[a] * (high - low)) / 2)
            q[b] = q[b] + (high - low) * share * (1 - X[b] ** 2)
        if flux.sign != 0:
            turned = _times(self.sigma if flux.sign == 1 else self.sigma * flux.sign, E)
            q = [one + other for one, other in zip(q, turned, strict=True)]
        p = [one if one.shape == points.shape else one.expand(points.shape).clone() for one in q]
        for form, parts in zip(flux.closed, self._media, strict=True):
            if parts is None:
                self._add_oblique(p, form, points)
            else:
                form.add_to(p, points, *parts)
        for correction, rows in self.corrections:
            correction.add_to(p, rows, points)
        return p

    @cached_property
    def _media(self) -> list[tuple[Tensor, Tensor, Tensor] | None]:
        """chi, sign sigma along the axes and its ratio to sigma_inf, for each closed form; None
        where one of both is oblique."""
        flux = self.flux
        out: list[tuple[Tensor, Tensor, Tensor] | None] = []
        for form in flux.closed:
            if self.sigma.shape[1] == 6 or not form.straight:
                out.append(None)
                continue
            sigma = self.sigma.expand(-1, 3)
            ratio = sigma * form.inverse.diag()
            ratio = ratio.masked_fill(flux.same(form, self.voxels)[:, None], 1.0)
            chi = form.medium[self.voxels.unbind(dim=1)].double()
            out.append((chi, sigma * flux.sign, ratio * flux.sign))
        return out

    def _add_oblique(self, p: list[Tensor], form: ClosedForm, points: Points) -> None:
        """Add chi J_s + sign sigma grad(theta phi_s), the latter
        sign (phi_s sigma grad theta - theta sigma sigma_inf^-1 J_s)."""
        sign, sigma = self.flux.sign, matrix(self.sigma)
        theta, slope = form.theta(points)
        phi, J = form.at(points)
        chi = points.of_voxels(form.medium.double())
        ratio = sigma @ form.inverse
        ratio[self.flux.same(form, self.voxels)] = torch.eye(3, dtype=ratio.dtype)
        turned, steep = _times_matrix(ratio, J), _times_matrix(sigma, slope)
        for axis in range(3):
            p[axis] += chi * J[axis] - sign * theta * turned[axis]
            p[axis] += (sign * phi) * steep[axis]


def _times(sigma: Float[Tensor, "n C"], vector: list[Tensor]) -> list[Tensor]:
    """sigma of voxels times the components of a vector at points."""
    if sigma.shape[1] == 6:
        return _times_matrix(matrix(sigma), vector)
    columns = sigma.expand(-1, 3).unbind(dim=1)
    return [one.view(-1, 1, 1, 1) * other for one, other in zip(columns, vector, strict=True)]


def _times_matrix(matrices: Float[Tensor, "n 3 3"], vector: list[Tensor]) -> list[Tensor]:
    """Matrices of voxels times the components of a vector at points."""
    entries = matrices.view(-1, 3, 3, 1, 1, 1)
    return [
        entries[:, a, 0] * vector[0] + entries[:, a, 1] * vector[1] + entries[:, a, 2] * vector[2]
        for a in range(3)
    ]


def twice(axis: int) -> Mode:
    """m of P_2 along an axis."""
    return _with((0, 0, 0), axis, 2)


def _with(m: Mode, axis: int, order: int) -> Mode:
    """m with another order along one axis."""
    d, h, w = (order if a == axis else i for a, i in enumerate(m))
    return d, h, w


def _add(out: dict[Mode, Vector], m: Mode, axis: int, value: Tensor) -> None:
    """Add a component of a mode."""
    components = out.setdefault(m, [None] * 3)
    there = components[axis]
    components[axis] = value if there is None else there + value


def inner(body: Body, one: Flux, other: Flux) -> tuple[Float[Tensor, "D H W"], float]:
    """int one . sigma^-1 other in every voxel, W, those of robin ends in the voxels beside them;
    and by how much a coarser quadrature changes their sum, W."""
    out = torch.zeros(body.shape, dtype=torch.float64)
    for planes in slabs(body.shape):
        part = one.slab(planes)
        if other is one and not part.slopes and part.edges is None and len(body.sigma) < 6:
            out[planes] = _squares(part)
        else:
            out[planes] = _of_slab(part, part if other is one else other.slab(planes))
    doubt = _replace(out, body, one, other)
    if body.robin:
        doubt += _add_ends(out, body, one, other)
    return out, doubt


def _squares(flux: Flux) -> Float[Tensor, "D H W"]:
    """int p . sigma^-1 p without slopes, of sigma along the axes, in some planes: what `_of_slab`
    has, in fewer passes."""
    body = flux.body
    waves = sums(flux.nodes)
    scale = [1 / (4 * float(h)) for h in body.spacing]
    total: Tensor = torch.zeros(())
    for axis in range(3):
        low, high = flux.low[axis], flux.high[axis]
        mean, step = torch.add(low, high).mul_(0.5), high - low
        slope = waves[_with((0, 0, 0), axis, 1)]
        mean.addcmul_(body.diagonal[axis], slope, value=flux.sign * scale[axis])
        part = mean.square_().addcmul_(step, step, value=1 / 12)
        if len(body.sigma) > 1:
            part.mul_(body.resistivity[axis])
        total = part if axis == 0 else total.add_(part)
    if len(body.sigma) == 1:
        total.mul_(body.resistivity[0])
    # sigma |grad w|^2 of the waves that q does not have
    steep = [flux.sign**2 * k**2 for k in scale]
    for a, b in combinations(range(3), 2):
        square = waves[_with(_with((0, 0, 0), a, 1), b, 1)].square_()
        _add_conducted(total, body, square, {a: steep[a] / 3, b: steep[b] / 3})
    square = waves[(1, 1, 1)].square_()
    _add_conducted(total, body, square, {axis: k / 9 for axis, k in enumerate(steep)})
    return total.mul_(body.volume)


def _add_conducted(total: Tensor, body: Body, square: Tensor, share: dict[int, float]) -> None:
    """Add the sum of sigma times shares of a square."""
    if len(body.sigma) == 1:
        total.addcmul_(body.sigma[0], square, value=sum(share.values()))
        return
    for axis, value in share.items():
        total.addcmul_(body.sigma[axis], square, value=value)


def _of_slab(one: Flux, other: Flux) -> Float[Tensor, "D H W"]:
    """The same by modes, in some planes."""
    body = one.body
    full = len(body.sigma) == 6
    pairs = AXES if full else AXES[:3]
    products: list[Tensor | float] = [0.0] * len(pairs)
    others = {} if other is one else {m: components for m, _, components in other.modes()}
    for m, weight, p in one.modes():
        r = p if other is one else others.get(m)
        if r is None:
            continue
        for c, (a, b) in enumerate(pairs):
            for i, j in {(a, b), (b, a)}:
                left, right = p[i], r[j]
                if left is not None and right is not None:
                    products[c] = products[c] + weight * left * right
    total = torch.zeros(body.shape, dtype=torch.float64)
    for c, part in enumerate(products):
        total += body.resistivity[min(c, len(body.sigma) - 1)] * part
    return total * body.volume


def _replace(out: Tensor, body: Body, one: Flux, other: Flux) -> float:
    """Put what quadrature says in the place of voxels in which a closed form is at work."""
    doubt = 0.0
    for group in _groups(body, one, other):
        points = group.points(rules.FINE)
        where = points.voxels.unbind(dim=1)
        d, h, w = where
        resistivity = body.resistivity[:, d, h, w].T * body.volume
        p = _weighted(one, points)
        r = p if other is one else _weighted(other, points)
        fine = _product(resistivity, p, r)
        out[where] = 0.0
        out.index_put_(where, fine, accumulate=True)
        if other is one:
            smoother = rules.smoother(points.shape[1], 3)
            p = r = [part @ smoother for part in p]
        else:  # the highest waves of p may meet none of those of r, and p be wrong nevertheless
            points = group.points(rules.CHECK)
            p, r = _weighted(one, points), _weighted(other, points)
        doubt += float(fine.sum() - _product(resistivity, p, r).sum())
    return abs(doubt)


def _weighted(flux: Flux, points: Points) -> list[Float[Tensor, "n PQR"]]:
    """The components at points, times the roots of weights."""
    root = points.weight.sqrt()
    return [part.mul_(root).flatten(1) for part in flux.at(points)]


def _product(
    resistivity: Float[Tensor, "n C"],
    p: list[Float[Tensor, "n m"]],
    r: list[Float[Tensor, "n m"]],
) -> Float[Tensor, " n"]:
    """p . sigma^-1 r of vectors in voxels."""
    if resistivity.shape[1] == 6:
        r = list((matrix(resistivity) @ torch.stack(r, dim=1)).unbind(dim=1))
        resistivity = torch.ones_like(resistivity[:, :1])
    total = torch.zeros(())
    for axis, (one, other) in enumerate(zip(p, r, strict=True)):
        rho = resistivity[:, min(axis, resistivity.shape[1] - 1)]
        total = total + rho * torch.linalg.vecdot(one, other)
    return total


def _groups(body: Body, one: Flux, other: Flux) -> list[Group]:
    """Voxels of quadrature: those beside an electrode, and the others."""
    closed = [*one.closed, *other.closed]
    if not closed:
        return []
    mixed = one.mixed if other is one else torch.unique(torch.cat([one.mixed, other.mixed]), dim=0)
    places = [place for form in closed for place in form.places]
    return rules.grouped(places, mixed, body.spacing)


def quadrature_points(body: Body, one: Flux, other: Flux, orders: Orders) -> list[Points]:
    """Rules of quadrature: plain, and graded beside an electrode."""
    return [group.points(orders) for group in _groups(body, one, other)]


def _in_tissue(body: Body, voxels: Int[Tensor, "n 3"]) -> Int[Tensor, "m 3"]:
    """Those of the voxels that are tissue."""
    d, h, w = voxels.unbind(dim=1)
    return voxels[body.tissue[d, h, w]]


def _add_ends(out: Tensor, body: Body, one: Flux, other: Flux) -> float:
    """The part of robin ends: int (1 / gamma) (q . n - gamma v) (...) dS; and its doubt."""
    area = body.volume / float(body.spacing[0])
    doubt = 0.0
    for end in (0, -1):
        tissue = body.tissue[end]
        gamma = torch.where(tissue, body.exchange * body.diagonal[0][end], 1.0)
        total = torch.zeros_like(gamma)
        for (weight, p), (_, r) in zip(one.on_ends(end), other.on_ends(end), strict=True):
            total += weight * area * p * r / gamma
        both = []
        for orders in (rules.CHECK, rules.FINE):
            at_points = 0.0
            points = points_on_end(body, [*one.closed, *other.closed], end, orders)
            for some in points:
                p, r = one.at_ends(end, some), other.at_ends(end, some)
                _, h, w = some.voxels.unbind(dim=1)
                value = area * some.mean(p * r) / gamma[h, w]
                total[h, w] = value
                at_points += float(value.sum())
            both.append(at_points)
        doubt += abs(both[1] - both[0])
        out[end] += total * tissue
    return doubt


def points_on_end(body: Body, closed: list[ClosedForm], end: int, orders: Orders) -> list[Points]:
    """Rules on an end where a closed form is at work."""
    plane = 0 if end == 0 else body.shape[0] - 1
    each = [_in_tissue(body, form.voxels) for form in closed]
    voxels = torch.unique(torch.cat(each), dim=0) if each else torch.zeros(0, 3).long()
    voxels = voxels[voxels[:, 0] == plane]
    places = [place for form in closed for place in form.places]
    return face_points(places, voxels, 0, int(end != 0), body.spacing, orders)
