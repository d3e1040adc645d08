"""The hybrid step on the square as a learning problem, opened: as in one dimension, but for where
trajectories come from and how they are drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from physics_hybrid.problem import Row
from physics_hybrid.problems.burgers.data.trajectories import SPLITS, Trajectories
from physics_hybrid.problems.burgers.learning import Evolution, Tested, Viscosity, growth_of
from physics_hybrid.problems.burgers.plane.exact import FINE, exact_means, initial_states
from physics_hybrid.problems.burgers.plane.step import PlaneStep, PlaneStepper
from physics_hybrid.problems.burgers.rivals import Persistence, SteadyState
from physics_hybrid.problems.burgers.step import refuse_beyond
from physics_hybrid.reading import open_h5
from physics_hybrid.writing import STORED, create_h5

#: States that are moved together.
TOGETHER = 8


@dataclass(frozen=True)
class Squares:
    """Trajectories on the square from the exact solution, kept in HDF5. Implements `Source`.

    count : by split. nu : viscosity. cells : along an edge.
    """

    count: dict[str, int]
    seed: int
    nu: float
    dt: float
    frames: int
    cells: int
    folder: Path
    own: bool = False

    @property
    def statistics(self) -> dict[str, Any]:
        return {"dt": self.dt, "points": self.cells**2, "nu": [self.nu]}

    def path(self, name: str) -> Path:
        """Other settings, other file."""
        settings = {**asdict(self), "folder": "", "count": self.count[name], "split": name}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        return self.folder / f"plane_{name}_{self.cells}_{self.count[name]}_{digest}.h5"

    def split(self, name: str) -> Trajectories:
        """The velocity stands where one dimension has the viscosity.

        Raises
        ------
        FileError
            The file is damaged.
        OSError
            It cannot be written.
        """
        path, count = self.path(name), self.count[name]
        if not path.exists():
            self._make(path, name)
        with open_h5(path) as file:
            u, velocity = (torch.from_numpy(file.dataset(key)[()]) for key in ("u", "velocity"))
        names = tuple(f"{name}-{i}" for i in range(count))
        return Trajectories(u=u.flatten(2), dt=self.dt, nu=velocity, names=names)

    def _make(self, path: Path, name: str) -> None:
        seed = [self.seed, SPLITS.index(name), 2]
        states, velocity = initial_states(self.count[name], FINE * self.cells, seed)
        times = [k * self.dt for k in range(self.frames)]
        u = np.empty((len(states), self.frames, self.cells, self.cells), np.float32)
        for k in range(0, len(states), TOGETHER):
            part = slice(k, k + TOGETHER)
            u[part] = exact_means(states[part], velocity[part], self.nu, self.cells, times)
        with create_h5(path) as file:
            file.create_dataset("u", data=u, chunks=(1, *u.shape[1:]), **STORED)
            file.create_dataset("velocity", data=velocity.astype(np.float32), **STORED)


@dataclass(frozen=True)
class Square(Viscosity):
    """Test trajectories on the square."""

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path:
        """First, last and predicted last state of the sample of median error."""
        from physics_hybrid.problems.burgers import figures

        sample = self.trajectories.rows([index])
        path = cast(Any, model).path(sample.u[:, 0], sample.nu, sample.frames - 1)
        side = math.isqrt(sample.cells)
        first, last, predicted = (
            u.view(side, side).cpu() for u in (sample.u[0, 0], sample.u[0, -1], path[0, -1])
        )
        title = (
            f"{self.problem.model_name}, median test sample: nRMSE"
            f" {row['nrmse_from_start']:.2g} from t = 0"
        )
        time = (sample.frames - 1) * sample.dt
        return figures.maps(first, last, predicted, time, folder / "maps.png", title)


@dataclass
class PlaneEvolution(Evolution):
    """As `Evolution`, on the square."""

    def check_model(self, model: nn.Module) -> None:
        if not isinstance(model, PlaneStep):
            raise ValueError(f"{type(model).__name__} is no step on a square: choose plane_unet")
        known = self.source.statistics
        refuse_beyond(model.statistics, known["dt"], known["points"], known["nu"])

    def test_sets(self) -> list[Viscosity]:
        self.tested.clear()
        self.larger.clear()
        nu = self.source.statistics["nu"][0]
        known = self.trajectories(self.tested_split)
        return [Square(self, f"nu{nu:g}", known, self.batch_size)]

    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        return {}

    def _figures(self, name: str, batches: list[Tested], folder: Path) -> dict[str, Path]:
        return growth_of(self, name, batches, folder)


def rivals_of(cells: Sequence[int], dt: float, nu: float) -> tuple[dict[str, Any], dict[str, str]]:
    """Contenders by prefix, and who they are."""
    rivals: dict[str, Any] = {"persistence_": Persistence(), "steady_": SteadyState()}
    names = {"persistence_": "persistence", "steady_": "steady state (the mean)"}
    for count in cells:
        rivals[f"stepper{count}_"] = PlaneStepper(count, dt, nu)
        names[f"stepper{count}_"] = f"stepper, {count} x {count} cells"
    return rivals, {**names, "reference_": "reference"}
