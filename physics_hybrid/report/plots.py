"""What figures have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from physics_hybrid.writing import written


def pyplot() -> Any:
    """matplotlib.pyplot, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plain_ticks(axis: Any) -> None:
    """Logarithmic y axis with numbers as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def save(figure: Any, path: Path, dpi: int = 130) -> Path:
    """Write a figure, make its folder where it is missing, and let the figure go; the path.

    Raises OSError for a full disk: names the file, of which no half is left.
    """
    path = Path(path)
    try:
        with written(path) as temporary:
            figure.savefig(temporary, dpi=dpi)
    finally:
        pyplot().close(figure)
    return path
