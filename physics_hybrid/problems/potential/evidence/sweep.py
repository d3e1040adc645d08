"""Bodies x electrodes: one solve a row, one record a row, one table.

    OUTPUT/sweep.json            what is swept, fixed by the first start
    OUTPUT/rows/BODY_000.json    1 A through electrode 0: volts at all electrodes, V/A; or an error
    OUTPUT/table.md .csv .json   `sweep_table`

A row is solved by itself: it has the same bits whoever solves it, alone or in an array of jobs, in
one go or after a kill. Its record is whole or not there. A body or an electrode that fails is a row
with its error, and the others go on.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import math
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.checks import among, at_least
from physics_hybrid.cluster.signals import Requeue, Signals
from physics_hybrid.evidence.study import slug
from physics_hybrid.problems.potential.bodies.label_formats import (
    files_of,
    suffix_of,
    volumes_in,
)
from physics_hybrid.problems.potential.door.body import Body, Limb
from physics_hybrid.problems.potential.door.formats import WRITERS
from physics_hybrid.problems.potential.door.places import in_metres
from physics_hybrid.problems.potential.door.solving import solve
from physics_hybrid.problems.potential.door.sources import Patch
from physics_hybrid.run.provenance import surroundings
from physics_hybrid.training.order import share
from physics_hybrid.writing import write_text

#: The exit status of a part that a signal ended after it had finished a row (as of a training).
SAVED = 85

#: Places as shares of each body's box.
SHARE = "share"

#: What of the options says nothing about the rows.
ASIDE = ("file", "output", "part", "parts", "retry", "table")

#: What of the options is about files of bodies, and means nothing for random limbs.
OF_FILES = (
    "tissues",
    "spacing",
    "long_axis",
    "slices",
    "nan_is_air",
    "air_below",
    "keep_largest",
    "tensors",
    "fibres",
)

#: Reads a file of the body with the options: `verbs.solve.read_body`.
Read = Callable[[Path, dict[str, Any]], Body]


@dataclass(frozen=True)
class Subject:
    """A body of the sweep.

    name : of its rows. path : of a file; None for a limb of this seed.
    electrodes : places as given; error : why there are none.
    """

    name: str
    path: Path | None
    seed: int
    electrodes: tuple[tuple[float, ...], ...]
    error: str | None = None

    @property
    def rows(self) -> list[Row]:
        """One where the electrodes cannot be read, for the error."""
        return [Row(self, k) for k in range(max(1, len(self.electrodes)))]


@dataclass(frozen=True)
class Row:
    """One electrode of one body."""

    subject: Subject
    electrode: int

    @property
    def name(self) -> str:
        return f"{self.subject.name}_{self.electrode:03d}"


@dataclass(frozen=True)
class Sweep:
    """All rows, and what they are computed with (keys of conf/sweep.yaml)."""

    subjects: tuple[Subject, ...]
    given: dict[str, Any]
    output: Path

    @classmethod
    def of(cls, given: dict[str, Any], listed: Callable[[str], list[list[float]]]) -> Sweep:
        """What the options say. listed : reads a file of electrodes.

        Raises
        ------
        ValueError
            No bodies, two of one name, no electrodes, no output; a file of electrodes for all
            bodies that cannot be read.
        """
        if given["output"] is None:
            raise ValueError("--output FOLDER is needed: where the records go")
        at_least(1, "--parts", given["parts"])
        if not 0 <= given["part"] < given["parts"]:
            raise ValueError(
                f"--part must be 0 to {given['parts'] - 1}, of --parts {given['parts']}; got"
                f" {given['part']}"
            )
        if given["fields"] is not None:
            among(WRITERS, "--fields", given["fields"])
        subjects = [_with_electrodes(one, given, listed) for one in _bodies(given)]
        return cls(tuple(subjects), given, Path(given["output"]).expanduser())

    @property
    def rows(self) -> list[Row]:
        """Body by body."""
        return [row for subject in self.subjects for row in subject.rows]

    @property
    def against_returns(self) -> bool:
        """Whether voltages are against the electrode that takes the current out."""
        return self.given["returns"] is not None and self.given["patch"] is not None

    @property
    def reciprocal(self) -> bool:
        """Whether the voltages are symmetric: not those against a mean, where a point takes the
        current out.
        """
        return self.given["returns"] is None or self.against_returns

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, as JSON has it; where the bodies lie is left out."""
        kept = {key: value for key, value in self.given.items() if key not in ASIDE}
        bodies = {s.name: [list(e) for e in s.electrodes] for s in self.subjects}
        found: dict[str, Any] = json.loads(json.dumps({**kept, "bodies": bodies}))
        return found

    def record(self, row: Row) -> Path:
        return self.output / "rows" / f"{row.name}.json"

    def read(self, row: Row) -> dict[str, Any] | None:
        """What is known of a row; None where nothing is."""
        path = self.record(row)
        if not path.exists():
            return None
        return _json(path, ("error", "electrode", "about"), "its row is solved again")

    def fix(self) -> None:
        """Write down what is swept. Raises ValueError where OUTPUT holds rows of another sweep.

        Electrodes of a body that had none, since their file could not be read, may come later.
        """
        path, settings = self.output / "sweep.json", self.settings()
        before = settings
        if path.exists():
            before = _json(path, ("bodies",), "it is written again")
            late = {name for name, places in before["bodies"].items() if not places}
            now = settings["bodies"]
            before["bodies"] |= {name: now[name] for name in late if name in now}
        else:
            write_text(path, json.dumps(settings, indent=1) + "\n")
        for key in dict.fromkeys([*before, *settings]):
            if before.get(key) != settings.get(key):
                was, now = (_shown(which.get(key)) for which in (before, settings))
                raise ValueError(
                    f"{path}: the rows there were begun with {key} = {was}, and now it is {now}:"
                    " use another --output"
                )
        if before is not settings:
            write_text(path, json.dumps(settings, indent=1) + "\n")


