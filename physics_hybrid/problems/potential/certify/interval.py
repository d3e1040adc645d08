r"""Intervals that hold the voltage of an electrode for certain.

The voltage L(phi) is the mean over a patch, or of two patches the difference of their means; where
nothing fixes a constant (ends: sink, pair) and one patch is given, less the mean over all tissue.
With z the potential of L taken as a current, through the skin where the patch is on it (the dual
problem, solved by finite volumes), z_h, q* and p* = q* + sigma grad z_h its mismatch as p is that
of phi,

    L(phi) - L(v) = a(phi - v, z)
                  = -int p . grad z_h + osc(z_h) + 1/2 int p . sigma^-1 p*   +-   eta eta* / 2

The last integral is the computed product, with which half of eta eta* is certain: phi - v and z -
z_h are projections of p and p* on gradients, and (2 P - 1) is a reflection, so that
|<P p, P p*> - <p, p*> / 2| = |<(2 P - 1) p, p*>| / 2. (Prager and Synge 1947; as a bound of goals:
Ladeveze and Pelle, Mastering Calculations in Linear and Nonlinear Mechanics, 2005.) What
oscillates is not in p: a current c with |c|_K <= o_K in every voxel is missing, and with it at most
sum over voxels of (o |p*| + o* |p| + o o*) / 2.
"""

import math
from dataclasses import dataclass, replace
from numbers import Real

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import Body, split, split_field
from physics_hybrid.problems.potential.certify.certificate import (
    Mismatch,
    check_parts,
    off_faces,
    one_of,
)
from physics_hybrid.problems.potential.certify.current import Currents
from physics_hybrid.problems.potential.certify.flux import inner
from physics_hybrid.problems.potential.certify.focus import Focus
from physics_hybrid.problems.potential.certify.patch import Functional
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.problems.potential.physics.solve import solve

#: Voxels on each side of an electrode in which its closed form is used: more than for `certify`, as
#: the width is a product of bounds over the whole body. Farther out it hardly falls any more.
REACH = 12

#: `to`: how many times as many voxels there are in the end at most, as `refine=3` makes.
MOST = 27.0

#: What share of the width that is wanted each grid is made for.
FORESIGHT = 0.8

#: Relative residual of solves on cut voxels, and the most iterations there: long and thin ones take
#: many, and what the residual leaves is in the bound.
GRADED, MANY = 1e-7, 400


@dataclass(frozen=True)
class Interval:
    """low <= L(phi) <= high, V, for each of K sources; phi the exact potential of the voxel
    problem.

    value : that of the field v itself, V; outside of the interval where the field is wrong enough.
    """

    low: Float[Tensor, " K"]
    high: Float[Tensor, " K"]
    value: Float[Tensor, " K"]

    @property
    def middle(self) -> Float[Tensor, " K"]:
        """The better value, V."""
        return (self.low + self.high) / 2

    @property
    def half_width(self) -> Float[Tensor, " K"]:
        """What `middle` may be wrong by, V."""
        return (self.high - self.low) / 2


