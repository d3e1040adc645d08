"""Do certificates hold? Random bodies, sources, ends, tensors and deliberately bad fields.

    python -m physics_hybrid.problems.potential.evidence.certificates --cases 1000 --out FILE.jsonl

Each case is held against finite elements on voxels `FINER` times smaller along every axis: their
distance from a field is at most the field's error, so that a bound below it is wrong, and an
effectivity is rather too large than too small. Goes on where it was stopped; --table prints what
the page says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.certificate import Mismatch, one_of
from physics_hybrid.problems.potential.certify.current import Currents
from physics_hybrid.problems.potential.certify.interval import interval, split
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.solve import solve_elements
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import solve

#: How many times smaller the voxels of the truth are, along every axis.
FINER = 8

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
    if ends.floating:
        return pieces == np.argmax(sizes)
    return np.isin(pieces, np.setdiff1d(pieces[[0, -1]], [0]))


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
    fine = split(conductor, FINER)
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
        error = error_of(found, operator, truth)
        out[name] = {"bound": found.bound, "error": error, "effectivity": found.bound / error}
    patch = random_patch(random, conductor)
    between = interval(conductor, source, patch, on="voxels", phi=fields["bad"][0][None])
    exact = _mean(truth, patch, conductor)
    out["interval"] = {
        "low": float(between.low),
        "high": float(between.high),
        "truth": exact,
        "holds": bool(between.low <= exact <= between.high),
    }
    return out


def error_of(found: Mismatch, operator: ElementOperator, truth: Tensor) -> float:
    """Energy norm of v less the truth on the finer grid, W^(1/2)."""
    v = _finer(found.flux.nodes)
    d, h, w = operator.sigma.shape[2:]
    for form in found.flux.closed:
        near = dataclasses.replace(form, spacing=form.spacing / FINER, shape=(d, h, w))
        v = v + _finer(form.cutoff_at_nodes) * near.at_nodes
    away = torch.where(operator.in_tissue[0], truth - v, 0.0)
    return float((away * operator(away[None])[0]).sum()) ** 0.5


def _finer(nodes: Tensor) -> Tensor:
    """A trilinear function on the finer nodes."""
    size = [(n - 1) * FINER + 1 for n in nodes.shape]
    out = F.interpolate(nodes[None, None], size=size, mode="trilinear", align_corners=True)
    return out[0, 0]


def _mean(truth: Tensor, patch: Tensor, conductor: Conductor) -> float:
    """Mean of the truth over a patch, less that over all tissue where nothing fixes a constant."""

    def over(voxels: Tensor) -> float:
        """Over all fine voxels of some voxels."""
        many = voxels
        for axis in range(3):
            many = many.repeat_interleave(FINER, dim=axis)
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


def read(path: Path) -> list[dict[str, Any]]:
    """The cases of a file; a line that was cut off is left out."""
    cases = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            cases.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return cases


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("certificates.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of what there is")
    choice = parser.parse_args()
    if choice.table:
        print(table(read(choice.out)))
        return
    torch.set_num_threads(1)
    done = {case["seed"] for case in read(choice.out)}
    with choice.out.open("a") as file:
        for seed in range(choice.cases):
            if seed in done:
                continue
            file.write(json.dumps(run_case(seed)) + "\n")
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    main()
