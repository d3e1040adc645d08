"""Trajectories from the exact solution, kept in HDF5: named by a hash of all that decides them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from physics_hybrid.problems.burgers.data.trajectories import SPLITS, Trajectories
from physics_hybrid.problems.burgers.exact import InitialStates, exact_means
from physics_hybrid.reading import open_h5
from physics_hybrid.writing import STORED, create_h5

#: Trajectories that are made between two looks at the progress.
PART = 16


@dataclass(frozen=True)
class Generated:
    """All that decides a set: seed and split of the initial states, and what is kept of them."""

    split: str
    count: int
    seed: int
    nu: float
    dt: float
    frames: int
    cells: int

    @property
    def times(self) -> list[float]:
        return [round(k * self.dt, 10) for k in range(self.frames)]

    @property
    def states(self) -> InitialStates:
        return InitialStates(self.count, [self.seed, SPLITS.index(self.split)])

    @property
    def largest(self) -> float:
        """|u| at the start, in the middle of cells: later it only falls."""
        middles = (np.arange(self.cells) + 0.5) / self.cells
        return float(np.abs(self.states(middles)).max())

    def path(self, folder: Path) -> Path:
        """data/burgers_test_256_128_1f0c2e77.h5: other settings, other file."""
        settings = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return folder / f"burgers_{self.split}_{self.cells}_{self.count}_{digest}.h5"

    def solve(self, progress: bool = True) -> NDArray[np.float32]:
        """(count, frames, cells)."""
        states, u = self.states, np.empty((self.count, self.frames, self.cells), np.float32)
        title = f"exact solutions, {self.split}"
        with tqdm(total=self.count, unit="trajectory", desc=title, disable=not progress) as bar:
            for first in range(0, self.count, PART):
                numbers = range(first, min(first + PART, self.count))
                u[numbers.start : numbers.stop] = exact_means(
                    states.rows(numbers), self.nu, self.cells, self.times
                )
                bar.update(len(numbers))
        return u


def generated(settings: Generated, folder: Path) -> Trajectories:
    """The set from its file, which is made first where it is not there.

    Raises
    ------
    ValueError
        Settings that the exact solution is unproven for.
    FileError
        The file is damaged, or holds something else than its name says.
    OSError
        It cannot be written.
    """
    path = settings.path(folder)
    if not path.exists():
        u = settings.solve()
        with create_h5(path) as file:
            file.create_dataset("u", data=u, chunks=(1, *u.shape[1:]), **STORED)
            file.attrs["settings"] = np.bytes_(json.dumps(asdict(settings), sort_keys=True))
    with open_h5(path) as file:
        stored = file.dataset("u")
        if stored.shape != (settings.count, settings.frames, settings.cells):
            raise stored.error(f"has shape {stored.shape}: delete the file, it is made again")
        u = stored[()]
    return Trajectories(
        u=torch.from_numpy(u),
        dt=settings.dt,
        nu=torch.full((settings.count,), settings.nu),
        names=tuple(f"{settings.split}-{settings.nu:g}-{i}" for i in range(settings.count)),
    )
