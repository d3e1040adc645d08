r"""The 7-point flux-form operator: the one place where div(sigma grad phi) is written.

    -div(sigma grad phi) = f                                                       [A/m^3]

integrated over voxels. Between voxel centres the conductivity is the harmonic mean

    sigma_h = 2 sigma_i sigma_j / (sigma_i + sigma_j)       (0 as soon as one side is air: zero flux at the skin)

and J = -sigma_h (phi_j - phi_i) / h is the current density through the face. Ends, half a voxel from the last centre: outward

    J = sigma_i phi_i / (h / 2 + 1 / beta),     grounded: beta = infinity, robin: d phi / dn = -beta phi, sink and pair: beta = 0

(Patankar, Numerical Heat Transfer and Fluid Flow,
1980, eq. 4.9; LeVeque, Finite Volume Methods, 2002.)

**Singularity subtraction.** A point source on a lattice is wrong by 8 to 12 % for several voxels. So
phi = phi_inf + phi_c with phi_inf the closed form in the medium at the source, sigma_inf, whose current
through every face, Phi, is known exactly (`point_source.face_current_density`). With the known part of the current

    S = (sigma_h / sigma_inf - 1) Phi        (+ sigma phi_inf / (h/2 + 1/beta) outward on an end; there sigma_h is sigma / (1 + 2 / (beta h)))

the smooth rest obeys A phi_c = -div S, and J = S + Phi - sigma_h grad phi_c. S vanishes round the source. Where the current leaves
evenly (ends: sink), I over the volume of all tissue is taken from the right-hand side; for a pair both electrodes are subtracted, and of an
electrode close to a grounded end its mirror image, too.
The same idea for finite elements: Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24, eq. 3.6.

Truth, PDE loss, charge loss and residuals all use this module, so that they cannot drift apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.potential.physics.conductor import (
    ON_FACE,
    Conductor,
    face_positions,
    offsets_from,
)
from physics_hybrid.potential.physics.point_source import (
    PointSource,
    face_current_density,
    infinite_medium,
    matrix,
    potential,
)

#: Voxels from a grounded end within which the closed form of an electrode has its mirror image, too. Farther away the grid does as well without.
MIRRORED = 3.0


def _pad(field: Tensor, axis: int) -> Tensor:
    """One layer of zeros on both sides of `axis` (0, 1, 2) of a (B, D, H, W) field."""
    widths = [0] * 6
    widths[2 * (2 - axis)] = widths[2 * (2 - axis) + 1] = 1
    return F.pad(field, widths)


def _diff(field: Tensor, axis: int) -> Tensor:
    return torch.diff(field, dim=axis + 1)


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class FluxOperator:
    """A = -div(sigma grad .) on one batch of conductors.

    conductance : three tensors (B, D+1, H, W), (B, D, H+1, W), (B, D, H, W+1)
        sigma_h / h^2 on the faces normal to each axis, S/m^3; 0 towards air, sigma / (h (h/2 + 1/beta)) on an end.
    spacing : Tensor (B, 3), metres.
    """

    conductance: tuple[Tensor, Tensor, Tensor]
    spacing: Tensor

    #: How far a voxel's equation sees, in voxels.
    REACH: ClassVar[float] = 1.0

    @classmethod
    def of(cls, conductor: Conductor, dtype: torch.dtype = torch.float64) -> FluxOperator:
        """Build the operator of a conductor with scalar or diagonal sigma.

        Raises
        ------
        ValueError
            For oblique tensors; where tissue does not reach an end that should carry the current away.
        """
        require_way_out(conductor)
        sigma = conductor.diagonal().to(dtype)
        spacing = conductor.spacing.to(dtype)
        faces = []
        for axis in range(3):
            s = sigma[:, axis]
            n = s.shape[axis + 1]
            low, high = s.narrow(axis + 1, 0, n - 1), s.narrow(axis + 1, 1, n - 1)
            total = low + high
            harmonic = torch.where(total > 0, 2 * low * high / total.clamp_min(torch.finfo(dtype).tiny), 0.0)
            faces.append(_pad(harmonic, axis))
        if not conductor.ends.floating:
            exchange = conductor.ends.exchange * spacing[:, 0]
            share = torch.where(exchange.isinf(), 2.0, exchange / (1 + exchange.nan_to_num(posinf=0.0) / 2))
            for end in (0, -1):
                faces[0][:, end] = share.view(-1, 1, 1) * sigma[:, 0, end]
        return cls(tuple(k / _column(spacing[:, a]) ** 2 for a, k in enumerate(faces)), spacing)

    @property
    def shape(self) -> Grid:
        d, h, w = self.conductance[0].shape[1:]
        return (d - 1, h, w)

    @cached_property
    def diagonal(self) -> Tensor:
        """Diagonal of A, S/m^3; 0 in air. (B, D, H, W)"""
        n = self.shape
        return sum(k.narrow(a + 1, 0, n[a]) + k.narrow(a + 1, 1, n[a]) for a, k in enumerate(self.conductance))

    def current_density(self, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """J_a = -sigma_h d phi / d a on all faces, A/m^2, positive along the positive axis; phi in volts (B, D, H, W)."""
        return tuple(
            -_column(self.spacing[:, a]) * k * _diff(_pad(phi, a), a) for a, k in enumerate(self.conductance)
        )

    def divergence(self, current_density) -> Tensor:
        """div J in every voxel, A/m^3: net current out of the voxel over its volume. (B, D, H, W)"""
        return sum(_diff(J, a) / _column(self.spacing[:, a]) for a, J in enumerate(current_density))

    def __call__(self, phi: Tensor) -> Tensor:
        """A phi = -div(sigma grad phi), A/m^3. (B, D, H, W)"""
        return self.divergence(self.current_density(phi))


    def known_current(self, Phi: list[Tensor], phi_end: Tensor, sigma_inf: Tensor) -> list[Tensor]:
        """S above on all faces, A/m^2.

        Phi : current density of the closed form through the faces; phi_end (K, 2, H, W) : its potential on the two cut faces, V;
        sigma_inf (K, C) : S/m.
        """
        known = []
        for a, k in enumerate(self.conductance):
            sigma_face = k * _column(self.spacing[:, a]) ** 2
            if a == 0:
                sigma_face = sigma_face.clone()
                sigma_face[:, [0, -1]] /= 2  # on an end the conductance spans half a voxel
            known.append((sigma_face / _column(sigma_inf[:, :3].expand(-1, 3)[:, a]) - 1) * Phi[a])
        outward = torch.tensor([-1.0, 1.0]).to(phi_end).view(1, 2, 1, 1)
        known[0][:, [0, -1]] += outward * self.conductance[0][:, [0, -1]] * _column(self.spacing[:, 0]) * phi_end
        return known

    def to(self, dtype: torch.dtype) -> FluxOperator:
        return FluxOperator(tuple(k.to(dtype) for k in self.conductance), self.spacing.to(dtype))


def require_way_out(conductor: Conductor) -> None:
    """Raise ValueError where the ends should carry the current away and no tissue touches them."""
    sealed = ~conductor.tissue[:, [0, -1]].flatten(1).any(dim=1)
    if not conductor.ends.floating and bool(sealed.any()):
        raise ValueError(
            f"sample {int(sealed.nonzero()[0])}: no tissue touches the first or last plane along D, so that ends={conductor.ends.kind} is zero flux "
            "on the whole surface, and one electrode has no solution. A closed body needs ends=sink or ends=pair; a limb must reach the cut faces"
        )


@dataclass(frozen=True)
class Subtraction:
    """What is known about the sources of a batch before anything is solved. One conductor may hold many sources: K sources, B = 1.

    phi_inf : Tensor (B, D, H, W)
        Closed-form part of the potential, volts; 0 in air.
    known : three face tensors
        S above, A/m^2.
    total : three face tensors
        S + Phi: the current density carried by phi_inf in the real conductor.
    injected : Tensor (B, D, H, W)
        div J of a solution, A/m^3: I / V in the voxel of an electrode, less what leaves evenly (ends: sink).
    rhs : Tensor (B, D, H, W)
        A phi_c = rhs, A/m^3; 0 in air.
    """

    phi_inf: Tensor
    known: tuple[Tensor, Tensor, Tensor]
    total: tuple[Tensor, Tensor, Tensor]
    injected: Tensor
    rhs: Tensor

    @classmethod
    def of(cls, conductor: Conductor, operator: FluxOperator, source: PointSource) -> Subtraction:
        """Point electrodes in closed form. sigma_inf is that of the voxel that holds the electrode: on an interface, of the better conductor (`Conductor.in_tissue`).

        Raises
        ------
        ValueError
            Where a source lies outside the grid or in air, or the second electrode of a pair is missing, or not asked for.
        """
        source = source.to(operator.spacing.dtype)
        injected = nodal_source(conductor, source)
        parts = [_closed_form(conductor, operator, electrode) for electrode in source.electrodes]
        phi_inf = sum(part[0] for part in parts) * conductor.tissue
        known = tuple(sum(part[1][a] for part in parts) for a in range(3))
        total = tuple(k + sum(part[2][a] for part in parts) for a, k in enumerate(known))
        evenly = _leaving_evenly(conductor, source.current)
        rhs = (-operator.divergence(known) - evenly) * conductor.tissue
        return cls(phi_inf, known, total, injected - evenly, rhs)

    @classmethod
    def density(cls, conductor: Conductor, operator: FluxOperator, density: Tensor) -> Subtraction:
        """Nothing in closed form: any current density (B, D, H, W) in A/m^3 on the grid, such as an electrode of many voxels.

        Raises
        ------
        ValueError
            Where the density is on another grid, or for another number of conductors; current is injected in air; the currents of a pair do not
            add up to zero.
        """
        if tuple(density.shape[1:]) != conductor.shape or len(conductor.sigma) not in (1, len(density)):
            raise ValueError(f"a current density needs shape {(len(conductor.sigma), *conductor.shape)} in A/m^3; got {tuple(density.shape)}")
        density = density.to(operator.spacing.dtype)
        if bool((density * ~conductor.tissue).any()):
            raise ValueError("the source lies partly in air (sigma = 0): no current can flow from it")
        net, size = density.sum(dim=(1, 2, 3)), density.abs().sum(dim=(1, 2, 3))
        if conductor.ends.kind == "pair" and bool((net.abs() > 1e-4 * size).any()):
            raise ValueError("ends=pair: the current that the second electrode takes out must equal what the first one brings in")
        even = net / conductor.tissue.sum(dim=(1, 2, 3)) if conductor.ends.floating else torch.zeros_like(net)
        injected = (density - _column(even)) * conductor.tissue
        d, h, w = operator.shape
        nothing = tuple(density.new_zeros(len(density), *face) for face in ((d + 1, h, w), (d, h + 1, w), (d, h, w + 1)))
        return cls(torch.zeros_like(density), nothing, nothing, injected, injected)

    def where(self, chosen: Tensor, other: Subtraction) -> Subtraction:
        """This one for the samples marked (B,), the other one for the rest."""
        def pick(mine, theirs):
            return torch.where(_column(chosen), mine, theirs)
        def faces(mine, theirs):
            return tuple(map(pick, mine, theirs))
        return Subtraction(
            pick(self.phi_inf, other.phi_inf), faces(self.known, other.known), faces(self.total, other.total),
            pick(self.injected, other.injected), pick(self.rhs, other.rhs),
        )

    def to(self, dtype: torch.dtype) -> Subtraction:
        def faces(values):
            return tuple(f.to(dtype) for f in values)
        return Subtraction(self.phi_inf.to(dtype), faces(self.known), faces(self.total), self.injected.to(dtype), self.rhs.to(dtype))

    def current_density(self, operator: FluxOperator, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Total current density on the faces, A/m^2, of the potential phi (B, D, H, W) in volts."""
        return tuple(t + j for t, j in zip(self.total, operator.current_density(phi - self.phi_inf)))

    def residual(self, operator: FluxOperator, phi: Tensor) -> Tensor:
        """A (phi - phi_inf) - rhs, A/m^3: zero where phi solves the discrete problem. (B, D, H, W)"""
        return operator(phi - self.phi_inf) - self.rhs