def interval(
    conductor: Conductor,
    source: PointSource,
    patch: Bool[Tensor, "D H W"],
    against: Bool[Tensor, "D H W"] | None = None,
    on: str = "voxels",
    phi: Float[Tensor, "K D H W"] | None = None,
    refine: int = 1,
    reach: int = REACH,
    to: float | None = None,
    most: float = MOST,
) -> Interval:
    """Guaranteed interval for the mean potential of an electrode, or for the difference of two.

    Parameters
    ----------
    conductor : Conductor
        One body, with any number of sources.
    source : PointSource
    patch, against : Tensor (D, H, W) of bool
        The voxels of the electrode, and of the one whose mean is taken off. Where nothing fixes a
        constant (ends: sink, pair) and `against` is None, the mean over all tissue is.
    on : "voxels", the mean over these, or "skin", over their faces to air.
    phi : Tensor (K, D, H, W) V at voxel centres, or None: solved for. Not with `refine`.
    refine : every voxel is split into refine^3 and the problem solved anew on these: the truth is
        the same, the half-width falls about as 1 / refine^2.
    reach : as for `certify`.
    to : the half-width that is wanted, as a share of the voltage: 0.01 is 1 %. Voxels are cut
        round the electrode and the patch, where the width comes from (`focus`), the problem is
        solved anew, and so on until it is reached. Not with `refine`.
    most : times as many voxels as there are, at which that ends: it may not be reached, then.

    v and z_h are bent along edges (`bent_from_centres`), so that they follow a smooth field to the
    second order.

    Raises
    ------
    ValueError
        A patch of another shape, without tissue or partly in air; several conductors; phi together
        with refine; to together with refine, or not positive; as `certify`.

    Examples
    --------
    >>> import torch
    >>> sigma = torch.full((1, 1, 12, 8, 8), 0.3, dtype=torch.float64)          # S/m
    >>> body = Conductor(sigma, torch.full((1, 3), 0.004, dtype=torch.float64)) # m
    >>> point = torch.tensor([[0.015, 0.013, 0.015]], dtype=torch.float64)      # m
    >>> source = PointSource(point, torch.tensor([1e-3], dtype=torch.float64))  # A
    >>> patch = torch.zeros(12, 8, 8, dtype=torch.bool)
    >>> patch[8:10, 7, 3:5] = True
    >>> found = interval(body, source, patch, on="skin")                        # V
    >>> bool(found.low < found.value) and bool(found.value < found.high)
    True
    >>> narrow = interval(body, source, patch, on="skin", to=0.01)
    >>> bool(narrow.half_width < 0.01 * narrow.middle < found.half_width)
    True
    """
    if len(conductor.sigma) != 1:
        raise ValueError(f"an interval is of one body; got {len(conductor.sigma)}")
    check_parts(refine)
    if to is not None:
        check_share(to)
        if refine > 1:
            raise ValueError(f"to chooses its voxels itself, without refine; got refine={refine}")
    if refine > 1 and phi is not None:
        raise ValueError(f"refine={refine} solves anew, on voxels that are split: give no phi")
    patches = [_checked(conductor, one) for one in (patch, against) if one is not None]
    box = Box.of(conductor)
    patches = [box.within(one.double()) > 0 for one in patches]
    phi = None if phi is None else box.within(phi)
    conductor, source = box.conductor(conductor), box.source(source, conductor.spacing)
    if refine > 1:
        conductor = split(conductor, refine)
        patches = [split_field(one, refine) for one in patches]
    if phi is None:
        phi = solve(conductor, source, warn=False).phi
    goal = Goal.of(conductor, patches, on)
    rows = []
    for k in range(len(source.point)):
        one = one_of(source, k)
        found = goal.between(one, phi[k], reach)
        if to is not None:
            found = _narrowed(found, one, conductor, patches, on, reach, to, most)
        rows.append((found.low, found.high, found.value))
    low, high, value = torch.tensor(rows, dtype=torch.float64).T
    return Interval(low, high, value)


@dataclass(frozen=True)
class Found:
    """The interval of one source, V, and what it is made of."""

    low: float
    high: float
    value: float
    primal: Mismatch
    dual: Mismatch

    def narrow(self, to: float) -> bool:
        """Whether the half-width is at most a share of the voltage."""
        return self.high - self.low <= to * abs(self.high + self.low)


@dataclass(frozen=True)
class Goal:
    """The voltage of a patch in one body, and its dual solution."""

    currents: Currents
    L: Functional
    dual: Mismatch

    @classmethod
    def of(
        cls,
        conductor: Conductor,
        patches: list[Bool[Tensor, "D H W"]],
        on: str,
        steps: list[Float[Tensor, " n"]] | None = None,
    ) -> "Goal":
        """steps : as for `Functional.of`."""
        body = Body.of(conductor)
        currents = Currents.of(body)
        L = Functional.of(body, patches, on, steps)
        tolerance, most = (1e-8, 200) if steps is None else (GRADED, MANY)
        z = solve(body.conductor, L.density, tolerance, max_iterations=most, warn=False).phi[0]
        dual = Mismatch.of(currents, L.density, z, inflow=L.inflow, curved=True)
        return cls(currents, L, dual)

    def between(self, source: PointSource, phi: Float[Tensor, "D H W"], reach: int) -> Found:
        """The interval of one source and its field."""
        primal = Mismatch.of(self.currents, source, phi.double(), None, reach, curved=True)
        own, own_doubt = self.L(primal.flux)
        product, doubt = _correction(primal, self.dual)
        width = _half_width(primal, self.dual) + own_doubt + doubt
        middle = own + product
        return Found(middle - width, middle + width, own, primal, self.dual)


