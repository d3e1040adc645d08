"""Ptychography: an object from the far fields of overlapping illuminations, without a true object."""
