"""Pictures of one sample: what is true, what is predicted, what the network adds, and where it is
wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.report.plots import plain_ticks, pyplot, save


@dataclass(frozen=True)
class _Section:
    """A cut through the source: normal to one axis, the two others point down and across."""

    name: str
    cut: int
    down: int
    across: int


SECTIONS = (_Section("axial", 0, 1, 2), _Section("sagittal", 2, 0, 1))

#: Points to which the outline of the tissue is drawn, along the edge of a voxel: it follows edges.
FINE = 8

#: Percentile of the truth in tissue that has the topmost colour.
TOP = 99.9


def slices(batch: Batch, phi: Tensor, phi_a: Tensor, path: Path, title: str) -> Path:
    """Axial and sagittal section through the source of the first sample of a batch.

    Predictions below the scale, negative ones too, have its lowest colour. A negative current is
    drawn with its sign turned. Columns: truth, prediction (one shared logarithmic scale, mV),
    correction phi / phi_a - 1, error (mV), and |error| (log scale). phi, phi_a (B, D, H, W) in V.
    The tissue outline is drawn in black; the cross marks the source, a bar the electrode that takes
    the current out. A potential of both signs (zero mean) has a symmetric scale, linear below 1 %
    of its top, and the correction is then drawn as a difference in mV.
    """
    plt = pyplot()
    sample = _Sample.of(batch, phi, phi_a)
    panels = _panels(sample)
    heights = [sample.extent(s.down) / sample.extent(s.across) for s in SECTIONS]
    figure, axes = plt.subplots(
        len(SECTIONS),
        len(panels),
        figsize=(16, 3.2 * sum(heights) * 0.86 + 0.9),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for row, section in enumerate(SECTIONS):
        pictures = [
            _draw(axis, section, sample, panel)
            for axis, panel in zip(axes[row], panels, strict=True)
        ]
        axes[row, 0].set_ylabel(sample.place(section))
    for column, panel in enumerate(panels):
        axes[0, column].set_title(panel.label)
        _colours(figure, axes[:, column], pictures[column], panel)
    figure.suptitle(title)
    return save(figure, path, dpi=110)


@dataclass(frozen=True)
class _Sample:
    """What is drawn: fields (D, H, W) in V, lengths in mm.

    point : of the electrode that brings the current in.
    marks : electrodes and their signs in the picture.
    """

    tissue: np.ndarray
    truth: np.ndarray
    guess: np.ndarray
    base: np.ndarray
    spacing: np.ndarray
    point: np.ndarray
    marks: tuple[tuple[np.ndarray, str], ...]

    @classmethod
    def of(cls, batch: Batch, phi: Tensor, phi_a: Tensor) -> _Sample:
        """The first sample of a batch."""
        sign = float(np.sign(batch.current[0].item()))  # a sink is drawn as the source it mirrors
        point = _millimetres(batch.source_point)
        marks = [(point, "+")]
        if batch.return_point is not None:
            marks.append((_millimetres(batch.return_point), "_"))
        return cls(
            tissue=_first(batch.tissue).astype(bool),
            truth=sign * _first(batch.u),
            guess=sign * _first(phi),
            base=sign * _first(phi_a),
            spacing=_millimetres(batch.spacing),
            point=point,
            marks=tuple(marks),
        )

    @property
    def both_signs(self) -> bool:
        """Whether the potential has no reference: its mean is zero."""
        return bool(np.percentile(self.truth[self.tissue], 5) < 0)

    @property
    def voxel(self) -> np.ndarray:
        """The one that holds the source."""
        last = np.array(self.tissue.shape) - 1
        voxel: np.ndarray = np.minimum((self.point / self.spacing).astype(int), last)
        return voxel

    def extent(self, axis: int) -> float:
        """Of the grid along an axis, mm."""
        return float(self.spacing[axis] * self.tissue.shape[axis])

    def hide(self, field: np.ndarray) -> np.ma.MaskedArray[Any, Any]:
        """A field without its air."""
        return np.ma.masked_where(~self.tissue, field)

    def cut(self, field: np.ndarray, section: _Section) -> np.ndarray:
        """A field on a section."""
        plane: np.ndarray = np.ma.take(field, self.voxel[section.cut], axis=section.cut)
        return plane

    def place(self, section: _Section) -> str:
        """Where a section is, and its axis that points down."""
        at = (self.voxel[section.cut] + 0.5) * self.spacing[section.cut]
        cut, down = "DHW"[section.cut], "DHW"[section.down]
        return f"{section.name} at {cut} = {at:.0f} mm\n{down} (mm)"


def _first(field: Tensor) -> np.ndarray:
    """Of the first sample."""
    values: np.ndarray = field[0].detach().float().cpu().numpy()
    return values


def _millimetres(metres: Tensor) -> np.ndarray:
    """Of the first sample."""
    values: np.ndarray = metres[0].cpu().numpy() * 1e3
    return values


@dataclass(frozen=True)
class _Panel:
    """A column of the picture.

    style : how `imshow` maps values to colours.
    ticks : of the colour bar, where they are not matplotlib's.
    """

    label: str
    field: np.ndarray
    unit: str
    style: Mapping[str, Any]
    ticks: tuple[float, ...] | None = None


def _panels(sample: _Sample) -> list[_Panel]:
    """Truth, prediction, correction, error, |error|."""
    return [*_potentials(sample), _correction(sample), *_errors(sample)]


def _potentials(sample: _Sample) -> list[_Panel]:
    """Truth and prediction on one scale: logarithmic, or symmetric where there are both signs."""
    from matplotlib.colors import LogNorm, SymLogNorm

    inside = sample.truth[sample.tissue]
    truth, guess = sample.truth * 1e3, sample.guess * 1e3
    top = float(np.percentile(inside, TOP)) * 1e3
    style: dict[str, Any]
    if sample.both_signs:
        style = {"norm": SymLogNorm(linthresh=top * 1e-2, vmin=-top, vmax=top), "cmap": "PuOr_r"}
        ticks = (-top, -top / 10, 0, top / 10, top)
    else:
        low = max(float(np.percentile(inside, 2)) * 1e3, top * 1e-4)
        style = {"norm": LogNorm(vmin=low, vmax=top), "cmap": "viridis"}
        ticks, guess = None, np.maximum(guess, low * 1e-3)
    fields = {r"truth $\phi$": truth, r"prediction $\hat\phi$": guess}
    return [_Panel(name, sample.hide(field), "mV", style, ticks) for name, field in fields.items()]


def _correction(sample: _Sample) -> _Panel:
    """What the network adds: the ratio to the baseline, or, as that has a pole where phi_a passes
    zero, the difference from it.
    """
    if sample.both_signs:
        label, unit = r"correction $\hat\phi - \phi_a$", "mV"
        field = sample.hide((sample.guess - sample.base) * 1e3)
    else:
        label, unit = r"correction $\hat\phi/\phi_a - 1$", "dimensionless"
        with np.errstate(divide="ignore", invalid="ignore"):
            nonzero = np.where(sample.base == 0, np.nan, sample.base)
            field = sample.hide(sample.guess / nonzero - 1)
    span = float(np.ceil(np.percentile(np.abs(field.compressed()), 99) * 10) / 10) or 0.1
    return _Panel(label, field, unit, {"vmin": -span, "vmax": span, "cmap": "RdBu_r"})


def _errors(sample: _Sample) -> list[_Panel]:
    """The error, and its size on a logarithmic scale."""
    from matplotlib.colors import LogNorm

    error = sample.hide((sample.guess - sample.truth) * 1e3)
    wrong = max(float(np.percentile(np.abs(error.compressed()), 99)), 1e-9)
    even = {"vmin": -wrong, "vmax": wrong, "cmap": "RdBu_r"}
    logarithmic = {"norm": LogNorm(vmin=wrong * 1e-3, vmax=wrong), "cmap": "magma"}
    size = np.ma.masked_less_equal(np.abs(error), 0)
    return [
        _Panel(r"error $\hat\phi - \phi$", error, "mV", even),
        _Panel(r"$|\hat\phi - \phi|$", size, "mV", logarithmic),
    ]


def _draw(axis: Any, section: _Section, sample: _Sample, panel: _Panel) -> Any:
    """One panel on one section; matplotlib's picture, for its colour bar."""
    down, across = section.down, section.across
    picture = axis.imshow(
        sample.cut(panel.field, section),
        extent=(0, sample.extent(across), sample.extent(down), 0),
        interpolation="nearest",
        **panel.style,
    )
    outline = sample.cut(sample.tissue, section).astype(float)
    if outline.min() < outline.max():
        outline = outline.repeat(FINE, axis=0).repeat(FINE, axis=1)
        x, y = (_fine_centres(sample, a) for a in (across, down))
        axis.contour(x, y, outline, levels=[0.5], colors="black", linewidths=1.0)
    # an electrode off the section is drawn where it projects to
    for place, mark in sample.marks:
        style = {"color": "red", "markersize": 9, "markeredgewidth": 1.5}
        axis.plot(place[across], place[down], mark, **style)
    axis.set_facecolor("0.9")
    axis.set_xlabel(f"{'DHW'[across]} (mm)")
    return picture


