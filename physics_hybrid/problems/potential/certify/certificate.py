"""The bound of the error of a field."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import Body, split
from physics_hybrid.problems.potential.certify.closed_form import REACH, ClosedForm
from physics_hybrid.problems.potential.certify.current import (
    Currents,
    Drive,
    added,
    mean_square,
    sides,
)
from physics_hybrid.problems.potential.certify.flux import Flux, inner
from physics_hybrid.problems.potential.certify.oscillation import Oscillation
from physics_hybrid.problems.potential.certify.potential import (
    bent_from_centres,
    from_centres,
    from_nodes,
)
from physics_hybrid.problems.potential.certify.shapes import prolonged
from physics_hybrid.problems.potential.certify.slopes import with_slopes
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import ON_FACE, Conductor, Faces
from physics_hybrid.problems.potential.physics.electrodes import PointSource, check_number
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

#: The bound is raised by this share of |sigma^-1/2 q| + |sigma^1/2 grad w|, for rounding: float64
#: sums of some hundred terms a voxel.
ROUNDING = 1e-12


#: Bytes. A block of this size, taken and given back, makes glibc keep up to twice as much memory
#: for what follows (mallopt(3): its threshold for mmap is dynamic, 32 MiB at most). Otherwise many
#: a field is new pages from the system, which take longer to come by than to fill.
KEPT = 2**25 - 2**16


@dataclass(frozen=True)
class Mismatch:
    """q + sigma grad v of one source: what is proved about its field.

    flux : the field q + sigma grad v. density : its square over sigma, W in every voxel.
    oscillation : of the closed form. algebraic : energy norm of the repaired current, W^(1/2).
    quadrature : by how much another rule changes the square of the bound, W.
    energy : energy norm of q beyond the neighbours of the electrodes, W^(1/2). scale : of the
    whole, for rounding.
    """

    body: Body
    flux: Flux
    density: Float[Tensor, "D H W"]
    oscillation: Oscillation
    algebraic: float
    quadrature: float
    energy: float
    scale: float

    @classmethod
    def of(
        cls,
        currents: Currents,
        source: PointSource | Float[Tensor, "1 D H W"],
        phi: Float[Tensor, "D H W"],
        nodes: Float[Tensor, "nD nH nW"] | None = None,
        reach: int = REACH,
        sharp: bool = True,
        inflow: Faces | None = None,
        held: Flux | None = None,
        curved: bool = False,
    ) -> "Mismatch":
        """Of a field of one electrode (or pair), or of a current density in A/m^3.

        phi : at centres, V: its currents are q. nodes : at nodes, V: v; None: made of phi.
        sharp : with `slopes`. inflow : through skin, A/m^2 along the axes, what the density is in
        the voxels behind it. held : whose v it is, instead. curved : v made of phi is bent along
        edges, too (`bent_from_centres`).
        """
        body = currents.body
        closed, drive, as_it_is = _as_it_is(currents, source, phi, reach)
        if held is not None:
            closed = held.closed
        q, algebraic = currents.conserved(drive, as_it_is)
        if inflow is not None:
            q, as_it_is = added(q, inflow), added(as_it_is, inflow)
        edges = None
        if held is not None:
            w = held.nodes
        elif nodes is None and curved:
            w, edges = bent_from_centres(body, phi, as_it_is, closed)
        elif nodes is None:
            w = from_centres(body, phi, as_it_is, closed)
        else:
            w = from_nodes(body, nodes, closed)
        low, high = [], []
        for axis in range(3):
            below, above = sides(q[axis][0], axis)
            low.append(below)
            high.append(above)
        beyond = _energy_of(body, low, high)
        scale = float(beyond.sum().sqrt()) * 2
        for form in closed:
            d, h, w_ = form.voxel
            beyond[max(0, d - 1) : d + 2, max(0, h - 1) : h + 2, max(0, w_ - 1) : w_ + 2] = 0
        energy = float(beyond.sum().sqrt())
        if closed:
            low = [below.clone() for below in low]  # both are views of q, which nothing needs now
        for form in closed:
            there, Phi = form.voxels_there, form.through_faces
            medium = form.medium[there]
            for axis in range(3):
                below, above = sides(Phi[axis], axis)
                low[axis][there] -= below * medium
                high[axis][there] -= above * medium
        oscillation = Oscillation.of(body, closed)
        flux = Flux(body, w, low, high, closed, oscillation.corrections, edges=edges)
        if sharp:
            flux = with_slopes(flux)
        density, doubt = inner(body, flux, flux)
        return cls(body, flux, density, oscillation, algebraic, doubt, energy, scale)

    @property
    def plain(self) -> float:
        """|sigma^-1/2 (q + sigma grad v)|, W^(1/2)."""
        return float(self.density.sum().clamp_min(0).sqrt())

    @property
    def bound(self) -> float:
        """At least the energy norm of the error, W^(1/2)."""
        density, sizes = self.density.clamp_min(0), self.oscillation.sizes
        total = float(density.sum()) + self.quadrature
        if self.oscillation.corrections:
            there = self.oscillation.there
            more = sizes[there] * (2 * density[there].sqrt() + sizes[there])
            total += float(more.sum())
        return math.sqrt(total) + ROUNDING * self.scale

    @property
    def squares(self) -> Float[Tensor, "D H W"]:
        """What every voxel adds to the square of the bound, W."""
        return (self.density.clamp_min(0).sqrt() + self.oscillation.sizes) ** 2

    def lower(self, w: Float[Tensor, "nD nH nW"]) -> float:
        """a(phi - v, w) / |w|: no more than the error, for any w in V at nodes that is 0 on
        grounded ends. W^(1/2)"""
        nothing = [torch.zeros_like(q) for q in self.flux.low]
        test = Flux(self.body, w, nothing, nothing)
        product, doubt = inner(self.body, self.flux, test)
        waves, unsure = self.oscillation.moment(w)
        size, _ = inner(self.body, test, test)
        found = waves - float(product.sum())
        # of waves that `moment` does not know, those that meet w: none but by rounding
        sure = abs(found) - doubt - unsure - ROUNDING * self.scale * float(size.sum().sqrt())
        return max(0.0, sure) / max(float(size.sum().sqrt()), 1e-300)


def _as_it_is(
    currents: Currents, source: PointSource | Tensor, phi: Float[Tensor, "D H W"], reach: int
) -> tuple[list[ClosedForm], Drive, Faces]:
    """The closed forms of one source, what drives its current, and that of a field, A/m^2."""
    body, operator = currents.body, currents.operator
    if not isinstance(source, PointSource):
        known = Subtraction.density(body.conductor, operator, source)
        return [], Drive.of(known, body.volume), currents.of_field(known, phi)
    check_number(body.conductor, source)
    source = _inside(body, source)
    closed = [ClosedForm.of(body.conductor, one, reach) for one in source.electrodes]
    if isinstance(operator, FluxOperator):
        drive = Drive.of_points(body, closed)
        return closed, drive, currents.of_points(operator, closed, phi)
    known = Subtraction.of(body.conductor, operator, source)
    return closed, Drive.of(known, body.volume), currents.of_field(known, phi)


def _inside(body: Body, source: PointSource) -> PointSource:
    """Electrodes on the outer faces of the grid, as far inside as `Conductor.in_tissue` moves those
    on other faces; on a grounded end they stay."""
    least = 2 * ON_FACE * body.spacing
    if body.ends.kind == "grounded":
        least = least * torch.tensor([0.0, 1, 1], dtype=torch.float64)
    returns = None if source.returns is None else source.returns.maximum(least)
    return PointSource(source.point.maximum(least), source.current, returns)


def off_faces(body: Body, source: PointSource) -> PointSource:
    """The same, those on other faces moved, too."""
    source = _inside(body, source)
    conductor, returns = body.conductor, source.returns
    if returns is not None:
        returns = conductor.in_tissue(returns)
    return PointSource(conductor.in_tissue(source.point), source.current, returns)


def _energy_of(body: Body, low: list[Tensor], high: list[Tensor]) -> Float[Tensor, "D H W"]:
    """q . sigma^-1 q in every voxel, of the diagonal of sigma, W."""
    total = torch.zeros(body.shape, dtype=torch.float64)
    for axis in range(3):
        rho = body.resistivity[min(axis, len(body.sigma) - 1)]
        total.addcmul_(rho, mean_square(low[axis], high[axis]))
    return total.mul_(body.volume)


@dataclass(frozen=True)
class Certificate:
    """How wrong the fields of K sources are at most, in the energy norm.

    bound : of sqrt(int sigma |grad(phi - v)|^2), W^(1/2): guaranteed.
    lower : the error is at least this, W^(1/2); None where `refine` was 1.
    energy : energy norm of the current beyond the voxels of the electrodes and their neighbours,
        where it is finite, W^(1/2): what `relative` compares with.
    density : where the bound comes from: its square, W in every voxel.
    oscillation, algebraic, quadrature : the parts of the bound that the closed form on skin and
        box, the solver's tolerance, and the doubt of quadrature have, W^(1/2).
    """

    bound: Float[Tensor, " K"]
    lower: Float[Tensor, " K"] | None
    energy: Float[Tensor, " K"]
    density: Float[Tensor, "K D H W"]
    oscillation: Float[Tensor, " K"]
    algebraic: Float[Tensor, " K"]
    quadrature: Float[Tensor, " K"]

    @property
    def relative(self) -> Float[Tensor, " K"]:
        """bound / energy; 0 where no current flows."""
        return torch.where(self.bound == 0, 0.0, self.bound / self.energy)


def certify(
    conductor: Conductor,
    source: PointSource,
    phi: Float[Tensor, "K D H W"] | None = None,
    nodes: Float[Tensor, "K nD nH nW"] | None = None,
    reach: int = REACH,
    sharp: bool = True,
    refine: int = 1,
) -> Certificate:
    """A guaranteed bound of the energy error of any field.

    The truth is the exact solution of the voxel problem; the field is the continuous v made of phi
    (`potential`), or of values at nodes. See the package for what is proved.

    Parameters
    ----------
    conductor : Conductor
        One body, or one for each source.
    source : PointSource
    phi : Tensor (K, D, H, W), V at voxel centres, or None: solved for.
    nodes : Tensor (K, D+1, H+1, W+1), V at voxel corners, or None
        Values of a finite-element solution (`solve_elements`), say: these are judged, and phi only
        gives the currents.
    reach : voxels on each side of an electrode in which its closed form is used.
    sharp : let currents vary across faces: a bound that is smaller by a tenth, for up to three
        times the time.
    refine : 2 or more also solves on voxels so many times smaller, for the same field: the bound is
        then close to the error itself, and a lower bound stands beside it. `refine`^3 times the
        cost.

    Raises
    ------
    ValueError
        For shapes that do not belong together, phi that is not finite, a refine that is no whole
        number, tissue that does not conduct in every direction, tissue cut off from the way out; as
        `solve`.
    SolverError
        Where the currents of a bad field cannot be corrected.

    Source
    ------
    Prager and Synge, Q. Appl. Math. 5 (1947) 241; Vohralik, Numer. Math. 111 (2008) 121.

    Examples
    --------
    A block of two tissues, grounded at both ends. The solver's field, and the same with 5 % more:

    >>> import torch
    >>> from physics_hybrid.problems.potential.physics.solve import solve
    >>> sigma = torch.full((1, 1, 12, 8, 8), 0.3, dtype=torch.float64)          # S/m
    >>> sigma[:, :, :, 5:] = 0.05
    >>> body = Conductor(sigma, torch.full((1, 3), 0.004, dtype=torch.float64)) # m
    >>> point = torch.tensor([[0.023, 0.013, 0.015]], dtype=torch.float64)      # m
    >>> source = PointSource(point, torch.tensor([1e-3], dtype=torch.float64))  # A
    >>> phi = solve(body, source).phi                                           # V
    >>> right, wrong = certify(body, source, phi), certify(body, source, 1.05 * phi)
    >>> bool(right.bound < wrong.bound)
    True
    """
    count = len(source.point)
    check_parts(refine)
    how = _How(reach, sharp, refine)
    torch.empty(KEPT, dtype=torch.uint8)
    if phi is None:
        phi = solve(conductor, source, warn=False).phi
    _check(conductor, count, phi, nodes)
    box = Box.of(conductor)
    phi, source = box.within(phi), box.source(source, conductor.spacing)
    nodes = None if nodes is None else box.at_nodes(nodes)
    with torch.inference_mode():
        found, bounds, lower = _certified(box.conductor(conductor), source, phi, nodes, how)

    def gathered(values: list[float]) -> Tensor:
        """A number for each source."""
        return torch.tensor(values, dtype=torch.float64)

    return Certificate(
        bound=gathered(bounds),
        lower=gathered(lower) if refine > 1 else None,
        energy=gathered([m.energy for m in found]),
        density=box.whole(torch.stack([m.density for m in found])),
        oscillation=gathered([m.oscillation.norm for m in found]),
        algebraic=gathered([m.algebraic for m in found]),
        quadrature=gathered([m.quadrature**0.5 for m in found]),
    )


@dataclass(frozen=True)
class _How:
    """As in `certify`."""

    reach: int
    sharp: bool
    refine: int


def _certified(
    conductor: Conductor, source: PointSource, phi: Tensor, nodes: Tensor | None, how: _How
) -> tuple[list[Mismatch], list[float], list[float]]:
    """Of every source what is proved, and bounds from above and, of a refined grid, below."""
    found: list[Mismatch] = []
    bounds: list[float] = []
    lower: list[float] = []
    currents = finer = None
    for k in range(len(source.point)):
        if currents is None or len(conductor.sigma) > 1:
            currents = Currents.of(Body.of(conductor, k if len(conductor.sigma) > 1 else 0))
        at_nodes = None if nodes is None else nodes[k].double()
        one = one_of(source, k)
        if how.refine > 1:
            # one place on both grids: what lies on a face is moved by a share of a voxel
            one = off_faces(currents.body, one)
        found.append(Mismatch.of(currents, one, phi[k].double(), at_nodes, how.reach, how.sharp))
        bounds.append(found[-1].bound)
        if how.refine > 1:
            if finer is None or len(conductor.sigma) > 1:
                finer = Currents.of(Body.of(split(currents.body.conductor, how.refine)))
            upper, below = _on_finer(finer, one, found[-1].flux, how.refine)
            bounds[-1] = min(bounds[-1], upper)
            lower.append(below)
    return found, bounds, lower


def _on_finer(finer: Currents, source: PointSource, flux: Flux, factor: int) -> tuple[float, float]:
    """Bounds of the error of v from above and below, by a solution on smaller voxels. W^(1/2)"""
    nodes = prolonged(flux.nodes, factor)
    closed = [form.finer(factor) for form in flux.closed]
    body = finer.body
    phi = solve(body.conductor, source, warn=False).phi[0]
    held = Flux(body, nodes, [], [], closed)
    found = Mismatch.of(finer, source, phi, held=held)
    known = Subtraction.of(body.conductor, finer.operator, source)
    better = from_centres(body, phi, finer.of_field(known, phi), closed)
    return found.bound, found.lower(better - nodes)


def one_of(source: PointSource, k: int) -> PointSource:
    """One source of a batch, in float64."""
    returns = None if source.returns is None else source.returns[k : k + 1].double()
    point, current = (values[k : k + 1].double() for values in (source.point, source.current))
    return PointSource(point, current, returns)


def check_parts(refine: object) -> None:
    """Raise ValueError where voxels cannot be split into so many along each axis."""
    if isinstance(refine, bool) or not isinstance(refine, (int, np.integer)) or refine < 1:
        raise ValueError(f"refine must be a whole number >= 1; got {refine!r}")


def _check(conductor: Conductor, count: int, phi: Tensor, nodes: Tensor | None) -> None:
    """Raise ValueError where shapes do not belong together, or a field is not finite."""
    shape = (count, *conductor.shape)
    if len(conductor.sigma) not in (1, count) or tuple(phi.shape) != shape:
        raise ValueError(
            f"{len(conductor.sigma)} conductors and {count} sources need phi of shape {shape}; "
            f"got {tuple(phi.shape)}"
        )
    at_nodes = (count, *(n + 1 for n in conductor.shape))
    if nodes is not None and tuple(nodes.shape) != at_nodes:
        raise ValueError(f"nodes must have shape {at_nodes}; got {tuple(nodes.shape)}")
    for name, values in (("phi", phi), ("nodes", nodes)):
        if values is not None and not all(math.isfinite(float(v)) for v in values.aminmax()):
            raise ValueError(f"{name} must be finite (V); it holds NaN or infinity")
