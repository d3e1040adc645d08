r"""The flux-form operator for oblique tensors: multipoint fluxes, 27 points, symmetric.

A 7-point stencil cannot see a fibre that is not along an axis. Round every corner of the voxel
grid, eight voxels meet in twelve quarter faces. Each quarter face carries its own current density q
(A/m^2, along the positive axis), and Ohm's law E = sigma^-1 J holds in every voxel at that corner:
with p the potentials of the eight voxels,

    M q = R p,      M = sum over the eight voxels of P^T sigma^-1 P

R = 2 / h between the two voxels of a quarter face, P picks the three quarter faces (normal to D, H,
W) of a voxel. Twelve unknowns are eliminated at every corner, J through a face is the mean of its
four quarters, and A = -div(sigma grad .) = sum over corners of R^T M^-1 R / 8 is symmetric and
positive. Walls pass nothing (q = 0); on an end M gains 2 / (h beta sigma_DD) for
J . n = beta sigma_DD phi. For diagonal tensors M falls apart and this is `FluxOperator`, harmonic
means and all. (Wheeler and Yotov, SIAM J. Numer. Anal. 44 (2006) 2082, eq. 2.42: multipoint flux
mixed finite elements, on bricks; Aavatsmark, Comput. Geosci. 6 (2002) 405, the O-method.)

**Singularity subtraction** keeps its meaning: E of the closed form is sigma_inf^-1 Phi, with Phi
the exact mean current density through every face, so that

    M q = R phi_c + sum over the voxels of P^T sigma_inf^-1 P Phi

gives q = Phi where the medium is the one at the source: charge is conserved to rounding.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.grid import Grid, along, others, pad, per_sample
from physics_hybrid.problems.potential.physics.conductor import (
    Conductor,
    Faces,
    matrix,
    require_way_out,
)
from physics_hybrid.problems.potential.physics.flux import FluxOperator, divergence

OCTANTS = tuple(itertools.product((0, 1), repeat=3))

#: The four quarters of a face, by the side that they take along each of the two other axes.
QUARTERS = tuple(itertools.product((0, 1), repeat=2))


def _quarter(axis: int, octant: tuple[int, ...]) -> int:
    """Number of the quarter face normal to `axis` that an octant has at its corner."""
    u, v = (octant[a] for a in range(3) if a != axis)
    return 4 * axis + 2 * u + v


def _quarters(octant: tuple[int, ...]) -> list[int]:
    """Numbers of the three quarter faces that an octant has at its corner."""
    return [_quarter(axis, octant) for axis in range(3)]


def _across(axis: int, octant: tuple[int, ...]) -> int:
    """Number of the octant on the other side of the quarter face normal to `axis`."""
    other = list(octant)
    other[axis] = 1 - other[axis]
    return OCTANTS.index((other[0], other[1], other[2]))


def _inverse(sigma: Float[Tensor, "*n 6"]) -> Float[Tensor, "*n 3 3"]:
    """sigma^-1 as 3 x 3 matrices, ohm m; sigma in S/m."""
    inverse: Tensor = torch.linalg.inv(matrix(sigma))
    return inverse


def _round_corners(field: Tensor) -> Tensor:
    """The eight voxels round every corner, air outside the grid:
    (B, ..., D, H, W) -> (B, ..., 8, D+1, H+1, W+1)."""
    d, h, w = (n + 1 for n in field.shape[-3:])
    padded = F.pad(field, (1,) * 6)
    eight = [padded[..., a : a + d, b : b + h, c : c + w] for a, b, c in OCTANTS]
    return torch.stack(eight, dim=-4)


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

    flux: Float[Tensor, "N 12 8"]
    inverse: Float[Tensor, "N 12 12"]
    resistivity: Float[Tensor, "N 8 3 3"]
    active: Bool[Tensor, "N 12"]
    end_share: Float[Tensor, "N 12"]

    @classmethod
    def of(
        cls,
        resistivity: Float[Tensor, "N 8 3 3"],
        sigma_dd: Float[Tensor, "N 8"],
        end: Int[Tensor, " N"],
        spacing: Float[Tensor, "N 3"],
        exchange: float,
    ) -> "Corners":
        """sigma_dd in S/m; end: 1 on the first cut face, 2 on the last, else 0; spacing in m;
        exchange: beta in 1/m."""
        N, alive = len(resistivity), sigma_dd > 0
        active = torch.zeros(N, 12, dtype=torch.bool, device=alive.device)
        end_share = resistivity.new_zeros(N, 12)
        R = resistivity.new_zeros(N, 12, 8)
        M = resistivity.new_zeros(N, 12, 12)
        for number, octant in enumerate(OCTANTS):
            mine = torch.tensor(_quarters(octant), device=M.device)
            M[:, mine[:, None], mine[None, :]] += resistivity[:, number]
            for axis, f in enumerate(_quarters(octant)):
                R[:, f, number] = (1 - 2 * octant[axis]) * 2 / spacing[:, axis]
                if octant[axis] == 0:
                    active[:, f] |= alive[:, number] & alive[:, _across(axis, octant)]
            if exchange == 0:
                continue
            normal = _quarter(0, octant)
            out = (end == (1 if octant[0] else 2)) & alive[:, number]
            active[:, normal] |= out
            if exchange < math.inf:
                conducts = torch.where(out, sigma_dd[:, number], 1.0)
                share = 2 / (spacing[:, 0] * exchange * conducts)
                end_share[:, normal] += torch.where(out, share, 0.0)
        M = M + torch.diag_embed(end_share)
        both = active[:, :, None] & active[:, None, :]
        closed = torch.diag_embed((~active).to(M))
        root = torch.linalg.cholesky(torch.where(both, M, 0.0) + closed)
        inverse = torch.cholesky_inverse(root) - closed
        return cls(inverse @ (R * active[..., None]), inverse, resistivity, active, end_share)

    def to(self, dtype: torch.dtype) -> "Corners":
        """The same in another precision."""
        return Corners(
            flux=self.flux.to(dtype),
            inverse=self.inverse.to(dtype),
            resistivity=self.resistivity.to(dtype),
            active=self.active,
            end_share=self.end_share.to(dtype),
        )


@dataclass(frozen=True)
class MultipointOperator:
    """A = -div(sigma grad .) on one batch of conductors with oblique tensors. Same interface as
    `FluxOperator`.

    Corners with the same eight tensors round them share one entry: a limb of five tissues has some
    hundreds among a million.

    kind : Tensor (B, V)
        Entry of every corner, V = (D+1)(H+1)(W+1).
    table : Corners
        The entries.
    spacing : Tensor (B, 3), metres.  shape : grid (D, H, W).
    """

    kind: Int[Tensor, "B V"]
    table: Corners
    spacing: Float[Tensor, "B 3"]
    shape: Grid

    #: How far a voxel's equation sees, in voxels.
    REACH: ClassVar[float] = math.sqrt(3)

    @classmethod
    def of(cls, conductor: Conductor, dtype: torch.dtype = torch.float64) -> "MultipointOperator":
        """Build the operator of a conductor with symmetric tensors (B, 6, D, H, W).

        Raises
        ------
        ValueError
            Where a tensor in tissue is not positive definite, or tissue does not reach an end that
            should carry the current away.
        """
        require_way_out(conductor)
        shape, spacing = conductor.shape, conductor.spacing.to(dtype)
        tensors, voxel = _distinct(conductor, dtype)
        resistivity = _resistivity(conductor, tensors, voxel)
        # 0 is outside the grid
        resistivity = torch.cat([torch.zeros_like(resistivity[:1]), resistivity])
        sigma_dd = torch.cat([tensors.new_zeros(1), tensors[:, 0]])
        round_corners = _round_corners(voxel + 1).movedim(1, -1).reshape(-1, 8)
        plane = torch.arange(shape[0] + 1, device=voxel.device)
        end = (plane == 0) + 2 * (plane == shape[0])
        code = _kinds(round_corners, len(tensors), end, len(voxel), shape)
        one = _one_of_each(code)
        per_body = len(code) // len(voxel)
        at_end = end.repeat_interleave((shape[1] + 1) * (shape[2] + 1))[one % per_body]
        table = Corners.of(
            resistivity=resistivity[round_corners[one]],
            sigma_dd=sigma_dd[round_corners[one]],
            end=at_end,
            spacing=spacing[one // per_body],
            exchange=conductor.ends.exchange,
        )
        return cls(code.view(len(voxel), per_body), table, spacing, shape)

    @cached_property
    def flux(self) -> Float[Tensor, "B V 12 8"]:
        """Quarter currents from the potentials round every corner, S/m^2."""
        return self.table.flux[self.kind]

    @cached_property
    def diagonal(self) -> Float[Tensor, "B D H W"]:
        """Diagonal of A, S/m^3; 0 in air."""
        own = self.spacing.new_zeros(*self.kind.shape, 8)
        for number, octant in enumerate(OCTANTS):
            for axis, f in enumerate(_quarters(octant)):
                sign = 1 - 2 * octant[axis]
                own[:, :, number] += (
                    sign * self.flux[:, :, f, number] / (4 * self.spacing[:, axis, None])
                )
        corner = torch.unflatten(own.movedim(-1, 1), -1, self._corners)
        d, h, w = self.shape
        total = own.new_zeros(())
        for number, (a, b, c) in enumerate(OCTANTS):
            voxels = corner[:, number, 1 - a : 1 - a + d, 1 - b : 1 - b + h, 1 - c : 1 - c + w]
            total = total + voxels
        return total

    @property
    def _corners(self) -> Grid:
        """Corners of voxels along each axis."""
        d, h, w = self.shape
        return d + 1, h + 1, w + 1

    def current_density(self, phi: Float[Tensor, "K D H W"]) -> Faces:
        """J_a on all faces, A/m^2, positive along the positive axis; phi in volts, what it holds in
        air does not count."""
        p = _round_corners(phi).flatten(-3).movedim(-1, 1)
        return self._faces((self.flux @ p[..., None])[..., 0])

    def divergence(self, current_density: Faces) -> Float[Tensor, "K D H W"]:
        """div J in every voxel, A/m^3."""
        return divergence(current_density, self.spacing)

    def __call__(self, phi: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """A phi = -div(sigma grad phi), A/m^3."""
        return self.divergence(self.current_density(phi))

    def _faces(self, quarters: Float[Tensor, "K V 12"]) -> Faces:
        """Means over the four quarters of every face."""
        q = torch.unflatten(quarters.movedim(-1, 1), -1, self._corners)
        faces = []
        for axis in range(3):
            first, second = others(axis)
            size = self.shape[first - 1], self.shape[second - 1]
            total = q.new_zeros(())
            for number, (u, v) in enumerate(QUARTERS):
                corner = q[:, 4 * axis + number]
                part = corner.narrow(first, 1 - u, size[0]).narrow(second, 1 - v, size[1])
                total = total + part
            faces.append(total / 4)
        d, h, w = faces
        return d, h, w

    def known_current(
        self,
        Phi: Faces,
        phi_end: Float[Tensor, "K 2 H W"],
        sigma_inf: Float[Tensor, "K 6"],
    ) -> Faces:
        """S on faces, A/m^2: what the closed form carries in the real conductor less Phi.

        Phi : its own mean current density through the faces; phi_end : its potential on the two cut
        faces, V; sigma_inf : S/m.
        """
        quarters = self._to_quarters(Phi)
        end = self._to_quarters([self._on_ends(phi_end), None, None])
        inf = _inverse(sigma_inf)
        active, resistivity = self.table.active[self.kind], self.table.resistivity[self.kind]
        passed = quarters * active
        right = end * 2 / self.spacing[:, :1, None] - self.table.end_share[self.kind] * passed
        for number, octant in enumerate(OCTANTS):
            mine = _quarters(octant)
            there = (resistivity[:, :, number, 0, 0] > 0)[..., None]
            own = resistivity[:, :, number].expand(len(quarters), -1, -1, -1)
            E_inf = torch.einsum("kab,kvb->kva", inf, quarters[:, :, mine])
            E = torch.einsum("kvab,kvb->kva", own, passed[:, :, mine])
            right[:, :, mine] += torch.where(there, E_inf - E, 0.0)
        S = (self.table.inverse[self.kind] @ (right * active)[..., None])[..., 0]
        return self._faces(torch.where(active, S, -quarters))

    def _on_ends(self, phi_end: Float[Tensor, "K 2 H W"]) -> Float[Tensor, "K D_faces H W"]:
        """Potential on the cut faces with the sign of the outward normal, 0 on all other faces
        normal to D."""
        d, h, w = self.shape
        out = torch.zeros(len(phi_end), d + 1, h, w).to(phi_end)
        out[:, 0], out[:, -1] = -phi_end[:, 0], phi_end[:, 1]
        return out

    def _to_quarters(
        self, faces: Sequence[Float[Tensor, "K _ _ _"] | None]
    ) -> Float[Tensor, "K V 12"]:
        """Face values at their four quarters, corner by corner; 0 for faces without a value."""
        count = next(len(face) for face in faces if face is not None)
        d, h, w = self._corners
        nothing = self.spacing.new_zeros(count, d * h * w)
        values = []
        for axis, face in enumerate(faces):
            if face is None:
                values += [nothing] * 4
                continue
            first, second = others(axis)
            size = self._corners[first - 1], self._corners[second - 1]
            padded = F.pad(F.pad(face, pad(first - 1)), pad(second - 1))
            for u, v in QUARTERS:
                part = padded.narrow(first, u, size[0]).narrow(second, v, size[1])
                values.append(part.flatten(1))
        return torch.stack(values, dim=-1)

    def to(self, dtype: torch.dtype) -> "MultipointOperator":
        """The same operator in another precision."""
        return MultipointOperator(
            self.kind, self.table.to(dtype), self.spacing.to(dtype), self.shape
        )


def _distinct(
    conductor: Conductor, dtype: torch.dtype
) -> tuple[Float[Tensor, "T 6"], Int[Tensor, "B D H W"]]:
    """The different tensors of the bodies, S/m, 0 in air, and which of them every voxel has."""
    sigma = torch.where(conductor.tissue[:, None], conductor.sigma.to(dtype), 0.0)
    rows = sigma.movedim(1, -1).reshape(-1, 6)
    tensors, voxel = torch.unique(rows, dim=0, return_inverse=True)
    return tensors, voxel.view(len(sigma), *conductor.shape)


def _resistivity(
    conductor: Conductor, tensors: Float[Tensor, "T 6"], voxel: Int[Tensor, "B D H W"]
) -> Float[Tensor, "T 3 3"]:
    """sigma^-1 of every different tensor, ohm m; 0 in air.

    Raises
    ------
    ValueError
        A tensor in tissue that is not positive definite.
    """
    alive = (tensors != 0).any(dim=1)
    unit = torch.tensor([1.0, 1, 1, 0, 0, 0]).to(tensors)
    inverse = _inverse(torch.where(alive[:, None], tensors, unit))
    minors = torch.stack(
        [inverse[:, 0, 0], torch.linalg.det(inverse[:, :2, :2]), torch.linalg.det(inverse)]
    )
    bad = alive & ~((minors > 0) & minors.isfinite()).all(dim=0)
    if bool(bad.any()):
        b, d, h, w = (int(i) for i in bad[voxel].nonzero()[0])
        raise ValueError(
            f"sigma of sample {b} at voxel {(d, h, w)} is not positive definite: "
            f"{conductor.sigma[b, :, d, h, w].tolist()} S/m"
        )
    return inverse * alive[:, None, None]


def _kinds(
    round_corners: Int[Tensor, "BV 8"],
    tensors: int,
    end: Int[Tensor, " D_faces"],
    bodies: int,
    shape: Grid,
) -> Int[Tensor, " BV"]:
    """Kind of every corner: the eight tensors round it, the end it lies on and its sample."""
    sample = per_sample(torch.arange(bodies, device=end.device))
    corners = (n + 1 for n in shape)
    code = (3 * sample + along(end, 0)).expand(bodies, *corners).flatten()
    for number in range(8):
        _, code = torch.unique(code * (tensors + 1) + round_corners[:, number], return_inverse=True)
    return code


def _one_of_each(code: Int[Tensor, " BV"]) -> Int[Tensor, " N"]:
    """Number of a corner of each kind."""
    one = torch.zeros(int(code.max()) + 1, dtype=torch.long, device=code.device)
    return one.scatter_(0, code, torch.arange(len(code), device=code.device))


#: Either operator: the same interface.
Operator = FluxOperator | MultipointOperator


def operator_of(conductor: Conductor, dtype: torch.dtype = torch.float64) -> Operator:
    """The 7-point operator, or the 27-point one where a tensor of the batch is oblique."""
    if conductor.oblique:
        return MultipointOperator.of(conductor, dtype)
    return FluxOperator.of(conductor, dtype)
