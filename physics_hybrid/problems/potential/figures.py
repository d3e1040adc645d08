"""Pictures of one sample: what is true, what is predicted, what the network adds, and where it is
wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from physics_hybrid.problems.potential.scene import Batch
from physics_hybrid.report.plots import plain_ticks, pyplot, save

#: (axis that is cut, axes of the picture, name)
SECTIONS = ((0, (1, 2), "axial"), (2, (0, 1), "sagittal"))


def slices(batch: Batch, phi: torch.Tensor, phi_a: torch.Tensor, path: Path, title: str) -> Path:
    """Axial and sagittal section through the source of the first sample of a batch.

    Predictions below the scale, negative ones too, have its lowest colour. A negative current is
    drawn with its sign turned. Columns: truth, prediction (one shared logarithmic scale, mV),
    correction phi / phi_a - 1, error (mV), and |error| (log scale). phi, phi_a (B, D, H, W) in V.
    The tissue outline is drawn in black; the cross marks the source, a bar the electrode that takes
    the current out. A potential of both signs (zero mean) has a symmetric scale, linear below 1 %
    of its top, and the correction is then drawn as a difference in mV.
    """
    plt = pyplot()
    from matplotlib.colors import LogNorm, SymLogNorm

    def array(t):
        return t[0].detach().float().cpu().numpy()

    tissue, truth, guess, base = (array(t) for t in (batch.tissue, batch.u, phi, phi_a))
    tissue = tissue.astype(bool)
    sign = float(np.sign(batch.current[0].item()))  # a sink is drawn as the source it mirrors
    truth, guess, base = sign * truth, sign * guess, sign * base
    spacing, point = (p[0].cpu().numpy() * 1e3 for p in (batch.spacing, batch.source_point))
    marks = (
        [(point, "+")]
        if batch.return_point is None
        else [(point, "+"), (batch.return_point[0].cpu().numpy() * 1e3, "_")]
    )
    voxel = np.minimum((point / spacing).astype(int), np.array(tissue.shape) - 1)

    def hide(field):
        return np.ma.masked_where(~tissue, field)

    with np.errstate(divide="ignore", invalid="ignore"):
        correction = hide(guess / np.where(base == 0, np.nan, base) - 1)
    error = hide((guess - truth) * 1e3)
    top = float(np.percentile(truth[tissue], 99.9)) * 1e3
    both_signs = float(np.percentile(truth[tissue], 5)) < 0
    if both_signs:  # no reference: zero mean
        shades = {"norm": SymLogNorm(linthresh=top * 1e-2, vmin=-top, vmax=top), "cmap": "PuOr_r"}
        correction = hide((guess - base) * 1e3)  # the ratio has a pole where phi_a passes zero
    else:
        shades = {
            "norm": LogNorm(
                vmin=max(float(np.percentile(truth[tissue], 2)) * 1e3, top * 1e-4), vmax=top
            ),
            "cmap": "viridis",
        }
    span = float(np.ceil(np.percentile(np.abs(correction.compressed()), 99) * 10) / 10) or 0.1
    wrong = max(float(np.percentile(np.abs(error.compressed()), 99)), 1e-9)
    panels = (
        (r"truth $\phi$", hide(truth * 1e3), shades, "mV"),
        (
            r"prediction $\hat\phi$",
            hide(
                guess * 1e3 if both_signs else np.maximum(guess * 1e3, shades["norm"].vmin * 1e-3)
            ),
            shades,
            "mV",
        ),
        (
            (
                r"correction $\hat\phi - \phi_a$"
                if both_signs
                else r"correction $\hat\phi/\phi_a - 1$"
            ),
            correction,
            {"vmin": -span, "vmax": span, "cmap": "RdBu_r"},
            "mV" if both_signs else "dimensionless",
        ),
        (
            r"error $\hat\phi - \phi$",
            error,
            {"vmin": -wrong, "vmax": wrong, "cmap": "RdBu_r"},
            "mV",
        ),
        (
            r"$|\hat\phi - \phi|$",
            np.ma.masked_less_equal(np.abs(error), 0),
            {"norm": LogNorm(vmin=wrong * 1e-3, vmax=wrong), "cmap": "magma"},
            "mV",
        ),
    )
    heights = [
        spacing[a[0]] * tissue.shape[a[0]] / (spacing[a[1]] * tissue.shape[a[1]])
        for _, a, _ in SECTIONS
    ]
    figure, axes = plt.subplots(
        2,
        5,
        figsize=(16, 3.2 * sum(heights) * 0.86 + 0.9),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for row, (cut, (down, across), name) in enumerate(SECTIONS):
        # follows voxel edges
        outline = (
            np.take(tissue, voxel[cut], axis=cut).astype(float).repeat(8, axis=0).repeat(8, axis=1)
        )
        extent = (0, spacing[across] * tissue.shape[across], spacing[down] * tissue.shape[down], 0)
        centres = [(np.arange(8 * tissue.shape[a]) + 0.5) * spacing[a] / 8 for a in (across, down)]
        for column, (label, field, style, unit) in enumerate(panels):
            axis = axes[row, column]
            picture = axis.imshow(
                np.ma.take(field, voxel[cut], axis=cut),
                extent=extent,
                interpolation="nearest",
                **style,
            )
            if outline.min() < outline.max():
                axis.contour(*centres, outline, levels=[0.5], colors="black", linewidths=1.0)
            # an electrode off the section is drawn where it projects to
            for place, mark in marks:
                axis.plot(
                    place[across], place[down], mark, color="red", markersize=9, markeredgewidth=1.5
                )
            axis.set_facecolor("0.9")
            axis.set_xlabel(f"{'DHW'[across]} (mm)")
            if column == 0:
                axis.set_ylabel(
                    f"{name} at {'DHW'[cut]} = {(voxel[cut] + 0.5) * spacing[cut]:.0f}"
                    f" mm\n{'DHW'[down]} (mm)"
                )
            if row == 0:
                axis.set_title(label)
            if row == 1:
                bar = figure.colorbar(
                    picture,
                    ax=axes[:, column],
                    location="bottom",
                    shrink=0.9,
                    pad=0.02,
                    label=unit,
                    extend="both",
                )
                if isinstance(style.get("norm"), SymLogNorm):
                    bar.set_ticks(
                        [-top, -top / 10, 0, top / 10, top],
                        labels=[f"{v:.2g}" for v in (-top, -top / 10, 0, top / 10, top)],
                    )
                    bar.minorticks_off()
    figure.suptitle(title)
    return save(figure, path, dpi=110)


def errors_by_distance(tables: dict[str, dict], path: Path) -> Path:
    """Relative L2 in shells round the source for every grid: network and baseline, median and 95th
    percentile.

    tables : grid -> aggregated metrics (`metrics.aggregate`), keys `relative_l2_<a>-<b>mm`.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    labels = list(
        dict.fromkeys(
            k.removeprefix("relative_l2_")
            for t in tables.values()
            for k in t
            if k.startswith("relative_l2_") and k.endswith(("mm", "mm+"))
        )
    )
    labels.sort(key=lambda label: float(label.split("-")[0].rstrip("m+")))
    for color, (grid, table) in zip(
        plt.rcParams["axes.prop_cycle"].by_key()["color"], tables.items()
    ):
        for prefix, marker, line, who in (
            ("", "o", "-", "network"),
            ("baseline_", "s", "--", "baseline alone"),
        ):
            shells = {
                k.removeprefix(f"{prefix}relative_l2_"): v
                for k, v in table.items()
                if k.startswith(f"{prefix}relative_l2_") and k.endswith(("mm", "mm+"))
            }
            middle = [100 * v["median"] for v in shells.values()]
            high = [100 * (v["p95"] - v["median"]) for v in shells.values()]
            axis.errorbar(
                [labels.index(k) for k in shells],
                middle,
                yerr=[np.zeros(len(high)), high],
                marker=marker,
                linestyle=line,
                color=color,
                capsize=3,
                label=f"{who}, {grid}",
            )
    axis.set_xticks(
        range(len(labels)),
        [
            l.removesuffix("mm").removesuffix("mm+") + ("+" if l.endswith("+") else "")
            for l in labels
        ],
    )
    axis.set_yscale("log")
    plain_ticks(axis)
    axis.set_xlabel("distance from the source (mm)")
    axis.set_ylabel("relative L2 error (%), median to 95th percentile")
    axis.grid(True, which="both", alpha=0.3)
    figure.legend(
        *axis.get_legend_handles_labels(), fontsize=8, ncols=2, loc="outside upper center"
    )
    return save(figure, path)
