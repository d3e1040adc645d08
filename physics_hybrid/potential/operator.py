r"""The 7-point flux-form operator: the one place where div(sigma grad phi) is written.

    -div(sigma grad phi) = f                                                       [A/m^3]

integrated over voxels. Between voxel centres the conductivity is the harmonic mean

    sigma_h = 2 sigma_i sigma_j / (sigma_i + sigma_j)       (0 as soon as one side is air: zero flux at the skin)

and J = -sigma_h (phi_j - phi_i) / h is the current density through the face. On the grounded ends phi = 0 on the
face itself, half a voxel away: J = -2 sigma_i (0 - phi_i) / h. (Patankar, Numerical Heat Transfer and Fluid Flow,
1980, eq. 4.9; LeVeque, Finite Volume Methods, 2002.)

**Singularity subtraction.** A point source on a lattice is wrong by 8 to 12 % for several voxels. So
phi = phi_inf + phi_c with phi_inf the closed form in the medium at the source, sigma_inf, whose current
through every face, Phi, is known exactly (`point_source.face_current_density`). With the known part of the current

    S = (sigma_h / sigma_inf - 1) Phi        (+ sigma phi_inf / (h/2) outward on a grounded end)

the smooth rest obeys A phi_c = -div S, and J = S + Phi - sigma_h grad phi_c. S vanishes round the source.
The same idea for finite elements: Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24, eq. 3.6.

Truth, PDE loss, charge loss and residuals all use this module, so that they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from physics_hybrid.potential.conductor import Conductor, face_positions, offsets_from
from physics_hybrid.potential.point_source import PointSource, face_current_density, infinite_medium, potential


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
        sigma_h / h^2 on the faces normal to each axis, S/m^3; 0 towards air, 2 sigma / h^2 on a grounded end.
    spacing : Tensor (B, 3), metres.
    """

    conductance: tuple[Tensor, Tensor, Tensor]
    spacing: Tensor

    @classmethod
    def of(cls, conductor: Conductor, dtype: torch.dtype = torch.float64) -> "FluxOperator":
        """Build the operator of a conductor with scalar or diagonal sigma (ValueError for oblique tensors)."""
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
        for end in (0, -1):  # grounded: half a voxel to phi = 0
            faces[0][:, end] = 2 * sigma[:, 0, end]
        return cls(tuple(k / _column(spacing[:, a]) ** 2 for a, k in enumerate(faces)), spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
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


@dataclass(frozen=True)
class Subtraction:
    """What is known in closed form about one source in one conductor.

    phi_inf : Tensor (B, D, H, W)
        Potential in the infinite medium with the conductivity found at the source, volts; 0 in air.
    known : three face tensors
        S above, A/m^2.
    total : three face tensors
        S + Phi: the current density carried by phi_inf in the real conductor.
    rhs : Tensor (B, D, H, W)
        -div S, A/m^3; 0 in air: A phi_c = rhs.
    """

    phi_inf: Tensor
    known: tuple[Tensor, Tensor, Tensor]
    total: tuple[Tensor, Tensor, Tensor]
    rhs: Tensor

    @classmethod
    def of(cls, conductor: Conductor, operator: FluxOperator, source: PointSource) -> "Subtraction":
        """Raises ValueError where a source lies outside the grid or in air."""
        dtype = operator.spacing.dtype
        source = source.to(dtype)
        shape, spacing = operator.shape, operator.spacing
        conductor.diagonal()  # refuses oblique tensors
        sigma_inf = conductor.sigma_at(source.point)[:, :3].to(dtype).expand(-1, 3)
        Phi = face_current_density(shape, spacing, source, sigma_inf)
        known = []
        for a, k in enumerate(operator.conductance):
            h = _column(spacing[:, a])
            sigma_face = k * h**2
            if a == 0:
                sigma_face = sigma_face.clone()
                sigma_face[:, [0, -1]] /= 2  # on an end the conductance spans half a voxel
            known.append((sigma_face / _column(sigma_inf[:, a]) - 1) * Phi[a])
        face = face_positions(shape[0], spacing[:, 0])[:, [0, -1]] - source.point[:, :1]
        lateral = offsets_from(source.point, shape, spacing)[1:]
        phi_end = potential([face.view(-1, 2, 1, 1), *lateral], source.current, sigma_inf)
        outward = torch.tensor([-1.0, 1.0], dtype=dtype, device=spacing.device).view(1, 2, 1, 1)
        known[0][:, [0, -1]] += outward * operator.conductance[0][:, [0, -1]] * _column(spacing[:, 0]) * phi_end
        tissue = conductor.tissue
        rhs = -operator.divergence(known) * tissue
        phi_inf = infinite_medium(shape, spacing, source, sigma_inf) * tissue
        return cls(phi_inf, tuple(known), tuple(s + p for s, p in zip(known, Phi)), rhs)

    def current_density(self, operator: FluxOperator, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Total current density on the faces, A/m^2, of the potential phi (B, D, H, W) in volts."""
        return tuple(t + j for t, j in zip(self.total, operator.current_density(phi - self.phi_inf)))

    def residual(self, operator: FluxOperator, phi: Tensor) -> Tensor:
        """A (phi - phi_inf) - rhs, A/m^3: zero where phi solves the discrete problem. (B, D, H, W)"""
        return operator(phi - self.phi_inf) - self.rhs


def nodal_source(conductor: Conductor, source: PointSource) -> Tensor:
    """The source as a current density in the one voxel that holds it: I / V there, A/m^3. (B, D, H, W)"""
    conductor.sigma_at(source.point)
    index = conductor.voxel_of(source.point)
    f = torch.zeros(len(index), *conductor.shape, dtype=source.current.dtype, device=source.current.device)
    f[torch.arange(len(index)), index[:, 0], index[:, 1], index[:, 2]] = source.current / conductor.voxel_volume.to(f)
    return f
