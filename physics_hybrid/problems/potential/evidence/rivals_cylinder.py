r"""A limb of four layers with known solution: on voxels, and on a mesh that follows its surfaces.

The layered cylinder of `exact/cases.py`. On voxels its layers are staircases, and the error is
theirs, whatever the solver; NGSolve is given the surfaces themselves, which no image has. It solves
the same problem: the closed form of an infinite medium like muscle, phi_inf, is taken out and

    int grad v . sigma grad phi_c = -int grad v . (sigma - sigma_inf) grad phi_inf
                                    -int_mantle v n . sigma_inf grad phi_inf

with phi_c = -phi_inf on the ends (Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24, eq. 3.6).

Errors are relative L2 beyond 10 mm of the electrode, at the voxel centres where the series is known
(`cases.cylinder`: not in the ring of the electrode's radius). Reading values off there is in no
one's seconds.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from physics_hybrid.problems.potential.evidence.rivals_clock import clocked
from physics_hybrid.problems.potential.evidence.rivals_voxels import (
    ELEMENTS,
    OURS,
    Limb,
    elements_in_parts,
    ours_in_parts,
)
from physics_hybrid.problems.potential.exact.cases import (
    LIMB_LENGTH,
    LIMB_RADII,
    LIMB_SIGMA,
    TISSUES,
    Posed,
    cylinder,
    relative_l2,
)
from physics_hybrid.problems.potential.physics.conductor import distance_from

#: Metres from the electrode beyond which solutions are compared.
BEYOND = 0.010

#: Metres below the skin's surface where a mesh of curved elements surely is.
BELOW_SKIN = 1e-4

#: Relative residual: far below what any of these meshes is wrong by.
TOLERANCE = 1e-6

#: NGSolve follows the surfaces at least by parabolas, also where it is of order 1.
CURVED = 2

#: Degrees of quadrature more than the elements need: the closed form is no polynomial.
MORE = 4

NGSOLVE = "NGSolve"

#: The layer that holds the electrode.
HOME = TISSUES.index("muscle")


@dataclass(frozen=True)
class OnMesh:
    """One method at one size.

    size : edge of a voxel, or largest edge of an element, m.
    mesh, setup, solve : seconds of the processor; setup is matrix and preconditioner, solve holds
        the right-hand side.
    """

    method: str
    size: float
    unknowns: int
    error: float
    mesh: float
    setup: float
    solve: float


@dataclass(frozen=True)
class Known:
    """The exact solution where it is compared.

    posed : the cylinder on voxels. where : (1, D, H, W) bool.
    """

    posed: Posed
    where: np.ndarray

    @classmethod
    def at(cls, spacing: float) -> Known:
        """At the centres of voxels of this edge, m."""
        posed = cylinder(spacing)
        body = posed.conductor
        away = distance_from(posed.source.point, body.shape, body.spacing).numpy() > BEYOND
        known = np.broadcast_to(np.any(list(posed.regions.values()), axis=0), away.shape)
        _, h, w = places(body.shape, spacing)
        return cls(posed, away & known & (np.hypot(h, w) < LIMB_RADII[-1] - BELOW_SKIN))

    @property
    def points(self) -> np.ndarray:
        """Where it is compared, in metres from the axis and the first end. (n, 3)"""
        body = self.posed.conductor
        spread = np.broadcast_arrays(*places(body.shape, float(body.spacing[0, 0])))
        return np.stack([axis[self.where[0]] for axis in spread], axis=1)

    def error(self, phi: np.ndarray) -> float:
        """Relative L2 of phi (n,) or (1, D, H, W), V."""
        exact = self.posed.exact
        if phi.shape == exact.shape:
            return relative_l2(phi, exact, self.where, floating=False)
        right = exact[self.where]
        return relative_l2(phi, right, np.ones_like(right, dtype=bool), floating=False)


def places(shape: tuple[int, ...], spacing: float) -> list[np.ndarray]:
    """Voxel centres in metres, from the first end along D and from the axis across it."""
    d, h, w = np.meshgrid(
        *((np.arange(n) + 0.5) * spacing for n in shape), indexing="ij", sparse=True
    )
    return [d, h - shape[1] * spacing / 2, w - shape[2] * spacing / 2]


# --- on voxels


def on_voxels(
    spacings: Sequence[float], element_spacings: Sequence[float], repeats: int
) -> Iterator[OnMesh]:
    """Our volumes and our elements, at voxels of these edges in metres."""
    posed = {spacing: Known.at(spacing) for spacing in {*spacings, *element_spacings}}
    with torch.no_grad():
        for method, sizes, parts in (
            (OURS, spacings, ours_in_parts),
            (ELEMENTS, element_spacings, elements_in_parts),
        ):
            for spacing in sizes:
                known = posed[spacing]
                limb = Limb.of(known.posed.conductor, known.posed.source)
                phi, _, setup, source, took = parts(limb, repeats)(TOLERANCE)
                yield OnMesh(
                    method=method,
                    size=spacing,
                    unknowns=int(limb.conductor.tissue.sum()),
                    error=known.error(phi.double().numpy()),
                    mesh=0.0,
                    setup=setup,
                    solve=source + took,
                )


# --- NGSolve


def has_ngsolve() -> bool:
    return importlib.util.find_spec("ngsolve") is not None


def on_surfaces(
    sizes: Mapping[int, Sequence[float]], compared: float, repeats: int
) -> Iterator[OnMesh]:
    """NGSolve.

    sizes : order -> largest edges of elements, m. compared : edge of the voxels at whose centres it
    is, m.
    """
    ng = importlib.import_module("ngsolve")
    ng.SetNumThreads(1)
    ng.ngsglobals.msg_level = 0
    known = Known.at(compared)
    meshes = {
        edge: clocked(lambda: _mesh(edge), repeats)  # noqa: B023
        for edge in sorted({edge for edges in sizes.values() for edge in edges})
    }
    for order, edges in sizes.items():
        for edge in edges:
            yield _solved(ng, known, order, edge, meshes[edge], repeats)


def _solved(
    ng: Any, known: Known, order: int, edge: float, made: tuple[float, Any], repeats: int
) -> OnMesh:
    """made : seconds of the flat mesh, and that mesh."""
    curved, mesh = clocked(lambda: _curved(ng, made[1], order), repeats)
    setup, problem = clocked(lambda: _Problem.of(ng, mesh, order), repeats)
    electrode = known.posed.source.point[0].numpy()
    half = known.posed.conductor.shape[1] * float(known.posed.conductor.spacing[0, 1]) / 2
    at = electrode - np.array([0.0, half, half])
    took, (correction, phi_inf) = clocked(lambda: problem.solve(ng, at), repeats)
    there = mesh(*known.points.T.copy())
    phi = np.asarray(correction(there) + phi_inf(there)).ravel()
    return OnMesh(
        method=f"{NGSOLVE}, order {order}",
        size=edge,
        unknowns=problem.space.ndof,
        error=known.error(phi),
        mesh=made[0] + curved,
        setup=setup,
        solve=took,
    )


def _mesh(edge: float) -> Any:
    """Tetrahedra, layer by layer; boundaries are `end`, `mantle` and `between`."""
    occ = importlib.import_module("netgen.occ")
    solid = [
        occ.Cylinder(occ.Pnt(0, 0, 0), occ.X, r=radius, h=LIMB_LENGTH) for radius in LIMB_RADII
    ]
    layers = [solid[0], *(outer - inner for inner, outer in zip(solid, solid[1:], strict=False))]
    for layer, tissue in zip(layers, TISSUES, strict=True):
        layer.mat(tissue)
    limb = occ.Glue(layers)
    for face in limb.faces:
        low, high = face.bounding_box
        flat = high.x - low.x < LIMB_LENGTH / 2
        outer = high.y > LIMB_RADII[-1] - BELOW_SKIN
        face.name = "end" if flat else "mantle" if outer else "between"
    return occ.OCCGeometry(limb).GenerateMesh(maxh=edge)


def _curved(ng: Any, flat: Any, order: int) -> Any:
    """NGSolve's view of a mesh, its elements bent to the surfaces."""
    mesh = ng.Mesh(flat)
    mesh.Curve(max(order, CURVED))
    return mesh


