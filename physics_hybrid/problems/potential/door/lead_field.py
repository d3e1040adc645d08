r"""Lead fields: the voltages of all electrodes for a source anywhere, by reciprocity.

The potential at an electrode, of 1 A that comes in at r, is the potential at r, of 1 A that comes
in at the electrode (Helmholtz, Ann. Phys. Chem. 89 (1853) 211). With w_e the voxels of an electrode
and V the volume of one,

    A u_e = (w_e - w_reference) / V,        L_e(r) = w_r . u_e                           [V/A]

is the voltage between electrode and reference of 1 A deposited in the voxels w_r round r, the same
to the tolerance as a solve for that source: A is symmetric. One solve an electrode. A dipole p, in
A m, has p . grad L_e, minus the field at the dipole.

A source deposited in voxels is not the point that `solve` subtracts in closed form: near an
electrode or an interface they differ. `LeadField.solved` gives what `solve` would, for the price of
a right-hand side:

    phi(e) = phi_inf(e) + V u_e . b(r),        b(r) of `physics.subtraction`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from physics_hybrid.problems.potential.door.arrays import numbers
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.closed_form import at_places
from physics_hybrid.problems.potential.door.equations import Equations
from physics_hybrid.problems.potential.door.formats import write_nifti
from physics_hybrid.problems.potential.door.interpolation import Weights
from physics_hybrid.problems.potential.door.places import places
from physics_hybrid.problems.potential.door.solving import check_body
from physics_hybrid.problems.potential.door.sources import Deposit, Patch, Sources, deposit_of
from physics_hybrid.problems.potential.door.ways_out import connected, ends_of
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.multipoint import Operator, operator_of
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

#: Points that are looked up together: what they gather stays small.
TOGETHER = 2048

#: Neighbours of a voxel along the axes, below and above.
STEPS = tuple((axis, step) for axis in range(3) for step in (-1, 1))


@dataclass(frozen=True, eq=False)
class Electrode:
    """over : voxels that 1 A is deposited in, and that its voltage is the mean of.
    point : (3,) m of the grid, where it is one; None for a patch.
    """

    over: Deposit
    point: np.ndarray | None

    def centre(self, body: Body) -> np.ndarray:
        """Where it is, (3,) m of the grid."""
        if self.point is not None:
            return self.point
        index = np.stack(np.unravel_index(self.over.voxels, body.shape), axis=1)
        return np.asarray((self.over.shares @ (index + 0.5)) * body.spacing)


@dataclass(frozen=True, eq=False, repr=False)
class LeadField:
    """Voltages of electrodes for sources anywhere in a body: call it with points.

    body : Body.
    electrodes : where they are.
    reference : what voltages are against: an electrode, "average" of them all, or None: the ends
        where these are grounded, else the mean over tissue.
    volts : (D, H, W, E) float32, V/A: in memory, or mapped from a file.
    ends, frame, tolerance : as in `solve`.

    Raises
    ------
    ValueError
        From a call: places outside or in air.

    Source
    ------
    Reciprocity: Helmholtz, Ann. Phys. Chem. 89 (1853) 211; for dipoles: Rush and Driscoll, IEEE
    TBME 16 (1969) 15.

    Examples
    --------
    Two electrodes on a block, and a source in it.

    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> body = ph.Body(np.full((16, 16, 16), 0.3), (0.004, 0.004, 0.004))
    >>> lead = ph.lead_field(body, [[0.02, 0.03, 0.001], [0.04, 0.03, 0.001]])
    >>> lead([0.03, 0.03, 0.02]).shape, lead.dipoles([0.03, 0.03, 0.02], [1e-9, 0, 0]).shape
    ((2,), (2,))
    """

    body: Body
    electrodes: tuple[Electrode, ...]
    reference: Electrode | str | None
    volts: np.ndarray
    ends: Ends
    frame: str
    tolerance: float

    def __repr__(self) -> str:
        where = " in a file" if isinstance(self.volts, np.memmap) else ""
        many = "s" if len(self) > 1 else ""
        return (
            f"LeadField({len(self)} electrode{many} in {self.body!r}, {self.volts.nbytes / 1e6:.3g}"
            f" MB{where})"
        )

    def __len__(self) -> int:
        return len(self.electrodes)

    def __call__(self, points: Any, frame: str | None = None) -> np.ndarray:
        """V/A of monopoles at places in tissue: (3,) -> (E,), (P, 3) -> (P, E).

        Raises
        ------
        ValueError
            Another shape; places outside the box or in air.
        """
        metres, many = self._metres(points, frame)
        table = self._table
        out = np.empty((len(metres), len(self)))
        for rows in _groups(len(metres)):
            weights = Weights.at(self.body.plain, metres[rows])
            values = weights.values.cpu().numpy()[:, :, None]
            out[rows] = (table[weights.voxels.cpu().numpy()] * values).sum(axis=1)
        return out if many else out[0]

    def dipoles(self, points: Any, moments: Any, frame: str | None = None) -> np.ndarray:
        """V of dipoles at places in tissue: moments (3,) or (P, 3) in A m, along the axes of the
        frame. (3,) -> (E,), (P, 3) -> (P, E).

        Raises
        ------
        ValueError
            Another shape; places outside the box or in air.
        """
        metres, many = self._metres(points, frame)
        along = along_the_grid(self.body, moments, len(metres), self._frame(frame))
        volts = np.asarray(np.einsum("pa,pae->pe", along, self.gradient(metres)))
        return volts if many else volts[0]

    def gradient(self, metres: Tensor) -> np.ndarray:
        """grad L at places (P, 3) m of the grid, (P, 3, E) V/(A m): E of the flux through the faces
        of the voxels round them that conduct as their own.
        """
        out = np.empty((len(metres), 3, len(self)))
        for rows in _groups(len(metres)):
            weights = Weights.at(self.body.plain, metres[rows], alike=True)
            voxels, values = weights.voxels.cpu().numpy(), weights.values.cpu().numpy()
            total = np.zeros((len(voxels), 3, len(self)))
            for corner in range(voxels.shape[1]):
                share = values[:, corner]
                used = np.flatnonzero(share)
                slopes = self._slopes(voxels[used, corner])
                total[used] += share[used, None, None] * slopes
            out[rows] = total
        return out

    def _slopes(self, voxels: np.ndarray) -> np.ndarray:
        """grad L at the centres of voxels, (n,) flat -> (n, 3, E): by the mean current through both
        faces, sigma_h (u_j - u_i) / h, over sigma.
        """
        table, shape = self._table, np.array(self.body.shape)
        sigma = self.body.sigma[0].detach().cpu().numpy()
        index = np.stack(np.unravel_index(voxels, self.body.shape), axis=1)
        own = table[voxels]
        slopes = np.zeros((len(voxels), 3, len(self)))
        for axis, step in STEPS:
            beside = index.copy()
            beside[:, axis] += step
            inside = (beside[:, axis] >= 0) & (beside[:, axis] < shape[axis])
            beside[:, axis] = np.clip(beside[:, axis], 0, shape[axis] - 1)
            flat = np.ravel_multi_index(tuple(beside.T), self.body.shape)
            component = sigma[axis if len(sigma) > 1 else 0].reshape(-1)
            here, there = component[voxels], component[flat]
            # sigma_h / sigma: 1 where both are alike, 0 towards air
            total = here + there
            share = np.where(inside & (total > 0), 2 * there / np.where(total > 0, total, 1.0), 0.0)
            change = share[:, None] * (table[flat] - own) * step / self.body.spacing[axis]
            if axis == 0 and not self.ends.floating:
                ground = self._to_the_end(own, index[:, 0], step)
                change = np.where(inside[:, None], change, ground)
            slopes[:, axis] += change / 2
        return slopes

    def _to_the_end(self, own: np.ndarray, plane: np.ndarray, step: int) -> np.ndarray:
        """The slope from the centre of a voxel at an end to the ground behind it, (n, E)."""
        spacing, exchange = self.body.spacing[0], self.ends.exchange
        slope: np.ndarray = -step * own / (spacing / 2 + 1 / exchange)
        return slope

    def solved(self, points: Any, frame: str | None = None) -> np.ndarray:
        """V/A as `solve` and `Field.at` have them for point sources, singularity subtracted, to the
        tolerance: nothing is solved. (3,) -> (E,), (P, 3) -> (P, E).

        Raises
        ------
        ValueError
            Another shape; places outside the box or in air.
        """
        metres, many = self._metres(points, frame)
        conductor = Conductor(self.body.sigma.detach(), self.body.plain.spacing, self.ends)
        operator = operator_of(conductor)
        one = metres.new_ones(1)
        rows = [self._read(conductor, operator, PointSource(point[None], one)) for point in metres]
        out = np.stack(rows)
        return out if many else out[0]

    def _read(self, conductor: Conductor, operator: Operator, source: PointSource) -> np.ndarray:
        """Voltages of one source of 1 A, of which only the right-hand side is made. (E,)"""
        known = Subtraction.of(conductor, operator, source)
        rhs = known.rhs[0].cpu().numpy().reshape(-1)
        phi_inf = known.phi_inf[0].cpu().numpy().reshape(-1)
        (used,) = np.nonzero(rhs)
        rest: np.ndarray = rhs[used] @ self._table[used].astype(np.float64)

        def closed(electrode: Electrode) -> float:
            """phi_inf at an electrode, V."""
            if electrode.point is None:
                return float(phi_inf[electrode.over.voxels] @ electrode.over.shares)
            place = torch.from_numpy(electrode.point)[None].to(source.point)
            return float(at_places(conductor, source, place)[0, 0])

        volts = np.array([closed(electrode) for electrode in self.electrodes])
        if isinstance(self.reference, Electrode):
            volts -= closed(self.reference)
        elif self.reference == "average":
            volts -= volts.mean()
        elif self.ends.floating:
            volts -= phi_inf[self.body.tissue.reshape(-1)].mean()
        return volts + rest * float(np.prod(self.body.spacing))

    def save(self, path: str | Path) -> Path:
        """To .h5, which `load` maps into memory, or .nii.gz and .nii: one volume an electrode.

        Raises
        ------
        ValueError
            Another suffix.
        OSError
            The file cannot be written.
        """
        path = Path(path).expanduser()
        if path.name.lower().endswith((".nii.gz", ".nii")):
            write_nifti(self.body, np.asarray(self.volts), path, "lead field, V/A")
        elif path.suffix.lower() == ".h5":
            from physics_hybrid.problems.potential.door.lead_field_file import write_lead_field

            write_lead_field(self, path)
        else:
            raise ValueError(f"{path}: lead fields are written as .h5, .nii.gz or .nii")
        return path

    @classmethod
    def load(cls, path: str | Path, body: Body) -> LeadField:
        """A lead field of a body, mapped from the .h5 that `save` wrote.

        Raises
        ------
        FileError (a ValueError)
            No such file, or a damaged one; one of another body.
        """
        from physics_hybrid.problems.potential.door.lead_field_file import read_lead_field

        return read_lead_field(Path(path).expanduser(), body)

    def to_mne(self, points: Any, names: Sequence[str] | None = None) -> Any:
        """An `mne.Forward` of free dipoles at places (P, 3), which MNE reads and writes.

        Raises
        ------
        ImportError
            MNE is not installed.
        ValueError
            Places outside or in air; another number of names than of electrodes.
        """
        from physics_hybrid.problems.potential.door.mne_forward import forward

        return forward(self, points, names)

    @property
    def _table(self) -> np.ndarray:
        """volts, a row a voxel."""
        return self.volts.reshape(-1, len(self))

    def _frame(self, frame: str | None) -> str:
        return self.frame if frame is None else frame

    def _metres(self, points: Any, frame: str | None) -> tuple[Tensor, bool]:
        metres, many = places(self.body, points, self._frame(frame), "points")
        return metres.detach(), many


def along_the_grid(body: Body, moments: Any, count: int, frame: str) -> np.ndarray:
    """Moments of dipoles in A m along the axes of the grid, (count, 3). Raises ValueError."""
    along = numbers(moments, "moments").detach().cpu().numpy()
    if along.shape not in ((3,), (count, 3)) or not np.isfinite(along).all():
        raise ValueError(
            f"moments must be (3,), or one for each of {count} dipoles, A m, finite; got"
            f" {along.shape}"
        )
    if frame == "world":
        assert body.affine is not None
        along = along @ (body.affine[:3, :3] / np.linalg.norm(body.affine[:3, :3], axis=0))
    return np.broadcast_to(along, (count, 3))


def lead_field(
    body: Body,
    electrodes: Any,
    reference: Any = None,
    *,
    tolerance: float = 1e-6,
    frame: str = "grid",
    ends: Ends | str = "auto",
    beta: float | None = None,
    progress: bool = True,
) -> LeadField:
    """Voltages of electrodes for sources anywhere: one solve an electrode, by reciprocity.

    Parameters
    ----------
    body : Body
    electrodes : (E, 3), or a list of `Patch`
        In tissue or on its surface; of points outside give `body.nearest(points)`.
    reference : (3,), `Patch`, "average" or None
        What voltages are against. None: the ends where these are grounded, else the mean over
        tissue.
    tolerance : float
        Relative residual of each solve, as in `solve`.
    frame, ends, beta, progress : as in `solve`.

    Returns
    -------
    LeadField
        Call it with places for V/A of monopoles; `dipoles`, `solved`, `save`, `to_mne`.

    Raises
    ------
    ValueError
        Electrodes outside or in air; ends that are none; tissue without a potential.

    Source
    ------
    Reciprocity: Helmholtz, Ann. Phys. Chem. 89 (1853) 211.

    Examples
    --------
    What 1 A gives at an electrode does not depend on which of two points is the electrode.

    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> body = ph.Body(np.full((16, 16, 16), 0.3), (0.004, 0.004, 0.004))
    >>> a, b = [0.02, 0.03, 0.001], [0.04, 0.03, 0.051]
    >>> there, back = ph.lead_field(body, [a])(b), ph.lead_field(body, [b])(a)
    >>> bool(abs(there[0] / back[0] - 1) < 1e-5)
    True
    """
    check_body(body, tolerance)
    found = tuple(electrodes_of(body, electrodes, frame))
    against = reference_of(body, reference, frame)
    way_out = ends_of(body, ends, beta, paired=False, points=False)
    connected(body, way_out)
    deposits = [e.over for e in found]
    if isinstance(against, Electrode):
        deposits = [d.less(against.over) for d in deposits]
    one = torch.ones(len(found), dtype=torch.float64, device=body.sigma.device)
    sources = Sources(None, one, None, tuple(deposits), True)
    plain = Conductor(body.sigma.detach(), body.plain.spacing, way_out)
    volts = _room(body, len(found))

    def keep(rows: slice, phi: Tensor) -> None:
        """The solutions of some electrodes."""
        volts[..., rows] = phi.movedim(0, -1).cpu().numpy()

    with torch.no_grad():
        Equations(plain, sources, tolerance, "subtraction", None).each(keep, progress)
    if against == "average":
        volts -= volts.mean(axis=-1, keepdims=True)
    return LeadField(body, found, against, volts, way_out, frame, tolerance)


def reference_of(body: Body, reference: Any, frame: str) -> Electrode | str | None:
    """What voltages are against: an electrode, "average" or None. Raises ValueError."""
    if reference is None or (isinstance(reference, str) and reference == "average"):
        return reference
    if isinstance(reference, str):
        raise ValueError(
            f"reference must be a place, a Patch, 'average' or None; got {reference!r}"
        )
    return next(electrodes_of(body, [reference], frame, "reference"))


def electrodes_of(
    body: Body, given: Any, frame: str, name: str = "electrodes"
) -> Iterator[Electrode]:
    """Points or patches as a user gives them. Raises ValueError."""
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], Patch):
        for number, patch in enumerate(given):
            if not isinstance(patch, Patch):
                raise ValueError(f"{name} must be all points, or all patches")
            yield Electrode(deposit_of(body, patch, frame, f"{name}[{number}]"), None)
        return
    metres, _ = places(body, given, frame, name)
    metres = metres.detach()
    weights = Weights.at(body.plain, metres)
    for point, voxels, values in zip(metres, weights.voxels, weights.values, strict=True):
        used = values > 0
        over = Deposit(voxels[used].cpu().numpy(), values[used].cpu().numpy())
        yield Electrode(over, point.cpu().numpy())


def _room(body: Body, count: int) -> np.ndarray:
    """Where the lead field goes, (D, H, W, E) float32. Raises ValueError where it has no room."""
    size, free = 4 * math.prod(body.shape) * count, psutil.virtual_memory().available
    if size > free:
        raise ValueError(
            f"{count} electrodes take {size / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free: take"
            " them in parts, or coarser voxels"
        )
    return np.empty((*body.shape, count), dtype=np.float32)


def _groups(count: int) -> Iterator[slice]:
    """Rows that are looked up together."""
    for first in range(0, count, TOGETHER):
        yield slice(first, first + TOGETHER)
