"""Neural operators that learn corrections to physics, and the solver that they are held to.

    import physics_hybrid as ph
    body = ph.read_labels("thigh.nii.gz")
    field = ph.solve(body, at=(0.10, 0.05, 0.03), current=1e-3)
    field.save("phi.nii.gz")

`load_pretrained()` gives the operator that is shipped. Importing this package imports nothing
heavy.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physics_hybrid import burgers as burgers
from physics_hybrid import caches
from physics_hybrid import flavour as flavour

if TYPE_CHECKING:
    import torch

    from physics_hybrid.problems.potential.bodies.anisotropy import Fibres, Tensors
    from physics_hybrid.problems.potential.door.body import Body, Limb, read_labels
    from physics_hybrid.problems.potential.door.electrode_field import ElectrodeField
    from physics_hybrid.problems.potential.door.electrodes import (
        Electrode,
        ElectrodeSystem,
        electrodes,
    )
    from physics_hybrid.problems.potential.door.field import Field
    from physics_hybrid.problems.potential.door.lead_field import LeadField, lead_field
    from physics_hybrid.problems.potential.door.quantities import FieldAt, LeadFieldAt, Voltage
    from physics_hybrid.problems.potential.door.solving import refine, solve
    from physics_hybrid.problems.potential.door.sources import Patch
    from physics_hybrid.problems.potential.door.uncertainty import Uncertainty, uncertainty
    from physics_hybrid.problems.potential.predictor import Predictor
    from physics_hybrid.problems.potential.uncertain.distributions import (
        LogNormal,
        Normal,
        Triangular,
        Uniform,
    )

__all__ = [
    "Body",
    "Electrode",
    "ElectrodeField",
    "ElectrodeSystem",
    "Fibres",
    "Field",
    "FieldAt",
    "LeadField",
    "LeadFieldAt",
    "Limb",
    "LogNormal",
    "Normal",
    "Patch",
    "Tensors",
    "Triangular",
    "Uncertainty",
    "Uniform",
    "Voltage",
    "electrodes",
    "lead_field",
    "load_pretrained",
    "read_labels",
    "refine",
    "solve",
    "uncertainty",
]

#: Where the names of the door live: each is imported when it is first asked for.
_DOOR = {
    "Body": "door.body",
    "Fibres": "door.body",
    "Limb": "door.body",
    "Tensors": "door.body",
    "read_labels": "door.body",
    "Electrode": "door.electrodes",
    "ElectrodeField": "door.electrode_field",
    "ElectrodeSystem": "door.electrodes",
    "electrodes": "door.electrodes",
    "Field": "door.field",
    "LeadField": "door.lead_field",
    "lead_field": "door.lead_field",
    "refine": "door.solving",
    "solve": "door.solving",
    "Patch": "door.sources",
    "FieldAt": "door.quantities",
    "LeadFieldAt": "door.quantities",
    "Voltage": "door.quantities",
    "Uncertainty": "door.uncertainty",
    "uncertainty": "door.uncertainty",
    "LogNormal": "uncertain.distributions",
    "Normal": "uncertain.distributions",
    "Triangular": "uncertain.distributions",
    "Uniform": "uncertain.distributions",
}

caches.find_room()  # ahead of PhysicsNeMo, whoever imports it

#: `python -m physics_hybrid.benchmark` and other names of before, for one release.
__path__.append(str(Path(__file__).parent / "old_names"))


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.problems.potential.{_DOOR[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_DOOR})


def load_pretrained(
    device: str | torch.device = "cpu", folder: str | Path | None = None
) -> Predictor:
    """The shipped operator, ready to predict: arrays in, volts out.

    Parameters
    ----------
    device : str or torch.device
        Where it runs: cpu, cuda, mps.
    folder : path or None
        What `python -m physics_hybrid ship` wrote; None: the model inside this package.

    Returns
    -------
    Predictor
        `predict(sigma, spacing, source_point, current)`: S/m (D, H, W[, 3 or 6]), m (3,), m (3,) or
        (K, 3), A -> phi in V, (D, H, W) or (K, D, H, W).

    Raises
    ------
    FileNotFoundError
        No model is shipped there.

    Source
    ------
    Weights, data, recipe and limits are in its model card, `Predictor.card`.

    Examples
    --------
    A run of your own becomes a model in a folder of yours.

    >>> import physics_hybrid
    >>> # python -m physics_hybrid ship runs/NAME --output mine
    >>> physics_hybrid.load_pretrained(folder="mine")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: mine/limb.mdlus does not exist: no model is shipped there; ...
    """
    from physics_hybrid.problems.potential.predictor import Predictor

    return Predictor.load(folder, device)