@dataclass(frozen=True)
class _Problem:
    """The weak form on one mesh, its matrix and its preconditioner."""

    mesh: Any
    space: Any
    form: Any
    precondition: Any

    @classmethod
    def of(cls, ng: Any, mesh: Any, order: int) -> _Problem:
        """Order 1: algebraic multigrid; above, unknowns inside elements are eliminated, and domains
        are balanced (Dohrmann, SIAM J. Sci. Comput. 25 (2003) 246)."""
        space = ng.H1(mesh, order=order, dirichlet="end")
        u, v = space.TnT()
        along, across = (
            mesh.MaterialCF(dict(zip(TISSUES, map(float, LIMB_SIGMA[:, c]), strict=True)))
            for c in (0, 1)
        )
        form = ng.BilinearForm(space, condense=order > 1, symmetric=True)
        form += _tensor(ng, along, across) * ng.grad(u) * ng.grad(v) * ng.dx
        precondition = ng.Preconditioner(form, "bddc" if order > 1 else "h1amg")
        form.Assemble()
        return cls(mesh, space, form, precondition)

    def solve(self, ng: Any, electrode: np.ndarray) -> tuple[Any, Any]:
        """phi_c and phi_inf of 1 A, V. electrode : metres from the axis and the first end. (3,)"""
        inside = LIMB_SIGMA[HOME]
        medium = _tensor(ng, *map(float, inside))
        phi_inf, slope = _closed_form(ng, electrode, *map(float, inside))
        form, load, v = self.form, ng.LinearForm(self.space), self.space.TestFunction()
        for tissue, sigma in zip(TISSUES, LIMB_SIGMA, strict=True):
            if tissue != TISSUES[HOME]:
                excess = _tensor(ng, *map(float, sigma - inside))
                volume = ng.dx(tissue, bonus_intorder=MORE)
                load += -(excess * slope) * ng.grad(v) * volume
        out = (medium * slope) * ng.specialcf.normal(3)
        load += -out * v * ng.ds("mantle", bonus_intorder=MORE)
        load.Assemble()

        phi = ng.GridFunction(self.space)
        phi.Set(-phi_inf, definedon=self.mesh.Boundaries("end"))
        rest = (load.vec - form.mat * phi.vec).Evaluate()
        inverse = importlib.import_module("ngsolve.krylovspace").CGSolver(
            form.mat, self.precondition.mat, tol=TOLERANCE, maxiter=500
        )
        if form.condense:
            rest.data += form.harmonic_extension_trans * rest
        phi.vec.data += inverse * rest
        if form.condense:
            phi.vec.data += form.harmonic_extension * phi.vec
            phi.vec.data += form.inner_solve * rest
        return phi, phi_inf


def _tensor(ng: Any, along: Any, across: Any) -> Any:
    """sigma of fibres along x, S/m."""
    return ng.CF((along, 0, 0, 0, across, 0, 0, 0, across), dims=(3, 3))


def _closed_form(ng: Any, electrode: np.ndarray, along: float, across: float) -> tuple[Any, Any]:
    """I / (4 pi sqrt(det sigma) s), s^2 = r . sigma^-1 r, and its gradient; V, V/m, for 1 A."""
    x, y, z = (axis - float(at) for axis, at in zip((ng.x, ng.y, ng.z), electrode, strict=True))
    s = ng.sqrt(x * x / along + (y * y + z * z) / across)
    scale = 1 / (4 * math.pi * math.sqrt(along) * across)
    slope = ng.CF((-x / along, -y / across, -z / across)) * (scale / s**3)
    return scale / s, slope
