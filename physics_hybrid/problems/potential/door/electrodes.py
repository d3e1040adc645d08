r"""Electrodes as they are: a shape, a contact impedance, a potential. The complete electrode model.

    electrodes = ph.electrodes(body, [ph.Electrode.disk((0.10, 0.05, 0.0), 0.01, 0.02), ...])
    electrodes.impedance                                   ohm, (L, L)
    field = electrodes.solve(currents=[1e-3, -1e-3, 0])    V, as of ph.solve

Metal has one potential, so that current also crosses the body through electrodes that have none
from outside (shunting); a film between metal and tissue has z ohm m^2. See
`physics.electrode_model`.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.checks import is_whole
from physics_hybrid.problems.potential.door.arrays import numbers
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.electrode_field import ElectrodeField
from physics_hybrid.problems.potential.door.electrode_patches import (
    Disk,
    Label,
    Listed,
    Rectangle,
    Shape,
)
from physics_hybrid.problems.potential.door.electrode_shapes import Faces, Ground, Touch
from physics_hybrid.problems.potential.door.equations import at_once, require_memory
from physics_hybrid.problems.potential.door.progress import Progress
from physics_hybrid.problems.potential.door.solving import check_body
from physics_hybrid.problems.potential.door.sources import Deposit, Sources
from physics_hybrid.problems.potential.door.ways_out import connected, open_or_sealed
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.contacts import Contacts
from physics_hybrid.problems.potential.physics.electrode_model import (
    Responses,
    driven,
    impedance,
    respond,
)
from physics_hybrid.problems.potential.physics.ends import ENDS, Ends
from physics_hybrid.problems.potential.physics.krylov import SolverError
from physics_hybrid.writing import write_text, written

#: Relative to the largest current: how far what is delivered may be from what was asked for, and
#: what currents must add up to where nothing else takes them.
DELIVERED, BALANCED = 1e-10, 1e-9
#: Bytes of each voxel and electrode that are kept, and at the peak.
KEPT_BYTES = 32


@dataclass(frozen=True, eq=False)
class Electrode:
    """An electrode: where it touches, and through what.

    contact_impedance : ohm m^2, > 0, of the film between metal and tissue; None: perfect contact.

    Raises
    ------
    ValueError
        An impedance that is not > 0. Where it is used: off the body, sizes that are not > 0.

    Source
    ------
    Somersalo, Cheney and Isaacson, SIAM J. Appl. Math. 52 (1992) 1023, eqs. 2.4 to 2.7.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> ph.Electrode.disk((0.03, 0.03, 0.0), radius=0.01, contact_impedance=0.02)
    Electrode(disk of radius 0.01 at (0.03, 0.03, 0), 0.02 ohm m^2)
    """

    shape: Shape
    contact_impedance: float | None = None

    def __post_init__(self) -> None:
        z = self.contact_impedance
        if z is None:
            return
        given = numbers(z, "contact_impedance").detach()
        if (
            isinstance(z, bool)
            or given.ndim
            or not bool(torch.isfinite(given))
            or not float(given) > 0
        ):
            raise ValueError(
                f"contact_impedance must be > 0 ohm m^2, or None for perfect contact; got {z}"
            )
        object.__setattr__(self, "contact_impedance", float(given))

    def __repr__(self) -> str:
        z = self.contact_impedance
        return f"Electrode({self.shape}, {'perfect contact' if z is None else f'{z:g} ohm m^2'})"

    @classmethod
    def disk(
        cls,
        centre: Any,
        radius: float,
        contact_impedance: float | None = None,
        *,
        normal: Any = None,
        inside: bool = False,
    ) -> Electrode:
        """A disk on skin, or a sheet inside tissue, which touches it from both sides.

        centre : (3,); radius : m, or mm where frame is "world". normal : (3,), out of the body;
            None: the mean of the skin under it. inside : on the plane between voxels that is
            nearest; normal is then one of the axes.
        """
        return cls(Disk(centre, normal, inside, radius), contact_impedance)

    @classmethod
    def rectangle(
        cls,
        centre: Any,
        sides: Sequence[float],
        contact_impedance: float | None = None,
        *,
        along: Any = None,
        normal: Any = None,
        inside: bool = False,
    ) -> Electrode:
        """A rectangle, as `disk`. sides : two lengths, the first in the direction `along`; None:
        that of D, or of H where the skin looks along D."""
        return cls(Rectangle(centre, normal, inside, sides, along), contact_impedance)

    @classmethod
    def label(cls, number: int, contact_impedance: float | None = None) -> Electrode:
        """All voxels of a label of the segmentation, as metal: it is no tissue any more, and
        touches all that is round it."""
        return cls(Label(number), contact_impedance)

    @classmethod
    def faces(
        cls, faces: Sequence[tuple[int, int, int, str]], contact_impedance: float | None = None
    ) -> Electrode:
        """Faces of voxels, (d, h, w, side) with side "+D", "-D", "+H" ...: of the voxel of tissue
        that is touched. Between two voxels of tissue the other one is not, and nothing passes."""
        return cls(Listed(faces), contact_impedance)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ElectrodeSystem:
    """Electrodes on a body, solved for: `impedance`, `transfer`, `solve`.

    body : without the metal. electrodes : as given. ends : how else current leaves.
    contacts : their faces. responses : in the box round the tissue.
    areas : (L,) m^2.
    tolerance, frame : as asked. seconds : it took.

    Raises
    ------
    ValueError
        From `solve` and `transfer`: currents that do not add up to 0 where nothing else takes
        them; numbers of electrodes that there are not.

    Source
    ------
    Somersalo, Cheney and Isaacson, SIAM J. Appl. Math. 52 (1992) 1023.

    Examples
    --------
    A bar between two electrodes that cover its ends: L / (sigma A) + 2 z / A.

    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> bar = ph.Body(np.full((16, 4, 4), 0.5), (0.005, 0.005, 0.005))
    >>> caps = [ph.Electrode.rectangle((d, 0.01, 0.01), (0.02, 0.02), 0.01) for d in (0.0, 0.08)]
    >>> system = ph.electrodes(bar, caps, tolerance=1e-10)
    >>> round(float(system.transfer((0, 1), (0, 1))), 6)          # 0.08 / (0.5 A) + 0.02 / A, ohm
    450.0
    >>> field = system.solve(currents=[1e-3, -1e-3])
    >>> field.voltages.round(6).tolist()
    [0.225, -0.225]
    """

    body: Body
    electrodes: tuple[Electrode, ...]
    ends: Ends
    contacts: Contacts
    responses: Responses
    areas: np.ndarray
    tolerance: float
    frame: str
    seconds: float
    _whole: Body
    _box: Box
    _kept: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"ElectrodeSystem({len(self)} electrodes on {self.body!r}, ends={self.ends.kind},"
            f" {self.responses.iterations} iterations to {self.responses.residual:.1e})"
        )

    def __len__(self) -> int:
        return len(self.electrodes)

    @property
    def admittance(self) -> np.ndarray:
        """Y, S: currents into the body for 1 V on each electrode alone. (L, L), symmetric."""
        return self.responses.admittance.numpy().copy()

    @property
    def impedance(self) -> np.ndarray:
        """Z, ohm: potentials of electrodes for 1 A into each. (L, L), symmetric, positive.

        With ends that are open, against these; with a sink, which takes it out evenly, against the
        mean over tissue. With neither (pair), for currents that add up to 0 and against the mean of
        the electrodes.
        """
        if "impedance" not in self._kept:
            self._kept["impedance"] = impedance(self.responses, self.ends.floating).numpy()
        kept: np.ndarray = self._kept["impedance"]
        return kept.copy()

    def transfer(self, drive: Any, read: Any) -> Any:
        """Transfer resistances, ohm: the voltage between two electrodes for 1 A through two others.

        drive, read : pairs of numbers of electrodes, (2,), or (n, 2) for many: current goes in at
            the first, and the voltage is its potential less that of the second. -> (), or (drives,
            reads).

        Raises
        ------
        ValueError
            Numbers that there are not; an electrode twice in a pair.
        """
        into, many = self._pairs(drive, "drive")
        across, several = self._pairs(read, "read")
        found = into @ self.impedance @ across.T
        if not many:
            found = found[0]
        return found if several else found[..., 0]

    def _pairs(self, given: Any, name: str) -> tuple[np.ndarray, bool]:
        """+1 and -1 at the electrodes of pairs, (n, L), and whether they were given as many."""
        pairs = np.asarray(given)
        fine = pairs.ndim in (1, 2) and pairs.shape[-1:] == (2,) and pairs.dtype.kind in "iu"
        if not fine or not ((pairs >= 0) & (pairs < len(self))).all():
            raise ValueError(
                f"{name} must be two numbers of electrodes, 0 to {len(self) - 1}, or a list of"
                f" such pairs; got {given}"
            )
        rows = pairs.reshape(-1, 2)
        if (rows[:, 0] == rows[:, 1]).any():
            raise ValueError(f"{name} has the same electrode twice: {given}")
        one = np.eye(len(self))
        return one[rows[:, 0]] - one[rows[:, 1]], pairs.ndim == 2

    def solve(self, currents: Any = None, voltages: Any = None) -> ElectrodeField:
        """The field of electrodes that are driven by currents, by voltages, or some by either.

        Parameters
        ----------
        currents : (L,), or (K, L) for many fields, A into the body; or {electrode: A}
            Electrodes that are not named, or have NaN, carry no net current: their potential floats
            and they shunt.
        voltages : (L,) or (K, L), V, NaN for electrodes that are not held; or {electrode: V}.

        Returns
        -------
        ElectrodeField
            As what `solve` gives; with `voltages` and `currents` of all electrodes.

        Raises
        ------
        ValueError
            Another shape, values that are not finite, an electrode with both; currents that do not
            add up to 0 where nothing else takes them.
        SolverError (a RuntimeError)
            What is delivered is not what was asked for, to 1e-10.
        """
        given, several = self._asked(currents, "currents")
        held, many = self._asked(voltages, "voltages")
        rows = max(len(given), len(held))
        for name, values in (("currents", given), ("voltages", held)):
            if len(values) not in (1, rows):
                raise ValueError(f"{name} has {len(values)} rows, and the other one {rows}")
        given, held = (np.broadcast_to(values, (rows, len(self))) for values in (given, held))
        both = ~np.isnan(given) & ~np.isnan(held)
        if both.any():
            raise ValueError(
                f"electrode {int(np.argwhere(both)[0, 1])} is given a current and a voltage:"
                " one of them follows"
            )
        given = np.where(np.isnan(given) & np.isnan(held), 0.0, given)
        self._check_balance(given, held)
        return self._field(given, held, several or many)

    def _asked(self, values: Any, name: str) -> tuple[np.ndarray, bool]:
        """(K, L) with NaN where nothing was asked for, and whether they were given as many."""
        count = len(self)
        if values is None:
            return np.full((1, count), np.nan), False
        if isinstance(values, Mapping):
            row = np.full(count, np.nan)
            for key, value in values.items():
                if not is_whole(key) or not 0 <= key < count:
                    raise ValueError(
                        f"{name} has the electrode {key!r}; there are 0 to {count - 1}"
                    )
                one = numbers(value, f"{name}[{key}]").detach()
                if one.ndim:
                    raise ValueError(f"{name}[{key}] must be one number; got {value}")
                row[key] = float(one)
            given = row
        else:
            given = numbers(values, name).detach().cpu().numpy()
        if given.ndim not in (1, 2) or given.shape[-1] != count or not given.size:
            raise ValueError(
                f"{name} must be one number for each of {count} electrodes, ({count},) or"
                f" (K, {count}); got {given.shape}"
            )
        if np.isinf(given).any():
            raise ValueError(f"{name} must be finite; got {given.tolist()}")
        return given.reshape(-1, count), given.ndim == 2

    def _check_balance(self, currents: np.ndarray, held: np.ndarray) -> None:
        """Raises ValueError where currents do not add up to 0, and nothing takes what is left."""
        if self.ends.kind != "pair":
            return
        for row, (amperes, volts) in enumerate(zip(currents, held, strict=True)):
            if not np.isnan(volts).all():
                continue
            left, size = float(amperes.sum()), float(np.abs(amperes).max())
            if abs(left) > BALANCED * size:
                where = f" (row {row})" if len(currents) > 1 else ""
                raise ValueError(
                    f"currents must add up to 0 A, for nothing else takes them (ends: pair); they"
                    f" add up to {left:g}{where}. Hold an electrode at a voltage, or"
                    " ph.electrodes(..., ends='grounded')"
                )

    def _field(self, currents: np.ndarray, held: np.ndarray, many: bool) -> ElectrodeField:
        began = time.monotonic()
        responses, shape = self.responses, self._box.size
        tissue = self._box.within(torch.from_numpy(self.body.tissue))
        volts, phi = [], []
        for amperes, at in zip(currents, held, strict=True):
            asked = (torch.from_numpy(amperes.copy()), torch.from_numpy(at.copy()))
            U, left = driven(responses, self.ends.floating, *asked)
            one = (U @ responses.volts.flatten(1)).reshape(shape)
            if responses.sink is not None:
                one = one + left * responses.sink
            if self.ends.floating and np.isnan(at).all():
                level = one[tissue].mean()
                one, U = torch.where(tissue, one - level, 0.0), U - level
            volts.append(U)
            phi.append(one)
        fields, potentials = torch.stack(phi), torch.stack(volts)
        inner = self.contacts.within(self._box)
        through = inner.currents(fields, potentials)
        through[torch.from_numpy(self._at_rest(currents, held))] = 0.0  # not what rounding leaves
        delivered = inner.gathered(through).numpy()
        wrong = np.nan_to_num(np.abs(delivered - currents))
        size = np.abs(delivered).max(axis=1, keepdims=True)
        if (wrong > DELIVERED * size).any():
            raise SolverError(
                f"electrode {int(np.argwhere(wrong > DELIVERED * size)[0, 1])} delivers"
                f" {float(wrong.max()):.2g} A too much or too little: contacts or tissues are too"
                " unlike each other for float64"
            )
        return ElectrodeField(
            body=self.body,
            sources=self._sources(through, many),
            volts=self._box.whole(fields),
            ends=self.ends,
            engine="solver",
            why="the complete electrode model",
            tolerance=self.tolerance,
            iterations=responses.iterations,
            residual=responses.residual,
            seconds=time.monotonic() - began,
            frame=self.frame,
            singularity="nodal",
            as_tensor=self.body.of_tensor,
            system=self,
            potentials=potentials.numpy(),
            delivered=delivered,
            asked=currents,
            through=through,
        )

    def _at_rest(self, currents: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Where nothing drives: no current, and all that are held at one potential. (K,)"""
        if not self.ends.floating:
            return np.zeros(len(held), dtype=bool)
        none = np.isnan(held)
        highest = np.where(none, -np.inf, held).max(axis=1)
        lowest = np.where(none, np.inf, held).min(axis=1)
        rest: np.ndarray = (np.nan_to_num(currents) == 0).all(axis=1) & (highest <= lowest)
        return rest

    def _sources(self, through: Float[Tensor, "K F"], many: bool) -> Sources:
        """The currents of faces as what is deposited in the voxels behind them."""
        voxels = np.ravel_multi_index(tuple(self.contacts.voxels.numpy().T), self.body.shape)
        deposits = tuple(Deposit(voxels, row.numpy()) for row in through)
        one = torch.ones(len(through), dtype=torch.float64)
        return Sources(None, one, None, deposits, many)

    def refined(self, tolerance: float, progress: bool = True) -> ElectrodeSystem:
        """The same electrodes, solved to another tolerance.

        Raises
        ------
        ValueError, SolverError
            As `electrodes`.
        """
        return electrodes(
            self._whole,
            self.electrodes,
            ends=self.ends,
            frame=self.frame,
            tolerance=tolerance,
            progress=progress,
        )

    def save(self, path: str | Path) -> Path:
        """Impedance, admittance and areas to .csv (the impedance alone, ohm), .json or .npz.

        Raises
        ------
        ValueError
            Another suffix.
        OSError
            The file cannot be written.
        """
        path = Path(path).expanduser()
        check_suffix(path)
        suffix = path.suffix.lower()
        if suffix == ".csv":
            rows = [",".join(f"{z:.17g}" for z in row) for row in self.impedance]
            write_text(path, "\n".join(rows) + "\n")
        elif suffix == ".json":
            write_text(path, json.dumps(self._about(), indent=1) + "\n")
        else:
            with written(path) as temporary, open(temporary, "wb") as file:
                np.savez(
                    file, impedance=self.impedance, admittance=self.admittance, areas=self.areas
                )
        return path

    def _about(self) -> dict[str, Any]:
        return {
            "electrodes": [str(electrode) for electrode in self.electrodes],
            "ends": self.ends.kind,
            "tolerance": self.tolerance,
            "areas_m2": self.areas.tolist(),
            "impedance_ohm": self.impedance.tolist(),
            "admittance_S": self.admittance.tolist(),
        }


