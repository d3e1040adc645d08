"""What may be asked of a body whose conductivities are uncertain: voltages, fields, lead fields.

A quantity describes itself; on a body it says what its loads and functionals are (`asked`), and it
can be had by solving plainly (`plain`): two ways that share neither matrices nor right-hand sides.
Places are those of the body as it is given: one on an interface stays in the tissue that it is in,
however conductivities vary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from physics_hybrid.checks import one_of
from physics_hybrid.problems.potential.door.arrays import numbers
from physics_hybrid.problems.potential.door.asked import (
    Asked,
    ClosedForm,
    Posed,
    deposited,
    dipole,
    electrode_load,
    flux_at,
    flux_offsets,
    in_one_voxel,
    less_of,
    subtracted,
    voltage_offsets,
)
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.field import Field
from physics_hybrid.problems.potential.door.lead_field import (
    along_the_grid,
    electrodes_of,
    lead_field,
    reference_of,
)
from physics_hybrid.problems.potential.door.places import in_metres, metres_per_unit, places
from physics_hybrid.problems.potential.door.solving import solve
from physics_hybrid.problems.potential.door.sources import Patch, sources_of
from physics_hybrid.problems.potential.door.ways_out import connected, ends_of
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import warn_beside_better
from physics_hybrid.problems.potential.uncertain.load import Load


class Quantity(Protocol):
    """What is asked."""

    @property
    def unit(self) -> str:
        """Of the answers."""

    def on(self, body: Body) -> OnBody:
        """The same on a body, its places found. Raises ValueError for what is none there."""


class OnBody(Protocol):
    """A quantity on a body."""

    @property
    def ends(self) -> Ends:
        """How the current leaves."""

    @property
    def count(self) -> int:
        """Systems that a plain answer solves."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an answer."""

    def asked(self, posed: Posed) -> Asked:
        """Loads and functionals."""

    def plain(self, body: Body, tolerance: float) -> np.ndarray:
        """The answer for a body that conducts as this one does, solved for."""


@dataclass(frozen=True)
class Voltage:
    """Voltages of electrodes, of currents into a body: `ph.solve(body, at, ...).at(electrodes)`.

    at, current, returns : as in `solve`: one source, or K.
    electrodes : (3,) or (E, 3), a `Patch` or a list of them.
    reference : what is taken off: a place, a Patch, "average" of the electrodes, or None.
    frame, ends, beta, singularity : as in `solve`.

    Answers have the shape (K, E), without an axis where one thing was given alone; V.

    Raises
    ------
    ValueError
        Where it is used: places outside or in air, ends that are none; a point source in tissue
        whose conductivities along and across vary apart.

    Source
    ------
    As `solve`.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> skin = limb.nearest([[0.05, 0.05, 0.0], [0.08, 0.05, 0.0]])
    >>> ph.Voltage(limb.electrode, skin, reference="average").on(limb).ends.kind
    'grounded'
    """

    at: Any
    electrodes: Any
    current: Any = 1e-3
    returns: Any = None
    reference: Any = None
    frame: str = "grid"
    ends: Ends | str = "auto"
    beta: float | None = None
    singularity: str = "subtraction"
    unit = "V"

    def on(self, body: Body) -> _VoltageOn:
        """See `Quantity`."""
        driven = _Driven.of(body, self)
        at = _given(body, self.electrodes, self.frame, "electrodes")
        against = _given_reference(body, self.reference, self.frame)
        return _VoltageOn(driven, at, against, body)


@dataclass(frozen=True)
class FieldAt:
    """The electric field E, V/m, or the current density J, A/m^2, in the voxels that hold places.

    at, current, returns, frame, ends, beta, singularity : as in `Voltage`.
    points : (3,) or (P, 3). what : "E" or "J".

    Answers have the shape (K, P, 3), components along (D, H, W), without an axis where one thing
    was given alone: what `Field.E` and `Field.J` say there.

    Raises
    ------
    ValueError
        Where it is used: as `Voltage`; another word.

    Source
    ------
    As `solve`.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> ph.FieldAt(limb.electrode, limb.nearest((0.05, 0.05, 0.05)), what="J").unit
    'A/m^2'
    """

    at: Any
    points: Any
    what: str = "E"
    current: Any = 1e-3
    returns: Any = None
    frame: str = "grid"
    ends: Ends | str = "auto"
    beta: float | None = None
    singularity: str = "subtraction"

    @property
    def unit(self) -> str:
        """Of the answers."""
        return "V/m" if self.what == "E" else "A/m^2"

    def on(self, body: Body) -> _FieldOn:
        """See `Quantity`."""
        one_of(("E", "J"), "what", self.what, quoted=True)
        driven = _Driven.of(body, self)
        metres, many = places(body, self.points, self.frame, "points")
        held = body.plain.in_tissue(metres.detach())
        voxels = body.plain.index_of(held)[0].cpu().numpy()
        return _FieldOn(driven, voxels, many, self.what == "E", body)


