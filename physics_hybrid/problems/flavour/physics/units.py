"""The strength of the neutrino background.

    mu = sqrt2 G_F (hbar c)^2 c n        [1/s], n in 1/cm^3

G_F = 1.1663787e-5 GeV^-2 (hbar c)^3 (Particle Data Group 2022); hbar, c of CODATA 2018.
"""

from __future__ import annotations

import math

FERMI = 1.1663787e-5  # GeV^-2
HBAR_C = 1.973269804e-14  # GeV cm
LIGHT = 2.99792458e10  # cm/s

#: sqrt2 G_F per hbar: a density in 1/cm^3 times this is a rate in 1/s.
RATE_OF_DENSITY = math.sqrt(2) * FERMI * HBAR_C**2 * LIGHT  # cm^3/s
