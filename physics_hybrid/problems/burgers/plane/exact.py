"""Advection and diffusion on a periodic square, exactly.

    u_t + a . grad u = eps lap u,      eps = nu / pi,      on (0, 1)^2

In Fourier space each mode turns and decays by itself,

    u_k(t) = u_k(0) exp(-(2 pi i k . a + 4 pi^2 |k|^2 eps) t)

for the trigonometric interpolant of a state on a fine grid; cells are means over its blocks.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Points of the fine grid, along an edge, for each cell.
FINE = 4
#: Largest wavenumber of the waves in a state, and width of the edge of a disc.
WAVES, EDGE = 3, 0.02


def initial_states(count: int, points: int, seed: list[int]) -> tuple[Array, Array]:
    """States (n, points, points) and velocities (n, 2): two waves, and a disc in half of them.

    Wavenumbers are 0 to 3 along each axis, amplitudes uniform in (0, 1), phases any; a disc has
    radius 0.1 to 0.3 and height -1 to 1; each component of a is uniform in (-1, 1).
    """
    random = np.random.default_rng(seed)
    x = (np.arange(points) + 0.5) / points
    u = np.zeros((count, points, points))
    for state in u:
        for _ in range(2):
            k, l = random.integers(0, WAVES + 1, 2)  # noqa: E741
            phase, size = 2 * np.pi * random.random(), random.random()
            state += size * np.sin(2 * np.pi * (k * x[:, None] + l * x) + phase)
        centre, radius = random.random(2), random.uniform(0.1, 0.3)
        height, there = random.uniform(-1, 1), random.random() < 0.5
        if there:
            apart = [(x - c + 0.5) % 1 - 0.5 for c in centre]
            distance = np.hypot(apart[0][:, None], apart[1])
            state += height * 0.5 * (1 - np.tanh((distance - radius) / EDGE))
    return u, random.uniform(-1, 1, (count, 2))


def exact_means(u: Array, velocity: Array, nu: float, cells: int, times: list[float]) -> Array:
    """Means over cells (n, T, cells, cells) of states (n, P, P) that move with velocity (n, 2).

    Examples
    --------
    A disc that nothing diffuses is back after a time of 1 at velocity (1, 0).

    >>> u, _ = initial_states(1, 32, [0])
    >>> frames = exact_means(u, np.array([[1.0, 0.0]]), 0.0, 8, [0.0, 1.0])
    >>> bool(np.allclose(frames[0, 0], frames[0, 1], atol=1e-9))
    True
    """
    points, eps = u.shape[1], nu / np.pi
    k = 2 * np.pi * np.fft.fftfreq(points, 1 / points)[:, None]
    l = 2 * np.pi * np.fft.rfftfreq(points, 1 / points)  # noqa: E741
    modes = np.fft.rfft2(u)
    turn = k * velocity[:, 0, None, None] + l * velocity[:, 1, None, None]
    rate = 1j * turn + eps * (k**2 + l**2)
    out = np.empty((len(u), len(times), cells, cells))
    for i, t in enumerate(times):
        later = np.fft.irfft2(modes * np.exp(-rate * t), s=(points, points))
        blocks = later.reshape(len(u), cells, points // cells, cells, points // cells)
        out[:, i] = blocks.mean(axis=(2, 4))
    return out