@dataclass(frozen=True)
class LeadFieldAt:
    """Lead fields of electrodes at places: `ph.lead_field(body, electrodes, reference)(points)`, or
    with moments its `dipoles`.

    electrodes, reference, frame, ends, beta : as in `lead_field`.
    points : (3,) or (P, 3). moments : None, or (3,) or (P, 3) A m.

    Answers have the shape (P, E), without the first axis for one place; V/A, of dipoles V.

    Raises
    ------
    ValueError
        Where it is used: as `lead_field`, and `LeadField.dipoles`.

    Source
    ------
    As `lead_field`.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> skin = limb.nearest([[0.05, 0.05, 0.0], [0.08, 0.05, 0.0]])
    >>> ph.LeadFieldAt(skin, limb.electrode, moments=(1e-9, 0, 0), reference="average").unit
    'V'
    """

    electrodes: Any
    points: Any
    moments: Any = None
    reference: Any = None
    frame: str = "grid"
    ends: Ends | str = "auto"
    beta: float | None = None

    @property
    def unit(self) -> str:
        """Of the answers."""
        return "V/A" if self.moments is None else "V"

    def on(self, body: Body) -> _LeadFieldOn:
        """See `Quantity`."""
        electrodes = _given(body, self.electrodes, self.frame, "electrodes")
        reference = _given_reference(body, self.reference, self.frame)
        ends = ends_of(body, self.ends, self.beta, paired=False, points=False)
        connected(body, ends)
        metres, many = places(body, self.points, self.frame, "points")
        held = body.plain.in_tissue(metres.detach()).cpu().numpy()
        moments = None
        if self.moments is not None:
            moments = along_the_grid(body, self.moments, len(held), self.frame)
        return _LeadFieldOn(ends, electrodes, reference, held, many, moments)


# --- On a body ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """Electrodes in metres of the grid: points (n, 3) in their tissue, or patches.
    many : whether they were given as many."""

    places: Any
    many: bool

    @property
    def alone(self) -> Any:
        """As they were given: one, or several."""
        return self.places if self.many else self.places[0]


def _given(body: Body, given: Any, frame: str, name: str) -> _Given:
    """Electrodes as a user gives them. Raises ValueError."""
    first = given[0] if isinstance(given, (list, tuple)) and given else given
    if isinstance(first, Patch):
        several = [given] if isinstance(given, Patch) else list(given)
        patches = []
        for number, patch in enumerate(several):
            if not isinstance(patch, Patch):
                raise ValueError(f"{name} must be all points, or all patches")
            patch.voxels(body, frame, f"{name}[{number}]")  # its own checks
            centre = numbers(patch.centre, f"{name}.centre").detach()
            there = in_metres(body, centre[None], frame, name)[0].numpy()
            patches.append(Patch(there, float(patch.radius) * metres_per_unit(frame)))
        return _Given(patches, not isinstance(given, Patch))
    metres, many = places(body, given, frame, name)
    return _Given(body.plain.in_tissue(metres.detach()).cpu().numpy(), many)


def _given_reference(body: Body, reference: Any, frame: str) -> Any:
    """A place (3,) m of the grid, a patch, "average" or None. Raises ValueError."""
    if reference is None or isinstance(reference, str):
        reference_of(body, reference, frame)
        return reference
    given = _given(body, reference, frame, "reference")
    if given.many:
        raise ValueError(
            f"reference must be one place or Patch, 'average' or None; got {len(given.places)}"
        )
    return given.places[0]


@dataclass(frozen=True)
class _Driven:
    """A body with currents into it."""

    at: _Given
    returns: _Given | None
    current: Any
    ends: Ends
    singularity: str

    @classmethod
    def of(cls, body: Body, asked: Voltage | FieldAt) -> _Driven:
        """Raises ValueError as `solve`."""
        one_of(("subtraction", "nodal"), "singularity", asked.singularity, quoted=True)
        # its own checks, in the words and the frame of the user
        sources = sources_of(body, asked.at, asked.current, asked.returns, asked.frame)
        points = sources.points is not None
        ends = ends_of(body, asked.ends, asked.beta, asked.returns is not None, points)
        connected(body, ends)
        back = None
        if asked.returns is not None:
            back = _given(body, asked.returns, asked.frame, "returns")
        at = _given(body, asked.at, asked.frame, "at")
        source = sources.part(body.plain, slice(None))
        if isinstance(source, PointSource) and asked.singularity == "subtraction":
            warn_beside_better(body.plain, source, level=5)
        return cls(at, back, sources.current.detach().cpu().numpy(), ends, asked.singularity)

    def loads(self, posed: Posed) -> tuple[list[Load], list[ClosedForm]]:
        """The sources, and where they are points their closed forms."""
        returns = None if self.returns is None else self.returns.places
        sources = sources_of(posed.body, self.at.places, self.current, returns, "grid")
        each = range(len(sources))
        if sources.points is None:
            return [deposited(posed, sources, k) for k in each], []
        if self.singularity == "nodal":
            return [in_one_voxel(posed, sources, k) for k in each], []
        forms = [subtracted(posed, sources, k) for k in each]
        return [form.load for form in forms], forms

    def solved(self, body: Body, tolerance: float) -> Field:
        """By the door."""
        return solve(
            body,
            self.at.places,
            self.current,
            returns=None if self.returns is None else self.returns.places,
            ends=self.ends,
            singularity=self.singularity,
            tolerance=tolerance,
            engine="solver",
            progress=False,
        )


@dataclass(frozen=True)
class _DrivenOn:
    """What is asked of a body with currents into it."""

    driven: _Driven

    @property
    def ends(self) -> Ends:
        """How the current leaves."""
        return self.driven.ends

    @property
    def count(self) -> int:
        """Systems that a plain answer solves."""
        return len(self.driven.at.places)

    @property
    def sources(self) -> tuple[int, ...]:
        """First axis of an answer: none for one source."""
        return (self.count,) if self.driven.at.many else ()


@dataclass(frozen=True)
class _VoltageOn(_DrivenOn):
    """See `Voltage`."""

    electrodes: _Given
    reference: Any
    body: Body

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an answer."""
        electrodes = (len(self.electrodes.places),) if self.electrodes.many else ()
        return (*self.sources, *electrodes)

    def asked(self, posed: Posed) -> Asked:
        """See `OnBody`."""
        loads, forms = self.driven.loads(posed)
        electrodes = list(electrodes_of(posed.body, self.electrodes.places, "grid"))
        reference = reference_of(posed.body, self.reference, "grid")
        less = less_of(electrodes, reference)
        functionals = [electrode_load(posed, e, less) for e in electrodes]
        offsets = voltage_offsets(posed, forms, electrodes, reference) if forms else []
        return Asked(loads, functionals, offsets, self.shape)

    def plain(self, body: Body, tolerance: float) -> np.ndarray:
        """See `OnBody`."""
        field = self.driven.solved(body, tolerance)
        volts = np.asarray(field.at(self.electrodes.places))
        if isinstance(self.reference, str):
            volts = volts - volts.mean(axis=-1, keepdims=True)
        elif self.reference is not None:
            volts = volts - np.asarray(field.at(self.reference))[..., None]
        return volts.reshape(self.shape)


