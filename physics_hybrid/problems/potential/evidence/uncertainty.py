"""What sampling uncertain conductivities costs, and whether its bounds and intervals hold.

On a limb, twice: voltages of a ring of electrodes for a current through two patches of skin, held
to plain Monte Carlo, sample by sample; and the lead fields of all electrodes for dipoles in muscle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.door.body import Limb
from physics_hybrid.problems.potential.door.quantities import LeadFieldAt, Quantity, Voltage
from physics_hybrid.problems.potential.door.sources import Patch
from physics_hybrid.problems.potential.door.uncertainty import Uncertainty, uncertainty
from physics_hybrid.problems.potential.door.uncertainty_files import intervals, prefix_of, shares
from physics_hybrid.problems.potential.evidence.door import CPU, skin
from physics_hybrid.problems.potential.uncertain.distributions import Distribution, LogNormal
from physics_hybrid.report.markdown import table
from physics_hybrid.report.plots import pyplot, save
from physics_hybrid.run.provenance import surroundings

#: Standard deviation over mean of every tissue, the muscle's along and across apart.
CV = 0.3
SPREAD: dict[str, Distribution] = {
    name: LogNormal(cv=CV) for name in ("skin", "fat", "muscle.along", "muscle.across", "bone")
}
LEVEL = 0.95
#: What plain solves resolve, over the largest value: voltages to their tolerance; lead fields are
#: kept in float32, and dipoles are differences of them.
RESOLVED, RESOLVED_LEAD = 1e-8, 1e-6
#: Dipoles in muscle, A m along the limb.
DIPOLES, MOMENT = 4, 1e-9
#: Reduced samples of another seed, whose interval is held to plain ones, for each of these.
INDEPENDENT = 8


def measure(grid: Grid, samples: int, few: int, figure: Path | None) -> dict[str, Any]:
    """All figures as JSON. samples : of the voltages, by both methods. few : plain samples of the
    lead fields, which are solved for each electrode."""
    limb = Limb.random(0, grid)
    asked = _voltages(limb)
    uncertainty(limb, SPREAD, asked, samples=2, tolerance=0.5, progress=False)  # warms up
    found: dict[str, Any] = {"grid": list(grid), "cv": CV, **surroundings(CPU)}
    reduced = _timed(limb, asked, samples)
    plain = _timed(limb, asked, samples, method="plain")
    found["voltages"] = _held(reduced, plain, RESOLVED)
    other = _timed(limb, asked, INDEPENDENT * samples, seed=1)
    found["coverage"] = {
        "samples": samples,
        "same": _coverage(reduced, plain),
        "independent": _coverage(other, plain),
        "independent_samples": INDEPENDENT * samples,
    }
    lead = _timed(limb, _lead_fields(limb), samples)
    beside = _timed(limb, _lead_fields(limb), few, method="plain")
    found["lead_fields"] = _held(lead, beside, RESOLVED_LEAD)
    if figure is not None:
        picture(reduced, plain, figure)
    return found


def _timed(limb: Limb, asked: Quantity, samples: int, **how: Any) -> Uncertainty:
    return uncertainty(limb, SPREAD, asked, samples=samples, progress=False, **how)


def _voltages(limb: Limb) -> Voltage:
    """Of all electrodes against their mean: a current in and out through patches at both ends."""
    d, h, w = limb.extent
    size = 2.5 * float(limb.spacing[1:].max())
    ends = limb.nearest([[0.1 * d, 0, w / 2], [0.9 * d, h, w / 2]])
    first, last = (Patch(place, size) for place in ends)
    return Voltage(first, skin(limb), returns=last, reference="average")


def _lead_fields(limb: Limb) -> LeadFieldAt:
    """Of all electrodes, for dipoles along the limb in muscle."""
    assert limb.labels is not None
    muscle = np.argwhere(limb.labels == 3)
    middle = muscle[np.abs(muscle[:, 0] - limb.shape[0] / 2) < limb.shape[0] / 5]
    chosen = np.random.default_rng(0).choice(len(middle), DIPOLES, replace=False)
    places = (middle[chosen] + 0.5) * limb.spacing
    return LeadFieldAt(skin(limb), places, moments=(MOMENT, 0, 0), reference="average")


def _held(reduced: Uncertainty, plain: Uncertainty, resolved: float) -> dict[str, Any]:
    """Seconds of both, and the bounds beside the errors that plain solves show.

    resolved : by plain solves, over the largest value."""
    assert reduced.bound is not None
    count = len(plain.samples)
    error = np.abs(reduced.samples[:count] - plain.samples)
    bound, sd = reduced.bound[:count], reduced.sd
    model = reduced.model
    assert model is not None
    pairs = model[0]
    # an error that a plain solve does not resolve says nothing of a bound
    seen = error > resolved * np.abs(plain.samples).max()
    return {
        "samples": len(reduced.samples),
        "values": int(np.prod(reduced.samples.shape[1:])),
        "electrodes": reduced.samples.shape[-1],
        "tissues": list(reduced.names),
        "seconds": reduced.seconds,
        "processor_seconds": reduced.processor_seconds,
        "solves": reduced.solves,
        "bases": [len(pairs.loads), len(pairs.functionals)],
        "groups": len(pairs.loads.network.groups),
        "worst_bound_over_sd": float((reduced.bound / sd).max()),
        "worst_error_over_sd": float((error / sd).max()),
        "broken": int((seen & (error > bound)).sum()),
        "effectivity": float(np.median(bound[seen] / error[seen])) if seen.any() else None,
        "spread": float(np.median(sd / np.abs(reduced.samples).mean(axis=0))),
        "plain_samples": count,
        "plain_seconds": plain.seconds,
        "plain_processor_seconds": plain.processor_seconds,
        "plain_solves": plain.solves,
        "sobol": _mean_shares(reduced),
    }


def _mean_shares(reduced: Uncertainty) -> dict[str, float]:
    """First-order indices, the mean over all values."""
    first = reduced.sobol.reshape(len(reduced.names), -1)
    return {name: float(np.nanmean(row)) for name, row in zip(reduced.names, first, strict=True)}


def _coverage(reduced: Uncertainty, plain: Uncertainty) -> dict[str, float]:
    """The share of plain samples in the intervals of reduced ones, of every value."""
    low, high = reduced.interval(LEVEL)
    share = ((plain.samples >= low) & (plain.samples <= high)).mean(axis=0)
    return {
        "least": float(share.min()),
        "mean": float(share.mean()),
        "most": float(share.max()),
    }


def picture(reduced: Uncertainty, plain: Uncertainty, path: Path) -> Path:
    """Intervals with plain ones beside them, shares, and every error under its bound."""
    plt = pyplot()
    figure = plt.figure(figsize=(11.5, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    top, bottom = left.subplots(2, 1, sharex=True)
    intervals(top, reduced)
    scale, _ = prefix_of(reduced.samples)
    place = np.arange(reduced.mean.size)
    for edge in plain.interval(LEVEL):
        top.plot(place, edge.ravel() / scale, "_", color="#4c72b0", ms=5, mew=1.4)
    top.plot([], [], "_", color="#4c72b0", label=f"{LEVEL:.0%} of plain samples")
    top.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    shares(bottom, reduced)
    bottom.set_xlabel("electrode")
    _under_their_bounds(right.subplots(), reduced, plain)
    return save(figure, path)


def _under_their_bounds(axis: Any, reduced: Uncertainty, plain: Uncertainty) -> None:
    """The error of every value of every sample, over the standard deviation, and its bound."""
    assert reduced.bound is not None
    error = (np.abs(reduced.samples - plain.samples) / reduced.sd).ravel()
    bound = (reduced.bound / reduced.sd).ravel()
    axis.loglog(bound, error.clip(1e-9), ".", ms=1.5, alpha=0.4, color="0.3", rasterized=True)
    edges = np.array([bound.min(), bound.max()])
    axis.plot(edges, edges, color="#c44e52", lw=1.2)
    axis.text(edges[1], edges[1], "error = bound ", color="#c44e52", ha="right", va="bottom")
    axis.set(xlabel="bound / standard deviation", ylabel="true error / standard deviation")
    floor = RESOLVED * float((np.abs(plain.samples).max() / reduced.sd).max())
    axis.axhspan(1e-9, floor, color="0.92", zorder=0)
    said = {"fontsize": 8, "color": "0.2", "va": "bottom", "ha": "right", "zorder": 5}
    box = {"facecolor": "0.92", "edgecolor": "none", "pad": 1.5}  # dots lie behind it
    axis.text(edges[1], 1.2e-9, "below what plain solves resolve", bbox=box, **said)


def tables(found: dict[str, Any]) -> str:
    """Markdown of `measure`."""
    rows = []
    both = (found["voltages"], found["lead_fields"])
    for what, cell in ROWS.items():
        rows.append([what, *(cell(part) for part in both)])
    grid = name_of(tuple(found["grid"]))
    heads = ["", f"voltages, {both[0]['values']}", f"lead fields, {both[1]['values']}"]
    same, other = found["coverage"]["same"], found["coverage"]["independent"]
    covered = table(
        [f"{LEVEL:.0%} intervals of the reduced basis hold", "least", "mean", "most"],
        [
            ["plain samples at the same conductivities", *map(_share, same.values())],
            ["plain samples of another seed", *map(_share, other.values())],
        ],
    )
    return (
        f"{table(heads, rows)}\n\n{covered}\n\nLimb 0 at {grid}; every tissue lognormal with cv"
        f" {found['cv']:g}, muscle along and across apart; seconds of one processor unless by the"
        f" clock, on a machine that did other things, too; {found['hardware']}; commit"
        f" {found['commit'][:10]}, torch {found['torch']}, {found['date']}. Least, mean and most"
        f" over the electrodes; the intervals of another seed are of"
        f" {found['coverage']['independent_samples']:,} reduced samples."
    )


def _share(value: float) -> str:
    return f"{value:.1%}"


def _seconds_of_plain(part: dict[str, Any]) -> str:
    """For as many samples as the reduced basis has."""
    whole = part["plain_processor_seconds"] * part["samples"] / part["plain_samples"]
    if part["plain_samples"] == part["samples"]:
        return f"{whole:.0f}"
    return f"{whole:.0f} (from {part['plain_samples']} samples)"


def _effectivity(part: dict[str, Any]) -> str:
    return "none seen" if part["effectivity"] is None else f"{part['effectivity']:.0f}"


#: What a row says, and how.
ROWS = {
    "samples": lambda part: str(part["samples"]),
    "s": lambda part: f"{part['processor_seconds']:.1f}",
    "s by the clock": lambda part: f"{part['seconds']:.1f}",
    "solves": lambda part: str(part["solves"]),
    "solutions of a load, of a functional": lambda part: ", ".join(map(str, part["bases"])),
    "plain, s": _seconds_of_plain,
    "largest bound over the standard deviation": lambda part: f"{part['worst_bound_over_sd']:.2%}",
    "largest true error over it": lambda part: f"{part['worst_error_over_sd']:.2%}",
    "errors above their bound": lambda part: str(part["broken"]),
    "bound over true error, median": _effectivity,
}


def one_thread() -> None:
    """Seconds of one processor are those of one thread."""
    torch.set_num_threads(1)