def check_suffix(path: str | Path) -> None:
    """Raises ValueError where impedances are not written to files of this suffix."""
    if Path(path).suffix.lower() not in (".csv", ".json", ".npz"):
        raise ValueError(f"{path}: impedances are written as .csv, .json or .npz")


def electrodes(
    body: Body,
    electrodes: Sequence[Electrode],
    *,
    ends: Ends | str = "auto",
    beta: float | None = None,
    frame: str = "grid",
    tolerance: float = 1e-8,
    progress: bool = True,
) -> ElectrodeSystem:
    """Electrodes on a body by the complete electrode model: one solve an electrode, then any drive.

    sigma d phi / dn = (U_l - phi) / z_l on electrode l,   I_l = int (U_l - phi) / z_l dS

    Parameters
    ----------
    body : Body
    electrodes : list of `Electrode`
    ends : "auto", "pair", "grounded", "robin" (with `beta`, 1/m), "sink" or Ends
        How current leaves but for electrodes. auto: not at all (pair) where there are two
        electrodes or more; one alone as in `solve`: grounded where tissue touches the first or last
        plane along D, else evenly through all tissue (sink).
    frame : "grid" or "world"
        Places and sizes in m of the grid, or in mm of the world, as in `solve`.
    tolerance : float
        Relative residual of each solve. The error of impedances is about its square, with a sink
        about itself; delivered currents do not depend on it.
    progress : whether to show a bar from 2 s on.

    Returns
    -------
    ElectrodeSystem
        `impedance`, `admittance`, `transfer`, `solve`, `save`.

    Raises
    ------
    ValueError
        Electrodes off the body, or over each other; sizes and impedances that are not > 0; ends
        that are none; tissue without a potential; more memory than there is.
    SolverError (a RuntimeError)
        Tolerance not reached.

    Source
    ------
    Somersalo, Cheney and Isaacson, SIAM J. Appl. Math. 52 (1992) 1023, eqs. 2.4 to 2.7. A disk of
    perfect contact on a half space has 1 / (4 sigma a): Newman, J. Electrochem. Soc. 113 (1966)
    501.

    Examples
    --------
    Four disks on a block: what a pair reads does not change if drive and reading are exchanged.

    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> body = ph.Body(np.full((16, 16, 16), 0.3), (0.004, 0.004, 0.004))
    >>> row = [ph.Electrode.disk((d, 0.03, 0.0), 0.005, 0.01) for d in (0.01, 0.024, 0.038, 0.052)]
    >>> system = ph.electrodes(body, row)
    >>> there, back = system.transfer((0, 3), (1, 2)), system.transfer((1, 2), (0, 3))
    >>> bool(there > 0), bool(abs(there / back - 1) < 1e-12)
    (True, True)
    """
    began = time.monotonic()
    check_body(body, tolerance)
    given = _listed(electrodes)
    if body.sigma.requires_grad:
        raise ValueError("derivatives through electrodes are not there yet: body.sigma.detach()")
    body = _on_the_cpu(body)
    bare = _without_metal(body, given)
    way_out = _ends(bare, ends, beta, len(given))
    connected(bare, way_out)
    metal = body.tissue & ~bare.tissue
    skin = Faces.between(bare.tissue, ~bare.tissue & ~metal, True, way_out.floating)
    ground = Ground(whole=body, bare=bare, skin=skin, frame=frame)
    touches = [e.shape.touch(ground, f"electrodes[{k}]") for k, e in enumerate(given)]
    _refuse_overlap(touches, ground)
    contacts = _contacts(touches, given)
    conductor = Conductor(bare.sigma.detach().cpu(), bare.plain.spacing.cpu(), way_out)
    box = Box.of(conductor)
    inner = box.conductor(conductor)
    voxels = int(np.prod(inner.shape))
    require_memory(voxels, voxels * KEPT_BYTES * len(given), "keep for all electrodes")
    with torch.no_grad(), Progress(len(given), tolerance, "solving", progress) as bar:
        together = at_once(inner)
        responses = respond(
            inner,
            contacts.within(box),
            tolerance=tolerance,
            together=together,
            report=lambda relative: bar.within(relative, min(together, len(given))),
            done=bar.finished,
        )
    return ElectrodeSystem(
        body=bare,
        electrodes=tuple(given),
        ends=way_out,
        contacts=contacts,
        responses=responses,
        areas=contacts.gathered(contacts.area[None])[0].numpy(),
        tolerance=tolerance,
        frame=frame,
        seconds=time.monotonic() - began,
        _whole=body,
        _box=box,
    )