def _json(path: Path, keys: Sequence[str], remedy: str) -> dict[str, Any]:
    """A file of ours with such keys. Raises ValueError where it is damaged, and says what deleting
    it brings.
    """
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {*keys} <= {*found}:
        raise ValueError(f"{path} is damaged: delete it, and {remedy}")
    return found


def _shown(value: Any) -> str:
    text = json.dumps(list(value) if isinstance(value, dict) else value)
    return text if len(text) < 200 else f"{text[:200]}..."


def _bodies(given: dict[str, Any]) -> Iterator[Subject]:
    """Subjects without electrodes. Raises ValueError."""
    if (given["file"] is None) == (given["limbs"] is None):
        raise ValueError("FILE (bodies) or --limbs N (random ones) is needed, one of them")
    if given["limbs"] is not None:
        at_least(1, "--limbs", given["limbs"])
        for key in OF_FILES:
            if given[key] not in (None, False):
                name = key.replace("_", "-")
                raise ValueError(f"--{name} says how a file is read, and --limbs has none")
        for seed in range(given["seed"], given["seed"] + given["limbs"]):
            yield Subject(f"limb-{seed:04d}", None, seed, ())
        return
    seen: dict[str, Path] = {}
    for path in _without_tensors(_files(given["file"]), given["tensors"]):
        name = slug(_stem(path))
        if name in seen:
            raise ValueError(f"{seen[name]} and {path} would both be called {name}: rename one")
        seen[name] = path
        yield Subject(name, path, 0, ())


def _files(what: str) -> list[Path]:
    """The files that a word names. Raises ValueError for none."""
    path = Path(what).expanduser()
    if path.is_dir():
        found = list(volumes_in(path))
    elif path.suffix == ".txt":
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
        found = [Path(line).expanduser() for line in lines if line]
    elif glob.has_magic(str(path)) and not path.exists():
        found = [Path(name) for name in sorted(glob.glob(str(path)))]
    else:
        found = [path]
    if not found:
        raise ValueError(f"{what} names no body: a folder, a pattern, a file, or a .txt of files")
    return found


def _without_tensors(files: list[Path], pattern: str | None) -> list[Path]:
    """Files that are bodies: a pattern of names may hold their diffusion images, too."""
    if pattern is None:
        return files
    images = {beside(pattern, Subject("", path, 0, ())) for path in files}
    return [path for path in files if path not in images]


def _stem(path: Path) -> str:
    """The name of a file without its suffix, .nii.gz and all."""
    return path.name[: -len(suffix_of(path) or path.suffix)] or path.name


