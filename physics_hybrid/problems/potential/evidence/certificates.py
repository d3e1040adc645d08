"""Do certificates hold? Random bodies, sources, ends, tensors and deliberately bad fields.

Each case is held against finite elements on voxels `FINER` times smaller along every axis: their
distance from a field is at most the field's error, so that a bound below it is wrong, and an
effectivity is rather too large than too small.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from physics_hybrid.evidence.bench import configuration
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.bodies.limb import LimbDistribution
from physics_hybrid.problems.potential.certify import certify
from physics_hybrid.problems.potential.certify.body import Body, split
from physics_hybrid.problems.potential.certify.certificate import Mismatch, one_of
from physics_hybrid.problems.potential.certify.current import Currents
from physics_hybrid.problems.potential.certify.interval import interval
from physics_hybrid.problems.potential.certify.shapes import prolonged
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.solve import solve_elements
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.run.provenance import surroundings

#: How many times smaller the voxels of the truth are, along every axis.
FINER = 8

#: Voxels along every axis: a node so near an electrode is none to compare at.
NEAR = 0.15

#: Key of the limbs that costs and widths are measured on.
SEED = 1

#: Half-width that is asked for, as a share of the voltage: 1 %.
WANTED = 0.01

#: What is done to a field to make it bad.
BAD = ("scaled", "noisy", "zero", "smooth", "of another place")


def random_body(random: np.random.Generator) -> Conductor:
    """Blocks or single voxels of tissue, up to 60 times apart in sigma, with holes of air."""
    grid = tuple(int(n) for n in random.integers(4, 7, 3))
    components = int(random.choice([1, 3, 6]))
    size = int(random.integers(1, 4))
    blocks = tuple(-(-n // size) for n in grid)
    sigma = np.exp(random.uniform(np.log(0.02), np.log(1.2), (1, *blocks)))
    if components == 3:
        sigma = sigma * random.uniform(0.2, 1.0, (3, *blocks))
    if components == 6:
        sigma = _oblique(random, sigma)
    for axis in (1, 2, 3):
        sigma = np.repeat(sigma, size, axis=axis)
    sigma = sigma[:, : grid[0], : grid[1], : grid[2]]
    kind = str(random.choice(["grounded", "robin", "sink", "pair"]))
    ends = Ends(kind, float(random.uniform(5, 200)) if kind == "robin" else None)
    sigma = sigma * _tissue(random, grid, ends)
    spacing = random.uniform(0.001, 0.005, 3)
    return Conductor(torch.from_numpy(sigma)[None], torch.from_numpy(spacing)[None], ends)


def _oblique(random: np.random.Generator, sigma: np.ndarray) -> np.ndarray:
    """Fibres of any direction, up to five times the conductivity along them. (6, ...)"""
    direction = random.standard_normal((3, *sigma.shape[1:]))
    direction /= np.linalg.norm(direction, axis=0)
    more = random.uniform(0, 4) * sigma[0]
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    return np.stack([sigma[0] * (a == b) + more * direction[a] * direction[b] for a, b in pairs])


def _tissue(random: np.random.Generator, grid: tuple[int, ...], ends: Ends) -> np.ndarray:
    """Where there is tissue: what is joined to an end, or the largest piece."""
    tissue = random.random(grid) > random.choice([0.0, 0.1, 0.3])
    pieces, count = ndimage.label(tissue)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = [np.argmax(sizes)] if ends.floating else np.setdiff1d(pieces[[0, -1]], [0])
    joined: np.ndarray = np.isin(pieces, kept)
    return joined


def random_source(random: np.random.Generator, conductor: Conductor) -> PointSource:
    """1 mA at any place of the tissue that is 0.06 voxels or more from a face."""
    tissue = conductor.tissue[0].nonzero().numpy()

    def place() -> Tensor:
        """One point, m."""
        voxel = tissue[random.integers(len(tissue))]
        return torch.from_numpy(voxel + random.uniform(0.06, 0.94, 3))[None] * conductor.spacing

    one, other = place(), None
    while conductor.ends.kind == "pair" and (other is None or _near(one, other, conductor)):
        other = place()
    return PointSource(one, torch.tensor([1e-3], dtype=torch.float64), other)


def _near(one: Tensor, other: Tensor, conductor: Conductor) -> bool:
    return bool(((one - other) / conductor.spacing).abs().max() < 2)


def random_patch(random: np.random.Generator, conductor: Conductor) -> Tensor:
    """The tissue in a box of up to 3 voxels a side, with some skin."""
    tissue = conductor.tissue[0]
    while True:
        patch = torch.zeros_like(tissue)
        corner = [int(random.integers(n)) for n in conductor.shape]
        patch[tuple(slice(i, i + int(random.integers(1, 4))) for i in corner)] = True
        patch &= tissue
        if bool(patch.any()):
            return patch


def spoiled(how: str, phi: Tensor, conductor: Conductor, random: np.random.Generator) -> Tensor:
    """A bad field (D, H, W)."""
    tissue = conductor.tissue[0]
    if how == "scaled":
        return phi * float(random.uniform(0.5, 2))
    if how == "noisy":
        noise = torch.from_numpy(random.standard_normal(tuple(phi.shape)))
        return (phi + noise * phi.abs().mean() * float(random.uniform(0.01, 1))) * tissue
    if how == "zero":
        return phi * 0
    if how == "smooth":
        return F.avg_pool3d(phi[None, None], 3, 1, 1, count_include_pad=False)[0, 0] * tissue
    return solve(conductor, random_source(random, conductor), warn=False).phi[0]


def run_case(seed: int) -> dict[str, Any]:
    """All about one random case."""
    random = np.random.default_rng(seed)
    conductor = random_body(random)
    source = random_source(random, conductor)
    factor = finer_of(conductor, source)
    fine = split(conductor, factor)
    truth = solve_elements(fine, source, tolerance=1e-7).nodes[0]
    phi = solve(conductor, source, tolerance=float(random.choice([1e-3, 1e-8])), warn=False).phi[0]
    elements = solve_elements(conductor, source).nodes[0]
    how = str(random.choice(BAD))
    fields = {"solver": (phi, None), "elements": (phi, elements)}
    fields["bad"] = (spoiled(how, phi, conductor, random), None)
    currents = Currents.of(Body.of(conductor))
    operator = ElementOperator.of(fine)
    out: dict[str, Any] = {
        "seed": seed,
        "grid": conductor.shape,
        "ends": conductor.ends.kind,
        "components": int(conductor.sigma.shape[1]),
        "bad": how,
    }
    for name, (field, nodes) in fields.items():
        found = Mismatch.of(currents, one_of(source, 0), field, nodes)
        error = error_of(found, operator, truth, factor)
        out[name] = {"bound": found.bound, "error": error, "effectivity": found.bound / error}
    patch = random_patch(random, conductor)
    between = interval(conductor, source, patch, on="voxels", phi=fields["bad"][0][None])
    exact = _mean(truth, patch, conductor, factor)
    out["interval"] = {
        "low": float(between.low),
        "high": float(between.high),
        "truth": exact,
        "holds": bool(between.low <= exact <= between.high),
    }
    return out


def finer_of(conductor: Conductor, source: PointSource) -> int:
    """`FINER`, or more where a node would lie so near an electrode that elements give it the value
    of 0.1 voxel away: there they are not what is to be compared.
    """
    factor = FINER
    while any(
        bool(((at - at.round()).abs() < NEAR).all(dim=1).any())
        for at in (factor * one.point / conductor.spacing for one in source.electrodes)
    ):
        factor += 1
    return factor


def error_of(found: Mismatch, operator: ElementOperator, truth: Tensor, factor: int) -> float:
    """Energy norm of v less the truth on the finer grid, W^(1/2)."""
    v = prolonged(found.flux.nodes, factor)
    for form in found.flux.closed:
        v = form.finer(factor).added_to(v)
    away = torch.where(operator.in_tissue[0], truth - v, 0.0)
    return math.sqrt(float((away * operator(away[None])[0]).sum()))


def _mean(truth: Tensor, patch: Tensor, conductor: Conductor, factor: int) -> float:
    """Mean of the truth over a patch, less that over all tissue where nothing fixes a constant."""

    def over(voxels: Tensor) -> float:
        """Over all fine voxels of some voxels."""
        many = voxels
        for axis in range(3):
            many = many.repeat_interleave(factor, dim=axis)
        values = truth
        for axis in range(3):
            n = values.shape[axis] - 1
            values = (values.narrow(axis, 0, n) + values.narrow(axis, 1, n)) / 2
        return float(values[many].mean())

    if conductor.ends.floating:
        return over(patch) - over(conductor.tissue[0])
    return over(patch)


def table(cases: list[dict[str, Any]]) -> str:
    """What the page says."""
    lines = [
        "| field | cases | bound below the error | effectivity: least | median | 90 % | most |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {
        "solver": "finite volumes, cheap potential",
        "elements": "finite elements",
        "bad": "deliberately bad",
    }
    for key, name in names.items():
        values = sorted(case[key]["effectivity"] for case in cases)
        lines.append(
            f"| {name} | {len(values)} | {sum(v < 1 for v in values)} | {values[0]:.3f} |"
            f" {statistics.median(values):.2f} | {values[int(0.9 * len(values))]:.2f} |"
            f" {values[-1]:.2f} |"
        )
    held = sum(case["interval"]["holds"] for case in cases)
    lines.append("")
    lines.append(
        f"Intervals of an electrode, from the bad field: {held} of {len(cases)} hold the voltage."
        f" Truth: finite elements on voxels {FINER} times smaller along each axis."
    )
    return "\n".join(lines)


def sweep(cases: int, path: Path) -> list[dict[str, Any]]:
    """The first cases; those in the file `path` (a line of JSON each) are not run again."""
    found = {case["seed"]: case for case in read(path)}
    torch.set_num_threads(1)
    with path.open("a") as file:
        for seed in range(cases):
            if seed in found:
                continue
            found[seed] = run_case(seed)
            file.write(json.dumps(found[seed]) + "\n")
            file.flush()
    return [found[seed] for seed in sorted(found)]


def read(path: Path) -> list[dict[str, Any]]:
    """The cases of a file; a line that was cut off is left out."""
    cases = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            cases.append(json.loads(line))
    return cases


def limb(number: int, grid: Grid) -> tuple[Conductor, PointSource]:
    """One of the generator's limbs with its electrode, as configured."""
    limbs = LimbDistribution.of(configuration([])["data"]["phantom"])
    body = limbs.draw(SEED, number).voxelise(grid)
    sigma, spacing = torch.from_numpy(body.sigma).double(), torch.from_numpy(body.spacing).double()
    point = torch.from_numpy(body.source_point).double()[None]
    current = torch.tensor([body.current], dtype=torch.float64)
    return Conductor(sigma[None], spacing[None]), PointSource(point, current)


