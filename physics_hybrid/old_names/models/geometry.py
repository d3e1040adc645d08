"""For `.mdlus` files: the class is in physics_hybrid.problems.potential.geometry."""

from physics_hybrid.problems.potential.geometry import GeometryEncoder

__all__ = ["GeometryEncoder"]
