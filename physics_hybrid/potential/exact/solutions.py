"""The exact solutions under their old address: each has a module of its own."""

from physics_hybrid.potential.exact.box import (  # noqa: F401
    along_limb,
    layered_box,
)
from physics_hybrid.potential.exact.cylinder import layered_cylinder  # noqa: F401
from physics_hybrid.potential.exact.half_spaces import two_half_spaces  # noqa: F401
from physics_hybrid.potential.exact.sphere import (  # noqa: F401
    layered_sphere,
    sphere_with_uniform_sink,
)
