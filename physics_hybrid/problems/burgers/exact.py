"""Viscous Burgers, exactly: the initial states of PDEBench, and their cell means at any time.

    u_t + (u^2 / 2)_x = eps u_xx,      eps = nu / pi,      periodic on (0, 1)

The Cole-Hopf transform makes it the heat equation (Hopf, Comm. Pure Appl. Math. 3 (1950) 201, eq.
10; Cole, Quart. Appl. Math. 9 (1951) 225). With m the mean of u0 and psi a primitive of u0 - m,

    u = m - 2 eps d/dx ln phi,
    phi(x, t) = int exp(-[psi(y) + (x - m t - y)^2 / 2t] / 2 eps) dy

so that the mean of u over a cell is a difference of -2 eps ln phi at its ends: no derivative is
taken. -2 eps ln phi is psi at the time t, from which the next time follows by the same formula.
Lengths are in units of the box, times in units of box over velocity.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Below such viscosities, and times between two frames, the quadrature is unproven.
SMALLEST_NU = 1e-3
EARLIEST = 0.05
#: Nodes of the quadrature, and midpoints between two of them from which psi is summed.
NODES, FINE = 512, 32
#: Modes that initial states are drawn from, and draws.
MODES, DRAWS = 4, 2
#: Width of the edges of a window.
EDGE = 0.01


class InitialStates:
    """States at t = 0, drawn as PDEBench draws them (Takamoto et al. 2022, appendix D.2).

        u0(x) = s w(x) |.|^a ( sum_{k=1..4} A_k sin(2 pi n_k x + phi_k) )

    n_k is k times how often mode k came up in two draws, so that a mode that was not drawn is a
    constant, and the mean is not 0; A_k is uniform in (0, 1), phi_k in (0, 2 pi), s is a sign. One
    in ten is an absolute value (a), one in ten lies in a window w.

    Examples
    --------
    >>> states = InitialStates(3, seed=0)
    >>> states(np.linspace(0, 1, 5)).shape
    (3, 5)
    """

    def __init__(self, count: int, seed: int | Sequence[int]):
        random = np.random.default_rng(seed)
        drawn = random.integers(0, MODES, (count, DRAWS))
        modes = np.arange(MODES)
        self.wavenumber = (modes + 1) * (drawn[:, :, None] == modes).sum(axis=1)
        self.amplitude = random.random((count, MODES))
        self.phase = 2 * np.pi * random.random((count, MODES))
        self.absolute = random.random(count) < 0.1
        self.sign = np.where(random.random(count) < 0.5, 1.0, -1.0)
        self.windowed = random.random(count) < 0.1
        self.left = random.uniform(0.1, 0.45, count)
        self.right = random.uniform(0.55, 0.9, count)

    def __len__(self) -> int:
        return len(self.sign)

    def rows(self, numbers: Sequence[int]) -> "InitialStates":
        """Those with these numbers."""
        part = InitialStates.__new__(InitialStates)
        vars(part).update({name: values[list(numbers)] for name, values in vars(self).items()})
        return part

    def __call__(self, x: Array) -> Array:
        """u0 at points x (M,), of all states (n, M)."""
        waves = np.sin(2 * np.pi * self.wavenumber[:, :, None] * x + self.phase[:, :, None])
        u = (self.amplitude[:, :, None] * waves).sum(axis=1)
        u = np.where(self.absolute[:, None], np.abs(u), u) * self.sign[:, None]
        u0: Array = np.where(self.windowed[:, None], u * self._window(x), u)
        return u0

    def _window(self, x: Array) -> Array:
        from_left = np.tanh((x % 1.0 - self.left[:, None]) / EDGE)
        from_right = np.tanh((x % 1.0 - self.right[:, None]) / EDGE)
        return 0.5 * (from_left - from_right)


def exact_means(
    initial: InitialStates, nu: float, cells: int, times: Sequence[float], nodes: int = NODES
) -> Array:
    """Means over cells (n, T, cells) of the solution from initial states.

    nu : PDEBench's, eps = nu / pi.
    cells : of equal size, a divisor of the nodes.
    times : 0.05 apart or more; 0 is the initial state.
    nodes : of the quadrature, at least as many as cells; 512 are good to 2e-5.

    Raises
    ------
    ValueError
        A viscosity, time or number of cells for which the quadrature is unproven.

    Examples
    --------
    The mean is kept.

    >>> u = exact_means(InitialStates(1, seed=0), nu=0.01, cells=64, times=[0.0, 1.0])
    >>> bool(np.ptp(u.mean(axis=2)) < 1e-12)
    True
    """
    nodes = max(nodes, cells)
    _check(nu, cells, times, nodes)
    eps, count = nu / math.pi, nodes * FINE
    u0 = initial((np.arange(count) + 0.5) / count)
    out = np.empty((len(u0), len(times), cells))
    for i, u in enumerate(u0):
        m = float(u.mean())
        mass = np.concatenate([[0.0], np.cumsum((u - m).reshape(nodes, FINE).mean(axis=1))[:-1]])
        psi, before = mass / nodes, 0.0
        fastest = float(np.abs(u - m).max())  # never rises
        for k, t in enumerate(times):
            if t == 0:
                out[i, k] = u.reshape(cells, -1).mean(axis=1)
                continue
            psi = _later(psi, m, t - before, eps, fastest)
            edges = psi[:: nodes // cells]
            out[i, k] = m + cells * np.diff(edges, append=edges[0])
            fastest = min(fastest, 1.1 * float(np.abs(out[i, k] - m).max()) + 0.02)
            before = t
    return out


def _later(psi: Array, m: float, t: float, eps: float, fastest: float) -> Array:
    """psi = -2 eps ln phi at the nodes after a time t, from psi at the nodes, but for a constant:
    the trapezoidal rule over |x - m t - y| <= fastest t + 9 widths of the Gaussian.
    """
    nodes = len(psi)
    x = np.arange(nodes) / nodes - m * t
    half = math.ceil((fastest * t + 9 * math.sqrt(2 * eps * t)) * nodes) + 1
    j = np.rint(x * nodes).astype(int)[:, None] + np.arange(-half, half + 1)
    exponent = x[:, None] - j / nodes
    exponent *= exponent  # in place: this is where the time goes
    exponent *= 1 / (2 * t)
    exponent += psi[j % nodes]
    exponent *= -1 / (2 * eps)
    largest = exponent.max(axis=1, keepdims=True)
    exponent -= largest
    # float32 is enough for what is summed: each term is right to 1e-7 of the largest
    terms = np.exp(exponent.astype(np.float32)).sum(axis=1, dtype=np.float64)
    later: Array = -2 * eps * (np.log(terms) + largest[:, 0])
    return later


def _check(nu: float, cells: int, times: Sequence[float], nodes: int) -> None:
    if not nu >= SMALLEST_NU:
        raise ValueError(
            f"the exact solution is proven for nu >= {SMALLEST_NU:g}; got {nu:g}: use a larger one,"
            " or files of another solver (data=pdebench)"
        )
    if any(b <= a for a, b in zip(times[:-1], times[1:], strict=True)) or times[0] < 0:
        raise ValueError(f"times must be >= 0 and increase; got {list(times)}")
    apart = np.diff([0.0, *(t for t in times if t > 0)])
    if len(apart) and apart.min() < EARLIEST - 1e-9:
        raise ValueError(
            f"the exact solution is proven for times {EARLIEST:g} apart or more; got"
            f" {apart.min():g}"
        )
    if nodes % cells:
        raise ValueError(f"cells must be a divisor of {nodes}, such as 256; got {cells}")
