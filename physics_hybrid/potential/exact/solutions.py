r"""Closed forms and series that solvers and networks are held to.

**Layered box** (layers normal to H, zero flux on the faces along H and W; any `Ends` at D = 0 and L). One family of functions along D serves all
ends, with beta infinite where grounded and 0 where nothing passes:

    X_m = sin(k_m d + a_m),   a_m = atan(k_m / beta),   k_m L_D + 2 a_m = m pi,   |X_m|^2 = L_D / 2 + beta / (beta^2 + k_m^2)

(sin m pi d / L, or cos (m - 1) pi d / L with |X_1|^2 = L_D; Carslaw and Jaeger, Conduction of Heat in Solids, 2nd ed. 1959, sec. 3.11). With k_n = n pi / L_W

    phi = sum_n sum_m (e_n / L_W) / |X_m|^2 cos(k_n w0) cos(k_n w) X_m(d0) X_m(d) g_nm(h),   e_0 = 1, else 2

where in each layer -sigma_H g'' + (sigma_W k_n^2 + sigma_D k_m^2) g = I delta(h - h0), so that g is a sum of e^{+-kh},
k = sqrt((sigma_W k_n^2 + sigma_D k_m^2) / sigma_H), plus I e^{-k |h - h0|} / (2 sigma_H k) in the layer of the source; g and
sigma_H g' are continuous and g' = 0 on the outer faces. (Separation of variables; Morse and Feshbach, 1953, ch. 10.) Where the current leaves evenly
(sink) the one mode with k = 0 carries it, -sigma_H g' = I ([h > h0] - h / L_H): parabolas, continuous, of zero mean. A pair is two sinks.

**Two half-spaces** (plane z = 0, source in medium 1 at z = d > 0), by images. With g_i = sqrt(sigma_ti sigma_ni),
K = (g_1 - g_2) / (g_1 + g_2), T = 2 g_1 / (g_1 + g_2):

    phi_1 = inf_1(z - d) + K inf_1(z + d),      phi_2 = T inf_1(a z - d),      a = sqrt(sigma_t2 / sigma_n2) sqrt(sigma_n1 / sigma_t1)

**Layered cylinder** (axis along D, grounded ends, insulated mantle). With k_m = m pi / L and kappa = k_m sqrt(sigma_D / sigma_r):

    phi = sum_m sum_n (2 / L) sin(k_m d0) sin(k_m d) (e_n / 2 pi) cos n(theta - theta0) g_mn(r)

g of I_n(kappa r) and K_n(kappa r) in each layer, plus (I / sigma_r) I_n(kappa r<) K_n(kappa r>) in the layer of the source; g and sigma_r g'
continuous, g'(R) = 0. Structure of Farina, Mesin, Martina and Merletti, IEEE TBME 51 (2004) 415, there with continuous k.

**Homogeneous sphere**, point source and uniform sink, zero flux and zero mean at the surface's scale:

    phi = I / (4 pi sigma) [1/D + 1/(R q) - ln((1 - c + q) / 2) / R + r^2 / (2 R^3)],   c = r . r0 / R^2, q = sqrt(1 - 2 c + r^2 r0^2 / R^4), D = |r - r0|

**Layered sphere**, a pair of electrodes in the core (r_1), insulated outside. Each electrode adds, with P_n of the angle to it,

    core:    I / (4 pi sigma_1) [1/D + sum_n A_n (r / r_1)^n P_n]
    shells:  I / (4 pi sigma_1) sum_n [a_n (r / r_j)^n + b_n (r_{j-1} / r)^{n+1}] P_n,      n >= 1

with phi and sigma dphi/dr continuous; the terms n = 0 of the two cancel. A close pair is a dipole. (Structure of de Munck and Peters, IEEE TBME 40 (1993)
1166; for four spheres Naess et al., Front. Hum. Neurosci. 11 (2017) 490, which `lfpykit` implements.)
"""

from __future__ import annotations

import numpy as np
from scipy.special import ive, kve

from physics_hybrid.potential.physics.conductor import Ends


