"""What the door costs and how right it is: lead fields, refining, a head of millions of voxels."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.door.body import Body, Limb
from physics_hybrid.problems.potential.door.interpolation import Weights
from physics_hybrid.problems.potential.door.lead_field import LeadField, lead_field
from physics_hybrid.problems.potential.door.solving import solve
from physics_hybrid.problems.potential.door.sources import Deposit
from physics_hybrid.problems.potential.physics.solve import solve as solve_finite_volumes
from physics_hybrid.report.markdown import table
from physics_hybrid.run.provenance import peak_memory, surroundings

CPU = torch.device("cpu")
#: Electrodes on the skin: round the limb, and along it.
ROUND, ALONG = 8, 8
#: That a lead field to 1 % is solved to, and the one it is held to.
LOOSE, TIGHT = 2e-2, 1e-7
#: Relative residuals of the curve of refining.
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
#: Relative errors of the fields that are refined: what a network reaches, and a good one.
GUESSES = (0.08, 0.01)
#: Voxels from electrodes, for how far a deposited source is from a point.
FAR = (3, 5, 10)


def measure(grid: Grid, points: int, head: int) -> dict[str, Any]:
    """All figures as JSON. points : that are looked up. head : voxels along its edge; 0: none."""
    limb = Limb.random(0, grid)
    found: dict[str, Any] = {"grid": list(grid), **surroundings(CPU)}
    found["lead_field"] = _lead_field(limb, points)
    found["refine"] = _refine(limb)
    if head:
        found["head"] = _head(head)
    return found


def _seconds(work: Any) -> tuple[Any, float, float]:
    """What work gives, seconds of the clock, and of processors."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - clock, time.process_time() - processor


def skin(limb: Body) -> np.ndarray:
    """Electrodes in rings round a limb, (n, 3) m."""
    d, h, w = limb.extent
    rings = np.linspace(0.3 * d, 0.7 * d, ALONG)
    angles = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    places = [[z, h / 2 + h * np.sin(a), w / 2 + w * np.cos(a)] for z in rings for a in angles]
    return limb.nearest(places)


def _lead_field(limb: Limb, points: int) -> dict[str, Any]:
    electrodes, tissue = skin(limb), limb.tissue
    lead_field(limb, electrodes[:2], tolerance=LOOSE, progress=False)  # warms up
    loose, clock, processor = _seconds(
        lambda: lead_field(limb, electrodes, tolerance=LOOSE, progress=False)
    )
    tight = lead_field(limb, electrodes, tolerance=TIGHT, progress=False)
    off = np.linalg.norm((loose.volts - tight.volts)[tissue], axis=0)
    whole = np.linalg.norm(tight.volts[tissue], axis=0)
    random = np.random.default_rng(0)
    chosen = random.choice(np.argwhere(tissue), points)
    places = limb.nearest((chosen + random.uniform(0.2, 0.8, chosen.shape)) * limb.spacing)
    _, _, looking = _seconds(lambda: tight(places))
    _, _, dipoles = _seconds(lambda: tight.dipoles(places, [1e-9, 0, 0]))
    few = places[:16]
    solved, _, solving = _seconds(lambda: tight.solved(few))
    direct = np.asarray(solve(limb, few, 1.0, tolerance=1e-9, progress=False).at(electrodes))
    return {
        "electrodes": len(electrodes),
        "tolerance": LOOSE,
        "seconds": clock,
        "processor_seconds": processor,
        "error": float((off / whole).max()),
        "look_ups_per_second": points / looking,
        "dipoles_per_second": points / dipoles,
        "solved_per_second": len(few) / solving,
        "against_deposited": _deposited(limb, tight, electrodes, few),
        "solved_against_solve": float(np.abs(solved / direct - 1).max()),
        "look_up_against_solve": _by_distance(limb, tight(few), direct, few, electrodes),
    }


def _deposited(limb: Limb, lead: LeadField, electrodes: np.ndarray, places: np.ndarray) -> float:
    """The largest relative difference of look-ups and solves for the same deposited current."""
    conductor = limb.conductor("grounded")
    weights = Weights.at(conductor, torch.from_numpy(places))
    pairs = zip(weights.voxels.numpy(), weights.values.numpy(), strict=True)
    density = torch.stack([Deposit(v, s).density(conductor) for v, s in pairs])
    phi = solve_finite_volumes(conductor, density, 1e-9).phi
    volts = Weights.at(conductor, torch.from_numpy(electrodes)).of(phi).numpy()
    return float(np.abs(lead(places) / volts - 1).max())


def _by_distance(
    limb: Limb, found: np.ndarray, true: np.ndarray, places: np.ndarray, electrodes: np.ndarray
) -> dict[str, float]:
    """Median relative difference beyond so many voxels between source and electrode."""
    apart = np.linalg.norm((places[:, None] - electrodes) / limb.spacing, axis=-1)
    off = np.abs(found / true - 1)
    return {str(far): float(np.median(off[apart > far])) for far in FAR}


