r"""Trilinear finite elements on voxels: the weak form, written once for the solver, the losses and the residuals.

    a(phi, v) + int_ends beta sigma_DD phi v dS = I v(r_s),        a(phi, v) = int grad v . sigma grad phi dV             [A]

One hexahedron for each tissue voxel, nodes at voxel corners. Air is no element: zero flux at the skin is natural, and nodes without tissue
are no unknowns. sigma is constant in a voxel and may be a full tensor: this is where oblique fibres belong, which a 7-point stencil cannot
represent. All voxels are the same box, so that one 8 x 8 matrix for each tensor component makes the operator. Ends: grounded nodes are
no unknowns; robin is the boundary mass term above. (Hughes, The Finite Element Method, 2000, ch. 3; Braess, Finite Elements, 2007, ch. II.)

**Singularity subtraction.** phi = phi_inf + phi_c, with phi_inf the closed form in the medium at the source, sigma_inf. The current of
phi_inf is J_inf = I d / (4 pi sqrt(det sigma_inf) (d^T sigma_inf^-1 d)^(3/2)), and

    a(phi_c, v) = int S . grad v dV,        S = (sigma sigma_inf^-1 - 1) J_inf             (zero in the tissue of the source)

This is eq. 3.6 of Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24 (full subtraction: Drechsler et al., NeuroImage 46 (2009) 1055): their
surface integral over skin and cut faces is the same volume integral over the layer of air outside, where sigma = 0. What quadrature misses
of I (1e-5 or so) goes in at the electrode itself, so that the right-hand side carries exactly I.

Units: volts at nodes, amperes for what the operator makes of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from physics_hybrid.potential.physics.conductor import Conductor, Ends, face_positions
from physics_hybrid.potential.physics.operator import nodal_source, require_way_out, with_image
from physics_hybrid.potential.physics.point_source import (
    PointSource,
    infinite_medium,
    matrix,
    potential,
)

#: The corners of a voxel, in the order of all 8 x 8 matrices here.
CORNERS = tuple(product((0, 1), repeat=3))

#: Axes (a, b) of the components of sigma.
AXES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def element_matrices(spacing: Tensor) -> Tensor:
    """int d_a N_i d_b N_j dV over one voxel for the six components of sigma (a != b: both orders). (B, 3) -> (B, 6, 8, 8), metres."""
    def one(rows):
        return torch.tensor(rows, dtype=spacing.dtype, device=spacing.device)
    h = spacing[:, :, None, None]
    mass, stiffness = h * one([[2.0, 1.0], [1.0, 2.0]]) / 6, one([[1.0, -1.0], [-1.0, 1.0]]) / h
    slope = one([[-0.5, -0.5], [0.5, 0.5]]).expand_as(mass)  # int N_i' N_j
    out = []
    for a, b in AXES:
        factor = [mass[:, axis] for axis in range(3)]
        if a == b:
            factor[a] = stiffness[:, a]
        else:
            factor[a], factor[b] = slope[:, a], slope[:, b].mT
        K = torch.einsum("zil,zjm,zkn->zijklmn", *factor).reshape(-1, 8, 8)
        out.append(K if a == b else K + K.mT)
    return torch.stack(out, dim=1)


def end_matrix(spacing: Tensor) -> Tensor:
    """int N_i N_j dS over one voxel face of an end. (B, 3) -> (B, 4, 4), m^2."""
    line = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=spacing.dtype, device=spacing.device) / 6
    return torch.kron(line, line) * (spacing[:, 1] * spacing[:, 2]).view(-1, 1, 1)


def corners(nodes: Tensor) -> Tensor:
    """Node values (B, D+1, ...) at the corners of every voxel: (B, 8, D, H, W), or (B, 4, H, W) of every face of a plane."""
    axes = nodes.ndim - 1
    size = [n - 1 for n in nodes.shape[1:]]
    return torch.stack([nodes[(slice(None), *(slice(i, i + n) for i, n in zip(corner, size)))] for corner in product((0, 1), repeat=axes)], dim=1)


def gather_at_nodes(values: Tensor) -> Tensor:
    """The transpose of `corners`: what the voxels round a node bring to it, added up. (B, 8, D, H, W) -> (B, D+1, H+1, W+1)"""
    size = values.shape[2:]
    out = values.new_zeros(len(values), *(n + 1 for n in size))
    for c, corner in enumerate(product((0, 1), repeat=len(size))):
        out[(slice(None), *(slice(i, i + n) for i, n in zip(corner, size)))] += values[:, c]
    return out


def voxels_round_nodes(marked: Tensor) -> Tensor:
    """How many of the eight voxels round every node are marked. (B, D, H, W) -> (B, D+1, H+1, W+1)"""
    return gather_at_nodes(marked[:, None].expand(-1, 8, -1, -1, -1))


def lift(field: Tensor, tissue: Tensor) -> Tensor:
    """From voxel centres to nodes: the mean over the tissue voxels round a node, 0 where there are none. (B, D, H, W) -> (B, D+1, H+1, W+1)"""
    count = voxels_round_nodes(tissue.to(field.dtype))
    return voxels_round_nodes(torch.where(tissue, field, 0.0)) / count.clamp_min(1)


@dataclass(frozen=True)
class ElementOperator:
    """phi at nodes (K, D+1, H+1, W+1) in volts -> current out of every node in amperes; matrix-free, differentiable.

    sigma : Tensor (B, C, D, H, W), S/m, 0 in air; C = 1, 3 or 6. B = K, or 1.
    spacing : Tensor (B, 3), metres.
    ends : Ends
    """

    sigma: Tensor
    spacing: Tensor
    ends: Ends

    @classmethod
    def of(cls, conductor: Conductor, dtype: torch.dtype = torch.float64) -> ElementOperator:
        """
        Raises
        ------
        ValueError
            Where tissue does not reach an end that should carry the current away.
        """
        require_way_out(conductor)
        return cls(conductor.sigma.to(dtype) * conductor.tissue[:, None], conductor.spacing.to(dtype), conductor.ends)

    def to(self, dtype: torch.dtype) -> ElementOperator:
        return ElementOperator(self.sigma.to(dtype), self.spacing.to(dtype), self.ends)

    @property
    def tissue(self) -> Tensor:
        return self.sigma[:, 0] > 0

    @cached_property
    def matrices(self) -> Tensor:
        """The element matrices of the components that sigma has. (B, C, 8, 8)"""
        K = element_matrices(self.spacing)
        components = self.sigma.shape[1]
        return K[:, :3].sum(dim=1, keepdim=True) if components == 1 else K[:, :components]

    @cached_property
    def in_tissue(self) -> Tensor:
        """Nodes that touch tissue. (B, D+1, H+1, W+1) bool"""
        return voxels_round_nodes(self.tissue.to(self.sigma.dtype)) > 0

    @cached_property
    def free(self) -> Tensor:
        """Nodes whose potential is unknown: those in tissue that are not grounded. (B, D+1, H+1, W+1) bool"""
        free = self.in_tissue.clone()
        if self.ends.kind == "grounded":
            free[:, [0, -1]] = False
        return free

    @cached_property
    def diagonal(self) -> Tensor:
        """Diagonal of the operator, A/V; 0 in air. (B, D+1, H+1, W+1)"""
        entries = torch.diagonal(self.matrices, dim1=-2, dim2=-1)
        out = gather_at_nodes(torch.einsum("zcdhw,zci->zidhw", self.sigma, entries))
        if self.ends.kind == "robin":
            entry = torch.diagonal(end_matrix(self.spacing), dim1=-2, dim2=-1)[:, :, None, None]
            for end in (0, -1):
                out[:, end] += gather_at_nodes(self.ends.beta * self.sigma[:, :1, end] * entry)
        return out

    def stiffness(self, phi: Tensor) -> Tensor:
        """a(phi, N_i): the current that leaves node i through the tissue, A. (K, D+1, H+1, W+1)"""
        at_corners = corners(phi).flatten(2)
        sigma = self.sigma.flatten(2)
        currents = sum(sigma[:, c : c + 1] * (self.matrices[:, c] @ at_corners) for c in range(sigma.shape[1]))
        return gather_at_nodes(currents.unflatten(2, self.sigma.shape[2:]))

    def exchange(self, phi: Tensor) -> Tensor:
        """int beta sigma_DD phi N_i dS: the current that leaves the body at node i through a robin end, A. (K, D+1, H+1, W+1)"""
        out = torch.zeros_like(phi)
        if self.ends.kind == "robin":
            M = end_matrix(self.spacing)
            for end in (0, -1):
                plane = (M @ corners(phi[:, end]).flatten(2)).unflatten(2, self.sigma.shape[3:])
                out[:, end] += gather_at_nodes(self.ends.beta * self.sigma[:, :1, end] * plane)
        return out

    def __call__(self, phi: Tensor) -> Tensor:
        """Stiffness and exchange together: the matrix that finite elements assemble. (K, D+1, H+1, W+1)"""
        return self.stiffness(phi) + self.exchange(phi)


@dataclass(frozen=True)
class ElementSource:
    """What is known about the sources of a batch before anything is solved; all of B conductors, or K sources for one.

    phi_inf : Tensor (K, D+1, H+1, W+1)
        Closed-form part at nodes, volts; 0 where there is no tissue, and everywhere for a nodal source.
    centres : Tensor (K, D, H, W)
        The same at voxel centres.
    load : Tensor (K, D+1, H+1, W+1)
        Right-hand side, amperes: its sum is the current injected, less what leaves evenly (ends: sink). Only its values at free nodes mean something.
    """

    phi_inf: Tensor
    centres: Tensor
    load: Tensor

    @classmethod
    def of(cls, conductor: Conductor, operator: ElementOperator, source: PointSource, singularity: str = "subtraction") -> ElementSource:
        """Point electrodes: in closed form (`subtraction`), or as I N_i(r_s) (`nodal`). sigma_inf is that of the best conductor within `BETTER_WITHIN` voxels of the electrode.

        Raises
        ------
        ValueError
            Where an electrode lies outside the grid or in air, the second electrode of a pair is missing, or not asked for; where
            sigma at the electrode is no positive definite tensor; for another `singularity`.
        """
        if singularity not in ("subtraction", "nodal"):
            raise ValueError(f"singularity must be 'subtraction' or 'nodal'; got {singularity!r}")
        source = source.to(operator.spacing.dtype)
        nodal_source(conductor, source)  # refuses what has no solution
        phi_inf = centres = load = 0.0
        for electrode in source.electrodes:
            charges, sigma_inf = with_image(conductor, electrode, BETTER_WITHIN)
            at_electrode = _trilinear(conductor, charges[0].point, electrode.point)
            if singularity == "nodal":
                load = load + at_electrode * electrode.current.view(-1, 1, 1, 1)
                continue
            if bool((torch.linalg.eigvalsh(matrix(sigma_inf).cpu()) <= 0).any()):
                raise ValueError(f"sigma at an electrode must be a positive definite tensor (DD, HH, WW, DH, DW, HW); got {sigma_inf.tolist()} S/m")
            for charge in charges:
                part = _subtraction_load(operator, charge, sigma_inf) * operator.in_tissue
                if charge is charges[0]:
                    part = part + (charge.current - part.sum(dim=(1, 2, 3))).view(-1, 1, 1, 1) * at_electrode
                load = load + part
                phi_inf = phi_inf + _at_nodes(operator, charge, sigma_inf)
                centres = centres + infinite_medium(conductor.shape, operator.spacing.expand(len(charge.point), 3), charge, sigma_inf) * operator.tissue
        if singularity == "nodal":
            phi_inf, centres = torch.zeros_like(load), load.new_zeros(len(load), *conductor.shape)
        if conductor.ends.kind == "sink":
            share = voxels_round_nodes(operator.tissue.to(load.dtype))
            load = load - source.current.view(-1, 1, 1, 1) * share / share.sum(dim=(1, 2, 3), keepdim=True)
        return cls(phi_inf, centres, load)

    def to(self, dtype: torch.dtype) -> ElementSource:
        return ElementSource(self.phi_inf.to(dtype), self.centres.to(dtype), self.load.to(dtype))

    def residual(self, operator: ElementOperator, nodes: Tensor) -> Tensor:
        """a(phi - phi_inf, N_i) + exchange(phi) - load, A, at free nodes and 0 elsewhere: zero where phi (K, D+1, H+1, W+1) is the solution.

        Its sum over the nodes of any box is the current that leaves the box, less the current injected in it.
        """
        r = operator.stiffness(nodes - self.phi_inf) + operator.exchange(nodes) - self.load
        return torch.where(operator.free, r, 0.0)

    def at_centres(self, nodes: Tensor) -> Tensor:
        """Values at voxel centres: the mean of phi - phi_inf over the eight nodes, plus phi_inf there. (K, D, H, W)"""
        return corners(nodes - self.phi_inf).mean(dim=1) + self.centres


def bending(conductor: Conductor, source: PointSource) -> Tensor:
    """phi_inf at voxel centres less the mean of its values at their nodes, V: what `ElementSource.at_centres` adds to the mean of the nodes. (K, D, H, W)

    Large where the medium at an electrode conducts far less than the rest: phi_inf is then far larger than phi.
    """
    operator, out = ElementOperator.of(conductor), 0.0
    for electrode in source.to(operator.spacing.dtype).electrodes:
        charges, sigma_inf = with_image(conductor, electrode, BETTER_WITHIN)
        for charge in charges:
            centres = infinite_medium(conductor.shape, operator.spacing.expand(len(charge.point), 3), charge, sigma_inf)
            out = out + (centres - corners(_at_nodes(operator, charge, sigma_inf)).mean(dim=1)) * operator.tissue
    return out


def _trilinear(conductor: Conductor, held: Tensor, point: Tensor) -> Tensor:
    """N_i(r_s) at all nodes, r_s = point (K, 3) m in the voxel that holds `held`, or on its face. (K, D+1, H+1, W+1)"""
    index = conductor.voxel_of(held)
    fraction = point / conductor.spacing.to(point) - index
    out = point.new_zeros(len(point), *(n + 1 for n in conductor.shape))
    rows = torch.arange(len(out), device=out.device)
    for corner in CORNERS:
        step = torch.tensor(corner, device=out.device)
        out[(rows, *(index + step).unbind(dim=1))] = torch.where(step == 1, fraction, 1 - fraction).prod(dim=1)
    return out


def _at_nodes(operator: ElementOperator, source: PointSource, sigma_inf: Tensor) -> Tensor:
    """phi_inf at the nodes in tissue; within 0.1 voxel of the electrode it is the value there, as in `infinite_medium`. V"""
    offsets = []
    for axis in range(3):
        view = [-1, 1, 1, 1]
        view[axis + 1] = operator.sigma.shape[axis + 2] + 1
        offsets.append((face_positions(view[axis + 1] - 1, operator.spacing[:, axis]) - source.point[:, axis, None]).view(view))
    return potential(offsets, source.current, sigma_inf, clamp=0.1 * operator.spacing.min(dim=1).values) * operator.in_tissue


#: The closed form belongs to the best conductor so near the electrode, in voxels: just inside a poor one its own is far larger than phi. (In bone, 0.1 voxels
#: from muscle, 6 % against 0.9 % beyond 3 voxels. Finite volumes lose more than they gain by this, and so do elements from the centre of a voxel of skin.)
BETTER_WITHIN = 0.49

#: Quadrature of S . grad v: Gauss points for each axis of a voxel, and of the rule for the voxels within NEAR of the electrode, which
#: is split at the electrode and graded towards it (points at distance ~ xi^GRADING), since there S may rise as 1/r^2.
FAR_POINTS = 2
NEAR_POINTS = 8
GRADING = 3
NEAR = 2

#: Quadrature points handled at once: bounds the memory.
CHUNK = 4_000_000


def _gauss(points: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre points and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(points)
    return torch.from_numpy((x + 1) / 2).to(like), torch.from_numpy(w / 2).to(like)


def _plain_rule(low: Tensor, high: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    x, w = _gauss(FAR_POINTS, low)
    return low[..., None] + (high - low)[..., None] * x, (high - low)[..., None] * w


def _graded_rule(low: Tensor, high: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Points and weights (..., 2 NEAR_POINTS) on [low, high], split where it is closest to `at` and graded towards that point."""
    x, w = _gauss(NEAR_POINTS, low)
    middle = torch.minimum(torch.maximum(at, low), high)[..., None]
    x, w = x**GRADING, GRADING * x ** (GRADING - 1) * w
    below, above = middle - low[..., None], high[..., None] - middle
    return torch.cat([middle - below * x, middle + above * x], dim=-1), torch.cat([below * w, above * w], dim=-1)