def _closed_form(conductor: Conductor, operator: FluxOperator, source: PointSource):
    """phi_inf (V), S and Phi (A/m^2 on faces) of one electrode for each sample, its mirror image included."""
    spacing = operator.spacing.expand(len(source.point), 3)
    ends = face_positions(operator.shape[0], spacing[:, 0])[:, [0, -1]]
    disk = (spacing[:, 1] * spacing[:, 2] / math.pi).sqrt() / 2  # the mean of 1 / r over a disk is that at half its radius
    charges, sigma_inf = with_image(conductor, source)
    phi_inf, phi_end, Phi = 0.0, 0.0, (0.0, 0.0, 0.0)
    for charge in charges:
        to_end = (ends - charge.point[:, :1]).view(-1, 2, 1, 1)
        phi_end = phi_end + potential([to_end, *offsets_from(charge.point, operator.shape, spacing)[1:]], charge.current, sigma_inf, clamp=disk)
        phi_inf = phi_inf + infinite_medium(operator.shape, spacing, charge, sigma_inf)
        Phi = [total + part for total, part in zip(Phi, face_current_density(operator.shape, spacing, charge, sigma_inf))]
    return phi_inf, operator.known_current(Phi, phi_end, sigma_inf), Phi


def with_image(conductor: Conductor, source: PointSource, reach: float = 0.0) -> tuple[list[PointSource], Tensor]:
    """What the closed form of one electrode for each sample is made of, and the medium sigma_inf (B, C) of it: the electrode, and where one is within
    `MIRRORED` voxels of a grounded end its mirror image -I behind that end, which makes phi_inf 0 there; of others the image carries no current.

    sigma_inf is that of the voxel that holds the electrode, or of the best conductor within `reach` voxels of it (`Conductor.best_near`).

    r_image = r - 2 d sigma_inf n / (n . sigma_inf n), d the distance from the end and n its normal: to every point of the end both have the same
    d^T sigma_inf^-1 d. (Jackson, Classical Electrodynamics, 1998, sec. 2.1, with lengths measured by sigma_inf^-1)

    Raises
    ------
    ValueError
        An electrode outside the grid or in air.
    """
    electrode = PointSource(conductor.in_tissue(source.point), source.current)
    sigma_inf = (conductor.best_near(electrode.point, reach) if reach else conductor.sigma_at(electrode.point)).to(electrode.point)
    step, first = conductor.spacing.to(electrode.point)[:, 0], electrode.point[:, 0]
    last = conductor.shape[0] * step - first
    near = torch.minimum(first, last) < MIRRORED * step
    away = torch.where(first <= last, torch.maximum(first, ON_FACE * step), -last)  # an electrode on the end lies inside, its image outside
    if conductor.ends.kind != "grounded" or not bool(near.any()):
        return [electrode], sigma_inf
    along = matrix(sigma_inf)[:, 0] / sigma_inf[:, :1]
    return [electrode, PointSource(electrode.point - 2 * away[:, None] * along, torch.where(near, -electrode.current, 0.0))], sigma_inf