def along_limb(ends: Ends, length: float, modes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(k_m in 1/m, a_m, 1 / |X_m|^2 in 1/m), each (modes,), of the functions sin(k_m d + a_m) that obey the ends of a limb of `length` metres."""
    m, beta = np.arange(1, modes + 1), ends.exchange
    if ends.floating:
        return (m - 1) * np.pi / length, np.full(modes, np.pi / 2), np.where(m == 1, 1.0, 2.0) / length
    if np.isinf(beta):
        return m * np.pi / length, np.zeros(modes), np.full(modes, 2 / length)
    k = (m - 1) * np.pi / length
    for _ in range(60):  # Newton from below on a concave increasing function: never overshoots
        k = k - (k * length + 2 * np.arctan(k / beta) - m * np.pi) / (length + 2 * beta / (beta**2 + k**2))
    return k, np.arctan(k / beta), 1 / (length / 2 + beta / (beta**2 + k**2))


def _layer_of(edges: np.ndarray, position: float, name: str) -> int:
    """The layer (m) that a source lies in; on an interface the one below, on the first edge the first. Raises ValueError outside."""
    if not edges[0] - 1e-9 * edges[-1] <= position <= (1 + 1e-9) * edges[-1]:
        raise ValueError(f"the source lies outside: {name}={position:g} m is not in [{edges[0]:g}, {edges[-1]:g}] m")
    return int(np.clip(np.searchsorted(edges, position) - 1, 0, len(edges) - 2))


def layered_box(
    d: np.ndarray, h: np.ndarray, w: np.ndarray, *,
    lengths: tuple[float, float, float], interfaces: list[float], sigma: np.ndarray,
    source: tuple[float, float, float], current: float = 1.0, modes: tuple[int, int] = (300, 160), ends: Ends | str = "grounded",
    returns: tuple[float, float, float] | None = None,
) -> np.ndarray:
    """Potential in volts on the grid d x h x w (1D coordinates in metres) -> (len(d), len(h), len(w)). Of zero mean over the box for sink and pair.

    Parameters
    ----------
    lengths : (L_D, L_H, L_W) of the box, metres.
    interfaces : positions of the layer interfaces along H, ascending, metres.
    sigma : (layers, 3), S/m in the order (D, H, W).
    source : (d0, h0, w0), metres.
    modes : terms kept along D and W. The series converges as e^{-k |h - h0|}: planes close to that of the
        source need more terms, the plane itself none will do for.
    ends : what happens at d = 0 and L_D. returns : where the current of a pair leaves, metres.

    Raises
    ------
    ValueError
        A pair without its second electrode, or a second electrode without ends=pair; a source outside the box.
    """
    ends = Ends.of(ends)
    if (returns is not None) != (ends.kind == "pair"):
        raise ValueError(f"ends={ends.kind}: a returning electrode belongs to ends=pair, and to no other")
    if returns is not None:
        def one(point, sign):
            return layered_box(d, h, w, lengths=lengths, interfaces=interfaces, sigma=sigma, source=point, current=sign * current, modes=modes, ends="sink")
        return one(source, 1) + one(returns, -1)
    L_D, L_H, L_W = lengths
    d0, h0, w0 = source
    sigma = np.asarray(sigma, dtype=float)
    edges = np.array([0.0, *interfaces, L_H])
    layers = len(edges) - 1
    home = _layer_of(edges, h0, "h0")
    for position, length, name in ((d0, L_D, "d0"), (w0, L_W, "w0")):
        _layer_of(np.array([0.0, length]), position, name)
    along, phase, norm = along_limb(ends, L_D, modes[0])
    k_m = along[:, None]
    k_n = np.arange(modes[1])[None, :] * np.pi / L_W
    k = [np.sqrt((s[2] * k_n**2 + s[0] * k_m**2) / s[1]) for s in sigma]
    for own in k:
        own[own == 0] = 1 / L_H  # stands in for the mode that is put right below

    # unknowns: g = a_l e^{-k (h - bottom)} + b_l e^{-k (top - h)} (+ particular), each exponential at most 1
    system = np.zeros((*k[0].shape, 2 * layers, 2 * layers))
    right = np.zeros((*k[0].shape, 2 * layers))
    particular = current / (2 * sigma[home, 1] * k[home])
    below, above = (np.exp(-k[home] * abs(h0 - edges[home + side])) for side in (0, 1))

    def put(row: int, layer: int, side: int, sign: float, flux: bool) -> None:
        """Add layer's value (or sigma g') on its lower (0) or upper (1) edge to an equation."""
        decay = np.exp(-k[layer] * (edges[layer + 1] - edges[layer]))
        a, b = (1.0, decay) if side == 0 else (decay, 1.0)
        factor_a, factor_b = (-sigma[layer, 1] * k[layer], sigma[layer, 1] * k[layer]) if flux else (1.0, 1.0)
        system[..., row, 2 * layer] += sign * factor_a * a
        system[..., row, 2 * layer + 1] += sign * factor_b * b
        if layer == home:
            value = particular * (below if side == 0 else above)
            if flux:
                value = value * sigma[home, 1] * k[home] * (1 if side == 0 else -1)
            right[..., row] -= sign * value

    put(0, 0, 0, 1.0, True)
    put(1, layers - 1, 1, 1.0, True)
    for i in range(layers - 1):
        for row, flux in ((2 + 2 * i, False), (3 + 2 * i, True)):
            put(row, i, 1, 1.0, flux)
            put(row, i + 1, 0, -1.0, flux)
    coefficients = np.linalg.solve(system, right[..., None])[..., 0]

    weight = np.where(np.arange(modes[1]) == 0, 1.0, 2.0) / L_W * np.cos(k_n[0] * w0)
    along_w = np.cos(np.outer(k_n[0], w)) * weight[:, None]
    along_d = np.sin(np.outer(along, d) + phase[:, None]) * (norm * np.sin(along * d0 + phase))[:, None]
    evenly = _drained_column(edges, sigma[:, 1], h0, current) if ends.floating else None
    phi = np.empty((len(d), len(h), len(w)))
    for i, position in enumerate(h):
        layer = min(int(np.searchsorted(edges, position, side="right") - 1), layers - 1)
        g = coefficients[..., 2 * layer] * np.exp(-k[layer] * (position - edges[layer]))
        g = g + coefficients[..., 2 * layer + 1] * np.exp(-k[layer] * (edges[layer + 1] - position))
        if layer == home:
            g = g + particular * np.exp(-k[home] * abs(position - h0))
        if evenly is not None:
            g[0, 0] = evenly(position)
        phi[:, i] = along_d.T @ g @ along_w
    return phi


def _drained_column(edges: np.ndarray, sigma: np.ndarray, h0: float, current: float):
    """g(h) of the mode without waves: -sigma g' = I ([h > h0] - h / L), g continuous and of zero mean. Edges, h in metres."""
    knots = np.unique([*edges, h0])
    middle = (knots[1:] + knots[:-1]) / 2
    def slope(h, side):
        return -current * ((side > h0) - h / edges[-1]) / sigma[np.searchsorted(edges, side) - 1]
    value = np.concatenate([[0.0], np.cumsum(slope(middle, middle) * np.diff(knots))])  # the midpoint is exact for a linear slope

    def g(h):
        i = np.clip(np.searchsorted(knots, h, side="right") - 1, 0, len(middle) - 1)
        return value[i] + slope((h + knots[i]) / 2, middle[i]) * (h - knots[i])

    mean = float(np.sum((value[:-1] + 4 * g(middle) + value[1:]) / 6 * np.diff(knots)) / edges[-1])  # Simpson is exact for parabolas
    return lambda h: g(h) - mean