def _fine_centres(sample: _Sample, axis: int) -> np.ndarray:
    count = FINE * sample.tissue.shape[axis]
    centres: np.ndarray = (np.arange(count) + 0.5) * sample.spacing[axis] / FINE
    return centres


def _colours(figure: Any, column: Any, picture: Any, panel: _Panel) -> None:
    """The colour bar of a column."""
    place = {"location": "bottom", "shrink": 0.9, "pad": 0.02}
    bar = figure.colorbar(picture, ax=column, label=panel.unit, extend="both", **place)
    if panel.ticks is not None:
        bar.set_ticks(list(panel.ticks), labels=[f"{value:.2g}" for value in panel.ticks])
        bar.minorticks_off()


Tables = Mapping[str, Mapping[str, Mapping[str, float]]]

#: Prefix of the metrics of each contender, its marker and line.
DRAWN = (("", "o", "-", "network"), ("baseline_", "s", "--", "baseline alone"))


def errors_by_distance(tables: Tables, path: Path) -> Path:
    """Relative L2 in shells round the source for every grid: network and baseline, median and 95th
    percentile.

    tables : grid -> aggregated metrics (`markdown.aggregate`), keys `relative_l2_<a>-<b>mm`.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    names = dict.fromkeys(name for table in tables.values() for name in _shells(table, ""))
    labels = sorted(names, key=_begin)
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for color, (grid, table) in zip(colors, tables.items(), strict=False):
        for prefix, marker, line, who in DRAWN:
            shells = _shells(table, prefix)
            middle = [100 * v["median"] for v in shells.values()]
            high = [100 * (v["p95"] - v["median"]) for v in shells.values()]
            axis.errorbar(
                [labels.index(name) for name in shells],
                middle,
                yerr=[np.zeros(len(high)), high],
                marker=marker,
                linestyle=line,
                color=color,
                capsize=3,
                label=f"{who}, {grid}",
            )
    axis.set_xticks(range(len(labels)), _ticks(labels))
    axis.set_yscale("log")
    plain_ticks(axis)
    axis.set_xlabel("distance from the source (mm)")
    axis.set_ylabel("relative L2 error (%), median to 95th percentile")
    axis.grid(True, which="both", alpha=0.3)
    handles, texts = axis.get_legend_handles_labels()
    figure.legend(handles, texts, fontsize=8, ncols=2, loc="outside upper center")
    return save(figure, path)


def _shells(
    table: Mapping[str, Mapping[str, float]], prefix: str
) -> dict[str, Mapping[str, float]]:
    """Statistics of a contender, by shell: 20-40mm, 80mm+."""
    start = f"{prefix}relative_l2_"
    return {
        name.removeprefix(start): statistics
        for name, statistics in table.items()
        if name.startswith(start) and name.endswith(("mm", "mm+"))
    }


def _begin(shell: str) -> float:
    """Where a shell begins, mm."""
    return float(shell.split("-")[0].rstrip("m+"))


def _ticks(shells: Iterable[str]) -> list[str]:
    """20-40, 80+."""
    return [shell.replace("mm", "") for shell in shells]