def _refine(limb: Limb) -> list[dict[str, Any]]:
    """Iterations and seconds to each tolerance: from nothing, and from fields that are off."""
    best = solve(limb, limb.electrode, tolerance=1e-12, progress=False).phi
    rows = []
    for off in (1.0, *GUESSES):
        start = None if off == 1.0 else best * (1 + off * wave(limb))
        for tolerance in TOLERANCES:
            asked: dict[str, Any] = {"start": start, "tolerance": tolerance, "progress": False}
            field, _, processor = _seconds(partial(solve, limb, limb.electrode, **asked))
            rows.append(
                {
                    "off": off,
                    "tolerance": tolerance,
                    "iterations": field.iterations,
                    "processor_seconds": processor,
                    "error": float(np.linalg.norm(field.phi - best) / np.linalg.norm(best)),
                }
            )
    return rows


def wave(limb: Body) -> np.ndarray:
    """A smooth error of mean square 1, as a network's factor has it: a wave of one length along the
    limb and half of one across. (D, H, W)
    """
    d, h, w = np.meshgrid(*((np.arange(n) + 0.5) / n for n in limb.shape), indexing="ij")
    wavy = np.cos(2 * np.pi * d + 1) * np.cos(np.pi * h) * np.cos(np.pi * w + 0.5)
    return np.asarray(wavy / np.sqrt((wavy[limb.tissue] ** 2).mean()))


def _head(edge: int) -> dict[str, Any]:
    """A head of spheres in a cube of so many voxels: seconds, and the most memory."""
    axis = (np.arange(edge) + 0.5 - edge / 2) * 0.19 / edge
    r = np.sqrt(sum(c**2 for c in np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)))
    sigma = np.array([0.33, 0.022, 0.33, 0.0])[np.searchsorted([0.080, 0.085, 0.092], r)]
    body = Body(sigma, (0.19 / edge,) * 3)
    places = body.nearest([[0.19, 0.095, 0.03], [0.15, 0.095, 0.17]])
    before = _gigabytes()
    field, clock, processor = _seconds(
        lambda: solve(body, places[0], returns=places[1], tolerance=1e-6, progress=False)
    )
    return {
        "voxels": edge**3,
        "tissue": int(body.tissue.sum()),
        "seconds": clock,
        "processor_seconds": processor,
        "iterations": field.iterations,
        "gigabytes": _gigabytes(),
        "gigabytes_before": before,
    }


def _gigabytes() -> float:
    """The most memory that this process has had."""
    return peak_memory(CPU) / 1e3


def tables(found: dict[str, Any]) -> str:
    """Markdown of `measure`."""
    lead, grid = found["lead_field"], name_of(tuple(found["grid"]))
    figures = {
        f"{lead['electrodes']} electrodes at {grid}, s": _three(lead["processor_seconds"]),
        "these electrodes by the clock, s": _three(lead["seconds"]),
        f"its largest error (tolerance {lead['tolerance']:g})": f"{lead['error']:.2%}",
        "look-ups a second, all electrodes": f"{lead['look_ups_per_second']:,.0f}",
        "dipoles a second, all electrodes": f"{lead['dipoles_per_second']:,.0f}",
        "`solved` a second, all electrodes": _three(lead["solved_per_second"]),
        "look-up against a solve for the same deposit": f"{lead['against_deposited']:.0e}",
        "`solved` against `solve`": f"{lead['solved_against_solve']:.0e}",
    }
    for far, off in lead["look_up_against_solve"].items():
        figures[f"look-up against `solve` beyond {far} voxels, median"] = f"{off:.1%}"
    if "head" in found:
        head = found["head"]
        figures[f"a head of {head['voxels'] / 1e6:.2f} million voxels, s"] = _three(
            head["processor_seconds"]
        )
        figures["the head by the clock, s"] = _three(head["seconds"])
        figures["its memory at the peak, GB"] = _three(head["gigabytes"])
    first = table(["what", "figure"], figures.items())
    return f"{first}\n\n{_refined(found['refine'])}\n\n{_about(found)}"


def _refined(rows: list[dict[str, Any]]) -> str:
    """Iterations and seconds by tolerance, a column for each guess."""
    heads = ["from nothing", *(f"from a field that is {off:.0%} off" for off in GUESSES)]
    body = []
    for tolerance in TOLERANCES:
        found = [row for row in rows if row["tolerance"] == tolerance]
        cells = [f"{row['iterations']} ({row['processor_seconds']:.2f} s)" for row in found]
        body.append([f"{tolerance:.0e}", *cells])
    return table(["relative residual", *heads], body)


def _three(value: float) -> str:
    return f"{value:.3g}"


def _about(found: dict[str, Any]) -> str:
    return (
        "Seconds of one processor, unless by the clock: the machine did other things, too."
        f" Limb 0 at {name_of(tuple(found['grid']))}; {found['hardware']}; commit"
        f" {found['commit'][:10]}, torch {found['torch']}, {found['date']}."
    )