def two_half_spaces(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, *, depth: float, first: tuple[float, float], second: tuple[float, float], current: float = 1.0
) -> np.ndarray:
    """Potential in volts at points (metres, broadcast) of a source at (0, 0, depth) in the medium z > 0.

    first, second : (sigma_t, sigma_n), along and across the plane, of the media z > 0 and z < 0, S/m; second = (0, 0) is an insulator
    (phi is NaN inside it). Raises ValueError where depth is not positive.
    """
    if not depth > 0:
        raise ValueError(f"the source lies in the medium z > 0: depth must be positive; got {depth:g} m")
    (t1, n1), (t2, n2) = first, second
    rho = np.hypot(x, y)
    def infinite(distance):
        return current / (4 * np.pi * np.sqrt(t1 * t1 * n1) * np.sqrt(rho**2 / t1 + distance**2 / n1))
    g1, g2 = np.sqrt(t1 * n1), np.sqrt(t2 * n2)
    inside = infinite(z - depth) + (g1 - g2) / (g1 + g2) * infinite(z + depth)
    if g2 == 0:
        return np.where(z >= 0, inside, np.nan)
    stretch = np.sqrt(t2 / n2) * np.sqrt(n1 / t1)
    return np.where(z >= 0, inside, 2 * g1 / (g1 + g2) * infinite(stretch * z - depth))


def sphere_with_uniform_sink(points: np.ndarray, *, radius: float, sigma: float, source: np.ndarray, current: float = 1.0) -> np.ndarray:
    """Potential in volts at points (..., 3) inside an insulated sphere round the origin; the current leaves evenly through the volume.
    Raises ValueError where the source is not inside."""
    if not np.linalg.norm(source) < radius:
        raise ValueError(f"the source, {np.linalg.norm(source):g} m from the centre, lies outside the sphere of {radius:g} m")
    R = radius
    r2, s2, dot = (points**2).sum(axis=-1), float((source**2).sum()), points @ source
    c = dot / R**2
    q = np.sqrt(1 - 2 * c + r2 * s2 / R**4)
    D = np.linalg.norm(points - source, axis=-1)
    return current / (4 * np.pi * sigma) * (1 / D + 1 / (R * q) - np.log((1 - c + q) / 2) / R + r2 / (2 * R**3))


