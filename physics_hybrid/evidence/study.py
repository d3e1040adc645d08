"""Arms x amounts of data x seeds: train them all with the same budget.

A study is a file: its name in conf/study, or a path. Every cell is a run of train.py in
OUTPUT/<cell>; finished ones are skipped, and those that were killed go on. One that fails is
reported and the others run. `study_report` says what came out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from physics_hybrid.command_line import CONF
from physics_hybrid.run.ledger import PATIENCE
from physics_hybrid.run.owner import holder
from physics_hybrid.training.tracker import GROUP
from physics_hybrid.writing import write_text

#: Exit statuses of a training that was told to leave: 85 (training.requeue_exit_code) with a state
#: saved, the others with nothing to save.
TOLD_TO_LEAVE = (85, 130, 138, 143)


def slug(words: str) -> str:
    """Words as a part of a folder's name."""
    return re.sub(r"\W+", "-", words)


class Job(Protocol):
    """A training of a study or a chain: overrides are what follows `python train.py run=NAME`."""

    @property
    def name(self) -> str: ...

    @property
    def overrides(self) -> tuple[str, ...]: ...

    def done(self, output: Path) -> bool:
        """Whether nothing of it is left to do."""


@dataclass(frozen=True)
class Cell:
    """One training: overrides are what follows `python train.py run=NAME`.

    stops_count : a training that stopped because it was not finite is finished.
    """

    arm: str
    samples: str
    seed: int
    overrides: tuple[str, ...]
    stops_count: bool = False

    @property
    def name(self) -> str:
        return "_".join([slug(self.arm), slug(self.samples), f"seed{self.seed}"])

    def done(self, output: Path) -> bool:
        return finished(self, output) or (self.stops_count and stopped(self, output))


def file_of(what: str, kind: str) -> Path:
    """A .yaml file, or conf/KIND/WHAT.yaml. Raises ValueError where there is no such study or
    chain.
    """
    path = Path(what) if what.endswith(".yaml") else CONF / kind / f"{what}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (CONF / kind).glob("*.yaml")))
        raise ValueError(f"there is no {kind} {what!r}: give a .yaml file, or one of {known}")
    return path


@dataclass(frozen=True)
class Study:
    """What conf/study/*.yaml says. panels: title of a picture -> arm -> its label there.

    alone : arm -> what its baseline is called, where that has a line of its own, like an arm.
    verdict : of a study of failures (`stability.Rule`), who is compared with whom; {} where they
        are counted and nobody is judged. A training that stops because it is not finite is an
        outcome there, not a failure to run.
    """

    name: str
    common: list[str]
    seeds: list[int]
    samples: dict[str, list[str]]
    arms: dict[str, list[str]]
    reference: str
    panels: dict[str, dict[str, str]]
    verdict: dict[str, Any] | None = None
    alone: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, what: str) -> Study:
        """Raises ValueError where there is no such study, or the file says something else than a
        study should.
        """
        path = file_of(what, "study")
        keys = set(cls.__dataclass_fields__) - {"name"}
        content = content_of(path)
        optional = {"verdict", "alone"}
        if not isinstance(content, dict) or set(content) | optional != keys:
            needed = ", ".join(sorted(keys - optional))
            raise ValueError(f"{path}: a study has the keys {needed}")
        for group in ("samples", "arms"):
            check_overrides_of(path, group, content[group])
        study = cls(path.stem, **content)
        lines = [*study.arms, *study.alone.values()]
        strange = (study._named_arms() - set(lines)) | (set(study.alone) - set(study.arms))
        if strange:
            raise ValueError(
                f"{path}: reference, panels and alone name {', '.join(sorted(strange))}, and there"
                f" are only the arms {', '.join(lines)}"
            )
        if len(set(map(slug, study.arms))) < len(study.arms):
            raise ValueError(
                f"{path}: two arms would share a folder; names of arms must differ in letters or"
                " digits"
            )
        return study

    def _named_arms(self) -> set[str]:
        """The arms that reference and panels name."""
        return {self.reference}.union(*self.panels.values())

    def cells(
        self, output: Path, seeds: list[int] | None = None, extra: Iterable[str] = ()
    ) -> list[Cell]:
        """All cells, seed by seed: a study that is cut short has whole comparisons."""
        folder = str(output).replace("\\", "\\\\").replace("'", "\\'")
        more = tuple(extra)
        cells = []
        for seed in self.seeds if seeds is None else seeds:
            place = (f"seed={seed}", f"runs_folder='{folder}'")
            for samples, amount in self.samples.items():
                for arm, own in self.arms.items():
                    overrides = (*self.common, *amount, *own, *more, *place)
                    cells.append(Cell(arm, samples, seed, overrides, self.verdict is not None))
        return cells