def beside(pattern: str, subject: Subject) -> Path:
    """A file that belongs to a body: {name} is its own, and then it lies beside it."""
    if "{name}" not in pattern:
        return Path(pattern).expanduser()
    name = subject.name if subject.path is None else _stem(subject.path)
    path = Path(pattern.replace("{name}", name)).expanduser()
    return path if path.is_absolute() or subject.path is None else subject.path.parent / path


def _with_electrodes(
    subject: Subject, given: dict[str, Any], listed: Callable[[str], list[list[float]]]
) -> Subject:
    """A subject with its electrodes, or why it has none. Raises ValueError where no body has any"""
    places = [tuple(place) for place in given["electrode"] or ()]
    pattern = given["electrodes"]
    if pattern is not None:
        try:
            places += [tuple(place) for place in listed(str(beside(pattern, subject)))]
        except (ValueError, OSError) as error:
            if "{name}" not in pattern:
                raise
            return dataclasses.replace(subject, error=str(error))
    if not places:
        raise ValueError("--electrode X Y Z, or --electrodes FILE, is needed")
    return dataclasses.replace(subject, electrodes=tuple(places))


@dataclass(frozen=True)
class _Opened:
    """What was read for the rows of a body, or an error. digest : SHA-256 of its files."""

    ready: _Ready | None
    error: str
    digest: str | None


@dataclass(frozen=True)
class _Ready:
    """A body with its electrodes in m of its grid, (n, 3); those in tissue, (n,)."""

    body: Body
    places: np.ndarray
    asked: np.ndarray
    usable: np.ndarray
    returns: np.ndarray | None
    warned: tuple[str, ...]


def run(sweep: Sweep, read: Read) -> list[str]:
    """Solve what is not there of this part; a line for each row that failed.

    Raises
    ------
    ValueError
        OUTPUT holds rows of another sweep.
    SystemExit
        A signal: 85 where a row was finished, and the same command goes on; else 128 + its number.
    """
    sweep.fix()
    mine = share(sweep.rows, sweep.given["part"], sweep.given["parts"])
    try:
        with Signals(SAVED) as signals:
            return _each(sweep, mine, read, signals)
    except Requeue:
        print("told to leave; the same command goes on", flush=True)
        raise


def _each(sweep: Sweep, mine: list[Row], read: Read, signals: Signals) -> list[str]:
    """Row by row; a line for each that failed. `signals` knows when one is written down."""
    failures, opened = _of_other_files(sweep, mine), dict[str, _Opened]()
    about = surroundings(torch.device("cpu"))
    for number, row in enumerate(mine, start=1):
        print(f"[{number}/{len(mine)}] {row.name}: ", end="", flush=True)
        found = sweep.read(row)
        if found is None or (sweep.given["retry"] and found["error"] is not None):
            if row.subject.name not in opened:  # one body at a time is in memory
                opened = {row.subject.name: _open(sweep, row.subject, read)}
            found = {**_solved(sweep, row, opened[row.subject.name]), "about": about}
            write_text(sweep.record(row), json.dumps(found) + "\n")
            signals.saved = True
            print("done" if found["error"] is None else "FAILED", flush=True)
        else:
            print("finished before", flush=True)
        if found["error"] is not None:
            failures.append(f"{row.name}: {found['error']}")
    return failures


def _of_other_files(sweep: Sweep, rows: list[Row]) -> list[str]:
    """A line for each body of these rows whose files are others than a solved row of it had read,
    and which would be left alone.
    """
    said = []
    for subject in dict.fromkeys(row.subject for row in rows):
        records = (sweep.read(row) for row in rows if row.subject == subject)
        before = {r.get("digest") for r in records if r is not None and r["error"] is None}
        if not before:
            continue
        try:
            now = digest(sweep, subject)
        except OSError:  # the rows that are left will say so
            continue
        if before != {now}:
            said.append(
                f"{subject.name}: its files changed after rows of it were solved: delete"
                f" {sweep.output / 'rows' / subject.name}_*.json, and these are solved again"
            )
    return said


def _open(sweep: Sweep, subject: Subject, read: Read) -> _Opened:
    """A body, read once for all of its rows; or what is wrong with it."""
    if subject.error is not None:
        return _Opened(None, subject.error, None)
    total = None
    try:
        total = digest(sweep, subject)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            body = _body(sweep, subject, read)
            return _Opened(_place(sweep.given, subject, body, caught), "", total)
    except Exception as error:
        return _Opened(None, _said(error), total)