def layered_sphere(
    points: np.ndarray, *, radii: list[float], sigma: list[float], source: np.ndarray, returns: np.ndarray, current: float = 1.0,
) -> np.ndarray:
    """Potential in volts at points (..., 3) in metres round the centre; NaN outside. Its mean over every sphere outside the electrodes is zero.

    Parameters
    ----------
    radii : outer radius of each shell, ascending, metres. sigma : S/m of each, isotropic.
    source, returns : where the current enters and leaves, both within the first radius, metres. For a dipole of moment p at r0 take
        r0 +- s / 2 with I s = p: the difference is of the order (s / distance)^2.

    Raises
    ------
    ValueError
        An electrode outside the core.
    """
    points = np.asarray(points, dtype=float)
    r = np.linalg.norm(points, axis=-1)
    phi = np.where(r <= radii[-1], 0.0, np.nan)
    shell = np.minimum(np.searchsorted(radii, r), len(radii) - 1)
    for electrode, sign in ((np.asarray(source, dtype=float), 1), (np.asarray(returns, dtype=float), -1)):
        r0 = float(np.linalg.norm(electrode))
        if not r0 < radii[0]:
            raise ValueError(f"the electrode at {r0:g} m from the centre lies outside the core of {radii[0]:g} m")
        terms = max(12, int(np.ceil(-36 / np.log(max(r0 / radii[0], 1e-9)))))  # down to 2e-16
        coefficients = np.array([_shell_coefficients(n, radii, sigma, r0) for n in range(1, terms + 1)])
        cosine = (points @ electrode) / np.maximum(r * r0, 1e-300)
        core = shell == 0
        scale = sign * current / (4 * np.pi * sigma[0])
        phi[core] += scale / np.linalg.norm(points[core] - electrode, axis=-1)
        for j in range(len(radii)):
            here = shell == j
            grown = r[here] / radii[j]
            decayed = radii[j - 1] / np.maximum(r[here], radii[0] * 1e-9) if j else 0.0 * grown
            x, before, legendre = cosine[here], np.ones_like(grown), cosine[here]
            up, down, total = np.ones_like(grown), decayed, np.zeros_like(grown)
            for n, (a, b) in enumerate(coefficients[:, j], start=1):
                up, down = up * grown, down * decayed
                total += (a * up + b * down) * legendre
                before, legendre = legendre, ((2 * n + 1) * x * legendre - n * before) / (n + 1)
            phi[here] += scale * total
    return phi


def _shell_coefficients(n: int, radii: list[float], sigma: list[float], r0: float) -> np.ndarray:
    """(a, b) of each shell, (shells, 2) in 1/m: a (r / r_j)^n + b (r_{j-1} / r)^{n+1}; the core has 1/D in place of b."""
    shells = len(radii)
    system, right = np.zeros((2 * shells, 2 * shells)), np.zeros(2 * shells)
    inward = [0.0, *(inner / outer for inner, outer in zip(radii, radii[1:]))]

    def put(row: int, j: int, outer: bool, sign: float, flux: bool) -> None:
        """Add phi (or r sigma dphi/dr) of shell j on its outer or inner surface to an equation."""
        weight, grown, decayed = (sigma[j], n, -(n + 1)) if flux else (1.0, 1.0, 1.0)
        system[row, 2 * j] += sign * weight * grown * (1.0 if outer else inward[j] ** n)
        system[row, 2 * j + 1] += sign * weight * decayed * (inward[j] ** (n + 1) if outer else 1.0)
        if j == 0:
            right[row] -= sign * weight * decayed * (r0 / radii[0]) ** n / radii[0]

    system[0, 1] = 1.0  # no b in the core
    for j in range(shells - 1):
        for row, flux in ((1 + 2 * j, False), (2 + 2 * j, True)):
            put(row, j, True, 1.0, flux)
            put(row, j + 1, False, -1.0, flux)
    put(2 * shells - 1, shells - 1, True, 1.0, True)
    return np.linalg.solve(system, right).reshape(shells, 2)


