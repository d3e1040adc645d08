r"""Point sources in an infinite homogeneous medium: the closed forms behind everything.

    isotropic     phi = I / (4 pi sigma |d|)                                     [V]
    anisotropic   phi = I / (4 pi sqrt(det sigma) sqrt(d^T sigma^-1 d))          [V]

with d = r - r_s in metres and I in amperes. (Plonsey and Barr, Bioelectricity, 3rd ed. 2007, eq.
2.19; for the tensor: Nicholson, Exp. Neurol. 84 (1984) 386, eq. 3.) `softening` replaces |d| by
sqrt(|d|^2 + eps^2).

The current through a rectangular voxel face is known exactly, too. In coordinates stretched by
1/sqrt(sigma_a) the medium is isotropic and the face stays a rectangle, so that the current is
I Omega / (4 pi) with Omega the solid angle of the stretched face, a sum of four arctangents over
its corners (Van Oosterom and Strackee, IEEE TBME 30 (1983) 125; for rectangles Mathar 2015).
Currents through the six faces of any box round the source then add up to I to rounding: this is
what makes the discretisation conserve charge.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import Grid, along, others, per_sample
from physics_hybrid.problems.potential.physics.conductor import (
    ON_FACE,
    Faces,
    face_positions,
    matrix,
    offsets_from,
)
from physics_hybrid.problems.potential.physics.electrodes import PointSource


def potential(
    offsets: Sequence[Float[Tensor, "..."]],
    current: Float[Tensor, " K"],
    sigma: Float[Tensor, "K C"],
    softening: Tensor | float | int = 0.0,
    clamp: Tensor | float | int = 0.0,
) -> Float[Tensor, "_ D H W"]:
    """Potential in volts of a point source in an infinite medium.

    Parameters
    ----------
    offsets : three tensors broadcastable to (K, D, H, W)
        Components of d = r - r_s in metres.
    current : Tensor (K,)
        Amperes.
    sigma : Tensor (K, C)
        S/m; C = 1 scalar, 3 diagonal, 6 symmetric (DD, HH, WW, DH, DW, HW).
    softening, clamp : Tensor (K,) or float
        Length in metres: |d| becomes sqrt(|d|^2 + softening^2), and never falls below `clamp`. In a
        tensor medium lengths are measured as (det sigma)^(1/6) sqrt(d^T sigma^-1 d), which is |d|
        in an isotropic one.

    Returns
    -------
    Tensor (K, D, H, W)
    """

    def column(value: Tensor | float) -> Tensor:
        """A length for each sample, or one for all, shaped to meet a field."""
        return per_sample(torch.as_tensor(value, dtype=sigma.dtype, device=sigma.device))

    mean, square = _mean_and_square(offsets, sigma)
    # clamped below the root: at the source itself it has a derivative, too
    least = (column(clamp) ** 2).clamp_min(torch.finfo(sigma.dtype).tiny)
    length = torch.sqrt(torch.maximum(square + column(softening) ** 2, least))
    return column(current / (4 * math.pi * mean)) / length


def _mean_and_square(
    offsets: Sequence[Float[Tensor, "..."]], sigma: Float[Tensor, "K C"]
) -> tuple[Float[Tensor, " K"], Float[Tensor, "..."]]:
    """mean = (det sigma)^(1/3) in S/m, and the square of the length, mean d^T sigma^-1 d in m^2."""
    d, h, w = offsets
    components = sigma.shape[1]
    if components == 1:
        return sigma[:, 0], d**2 + h**2 + w**2
    square = sigma.new_zeros(())
    if components == 3:
        mean = sigma.prod(dim=1) ** (1 / 3)
        for axis, offset in enumerate(offsets):
            square = square + offset**2 * per_sample(mean / sigma[:, axis])
        return mean, square
    mean = torch.linalg.det(matrix(sigma)) ** (1 / 3)
    inverse = torch.linalg.inv(matrix(sigma)) * mean[:, None, None]
    for a in range(3):
        for b in range(3):
            square = square + per_sample(inverse[:, a, b]) * offsets[a] * offsets[b]
    return mean, square


def face_current_density(
    shape: Grid,
    spacing: Float[Tensor, "K 3"],
    source: PointSource,
    sigma: Float[Tensor, "K C"],
    arctan: Callable[[Tensor], Tensor] = torch.atan,
) -> Faces:
    """Mean normal current density J_a = -sigma_a d phi_inf / d a over every voxel face, exact.

    A point in the plane of a face (within `ON_FACE`) belongs to the voxel above it, as in
    `Conductor.voxel_of`.

    Parameters
    ----------
    shape : grid (D, H, W)
    spacing : Tensor (K, 3), metres
    source : PointSource
    sigma : Tensor (K, C), conductivity of the infinite medium, S/m, C = 1, 3 or 6
    arctan : of every element; where nothing is differentiated, any will do

    Returns
    -------
    Three tensors, (K, D+1, H, W), (K, D, H+1, W), (K, D, H, W+1), A/m^2: positive along the
    positive axis.
    """
    if sigma.shape[1] == 6 and bool((sigma[:, 3:] != 0).any()):
        corner = _corners(shape, spacing, source, torch.ones_like(sigma[:, :3]))
        angles = _of_parallelograms(corner, sigma)
    else:
        corner = _corners(shape, spacing, source, sigma[:, :3].expand(-1, 3).rsqrt())
        angles = _of_rectangles(corner, arctan)
    volume = spacing.prod(dim=1)
    d, h, w = (
        per_sample(source.current / (4 * math.pi * (volume / spacing[:, axis]))) * angle
        for axis, angle in enumerate(angles)
    )
    return d, h, w


def _corners(
    shape: Grid,
    spacing: Float[Tensor, "K 3"],
    source: PointSource,
    stretch: Float[Tensor, "K 3"],
) -> list[Tensor]:
    """Offsets of the voxel corners from the source, each along its own axis, in metres times
    `stretch`; none is 0."""
    corners = []
    for axis in range(3):
        position = face_positions(shape[axis], spacing[:, axis]) - source.point[:, axis, None]
        nudge = ON_FACE * spacing[:, axis, None]
        off_plane = torch.where(position.abs() < nudge, -nudge, position)
        corners.append(along(off_plane * stretch[:, axis, None], axis))
    return corners


def _of_rectangles(corner: list[Tensor], arctan: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Solid angles of the faces, which the stretch along the axes leaves rectangles.

    A rectangle from the foot of the perpendicular to (u, v), at the distance w: atan(u v / (w r)).
    """
    radius = torch.sqrt(corner[0] ** 2 + corner[1] ** 2 + corner[2] ** 2)
    d, h, w = corner
    seen_d = arctan(h * w / (d * radius))
    seen_h = arctan(d * w / (h * radius))
    # from one corner of a box the three far faces are an eighth of all there is to see
    octant = (math.pi / 2) * d.sign() * (h.sign() * w.sign())
    angles = []
    for axis, angle in enumerate((seen_d, seen_h, octant - seen_d - seen_h)):
        first, second = others(axis)
        angles.append(torch.diff(torch.diff(angle, dim=first), dim=second))
    return angles


