"""Trajectories: made from the exact solution, or read from PDEBench's files."""