def _listed(given: Any) -> list[Electrode]:
    """Electrodes as a list. Raises ValueError for none, or other things."""
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    for k, one in enumerate(several):
        if not isinstance(one, Electrode):
            raise ValueError(
                f"electrodes[{k}] must be a ph.Electrode (ph.Electrode.disk(centre, radius), ...);"
                f" got {one!r}"
            )
    if not several:
        raise ValueError("electrodes is empty: one at least is needed")
    return several


def _on_the_cpu(body: Body) -> Body:
    """The body where electrodes are solved for."""
    if body.sigma.device.type == "cpu":
        return body
    sigma = body.sigma[0].movedim(0, -1).cpu()
    return body.conducting(sigma)


def _without_metal(body: Body, given: Sequence[Electrode]) -> Body:
    """The body without the voxels that labels of electrodes name."""
    marked = [e.shape.metal(body, f"electrodes[{k}]") for k, e in enumerate(given)]
    metal = np.logical_or.reduce([m for m in marked if m is not None] or [np.zeros(1, bool)])
    if not metal.any():
        return body
    _warn_side_by_side(marked)
    sigma = torch.where(torch.from_numpy(metal), 0.0, body.sigma[0].detach()).movedim(0, -1)
    plain = sigma if body.of_tensor else sigma.numpy()
    return body.conducting(plain)


