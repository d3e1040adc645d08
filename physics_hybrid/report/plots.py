"""What figures have in common."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from physics_hybrid.writing import written


def pyplot() -> Any:
    """matplotlib.pyplot, without a display, whatever MPLBACKEND says.

    A notebook names its own there for the programs that it starts, and matplotlib cannot even be
    imported with a name that it does not know.
    """
    if "matplotlib" not in sys.modules:
        os.environ["MPLBACKEND"] = "Agg"
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


@contextlib.contextmanager
def spared(what: str) -> Iterator[None]:
    """A figure, or what shows it, that fails is reported, and costs nothing else."""
    try:
        yield
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        print(f"WARNING: no {what}: {first}", file=sys.stderr, flush=True)


def plain_ticks(axis: Any) -> None:
    """Logarithmic y axis with numbers as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def check_picture(path: str | Path) -> None:
    """Raises ValueError where the suffix is that of no picture which can be written."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in kinds:
        raise ValueError(f"{path}: a picture is written as {', '.join(f'.{k}' for k in kinds)}")


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
