"""How right the complete electrode model is, and what it costs: exact solutions, seconds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.door.body import Body, Limb
from physics_hybrid.problems.potential.door.electrodes import (
    Electrode,
    ElectrodeSystem,
    electrodes,
)
from physics_hybrid.problems.potential.door.solving import solve
from physics_hybrid.problems.potential.evidence.door import skin
from physics_hybrid.problems.potential.exact.electrodes import (
    disk_on_a_bar,
    driving_strip,
    shunted,
    shunting_strip,
)
from physics_hybrid.problems.potential.physics.electrode_model import impedance, respond
from physics_hybrid.report.markdown import table
from physics_hybrid.report.plots import pyplot, save
from physics_hybrid.run.provenance import surroundings

SIGMA, H = 0.3, 1e-3
#: Voxels in a radius; the bar is six radii wide, and at least so many voxels.
RADII, NARROWEST = (1.0, 1.5, 2.5, 5.0, 10.0), 24
#: Half-widths of strips in voxels of 2 mm, and into how many parts these are split.
STRIPS, SPLITS = (5.0, 5.3, 5.6), (1, 2, 4)
#: Length and depth of the layer that a strip drives, and of the one beside a strip that shunts,
#: in voxels.
LAYER, LONG, DEEP = 40, 80, 16
#: Radii of disks against points, voxels, and how far away these are compared.
SMALL, APART = (1.2, 2.0, 3.0), 24
#: Relative residuals, and how often seconds are taken: the median of these counts.
TOLERANCE, TIMES = 1e-6, 5
#: Radius (m), contact (ohm m^2) of the electrodes whose cost is measured, and how many are many.
RADIUS, FILM, MANY = 0.005, 0.01, 16


def measure(grid: Grid, centres: int) -> dict[str, Any]:
    """All figures as JSON. centres : of disks, drawn in a voxel, for each radius."""
    return {
        "grid": list(grid),
        **surroundings(torch.device("cpu")),
        "disk": [_disk(radius, centres) for radius in RADII],
        "driving": [_driving(half) for half in STRIPS],
        "shunting": [_shunting(half, split) for half in STRIPS for split in SPLITS],
        "points": [_against_points(radius) for radius in SMALL],
        "limb": _on_a_limb(grid),
    }


def _cube(n: int) -> Body:
    return Body(np.full((n, n, n), SIGMA), (H, H, H))


def _resistance(system: ElectrodeSystem) -> float:
    """Between the first two electrodes, ohm."""
    return float(system.transfer((0, 1), (0, 1)))


def _without_edges(system: ElectrodeSystem) -> float:
    """The same, if every face conducted sigma / (h / 2) times the area that is covered, ohm."""
    contacts = system.contacts
    plain = dataclasses.replace(contacts, tissue=contacts.area * SIGMA / (H / 2))
    conductor = system.body.conductor(system.ends)
    Z = impedance(respond(conductor, plain, TOLERANCE), system.ends.floating)
    return float(Z[0, 0] - Z[0, 1] - Z[1, 0] + Z[1, 1])


def _disk(radius: float, centres: int) -> dict[str, Any]:
    """Relative errors of the resistance of Newman's disk on a bar."""
    n = max(NARROWEST, round(6 * radius))
    body, random = _cube(n), np.random.default_rng(0)
    side = n * H
    far = Electrode.rectangle((side, side / 2, side / 2), (side, side))
    exact, bar = disk_on_a_bar(radius * H, side, SIGMA), 1 / (SIGMA * side)
    off, plain = [], []
    for _ in range(centres):
        centre = np.array([0, *(n / 2 + random.uniform(-0.5, 0.5, 2))]) * H
        near = Electrode.disk(centre, radius * H)
        system = electrodes(body, [near, far], tolerance=TOLERANCE, progress=False)
        off.append((_resistance(system) - bar) / exact - 1)
        plain.append((_without_edges(system) - bar) / exact - 1)
    return {"voxels": radius, "errors": off, "without_edges": plain}


def _driving(half: float) -> dict[str, Any]:
    """Of a strip that drives current into a layer."""
    n, length = LAYER, LAYER * H
    body = Body(np.full((n, n, 2), SIGMA), (H, H, H))
    strip = Electrode.rectangle((length / 2, 0, H), (2 * half * H, 2 * H))
    far = Electrode.rectangle((length / 2, length, H), (length, 2 * H))
    system = electrodes(body, [strip, far], tolerance=TOLERANCE, progress=False)
    found = _resistance(system) * 2 * H - 1 / SIGMA
    return {"voxels": half, "error": found / driving_strip(half * H, length, SIGMA) - 1}


