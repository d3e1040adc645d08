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

from physics_hybrid.problems.potential.certify.body import Body
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

    def conserved(self, known: Subtraction, J: Faces) -> tuple[Faces, float]:
        """q, A/m^2, and the energy norm of what was repaired, W^(1/2)."""
        lost = self._lost(known, J)
        size = max(float(torch.linalg.vector_norm(f)) for f in (known.rhs, known.injected))
        relative = float(torch.linalg.vector_norm(lost)) / max(size, np.finfo(float).tiny)
        if relative > SOLVED:
            rest = conjugate_gradients(
                self.operator, lost, SOLVED / relative, 200, self.preconditioner
            )
            J = self._closed(added(J, self.operator.current_density(rest.phi)))
            lost = self._lost(known, J)
        # a pair in one voxel injects nothing, but drives a current
        flows = (torch.linalg.vector_norm(f, ord=1) for f in (known.injected, known.rhs))
        current = max(float(flow) for flow in flows) * self.body.volume
        carried = self.runs.carry((lost[0] * self.body.volume).numpy(), current)
        areas = [self.body.volume / float(h) for h in self.body.spacing]
        c: list[Tensor | None] = [
            torch.from_numpy(amperes)[None] / area if amperes.any() else None
            for amperes, area in zip(carried, areas, strict=True)
        ]
        d, h, w = (face if more is None else face + more for face, more in zip(J, c, strict=True))
        return (d, h, w), self._energy(c)

    def _lost(self, known: Subtraction, J: Faces) -> Float[Tensor, "1 D H W"]:
        """f - div J, A/m^3."""
        return (known.injected - self.operator.divergence(J)) * self.body.tissue

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

    def _energy(self, c: list[Tensor | None]) -> float:
        """|sigma^-1/2 c| of a Raviart-Thomas field, at most: W^(1/2). What is None is 0."""
        total = 0.0
        for axis, values in enumerate(c):
            if values is None:
                continue
            low, high = sides(values[0], axis)
            mean = (low**2 + low * high + high**2) / 3
            sigma = self.body.diagonal[axis] * self.body.stiffest
            share = torch.where(self.body.tissue, mean / torch.where(sigma > 0, sigma, 1.0), 0.0)
            total += self.body.volume * float(share.sum())
        return math.sqrt(total)


def sides(face: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Values on the faces below and above every voxel along an axis of (D, H, W)."""
    n = face.shape[axis] - 1
    return face.narrow(axis, 0, n), face.narrow(axis, 1, n)


def added(J: Faces, more: Faces) -> Faces:
    """The sum of two currents."""
    return J[0] + more[0], J[1] + more[1], J[2] + more[2]
