r"""Series solutions that solvers and networks are held to.

**Layered box** (layers normal to H, grounded ends at D = 0 and L, zero flux on all other faces). With
k_n = n pi / L_W, k_m = m pi / L_D:

    phi = sum_n sum_m (e_n / L_W)(2 / L_D) cos(k_n w0) cos(k_n w) sin(k_m d0) sin(k_m d) g_nm(h),   e_0 = 1, else 2

where in each layer -sigma_H g'' + (sigma_W k_n^2 + sigma_D k_m^2) g = I delta(h - h0), so that g is a sum of e^{+-kh},
k = sqrt((sigma_W k_n^2 + sigma_D k_m^2) / sigma_H), plus I e^{-k |h - h0|} / (2 sigma_H k) in the layer of the source; g and
sigma_H g' are continuous and g' = 0 on the outer faces. (Separation of variables; Morse and Feshbach, 1953, ch. 10.)
"""

from __future__ import annotations

import numpy as np


def layered_box(
    d: np.ndarray, h: np.ndarray, w: np.ndarray, *,
    lengths: tuple[float, float, float], interfaces: list[float], sigma: np.ndarray,
    source: tuple[float, float, float], current: float = 1.0, modes: tuple[int, int] = (300, 160),
) -> np.ndarray:
    """Potential in volts on the grid d x h x w (1D coordinates in metres) -> (len(d), len(h), len(w)).

    Parameters
    ----------
    lengths : (L_D, L_H, L_W) of the box, metres.
    interfaces : positions of the layer interfaces along H, ascending, metres.
    sigma : (layers, 3), S/m in the order (D, H, W).
    source : (d0, h0, w0), metres, inside a layer.
    modes : terms kept along D and W. The series converges as e^{-k |h - h0|}: planes close to that of the
        source need more terms, the plane itself none will do for.
    """
    L_D, L_H, L_W = lengths
    d0, h0, w0 = source
    sigma = np.asarray(sigma, dtype=float)
    edges = np.array([0.0, *interfaces, L_H])
    layers = len(edges) - 1
    home = int(np.searchsorted(edges, h0) - 1)
    k_m = np.arange(1, modes[0] + 1)[:, None] * np.pi / L_D
    k_n = np.arange(modes[1])[None, :] * np.pi / L_W
    k = [np.sqrt((s[2] * k_n**2 + s[0] * k_m**2) / s[1]) for s in sigma]

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

    weight = np.where(np.arange(modes[1]) == 0, 1.0, 2.0) / L_W * np.cos(k_n[0] * w0) * 2 / L_D
    along_w = np.cos(np.outer(k_n[0], w)) * weight[:, None]
    along_d = np.sin(np.outer(k_m[:, 0], d)) * np.sin(k_m * d0)
    phi = np.empty((len(d), len(h), len(w)))
    for i, position in enumerate(h):
        layer = min(int(np.searchsorted(edges, position, side="right") - 1), layers - 1)
        g = coefficients[..., 2 * layer] * np.exp(-k[layer] * (position - edges[layer]))
        g = g + coefficients[..., 2 * layer + 1] * np.exp(-k[layer] * (edges[layer + 1] - position))
        if layer == home:
            g = g + particular * np.exp(-k[home] * abs(position - h0))
        phi[:, i] = along_d.T @ g @ along_w
    return phi
