r"""A current that conserves charge exactly: div q = f, nothing through the skin.

Finite volumes give the currents of any field phi on the faces (`Subtraction.current_density`).
What they lose or invent, f - div J, is first brought down by conjugate gradients where the field is
no solution (a network, a coarse grid), and the rest is carried off along tissue (`repair`), to
rounding. The energy of that last part is reported: it is the share of the solver's tolerance.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import Body, reciprocal
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.repair import Runs
from physics_hybrid.problems.potential.physics.conductor import Faces
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.krylov import conjugate_gradients
from physics_hybrid.problems.potential.physics.multipoint import (
    MultipointOperator,
    Operator,
    operator_of,
)
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

#: A field whose residual is below this share of the right-hand side is a solution: its currents are
#: repaired as they are. Others are corrected until it is.
SOLVED = 1e-6


@dataclass(frozen=True)
class Drive:
    """What drives a current: div J of a solution, A/m^3. size : of it, A/m^3; flow : A; to tell
    what is rounding beside them."""

    injected: Float[Tensor, "1 D H W"]
    size: float
    flow: float

    @classmethod
    def of(cls, known: Subtraction, volume: float) -> "Drive":
        """As finite volumes know it; voxels of a volume, m^3."""
        # a pair in one voxel injects nothing, but drives a current
        both = (known.rhs, known.injected)
        size = max(float(torch.linalg.vector_norm(f)) for f in both)
        flow = max(float(torch.linalg.vector_norm(f, ord=1)) for f in both)
        return cls(known.injected, size, flow * volume)

    @classmethod
    def of_points(cls, body: Body, closed: list[ClosedForm]) -> "Drive":
        """Of electrodes: I / V in their voxels, less what leaves evenly."""
        injected = torch.zeros(1, *body.shape, dtype=torch.float64)
        currents = [float(form.charges[0].current[0]) for form in closed]
        if body.ends.kind == "sink":
            evenly = sum(currents) / (int(body.tissue.sum()) * body.volume)
            injected[0][body.tissue] = -evenly
        for form, current in zip(closed, currents, strict=True):
            injected[(0, *form.voxel)] += current / body.volume
        flow = sum(abs(current) for current in currents)
        return cls(injected, flow / body.volume, flow)


@dataclass(frozen=True)
class Currents:
    """The finite volumes of one body, kept for many fields and sources."""

    body: Body
    operator: Operator
    preconditioner: FluxOperator | None
    runs: Runs

    @classmethod
    def of(cls, body: Body) -> "Currents":
        """
        Raises
        ------
        ValueError
            Where tissue does not reach an end that should carry the current away.
        """
        conductor = body.conductor
        operator, preconditioner = operator_of(conductor), None
        if isinstance(operator, MultipointOperator):
            diagonal = Body(body.sigma[:3], body.spacing, body.ends).conductor
            preconditioner = FluxOperator.of(diagonal)
        runs = Runs.of(body.tissue.numpy(), not body.ends.floating)
        return cls(body, operator, preconditioner, runs)

    def of_field(self, known: Subtraction, phi: Float[Tensor, "D H W"]) -> Faces:
        """J of a field as it is, A/m^2; none through the skin. (1, D+1, H, W) and so on"""
        return self._closed(known.current_density(self.operator, phi[None]))

    def of_points(
        self, operator: FluxOperator, closed: list[ClosedForm], phi: Float[Tensor, "D H W"]
    ) -> Faces:
        """The same of electrodes, in fewer passes than by `Subtraction`: between voxels

        J = sigma_h / h (h sum of J_s / sigma_inf - step of (phi - sum of phi_s)).
        """
        parts = [form.everywhere() for form in closed]
        rest = phi
        for there, _, _ in parts:
            rest = rest - there
        faces = []
        for axis, n in enumerate(self.body.shape):
            h, k = float(self.body.spacing[axis]), operator.conductance[axis][0]
            J = torch.zeros_like(k)
            inner = J.narrow(axis, 1, n - 1)
            torch.sub(rest.narrow(axis, 0, n - 1), rest.narrow(axis, 1, n - 1), out=inner)
            media = [float(form.sigma_inf[0, :3].expand(3)[axis]) for form in closed]
            for (_, _, Phi), sigma in zip(parts, media, strict=True):
                inner.add_(Phi[axis][0].narrow(axis, 1, n - 1), alpha=h / sigma)
            if axis == 0 and not self.body.ends.floating:
                for end, outward in ((0, -1), (-1, 1)):
                    J[end] = outward * phi[end]
                    for (near, at_end, Phi), sigma in zip(parts, media, strict=True):
                        J[end] += outward * (at_end[end] - near[end])
                        J[end] += Phi[0][0, end] * (h / (2 * sigma))
            faces.append(J.mul_(k).mul_(h)[None])
        return faces[0], faces[1], faces[2]

    def conserved(self, drive: Drive, J: Faces) -> tuple[Faces, float]:
        """q, A/m^2, and the energy norm of what was repaired, W^(1/2)."""
        lost = self._lost(drive, J)
        size = max(drive.size, np.finfo(float).tiny)
        relative = float(torch.linalg.vector_norm(lost)) / size
        if relative > SOLVED:
            rest = conjugate_gradients(
                self.operator, lost, SOLVED / relative, 200, self.preconditioner
            )
            J = self._closed(added(J, self.operator.current_density(rest.phi)))
            lost = self._lost(drive, J)
        carried = self.runs.carry((lost[0] * self.body.volume).numpy(), drive.flow)
        needed = carried[:1] if self.runs.straight else carried
        areas = [self.body.volume / float(h) for h in self.body.spacing]
        c, q = [], list(J)
        for axis, amperes in enumerate(needed):
            c.append(torch.from_numpy(amperes) / areas[axis])
            q[axis] = q[axis] + c[-1]
        return (q[0], q[1], q[2]), self._energy(c)

    def _lost(self, drive: Drive, J: Faces) -> Float[Tensor, "1 D H W"]:
        """f - div J, A/m^3; 0 in air, where no current flows."""
        return drive.injected - self.operator.divergence(J)

    def _closed(self, J: Faces) -> Faces:
        """J with nothing through the skin: there it is rounding."""
        tissue, faces = self.body.tissue[None], []
        for axis, values in enumerate(J):
            n = self.body.shape[axis]
            low, high = tissue.narrow(axis + 1, 0, n - 1), tissue.narrow(axis + 1, 1, n - 1)
            open_face = torch.zeros_like(values, dtype=torch.bool)
            open_face.narrow(axis + 1, 1, n - 1).copy_(low & high)
            if axis == 0 and not self.body.ends.floating:
                open_face[:, 0], open_face[:, -1] = tissue[:, 0], tissue[:, -1]
            faces.append(values * open_face)
        return faces[0], faces[1], faces[2]

    def _energy(self, c: list[Tensor]) -> float:
        """|sigma^-1/2 c| of a Raviart-Thomas field, along one or more axes, at most:
        W^(1/2)."""
        total = 0.0
        for axis, values in enumerate(c):
            mean = mean_square(*sides(values, axis))
            total += self.body.volume * float(mean.mul_(self._most(axis)).sum())
        return math.sqrt(total)

    def _most(self, axis: int) -> Float[Tensor, "D H W"]:
        """What a current along an axis meets at most, ohm m."""
        if len(self.body.sigma) < 6:
            return self.body.resistivity[min(axis, len(self.body.sigma) - 1)]
        return reciprocal(self.body.diagonal[axis] * self.body.stiffest)


def mean_square(
    below: Float[Tensor, "D H W"], above: Float[Tensor, "D H W"]
) -> Float[Tensor, "D H W"]:
    """Of what is linear between two faces of every voxel."""
    return (below * below).addcmul_(below, above).addcmul_(above, above).div_(3)


def sides(face: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Values on the faces below and above every voxel along an axis of (D, H, W)."""
    n = face.shape[axis] - 1
    return face.narrow(axis, 0, n), face.narrow(axis, 1, n)


def added(J: Faces, more: Faces) -> Faces:
    """The sum of two currents."""
    return J[0] + more[0], J[1] + more[1], J[2] + more[2]