def costs(grids: list[Grid]) -> list[dict[str, Any]]:
    """Seconds of CPU of a solve and of its certificates, the median of seven in turn."""
    rows = []
    torch.set_num_threads(1)
    for grid in grids:
        conductor, source = limb(0, grid)
        phi = solve(conductor, source, warn=False).phi
        work: dict[str, Callable[[], Any]] = {
            "solve": partial(solve, conductor, source, warn=False),
            "cheap": partial(certify, conductor, source, phi, sharp=False),
            "sharp": partial(certify, conductor, source, phi),
        }
        took: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(7):
            for name, call in work.items():
                took[name].append(_seconds(call))
        seconds = {name: statistics.median(each) for name, each in took.items()}
        found = {name: work[name]() for name in ("cheap", "sharp")}
        relative = {name: float(one.relative[0]) for name, one in found.items()}
        rows.append({"grid": name_of(grid), "seconds": seconds, "relative": relative})
    return rows


def _seconds(call: Callable[[], Any]) -> float:
    """Of CPU."""
    start = time.process_time()
    call()
    return time.process_time() - start


def width(number: int, grid: Grid, side: int) -> dict[str, Any]:
    """Half-widths of the interval for a cube of tissue in a limb, `side` voxels long, more than 5
    voxels from the electrode, from the solver's field: on its voxels, and where `WANTED` is asked
    for. Seconds of CPU of both."""
    conductor, source = limb(number, grid)
    patch, distance = _cube(number, conductor, source, side)
    start = time.process_time()
    found = interval(conductor, source, patch, on="voxels")
    plain = time.process_time()
    narrow = interval(conductor, source, patch, on="voxels", to=WANTED)
    took = {"plain": plain - start, "narrow": time.process_time() - plain}
    sigma = conductor.sigma[0, 0]
    at = tuple(conductor.voxel_of(source.point)[0].tolist())
    return {
        "voltage": float(found.middle),
        "half_width": float(found.half_width / found.middle.abs()),
        "narrow_voltage": float(narrow.middle),
        "narrow_half_width": float(narrow.half_width / narrow.middle.abs()),
        "seconds": took,
        "distance_voxels": distance,
        "sigma_patch": float(sigma[patch].mean()),
        "sigma_source": float(sigma[at]),
    }