def _narrowed(
    found: Found,
    source: PointSource,
    conductor: Conductor,
    patches: list[Bool[Tensor, "D H W"]],
    on: str,
    reach: int,
    to: float,
    most: float,
) -> Found:
    """The same on grids that are finer where the width comes from, until it is narrow."""
    source = off_faces(Body.of(conductor), source)  # one place on all grids
    focus = Focus.of(conductor, source, patches)
    graded, best, limit = focus.graded, found, int(most * conductor.tissue.numel())
    while not best.narrow(to):
        by = FORESIGHT * to * abs(best.high + best.low) / (found.high - found.low)
        eta, eta_dual = (graded.gathered(m.squares) for m in (found.primal, found.dual))
        finer = focus.finer(eta, eta_dual, by, limit)
        if finer.levels == focus.levels:
            break
        focus, graded = finer, finer.graded
        body, place = graded.conductor(conductor), graded.source(source, conductor.spacing)
        try:
            phi = solve(body, place, GRADED, max_iterations=MANY, warn=False).phi[0]
            goal = Goal.of(body, [graded.cut(one) for one in patches], on, graded.steps)
        except SolverError:  # long and thin voxels: what the grids before say holds
            break
        found = goal.between(place, phi, focus.reach(graded, reach))
        best = replace(best, low=max(best.low, found.low), high=min(best.high, found.high))
    return best


def check_share(to: object) -> None:
    """Raise ValueError where a half-width wanted is no positive number."""
    if isinstance(to, bool) or not isinstance(to, Real) or not 0 < float(to) < math.inf:
        raise ValueError(
            f"to is a half-width as a share of the voltage, 0.01 for 1 %, and positive; got {to!r}"
        )


def _checked(conductor: Conductor, patch: Tensor) -> Tensor:
    """A patch that has tissue, and only tissue."""
    if tuple(patch.shape) != conductor.shape or patch.dtype != torch.bool:
        raise ValueError(
            f"a patch marks voxels: bool of shape {conductor.shape}; "
            f"got {patch.dtype} of shape {tuple(patch.shape)}"
        )
    if not bool(patch.any()) or bool((patch & ~conductor.tissue[0]).any()):
        raise ValueError(
            f"a patch must hold tissue and nothing else: {int(patch.sum())} voxels are marked, "
            f"{int((patch & ~conductor.tissue[0]).sum())} of them air"
        )
    return patch


def _correction(primal: Mismatch, dual: Mismatch) -> tuple[float, float]:
    """-int p . grad z_h + osc(z_h) + 1/2 int p . sigma^-1 p*, V; and its doubt.

    The two integrals are 1/2 int p . sigma^-1 (q* - sigma grad z_h).
    """
    flux = dual.flux
    other = replace(flux, sign=-1.0)
    product, doubt = inner(primal.body, primal.flux, other)
    oscillation, more = primal.oscillation.moment(flux.nodes, flux.edges)
    return float(product.sum()) / 2 + oscillation, doubt / 2 + more


def _half_width(primal: Mismatch, dual: Mismatch) -> float:
    """eta eta* / 2 and what oscillation adds, V."""
    p, o = primal.density.clamp_min(0).sqrt(), primal.oscillation.sizes
    p_dual, o_dual = dual.density.clamp_min(0).sqrt(), dual.oscillation.sizes
    cross = float((o * p_dual + o_dual * p + o * o_dual).sum())
    return (primal.bound * dual.bound + cross) / 2