def layered_cylinder(
    d: np.ndarray, r: np.ndarray, theta: np.ndarray, *, length: float, radii: list[float], sigma: np.ndarray, source: tuple[float, float, float],
    current: float = 1.0, modes: tuple[int, int] = (160, 48),
) -> np.ndarray:
    """Potential in volts on d x points: d (1D, metres) and section points (r, theta) of equal shape -> (len(d), *r.shape).

    Parameters
    ----------
    radii : outer radius of each layer, ascending, metres. sigma : (layers, 2), (sigma_D, sigma_r) in S/m; sigma_theta = sigma_r.
    source : (d0, r0, theta0). modes : terms along D and round the axis; the series converges as e^{-kappa |r - r0|}.

    Raises
    ------
    ValueError
        A source outside the cylinder.
    """
    d0, r0, theta0 = source
    sigma = np.asarray(sigma, dtype=float)
    edges = np.array([0.0, *radii])
    layers = len(radii)
    home = _layer_of(edges, r0, "r0")
    _layer_of(np.array([0.0, length]), d0, "d0")
    n = np.arange(modes[1])[None, :]
    k = np.arange(1, modes[0] + 1)[:, None] * np.pi / length
    kappa = [k * np.sqrt(s[0] / s[1]) for s in sigma]

    # each basis function is 1 on the edge where it is largest: I on the outer, K on the inner one
    def grown(layer, radius):
        x, top = kappa[layer] * radius, kappa[layer] * edges[layer + 1]
        scale = np.exp(x - top) / ive(n, top)
        return ive(n, x) * scale, (ive(n - 1, x) - n / x * ive(n, x)) * scale * kappa[layer]

    def decayed(layer, radius):
        x, bottom = kappa[layer] * radius, kappa[layer] * edges[layer]
        scale = np.exp(bottom - x) / kve(n, bottom)
        return kve(n, x) * scale, -(kve(n - 1, x) + n / x * kve(n, x)) * scale * kappa[layer]

    def particular(radius):
        x, x0 = kappa[home] * radius, kappa[home] * r0
        factor = current / sigma[home, 1] * np.exp(-np.abs(x - x0))
        if radius < r0:
            return factor * ive(n, x) * kve(n, x0), factor * kve(n, x0) * (ive(n - 1, x) - n / x * ive(n, x)) * kappa[home]
        return factor * ive(n, x0) * kve(n, x), -factor * ive(n, x0) * (kve(n - 1, x) + n / x * kve(n, x)) * kappa[home]

    size = 2 * layers - 1  # the innermost layer has no K
    def column(layer):
        return (2 * layer - 1, 2 * layer) if layer else (None, 0)
    system, right = np.zeros((modes[0], modes[1], size, size)), np.zeros((modes[0], modes[1], size))

    def put(row, layer, radius, sign, flux):
        weight = sigma[layer, 1] if flux else 1.0
        k_column, i_column = column(layer)
        system[..., row, i_column] += sign * weight * grown(layer, radius)[flux]
        if k_column is not None:
            system[..., row, k_column] += sign * weight * decayed(layer, radius)[flux]
        if layer == home:
            right[..., row] -= sign * weight * particular(radius)[flux]

    for i in range(layers - 1):
        for row, flux in ((2 * i, False), (2 * i + 1, True)):
            put(row, i, edges[i + 1], 1.0, flux)
            put(row, i + 1, edges[i + 1], -1.0, flux)
    put(size - 1, layers - 1, edges[-1], 1.0, True)
    coefficients = np.linalg.solve(system, right[..., None])[..., 0]

    along = np.sin(np.outer(k[:, 0], d)) * (2 / length * np.sin(k * d0))
    weight = np.where(np.arange(modes[1]) == 0, 1.0, 2.0) / (2 * np.pi)
    around = np.cos(np.arange(modes[1])[:, None] * (theta.ravel() - theta0)) * weight[:, None]
    out = np.empty((len(d), r.size))
    distinct, which = np.unique(np.round(r.ravel(), 12), return_inverse=True)  # voxels of a section share their radii
    for j, radius in enumerate(distinct):
        layer = min(int(np.searchsorted(edges, radius, side="right") - 1), layers - 1)
        k_column, i_column = column(layer)
        g = coefficients[..., i_column] * grown(layer, radius)[0]
        if k_column is not None:
            g = g + coefficients[..., k_column] * decayed(layer, radius)[0]
        if layer == home:
            g = g + particular(radius)[0]
        out[:, which == j] = along.T @ (g @ around[:, which == j])
    return out.reshape(len(d), *r.shape)
