r"""q + s sigma grad v on voxels, and its integrals.

q is a lowest-order Raviart-Thomas field (a normal component on each face, linear in between) and v
trilinear, so that in a voxel, with P_0 = 1 and P_1(x) = 2 x - 1 along each axis,

    component a = q_a + s sum_b sigma_ab d_b v  =  sum over m of c_a[m] P_m1 P_m2 P_m3

over seven m in {0, 1}^3 and, of `slopes`, three P_2. Products integrate exactly, to V times the sum
of 3^-|m| c[m] . sigma^-1 c'[m], with 1/5 for P_2; squares as a sum of squares. Where the closed
form is at work, in some hundred voxels, quadrature takes over.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import AXES, Body
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.oscillation import Correction
from physics_hybrid.problems.potential.certify.rules import Orders, box_points, face_points
from physics_hybrid.problems.potential.certify.shapes import (
    CORNERS,
    Mode,
    flat_haar,
    gradient,
    haar,
    trilinear,
)
from physics_hybrid.problems.potential.physics.conductor import matrix

#: Voxels handled at once: what fits into a fast memory.
SLAB = 16_000

#: m of all components.
MODES = tuple(m for m in CORNERS if sum(m) < 3)

Vector = list[Tensor | None]


@dataclass(frozen=True)
class Flux:
    """q + sign sigma grad v, A/m^2, and on robin ends q . n - sign gamma v, gamma = beta sigma_DD.

    nodes : w, V, with v = w + sum over electrodes of theta phi_s.
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
        )

    def modes(self) -> Iterator[tuple[Mode, float, Vector]]:
        """m, 3^-|m| and the three components c[m] without the closed form; None is 0."""
        waves = haar(self.nodes)
        for m in MODES:
            slopes: Vector = []
            for axis in range(3):
                slopes.append(None if m[axis] else self._slope(waves, m, axis))
            components = self._conducted(slopes)
            for axis in range(3):
                own = self._own(m, axis)
                if own is not None:
                    there = components[axis]
                    components[axis] = own if there is None else there + own
            yield m, 3.0 ** -sum(m), components
        for axis in range(3 if self.slopes else 0):
            bend = self._bend(axis)
            components = [None, None, None]
            components[axis] = None if bend is None else -bend
            yield (2 * (axis == 0), 2 * (axis == 1), 2 * (axis == 2)), 0.2, components

    def _bend(self, axis: int) -> Tensor | None:
        """The part of component `axis` that is 1 - P_2 along the axis, from the slopes."""
        total = None
        for a in range(3):
            if (a, axis) in self.slopes:
                low, high = self.slopes[a, axis]
                part = (high - low) * (self.body.spacing[axis] / (6 * self.body.spacing[a]))
                total = part if total is None else total + part
        return total

    def _slope(self, waves: dict[Mode, Tensor], m: Mode, axis: int) -> Tensor:
        """d_axis w in mode m, V/m."""
        up = list(m)
        up[axis] = 1
        return waves[(up[0], up[1], up[2])] * (2 / self.body.spacing[axis])

    def _own(self, m: Mode, axis: int) -> Tensor | None:
        """Component of the Raviart-Thomas part in mode m."""
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

    def at(self, voxels: Int[Tensor, "n 3"], xi: Float[Tensor, "n P 3"]) -> Float[Tensor, "n P 3"]:
        """The whole of it at places xi in [0, 1]^3 of voxels."""
        d, h, w = voxels.unbind(dim=1)
        q = torch.empty_like(xi)
        for axis in range(3):
            low, high = (side[axis][d, h, w][:, None] for side in (self.low, self.high))
            q[..., axis] = low + (high - low) * xi[..., axis]
        for (a, b), sides in self.slopes.items():
            low, high = (side[d, h, w][:, None] for side in sides)
            X_a, X_b = 2 * xi[..., a] - 1, 2 * xi[..., b] - 1
            q[..., a] += X_b * (low + high + X_a * (high - low)) / 2
            share = self.body.spacing[b] / (4 * self.body.spacing[a])
            q[..., b] += (high - low) * share * (1 - X_b**2)
        sigma = matrix(self.body.at(voxels))
        slope = gradient(self.nodes, voxels, xi, self.body.spacing)
        q = q + self.sign * torch.einsum("nab,npb->npa", sigma, slope)
        points = (voxels[:, None] + xi) * self.body.spacing
        for form in self.closed:
            inside = form.inside(voxels)
            if bool(inside.any()):
                q[inside] += self._of(form, voxels[inside], xi[inside], points[inside])
        for correction in self.corrections:
            q += correction.at(voxels, xi)
        return q

    def _of(self, form: ClosedForm, voxels: Tensor, xi: Tensor, points: Tensor) -> Tensor:
        """chi J_s + sign sigma grad(theta phi_s)
        = (chi - sign theta sigma sigma_inf^-1) J_s + sign sigma phi_s grad theta, chi 1 in G."""
        sigma = matrix(self.body.at(voxels))
        theta, slope = form.theta(voxels, xi)
        ratio = sigma @ form.inverse
        same = self.same(form, voxels)
        ratio[same] = torch.eye(3, dtype=ratio.dtype)
        J = form.current_at(points)
        carried = form.carries(voxels)[:, None, None] * J
        rest = carried - self.sign * theta[..., None] * torch.einsum("nab,npb->npa", ratio, J)
        rest = torch.where((same[:, None] & (theta == 1) & (self.sign == 1))[..., None], 0.0, rest)
        phi = form.potential_at(points)
        return rest + self.sign * torch.einsum("nab,npb->npa", sigma, slope * phi[..., None])

    def same(self, form: ClosedForm, voxels: Int[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Whether voxels are of the medium of the closed form."""
        here = matrix(self.body.at(voxels))
        return (here == matrix(form.sigma_inf)).all(dim=-1).all(dim=-1)

    @cached_property
    def mixed(self) -> Int[Tensor, "n 3"]:
        """Voxels in which the closed form does not cancel: those of quadrature."""
        marked = torch.zeros(self.body.shape, dtype=torch.bool)
        for form in self.closed:
            voxels = _in_tissue(self.body, form.voxels)
            plain = form.whole(voxels) & self.same(form, voxels) & (self.sign == 1)
            d, h, w = voxels[~plain].unbind(dim=1)
            marked[d, h, w] = True
        for correction in self.corrections:
            marked |= correction.marked
        return marked.nonzero()

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

    def at_ends(
        self, end: int, voxels: Int[Tensor, "n 3"], xi: Float[Tensor, "n P 3"]
    ) -> Float[Tensor, "n P"]:
        """q . n - sign gamma v, the closed form with it, at places on the end."""
        d, h, w = voxels.unbind(dim=1)
        outward, side = (-1.0, self.low[0]) if end == 0 else (1.0, self.high[0])
        gamma = self.body.exchange * self.body.diagonal[0][d, h, w][:, None]
        v = trilinear(self.nodes, voxels, xi)
        value = outward * side[d, h, w][:, None].expand_as(v)
        for b in (1, 2):
            if self.slopes:
                S = self.slopes[0, b][end != 0][d, h, w][:, None]
                value = value + outward * S * (2 * xi[..., b] - 1)
        points = (voxels[:, None] + xi) * self.body.spacing
        for form in self.closed:
            carries = form.carries(voxels)[:, None]
            J = form.current_at(points)[..., 0]
            value = value + torch.where(carries, outward * J, 0.0)
            v = v + form.theta(voxels, xi)[0] * form.potential_at(points)
        return value - self.sign * gamma * v


def inner(body: Body, one: Flux, other: Flux) -> tuple[Float[Tensor, "D H W"], float]:
    """int one . sigma^-1 other in every voxel, W, those of robin ends in the voxels beside them;
    and by how much a coarser quadrature changes their sum, W."""
    out = torch.zeros(body.shape, dtype=torch.float64)
    size = max(1, SLAB // (body.shape[1] * body.shape[2]))
    for start in range(0, body.shape[0], size):
        planes = slice(start, min(start + size, body.shape[0]))
        part = one.slab(planes)
        out[planes] = _of_slab(part, part if other is one else other.slab(planes))
    doubt = _replace(out, body, one, other)
    if body.robin:
        doubt += _add_ends(out, body, one, other)
    return out * body.tissue, doubt


def _of_slab(one: Flux, other: Flux) -> Float[Tensor, "D H W"]:
    """The same by modes, in some planes."""
    body = one.body
    full = len(body.sigma) == 6
    pairs = AXES if full else AXES[:3]
    sums: list[Tensor | float] = [0.0] * len(pairs)
    others = {} if other is one else {m: components for m, _, components in other.modes()}
    for m, weight, p in one.modes():
        r = p if other is one else others.get(m)
        if r is None:
            continue
        for c, (a, b) in enumerate(pairs):
            for i, j in {(a, b), (b, a)}:
                left, right = p[i], r[j]
                if left is not None and right is not None:
                    sums[c] = sums[c] + weight * left * right
    total = torch.zeros(body.shape, dtype=torch.float64)
    for c, part in enumerate(sums):
        total += body.resistivity[min(c, len(body.sigma) - 1)] * part
    return total * body.volume


def _replace(out: Tensor, body: Body, one: Flux, other: Flux) -> float:
    """Put what quadrature says in the place of voxels in which a closed form is at work."""
    sums = []
    for orders in (rules.CHECK, rules.FINE):
        total = 0.0
        for voxels, xi, weights in quadrature_points(body, one, other, orders):
            p = one.at(voxels, xi)
            r = p if other is one else other.at(voxels, xi)
            inverse = torch.linalg.inv(matrix(body.at(voxels)))
            value = body.volume * ((p @ inverse * r).sum(dim=-1) * weights).sum(dim=1)
            d, h, w = voxels.unbind(dim=1)
            out[d, h, w] = value
            total += float(value.sum())
        sums.append(total)
    return abs(sums[1] - sums[0])


def quadrature_points(
    body: Body, one: Flux, other: Flux, orders: Orders
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Voxels, places and weights of quadrature: plain, and graded beside an electrode."""
    closed = [*one.closed, *other.closed]
    if not closed:
        return []
    voxels = torch.unique(torch.cat([one.mixed, other.mixed]), dim=0)
    places = [place for form in closed for place in form.places]
    points = box_points(places, voxels, body.spacing, orders)
    return [(voxels[rows], xi, weights) for rows, xi, weights in points]


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
        sums = []
        for orders in (rules.CHECK, rules.FINE):
            at_points = 0.0
            points = points_on_end(body, [*one.closed, *other.closed], end, orders)
            for voxels, xi, weights in points:
                p, r = one.at_ends(end, voxels, xi), other.at_ends(end, voxels, xi)
                _, h, w = voxels.unbind(dim=1)
                value = area * (p * r * weights).sum(dim=1) / gamma[h, w]
                total[h, w] = value
                at_points += float(value.sum())
            sums.append(at_points)
        doubt += abs(sums[1] - sums[0])
        out[end] += total * tissue
    return doubt


def points_on_end(
    body: Body, closed: list[ClosedForm], end: int, orders: Orders
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Voxels, places and weights on an end where a closed form is at work."""
    plane = 0 if end == 0 else body.shape[0] - 1
    each = [_in_tissue(body, form.voxels) for form in closed]
    voxels = torch.unique(torch.cat(each), dim=0) if each else torch.zeros(0, 3).long()
    voxels = voxels[voxels[:, 0] == plane]
    if not len(voxels):
        return []
    places = [place for form in closed for place in form.places]
    out = []
    across = torch.tensor([1, 2]).expand(len(voxels), 2)
    for rows, flat, weights in face_points(places, voxels, across, body.spacing, orders):
        normal = torch.full_like(flat[..., :1], 0.0 if end == 0 else 1.0)
        out.append((voxels[rows], torch.cat([normal, flat], dim=-1), weights))
    return out