def _warn_side_by_side(marked: Sequence[np.ndarray | None]) -> None:
    """Warns of metal of two electrodes that shares faces: nothing passes from one to the other."""
    for k, one in enumerate(marked):
        for j, other in enumerate(marked[:k]):
            if one is None or other is None:
                continue
            if len(Faces.between(one, other, outside=False, ends=False)):
                warnings.warn(
                    f"electrodes[{j}] and electrodes[{k}] lie side by side: they count as insulated"
                    " from each other. Metal that is joined has one label",
                    stacklevel=4,
                )


def _ends(body: Body, ends: Ends | str, beta: float | None, count: int) -> Ends:
    """How current leaves but for electrodes. Raises ValueError."""
    if isinstance(ends, Ends):
        way_out = ends
    elif ends == "auto" and beta is None:
        way_out = Ends("pair" if count > 1 else open_or_sealed(body))
    else:
        way_out = Ends("robin" if ends == "auto" else ends, beta)
    if way_out.kind == "pair" and count < 2:
        raise ValueError("ends='pair' needs two electrodes: what comes in at one leaves at another")
    if not way_out.floating and not body.tissue[[0, -1]].any():
        raise ValueError(
            f"ends={way_out.kind!r} lets the current out at the first and last plane along D, and"
            f" no tissue touches them: ends='pair' ({ENDS['pair']})"
        )
    return way_out


