"""For `.mdlus` files: the classes are in physics_hybrid.problems.potential.baseline."""

from physics_hybrid.problems.potential.baseline import CoarseSolveBaseline, PointSourceBaseline

__all__ = ["CoarseSolveBaseline", "PointSourceBaseline"]
