"""Grids as they are typed: 48x24x24,96x48x48. Light to import."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from physics_hybrid.grid import Grid


def grids_of(text: str) -> list[Grid]:
    """48x24x24,96x48x48 -> tuples. argparse shows the message of the error."""
    return [_grid(word, text) for word in text.split(",")]


def _grid(word: str, text: str) -> Grid:
    error = argparse.ArgumentTypeError(f"grids are written as 48x24x24,96x48x48; got {text}")
    try:
        sizes = [int(n) for n in word.split("x")]
    except ValueError:
        raise error from None
    if len(sizes) != 3 or min(sizes) < 2:
        raise error
    d, h, w = sizes
    return d, h, w
