r"""The flux-form operator for oblique tensors: multipoint fluxes, 27 points, symmetric.

A 7-point stencil cannot see a fibre that is not along an axis. Round every corner of the voxel grid, eight voxels meet in twelve
quarter faces. Each quarter face carries its own current density q (A/m^2, along the positive axis), and Ohm's law E = sigma^-1 J holds in
every voxel at that corner: with p the potentials of the eight voxels,

    M q = R p,      M = sum over the eight voxels of P^T sigma^-1 P,      R = 2 / h between the two voxels of a quarter face,

P picks the three quarter faces (normal to D, H, W) of a voxel. Twelve unknowns are eliminated at every corner, J through a face is the mean of its
four quarters, and A = -div(sigma grad .) = sum over corners of R^T M^-1 R / 8 is symmetric and positive. Walls pass nothing (q = 0); on an end
M gains 2 / (h beta sigma_DD) for J . n = beta sigma_DD phi. For diagonal tensors M falls apart and this is `FluxOperator`, harmonic means and all.
(Wheeler and Yotov, SIAM J. Numer. Anal. 44 (2006) 2082, eq. 2.42: multipoint flux mixed finite elements, on bricks; Aavatsmark, Comput. Geosci. 6 (2002) 405,
the O-method.)

**Singularity subtraction** keeps its meaning: E of the closed form is sigma_inf^-1 Phi, with Phi the exact mean current density through every face, so that

    M q = R phi_c + sum over the voxels of P^T sigma_inf^-1 P Phi

gives q = Phi where the medium is the one at the source: charge is conserved to rounding.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.potential.physics.conductor import Conductor
from physics_hybrid.potential.physics.operator import FluxOperator, require_way_out
from physics_hybrid.potential.physics.point_source import matrix

OCTANTS = tuple(itertools.product((0, 1), repeat=3))


def _quarter(axis: int, octant: Grid) -> int:
    """Number of the quarter face normal to `axis` that an octant has at its corner."""
    u, v = (octant[a] for a in range(3) if a != axis)
    return 4 * axis + 2 * u + v


def _inverse(sigma: Tensor) -> Tensor:
    """sigma^-1 as 3 x 3 matrices: sigma (..., 6) S/m -> (..., 3, 3)."""
    return torch.linalg.inv(matrix(sigma))


def _round_corners(field: Tensor) -> Tensor:
    """The eight voxels round every corner, air outside the grid: (B, ..., D, H, W) -> (B, ..., 8, D+1, H+1, W+1)."""
    d, h, w = (n + 1 for n in field.shape[-3:])
    padded = F.pad(field, (1,) * 6)
    return torch.stack([padded[..., a : a + d, b : b + h, c : c + w] for a, b, c in OCTANTS], dim=-4)


@dataclass(frozen=True)
class MultipointOperator:
    """A = -div(sigma grad .) on one batch of conductors with oblique tensors. Same interface as `FluxOperator`.

    Corners with the same eight tensors round them share one entry: a limb of five tissues has some hundreds among a million.

    kind : Tensor (B, V)
        Entry of every corner, V = (D+1)(H+1)(W+1).
    table : Corners
        The entries.
    spacing : Tensor (B, 3), metres.  shape : grid (D, H, W).
    """

    kind: Tensor
    table: Corners
    spacing: Tensor
    shape: Grid

    #: How far a voxel's equation sees, in voxels.
    REACH: ClassVar[float] = math.sqrt(3)

    @classmethod
    def of(cls, conductor: Conductor, dtype: torch.dtype = torch.float64) -> MultipointOperator:
        """Build the operator of a conductor with symmetric tensors (B, 6, D, H, W).

        Raises
        ------
        ValueError
            Where a tensor in tissue is not positive definite, or tissue does not reach an end that should carry the current away.
        """
        require_way_out(conductor)
        B, tissue, spacing, shape = len(conductor.sigma), conductor.tissue, conductor.spacing.to(dtype), conductor.shape
        tensors, voxel = torch.unique(torch.where(tissue[:, None], conductor.sigma.to(dtype), 0.0).movedim(1, -1).reshape(-1, 6), dim=0, return_inverse=True)
        voxel = voxel.view(B, *shape)
        alive = (tensors != 0).any(dim=1)
        inverse = _inverse(torch.where(alive[:, None], tensors, torch.tensor([1.0, 1, 1, 0, 0, 0]).to(tensors)))
        minors = torch.stack([inverse[:, 0, 0], torch.linalg.det(inverse[:, :2, :2]), torch.linalg.det(inverse)])
        bad = alive & ~((minors > 0) & minors.isfinite()).all(dim=0)
        if bool(bad.any()):
            b, *place = (int(i) for i in bad[voxel].nonzero()[0])
            raise ValueError(f"sigma of sample {b} at voxel {tuple(place)} is not positive definite: {conductor.sigma[b, :, place[0], place[1], place[2]].tolist()} S/m")
        # the eight tensors round a corner, the end it lies on and its sample make its kind; 0 is outside the grid
        plane = torch.arange(shape[0] + 1, device=tissue.device)
        end = (plane == 0) + 2 * (plane == shape[0])
        sample = torch.arange(B, device=tissue.device).view(-1, 1, 1, 1)
        code = (3 * sample + end.view(1, -1, 1, 1)).expand(B, *(n + 1 for n in shape)).flatten()
        round_corners = (_round_corners(voxel + 1)).movedim(1, -1).reshape(-1, 8)
        for number in range(8):
            _, code = torch.unique(code * (len(tensors) + 1) + round_corners[:, number], return_inverse=True)
        one = torch.zeros(int(code.max()) + 1, dtype=torch.long, device=code.device).scatter_(0, code, torch.arange(len(code), device=code.device))
        V = len(code) // B
        resistivity = torch.cat([torch.zeros_like(inverse[:1]), inverse * alive[:, None, None]])[round_corners[one]]
        sigma_dd = torch.cat([tensors.new_zeros(1), tensors[:, 0]])[round_corners[one]]
        at_end = end.repeat_interleave((shape[1] + 1) * (shape[2] + 1))[one % V]
        table = Corners.of(resistivity, sigma_dd, at_end, spacing[one // V], conductor.ends.exchange)
        return cls(code.view(B, V), table, spacing, shape)

    @cached_property
    def flux(self) -> Tensor:
        """Quarter currents from the potentials round every corner, S/m^2. (B, V, 12, 8)"""
        return self.table.flux[self.kind]

    @cached_property
    def diagonal(self) -> Tensor:
        """Diagonal of A, S/m^3; 0 in air. (B, D, H, W)"""
        own = self.spacing.new_zeros(*self.kind.shape, 8)
        for number, octant in enumerate(OCTANTS):
            for axis in range(3):
                sign = 1 - 2 * octant[axis]
                own[:, :, number] += sign * self.flux[:, :, _quarter(axis, octant), number] / (4 * self.spacing[:, axis, None])
        corner = own.movedim(-1, 1).unflatten(-1, tuple(n + 1 for n in self.shape))
        d, h, w = self.shape
        return sum(corner[:, i, 1 - a : 1 - a + d, 1 - b : 1 - b + h, 1 - c : 1 - c + w] for i, (a, b, c) in enumerate(OCTANTS))

    def current_density(self, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """J_a on all faces, A/m^2, positive along the positive axis; phi in volts (B, D, H, W), what it holds in air does not count."""
        p = _round_corners(phi).flatten(-3).movedim(-1, 1)
        return self._faces((self.flux @ p[..., None])[..., 0])

    def divergence(self, current_density) -> Tensor:
        """div J in every voxel, A/m^3. (B, D, H, W)"""
        return FluxOperator.divergence(self, current_density)

    def __call__(self, phi: Tensor) -> Tensor:
        """A phi = -div(sigma grad phi), A/m^3. (B, D, H, W)"""
        return self.divergence(self.current_density(phi))

    def _faces(self, quarters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means over the four quarters of every face: (K, V, 12) -> (K, D+1, H, W), (K, D, H+1, W), (K, D, H, W+1)."""
        q = quarters.movedim(-1, 1).unflatten(-1, tuple(n + 1 for n in self.shape))
        out = []
        for axis in range(3):
            total = 0.0
            for u, v in itertools.product((0, 1), repeat=2):
                window = [slice(1 - bit, 1 - bit + self.shape[a]) for a, bit in zip([a for a in range(3) if a != axis], (u, v))]
                window.insert(axis, slice(None))
                total = total + q[:, 4 * axis + 2 * u + v][(slice(None), *window)]
            out.append(total / 4)
        return tuple(out)

    def known_current(self, Phi: list[Tensor], phi_end: Tensor, sigma_inf: Tensor) -> list[Tensor]:
        """S on faces, A/m^2: what the closed form carries in the real conductor less Phi.

        Phi : its own mean current density through the faces; phi_end (K, 2, H, W) : its potential on the two cut faces, V;
        sigma_inf (K, 6) : S/m.
        """
        quarters = torch.stack([f for faces in self._to_quarters(Phi) for f in faces], dim=-1)  # (K, V, 12)
        end = torch.stack([f for faces in self._to_quarters([self._on_ends(phi_end), None, None]) for f in faces], dim=-1)
        inf = _inverse(sigma_inf)
        active, resistivity = self.table.active[self.kind], self.table.resistivity[self.kind]
        passed = quarters * active
        right = end * 2 / self.spacing[:, :1, None] - self.table.end_share[self.kind] * passed
        for number, octant in enumerate(OCTANTS):
            mine = [_quarter(axis, octant) for axis in range(3)]
            there = (resistivity[:, :, number, 0, 0] > 0)[..., None]
            E_inf = torch.einsum("kab,kvb->kva", inf, quarters[:, :, mine])
            E = torch.einsum("kvab,kvb->kva", resistivity[:, :, number].expand(len(quarters), -1, -1, -1), passed[:, :, mine])
            right[:, :, mine] += torch.where(there, E_inf - E, 0.0)
        S = (self.table.inverse[self.kind] @ (right * active)[..., None])[..., 0]
        return list(self._faces(torch.where(active, S, -quarters)))

    def _on_ends(self, phi_end: Tensor) -> Tensor:
        """Potential on the cut faces with the sign of the outward normal, 0 on all other faces normal to D. (K, D+1, H, W)"""
        out = torch.zeros(len(phi_end), self.shape[0] + 1, *self.shape[1:]).to(phi_end)
        out[:, 0], out[:, -1] = -phi_end[:, 0], phi_end[:, 1]
        return out

    def _to_quarters(self, faces: list[Tensor | None]) -> list[list[Tensor]]:
        """Face values at their four quarters, corner by corner: three lists of four (K, V)."""
        count = next(len(f) for f in faces if f is not None)
        d, h, w = (n + 1 for n in self.shape)
        out = []
        for axis, face in enumerate(faces):
            if face is None:
                out.append([self.spacing.new_zeros(count, d * h * w)] * 4)
                continue
            widths = [1] * 6
            widths[2 * (2 - axis)] = widths[2 * (2 - axis) + 1] = 0
            padded = F.pad(face, widths)
            values = []
            for u, v in itertools.product((0, 1), repeat=2):
                window = [slice(bit, bit + self.shape[a] + 1) for a, bit in zip([a for a in range(3) if a != axis], (u, v))]
                window.insert(axis, slice(None))
                values.append(padded[(slice(None), *window)].flatten(1))
            out.append(values)
        return out

    def to(self, dtype: torch.dtype) -> MultipointOperator:
        return MultipointOperator(self.kind, self.table.to(dtype), self.spacing.to(dtype), self.shape)