def _subtraction_load(operator: ElementOperator, source: PointSource, sigma_inf: Tensor) -> Tensor:
    """int S . grad N_i dV over the voxels of the grid and of a layer of air round it, A. (K, D+1, H+1, W+1)"""
    count = len(source.point)
    spacing = operator.spacing.expand(count, 3)
    inverse = torch.linalg.inv(matrix(sigma_inf))
    shape = tuple(n + 2 for n in operator.sigma.shape[2:])
    faces = [face_positions(n, spacing[:, axis]) - spacing[:, axis, None] for axis, n in enumerate(shape)]
    voxel = torch.floor(source.point / spacing).long() + 1
    sigma = F.pad(operator.sigma, (1,) * 6)

    near = [voxel[:, axis, None] + torch.arange(-NEAR, NEAR + 1, device=voxel.device) for axis in range(3)]
    inside = _outer(lambda a, b, c: a & b & c, *((i >= 0) & (i < n) for i, n in zip(near, shape)))
    near = [i.clamp(0, n - 1) for i, n in zip(near, shape)]
    rows = torch.arange(count, device=voxel.device).view(-1, 1, 1, 1)
    where = _outer(lambda *i: torch.broadcast_tensors(*i), *near)
    excess = _excess(sigma[(rows % len(sigma), slice(None), *where)].movedim(-1, 1), inverse, inside)
    low, high = ([torch.gather(f, 1, i + side) for f, i in zip(faces, near)] for side in (0, 1))
    box = _loads(low, high, excess, source, inverse, _graded_rule)

    # an image may lie so far outside that indices were clamped: what is no neighbour of it stays far
    far = torch.zeros(count, *shape, dtype=torch.int32, device=voxel.device).index_put_((rows, *where), inside.int(), accumulate=True) == 0
    out = sigma.new_zeros(count, *(n + 1 for n in shape))
    step = max(1, CHUNK // (count * shape[1] * shape[2] * FAR_POINTS**3))
    low, high = [f[:, :-1] for f in faces], [f[:, 1:] for f in faces]
    for start in range(0, shape[0], step):
        planes = slice(start, start + step)
        excess = _excess(sigma[:, :, planes], inverse, far[:, planes])
        loads = _loads([low[0][:, planes], *low[1:]], [high[0][:, planes], *high[1:]], excess, source, inverse, _plain_rule)
        out[:, start : start + loads.shape[2] + 1] += gather_at_nodes(loads)
    for c, corner in enumerate(CORNERS):
        out.index_put_((rows, *(i + step for i, step in zip(where, corner))), box[:, c], accumulate=True)
    return out[:, 1:-1, 1:-1, 1:-1]


def _outer(join, d: Tensor, h: Tensor, w: Tensor):
    """join of three (K, n) tensors, one for each axis of a grid."""
    return join(d[:, :, None, None], h[:, None, :, None], w[:, None, None, :])


def _excess(sigma: Tensor, inverse: Tensor, counted: Tensor) -> Tensor:
    """sigma sigma_inf^-1 - 1 in the voxels that are counted, 0 in others: (K, D, H, W, 3) where sigma is diagonal, else (K, D, H, W, 3, 3)."""
    sigma = sigma.movedim(1, -1)
    if sigma.shape[-1] < 6:
        return (sigma * torch.diagonal(inverse, dim1=1, dim2=2)[:, None, None, None] - 1) * counted[..., None]
    return (matrix(sigma) @ inverse[:, None, None, None] - torch.eye(3).to(sigma)) * counted[..., None, None]


def _loads(low, high, excess: Tensor, source: PointSource, inverse: Tensor, rule) -> Tensor:
    """int S . grad N_i dV for the voxels between `low` and `high` (three (K, n) each): (K, 8, D, H, W), A.

    J_inf is parallel to d, so that each of its components is one scalar field times a function of one coordinate: all integrals
    are contractions of that field, axis by axis.
    """
    offset, shapes, slopes = [], [], []
    for axis in range(3):
        at = source.point[:, axis, None]
        x, w = rule(low[axis], high[axis], at)
        h = (high[axis] - low[axis])[..., None]
        t = (x - low[axis][..., None]) / h
        offset.append(x - at[..., None])
        shapes.append(torch.stack([1 - t, t], dim=-1) * w[..., None])
        slopes.append(torch.stack([-w / h, w / h], dim=-1))
    square = 0.0
    def view(values, axis):
        return values.view(len(values), *(n for a in range(3) for n in (values.shape[1:] if a == axis else (1, 1))))
    d = [view(o, axis) for axis, o in enumerate(offset)]
    for a, b in AXES if excess.ndim == 6 else AXES[:3]:
        square = square + (1 if a == b else 2) * inverse[:, a, b].view(-1, *[1] * 6) * d[a] * d[b]
    strength = source.current * torch.linalg.det(inverse).sqrt() / (4 * math.pi)
    field = strength.view(-1, *[1] * 6) * square.clamp_min(torch.finfo(square.dtype).tiny ** 0.5) ** -1.5

    total = 0.0
    for a in range(3):  # component of grad v
        for b in range(3) if excess.ndim == 6 else (a,):  # component of J_inf
            weights = [(slopes if axis == a else shapes)[axis] * (offset[axis][..., None] if axis == b else 1.0) for axis in range(3)]
            value = torch.einsum("kdphqwr,kwrc->kdphqwc", field, weights[2])
            value = torch.einsum("kdphqwc,khqb->kdphbwc", value, weights[1])
            value = torch.einsum("kdphbwc,kdpa->kabcdhw", value, weights[0]).flatten(1, 3)
            total = total + (excess[..., a, b] if excess.ndim == 6 else excess[..., a])[:, None] * value
    return total
