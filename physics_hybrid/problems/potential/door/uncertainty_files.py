"""What conductivities leave open, as a picture and as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from physics_hybrid.report.plots import pyplot
from physics_hybrid.report.plots import save as save_figure
from physics_hybrid.writing import STORED, create_h5, written

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.uncertainty import Uncertainty

#: Of the thin and of the thick bars.
LEVELS = (0.95, 0.5)
#: Prefixes of units.
PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
#: Of tissues, one after the other.
COLOURS = ("#c44e52", "#dd9a2b", "#4c72b0", "#8172b3", "#55a868", "#64b5cd", "#937860", "#da8bc3")


def drawn(found: Uncertainty, path: str | Path | None) -> Any:
    """See `Uncertainty.plot`."""
    plt = pyplot()
    count = 2 if found.method == "reduced" else 1
    figure, axes = plt.subplots(
        count, 1, figsize=(9, 2.9 * count), sharex=True, squeeze=False, layout="constrained"
    )
    intervals(axes[0, 0], found)
    if count > 1:
        shares(axes[1, 0], found)
    axes[-1, 0].set_xlabel("value, in the order of `samples`")
    return figure if path is None else save_figure(figure, Path(path).expanduser())


def intervals(axis: Any, found: Uncertainty) -> None:
    """Mean and intervals of every value."""
    scale, prefix = prefix_of(found.samples)
    mean = found.mean.ravel() / scale
    place = np.arange(len(mean))
    for level, width, colour in zip(LEVELS, (1.2, 3.5), ("0.45", "0.15"), strict=True):
        low, high = (edge.ravel() / scale for edge in found.interval(level))
        label = f"{level:.0%} of the samples"
        axis.vlines(place, low, high, lw=width, color=colour, label=label)
    axis.plot(place, mean, "o", ms=3, color="#c44e52", label="mean")
    axis.axhline(0, lw=0.6, color="0.7", zorder=0)
    axis.set_ylabel(f"{prefix}{found.unit}")
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def shares(axis: Any, found: Uncertainty) -> None:
    """First-order indices of every value, one on the other."""
    first = found.sobol.reshape(len(found.names), -1)
    bottom = np.zeros(first.shape[1])
    place = np.arange(first.shape[1])
    for number, name in enumerate(found.names):
        part = np.nan_to_num(first[number]).clip(0)
        colour = COLOURS[number % len(COLOURS)]
        axis.bar(place, part, bottom=bottom, width=0.9, color=colour, label=name)
        bottom += part
    axis.set(ylim=(0, max(1.0, float(bottom.max()))), ylabel="share of the variance")
    axis.axhline(1, lw=0.6, color="0.3")
    axis.legend(
        frameon=False,
        fontsize=8,
        ncols=len(found.names),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )


def prefix_of(values: np.ndarray) -> tuple[float, str]:
    """The unit that the largest of some values is best read in: its size, its prefix."""
    largest = float(np.abs(values).max())
    for scale, prefix in PREFIXES:
        if largest >= scale:
            return scale, prefix
    return PREFIXES[0]


def save(found: Uncertainty, path: Path) -> Path:
    """See `Uncertainty.save`."""
    writer_of(path)(contents(found), path)
    return path


def writer_of(path: Path) -> Callable[[dict[str, np.ndarray], Path], None]:
    """What writes a file of this suffix. Raises ValueError for another."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: uncertainties are written as {' or '.join(WRITERS)}")
    return writer


def contents(found: Uncertainty) -> dict[str, np.ndarray]:
    """All that is known, as arrays by name."""
    low, high = found.interval(LEVELS[0])
    arrays = {
        "samples": found.samples,
        "conductivities": found.conductivities,
        "names": np.array(found.names, dtype=np.bytes_),
        "nominal": found.nominal,
        "mean": found.mean,
        "sd": found.sd,
        "low": low,
        "high": high,
        "unit": np.bytes_(found.unit),
        "method": np.bytes_(found.method),
        "seed": np.array(found.seed),
    }
    if found.bound is not None:
        indices = found.indices()
        arrays |= {
            "bound": found.bound,
            "sensitivity": found.sensitivity,
            "sobol": indices.first,
            "sobol_total": indices.total,
        }
    return {name: np.asarray(value) for name, value in arrays.items()}


def _npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _h5(arrays: dict[str, np.ndarray], path: Path) -> None:
    with create_h5(path) as file:
        for name, values in arrays.items():
            how = STORED if values.ndim and values.dtype.kind == "f" else {}
            file.create_dataset(name, data=values, **how)


WRITERS = {".npz": _npz, ".h5": _h5}
