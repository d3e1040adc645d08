"""What the page gets: a scene -> sections and numbers, a bound, a file. Knows no HTTP.

    explorer.field(message)     three sections, scale, engine, residual
    explorer.bound(message)     what the field is off by at most
    explorer.export(message)    the field as a file

Each message says the whole scene, so that nothing is lost where one is refused, and two pages do
not disturb each other. The last fields are kept.
"""

from __future__ import annotations

import base64
import math
import tempfile
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from physics_hybrid.problems.potential.door.field import Field
from physics_hybrid.problems.potential.door.formats import WRITERS
from physics_hybrid.problems.potential.door.places import in_frame
from physics_hybrid.problems.potential.door.solving import solve
from physics_hybrid.problems.potential.explorer.scene import Place, Refused, Scene
from physics_hybrid.problems.potential.explorer.sections import MILLI, Planes, Section
from physics_hybrid.problems.potential.explorer.specimen import Specimen

#: Fields that are kept.
KEPT = 4
#: Lines come in whole numbers of this length, m: a hundredth of a millimetre.
FINE = 1e-5


@dataclass
class Solved:
    """A field, its planes; warnings of the solver; seconds of the clock and of this thread."""

    field: Field
    planes: Planes
    notes: list[str]
    seconds: float
    bound: dict[str, Any] | None = None


@dataclass
class Explorer:
    """specimen : what is explored. first : where the electrode is at first, m of the grid.
    current : A. asked : further arguments of `solve`.
    """

    specimen: Specimen
    first: Place
    current: float = 1e-3
    asked: dict[str, Any] = field(default_factory=dict)
    _kept: OrderedDict[tuple[Any, ...], Solved] = field(default_factory=OrderedDict)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def about(self) -> dict[str, Any]:
        """Body, tissues, axes, the first scene, kinds of files."""
        first = {"at": list(self.first), "returns": None, "current": self.current}
        first |= {"sigma": list(self.specimen.sigma), "cut": list(self.first)}
        return {**self.specimen.about(), "scene": first, "exports": [*WRITERS]}

    def field(self, message: object) -> dict[str, Any]:
        """Sections and numbers of a scene.

        Raises
        ------
        Refused, ValueError
            A scene that is none; an electrode in air; what `solve` refuses.
        SolverError (a RuntimeError)
            The tolerance was not reached.
        """
        scene = Scene.of(message, self.specimen.names)
        began, processor = time.perf_counter(), time.thread_time()
        with self._one:
            waited = time.perf_counter() - began
            solved, fresh = self._solved(scene)
            drawn = time.perf_counter()
            sections = solved.planes.at(scene.cut, self.specimen.sections())
            return {
                "sections": [_as_json(section) for section in sections],
                "scale": _scale_of(solved.planes),
                "numbers": self._numbers(solved.field),
                "here": self._here(solved.field, scene.cut),
                "notes": solved.notes,
                "seconds": {
                    "waited": waited,
                    "solve": solved.seconds if fresh else 0.0,
                    "draw": time.perf_counter() - drawn,
                    "processor": time.thread_time() - processor,
                },
            }

    def bound(self, message: object) -> dict[str, Any]:
        """What the field of a scene is off by at most, in energy; why there is none, where there is
        none.

        Raises
        ------
        Refused, ValueError, SolverError
            As `field`.
        """
        scene = Scene.of(message, self.specimen.names)
        with self._one:
            solved, _ = self._solved(scene)
            if solved.bound is None:
                solved.bound = _bound_of(solved.field)
            return solved.bound

    def export(self, message: object) -> tuple[str, bytes]:
        """The field of a scene as a file: its name, and what is in it. `message` has the scene, and
        in `kind` a suffix that `Field.save` knows.

        Raises
        ------
        Refused, ValueError, SolverError
            As `field`; another suffix.
        """
        if not isinstance(message, Mapping) or {*message} != {"scene", "kind"}:
            raise Refused("an export must be an object with scene and kind")
        kind = message["kind"]
        if not isinstance(kind, str) or kind not in WRITERS:
            raise Refused(f"the kind of a file must be one of {', '.join(WRITERS)}; got {kind!r}")
        scene = Scene.of(message["scene"], self.specimen.names)
        with self._one, tempfile.TemporaryDirectory() as folder:
            solved, _ = self._solved(scene)
            path = solved.field.save(Path(folder) / f"potential{kind}")
            return path.name, path.read_bytes()

    def _solved(self, scene: Scene) -> tuple[Solved, bool]:
        """The field of a scene, and whether it was solved just now."""
        key = scene.solved_for
        fresh = key not in self._kept
        if fresh:
            self._kept[key] = self._solve(scene)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key], fresh

    def _solve(self, scene: Scene) -> Solved:
        began = time.perf_counter()
        body = self.specimen.body(scene.sigma)
        self._in_tissue(scene.at, "electrode", "at")
        if scene.returns is not None:
            self._in_tissue(scene.returns, "return electrode", "returns")
        with _heard() as notes:
            found = solve(
                body,
                np.array(scene.at),
                scene.current,
                returns=None if scene.returns is None else np.array(scene.returns),
                progress=False,
                **self.asked,
            )
        return Solved(found, Planes(found), notes, time.perf_counter() - began)

    def _in_tissue(self, place: Place, name: str, key: str) -> None:
        """Raises Refused for an electrode in air, with the nearest tissue."""
        body = self.specimen.original
        point = np.array(place)
        if body.in_tissue(point):
            return
        near = body.nearest(point)
        d, h, w = (float(x) for x in near)
        away = 1e3 * math.dist(near, point)
        outside = not ((point >= 0) & (point <= body.extent)).all()
        where = "outside the picture" if outside else "in air, where no current flows"
        raise Refused(
            f"The {name} would lie {where}, {away:.3g} mm from the nearest tissue.", (d, h, w), key
        )

    def _numbers(self, found: Field) -> dict[str, Any]:
        """What the page says of a field, mV."""
        volts = MILLI * found.array()[0][found.body.tissue]
        return {
            "engine": found.engine,
            "why": found.why,
            "ends": found.ends.kind,
            "iterations": found.iterations,
            "residual": found.residual,
            "tolerance": found.tolerance,
            "lowest": float(volts.min()),
            "highest": float(volts.max()),
        }

    def _here(self, found: Field, cut: Place) -> dict[str, Any]:
        """phi, |E| and |J| in the voxel of a place, its tissue and its place in the world."""
        body = found.body
        voxel = tuple(
            int(v) for v in np.clip(np.array(cut) / body.spacing, 0, np.array(body.shape) - 1)
        )
        label = int(self.specimen.labels[voxel]) if body.tissue[voxel] else None
        names = {tissue.label: tissue.name for tissue in self.specimen.tissues}
        world = None
        if body.affine is not None:
            world = [float(x) for x in in_frame(body, np.array([cut]), "world")[0]]
        return {
            "voxel": list(voxel),
            "tissue": "air" if label is None else names[label],
            "millivolts": MILLI * float(found.array()[0][voxel]),
            "E": float(np.linalg.norm(np.asarray(found.E)[voxel])),
            "J": float(np.linalg.norm(np.asarray(found.J)[voxel])),
            "world": world,
        }


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Warnings as texts; no page of another thread is solved meanwhile."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    notes += dict.fromkeys(str(warning.message) for warning in caught)


