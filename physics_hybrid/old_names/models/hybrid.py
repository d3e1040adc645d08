"""For `.mdlus` files: the class is in physics_hybrid.problems.potential.hybrid."""

from physics_hybrid.problems.potential.hybrid import HybridWrapper

__all__ = ["HybridWrapper"]
