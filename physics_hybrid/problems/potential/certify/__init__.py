"""Guaranteed bounds of the error of a potential (docstring to come)."""

from physics_hybrid.problems.potential.certify.certificate import Certificate, certify
from physics_hybrid.problems.potential.certify.interval import Interval, interval

__all__ = ["Certificate", "Interval", "certify", "interval"]
