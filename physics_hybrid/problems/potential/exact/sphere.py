r"""Spheres round the origin, insulated outside.

**Homogeneous**, point source and uniform sink, zero flux and zero mean at the surface's scale:

    phi = I / (4 pi sigma) [1/D + 1/(R q) - ln((1 - c + q) / 2) / R + r^2 / (2 R^3)]
    c = r . r0 / R^2,   q = sqrt(1 - 2 c + r^2 r0^2 / R^4),   D = |r - r0|

**Layered**, a pair of electrodes in the core (r_1). Each electrode adds, with P_n of the angle to
it,

    core:    I / (4 pi sigma_1) [1/D + sum_n A_n (r / r_1)^n P_n]
    shells:  I / (4 pi sigma_1) sum_n [a_n (r / r_j)^n + b_n (r_{j-1} / r)^{n+1}] P_n,      n >= 1

with phi and sigma dphi/dr continuous; the terms n = 0 of the two cancel. A close pair is a dipole.
(Structure of de Munck and Peters, IEEE TBME 40 (1993) 1166; for four spheres Naess et al., Front.
Hum. Neurosci. 11 (2017) 490, which `lfpykit` implements.)
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def sphere_with_uniform_sink(
    points: np.ndarray, *, radius: float, sigma: float, source: np.ndarray, current: float = 1.0
) -> np.ndarray:
    """Potential in volts at points (..., 3) inside an insulated sphere round the origin, metres.

    The current leaves evenly through the volume.

    Raises
    ------
    ValueError
        The source is not inside.
    """
    from_centre = np.linalg.norm(source)
    if not from_centre < radius:
        raise ValueError(
            f"the source, {from_centre:g} m from the centre, lies outside the sphere of "
            f"{radius:g} m"
        )
    R = radius
    r2, s2, dot = (points**2).sum(axis=-1), float((source**2).sum()), points @ source
    c = dot / R**2
    q = np.sqrt(1 - 2 * c + r2 * s2 / R**4)
    D = np.linalg.norm(points - source, axis=-1)
    shape = 1 / D + 1 / (R * q) - np.log((1 - c + q) / 2) / R + r2 / (2 * R**3)
    phi: np.ndarray = current / (4 * np.pi * sigma) * shape
    return phi


def layered_sphere(
    points: np.ndarray,
    *,
    radii: list[float],
    sigma: list[float],
    source: np.ndarray,
    returns: np.ndarray,
    current: float = 1.0,
) -> np.ndarray:
    """Potential in volts at points (..., 3) in metres round the centre; NaN outside.

    Its mean over every sphere outside the electrodes is zero.

    Parameters
    ----------
    radii : outer radius of each shell, ascending, metres.
    sigma : S/m of each, isotropic.
    source, returns : where the current enters and leaves, both within the first radius, metres.
        For a dipole of moment p at r0 take r0 +- s / 2 with I s = p: the difference is of the order
        (s / distance)^2.
    current : amperes.

    Raises
    ------
    ValueError
        An electrode outside the core.
    """
    points = np.asarray(points, dtype=float)
    r = np.linalg.norm(points, axis=-1)
    phi = np.where(r <= radii[-1], 0.0, np.nan)
    shell = np.minimum(np.searchsorted(radii, r), len(radii) - 1)
    for place, sign in ((source, 1), (returns, -1)):
        electrode = np.asarray(place, dtype=float)
        r0 = float(np.linalg.norm(electrode))
        if not r0 < radii[0]:
            raise ValueError(
                f"the electrode at {r0:g} m from the centre lies outside the core of {radii[0]:g} m"
            )
        coefficients = _coefficients(radii, sigma, r0)
        cosine = (points @ electrode) / np.maximum(r * r0, 1e-300)
        core = shell == 0
        scale = sign * current / (4 * np.pi * sigma[0])
        phi[core] += scale / np.linalg.norm(points[core] - electrode, axis=-1)
        for j in range(len(radii)):
            here = shell == j
            phi[here] += scale * _shell_series(coefficients[:, j], j, radii, r[here], cosine[here])
    return phi


def _shell_series(
    coefficients: np.ndarray, j: int, radii: list[float], r: np.ndarray, cosine: np.ndarray
) -> np.ndarray:
    """sum_n [a_n (r / r_j)^n + b_n (r_{j-1} / r)^{n+1}] P_n(cosine) at points of shell j, 1/m.

    coefficients : (a_n, b_n) for n = 1, 2, ...: (terms, 2).
    """
    grown = r / radii[j]
    decayed = radii[j - 1] / np.maximum(r, radii[0] * 1e-9) if j else 0.0 * grown
    before, legendre = np.ones_like(grown), cosine
    up, down, total = np.ones_like(grown), decayed, np.zeros_like(grown)
    for n, (a, b) in enumerate(coefficients, start=1):
        up, down = up * grown, down * decayed
        total += (a * up + b * down) * legendre
        following = ((2 * n + 1) * cosine * legendre - n * before) / (n + 1)
        before, legendre = legendre, following
    return total


def _coefficients(radii: list[float], sigma: list[float], r0: float) -> np.ndarray:
    """(a_n, b_n) of each shell, (terms, shells, 2) in 1/m, for an electrode at r0 metres."""
    terms = max(12, int(np.ceil(-36 / np.log(max(r0 / radii[0], 1e-9)))))  # down to 2e-16
    return np.array([_shell_coefficients(n, radii, sigma, r0) for n in range(1, terms + 1)])


def _shell_coefficients(n: int, radii: list[float], sigma: list[float], r0: float) -> np.ndarray:
    """(a, b) of each shell, (shells, 2) in 1/m: a (r / r_j)^n + b (r_{j-1} / r)^{n+1}.

    The core has 1/D in place of b.
    """
    shells = len(radii)
    system, right = np.zeros((2 * shells, 2 * shells)), np.zeros(2 * shells)
    inward = [0.0, *(inner / outer for inner, outer in pairwise(radii))]

    def put(row: int, j: int, outer: bool, sign: float, flux: bool) -> None:
        """Add phi (or r sigma dphi/dr) of shell j on its outer or inner surface to an equation."""
        weight, grown, decayed = (sigma[j], n, -(n + 1)) if flux else (1.0, 1, 1)
        growth = 1.0 if outer else inward[j] ** n
        decay = inward[j] ** (n + 1) if outer else 1.0
        system[row, 2 * j] += sign * weight * grown * growth
        system[row, 2 * j + 1] += sign * weight * decayed * decay
        if j == 0:
            right[row] -= sign * weight * decayed * (r0 / radii[0]) ** n / radii[0]

    system[0, 1] = 1.0  # no b in the core
    for j in range(shells - 1):
        for row, flux in ((1 + 2 * j, False), (2 + 2 * j, True)):
            put(row, j, True, 1.0, flux)
            put(row, j + 1, False, -1.0, flux)
    put(2 * shells - 1, shells - 1, True, 1.0, True)
    return np.linalg.solve(system, right).reshape(shells, 2)