def _leaving_evenly(conductor: Conductor, current: Tensor) -> Tensor:
    """The current that leaves through the volume of all tissue, A/m^3; 0 unless ends is sink. (B, D, H, W)"""
    if conductor.ends.kind != "sink":
        return torch.zeros((), dtype=current.dtype, device=current.device)
    volume = conductor.tissue.sum(dim=(1, 2, 3)) * conductor.voxel_volume.to(current)
    return _column(current / volume) * conductor.tissue


def nodal_source(conductor: Conductor, source: PointSource) -> Tensor:
    """The source as a current density in the one voxel that holds it: I / V there, A/m^3; -I / V at the returning electrode. (B, D, H, W)

    Raises
    ------
    ValueError
        Several conductors with another number of sources; an electrode outside the grid or in air; the second electrode of a pair missing, or not asked for.
    """
    if len(conductor.sigma) not in (1, len(source.point)):
        raise ValueError(f"{len(conductor.sigma)} conductors and {len(source.point)} sources: give one source for each conductor, or many sources for one")
    paired = source.returns is not None
    if paired != (conductor.ends.kind == "pair"):
        raise ValueError(
            f"ends={conductor.ends.kind} with {'a second electrode' if paired else 'one electrode'}: ends=pair needs a returning electrode, and no other ends takes one"
        )
    f = torch.zeros(len(source.point), *conductor.shape, dtype=source.current.dtype, device=source.current.device)
    rows = torch.arange(len(f), device=f.device)
    for electrode in source.electrodes:
        point = conductor.in_tissue(electrode.point)
        conductor.sigma_at(point)
        index = conductor.voxel_of(point)
        f.index_put_((rows, *index.unbind(dim=1)), electrode.current / conductor.voxel_volume.to(f), accumulate=True)
    return f
