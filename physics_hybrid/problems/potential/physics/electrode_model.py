r"""The complete electrode model on voxels: electrodes that have a shape, a contact and a potential.

    -div(sigma grad phi) = 0,      sigma d phi / dn = (U_l - phi) / z  on electrode l,  0 elsewhere
    I_l = int (U_l - phi) / z dS

(Somersalo, Cheney and Isaacson, SIAM J. Appl. Math. 52 (1992) 1023, eqs. 2.4 to 2.7), in finite
volumes

    [ V (A + D)  -B ] [phi]   [ 0 ]                                                             [A]
    [   -B^T      G ] [ U ] = [ I ]

A of `flux`; g_f of every face of an electrode (`contacts`) in D on the diagonal, in B between voxel
and electrode, in G summed. The matrix is symmetric and positive, up to the constants where nothing
passes the ends. A + D alone is the body with all electrodes at 0 V, and has no null space: its
multigrid cycle preconditions conjugate gradients for

    (A + D) w_l = B_l / V,         Y = G - B^T W                                                [S]

w_l is the potential with electrode l at 1 V and all others at 0 V, Y the admittance matrix, and all
that can be asked is a small dense system in Y.

w_l are known to a tolerance only. So the solution is taken in the space that they span, by
Galerkin's condition: with H = V W^T (A + D) W and R = W^T B,

    W <- W H^-1 R,                 Y = G - R^T H^-1 R

Y is then symmetric and positive to rounding, its error is the square of that of W, and the current
through the faces of the electrodes is Y U to rounding, whatever the tolerance. Where nothing passes
the ends the w_l add up to 1: one solve less, and currents that add up to 0.

Ends: sink takes s = sum of I out evenly, through t with (A + D) t = -1 / |tissue|, from all
electrodes at 0 V.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.contacts import Contacts
from physics_hybrid.problems.potential.physics.flux import FluxOperator, Leak
from physics_hybrid.problems.potential.physics.krylov import conjugate_gradients
from physics_hybrid.problems.potential.physics.multipoint import MultipointOperator, Operator

#: Told after every iteration: relative residuals of those that are solved together.
Report = Callable[[Tensor], None]


@dataclass(frozen=True)
class Leaking:
    """A + D: an operator, and a leak to electrodes at 0 V."""

    operator: Operator
    leak: Leak

    @property
    def diagonal(self) -> Float[Tensor, "B D H W"]:
        """S/m^3; 0 in air."""
        return self.operator.diagonal + self.leak.conductance

    def __call__(self, phi: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """(A + D) phi, A/m^3."""
        return self.operator(phi) + self.leak.conductance * phi


@dataclass(frozen=True)
class Responses:
    """What electrodes do to a body.

    volts : w_l, V for 1 V, 0 in air.
    admittance : Y, S.
    sink : t, V for 1 A that leaves evenly; None but for ends=sink.
    sunk : of the sink, B^T t for 1 A.
    best : the electrode of the best contact, G.
    iterations : of conjugate gradients, the most. residual : |b - A x| / |b|, the largest.
    """

    volts: Float[Tensor, "L D H W"]
    admittance: Float[Tensor, "L L"]
    sink: Float[Tensor, "D H W"] | None
    sunk: Float[Tensor, " L"]
    best: int
    iterations: int
    residual: float


def operators(
    conductor: Conductor, contacts: Contacts
) -> tuple[Operator, FluxOperator | Leaking, FluxOperator | None]:
    """A with what electrodes inside cut, A + D, and whose multigrid cycle to use for it (None: its
    own).

    Raises
    ------
    ValueError
        Electrodes between voxels of oblique tensors.
    """
    volume = float(conductor.voxel_volume)
    leak = contacts.leak(conductor.shape, volume)
    if conductor.oblique:
        if contacts.inside_tissue(conductor.tissue[0]):
            raise ValueError(
                "electrodes inside tissue need tensors along the axes: oblique ones (6 components) "
                "have only electrodes that touch tissue from one side"
            )
        whole = MultipointOperator.of(conductor, torch.float64)
        diagonal = dataclasses.replace(conductor, sigma=conductor.sigma[:, :3])
        cycle = dataclasses.replace(FluxOperator.of(diagonal, torch.float64), leak=leak)
        return whole, Leaking(whole, leak), cycle
    own = FluxOperator.of(conductor, torch.float64)
    left = contacts.open_faces(conductor.tissue[0])
    if left is not None:
        d, h, w = (k * share for k, share in zip(own.conductance, left, strict=True))
        own = dataclasses.replace(own, conductance=(d, h, w))
    return own, dataclasses.replace(own, leak=leak), None


def respond(
    conductor: Conductor,
    contacts: Contacts,
    tolerance: float = 1e-8,
    max_iterations: int = 200,
    together: int = 64,
    report: Report | None = None,
    done: Callable[[int], None] | None = None,
) -> Responses:
    """The responses of one body to its electrodes. See the module.

    Parameters
    ----------
    tolerance : relative residual of each solve.
    together : so many are solved at once. report : is called after every iteration. done : with the
        number of those that are solved.

    Raises
    ------
    SolverError
        Tolerance not reached.
    ValueError
        As `operators`; a limb that does not reach its ends.
    """
    _, operator, cycle = operators(conductor, contacts)
    volume, floating = float(conductor.voxel_volume), conductor.ends.floating
    tissue = conductor.tissue[0]
    coupling = contacts.coupling(conductor.shape, volume)
    rhs = coupling[:-1] if floating else coupling
    even = -tissue.double() / (float(tissue.sum()) * volume)
    if conductor.ends.kind == "sink":
        rhs = torch.cat([rhs, even[None]])
    # the coarse grids of the cycle have ends that are grounded, or let nothing pass
    nested = cycle is None and conductor.ends.kind != "robin"
    found, iterations, residual = [], 0, 0.0
    for rows in _groups(len(rhs), together):
        some = rhs[rows]
        solution = conjugate_gradients(
            operator,
            some,
            tolerance=tolerance,
            max_iterations=max_iterations,
            preconditioner=cycle,
            phi_end=torch.zeros_like(some[:, [0, -1]]) if nested else None,
            report=report,
        )
        found.append(solution.phi)
        iterations = max(iterations, solution.iterations)
        residual = max(residual, float(solution.residual.max()))
        if done is not None:
            done(len(some))
    volts = torch.cat(found) if found else rhs.new_zeros(0, *conductor.shape)
    sink = None
    if conductor.ends.kind == "sink":
        volts, sink = volts[:-1], volts[-1]
    if floating:
        volts = torch.cat([volts, (tissue.double() - volts.sum(dim=0))[None]])
    span = _Span(operator, volts, volume)
    sunk = rhs.new_zeros(contacts.count)
    if sink is not None:
        sink = sink + span.galerkin((even - operator(sink[None])[0])[None])[0]
        sunk = volume * coupling.flatten(1) @ sink.flatten()
    return Responses(
        volts=span.galerkin(coupling),
        admittance=_admittance(span, contacts, coupling, floating),
        sink=sink,
        sunk=sunk,
        best=int(contacts.totals.argmax()),
        iterations=iterations,
        residual=residual,
    )


@dataclass(frozen=True)
class _Span:
    """What responses, known to a tolerance, span: fields that are sums of them. volume : m^3."""

    operator: FluxOperator | Leaking
    volts: Float[Tensor, "L D H W"]
    volume: float

    @cached_property
    def energy(self) -> Float[Tensor, "L L"]:
        """H, S."""
        image = torch.cat([self.operator(w[None]) for w in self.volts])
        H = self.volume * self.volts.flatten(1) @ image.flatten(1).T
        symmetric: Tensor = (H + H.T) / 2
        return symmetric

    def moments(self, density: Float[Tensor, "K D H W"]) -> Float[Tensor, "L K"]:
        """R of current densities, A/m^3."""
        return self.volume * self.volts.flatten(1) @ density.flatten(1).T

    def galerkin(self, density: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """Their potentials in the span, V."""
        coefficients = torch.linalg.solve(self.energy, self.moments(density))
        fields: Tensor = torch.einsum("lk,ldhw->kdhw", coefficients, self.volts)
        return fields


def _admittance(
    span: _Span, contacts: Contacts, coupling: Float[Tensor, "L D H W"], floating: bool
) -> Float[Tensor, "L L"]:
    """Y, S: symmetric."""
    R = span.moments(coupling)
    Y = torch.diag(contacts.totals) - R.T @ torch.linalg.solve(span.energy, R)
    Y = (Y + Y.T) / 2
    if floating:  # its rows add up to 0: more digits than G - R^T C has beside a good contact
        Y = Y - torch.diag(Y.sum(dim=1))
    symmetric: Tensor = Y
    return symmetric


def driven(
    responses: Responses,
    floating: bool,
    currents: Float[Tensor, " L"],
    volts: Float[Tensor, " L"],
) -> tuple[Float[Tensor, " L"], float]:
    """Potentials of the electrodes, V, and what leaves evenly, A.

    currents : into the body, A, of electrodes whose potential is free; NaN of the others.
    volts : of electrodes that are held at one; NaN of the others. Where none is held and nothing
        fixes a constant, the electrode of the best contact is at 0.
    """
    Y, free = responses.admittance, volts.isnan()
    out = torch.where(free, 0.0, volts)
    if bool(free.all()):
        left = float(currents.sum()) if responses.sink is not None else 0.0
        wanted = currents + left * responses.sunk
        return _solved(Y, wanted, responses.best if floating else None), left
    if bool(free.any()):
        wanted = currents[free] - Y[free][:, ~free] @ volts[~free]
        out[free] = _solved(Y[free][:, free], wanted, None)
    return out, 0.0


def _solved(
    Y: Float[Tensor, "L L"], currents: Float[Tensor, "L ..."], at_zero: int | None
) -> Float[Tensor, "L ..."]:
    """Potentials for currents (L,) or (L, K). at_zero : where Y has the constants as its null
    space and currents add up to 0, the electrode whose potential is 0."""
    kept = torch.ones(len(Y), dtype=torch.bool)
    if at_zero is not None:
        kept[at_zero] = False
    inner = Y[kept][:, kept]
    # contacts may differ by many powers of ten
    scale = inner.diagonal().rsqrt()
    rows = scale.reshape(-1, *[1] * (currents.ndim - 1))
    volts = torch.zeros_like(currents)
    volts[kept] = rows * torch.linalg.solve(scale[:, None] * inner * scale, rows * currents[kept])
    return volts


def impedance(responses: Responses, floating: bool) -> Float[Tensor, "L L"]:
    """Z, ohm: potentials of the electrodes for 1 A into each.

    Where nothing takes it out it is for currents that add up to 0, and the mean of the
    potentials is 0: the pseudo-inverse of Y. With a sink it leaves evenly, and the mean over tissue
    is 0.
    """
    Y = responses.admittance
    one = torch.eye(len(Y), dtype=Y.dtype)
    if not floating:
        Z = _solved(Y, one, None)
    elif responses.sink is not None:
        Z = _solved(Y, one + responses.sunk[:, None], responses.best)
        parts = responses.volts.flatten(1).sum(dim=1)  # they add up to 1 in every voxel of tissue
        Z = Z - (parts @ Z + responses.sink.sum()) / parts.sum()
    else:
        Z = _solved(Y, one - 1 / len(Y), responses.best)
        Z = Z - Z.mean(dim=0)
    symmetric: Tensor = (Z + Z.T) / 2
    return symmetric


def _groups(count: int, together: int) -> Iterator[slice]:
    """Rows that are solved together."""
    for first in range(0, count, together):
        yield slice(first, min(first + together, count))
