"""Ptychography: an object from far fields of overlapping illuminations."""
