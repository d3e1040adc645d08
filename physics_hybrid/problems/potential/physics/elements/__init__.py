"""Trilinear finite elements on the same voxels: independent of the finite volumes."""
