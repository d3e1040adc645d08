r"""Layered cylinder: axis along D, grounded ends, insulated mantle.

With k_m = m pi / L and kappa = k_m sqrt(sigma_D / sigma_r):

    phi = sum_m sum_n (2 / L) sin(k_m d0) sin(k_m d) (e_n / 2 pi) cos n(theta - theta0) g_mn(r)

g of I_n(kappa r) and K_n(kappa r) in each layer, plus (I / sigma_r) I_n(kappa r<) K_n(kappa r>) in
the layer of the source; g and sigma_r g' continuous, g'(R) = 0. Structure of Farina, Mesin, Martina
and Merletti, IEEE TBME 51 (2004) 415, there with continuous k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ive, kve

from physics_hybrid.problems.potential.exact.layers import layer_at, layer_of_source

#: What the basis functions give: (g, g').
VALUE, SLOPE = 0, 1


def layered_cylinder(
    d: np.ndarray,
    r: np.ndarray,
    theta: np.ndarray,
    *,
    length: float,
    radii: list[float],
    sigma: np.ndarray,
    source: tuple[float, float, float],
    current: float = 1.0,
    modes: tuple[int, int] = (160, 48),
) -> np.ndarray:
    """Potential in volts on d x points -> (len(d), *r.shape).

    Parameters
    ----------
    d : 1D, metres.
    r, theta : points of the section, of equal shape, metres and radians.
    length : metres.
    radii : outer radius of each layer, ascending, metres.
    sigma : (layers, 2), (sigma_D, sigma_r) in S/m; sigma_theta = sigma_r.
    source : (d0, r0, theta0).
    current : amperes.
    modes : terms along D and round the axis; the series converges as e^{-kappa |r - r0|}.

    Raises
    ------
    ValueError
        A source outside the cylinder.
    """
    d0, r0, theta0 = source
    sigma = np.asarray(sigma, dtype=float)
    edges = np.array([0.0, *radii])
    home = layer_of_source(edges, r0, "r0")
    layer_of_source(np.array([0.0, length]), d0, "d0")
    n = np.arange(modes[1])[None, :]
    k = np.arange(1, modes[0] + 1)[:, None] * np.pi / length
    radial = _Radial(
        edges=edges,
        sigma=sigma[:, 1],
        kappa=[k * np.sqrt(s[0] / s[1]) for s in sigma],
        n=n,
        home=home,
        r0=r0,
        current=current,
    )
    coefficients = np.linalg.solve(*radial.equations())[..., 0]

    along = np.sin(np.outer(k[:, 0], d)) * (2 / length * np.sin(k * d0))
    weight = np.where(np.arange(modes[1]) == 0, 1.0, 2.0) / (2 * np.pi)
    around = np.cos(np.arange(modes[1])[:, None] * (theta.ravel() - theta0)) * weight[:, None]
    out = np.empty((len(d), r.size))
    # voxels of a section share their radii
    distinct, which = np.unique(np.round(r.ravel(), 12), return_inverse=True)
    for j, radius in enumerate(distinct):
        g = radial.combined(coefficients, radius)
        out[:, which == j] = along.T @ (g @ around[:, which == j])
    return out.reshape(len(d), *r.shape)


@dataclass(frozen=True)
class _Radial:
    """g_mn(r) of all modes: I_n and K_n in every layer, no K_n in the innermost.

    The layer of the source (`home`) has its particular solution besides. Basis functions come with
    their slopes, (g, g'), each (M, N), and are 1 on the edge where they are largest: I on the
    outer, K on the inner one.

    edges : (layers + 1,) metres. sigma : sigma_r (layers,), S/m.
    kappa : of every layer, (M, 1), 1/m. n : (1, N). r0 : metres. current : amperes.
    """

    edges: np.ndarray
    sigma: np.ndarray
    kappa: list[np.ndarray]
    n: np.ndarray
    home: int
    r0: float
    current: float

    def grown(self, layer: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """I_n, 1 on the outer edge."""
        n, kappa = self.n, self.kappa[layer]
        x, top = kappa * radius, kappa * self.edges[layer + 1]
        scale = np.exp(x - top) / ive(n, top)
        return ive(n, x) * scale, (ive(n - 1, x) - n / x * ive(n, x)) * scale * kappa

    def decayed(self, layer: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """K_n, 1 on the inner edge."""
        n, kappa = self.n, self.kappa[layer]
        x, bottom = kappa * radius, kappa * self.edges[layer]
        scale = np.exp(bottom - x) / kve(n, bottom)
        return kve(n, x) * scale, -(kve(n - 1, x) + n / x * kve(n, x)) * scale * kappa

    def particular(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """(I / sigma_r) I_n(kappa r<) K_n(kappa r>)."""
        n, kappa = self.n, self.kappa[self.home]
        x, x0 = kappa * radius, kappa * self.r0
        factor = self.current / self.sigma[self.home] * np.exp(-np.abs(x - x0))
        if radius < self.r0:
            slope = ive(n - 1, x) - n / x * ive(n, x)
            return factor * ive(n, x) * kve(n, x0), factor * kve(n, x0) * slope * kappa
        slope = kve(n - 1, x) + n / x * kve(n, x)
        return factor * ive(n, x0) * kve(n, x), -factor * ive(n, x0) * slope * kappa

    def combined(self, coefficients: np.ndarray, radius: float) -> np.ndarray:
        """g(r) of the coefficients (M, N, 2 layers - 1). (M, N)"""
        layer = layer_at(self.edges, radius)
        g: np.ndarray = coefficients[..., _column_of_I(layer)] * self.grown(layer, radius)[VALUE]
        if layer:
            g = g + coefficients[..., _column_of_K(layer)] * self.decayed(layer, radius)[VALUE]
        if layer == self.home:
            g = g + self.particular(radius)[VALUE]
        return g

    def equations(self) -> tuple[np.ndarray, np.ndarray]:
        """(M, N, S, S) and right-hand sides (M, N, S, 1), S = 2 layers - 1."""
        layers = len(self.kappa)
        size = 2 * layers - 1
        modes = (len(self.kappa[0]), self.n.shape[1])
        system, right = np.zeros((*modes, size, size)), np.zeros((*modes, size))
        for i in range(layers - 1):
            edge = self.edges[i + 1]
            for row, what in ((2 * i, VALUE), (2 * i + 1, SLOPE)):
                self._put(system, right, row, i, edge, 1.0, what)
                self._put(system, right, row, i + 1, edge, -1.0, what)
        self._put(system, right, size - 1, layers - 1, self.edges[-1], 1.0, SLOPE)
        return system, right[..., None]

    def _put(
        self,
        system: np.ndarray,
        right: np.ndarray,
        row: int,
        layer: int,
        radius: float,
        sign: float,
        what: int,
    ) -> None:
        """Add g (or sigma_r g') of a layer at a radius to an equation."""
        weight = self.sigma[layer] if what == SLOPE else 1.0
        grown = self.grown(layer, radius)[what]
        system[..., row, _column_of_I(layer)] += sign * weight * grown
        if layer:
            decayed = self.decayed(layer, radius)[what]
            system[..., row, _column_of_K(layer)] += sign * weight * decayed
        if layer == self.home:
            right[..., row] -= sign * weight * self.particular(radius)[what]


def _column_of_I(layer: int) -> int:
    return 2 * layer


def _column_of_K(layer: int) -> int:
    """The innermost layer has none."""
    return 2 * layer - 1
