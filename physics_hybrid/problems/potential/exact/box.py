r"""Layered box: layers normal to H, zero flux on the faces normal to H and W, any `Ends` along D.

One family of functions along D serves all ends, with beta infinite where grounded and 0 where
nothing passes:

    X_m = sin(k_m d + a_m),   a_m = atan(k_m / beta),   k_m L_D + 2 a_m = m pi
    |X_m|^2 = L_D / 2 + beta / (beta^2 + k_m^2)

(sin m pi d / L, or cos (m - 1) pi d / L with |X_1|^2 = L_D; Carslaw and Jaeger, Conduction of Heat
in Solids, 2nd ed. 1959, sec. 3.11). With k_n = n pi / L_W

    phi = sum_n sum_m (e_n / L_W) / |X_m|^2 cos(k_n w0) cos(k_n w) X_m(d0) X_m(d) g_nm(h)

where e_0 = 1, else 2, and in each layer

    -sigma_H g'' + (sigma_W k_n^2 + sigma_D k_m^2) g = I delta(h - h0)

so that g is a sum of e^{+-kh}, k = sqrt((sigma_W k_n^2 + sigma_D k_m^2) / sigma_H), plus
I e^{-k |h - h0|} / (2 sigma_H k) in the layer of the source; g and sigma_H g' are continuous and
g' = 0 on the outer faces. (Separation of variables; Morse and Feshbach, 1953, ch. 10.)

Where the current leaves evenly (sink) the one mode with k = 0 carries it,
-sigma_H g' = I ([h > h0] - h / L_H): parabolas, continuous, of zero mean. A pair is two sinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from physics_hybrid.problems.potential.exact.layers import layer_at, layer_of_source
from physics_hybrid.problems.potential.physics.ends import Ends

#: The two edges of a layer.
LOWER, UPPER = 0, 1


def along_limb(ends: Ends, length: float, modes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The functions sin(k_m d + a_m) that obey the ends of a limb of `length` metres.

    (k_m in 1/m, a_m, 1 / |X_m|^2 in 1/m), each (modes,).
    """
    m, beta = np.arange(1, modes + 1), ends.exchange
    if ends.floating:
        return (
            (m - 1) * np.pi / length,
            np.full(modes, np.pi / 2),
            np.where(m == 1, 1.0, 2.0) / length,
        )
    if np.isinf(beta):
        return m * np.pi / length, np.zeros(modes), np.full(modes, 2 / length)
    k = (m - 1) * np.pi / length
    for _ in range(60):  # Newton from below on a concave increasing function: never overshoots
        value = k * length + 2 * np.arctan(k / beta) - m * np.pi
        k = k - value / (length + 2 * beta / (beta**2 + k**2))
    return k, np.arctan(k / beta), 1 / (length / 2 + beta / (beta**2 + k**2))


def layered_box(
    d: np.ndarray,
    h: np.ndarray,
    w: np.ndarray,
    *,
    lengths: tuple[float, float, float],
    interfaces: list[float],
    sigma: np.ndarray,
    source: tuple[float, float, float],
    current: float = 1.0,
    modes: tuple[int, int] = (300, 160),
    ends: Ends | str = "grounded",
    returns: tuple[float, float, float] | None = None,
) -> np.ndarray:
    """Potential in volts on the grid d x h x w (1D, metres) -> (len(d), len(h), len(w)).

    Of zero mean over the box for sink and pair.

    Parameters
    ----------
    lengths : (L_D, L_H, L_W) of the box, metres.
    interfaces : positions of the layer interfaces along H, ascending, metres.
    sigma : (layers, 3), S/m in the order (D, H, W).
    source : (d0, h0, w0), metres.
    current : amperes.
    modes : terms kept along D and W. The series converges as e^{-k |h - h0|}: planes close to
        that of the source need more terms, the plane itself none will do for.
    ends : what happens at d = 0 and L_D.
    returns : where the current of a pair leaves, metres.

    Raises
    ------
    ValueError
        A pair without its second electrode, or a second electrode without ends=pair; a source
        outside the box.
    """
    ends = Ends.of(ends)
    if (returns is not None) != (ends.kind == "pair"):
        raise ValueError(
            f"ends={ends.kind}: a returning electrode belongs to ends=pair, and to no other"
        )
    box = _Box(lengths, np.array([0.0, *interfaces, lengths[1]]), np.asarray(sigma, dtype=float))
    if returns is None:
        return box.potential(d, h, w, source, current, modes, ends)
    sink = Ends("sink")
    there = box.potential(d, h, w, source, current, modes, sink)
    back = box.potential(d, h, w, returns, -current, modes, sink)
    both: np.ndarray = there + back
    return both


