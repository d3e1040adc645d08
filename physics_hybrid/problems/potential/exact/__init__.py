"""Exact solutions, and the cases that both solvers are held to."""
