r"""Point sources in an infinite homogeneous medium: the closed forms behind everything.

    isotropic     phi = I / (4 pi sigma |d|)                                     [V]
    anisotropic   phi = I / (4 pi sqrt(det sigma) sqrt(d^T sigma^-1 d))          [V]

with d = r - r_s in metres and I in amperes. (Plonsey and Barr, Bioelectricity, 3rd ed. 2007, eq. 2.19; for
the tensor: Nicholson, Exp. Neurol. 84 (1984) 386, eq. 3.) `softening` replaces |d| by sqrt(|d|^2 + eps^2).

The current through a rectangular voxel face is known exactly, too. In coordinates stretched by
1/sqrt(sigma_a) the medium is isotropic and the face stays a rectangle, so that the current is I Omega / (4 pi)
with Omega the solid angle of the stretched face, a sum of four arctangents over its corners
(Van Oosterom and Strackee, IEEE TBME 30 (1983) 125; for rectangles Mathar 2015). Currents through the six
faces of any box round the source then add up to I to rounding: this is what makes the discretisation conserve charge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.potential.physics.conductor import ON_FACE, face_positions, offsets_from


@dataclass(frozen=True)
class PointSource:
    """Point electrodes, one for each sample of a batch.

    point : Tensor (B, 3), metres from the outer corner of voxel (0, 0, 0).
    current : Tensor (B,), amperes.
    returns : Tensor (B, 3) or None
        Where a second electrode takes the current out again (ends: pair), metres.
    """

    point: Tensor
    current: Tensor
    returns: Tensor | None = None

    def __post_init__(self):
        if self.point.ndim != 2 or self.point.shape[1] != 3 or self.current.shape != self.point.shape[:1]:
            raise ValueError(
                f"a source needs point (B, 3) and current (B,); got {tuple(self.point.shape)} and {tuple(self.current.shape)}"
            )
        if self.returns is not None and self.returns.shape != self.point.shape:
            raise ValueError(f"the returning electrodes need shape {tuple(self.point.shape)}, as point; got {tuple(self.returns.shape)}")
        if not bool(torch.isfinite(self.point).all() & torch.isfinite(self.current).all()):
            raise ValueError("source point (m) and current (A) must be finite")

    def to(self, dtype: torch.dtype) -> PointSource:
        return PointSource(self.point.to(dtype), self.current.to(dtype), None if self.returns is None else self.returns.to(dtype))

    @property
    def electrodes(self) -> list[PointSource]:
        """The one electrode, or the two of a pair with currents of opposite sign."""
        if self.returns is None:
            return [self]
        return [PointSource(self.point, self.current), PointSource(self.returns, -self.current)]


def matrix(sigma: Tensor) -> Tensor:
    """The tensors as matrices: (..., C) with C = 1, 3 or 6 (DD, HH, WW, DH, DW, HW) -> (..., 3, 3)."""
    if sigma.shape[-1] < 6:
        return torch.diag_embed(sigma.expand(*sigma.shape[:-1], 3))
    DD, HH, WW, DH, DW, HW = sigma.unbind(dim=-1)
    return torch.stack([DD, DH, DW, DH, HH, HW, DW, HW, WW], dim=-1).unflatten(-1, (3, 3))


def potential(offsets: list[Tensor], current: Tensor, sigma: Tensor, softening: Tensor | float = 0.0, clamp: Tensor | float = 0.0) -> Tensor:
    """Potential in volts of a point source in an infinite medium.

    Parameters
    ----------
    offsets : three tensors broadcastable to (B, D, H, W)
        Components of d = r - r_s in metres.
    current : Tensor (B,)
        Amperes.
    sigma : Tensor (B, C)
        S/m; C = 1 scalar, 3 diagonal, 6 symmetric (DD, HH, WW, DH, DW, HW).
    softening, clamp : Tensor (B,) or float
        Length in metres: |d| becomes sqrt(|d|^2 + softening^2), and never falls below `clamp`. In a tensor
        medium lengths are measured as (det sigma)^(1/6) sqrt(d^T sigma^-1 d), which is |d| in an isotropic one.

    Returns
    -------
    Tensor (B, D, H, W)
    """
    def column(value):
        return torch.as_tensor(value, dtype=sigma.dtype, device=sigma.device).reshape(-1, 1, 1, 1)
    components = sigma.shape[1]
    if components == 1:
        mean = sigma[:, 0]
        square = sum(d**2 for d in offsets)
    elif components == 3:
        determinant = sigma.prod(dim=1)
        mean = determinant ** (1 / 3)
        square = sum(d**2 * column(mean / sigma[:, a]) for a, d in enumerate(offsets))
    else:
        mean = torch.linalg.det(matrix(sigma)) ** (1 / 3)
        inverse = torch.linalg.inv(matrix(sigma)) * mean[:, None, None]
        square = sum(column(inverse[:, a, b]) * offsets[a] * offsets[b] for a in range(3) for b in range(3))
    length = torch.sqrt(square + column(softening) ** 2).clamp_min(torch.finfo(sigma.dtype).tiny)
    length = torch.maximum(length, column(clamp))
    return column(current) / (4 * math.pi * column(mean) * length)


def face_current_density(shape: Grid, spacing: Tensor, source: PointSource, sigma: Tensor) -> list[Tensor]:
    """Mean normal current density J_a = -sigma_a d phi_inf / d a over every voxel face, exact. [A/m^2]

    A point in the plane of a face (within `ON_FACE`) belongs to the voxel above it, as in `Conductor.voxel_of`.

    Parameters
    ----------
    shape : grid (D, H, W)
    spacing : Tensor (B, 3), metres
    source : PointSource
    sigma : Tensor (B, C), conductivity of the infinite medium, S/m, C = 1, 3 or 6

    Returns
    -------
    Three tensors, (B, D+1, H, W), (B, D, H+1, W), (B, D, H, W+1): positive along the positive axis.
    """
    oblique = sigma.shape[1] == 6 and bool((sigma[:, 3:] != 0).any())
    stretch = sigma[:, :3].expand(-1, 3).rsqrt() if not oblique else torch.ones_like(sigma[:, :3])
    corner = []
    for axis in range(3):
        position = face_positions(shape[axis], spacing[:, axis]) - source.point[:, axis, None]
        nudge = ON_FACE * spacing[:, axis, None]
        position = torch.where(position.abs() < nudge, -nudge, position) * stretch[:, axis, None]
        view = [len(spacing), 1, 1, 1]
        view[axis + 1] = shape[axis] + 1
        corner.append(position.view(view))
    if oblique:
        return _through_parallelograms(corner, spacing, source.current, sigma)
    radius = torch.sqrt(corner[0] ** 2 + corner[1] ** 2 + corner[2] ** 2)
    out = []
    for axis in range(3):
        u, v = (corner[a] for a in range(3) if a != axis)
        angle = torch.atan(u * v / (corner[axis] * radius))
        others = [a + 1 for a in range(3) if a != axis]
        solid_angle = torch.diff(torch.diff(angle, dim=others[0]), dim=others[1])
        area = spacing.prod(dim=1) / spacing[:, axis]
        out.append((source.current / (4 * math.pi * area)).view(-1, 1, 1, 1) * solid_angle)
    return out


def _through_parallelograms(corner: list[Tensor], spacing: Tensor, current: Tensor, sigma: Tensor) -> list[Tensor]:
    """`face_current_density` where the tensor turns faces into parallelograms: the solid angle of two triangles each
    (Van Oosterom and Strackee, 1983, eq. 8). corner : offsets of the voxel corners from the source along each axis, metres."""
    root = torch.linalg.cholesky(matrix(sigma))
    unstretch = torch.linalg.inv(root)
    offsets = torch.stack(torch.broadcast_tensors(*corner), dim=-1)
    x = (unstretch[:, None, None, None] @ offsets[..., None])[..., 0]
    out = []
    for axis in range(3):
        u, v = ((axis + 1) % 3, (axis + 2) % 3)  # right-handed: u x v points along the axis

        def at(i: int, j: int) -> Tensor:
            part = x.narrow(u + 1, i, x.shape[u + 1] - 1)
            return part.narrow(v + 1, j, x.shape[v + 1] - 1)

        a, b, c, d = at(0, 0), at(1, 0), at(1, 1), at(0, 1)
        solid_angle = _triangle(a, b, c) + _triangle(a, c, d)
        area = spacing.prod(dim=1) / spacing[:, axis]
        out.append((current / (4 * math.pi * area)).view(-1, 1, 1, 1) * solid_angle)
    return out


def _triangle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Solid angle of a triangle seen from the origin, positive where its normal (b - a) x (c - a) points away."""
    def dot(p, q):
        return (p * q).sum(dim=-1)
    la, lb, lc = (p.norm(dim=-1) for p in (a, b, c))
    return 2 * torch.atan2(dot(a, torch.linalg.cross(b, c)), la * lb * lc + dot(a, b) * lc + dot(a, c) * lb + dot(b, c) * la)


def infinite_medium(shape: Grid, spacing: Tensor, source: PointSource, sigma: Tensor, clamp: float = 0.1) -> Tensor:
    """Potential (B, D, H, W) of the source at voxel centres; within `clamp` voxels of the source it is the value there.

    The infinite value at the electrode itself is thereby the potential on a small sphere, radius 0.1 voxel.
    """
    smallest = spacing.min(dim=1).values
    return potential(offsets_from(source.point, shape, spacing), source.current, sigma, clamp=clamp * smallest)