@dataclass(frozen=True)
class _Box:
    """lengths (L_D, L_H, L_W) and edges of the layers along H, metres; sigma (layers, 3), S/m."""

    lengths: tuple[float, float, float]
    edges: np.ndarray
    sigma: np.ndarray

    def potential(
        self,
        d: np.ndarray,
        h: np.ndarray,
        w: np.ndarray,
        source: tuple[float, float, float],
        current: float,
        modes: tuple[int, int],
        ends: Ends,
    ) -> np.ndarray:
        """One electrode, the series of the module's docstring summed up. Volts."""
        L_D, _, L_W = self.lengths
        d0, h0, w0 = source
        home = layer_of_source(self.edges, h0, "h0")
        for position, length, name in ((d0, L_D, "d0"), (w0, L_W, "w0")):
            layer_of_source(np.array([0.0, length]), position, name)

        k_m, phase, norm = along_limb(ends, L_D, modes[0])
        k_n = np.arange(modes[1]) * np.pi / L_W
        waves = _Waves(
            edges=self.edges,
            sigma=self.sigma[:, 1],
            k=self.wave_numbers(k_m, k_n),
            home=home,
            h0=h0,
            current=current,
        )
        coefficients = np.linalg.solve(*waves.equations())
        evenly = _drained_column(self.edges, self.sigma[:, 1], h0, current)

        weight = np.where(np.arange(modes[1]) == 0, 1.0, 2.0) / L_W * np.cos(k_n * w0)
        along_w = np.cos(np.outer(k_n, w)) * weight[:, None]
        at_source = norm * np.sin(k_m * d0 + phase)
        along_d = np.sin(np.outer(k_m, d) + phase[:, None]) * at_source[:, None]
        phi = np.empty((len(d), len(h), len(w)))
        for i, position in enumerate(h):
            g = waves.combined(coefficients[..., 0], position)
            if ends.floating:
                g[0, 0] = evenly(position)
            phi[:, i] = along_d.T @ g @ along_w
        return phi

    def wave_numbers(self, k_m: np.ndarray, k_n: np.ndarray) -> list[np.ndarray]:
        """k of every layer, (modes along D, modes along W), 1/m."""
        k_m, k_n = k_m[:, None], k_n[None, :]
        out = [np.sqrt((s[2] * k_n**2 + s[0] * k_m**2) / s[1]) for s in self.sigma]
        for own in out:
            own[own == 0] = 1 / self.lengths[1]  # stands in for the mode that a sink puts right
        return out


