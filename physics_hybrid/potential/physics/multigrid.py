"""Old address of `stencil`, `cycle`, `krylov` and `solve`."""

from physics_hybrid.potential.physics.cycle import (  # noqa: F401
    COARSEST,
    EIGENVALUE_RATIO,
    SMOOTHING_DEGREE,
    Multigrid,
)
from physics_hybrid.potential.physics.electrodes import nodal_source  # noqa: F401
from physics_hybrid.potential.physics.krylov import (  # noqa: F401
    Solution,
    SolverError,
    conjugate_gradients,
)
from physics_hybrid.potential.physics.solve import (  # noqa: F401
    BESIDE_VOXELS,
    BETTER,
    solve,
)
from physics_hybrid.potential.physics.stencil import Stencil  # noqa: F401
