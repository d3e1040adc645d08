"""Tissues that metrics, masks and files know by name.

To add one, append its name to `TISSUES`: files hold labels as indices into it, so that an appended
name relabels nothing. A body need not have them all, and may have others (see `tissue_table`).
"""

from __future__ import annotations

#: Names by label.
TISSUES = ("air", "skin", "fat", "muscle", "bone")


def label_of(name: str) -> int:
    """The label of a tissue. Raises ValueError for a name that `TISSUES` lacks."""
    return TISSUES.index(name)


AIR = label_of("air")
SKIN = label_of("skin")
FAT = label_of("fat")
MUSCLE = label_of("muscle")
BONE = label_of("bone")
