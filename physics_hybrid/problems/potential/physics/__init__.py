"""-div(sigma grad phi) = f on voxels: operators, what is subtracted, solvers."""
