"""The field of electrodes that have a shape and a contact: a `Field`, and what they carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.door.field import Field
from physics_hybrid.problems.potential.door.sources import Patch
from physics_hybrid.problems.potential.physics.electrode_model import operators
from physics_hybrid.problems.potential.physics.multipoint import Operator

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.certify import Certificate
    from physics_hybrid.problems.potential.door.electrodes import ElectrodeSystem


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ElectrodeField(Field):
    """The potential of electrodes with a shape and a contact: a `Field` with `voltages`,
    `currents`, `defect`, `power`.

    system : the electrodes. delivered : A, summed over the faces of each. asked : A, NaN where
    a voltage was. through : A, through every face.

    Raises
    ------
    ValueError
        As `Field`.

    Source
    ------
    Somersalo, Cheney and Isaacson, SIAM J. Appl. Math. 52 (1992) 1023.

    Examples
    --------
    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> body = ph.Body(np.full((16, 16, 16), 0.3), (0.004, 0.004, 0.004))
    >>> pair = [ph.Electrode.disk((d, 0.03, 0.0), 0.006, 0.01) for d in (0.015, 0.045)]
    >>> field = ph.electrodes(body, pair).solve(currents=[1e-3, -1e-3])
    >>> bool(field.defect < 1e-10), bool(field.phi.max() < field.voltages[0])
    (True, True)
    """

    system: ElectrodeSystem
    potentials: np.ndarray
    delivered: np.ndarray
    asked: np.ndarray
    through: Float[Tensor, "K F"]

    @property
    def voltages(self) -> np.ndarray:
        """Potentials of the electrodes, V, in the same gauge as phi. (L,) or (K, L)"""
        return self.potentials if self.many else self.potentials[0]

    @property
    def currents(self) -> np.ndarray:
        """Currents that the electrodes deliver to the body, A: sums over their faces. (L,) or
        (K, L)"""
        return self.delivered if self.many else self.delivered[0]

    @property
    def defect(self) -> float:
        """The largest of |delivered - asked| over the largest current; of those held at a voltage
        nothing was asked."""
        off = np.nan_to_num(np.abs(self.delivered - self.asked)).max(axis=1)
        size = np.abs(self.delivered).max(axis=1)
        relative = np.divide(off, size, out=np.zeros_like(off), where=size > 0)
        return float(relative.max())

    @property
    def power(self) -> Any:
        """Sum of U I, W: () or (K,)."""
        watts = (self.potentials * self.delivered).sum(axis=1)
        return watts if self.many else watts[0]

    def _through_skin(self, rows: slice) -> Tensor | float:
        """What the electrodes' currents add to J at the centres of voxels behind them."""
        spacing = self.body.plain.spacing[0].cpu()
        return self.system.contacts.along(self.through[rows], self.body.shape, spacing)

    @property
    def _operator(self) -> Operator:
        """With what electrodes inside tissue cut."""
        if "operator" not in self._kept:
            self._kept["operator"] = operators(self.conductor, self.system.contacts)[0]
        kept: Operator = self._kept["operator"]
        return kept

    def driven_by(self) -> dict[str, np.ndarray]:
        """What stands beside phi in a file: currents and potentials of the electrodes."""
        return {"currents": self.delivered, "voltages": self.potentials}

    def certify(self, refine: int = 1, sharp: bool = True) -> Certificate:
        """A guaranteed bound of the energy error of body and contacts, against the exact solution
        of the voxel problem: each face a film, those covered in part with the contact of that part
        (`certify.electrodes`). Kept. Of electrodes with a shape there is one sharpness.

        Raises
        ------
        ValueError
            Perfect contact on faces that are covered in part; electrodes inside tissue; a refine
            other than 1; tissue that does not conduct in every direction.
        """
        from physics_hybrid.problems.potential.certify.electrodes import certify_electrodes
        from physics_hybrid.problems.potential.door.bounds import require_memory_to_certify

        if refine != 1:
            raise ValueError(
                f"refine={refine} is for point electrodes: of those with a shape the certificate"
                " is of the voxels as they are"
            )
        if "certificate 1" not in self._kept:
            require_memory_to_certify(self, refine)
            self._kept["certificate 1"] = certify_electrodes(
                self.conductor,
                self.system.contacts,
                self.through,
                torch.from_numpy(self.potentials),
                self.volts,
            )
        kept: Certificate = self._kept["certificate 1"]
        return kept

    def interval(
        self,
        patch: Patch,
        against: Patch | None = None,
        on: str = "voxels",
        refine: int = 1,
        frame: str | None = None,
        to: float | None = None,
    ) -> tuple[Any, Any]:
        """Not there for electrodes.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("intervals are of point electrodes: of those with a shape there is none")

    def refine(self, tolerance: float, **options: Any) -> ElectrodeField:
        """The same drive, solved to another tolerance.

        Raises
        ------
        ValueError
            As `electrodes`.
        """
        system = self.system.refined(tolerance, **options)
        held = np.where(np.isnan(self.asked), self.potentials, np.nan)
        found = system.solve(self.asked, held)
        if self.many:
            return found
        return system.solve(self.asked[0], held[0])
