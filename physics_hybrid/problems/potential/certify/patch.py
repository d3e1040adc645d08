"""The mean potential of an electrode: over voxels, or over the skin of voxels."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.flux import Flux
from physics_hybrid.problems.potential.certify.graded import across
from physics_hybrid.problems.potential.certify.rules import Points
from physics_hybrid.problems.potential.physics.conductor import Faces as FaceValues

#: Where an electrode may lie.
PLACES = ("skin", "voxels")


@dataclass(frozen=True)
class Functional:
    """L(v) = int rho v dV + int over skin of tau v dS.

    rho : 1/m^3, in tissue. tau : 1/m^2 on the faces normal to each axis, positive on skin.
    """

    body: Body
    rho: Float[Tensor, "D H W"]
    tau: FaceValues

    @classmethod
    def of(
        cls,
        body: Body,
        patches: list[Bool[Tensor, "D H W"]],
        on: str,
        steps: list[Float[Tensor, " n"]] | None = None,
    ) -> "Functional":
        """The mean over the first patch, less that over the second one; where nothing fixes a
        constant and there is one only, less that over all tissue.

        steps : of a `Graded` body, true lengths of its voxels along each axis in theirs; by them
        voxels and faces have weight.

        Raises
        ------
        ValueError
            For another `on`; a patch without skin.
        """
        if on not in PLACES:
            raise ValueError(f"a patch lies on one of {PLACES}; got {on!r}")
        rho = torch.zeros(body.shape, dtype=torch.float64)
        tau = [torch.zeros(_faces(body, axis), dtype=torch.float64) for axis in range(3)]
        if steps is None:
            steps = [torch.ones(n, dtype=torch.float64) for n in body.shape]
        d, h, w = across(steps)
        size, faces = body.volume * (d * h * w), (h * w, d * w, d * h)
        for patch, sign in zip(patches, (1.0, -1.0), strict=False):
            if on == "voxels":
                rho = rho + sign * _shares(patch, size) / body.volume
                continue
            skin = [_skin(body, patch, axis) * faces[axis] for axis in range(3)]
            areas = [body.volume / float(h) for h in body.spacing]
            area = sum(float(s.sum()) * a for s, a in zip(skin, areas, strict=True))
            if area == 0:
                raise ValueError("a patch on skin needs voxels with faces to air; it has none")
            tau = [t + sign * s / area for t, s in zip(tau, skin, strict=True)]
        if body.ends.floating and len(patches) == 1:
            rho = rho - _shares(body.tissue, size) / body.volume
        return cls(body, rho, (tau[0], tau[1], tau[2]))

    @property
    def density(self) -> Float[Tensor, "1 D H W"]:
        """The same as a current density in voxels, for finite volumes: A/m^3 of 1 A."""
        total = self.rho.clone()
        for axis, tau in enumerate(self.tau):
            n = self.body.shape[axis]
            both = tau.narrow(axis, 0, n) + tau.narrow(axis, 1, n)
            # what is on a face of skin belongs to the one voxel of tissue behind it
            total += both * self.body.tissue / self.body.spacing[axis]
        return total[None]

    @property
    def inflow(self) -> FaceValues:
        """tau as a current through skin, along the axes, A/m^2. (1, D+1, H, W) and so on"""
        out = []
        for axis, tau in enumerate(self.tau):
            n = self.body.shape[axis]
            shape = list(self.body.shape)
            shape[axis] += 1
            above = torch.zeros(shape, dtype=torch.bool)
            above.narrow(axis, 0, n).copy_(self.body.tissue)
            out.append(torch.where(above, tau, -tau)[None])
        return out[0], out[1], out[2]

    def __call__(self, flux: Flux) -> tuple[float, float]:
        """L of the potential v of a flux, V; and by how much a coarser quadrature changes it."""
        total = float((self.rho * _means(flux.nodes, None)).sum()) * self.body.volume
        for along, c in enumerate(flux.edges or []):
            bent = 2 / 3 * _means(c, None, along)  # the mean of 1 - X^2
            total += float((self.rho * bent).sum()) * self.body.volume
        for axis, tau in enumerate(self.tau):
            area = self.body.volume / float(self.body.spacing[axis])
            total += area * float((tau * _means(flux.nodes, axis)).sum())
            for along, c in enumerate(flux.edges or []):
                if along != axis:
                    bent = 2 / 3 * _means(c, axis, along)
                    total += area * float((tau * bent).sum())
        fine, coarse = (self._singular(flux, orders) for orders in (rules.FINE, rules.CHECK))
        return total + fine, abs(fine - coarse)

    def _singular(self, flux: Flux, orders: rules.Orders) -> float:
        """L of the closed forms, V."""
        body, total = self.body, 0.0
        for form in flux.closed:
            voxels = form.voxels
            used = voxels[self.rho[voxels.unbind(dim=1)] != 0]
            points = rules.box_points(form.places, used, body.spacing, orders)
            total += body.volume * _integral(form, points, self.rho)
            for axis, tau in enumerate(self.tau):
                n, area = body.shape[axis], body.volume / float(body.spacing[axis])
                for side in (0, 1):
                    weight = tau.narrow(axis, side, n) * body.tissue
                    used = voxels[weight[voxels.unbind(dim=1)] != 0]
                    points = rules.face_points(form.places, used, axis, side, body.spacing, orders)
                    total += area * _integral(form, points, weight)
        return total


def _integral(form: ClosedForm, points: list[Points], weight: Tensor) -> float:
    """Sum over voxels or faces of weight times the mean of theta phi_s."""
    total = 0.0
    for some in points:
        value = form.theta(some)[0] * form.at(some)[0]
        total += float((weight[some.voxels.unbind(dim=1)] * some.mean(value)).sum())
    return total


def _shares(voxels: Bool[Tensor, "D H W"], size: Tensor) -> Float[Tensor, "D H W"]:
    """Of the size of some voxels, what each has."""
    own = voxels * size
    return own / own.sum()


def _faces(body: Body, axis: int) -> list[int]:
    """The grid of faces normal to an axis."""
    shape = list(body.shape)
    shape[axis] += 1
    return shape


def _skin(body: Body, patch: Tensor, axis: int) -> Float[Tensor, "_ _ _"]:
    """1 on faces normal to an axis between marked tissue and air, the outside being air but for
    ends that conduct."""
    n = body.shape[axis]
    padded = torch.zeros(_padded(body, axis), dtype=torch.bool)
    marked = padded.clone()
    padded.narrow(axis, 1, n).copy_(body.tissue)
    marked.narrow(axis, 1, n).copy_(patch & body.tissue)
    below, above = (padded.narrow(axis, i, n + 1) for i in (0, 1))
    one, other = (marked.narrow(axis, i, n + 1) for i in (0, 1))
    skin = (one & ~above) | (other & ~below)
    if axis == 0 and not body.ends.floating:
        skin[[0, -1]] = False
    return skin.double()


def _padded(body: Body, axis: int) -> list[int]:
    """The grid with a layer more on both sides along an axis."""
    shape = list(body.shape)
    shape[axis] += 2
    return shape


def _means(values: Tensor, *but: int | None) -> Tensor:
    """Mean over every voxel, or over every face normal to an axis, of what is linear between values
    along all axes but these."""
    for axis in range(3):
        if axis not in but:
            n = values.shape[axis] - 1
            values = (values.narrow(axis, 0, n) + values.narrow(axis, 1, n)) / 2
    return values
