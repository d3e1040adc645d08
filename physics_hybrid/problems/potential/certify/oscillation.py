r"""What the closed form does on faces that a Raviart-Thomas field cannot follow.

On a face F of G that is skin, or behind which G ends, q . n differs from what it should be by
g = J_s . n - (its mean over F). In the voxel K of G behind it, of sides h_1 along the normal and
h_2, h_3 across it, let g = sum g_kl cos(k pi y / h_2) cos(l pi z / h_3). The current

    c = -sigma grad psi,
    psi = sum g_kl cos(k pi y / h_2) cos(l pi z / h_3) cosh(kappa t) / (sigma_1 kappa sinh(kappa h_1)),
    sigma_1 kappa^2 = sigma_2 (k pi / h_2)^2 + sigma_3 (l pi / h_3)^2,

t from the opposite face, has no divergence, takes g in through F and lets nothing through the five
other faces: q + c has what q lacks. It is added for k, l < `WAVES`; of the rest, g_r, no more is
needed than, for functions w on the voxel K on one side of F,

    |int_F g_r w dS| <= C |g_r|_F |sigma^(1/2) grad w|_K,    C^2 = coth(kappa h_1) / (mu sigma_1 kappa)

with the least kappa of what is left, and mu as in `Body.stiffest`. There is no smaller C: that is
the least energy of a current that enters as one such wave and leaves nowhere else.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.rules import Orders, face_points
from physics_hybrid.problems.potential.certify.shapes import trilinear

#: Waves along each side of a face that are corrected.
WAVES = 3

#: Where g was sampled, for its integrals: voxels, places in them, and weights times g, A.
Points = list[tuple[Int[Tensor, "n 3"], Float[Tensor, "n P 3"], Float[Tensor, "n P"]]]


#: Voxels, places in them, weights and g, A/m^2.
Samples = list[tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Correction:
    """c on the faces of one direction of the voxels of one G.

    axis, side : the faces below (side 0) or above (1) along an axis. number : (D, H, W), which row a
    voxel has, or -1. waves : g_kl, A/m^2, (n, WAVES, WAVES). sigma : (n, 3), S/m.
    """

    axis: int
    side: int
    number: Int[Tensor, "D H W"]
    waves: Float[Tensor, "n k l"]
    sigma: Float[Tensor, "n 3"]
    spacing: Float[Tensor, " 3"]

    def marked(self) -> Int[Tensor, "n 3"]:
        """The voxels in which it is not 0."""
        return (self.number >= 0).nonzero()

    def at(self, voxels: Int[Tensor, "n 3"], xi: Float[Tensor, "n P 3"]) -> Float[Tensor, "n P 3"]:
        """c at places of voxels, A/m^2; 0 in voxels that have none."""
        d, h, w = voxels.unbind(dim=1)
        row = self.number[d, h, w]
        out = torch.zeros_like(xi)
        here = row >= 0
        if bool(here.any()):
            out[here] = self._of(row[here], xi[here])
        return out

    def _of(self, row: Tensor, xi: Tensor) -> Tensor:
        """c in some of its voxels."""
        u, v = (a for a in range(3) if a != self.axis)
        t = (xi[..., self.axis] if self.side else 1 - xi[..., self.axis])[..., None, None]
        kappa = _kappa(self.sigma[row], self.spacing, self.axis)[:, None]
        length = kappa * self.spacing[self.axis]
        near, far = torch.exp(-length * (1 - t)), torch.exp(-length * (1 + t))
        whole = 1 - torch.exp(-2 * length)
        sinh, cosh = (near - far) / whole, (near + far) / whole  # over sinh(kappa h)
        waves = self.waves[row][:, None]
        k = torch.arange(WAVES, dtype=torch.float64)
        cos_u, sin_u = (f(torch.pi * k * xi[..., u, None]) for f in (torch.cos, torch.sin))
        cos_v, sin_v = (f(torch.pi * k * xi[..., v, None]) for f in (torch.cos, torch.sin))
        first = self.sigma[row, self.axis][:, None, None, None]
        psi = waves * cosh / (first * kappa)
        out = torch.zeros_like(xi)
        outward = 2 * self.side - 1
        out[..., self.axis] = -outward * torch.einsum(
            "npkl,npk,npl->np", waves * sinh, cos_u, cos_v
        )
        along_u = torch.einsum("npkl,npk,npl->np", psi, sin_u * k, cos_v)
        along_v = torch.einsum("npkl,npk,npl->np", psi, cos_u, sin_v * k)
        for axis, along in ((u, along_u), (v, along_v)):
            out[..., axis] = self.sigma[row, axis][:, None] * along * torch.pi / self.spacing[axis]
        return out


def _kappa(sigma: Float[Tensor, "n 3"], spacing: Float[Tensor, " 3"], axis: int) -> Tensor:
    """kappa of every wave, 1/m; 1 for the constant, which no g has. (n, WAVES, WAVES)"""
    u, v = (a for a in range(3) if a != axis)
    k = torch.arange(WAVES, dtype=torch.float64)
    across = (sigma[:, u] / sigma[:, axis])[:, None] * (torch.pi * k / spacing[u]) ** 2
    along = (sigma[:, v] / sigma[:, axis])[:, None] * (torch.pi * k / spacing[v]) ** 2
    square = across[:, :, None] + along[:, None, :]
    return torch.where(square > 0, square, spacing[axis] ** -2).sqrt()


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
        for form in closed:
            means = form.through_faces
            for axis in range(3):
                for side in (0, 1):
                    voxels = _loose_faces(body, form, axis, side)
                    if not len(voxels):
                        continue
                    faces = _Faces(body, form, means[axis][0], voxels, axis, side)
                    fine, coarse = faces.sampled(rules.FINE), faces.sampled(rules.CHECK)
                    correction = faces.correction(fine)
                    corrections.append(correction)
                    points += faces.add(sizes, correction, fine)
                    check += faces.add(coarser, correction, coarse)
        return cls(corrections, sizes + (sizes - coarser).abs(), points, check)

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


def _loose_faces(body: Body, form: ClosedForm, axis: int, side: int) -> Int[Tensor, "n 3"]:
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


@dataclass(frozen=True)
class _Faces:
    """Loose faces of one direction. means : of J_s along the axis, on all faces."""

    body: Body
    form: ClosedForm
    means: Tensor
    voxels: Tensor
    axis: int
    side: int

    def sampled(self, orders: Orders) -> Samples:
        """Voxels, places, weights and g, A/m^2."""
        out = []
        outward = 2 * self.side - 1
        points = face_points(
            self.form.places, self.voxels, self.axis, float(self.side), self.body.spacing, orders
        )
        for some, xi, weights in points:
            face = list(some.unbind(dim=1))
            face[self.axis] = face[self.axis] + self.side
            places = (some[:, None] + xi) * self.body.spacing
            J = self.form.current_at(places)[..., self.axis]
            g = outward * (J - self.means[face[0], face[1], face[2]][:, None])
            out.append((some, xi, weights, g))
        return out

    def correction(self, samples: Samples) -> Correction:
        """The first waves of g."""
        d, h, w = self.voxels.unbind(dim=1)
        number = torch.full(self.body.shape, -1, dtype=torch.long)
        number[d, h, w] = torch.arange(len(self.voxels))
        waves = torch.zeros(len(self.voxels), WAVES, WAVES, dtype=torch.float64)
        for some, xi, weights, g in samples:
            d, h, w = some.unbind(dim=1)
            cos_u, cos_v = self._cosines(xi)
            size = torch.full((WAVES,), 2.0, dtype=torch.float64)
            size[0] = 1.0
            found = torch.einsum("np,npk,npl->nkl", weights * g, cos_u, cos_v)
            waves[number[d, h, w]] = found * size[:, None] * size
        waves[:, 0, 0] = 0.0
        d, h, w = self.voxels.unbind(dim=1)
        sigma = torch.stack([one[d, h, w] for one in self.body.diagonal], dim=1)
        return Correction(self.axis, self.side, number, waves, sigma, self.body.spacing)

    def _cosines(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """cos(k pi y / h_2) and cos(l pi z / h_3) at places on the faces."""
        u, v = (a for a in range(3) if a != self.axis)
        k = torch.arange(WAVES, dtype=torch.float64)
        return torch.cos(torch.pi * k * xi[..., u, None]), torch.cos(
            torch.pi * k * xi[..., v, None]
        )

    def add(self, sizes: Tensor, correction: Correction, samples: Samples) -> Points:
        """Add C |g_r|_F to the voxels that answer for the faces; and the points of g_r."""
        area = self.body.volume / float(self.body.spacing[self.axis])
        points: Points = []
        for some, xi, weights, g in samples:
            d, h, w = some.unbind(dim=1)
            waves = correction.waves[correction.number[d, h, w]]
            cos_u, cos_v = self._cosines(xi)
            rest = g - torch.einsum("nkl,npk,npl->np", waves, cos_u, cos_v)
            norm = (area * (rest**2 * weights).sum(dim=1)).sqrt()
            owner = self._owners(some)
            size = norm * trace_constant(self.body, owner, self.axis, WAVES)
            sizes.index_put_(owner.unbind(dim=1), size, accumulate=True)
            points.append((some, xi, area * rest * weights))
        return points

    def _owners(self, voxels: Tensor) -> Tensor:
        """The better conductor of the two voxels on a face."""
        beside = voxels.clone()
        beside[:, self.axis] += 2 * self.side - 1
        n = self.body.shape[self.axis]
        inside = (beside[:, self.axis] >= 0) & (beside[:, self.axis] < n)
        beside = torch.where(inside[:, None], beside, voxels)
        mine, theirs = (self.body.mean[v.unbind(dim=1)] for v in (voxels, beside))
        return torch.where((theirs > mine)[:, None], beside, voxels)


def trace_constant(
    body: Body, voxels: Int[Tensor, "n 3"], axis: int, wave: int = 1
) -> Float[Tensor, " n"]:
    """C of the faces of voxels normal to an axis for waves from `wave` on, m^(1/2) (S/m)^(-1/2)."""
    d, h, w = voxels.unbind(dim=1)
    sigma = [one[d, h, w] for one in body.diagonal]
    u, v = (a for a in range(3) if a != axis)
    kappa = (wave * torch.pi) * torch.minimum(
        (sigma[u] / sigma[axis]).sqrt() / body.spacing[u],
        (sigma[v] / sigma[axis]).sqrt() / body.spacing[v],
    )
    square = 1 / (torch.tanh(kappa * body.spacing[axis]) * sigma[axis] * kappa)
    return (square / body.stiffest[d, h, w]).sqrt()