def _cube(
    number: int, conductor: Conductor, source: PointSource, side: int
) -> tuple[Tensor, float]:
    """A cube of tissue anywhere, and how many voxels it is from the electrode."""
    random = np.random.default_rng(number)
    tissue = conductor.tissue[0]
    while True:
        patch = torch.zeros_like(tissue)
        corner = tissue.nonzero()[int(random.integers(int(tissue.sum())))].tolist()
        patch[tuple(slice(i, i + side) for i in corner)] = True
        places = (patch & tissue).nonzero()
        distance = ((places + 0.5) - source.point / conductor.spacing).norm(dim=1).min()
        if bool((patch & ~tissue).any()) or len(places) < side**3 or distance <= 5:
            continue
        return patch, float(distance)


def grids_of(quick: bool) -> list[Grid]:
    """What costs are measured on."""
    grids: list[Grid] = [(24, 12, 12), (48, 24, 24), (96, 48, 48)]
    return grids[:2] if quick else grids


def report(cases: list[dict[str, Any]], quick: bool) -> dict[str, Any]:
    """All that the page says."""
    grids = grids_of(quick)
    return {
        "cases": cases,
        "costs": costs(grids),
        "widths": [width(number, grids[-1], 5) for number in range(4 if quick else 8)],
        "widths_grid": name_of(grids[-1]),
        **surroundings(torch.device("cpu")),
    }


