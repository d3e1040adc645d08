"""Guaranteed bounds of the error of a potential (docstring to come)."""

from physics_hybrid.problems.potential.certify.certificate import Certificate, certify

__all__ = ["Certificate", "certify"]
