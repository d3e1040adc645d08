"""Now physics_hybrid.problems.potential."""