def costs_table(costs: list[dict[str, Any]]) -> str:
    """What the page says of `costs`."""
    lines = [
        "| grid | solve, s of CPU | cheap certificate | its relative bound | with slopes |"
        " its relative bound |",
        "|---|---|---|---|---|---|",
    ]
    for row in costs:
        seconds, relative = row["seconds"], row["relative"]
        cheap, sharp = (seconds[name] / seconds["solve"] for name in ("cheap", "sharp"))
        lines.append(
            f"| {row['grid']} | {seconds['solve']:.3f} | {100 * cheap:.0f} % of it |"
            f" {relative['cheap']:.3f} | {100 * sharp:.0f} % of it | {relative['sharp']:.3f} |"
        )
    return "\n".join(lines)


def tables(about: dict[str, Any]) -> str:
    """What the page says of a report."""
    plain, narrow = (
        sorted(row[key] for row in about["widths"]) for key in ("half_width", "narrow_half_width")
    )
    took = {
        name: statistics.median(row["seconds"][name] for row in about["widths"])
        for name in ("plain", "narrow")
    }
    reached = sum(width <= WANTED for width in narrow)
    widths_text = (
        f"Mean voltage of a cube of 5 voxels a side in tissue, 5 voxels or more from the electrode,"
        f" {len(plain)} limbs at {about['widths_grid']}: half-width of the guaranteed interval"
        f" {100 * plain[0]:.2g} % at best, {100 * statistics.median(plain):.2g} % in the median"
        f" ({took['plain']:.2g} s of CPU). With `to={WANTED}` {100 * narrow[0]:.2g} % at best,"
        f" {100 * statistics.median(narrow):.2g} % in the median, {100 * narrow[-1]:.2g} % at"
        f" worst, {100 * WANTED:g} % or less in {reached} of them ({took['narrow']:.2g} s of CPU)."
    )
    origin = f"{about['hardware']}; commit {about['commit'][:10]}, {about['date']}."
    parts = [table(about["cases"]), costs_table(about["costs"]), widths_text, origin]
    return "\n\n".join(parts)
