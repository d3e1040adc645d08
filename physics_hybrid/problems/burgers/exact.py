"""Viscous Burgers, exactly: the initial states of PDEBench, and their cell means at any time.

    u_t + (u^2 / 2)_x = eps u_xx,      eps = nu / pi,      periodic on (0, 1)

The Cole-Hopf transform makes it the heat equation (Hopf, Comm. Pure Appl. Math. 3 (1950) 201, eq.
10; Cole, Quart. Appl. Math. 9 (1951) 225). With m the mean of u0 and psi a primitive of u0 - m,

    u = m - 2 eps d/dx ln phi,
    phi(x, t) = int exp(-[psi(y) + (x - m t - y)^2 / 2t] / 2 eps) dy

so that the mean of u over a cell is a difference of ln phi at its ends: no derivative is taken.
Lengths are in units of the box, times in units of box over velocity.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Below, the quadrature is unproven.
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
        return np.where(self.windowed[:, None], u * self._window(x), u)

    def _window(self, x: Array) -> Array:
        from_left = np.tanh((x % 1.0 - self.left[:, None]) / EDGE)
        from_right = np.tanh((x % 1.0 - self.right[:, None]) / EDGE)
        return 0.5 * (from_left - from_right)


def exact_means(
    initial: InitialStates, nu: float, cells: int, times: Sequence[float], nodes: int = NODES
) -> Array:
    """Means over cells (n, T, cells) of the solution from initial states.

    nu : PDEBench's, eps = nu / pi.
    cells : of equal size; a divisor of 32 nodes.
    times : increasing; 0 is the initial state.
    nodes : of the quadrature; 512 are good to 2e-5.

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
    _check(nu, cells, times, nodes)
    eps, count = nu / math.pi, nodes * FINE
    midpoints = (np.arange(count) + 0.5) / count
    u0 = initial(midpoints)
    mean = u0.mean(axis=1)
    sums = (u0 - mean[:, None]).reshape(len(u0), nodes, FINE).mean(axis=2) / nodes
    psi = np.concatenate([np.zeros((len(u0), 1)), np.cumsum(sums, axis=1)], axis=1)[:, :-1]
    edges = np.arange(cells + 1) / cells
    out = np.empty((len(u0), len(times), cells))
    for i, m in enumerate(mean):
        fastest = float(np.abs(u0[i] - m).max())  # never rises
        for k, t in enumerate(times):
            if t == 0:
                out[i, k] = u0[i].reshape(cells, -1).mean(axis=1)
                continue
            reach = fastest * t + 9 * math.sqrt(2 * eps * t)
            log_phi = _log_phi(psi[i], edges - m * t, t, eps, reach)
            out[i, k] = m - 2 * eps * cells * np.diff(log_phi)
            fastest = min(fastest, 1.1 * float(np.abs(out[i, k] - m).max()) + 0.02)
    return out


def _log_phi(psi: Array, x: Array, t: float, eps: float, reach: float) -> Array:
    """ln phi at points x, but for a constant: the trapezoidal rule over |x - y| <= reach."""
    nodes = len(psi)
    half = math.ceil(reach * nodes) + 1
    j = np.rint(x * nodes).astype(int)[:, None] + np.arange(-half, half + 1)
    exponent = x[:, None] - j / nodes
    exponent *= exponent  # in place: this is where the time goes
    exponent *= 1 / (2 * t)
    exponent += psi[j % nodes]
    exponent *= -1 / (2 * eps)
    largest = exponent.max(axis=1, keepdims=True)
    exponent -= largest
    # float32 is enough for what is summed: each term is right to 1e-7 of the largest
    terms = np.exp(exponent.astype(np.float32))
    log_phi: Array = np.log(terms.sum(axis=1, dtype=np.float64)) + largest[:, 0]
    return log_phi


def _check(nu: float, cells: int, times: Sequence[float], nodes: int) -> None:
    if not nu >= SMALLEST_NU:
        raise ValueError(
            f"the exact solution is proven for nu >= {SMALLEST_NU:g}; got {nu:g}: use a larger one,"
            " or files of another solver (data=pdebench)"
        )
    if any(b <= a for a, b in zip(times[:-1], times[1:], strict=True)) or times[0] < 0:
        raise ValueError(f"times must be >= 0 and increase; got {list(times)}")
    later = [t for t in times if t > 0]
    if later and later[0] < EARLIEST - 1e-12:
        raise ValueError(
            f"the exact solution is proven from t = {EARLIEST:g} on, and at 0; got {later[0]:g}"
        )
    if (nodes * FINE) % cells:
        raise ValueError(f"cells must be a divisor of {nodes * FINE}, such as 256; got {cells}")
