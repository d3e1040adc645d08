"""Exact solutions: closed forms and series that solvers and networks are held to."""
