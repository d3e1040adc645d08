"""Old address of `flux`, `subtraction`, `image` and `electrodes`."""

from physics_hybrid.potential.physics.conductor import require_way_out  # noqa: F401
from physics_hybrid.potential.physics.electrodes import nodal_source  # noqa: F401
from physics_hybrid.potential.physics.flux import FluxOperator  # noqa: F401
from physics_hybrid.potential.physics.image import MIRRORED, with_image  # noqa: F401
from physics_hybrid.potential.physics.subtraction import Subtraction  # noqa: F401
