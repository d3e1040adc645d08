"""What the door costs and how right it is: lead fields, refining, a head of millions of voxels."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.door.body import Body, Limb
from physics_hybrid.problems.potential.door.field import Field
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
LOOSE, TIGHT = 2e-2, 1e-8
#: Relative residuals of the curve of refining.
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
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
    _, looking, _ = _seconds(lambda: tight(places))
    _, dipoles, _ = _seconds(lambda: tight.dipoles(places, [1e-9, 0, 0]))
    few = places[:16]
    solved, solving, _ = _seconds(lambda: tight.solved(few))
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
    """Iterations and seconds to each tolerance: from nothing, and from two guesses."""
    best = solve(limb, limb.electrode, tolerance=1e-12, progress=False)
    guesses: dict[str, Field | np.ndarray | None] = {
        "nothing": None,
        "half the grid": coarse(limb),
        "a residual of 1e-3": solve(limb, limb.electrode, tolerance=1e-3, progress=False),
    }
    rows = []
    for name, guess in guesses.items():
        start = guess.phi if isinstance(guess, Field) else guess
        away = 1.0 if start is None else _apart(start, best.phi)
        for tolerance in TOLERANCES:
            field = solve(limb, limb.electrode, start=start, tolerance=tolerance, progress=False)
            rows.append(
                {
                    "from": name,
                    "guess_error": away,
                    "tolerance": tolerance,
                    "iterations": field.iterations,
                    "seconds": field.seconds,
                    "error": _apart(field.phi, best.phi),
                }
            )
    return rows


def _apart(phi: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(phi - truth) / np.linalg.norm(truth))


def coarse(limb: Limb) -> np.ndarray:
    """The field of the same limb on a grid of half as many voxels along every side, read at the
    voxel centres of this one: what a guess of another resolution is. (D, H, W)
    """
    d, h, w = (n // 2 for n in limb.shape)
    half = Limb.random(0, (d, h, w))
    field = solve(half, half.nearest(limb.electrode), tolerance=1e-6, progress=False)
    guess = np.zeros(limb.shape)
    voxels = np.argwhere(limb.tissue)
    places = (voxels + 0.5) * limb.spacing
    guess[tuple(voxels.T)] = field.at(half.nearest(places))
    return guess


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
        f"{lead['electrodes']} electrodes at {grid}, s": _three(lead["seconds"]),
        "the same, s of one processor": _three(lead["processor_seconds"]),
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
        figures[f"a head of {head['voxels'] / 1e6:.2f} million voxels, s"] = _three(head["seconds"])
        figures["the same, GB at its peak"] = _three(head["gigabytes"])
    first = table(["what", "figure"], figures.items())
    return f"{first}\n\n{_refined(found['refine'])}\n\n{_about(found)}"


def _refined(rows: list[dict[str, Any]]) -> str:
    """Iterations and seconds by tolerance, a column for each guess."""
    names = list(dict.fromkeys(row["from"] for row in rows))
    errors = {row["from"]: row["guess_error"] for row in rows}
    heads = [f"from {n}" + (f" ({errors[n]:.1%} off)" if n != "nothing" else "") for n in names]
    body = []
    for tolerance in TOLERANCES:
        cells = [f"{tolerance:.0e}"]
        for name in names:
            (row,) = (r for r in rows if r["from"] == name and r["tolerance"] == tolerance)
            cells.append(f"{row['iterations']} ({row['seconds']:.2f} s)")
        body.append(cells)
    return table(["tolerance", *heads], body)


def _three(value: float) -> str:
    return f"{value:.3g}"


def _about(found: dict[str, Any]) -> str:
    return (
        f"Limb 0 at {name_of(tuple(found['grid']))}; {found['hardware']}; commit"
        f" {found['commit'][:10]}, torch {found['torch']}, {found['date']}."
    )