@dataclass(frozen=True)
class _Waves:
    """g_nm(h) of all modes: a e^{-k (h - bottom)} + b e^{-k (top - h)} in every layer.

    The layer of the source (`home`) has its particular solution besides.

    edges : (layers + 1,) metres. sigma : sigma_H (layers,), S/m.
    k : of every layer, (M, N), 1/m. h0 : metres. current : amperes.
    """

    edges: np.ndarray
    sigma: np.ndarray
    k: list[np.ndarray]
    home: int
    h0: float
    current: float

    def pair(self, layer: int, h: float) -> tuple[np.ndarray, np.ndarray]:
        """The two exponentials of a layer, each at most 1 in it."""
        k = self.k[layer]
        falling = np.exp(-k * (h - self.edges[layer]))
        rising = np.exp(-k * (self.edges[layer + 1] - h))
        return falling, rising

    def particular(self, h: float) -> np.ndarray:
        """I e^{-k |h - h0|} / (2 sigma_H k)."""
        k = self.k[self.home]
        amplitude: np.ndarray = self.current / (2 * self.sigma[self.home] * k)
        return amplitude * np.exp(-k * abs(h - self.h0))

    def combined(self, coefficients: np.ndarray, h: float) -> np.ndarray:
        """g(h) of the coefficients (M, N, 2 layers). (M, N)"""
        layer = layer_at(self.edges, h)
        falling, rising = self.pair(layer, h)
        g: np.ndarray = coefficients[..., 2 * layer] * falling
        g = g + coefficients[..., 2 * layer + 1] * rising
        if layer == self.home:
            g = g + self.particular(h)
        return g

    def equations(self) -> tuple[np.ndarray, np.ndarray]:
        """(M, N, 2 layers, 2 layers) and right-hand sides (M, N, 2 layers, 1)."""
        layers = len(self.k)
        system = np.zeros((*self.k[0].shape, 2 * layers, 2 * layers))
        right = np.zeros((*self.k[0].shape, 2 * layers))
        self._put_flux(system, right, 0, 0, LOWER, 1.0)
        self._put_flux(system, right, 1, layers - 1, UPPER, 1.0)
        for i in range(layers - 1):
            value, flux = 2 + 2 * i, 3 + 2 * i
            self._put_value(system, right, value, i, UPPER, 1.0)
            self._put_value(system, right, value, i + 1, LOWER, -1.0)
            self._put_flux(system, right, flux, i, UPPER, 1.0)
            self._put_flux(system, right, flux, i + 1, LOWER, -1.0)
        return system, right[..., None]

    def _put_value(
        self,
        system: np.ndarray,
        right: np.ndarray,
        row: int,
        layer: int,
        side: int,
        sign: float,
    ) -> None:
        """Add g of a layer on one of its edges to an equation."""
        edge = self.edges[layer + side]
        falling, rising = self.pair(layer, edge)
        system[..., row, 2 * layer] += sign * falling
        system[..., row, 2 * layer + 1] += sign * rising
        if layer == self.home:
            right[..., row] -= sign * self.particular(edge)

    def _put_flux(
        self,
        system: np.ndarray,
        right: np.ndarray,
        row: int,
        layer: int,
        side: int,
        sign: float,
    ) -> None:
        """Add sigma_H g' of a layer on one of its edges to an equation."""
        edge, sigma, k = self.edges[layer + side], self.sigma[layer], self.k[layer]
        falling, rising = self.pair(layer, edge)
        system[..., row, 2 * layer] += sign * (-sigma * k) * falling
        system[..., row, 2 * layer + 1] += sign * (sigma * k) * rising
        if layer == self.home:
            outwards = 1 if side == LOWER else -1
            right[..., row] -= sign * (self.particular(edge) * sigma * k * outwards)


def _drained_column(
    edges: np.ndarray, sigma: np.ndarray, h0: float, current: float
) -> Callable[[float], np.ndarray]:
    """g(h) of the mode without waves: -sigma g' = I ([h > h0] - h / L), continuous, of zero mean.

    Edges, h in metres.
    """
    knots = np.unique([*edges, h0])
    middle = (knots[1:] + knots[:-1]) / 2

    def slope(h: np.ndarray, side: np.ndarray) -> np.ndarray:
        within = sigma[np.searchsorted(edges, side) - 1]
        steepness: np.ndarray = -current * ((side > h0) - h / edges[-1]) / within
        return steepness

    # the midpoint is exact for a linear slope
    value = np.concatenate([[0.0], np.cumsum(slope(middle, middle) * np.diff(knots))])

    def g(h: np.ndarray | float) -> np.ndarray:
        i = np.clip(np.searchsorted(knots, h, side="right") - 1, 0, len(middle) - 1)
        risen: np.ndarray = slope((h + knots[i]) / 2, middle[i]) * (h - knots[i])
        above: np.ndarray = value[i] + risen
        return above

    # Simpson is exact for parabolas
    simpson = (value[:-1] + 4 * g(middle) + value[1:]) / 6
    mean = float(np.sum(simpson * np.diff(knots)) / edges[-1])
    return lambda h: g(h) - mean
