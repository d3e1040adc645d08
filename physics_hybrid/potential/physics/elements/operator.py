"""The parts of the finite elements under their old address: each has a module of its own."""

from physics_hybrid.potential.physics.elements.hexahedron import (  # noqa: F401
    AXES,
    CORNERS,
    element_matrices,
    end_matrix,
)
from physics_hybrid.potential.physics.elements.nodes import (  # noqa: F401
    corners,
    gather_at_nodes,
    lift,
    voxels_round_nodes,
)
from physics_hybrid.potential.physics.elements.quadrature import (  # noqa: F401
    FAR_POINTS,
    GRADING,
    NEAR_POINTS,
)
from physics_hybrid.potential.physics.elements.source import (  # noqa: F401
    BETTER_WITHIN,
    ElementSource,
    bending,
)
from physics_hybrid.potential.physics.elements.subtraction import (  # noqa: F401
    CHUNK,
    NEAR,
    subtraction_load,
)
from physics_hybrid.potential.physics.elements.weak_form import ElementOperator  # noqa: F401