def _shunting(half: float, split: int) -> dict[str, Any]:
    """Of a strip without net current on a layer through which one flows."""
    phi, exact, shorter, true = shunting(half, split)
    off = float(np.linalg.norm(phi - exact) / np.linalg.norm(exact))
    return {"voxels": half * split, "field": off, "shorter": shorter / true - 1}


def shunting(half: float, split: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    """phi of 1 mA and of the exact solution, V (D, H), and how much shorter the layer is, m, as
    found and as it is. half : width in voxels of 2 mm, of which each is split."""
    h = 2e-3 / split
    n, depth = LONG * split, DEEP * split
    body = Body(np.full((n, depth, 2), SIGMA), (h, h, h))
    long, deep = n * h, depth * h
    ends = [Electrode.rectangle((d, deep / 2, h), (deep, 2 * h)) for d in (0, long)]
    strip = Electrode.rectangle((long / 2, 0, h), (4e-3 * half, 2 * h))
    system = electrodes(body, [*ends, strip], tolerance=TOLERANCE, progress=False)
    field = system.solve(currents={0: 1e-3, 1: -1e-3})
    section = SIGMA * deep * 2 * h
    x, y = (np.arange(n) + 0.5) * h - long / 2, (np.arange(depth) + 0.5) * h
    exact = 1e-3 / section * shunting_strip(x[:, None], y, 2e-3 * half, deep)
    phi = field.phi[:, :, 0] - field.voltages[2]
    return phi, exact, long - _resistance(system) * section, shunted(2e-3 * half, deep)


def _against_points(radius: float) -> dict[str, Any]:
    """Far from a pair of disks: voltages against those of a pair of points in the same voxels."""
    body = Body(np.full((2 * APART, APART, APART), SIGMA), (H, H, H))
    at = np.array([APART // 2 + 0.5, 0, APART // 2 + 0.5]) * H
    back = at + np.array([APART, 0, 0]) * H
    pair = [Electrode.disk(place, radius * H) for place in (at, back)]
    system = electrodes(body, pair, tolerance=TOLERANCE, progress=False)
    field = system.solve(currents=[1e-3, -1e-3])
    inner = np.array([0, 0.5 * H, 0])
    points = solve(body, at + inner, returns=back + inner, tolerance=1e-8, progress=False)
    places = body.extent * np.array([[0.1, 0.9, 0.5], [0.3, 0.7, 0.9], [0.5, 0.3, 0.1]])
    off = np.diff(field.at(places)) / np.diff(points.at(places)) - 1
    return {"voxels": radius, "error": float(np.abs(off).max())}


def _on_a_limb(grid: Grid) -> dict[str, Any]:
    """Charge, reciprocity, and seconds of a processor beside those of points."""
    limb = Limb.random(0, grid)
    places = skin(limb)[:: 64 // MANY]
    disks = [Electrode.disk(place, RADIUS, FILM) for place in places]
    asked: dict[str, Any] = {"tolerance": TOLERANCE, "progress": False}
    few = _seconds(
        lambda: electrodes(limb, [disks[0], disks[-1]], **asked).solve(currents=[1e-3, -1e-3]),
        lambda: solve(limb, places[0], returns=places[-1], **asked),
    )
    many = _seconds(
        lambda: electrodes(limb, disks, **asked),
        lambda: solve(limb, places[:-1], returns=places[-1], **asked),
    )
    system = electrodes(limb, disks, **asked)
    tight = electrodes(limb, disks, tolerance=1e-11, progress=False).impedance
    pattern = np.eye(MANY)[:-1] - np.eye(MANY)[1:]
    field = system.solve(currents=1e-3 * pattern)
    Z = system.impedance
    return {
        "electrodes": MANY,
        "tolerance": TOLERANCE,
        "pair_seconds": few[0],
        "point_pair_seconds": few[1],
        "many_seconds": many[0],
        "many_points_seconds": many[1],
        "delivered": field.defect,
        "reciprocity": float(np.abs(Z - Z.T).max() / np.abs(Z).max()),
        "least_eigenvalue": float(np.sort(np.linalg.eigvalsh(Z))[1]),
        "largest_eigenvalue": float(np.linalg.eigvalsh(Z).max()),
        "impedance_error": float(np.abs(Z - tight).max() / np.abs(tight).max()),
    }


def _seconds(*works: Callable[[], Any]) -> list[float]:
    """Of a processor, of each kind of work in turn: medians, after one that warms up."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(TIMES + 1):
        for work, seconds in zip(works, taken, strict=True):
            began = time.process_time()
            work()
            if turn:
                seconds.append(time.process_time() - began)
    return [float(np.median(seconds)) for seconds in taken]


def tables(found: dict[str, Any]) -> str:
    """Markdown of `measure`."""
    disks = [
        [
            f"{row['voxels']:g}",
            f"{np.abs(row['errors']).max():.2%}",
            f"{np.mean(row['errors']):+.2%}",
            f"{np.mean(row['without_edges']):+.1%}",
        ]
        for row in found["disk"]
    ]
    first = table(
        ["voxels a radius", "largest error of R", "mean", "mean, edges as other faces"], disks
    )
    limb = found["limb"]
    figures = {}
    for row in found["driving"]:
        name = f"a strip that drives, half-width {row['voxels']:g} voxels: error of R"
        figures[name] = f"{row['error']:+.2%}"
    for row in found["shunting"]:
        figures[f"a strip that shunts, {row['voxels']:g} voxels: error of phi"] = (
            f"{row['field']:.3%}"
        )
    for row in found["points"]:
        figures[f"disks of {row['voxels']:g} voxels a radius against points, {APART} apart"] = (
            f"{row['error']:.2%}"
        )
    cost = limb["pair_seconds"] / limb["point_pair_seconds"]
    more = limb["many_seconds"] / limb["many_points_seconds"]
    figures |= {
        "delivered current against what was asked for": f"{limb['delivered']:.0e}",
        "Z against its transpose": f"{limb['reciprocity']:.0e}",
        "least eigenvalue of Z (but that of the constants), ohm": f"{limb['least_eigenvalue']:.0f}",
        f"error of Z at a tolerance of {limb['tolerance']:g}": f"{limb['impedance_error']:.0e}",
        "a pair of disks, s": f"{limb['pair_seconds']:.2f}",
        "a pair of points, s": f"{limb['point_pair_seconds']:.2f}",
        "the one over the other": f"{cost:.2f}",
        f"{limb['electrodes']} disks, s": f"{limb['many_seconds']:.2f}",
        f"{limb['electrodes'] - 1} pairs of points, s": f"{limb['many_points_seconds']:.2f}",
        "the one over the other, of many": f"{more:.2f}",
    }
    about = (
        f"Disks: {len(found['disk'][0]['errors'])} centres drawn in a voxel each. Seconds of one"
        f" processor, medians of {TIMES}, tolerance {limb['tolerance']:g}, limb 0 at"
        f" {name_of(tuple(found['grid']))}; {found['hardware']}; commit {found['commit'][:10]},"
        f" torch {found['torch']}, {found['date']}."
    )
    return f"{first}\n\n{table(['what', 'figure'], figures.items())}\n\n{about}"


def draw(found: dict[str, Any], path: Path) -> None:
    """Errors of disks by voxels a radius, and the field of a strip that shunts beside the exact
    one."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 3.6), layout="constrained", gridspec_kw={"width_ratios": (1, 1.7)}
    )
    voxels = [row["voxels"] for row in found["disk"]]
    largest = [np.abs(row["errors"]).max() for row in found["disk"]]
    plain = [np.abs(row["without_edges"]).max() for row in found["disk"]]
    left.loglog(voxels, plain, "s--", color="0.5", label="edges as other faces")
    left.loglog(voxels, largest, "o-", color="C0", label="as it is")
    left.axhline(0.01, color="0.7", lw=0.8)
    left.set_xticks(voxels, [f"{v:g}" for v in voxels])
    left.minorticks_off()
    left.set(xlabel="voxels a radius", ylabel="largest error of R", title="Newman's disk")
    left.legend(frameon=False)
    _draw_strip(right)
    save(figure, path, dpi=130)


def _draw_strip(axis: Any) -> None:
    """Lines of equal potential, found and exact."""
    half, split = STRIPS[0], 2
    phi, exact, _, _ = shunting(half, split)
    step = 2.0 / split
    x = (np.arange(phi.shape[0]) + 0.5) * step - phi.shape[0] * step / 2
    y = (np.arange(phi.shape[1]) + 0.5) * step
    levels = np.linspace(-0.5, 0.5, 27) * np.ptp(exact)
    axis.contour(x, y, 1e3 * phi.T, 1e3 * levels, colors="C0", linewidths=1.2, linestyles="-")
    axis.contour(x, y, 1e3 * exact.T, 1e3 * levels, colors="k", linewidths=0.9, linestyles=":")
    axis.plot([-2 * half, 2 * half], [0, 0], color="C3", lw=5, solid_capstyle="butt")
    axis.set(xlim=(-45, 45), ylim=(phi.shape[1] * step, -1), aspect="equal")
    axis.set(xlabel="mm", ylabel="depth (mm)", title="A strip that shunts: found, and exact (dots)")