@dataclass(frozen=True)
class Corners:
    """What happens at N different corners.

    flux : Tensor (N, 12, 8)
        M^-1 R, S/m^2.
    inverse : Tensor (N, 12, 12)
        M^-1, S/m; 0 in rows and columns of closed quarter faces.
    resistivity : Tensor (N, 8, 3, 3)
        sigma^-1 of the voxels round the corner, ohm m; 0 in air.
    active : Tensor (N, 12) bool
        Quarter faces that current can pass.
    end_share : Tensor (N, 12)
        2 / (h beta sigma_DD) on Robin ends, else 0, ohm m.
    """

    flux: Tensor
    inverse: Tensor
    resistivity: Tensor
    active: Tensor
    end_share: Tensor

    @classmethod
    def of(cls, resistivity: Tensor, sigma_dd: Tensor, end: Tensor, spacing: Tensor, exchange: float) -> Corners:
        """sigma_dd (N, 8) S/m; end (N,): 1 on the first cut face, 2 on the last, else 0; spacing (N, 3) m; exchange : beta in 1/m."""
        N, alive = len(resistivity), sigma_dd > 0
        active = torch.zeros(N, 12, dtype=torch.bool, device=alive.device)
        end_share = resistivity.new_zeros(N, 12)
        R = resistivity.new_zeros(N, 12, 8)
        M = resistivity.new_zeros(N, 12, 12)
        for number, octant in enumerate(OCTANTS):
            mine = torch.tensor([_quarter(axis, octant) for axis in range(3)], device=M.device)
            M[:, mine[:, None], mine[None, :]] += resistivity[:, number]
            for axis, f in enumerate(mine.tolist()):
                R[:, f, number] = (1 - 2 * octant[axis]) * 2 / spacing[:, axis]
                if octant[axis] == 0:
                    other = OCTANTS.index(tuple(1 - x if a == axis else x for a, x in enumerate(octant)))
                    active[:, f] |= alive[:, number] & alive[:, other]
                if axis == 0 and exchange > 0:
                    out = (end == (1 if octant[0] else 2)) & alive[:, number]
                    active[:, f] |= out
                    if exchange < math.inf:
                        end_share[:, f] += torch.where(out, 2 / (spacing[:, 0] * exchange * torch.where(out, sigma_dd[:, number], 1.0)), 0.0)
        M = M + torch.diag_embed(end_share)
        both = active[:, :, None] & active[:, None, :]
        closed = torch.diag_embed((~active).to(M))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.where(both, M, 0.0) + closed)) - closed
        return cls(inverse @ (R * active[..., None]), inverse, resistivity, active, end_share)

    def to(self, dtype: torch.dtype) -> Corners:
        return Corners(self.flux.to(dtype), self.inverse.to(dtype), self.resistivity.to(dtype), self.active, self.end_share.to(dtype))


def operator_of(conductor: Conductor, dtype: torch.dtype = torch.float64) -> FluxOperator | MultipointOperator:
    """The 7-point operator, or the 27-point one where a tensor of the batch is oblique."""
    return (MultipointOperator if conductor.oblique else FluxOperator).of(conductor, dtype)
