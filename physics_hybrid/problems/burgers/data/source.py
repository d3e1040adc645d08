"""Where trajectories come from: made when they are first asked for, or a user's file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from physics_hybrid.problems.burgers.data.generate import Generated, generated
from physics_hybrid.problems.burgers.data.trajectories import Trajectories, joined


class Source(Protocol):
    """Trajectories by split."""

    @property
    def own(self) -> bool:
        """Whether they are a user's."""

    @property
    def statistics(self) -> dict[str, Any]:
        """Time between frames, cells, viscosities, the largest |u|: what a model is made for."""

    @property
    def frames(self) -> int:
        """Of a trajectory."""

    def split(self, name: str) -> Trajectories: ...


@dataclass(frozen=True)
class Made:
    """From the exact solution; a set for each split and viscosity, in a file each.

    sets : by split. folder : of the files.
    """

    sets: dict[str, list[Generated]]
    folder: Path
    own: bool = False

    @cached_property
    def statistics(self) -> dict[str, Any]:
        first = self.sets["train"][0]
        nu = [settings.nu for settings in self.sets["train"]]
        return {"dt": first.dt, "points": first.cells, "nu": nu, "largest": first.largest}

    @property
    def frames(self) -> int:
        return self.sets["train"][0].frames

    def split(self, name: str) -> Trajectories:
        return joined([generated(settings, self.folder) for settings in self.sets[name]])


@dataclass(frozen=True)
class Read:
    """From a file, read when the problem is opened."""

    splits: dict[str, Trajectories]
    own: bool = True

    @cached_property
    def statistics(self) -> dict[str, Any]:
        known = self.splits["train"]
        nu = sorted({round(v, 10) for v in known.nu.tolist()})
        largest = float(known.u.abs().max())
        return {"dt": known.dt, "points": known.cells, "nu": nu, "largest": largest}

    @property
    def frames(self) -> int:
        return self.splits["train"].frames

    def split(self, name: str) -> Trajectories:
        return self.splits[name]
