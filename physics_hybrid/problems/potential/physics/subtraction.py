r"""Singularity subtraction: the closed form of the electrodes, and what remains to be solved.

A point source on a lattice is wrong by 8 to 12 % for several voxels. So phi = phi_inf + phi_c with
phi_inf the closed form in the medium at the source, sigma_inf, whose current through every face,
Phi, is known exactly (`point_source.face_current_density`). With the known part of the current

    S = (sigma_h / sigma_inf - 1) Phi

(+ sigma phi_inf / (h/2 + 1/beta) outward on an end; there sigma_h is sigma / (1 + 2 / (beta h)))
the smooth rest obeys

    A phi_c = -div S,        J = S + Phi - sigma_h grad phi_c

S vanishes round the source. Where the current leaves evenly (ends: sink), I over the volume of all
tissue is taken from the right-hand side; for a pair both electrodes are subtracted, and of an
electrode close to a grounded end its mirror image, too (`image`). The same idea for finite
elements: Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24, eq. 3.6.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.grid import Grid, per_sample
from physics_hybrid.problems.potential.physics.conductor import (
    Conductor,
    Faces,
    face_positions,
    offsets_from,
)
from physics_hybrid.problems.potential.physics.electrodes import PointSource, nodal_source
from physics_hybrid.problems.potential.physics.image import with_image
from physics_hybrid.problems.potential.physics.multipoint import Operator
from physics_hybrid.problems.potential.physics.point_source import (
    face_current_density,
    infinite_medium,
    potential,
)


@dataclass(frozen=True)
class Subtraction:
    """What is known about the sources of a batch before anything is solved. One conductor may hold
    many sources: K sources, B = 1.

    phi_inf : Tensor (K, D, H, W)
        Closed-form part of the potential, volts; 0 in air.
    known : three face tensors
        S above, A/m^2.
    Phi : three face tensors
        Current density of phi_inf in its own medium, A/m^2. S + Phi is what it carries in the real
        conductor.
    injected : Tensor (K, D, H, W)
        div J of a solution, A/m^3: I / V in the voxel of an electrode, less what leaves evenly
        (ends: sink).
    rhs : Tensor (K, D, H, W)
        A phi_c = rhs, A/m^3; 0 in air.
    phi_end : Tensor (K, 2, H, W)
        phi_inf on the two cut faces, volts.
    """

    phi_inf: Float[Tensor, "K D H W"]
    known: Faces
    Phi: Faces
    injected: Float[Tensor, "K D H W"]
    rhs: Float[Tensor, "K D H W"]
    phi_end: Float[Tensor, "K 2 H W"]

    @classmethod
    def of(cls, conductor: Conductor, operator: Operator, source: PointSource) -> "Subtraction":
        """Point electrodes in closed form. sigma_inf is that of the voxel that holds the electrode:
        on an interface, of the better conductor (`Conductor.in_tissue`).

        Raises
        ------
        ValueError
            Where a source lies outside the grid, in air, or in tissue that does not conduct in
            every direction; or the second electrode of a pair is missing, or not asked for.
        """
        source = source.to(operator.spacing.dtype)
        injected = nodal_source(conductor, source)
        parts = [_closed_form(conductor, operator, electrode) for electrode in source.electrodes]
        phi_inf = _total([part.phi for part in parts]) * conductor.tissue
        known = _total_on_faces([part.known for part in parts])
        Phi = _total_on_faces([part.Phi for part in parts])
        evenly = _leaving_evenly(conductor, source.current)
        rhs = (-operator.divergence(known) - evenly) * conductor.tissue
        phi_end = _total([part.phi_end for part in parts])
        return cls(phi_inf, known, Phi, injected - evenly, rhs, phi_end)

    @classmethod
    def density(
        cls, conductor: Conductor, operator: Operator, density: Float[Tensor, "..."]
    ) -> "Subtraction":
        """Nothing in closed form: any current density (K, D, H, W) in A/m^3 on the grid, such as an
        electrode of many voxels.

        Raises
        ------
        ValueError
            Where the density is on another grid, or for another number of conductors; current is
            injected in air; the currents of a pair do not add up to zero.
        """
        bodies = len(conductor.sigma)
        if tuple(density.shape[1:]) != conductor.shape or bodies not in (1, len(density)):
            raise ValueError(
                f"a current density needs shape {(bodies, *conductor.shape)} in A/m^3; "
                f"got {tuple(density.shape)}"
            )
        density = density.to(operator.spacing.dtype)
        if bool((density * ~conductor.tissue).any()):
            raise ValueError(
                "the source lies partly in air (sigma = 0): no current can flow from it"
            )
        net, size = density.sum(dim=(1, 2, 3)), density.abs().sum(dim=(1, 2, 3))
        if conductor.ends.kind == "pair" and bool((net.abs() > 1e-4 * size).any()):
            raise ValueError(
                "ends=pair: the current that the second electrode takes out must equal "
                "what the first one brings in"
            )
        even = torch.zeros_like(net)
        if conductor.ends.floating:
            even = net / conductor.tissue.sum(dim=(1, 2, 3))
        injected = (density - per_sample(even)) * conductor.tissue
        count, (d, h, w) = len(density), operator.shape
        nothing = (
            density.new_zeros(count, d + 1, h, w),
            density.new_zeros(count, d, h + 1, w),
            density.new_zeros(count, d, h, w + 1),
        )
        none = torch.zeros_like(density)
        return cls(none, nothing, nothing, injected, injected, none[:, [0, -1]])

    def where(self, chosen: Bool[Tensor, " K"], other: "Subtraction") -> "Subtraction":
        """This one for the samples marked, the other one for the rest."""

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            """Values of the one or of the other, sample by sample."""
            return torch.where(per_sample(chosen), mine, theirs)

        def pick_faces(mine: Faces, theirs: Faces) -> Faces:
            """The same for values on faces."""
            return pick(mine[0], theirs[0]), pick(mine[1], theirs[1]), pick(mine[2], theirs[2])

        return Subtraction(
            phi_inf=pick(self.phi_inf, other.phi_inf),
            known=pick_faces(self.known, other.known),
            Phi=pick_faces(self.Phi, other.Phi),
            injected=pick(self.injected, other.injected),
            rhs=pick(self.rhs, other.rhs),
            phi_end=pick(self.phi_end, other.phi_end),
        )

    def to(self, dtype: torch.dtype) -> "Subtraction":
        """The same in another precision."""

        def faces(values: Faces) -> Faces:
            """Values on faces in that precision."""
            d, h, w = values
            return d.to(dtype), h.to(dtype), w.to(dtype)

        return Subtraction(
            phi_inf=self.phi_inf.to(dtype),
            known=faces(self.known),
            Phi=faces(self.Phi),
            injected=self.injected.to(dtype),
            rhs=self.rhs.to(dtype),
            phi_end=self.phi_end.to(dtype),
        )

    def current_density(self, operator: Operator, phi: Float[Tensor, "K D H W"]) -> Faces:
        """Total current density on the faces, A/m^2, of the potential phi in volts."""
        rest = operator.current_density(phi - self.phi_inf)
        return _total_on_faces([self.known, self.Phi, rest])

    def residual(
        self, operator: Operator, phi: Float[Tensor, "K D H W"]
    ) -> Float[Tensor, "K D H W"]:
        """A (phi - phi_inf) - rhs, A/m^3: zero where phi solves the discrete problem."""
        return operator(phi - self.phi_inf) - self.rhs


@dataclass(frozen=True)
class _ClosedForm:
    """One electrode for each sample, its mirror image included: phi_inf and its values on the ends
    (V), S and Phi (A/m^2)."""

    phi: Float[Tensor, "K D H W"]
    phi_end: Float[Tensor, "K 2 H W"]
    known: Faces
    Phi: Faces


def _closed_form(conductor: Conductor, operator: Operator, source: PointSource) -> _ClosedForm:
    """The closed form of one electrode for each sample, on the grid of the operator."""
    charges, sigma_inf = with_image(conductor, source)
    if bool((sigma_inf[:, :3] <= 0).any()):
        raise ValueError(
            "the electrode lies in tissue that does not conduct in every direction"
            f" ({sigma_inf.tolist()} S/m): no closed form belongs to it; singularity=nodal needs"
            " none"
        )
    spacing = operator.spacing.expand(len(source.point), 3)
    phi, phi_end, Phi = on_grid(operator.shape, spacing, charges, sigma_inf)
    return _ClosedForm(phi, phi_end, operator.known_current(Phi, phi_end, sigma_inf), Phi)


def on_grid(
    shape: Grid,
    spacing: Float[Tensor, "K 3"],
    charges: list[PointSource],
    sigma_inf: Float[Tensor, "K C"],
    arctan: Callable[[Tensor], Tensor] = torch.atan,
) -> tuple[Float[Tensor, "K D H W"], Float[Tensor, "K 2 H W"], Faces]:
    """The closed form of charges in one medium: phi_inf at the centres of voxels and on the two cut
    faces, V, and Phi, A/m^2. arctan : where nothing is differentiated, any will do."""
    ends = face_positions(shape[0], spacing[:, 0])[:, [0, -1]]
    # the mean of 1 / r over a disk is that at half its radius
    disk = (spacing[:, 1] * spacing[:, 2] / math.pi).sqrt() / 2
    phi, phi_end, Phi = [], [], []
    for charge in charges:
        to_end = (ends - charge.point[:, :1]).view(-1, 2, 1, 1)
        _, h, w = offsets_from(charge.point, shape, spacing)
        phi_end.append(potential([to_end, h, w], charge.current, sigma_inf, clamp=disk))
        phi.append(infinite_medium(shape, spacing, charge, sigma_inf))
        Phi.append(face_current_density(shape, spacing, charge, sigma_inf, arctan))
    return _total(phi), _total(phi_end), _total_on_faces(Phi)


def _total(parts: list[Tensor]) -> Tensor:
    """The sum of one or more fields."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _total_on_faces(parts: list[Faces]) -> Faces:
    """The sum of one or more values on faces."""
    d, h, w = (_total([part[axis] for part in parts]) for axis in range(3))
    return d, h, w


def _leaving_evenly(conductor: Conductor, current: Float[Tensor, " K"]) -> Float[Tensor, "..."]:
    """The current that leaves through the volume of all tissue, A/m^3 (K, D, H, W); the number 0
    unless ends is sink."""
    if conductor.ends.kind != "sink":
        return torch.zeros((), dtype=current.dtype, device=current.device)
    volume = conductor.tissue.sum(dim=(1, 2, 3)) * conductor.voxel_volume.to(current)
    return per_sample(current / volume) * conductor.tissue