def _bound_of(found: Field) -> dict[str, Any]:
    """The cheap certificate, or why there is none; seconds of the clock and of this thread."""
    began, processor = time.perf_counter(), time.thread_time()
    try:
        relative: float | None = float(found.certify(sharp=False).relative[0])
        why = ""
    except ValueError as error:
        relative, why = None, str(error)
    return {
        "relative": relative,
        "why": why,
        "seconds": time.perf_counter() - began,
        "processor": time.thread_time() - processor,
    }


def _packed(values: np.ndarray) -> str:
    """Bytes of an array as the page reads them."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _lines(lines: list[np.ndarray]) -> list[list[int]]:
    """Lines as across, up, across, up ... in hundredths of a millimetre."""
    return [np.round(line[:, ::-1] / FINE).astype(int).ravel().tolist() for line in lines]


def _as_json(section: Section) -> dict[str, Any]:
    return {
        "normal": section.normal,
        "up": section.up,
        "across": section.across,
        "cut": section.cut,
        "points": list(section.shades.shape),
        "shades": _packed(section.shades),
        "millivolts": _packed((MILLI * section.volts).astype("<f4")),
        "equipotentials": _lines(section.equipotentials),
        "outlines": _lines(section.outlines),
        "voxels": list(section.J.shape[:2]),
        "J": _packed(section.J.astype("<f4")),
    }


def _scale_of(planes: Planes) -> dict[str, Any]:
    """Colours and where levels stand among them."""
    levels = planes.scale.levels
    return {
        "colours": _packed(planes.scale.table()),
        "levels": levels.tolist(),
        "places": planes.scale.places(levels).tolist() if len(levels) else [],
    }
