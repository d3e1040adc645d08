"""Whether a training will run, how long, in how much memory, on how much disk, for how much money.

Everything that `train.py` would do is done once, on few samples and in a temporary folder, and
timed; the whole follows by counting:

    seconds = start + statistics + prepare + steps x step + validations x validation
            + epochs x saving + figures + test sets (their first batch, and the others)

Peak memory is that of this process, which has then done all of it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from physics_hybrid.cluster.machine import Machine, initialize
from physics_hybrid.evidence.bench import configuration
from physics_hybrid.models import model_files
from physics_hybrid.problem import Excerpt, Place, Problem, TestSet
from physics_hybrid.report.plots import spared
from physics_hybrid.run.evaluate import evaluate, write
from physics_hybrid.run.load import readers, recipe_of
from physics_hybrid.run.provenance import peak_memory
from physics_hybrid.run.train import check_settings, settings_of
from physics_hybrid.training.tracker import Tracker
from physics_hybrid.training.trainer import Trainer

#: Samples of the data that are looked at.
SAMPLES = 16
#: Steps at least, and the seconds after which no further one is made.
STEPS, LONG_ENOUGH = 5, 4.0
#: Calls after the first of what is done in every epoch: a disk takes now long, now short.
REPEATS = 3
#: Of the disk that is free, what a run may fill.
FULL = 0.95

Say = Callable[[str, str], None]


@dataclass
class Cost:
    """Seconds by what they are spent on; bytes on disk by where they lie."""

    seconds: dict[str, float] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, what: str, times: float = 1.0) -> Iterator[None]:
        """Time what is done inside, and count it so many times."""
        started = time.perf_counter()
        yield
        self.add(what, times * (time.perf_counter() - started))

    def often(self, what: str, call: Callable[[], Any], times: float) -> Any:
        """Time a call that is made so many times: the first alone, for it imports and allocates,
        and the median of some more. What the last gave; None where none is made.
        """
        if times <= 0:
            return None
        taken, result = [], None
        for _ in range(1 + (REPEATS if times > 1 else 0)):
            started = time.perf_counter()
            result = call()
            taken.append(time.perf_counter() - started)
        first, *others = taken
        self.add(what, first + (times - 1) * (statistics.median(others) if others else first))
        return result

    def add(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds


@dataclass(frozen=True)
class Estimate:
    """What a training will cost: seconds in all and by part, MB at the peak, MB on disk."""

    parts: dict[str, float]
    memory: float
    disk: float

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    def money(self, rate: float) -> float:
        """At so much an hour."""
        return rate * self.seconds / 3600


def check(words: list[str], say: Say, rate: float | None = None) -> Estimate:
    """Go through a training that `train.py WORDS` would make, a line for each part of it.

    say : takes the name of a part, and what came out. rate : money for an hour of this machine.

    Raises
    ------
    Exception
        Whatever the first part that fails raises: an error for people, as train.py has it.
    """
    cost = Cost()
    cost.add("start", time.time() - psutil.Process().create_time())
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        folder = Path(name)
        config = _configuration(words, folder, cost, say)
        machine = initialize(config["training"]["device"])
        if config["training"]["threads"]:
            torch.set_num_threads(config["training"]["threads"])
        problem, cut, whole = _data(config, machine, folder, cost, say)
        trainer, tracker = _trainer(config, machine, problem, cut, folder, cost)
        steps = math.ceil(whole.steps_per_epoch / trainer.settings.accumulate)
        _training(trainer, steps, cost, say)
        _epochs(trainer, steps, cut, folder, cost, say)
        if config["evaluation"]["after_training"] in (None, True):
            _evaluation(problem, cut, trainer, folder, cost, say)
        with cost.of("tracker"):
            tracker.finish()
        data = cut.prepare * _size(folder / "data")
        disk = (sum(cost.disk.values()) + data + _size(folder / "evaluation")) / 1e6
        estimate = Estimate(cost.seconds, peak_memory(machine.device), disk)
    _conclude(estimate, Path(config["runs_folder"]), rate, say)
    return estimate


def _configuration(words: list[str], folder: Path, cost: Cost, say: Say) -> dict[str, Any]:
    with cost.of("start"):
        config = configuration(words)
        check_settings(config)
        recipe_of(config)
    tracker = dict(config["tracker"])
    if tracker.get("mode") == "online":  # a check is no run that anybody wants to see there
        tracker["mode"] = "offline"
    target = recipe_of(config).__class__.__name__.removesuffix("Recipe").lower()
    say("configuration", f"problem {target}, seed {config['seed']}")
    return {**config, "run": "check", "tracker": tracker}


def _data(
    config: dict[str, Any], machine: Machine, folder: Path, cost: Cost, say: Say
) -> tuple[Problem[Any, Any], Excerpt, Problem[Any, Any]]:
    """The problem on few samples; what it was cut by; and on all of them, unprepared."""
    place = Place(
        machine.device,
        machine.rank,
        machine.world_size,
        workers=readers((config.get("data") or {}).get("workers"), machine),
    )
    recipe: Any = recipe_of(config)
    with cost.of("data"):
        whole = recipe.open(place)
    cut, problem = Excerpt(recipe), whole
    if hasattr(recipe, "excerpt"):
        cut = recipe.excerpt(SAMPLES, folder / "data")
        problem = cut.recipe.open(place)
    with cost.of("prepare", cut.prepare):
        problem.prepare()
    problem.ready()
    batches = problem.train_batches(0, 0, ())
    count, started = 0, time.perf_counter()
    with contextlib.closing(cast(Generator[Any, None, None], batches)):
        for batch in batches:
            count += len(batch)
            if count >= SAMPLES:
                break
    each = (time.perf_counter() - started) / max(count, 1)
    say("data", f"{count} samples, {_time(each)} each; {whole.steps_per_epoch} batches an epoch")
    return problem, cut, whole


def _trainer(
    config: dict[str, Any],
    machine: Machine,
    problem: Problem[Any, Any],
    cut: Excerpt,
    folder: Path,
    cost: Cost,
) -> tuple[Trainer, Tracker]:
    """A model and all that trains it, with statistics and stored samples made."""
    from hydra.utils import instantiate

    with cost.of("statistics", cut.statistics):
        known = problem.statistics()
    torch.manual_seed(config["seed"])
    model = cut.recipe.build_model(known)
    problem.check_model(model)
    with cost.of("tracker"):
        tracker: Tracker = instantiate(config["tracker"])
        tracker.start(folder, config)
    trainer = Trainer(
        model=model,
        problem=problem,
        settings=settings_of(config["training"]),
        machine=machine,
        folder=folder,
        tracker=tracker,
        config=config,
        normalisation=known,
    )
    with cost.of("start"):
        problem.notes(model)
    return trainer, tracker


def _training(trainer: Trainer, steps: int, cost: Cost, say: Say) -> None:
    """Some steps, with the waiting for their batches; the first is not counted."""
    accumulate, epochs = trainer.settings.accumulate, trainer.settings.epochs
    trainer.model.train()
    marks = [time.perf_counter()]
    batches = itertools.chain.from_iterable(
        trainer.problem.train_batches(epoch, 0, ()) for epoch in itertools.count()
    )
    while len(marks) <= STEPS or marks[-1] - marks[0] < LONG_ENOUGH:
        values = trainer.step([next(batches) for _ in range(accumulate)])
        marks.append(time.perf_counter())
        if not math.isfinite(values["loss"]):
            raise ValueError(f"the loss of step {len(marks) - 1} is {values['loss']}")
        if len(marks) > epochs * steps:
            break
    times = [b - a for a, b in itertools.pairwise(marks)]
    later = times[1:] or times
    step = sum(later) / len(later)
    cost.add("training", times[0] + (epochs * steps - 1) * step)
    say("training", f"{len(times)} steps, {_time(step)} each; {epochs * steps} in all")


def _epochs(trainer: Trainer, steps: int, cut: Excerpt, folder: Path, cost: Cost, say: Say) -> None:
    """A validation, the files and the figures of an epoch; as often as they come."""
    s, problem = trainer.settings, trainer.problem
    validations = math.ceil(s.epochs / s.validate_every)
    model, about = trainer.evaluated.eval(), {"monitor": problem.monitor}
    times = validations * cut.validate
    values = cost.often("validation", lambda: problem.validate(model), times)
    score = values[problem.monitor]
    saves = s.epochs + s.epochs * (steps // s.checkpoint_every)
    cost.often("saving", trainer.save, saves)
    cost.often(
        "saving", lambda: model_files.save_model(folder / "best", model, 1, about), validations
    )
    figures = math.ceil(s.epochs / s.figures_every) if s.figures_every else 0
    with spared("figures"):
        cost.often("figures", lambda: problem.draw(model, folder / "figures", "check"), figures)
    state = _size(folder / "latest_checkpoint.pt")
    # the state holds the best weights, too, once there are some
    weights = _size(folder / "best")
    cost.disk = {
        "states": 2 * (state + weights),
        "models": 2 * weights,
        "figures": figures * _size(folder / "figures"),
    }
    say("validation", f"{problem.monitor} {score:.4g} untrained; {validations} in all")


# --- evaluation


class _Clocked:
    """A test set that notes when its batches come and go."""

    def __init__(self, tests: TestSet[Any, Any]):
        self.tests = tests
        self.marks: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tests, name)

    def __len__(self) -> int:
        return len(self.tests)

    def batches(self) -> Iterator[Any]:
        self.marks = [time.perf_counter()]
        sizes = []
        for batch in self.tests.batches():
            sizes.append(len(batch))
            yield batch
            self.marks.append(time.perf_counter())
        self.largest = max(sizes, default=1)

    def rest(self, samples: int) -> float:
        """Seconds that the batches cost which this set has fewer of than one of `samples`."""
        times = [b - a for a, b in itertools.pairwise(self.marks)]
        each = min(times[1:] or times)
        return each * (math.ceil(samples / self.largest) - len(times))


class _ClockedProblem:
    """A problem whose test sets are `_Clocked`."""

    def __init__(self, problem: Problem[Any, Any], cost: Cost, times: float):
        self.problem, self.sets = problem, list[_Clocked]()
        with cost.of("test samples", times):
            self.sets = [_Clocked(tests) for tests in problem.test_sets()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.problem, name)

    def test_sets(self) -> Sequence[_Clocked]:
        return self.sets


def _evaluation(
    problem: Problem[Any, Any], cut: Excerpt, trainer: Trainer, folder: Path, cost: Cost, say: Say
) -> None:
    """The report of the untrained model on few samples."""
    drawn = trainer.config["evaluation"].get("pictures", True)
    clocked: Any = _ClockedProblem(problem, cost, cut.tested)
    about = {"checkpoint": "check"}
    with cost.of("evaluation"):
        result = evaluate(clocked, trainer.evaluated, folder / "evaluation", about, pictures=drawn)
        if result.tables:
            write(result, folder / "evaluation")
    for tests in clocked.sets:
        if cut.samples is not None:
            cost.add("evaluation", tests.rest(cut.samples))
    names = ", ".join(result.tables) or "nothing"
    say("evaluation", f"tested on {names}")


# --- the end


def _conclude(estimate: Estimate, runs: Path, rate: float | None, say: Say) -> None:
    parts = ", ".join(f"{k} {_time(v)}" for k, v in estimate.parts.items() if v >= 0.5)
    say("seconds", f"{estimate.seconds:.0f} s in all: {parts}")
    say("memory", f"{estimate.memory:.0f} MB at the peak")
    place = next(p for p in [runs.resolve(), *runs.resolve().parents] if p.exists())
    free = shutil.disk_usage(place).free / 1e6
    if estimate.disk > FULL * free:
        raise OSError(f"{estimate.disk:.0f} MB are needed, and {free:.0f} MB are free in {place}")
    say("disk", f"{estimate.disk:.0f} MB of {free / 1e3:.1f} GB free")
    if rate is not None:
        say("money", f"{estimate.money(rate):.2f} EUR at {rate:g} EUR an hour")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _size(path: Path) -> float:
    """Bytes of a file or of all below a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return float(sum(p.stat().st_size for p in files))
