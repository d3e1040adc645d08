"""The generated set: states of all families, simulated.

Sample i is number i // 5 of family i % 5, a function of (seed, i) and of the box alone, so that
the first thousand of a larger set are the smaller one. Parts are files of their own, written whole:
a killed generation goes on with the part it was at.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from physics_hybrid.problems.flavour.physics.box3d import convert
from physics_hybrid.problems.flavour.physics.families import FAMILIES, draw
from physics_hybrid.problems.flavour.physics.simulation import Box, simulate

#: Simulations in a part, and those that run together: two stay in the cache of one core.
PART = 20
TOGETHER = 2

#: The box of the shipped set: float32 and a longer step change a result by less than its noise.
SHIPPED = Box(precision="float32", step=1 / 3)

Part = dict[str, NDArray[np.float64]]


def family_of(sample: int) -> str:
    return FAMILIES[sample % len(FAMILIES)]


def generate(samples: int, folder: Path, box: Box, seed: int = 0, fused: bool = True) -> list[Path]:
    """Make the parts of a set that are not in `folder` yet; the paths of all.

    Raises
    ------
    ValueError
        The parts there were made with another box or seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _same_settings(folder / "settings.txt", f"seed={seed} {box}")
    paths = []
    for first in range(0, samples, PART):
        path = folder / f"part_{first // PART:05d}.npz"
        if not path.exists():
            numbers = range(first, first + PART)
            temporary = path.with_suffix(".new.npz")
            np.savez(temporary, **simulated(numbers, box, seed, fused))  # type: ignore[arg-type]
            os.replace(temporary, path)
            print(f"{first + PART} of {samples}", flush=True)
        paths.append(path)
    return paths


def _same_settings(path: Path, settings: str) -> None:
    if not path.exists():
        path.write_text(settings)
    elif path.read_text() != settings:
        raise ValueError(
            f"{path.parent} holds parts of another set ({path.read_text()}): choose another folder,"
            " or delete it"
        )


def simulated(numbers: range, box: Box, seed: int, fused: bool) -> Part:
    """F_init, F_true (B, 6, 4), drift (B, 3), sample (B,) of some samples."""
    F = torch.stack([draw(family_of(i), seed, i // len(FAMILIES)) for i in numbers])
    found = convert(F, box.rule)
    size = found.plus + found.minus
    # those of like duration run together
    order = torch.argsort(box.duration(found.plus / size, found.minus / size))
    increment, drift = torch.zeros_like(F), torch.zeros(len(F), 3, dtype=torch.float64)
    for rows in torch.split(order, TOGETHER):
        outcome = simulate(F[rows], box, [(seed, numbers[int(i)]) for i in rows], fused)
        increment[rows], drift[rows] = outcome.increment, outcome.drift
    return {
        "F_init": F.numpy(),
        "F_true": (F + increment).numpy(),
        "drift": drift.numpy(),
        "sample": np.array(numbers, dtype=np.float64),
    }


def together(paths: list[Path]) -> Part:
    """All parts as one."""
    parts = [dict(np.load(path)) for path in paths]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def described(box: Box, seed: int) -> dict[str, str]:
    """Where a set comes from, for the attributes of its file."""
    settings = " ".join(f"{k}={v}" for k, v in dataclasses.asdict(box).items())
    return {"box": settings, "seed": str(seed), "torch": str(torch.__version__)}


def write_set(parts: list[Path], path: Path, box: Box, seed: int) -> None:
    """The set as one HDF5 file, readable as a user's: dirname is the family."""
    from physics_hybrid.problems.flavour.data.files import write

    everything = together(parts)
    numbers = [int(i) for i in everything.pop("sample")]
    write(
        path,
        {
            **{key: values.astype(np.float32) for key, values in everything.items()},
            "dirname": [family_of(i) for i in numbers],
            "sim_id": [str(i) for i in numbers],
        },
        described(box, seed),
    )
