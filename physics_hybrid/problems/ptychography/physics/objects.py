"""Objects of random lines.

    I = G_1 * L + 2 G_5 * L + 5 G_10 * L,    amplitude = I / mean(I)
    phase = pi tanh((I - max(I) / 2) / (3 mean(I)))

L is a drawing of straight lines, G_s a Gaussian of s pixels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

#: Weight of each blur, by its sigma in pixels.
BLURS = {1.0: 1.0, 5.0: 2.0, 10.0: 5.0}


def line_object(
    size: int, lines: int, rng: np.random.Generator, *, phase: bool = True
) -> NDArray[np.complex128]:
    """The middle of a canvas of twice the size with random straight lines, blurred.

    Parameters
    ----------
    size : int
        Pixels along each side.
    lines : int
        Lines on the canvas; their ends are uniform on it.
    rng : Generator
        Where the ends come from.
    phase : bool
        Whether the object has a phase.

    Returns
    -------
    array
        (size, size), complex; its amplitude has a mean of 1.

    Source
    ------
    Hoidn, Mishra and Mehta, Sci. Rep. 13 (2023) 22789, "grid lines" data.

    Examples
    --------
    >>> O = line_object(32, 20, np.random.default_rng(0))
    >>> O.shape, round(float(abs(O).mean()), 6)
    ((32, 32), 1.0)
    """
    canvas = 2 * size
    drawing = draw_lines(canvas, rng.integers(0, canvas, size=(lines, 2, 2)))
    blurred = np.zeros_like(drawing)
    for sigma, weight in BLURS.items():
        blurred += weight * gaussian_filter(drawing, sigma)
    first = size // 2
    kept = blurred[first : first + size, first : first + size]
    amplitude = kept / kept.mean()
    if not phase:
        angle = np.zeros_like(amplitude)
    else:
        angle = np.pi * np.tanh((amplitude - amplitude.max() / 2) / 3)
    out: NDArray[np.complex128] = amplitude * np.exp(1j * angle)
    return out


def draw_lines(canvas: int, ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 on the pixels nearest to straight lines, 0 elsewhere.

    ends : (lines, 2, 2), row and column of both ends of each.
    """
    drawing = np.zeros((canvas, canvas))
    for begin, end in ends:
        count = int(np.abs(end - begin).max()) + 1
        rows, columns = np.rint(np.linspace(begin, end, count)).astype(int).T
        drawing[rows, columns] = 1.0
    return drawing
