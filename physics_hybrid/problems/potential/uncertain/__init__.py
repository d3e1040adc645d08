"""Conductivities that are not known: what follows for voltages, fields and lead fields."""
