"""How right and how fast the potential is: these know limbs and solvers."""