def _refuse_overlap(touches: Sequence[Touch], ground: Ground) -> None:
    """Raises ValueError where two electrodes cover the same place."""
    shape = ground.bare.shape
    keys = [touch.faces.keys(shape) for touch in touches]
    for k, one in enumerate(touches):
        for j in range(k):
            other = touches[j]
            _, mine, its = np.intersect1d(keys[k], keys[j], return_indices=True)
            both = one.covered[mine] & other.covered[its]
            if both.any():
                area = float(np.minimum(one.area[mine], other.area[its])[both.any(axis=1)].sum())
                voxel = one.faces.voxels[mine][both.any(axis=1)][0].tolist()
                raise ValueError(
                    f"electrodes[{j}] and electrodes[{k}] overlap, on {1e6 * area:.3g} mm^2 or"
                    f" less, at voxel {tuple(voxel)}: join them, or move one"
                )


def _contacts(touches: Sequence[Touch], given: Sequence[Electrode]) -> Contacts:
    """The faces of all electrodes."""
    faces = Faces.joined([touch.faces for touch in touches])
    counts = [len(touch.faces) for touch in touches]
    impedances = np.repeat([e.contact_impedance or 0.0 for e in given], counts)
    area = np.concatenate([touch.area for touch in touches])
    return Contacts(
        voxels=torch.from_numpy(faces.voxels),
        axis=torch.from_numpy(faces.axis),
        side=torch.from_numpy(faces.side),
        electrode=torch.from_numpy(np.repeat(np.arange(len(given)), counts)),
        share=torch.from_numpy(np.concatenate([touch.share for touch in touches])),
        area=torch.from_numpy(area),
        tissue=torch.from_numpy(np.concatenate([touch.tissue for touch in touches])),
        contact=torch.from_numpy(impedances / area),
        count=len(given),
    )