def _of_parallelograms(corner: list[Tensor], sigma: Float[Tensor, "K 6"]) -> list[Tensor]:
    """Solid angles of the faces where the tensor turns them into parallelograms, two triangles
    each."""
    root = torch.linalg.cholesky(matrix(sigma))
    unstretch = torch.linalg.inv(root)
    count = len(corner[0])
    shape = [c.shape[axis + 1] for axis, c in enumerate(corner)]
    offsets = torch.stack([c.expand(count, *shape) for c in corner], dim=-1)
    x = (unstretch[:, None, None, None] @ offsets[..., None])[..., 0]
    return [_of_faces(x, axis) for axis in range(3)]


def _of_faces(corner: Float[Tensor, "K D H W 3"], axis: int) -> Float[Tensor, "K _ _ _"]:
    """Solid angles of the faces normal to an axis, from the places of their corners."""
    # right-handed: u x v points along the axis
    u, v = (axis + 1) % 3 + 1, (axis + 2) % 3 + 1
    before, after = (corner.narrow(u, i, corner.shape[u] - 1) for i in (0, 1))
    size = corner.shape[v] - 1
    a, d = before.narrow(v, 0, size), before.narrow(v, 1, size)
    b, c = after.narrow(v, 0, size), after.narrow(v, 1, size)
    return _of_triangle(a, b, c) + _of_triangle(a, c, d)


def _of_triangle(
    a: Float[Tensor, "*n 3"], b: Float[Tensor, "*n 3"], c: Float[Tensor, "*n 3"]
) -> Float[Tensor, "*n"]:
    """Solid angle of a triangle seen from the origin, positive where its normal
    (b - a) x (c - a) points away. (Van Oosterom and Strackee, 1983, eq. 8)"""

    def dot(p: Tensor, q: Tensor) -> Tensor:
        """Scalar product of vectors."""
        return (p * q).sum(dim=-1)

    la, lb, lc = (torch.linalg.vector_norm(p, dim=-1) for p in (a, b, c))
    volume = dot(a, torch.linalg.cross(b, c))
    return 2 * torch.atan2(volume, la * lb * lc + dot(a, b) * lc + dot(a, c) * lb + dot(b, c) * la)


def infinite_medium(
    shape: Grid,
    spacing: Float[Tensor, "K 3"],
    source: PointSource,
    sigma: Float[Tensor, "K C"],
    clamp: float = 0.1,
) -> Float[Tensor, "K D H W"]:
    """Potential of the source at voxel centres, V; within `clamp` voxels of the source it is the
    value there.

    The infinite value at the electrode itself is thereby the potential on a small sphere, radius
    0.1 voxel.
    """
    smallest = spacing.min(dim=1).values
    offsets = offsets_from(source.point, shape, spacing)
    return potential(offsets, source.current, sigma, clamp=clamp * smallest)