def content_of(path: Path) -> Any:
    """What a YAML file of a study or a chain holds. Raises ValueError where it is none."""
    try:
        return yaml.safe_load(path.read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as YAML: {said}") from error


def check_overrides_of(path: Path, group: str, named: object) -> None:
    """Raise ValueError where a table of names is none, or one of them has no list of overrides."""
    for name, words in named.items() if isinstance(named, dict) else [("", None)]:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            place = f"{group}.{name}" if name else group
            got = words if name else named
            raise ValueError(
                f"{path}: {place} must be {'' if name else 'names, each with '}a list of overrides,"
                f" [] for none; got {got!r}"
            )


def prepare(cell: Job, output: Path) -> Path:
    """Write the overrides of a cell to OUTPUT/cells/NAME.txt, one a line.

    Raises
    ------
    ValueError
        They are not those that the cell in this folder was started with, wherever that lay then.
    """
    path = output / "cells" / f"{cell.name}.txt"
    content = "\n".join(cell.overrides) + "\n"
    if path.exists() and anywhere(path.read_text()) != anywhere(content):
        raise ValueError(
            f"{path} holds other overrides than the study gives {cell.name} now: use another"
            f" --output, or delete {output / cell.name} and this file"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, content)
    return path


def anywhere(overrides: str) -> str:
    """Overrides, a line each, without the folder that they name: OUTPUT may be moved."""
    folder = re.search(r"^runs_folder='(.*)'$", overrides, re.MULTILINE)
    return overrides.replace(folder[1], "OUTPUT") if folder else overrides


def log_of(cell: Job, output: Path) -> Path:
    """What the training of a cell printed."""
    return output / "cells" / f"{cell.name}.log"


def train(cell: Job, output: Path) -> int:
    """Run train.py for a cell, in the group of the output folder; what it prints goes to
    OUTPUT/cells/NAME.log. The exit status; a signal to us ends it, too, saved.
    """
    program = [sys.executable, "-m", "physics_hybrid", "train"]
    with open(log_of(cell, output), "a") as log:
        process = subprocess.Popen(
            [*program, f"run={cell.name}", *cell.overrides],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, GROUP: output.resolve().name},
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


def train_here(cell: Job, output: Path) -> int:
    """The same in this process: small cells would spend most of their time on starting a program.

    The exit status that train.py would have.
    """
    from physics_hybrid.evidence.bench import configuration
    from physics_hybrid.run.train import train as train_run

    with (
        open(log_of(cell, output), "a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            train_run(configuration([f"run={cell.name}", *cell.overrides]))
        except SystemExit as left:
            return left.code if isinstance(left.code, int) else 1
        except (ValueError, OSError, RuntimeError) as error:
            print(f"error: {error}", flush=True)
            return 1
    return 0


def finished(cell: Job, output: Path) -> bool:
    return (output / cell.name / "evaluation" / "metrics.json").exists()


def stopped(cell: Job, output: Path) -> bool:
    """Whether its training stopped because it was not finite."""
    path = output / cell.name / "log.jsonl"
    if not path.exists():
        return False
    lines = path.read_text().splitlines()
    return bool(lines) and "stopped" in json.loads(lines[-1])


def run(
    cells: Sequence[Any],
    output: Path,
    launch: Callable[[Any, Path], int] = train,
    in_order: bool = False,
) -> list[str]:
    """Train what is not finished; one line for each cell that failed.

    A training that is left of a runner that was killed is waited for.

    cells : of `Job`. in_order : each needs those before, and one that fails ends it.

    Raises
    ------
    SystemExit
        A training was told to leave (its exit status): so do we.
    """
    for cell in cells:  # changed overrides are refused before anything runs
        prepare(cell, output)
    failures = []
    for number, cell in enumerate(cells, start=1):
        print(f"[{number}/{len(cells)}] {cell.name}: ", end="", flush=True)
        status = _launched(cell, output, launch)
        if status is None:
            print("finished before")
            continue
        if status in TOLD_TO_LEAVE:
            print("told to leave; the same command goes on", flush=True)
            raise SystemExit(status)
        if cell.done(output) and (status == 0 or stopped(cell, output)):
            print("done" if status == 0 else "stopped: not finite", flush=True)
        else:
            failures.append(_failure(cell, output, status))
            print("FAILED", flush=True)
            if in_order:
                break
    return failures


def _launched(cell: Any, output: Path, launch: Callable[[Any, Path], int]) -> int | None:
    """The exit status of a cell; None where nothing of it was left to do.

    A training that a killed runner had just started may claim the folder after we looked, and ours
    is refused: then we wait for that one, and look again.
    """
    folder = output / cell.name
    while True:
        wait_for_owner(folder)
        if cell.done(output):
            return None
        status = launch(cell, output)
        if status != 1 or holder(folder, PATIENCE) is None:
            return status


def wait_for_owner(folder: Path) -> None:
    """Until no training owns a folder: one may live on whose runner was killed."""
    said = False
    while (owner := holder(folder, PATIENCE)) is not None:
        if not said:
            print(f"waiting for {owner}, which trains it ... ", end="", flush=True)
            said = True
        time.sleep(0.5)


def _failure(cell: Job, output: Path, status: int) -> str:
    """The exit status of a cell, and the last that it said."""
    log = log_of(cell, output)
    text = log.read_text() if log.exists() else ""
    said = [line for line in text.splitlines() if line.strip()]
    last = f": {said[-1]}" if said else ""
    return f"{cell.name}: exit status {status}{last} ({log})"


def leave(number: int, _frame: object) -> None:
    """An exit that `train` sees, so that the training in hand is saved."""
    raise SystemExit(128 + number)
