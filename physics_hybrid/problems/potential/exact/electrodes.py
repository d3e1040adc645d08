r"""Electrodes of perfect contact whose resistance is known: a disk, a strip, a strip that shunts.

**A disk** of radius a on a half space (Newman, J. Electrochem. Soc. 113 (1966) 501, eq. 8) has
R = 1 / (4 sigma a) against infinity. On a bar of square section, of side P, it has against the mean
potential far down the bar, less what the bar itself has,

    R = 1 / (4 sigma a) - 3.9002649 / (2 pi sigma P) + (4/3) (9.0336 / 4) a^2 / (2 pi sigma P^3)

the disk among its mirror images: sum' 1/r, less the mean, and sum' 1/r^3 over a square lattice
(Borwein et al., Lattice Sums Then and Now, 2013, sec. 1.1), to a^5 / P^5.

**A strip** of half-width a that drives current into a layer of length P, closed at both ends, has

    R = ln(1 / sin(pi a / P)) / (pi sigma)                                                [ohm m]

more than the layer (Smythe, Static and Dynamic Electricity, 1968, ch. 4: t = sin(pi z / P)).

**A strip that shunts**: no net current, on a layer of depth H through which a current flows along
x. With t = cosh(pi (x + i y) / H), T = cosh(pi a / H), for x > 0 and odd in x,

    phi = -(E H / pi) Re arccosh((2 t - T + 1) / (T + 1))

phi = 0 on the strip, t in (1, T), and under its middle, t in (-1, 1); no flux where t is beyond.
Far away phi = -E (x - D), D = (2 H / pi) ln cosh(pi a / (2 H)): the layer is 2 D shorter. For H to
infinity this is phi = -E Re sqrt((x + i y)^2 - a^2).
"""

from __future__ import annotations

import numpy as np

#: Sum over a square lattice of 1/r, less its mean, and of 1/r^3.
LATTICE, LATTICE_CUBED = -3.9002649, 9.0336217


def disk_on_a_bar(radius: float, side: float, sigma: float) -> float:
    """R of a disk in the middle of the end of a bar of square section, ohm, beyond that of the bar.

    radius, side : m. sigma : S/m.
    """
    images = LATTICE / side + LATTICE_CUBED * radius**2 / (3 * side**3)
    return (1 / (4 * radius) + images / (2 * np.pi)) / sigma


def driving_strip(half_width: float, length: float, sigma: float) -> float:
    """R of a strip in the middle of a deep layer of a length, ohm m, beyond that of the layer."""
    return float(-np.log(np.sin(np.pi * half_width / length)) / (np.pi * sigma))


def shunting_strip(x: np.ndarray, y: np.ndarray, half_width: float, depth: float) -> np.ndarray:
    """phi of a strip on a layer, V for 1 V/m far away along x; odd in x.

    x : m from its middle. y : m below the surface, 0 to depth.
    """
    t = np.cosh(np.pi * (np.abs(x) + 1j * y) / depth)
    edge = np.cosh(np.pi * half_width / depth)
    away = np.arccosh((2 * t - edge + 1) / (edge + 1)).real
    phi: np.ndarray = -np.sign(x) * depth / np.pi * np.abs(away)
    return phi


def shunted(half_width: float, depth: float) -> float:
    """By how much a strip that shunts makes a layer shorter, m: 2 D."""
    return float(4 * depth / np.pi * np.log(np.cosh(np.pi * half_width / (2 * depth))))
