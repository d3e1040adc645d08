r"""The 7-point flux-form operator: the one place where div(sigma grad phi) is written.

    -div(sigma grad phi) = f                                                       [A/m^3]

integrated over voxels. Between voxel centres the conductivity is the harmonic mean

    sigma_h = 2 sigma_i sigma_j / (sigma_i + sigma_j)

(0 as soon as one side is air: zero flux at the skin), and J = -sigma_h (phi_j - phi_i) / h is the
current density through the face. Ends, half a voxel from the last centre: outward

    J = sigma_i phi_i / (h / 2 + 1 / beta)

grounded: beta = infinity, robin: d phi / dn = -beta phi, sink and pair: beta = 0. Where electrodes
are held at 0 V (`electrode_model`) their conductance is added to the diagonal: `Leak`.

(Patankar, Numerical Heat Transfer and Fluid Flow, 1980, eq. 4.9; LeVeque, Finite Volume Methods,
2002.)

Truth, PDE loss, charge loss and residuals all use this operator, so that they cannot drift apart.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import Grid, pad, per_sample
from physics_hybrid.problems.potential.physics.conductor import Conductor, Faces, require_way_out


@dataclass(frozen=True)
class Leak:
    """From voxels to what is held at 0 V: electrodes.

    conductance : Tensor (B, D, H, W), S/m^3.
    inside : Tensor (B, D, H, W)
        The share of its resistance that lies in the half voxel of tissue; the contact has the rest.
    """

    conductance: Float[Tensor, "B D H W"]
    inside: Float[Tensor, "B D H W"]

    def to(self, dtype: torch.dtype) -> "Leak":
        """The same in another precision."""
        return Leak(self.conductance.to(dtype), self.inside.to(dtype))


@dataclass(frozen=True)
class FluxOperator:
    """A = -div(sigma grad .) on one batch of conductors.

    conductance : three tensors (B, D+1, H, W), (B, D, H+1, W), (B, D, H, W+1)
        sigma_h / h^2 on the faces normal to each axis, S/m^3; 0 towards air,
        sigma / (h (h/2 + 1/beta)) on an end.
    spacing : Tensor (B, 3), metres.
    leak : to electrodes at 0 V; None where there are none.
    """

    conductance: Faces
    spacing: Float[Tensor, "K 3"]
    leak: Leak | None = None

    #: How far a voxel's equation sees, in voxels.
    REACH: ClassVar[float] = 1.0

    @classmethod
    def of(cls, conductor: Conductor, dtype: torch.dtype = torch.float64) -> "FluxOperator":
        """Build the operator of a conductor with scalar or diagonal sigma.

        Raises
        ------
        ValueError
            For oblique tensors; where tissue does not reach an end that should carry the current
            away.
        """
        require_way_out(conductor)
        sigma = conductor.diagonal().to(dtype)
        spacing = conductor.spacing.to(dtype)
        faces = [_between(sigma[:, axis], axis) for axis in range(3)]
        if not conductor.ends.floating:
            exchange = conductor.ends.exchange * spacing[:, 0]
            half_voxel = 1 + exchange.nan_to_num(posinf=0.0) / 2
            share = torch.where(exchange.isinf(), 2.0, exchange / half_voxel)
            for end in (0, -1):
                faces[0][:, end] = share.view(-1, 1, 1) * sigma[:, 0, end]
        d, h, w = (k / per_sample(spacing[:, axis]) ** 2 for axis, k in enumerate(faces))
        return cls((d, h, w), spacing)

    @property
    def shape(self) -> Grid:
        """Grid (D, H, W)."""
        d, h, w = self.conductance[0].shape[1:]
        return d - 1, h, w

    @cached_property
    def diagonal(self) -> Float[Tensor, "B D H W"]:
        """Diagonal of A, S/m^3; 0 in air."""
        own = both_sides(self.conductance)
        return own if self.leak is None else own + self.leak.conductance

    def current_density(self, phi: Float[Tensor, "K D H W"]) -> Faces:
        """J_a = -sigma_h d phi / d a on all faces, A/m^2, positive along the positive axis; phi in
        volts."""
        return self._along(0, phi), self._along(1, phi), self._along(2, phi)

    def _along(self, axis: int, phi: Float[Tensor, "K D H W"]) -> Float[Tensor, "K _ _ _"]:
        """J_a on the faces normal to one axis, A/m^2."""
        step = torch.diff(F.pad(phi, pad(axis)), dim=axis + 1)
        return -per_sample(self.spacing[:, axis]) * self.conductance[axis] * step

    def divergence(self, current_density: Faces) -> Float[Tensor, "K D H W"]:
        """div J in every voxel, A/m^3: net current out of the voxel over its volume."""
        return divergence(current_density, self.spacing)

    def __call__(self, phi: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """A phi = -div(sigma grad phi), A/m^3, and what leaks."""
        net = self.divergence(self.current_density(phi))
        return net if self.leak is None else net + self.leak.conductance * phi

    def known_current(
        self,
        Phi: Faces,
        phi_end: Float[Tensor, "K 2 H W"],
        sigma_inf: Float[Tensor, "K C"],
    ) -> Faces:
        """S of `subtraction` on all faces, A/m^2.

        Phi : current density of the closed form through the faces; phi_end : its potential on the
        two cut faces, V; sigma_inf : S/m.
        """
        known = []
        for axis, conductance in enumerate(self.conductance):
            sigma_face = conductance * per_sample(self.spacing[:, axis]) ** 2
            if axis == 0:
                sigma_face = sigma_face.clone()
                sigma_face[:, [0, -1]] /= 2  # on an end the conductance spans half a voxel
            medium = per_sample(sigma_inf[:, :3].expand(-1, 3)[:, axis])
            known.append((sigma_face * (1 / medium)).sub_(1) * Phi[axis])
        d, h, w = known
        outward = torch.tensor([-1.0, 1.0]).to(phi_end).view(1, 2, 1, 1)
        ends = self.conductance[0][:, [0, -1]]
        d[:, [0, -1]] += outward * ends * per_sample(self.spacing[:, 0]) * phi_end
        return d, h, w

    def to(self, dtype: torch.dtype) -> "FluxOperator":
        """The same operator in another precision."""
        d, h, w = self.conductance
        return FluxOperator(
            conductance=(d.to(dtype), h.to(dtype), w.to(dtype)),
            spacing=self.spacing.to(dtype),
            leak=None if self.leak is None else self.leak.to(dtype),
        )


def _between(sigma: Float[Tensor, "B D H W"], axis: int) -> Float[Tensor, "B _ _ _"]:
    """Harmonic mean of the conductivity on the faces normal to an axis, S/m; 0 on the outer ones
    and towards air."""
    inner = sigma.shape[axis + 1] - 1
    low, high = sigma.narrow(axis + 1, 0, inner), sigma.narrow(axis + 1, 1, inner)
    total = low + high
    # air on both sides has a derivative, too: 0
    return F.pad(2 * low * high / total.clamp_min(torch.finfo(total.dtype).tiny), pad(axis))


def both_sides(faces: Faces) -> Float[Tensor, "K D H W"]:
    """Sum over the six faces of every voxel."""
    sides = []
    for axis, k in enumerate(faces):
        size = k.shape[axis + 1] - 1
        sides.append(k.narrow(axis + 1, 0, size) + k.narrow(axis + 1, 1, size))
    d, h, w = sides
    return d + h + w


def divergence(current_density: Faces, spacing: Float[Tensor, "#K 3"]) -> Float[Tensor, "K D H W"]:
    """div J in every voxel, A/m^3; J on the faces in A/m^2, spacing in metres."""
    net = torch.diff(current_density[0], dim=1) / per_sample(spacing[:, 0])
    for axis in (1, 2):
        leaving = torch.diff(current_density[axis], dim=axis + 1)
        net = torch.addcmul(net, leaving, per_sample(1 / spacing[:, axis]))
    return net