@dataclass(frozen=True)
class _FieldOn(_DrivenOn):
    """See `FieldAt`. voxels : (P, 3)."""

    voxels: np.ndarray
    many: bool
    electric: bool
    body: Body

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an answer."""
        points = (len(self.voxels),) if self.many else ()
        return (*self.sources, *points, 3)

    def asked(self, posed: Posed) -> Asked:
        """See `OnBody`."""
        loads, forms = self.driven.loads(posed)
        functionals = [
            flux_at(posed, voxel, axis, self.electric) for voxel in self.voxels for axis in range(3)
        ]
        offsets = flux_offsets(posed, forms, self.voxels, self.electric)
        return Asked(loads, functionals, offsets, self.shape)

    def plain(self, body: Body, tolerance: float) -> np.ndarray:
        """See `OnBody`."""
        field = self.driven.solved(body, tolerance)
        d, h, w = self.voxels.T
        vectors = field.E if self.electric else field.J
        return np.asarray(vectors[:, d, h, w]).reshape(self.shape)


@dataclass(frozen=True)
class _LeadFieldOn:
    """See `LeadFieldAt`. points, moments : (P, 3) m and A m of the grid."""

    ends: Ends
    electrodes: _Given
    reference: Any
    points: np.ndarray
    many: bool
    moments: np.ndarray | None

    @property
    def count(self) -> int:
        """Systems that a plain answer solves."""
        return len(self.electrodes.places)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an answer."""
        count = len(self.electrodes.places)
        return (len(self.points), count) if self.many else (count,)

    def asked(self, posed: Posed) -> Asked:
        """See `OnBody`."""
        electrodes = list(electrodes_of(posed.body, self.electrodes.places, "grid"))
        reference = reference_of(posed.body, self.reference, "grid")
        less = less_of(electrodes, reference)
        loads = [electrode_load(posed, e, less) for e in electrodes]
        functionals = []
        if self.moments is None:
            points = electrodes_of(posed.body, self.points, "grid", "points")
            functionals = [electrode_load(posed, point, None) for point in points]
        else:
            for point, moment in zip(self.points, self.moments, strict=True):
                functionals.append(dipole(posed, torch.from_numpy(point), moment))
        return Asked(loads, functionals, [], self.shape, across=True)

    def plain(self, body: Body, tolerance: float) -> np.ndarray:
        """See `OnBody`."""
        lead = lead_field(
            body,
            self.electrodes.places,
            self.reference,
            ends=self.ends,
            tolerance=tolerance,
            progress=False,
        )
        if self.moments is None:
            return lead(self.points).reshape(self.shape)
        return lead.dipoles(self.points, self.moments).reshape(self.shape)
