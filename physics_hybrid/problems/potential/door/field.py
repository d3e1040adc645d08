"""A field: the potential of electrodes in a body, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.door.arrays import is_tensor, like
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.closed_form import at_places, on_grid
from physics_hybrid.problems.potential.door.interpolation import Weights
from physics_hybrid.problems.potential.door.places import places
from physics_hybrid.problems.potential.door.sources import Patch, Sources
from physics_hybrid.problems.potential.door.ways_out import reached
from physics_hybrid.problems.potential.experience import Experience
from physics_hybrid.problems.potential.physics.conductor import Conductor, matrix
from physics_hybrid.problems.potential.physics.electrodes import PointSource, nodal_source
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.multipoint import Operator, operator_of
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.certify import Certificate


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Field:
    """The potential of electrodes in a body: `phi`, `E`, `J`, `at`, `plot`, `save`, `refine`,
    `certify`, `interval`.

    J = -sigma grad phi = sigma E                                                   [A/m^2]

    What `solve` gives. The closed form of a point electrode is known everywhere and the rest is
    smooth: values between voxels are the one plus the other, interpolated in the tissue; E and J at
    a voxel centre are means of exact fluxes through its faces.

    body : Body.
    sources : where the current comes in, and leaves where there are pairs.
    ends : how else it leaves.
    engine, why : what has found it, and the reason.
    tolerance : that was asked for. iterations, residual : of conjugate gradients, |b - A x| / |b|
        the largest; None where a network answered.
    seconds : it took.
    frame : of places that are given to it.
    split : into how many parts along each axis its voxels were split.
    experience, unlike : of a network that was calibrated: what it is likely to be wrong by, and for
        each source why that cannot be said of this body ("" where it can).

    Raises
    ------
    ValueError
        From `at`: places outside or in air. From `save`: another suffix.

    Source
    ------
    Subtraction of the closed form: Wolters et al., SIAM J. Sci. Comput. 30 (2007) 24.

    Examples
    --------
    Ohm's law at every voxel, and the closed form near the electrode.

    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> body = ph.Body(np.full((24, 24, 24), 0.3), (0.004, 0.004, 0.004))
    >>> field = ph.solve(body, at=(0.05, 0.05, 0.05), current=1e-3)
    >>> bool(np.allclose(field.J, 0.3 * field.E))
    True
    >>> near = field.at((0.05, 0.05, 0.051))
    >>> bool(abs(near / (1e-3 / (4 * np.pi * 0.3 * 0.001)) - 1) < 0.05)
    True
    """

    body: Body
    sources: Sources
    volts: Float[Tensor, "K D H W"]
    ends: Ends
    engine: str
    why: str
    tolerance: float
    iterations: int | None
    residual: float | None
    seconds: float
    frame: str
    singularity: str
    as_tensor: bool
    split: int = 1
    experience: Experience | None = None
    unlike: tuple[str, ...] = ()
    _kept: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        count = f"{len(self.sources)} sources" if self.sources.many else "one source"
        volts = self.volts.detach()
        bound = ""
        if "certificate 1" in self._kept:
            bound = f", at most {float(self.certify().relative.max()):.2g} off in energy"
        return (
            f"Field({count} in {self.body!r}, {float(volts.min()):.4g} to {float(volts.max()):.4g}"
            f" V, ends={self.ends.kind}, {self.engine}: {self.why}{bound})"
        )

    @property
    def many(self) -> bool:
        """Whether there is a field for each of several sources."""
        return self.sources.many

    @property
    def phi(self) -> Any:
        """Volts at voxel centres, 0 in air: (D, H, W), or (K, D, H, W) for many sources."""
        return self._shown(self.volts)

    @property
    def E(self) -> Any:
        """-grad phi at voxel centres, V/m, 0 in air: (..., D, H, W, 3), components (D, H, W)."""
        return self._shown(self._vectors()[0])

    @property
    def J(self) -> Any:
        """Current density at voxel centres, A/m^2: (..., D, H, W, 3), components (D, H, W)."""
        return self._shown(self._vectors()[1])

    def _shown(self, value: Tensor) -> Any:
        return like(value if self.many else value[0], self.as_tensor)

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """E and J of all sources, kept."""
        if "vectors" not in self._kept:
            pairs = [self._vectors_of(rows) for rows in self._rows()]
            both = torch.cat([E for E, _ in pairs]), torch.cat([J for _, J in pairs])
            if both[0].requires_grad:
                return both
            self._kept["vectors"] = both
        kept: tuple[Tensor, Tensor] = self._kept["vectors"]
        return kept

    def _rows(self) -> Iterator[slice]:
        """One source after the other: what needs all faces takes much memory."""
        for k in range(len(self.sources)):
            yield slice(k, k + 1)

    def _vectors_of(self, rows: slice) -> tuple[Tensor, Tensor]:
        conductor, operator = self.conductor, self._operator
        known = self._known(rows)
        sides = []
        for axis, face in enumerate(known.current_density(operator, self.volts[rows])):
            size = face.shape[axis + 1] - 1
            low, high = face.narrow(axis + 1, 0, size), face.narrow(axis + 1, 1, size)
            sides.append((low + high) / 2)
        tissue = conductor.tissue[..., None]
        flows = reached(self.body, self.sources, self.ends)
        if flows is not None:
            tissue = tissue & flows[rows, ..., None]
        J = torch.where(tissue, torch.stack(sides, dim=-1) + self._through_skin(rows), 0.0)
        sigma = torch.where(tissue, conductor.sigma.movedim(1, -1), 1.0)
        if sigma.shape[-1] == 6:
            off = torch.cat([torch.ones_like(sigma[..., :3]), torch.zeros_like(sigma[..., 3:])], -1)
            tensors = matrix(torch.where(tissue, sigma, off))
            E = torch.linalg.solve(tensors, J[..., None])[..., 0]
        else:
            E = J / sigma
        return torch.where(tissue, E, 0.0), J

    def _through_skin(self, rows: slice) -> Tensor | float:
        """What currents through skin add to J at voxel centres, A/m^2: of these sources none."""
        return 0.0

    @property
    def conductor(self) -> Conductor:
        """The body with its ends."""
        return self.body.conductor(self.ends)

    @property
    def _operator(self) -> Operator:
        if "operator" not in self._kept:
            operator = operator_of(self.conductor)
            if self.body.sigma.requires_grad:
                return operator
            self._kept["operator"] = operator
        kept: Operator = self._kept["operator"]
        return kept

    def _known(self, rows: slice) -> Subtraction:
        """What is known of some sources before anything is solved."""
        source = self.sources.part(self.conductor, rows)
        if self.singularity == "nodal" and isinstance(source, PointSource):
            source = nodal_source(self.conductor, source)
        if isinstance(source, PointSource):
            return Subtraction.of(self.conductor, self._operator, source)
        return Subtraction.density(self.conductor, self._operator, source)

    def at(self, points: Any, frame: str | None = None) -> Any:
        """Volts at places in tissue, or on its surface: (3,) or (P, 3), or a `Patch` or several,
        whose voltage is the mean over their voxels. -> () or (P,), and (K, ...) for many sources.

        Raises
        ------
        ValueError
            Another shape; places outside the box or in air.
        """
        frame = self.frame if frame is None else frame
        if isinstance(points, Patch):
            return self._given(self._over([points], frame)[:, 0], points)
        if isinstance(points, (list, tuple)) and points and isinstance(points[0], Patch):
            return self._given(self._over(points, frame), points)
        metres, many = places(self.body, points, frame, "points")
        conductor = self.conductor
        weights = Weights.at(conductor, metres)
        rest = []
        for rows in self._rows():
            source, volts = self.sources.part(conductor, rows), self.volts[rows]
            if isinstance(source, PointSource) and self.singularity == "subtraction":
                smooth = weights.of(volts - on_grid(conductor, source))
                # 0 all round: a piece of tissue that no current reaches
                flows = weights.of(volts.detach().abs()) > 0
                rest.append(torch.where(flows, at_places(conductor, source, metres) + smooth, 0.0))
            else:
                rest.append(weights.of(volts))
        volts = torch.cat(rest)
        return self._given(volts if many else volts[:, 0], points)

    def _given(self, volts: Tensor, asked: Any) -> Any:
        """Volts (K, ...) as an answer."""
        as_tensor = self.as_tensor or is_tensor(asked)
        return like(volts if self.many else volts[0], as_tensor)

    def _over(self, patches: Sequence[Patch], frame: str) -> Tensor:
        """Mean volts over patches. (K, P)"""
        means = []
        for number, patch in enumerate(patches):
            d, h, w = patch.voxels(self.body, frame, f"patch {number}").T
            means.append(self.volts[:, d, h, w].mean(dim=1))
        return torch.stack(means, dim=1)

    def certify(self, refine: int = 1, sharp: bool = True) -> Certificate:
        """A guaranteed bound of the energy error against the exact solution of the voxel problem,
        whatever engine has found the field. Kept.

        refine : 2: on voxels half as long, which takes ten times as long; the bound is closer, and
            there is a lower one (`Certificate.lower`).
        sharp : false: without slopes of the current, in half of the time or less, and larger by a
            tenth.

        Raises
        ------
        ValueError
            Patches; tissue that does not conduct in every direction.
        """
        name = f"certificate {refine}" if sharp else f"plain certificate {refine}"
        if name not in self._kept:
            from physics_hybrid.problems.potential.door.bounds import certificate

            self._kept[name] = certificate(self, refine, sharp)
        kept: Certificate = self._kept[name]
        return kept

    @property
    def bound(self) -> Any:
        """What the relative energy error is at most, () or (K,): `certify().relative`."""
        return like(self.certify().relative if self.many else self.certify().relative[0], False)

    def likely(self, coverage: float = 0.9) -> Any:
        """Relative L2 error that a share `coverage` of bodies like this one has at most, infinite
        where nothing is known of such bodies. () or (K,). Statistics of a network's errors on
        bodies that it was not trained on: `certify` and `interval` are guaranteed, this is not.

        Raises
        ------
        ValueError
            The field is not a network's, or that of one without a calibration; a coverage that is
            not between 0 and 1.

        Source
        ------
        Split conformal prediction: Lei et al., J. Am. Stat. Assoc. 113 (2018) 1094, thm. 2.2.
        """
        if self.experience is None:
            has = "its model was not calibrated (python -m physics_hybrid calibrate FOLDER)"
            raise ValueError(
                f"{has if self.engine == 'network' else f'this field is of the {self.engine}'}:"
                " field.certify() bounds the error of any field"
            )
        error = self.experience.likely(coverage)
        found = torch.tensor([math.inf if said else error for said in self.unlike])
        return like(found if self.many else found[0], False)

    def interval(
        self,
        patch: Patch,
        against: Patch | None = None,
        on: str = "voxels",
        refine: int = 1,
        frame: str | None = None,
        to: float | None = None,
    ) -> tuple[Any, Any]:
        """Lowest and highest that the mean voltage over a patch can be, less that over another, V:
        the exact one of the voxel problem lies in between. `at` need not: it may be farther off.
        () each, or (K,).

        on : "voxels", as `at` reads a patch, or "skin", the faces of these voxels to air.
        refine : voxels are split into refine^3 for it, the problem is solved anew, and the interval
            is narrower.
        to : the half-width that is wanted, as a share of the voltage: 0.01 is 1 %. Voxels are cut
            round the electrode and the patch until it is reached, or until there are 27 times as
            many: then it takes as long as refine=3, is narrower, and a UserWarning says so.

        Raises
        ------
        ValueError
            As `certify`; a patch that covers no skin; to with refine, or not positive.
        """
        from physics_hybrid.problems.potential.door.bounds import interval

        frame = self.frame if frame is None else frame
        found = interval(self, patch, against, on, refine, frame, to)
        low, high = (self._given(volts, None) for volts in (found.low, found.high))
        return low, high

    def refine(self, tolerance: float, **options: Any) -> Field:
        """The same field to another tolerance, from here on: fewer iterations than from nothing.

        Raises
        ------
        ValueError
            As `solve`.
        """
        from physics_hybrid.problems.potential.door.solving import refined

        return refined(self, tolerance, **options)

    def plot(self, path: str | Path | None = None, source: int = 0) -> Any:
        """Sections through an electrode, mV: written to `path`, or (None) a matplotlib figure.

        Raises
        ------
        ValueError
            No such source.
        OSError
            The file cannot be written.
        """
        from physics_hybrid.problems.potential.door.picture import sections

        return sections(self, source, path)

    def save(self, path: str | Path) -> Path:
        """To .nii.gz or .nii (the affine and axes of the input), .vti (ParaView), .npz, .h5, .npy.

        Raises
        ------
        ValueError
            Another suffix.
        OSError
            The file cannot be written.
        """
        from physics_hybrid.problems.potential.door.formats import save

        return save(self, Path(path).expanduser())

    def driven_by(self) -> dict[str, np.ndarray]:
        """What stands beside phi in a file: currents and places."""
        out = {"current": self.sources.current.detach().cpu().numpy()}
        for name, at in (("points", self.sources.points), ("returns", self.sources.returns)):
            if at is not None:
                out[name] = at.detach().cpu().numpy()
        return out

    def array(self) -> np.ndarray:
        """phi as an array. (K, D, H, W)"""
        volts: np.ndarray = self.volts.detach().cpu().numpy()
        return volts