def _body(sweep: Sweep, subject: Subject, read: Read) -> Body:
    if subject.path is None:
        return Limb.random(subject.seed, sweep.given["grid"])
    given = dict(sweep.given)
    if given["tensors"] is not None:
        given["tensors"] = str(beside(given["tensors"], subject))
    return read(subject.path, given)


def _place(given: dict[str, Any], subject: Subject, body: Body, caught: Sequence[Any]) -> _Ready:
    """The electrodes of a subject in its body. Raises ValueError for places of another frame."""
    asked = _metres(body, np.array(subject.electrodes), given["frame"])
    places = body.nearest(asked) if given["nearest"] else asked
    returns = None
    if given["returns"] is not None:
        returns = _metres(body, np.array([given["returns"]]), given["frame"])[0]
        returns = body.nearest(returns) if given["nearest"] else returns
    return _Ready(
        body=body,
        places=places,
        asked=asked,
        usable=body.hold(places),
        returns=returns,
        warned=_texts(caught),
    )


def _texts(caught: Sequence[Any]) -> tuple[str, ...]:
    """What warnings say, each once."""
    return tuple(dict.fromkeys(str(warning.message) for warning in caught))


def _metres(body: Body, places: np.ndarray, frame: str) -> np.ndarray:
    if frame == SHARE:
        return np.asarray(places * body.extent)
    metres = in_metres(body, torch.from_numpy(places.astype(float)), frame, "electrodes")
    return metres.numpy()


def _said(error: Exception) -> str:
    """An error in one line; of one that is no user's the place, too, on standard error."""
    if not isinstance(error, (ValueError, OSError, RuntimeError)):
        traceback.print_exc(file=sys.stderr)
    return " ".join(f"{type(error).__name__}: {error}".split())


def digest(sweep: Sweep, subject: Subject) -> str | None:
    """SHA-256 of the files that make a body; None for a limb. Raises OSError."""
    if subject.path is None:
        return None
    files = files_of(subject.path)
    for key in ("tensors", "tissues"):
        if sweep.given[key] is not None:
            files.append(beside(sweep.given[key], subject))
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()


def _solved(sweep: Sweep, row: Row, opened: _Opened) -> dict[str, Any]:
    """The record of a row: its answer, or its error."""
    subject, began = row.subject, (time.monotonic(), time.process_time())
    known: dict[str, Any] = {
        "body": subject.name,
        "electrode": row.electrode,
        "electrodes": len(subject.electrodes),
        "digest": opened.digest,
        "error": None,
    }
    if opened.ready is None:
        known["error"] = opened.error
    else:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                known |= _answer(sweep, row, opened.ready)
            known["warnings"] = [*opened.ready.warned, *_texts(caught)]
        except Exception as error:
            known["error"] = _said(error)
    clock, processor = time.monotonic() - began[0], time.process_time() - began[1]
    return known | {"seconds": round(clock, 3), "processor_seconds": round(processor, 3)}


def _answer(sweep: Sweep, row: Row, ready: _Ready) -> dict[str, Any]:
    """Solve 1 A through an electrode, and look at all."""
    given, k, body = sweep.given, row.electrode, ready.body
    radius = given["patch"]
    electrode = _electrode(ready.places[k], radius)
    returns = None if ready.returns is None else _electrode(ready.returns, radius)
    asked = {key: given[key] for key in ("ends", "beta", "tolerance")}
    field = solve(body, electrode, 1.0, returns=returns, engine="solver", progress=False, **asked)
    # a patch has a voltage of its own; a point through which current passes has an infinite one
    against = float(field.at(returns)) if sweep.against_returns else 0.0
    transfer: list[float | None] = [None] * len(ready.places)
    for other in np.flatnonzero(ready.usable):
        if radius is not None or other != k:
            volts = float(field.at(_electrode(ready.places[other], radius)))
            transfer[other] = volts - against
    if given["fields"] is not None:
        field.save(sweep.output / "fields" / f"{row.name}{given['fields']}")
    return {
        "place": ready.places[k].tolist(),
        "moved": math.dist(ready.places[k], ready.asked[k]),
        "transfer": transfer,
        "ends": field.ends.kind,
        "iterations": field.iterations,
        "residual": field.residual,
        "grid": list(body.shape),
        "notes": list(body.notes),
    }


def _electrode(place: np.ndarray, radius: float | None) -> Any:
    return place if radius is None else Patch(place, radius)
