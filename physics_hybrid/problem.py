"""The seam: what a problem is. A run drives it; the problem knows the physics, the run does not.

    Recipe  -- open(place) -->  Problem  -- test_sets() -->  TestSet
       |                           |
       '-- build_model -- predictor '-- loss, validate, draw, predict

A problem is one folder and its conf files. `conf/problem/NAME.yaml` names its recipe (`_target_`),
a class that takes the whole resolved configuration. To add one, see CONTRIBUTING.md;
`tests/test_seam.py` holds a complete one in a page.

A batch is the problem's own: it has `len` and `names`. So is a prediction. The run never looks
inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from physics_hybrid.training.order import Done

Config = Mapping[str, Any]
#: What a model normalises its inputs with, by name: plain numbers, stored with the weights.
Statistics = dict[str, Any]
#: Numbers of one sample, by metric.
Row = dict[str, float]

#: split -> (name, fingerprint of the content) of each sample, in order.
Splits = Mapping[str, Sequence[tuple[str, str]]]

#: What a problem calls a batch, and what it predicts from one.
B = TypeVar("B", bound="Batch")
P = TypeVar("P")


@dataclass(frozen=True)
class Place:
    """Where a problem is opened.

    device : where it computes.
    rank, world_size : whose share of the training samples.
    workers : processes that read data.
    stage : given a file or folder that training reads in every epoch, the path to read it from here
        (a copy on the node's scratch disk). All ranks must call it alike.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    stage: Callable[[str], str] = str


class Batch(Protocol):
    """Samples that go through the model together."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...


class TestSet(Protocol[B, P]):
    """Samples that are tested as one: those of a grid, a family, a viscosity."""

    @property
    def name(self) -> str:
        """48x24x24, say: the first column of the table, and the key in metrics.json."""

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[B]:
        """Always the same samples in the same order, on the device."""

    def rivals(self, model: nn.Module, batch: B, reference: nn.Module | None) -> dict[str, P]:
        """What the model is compared with, by prefix of its metrics: `baseline_`, ...

        reference : another model that the user gave to compare with.
        """

    def measure(self, predictions: Mapping[str, P], batch: B) -> dict[str, list[Row]]:
        """Metrics of each prediction, a row for each sample."""

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path | None:
        """A figure of sample `index`, the one of median error, in `folder`; None for no figure."""


class Problem(Protocol[B, P]):
    """A problem with its data, ready to be trained on and tested.

    What the trainer asks
    ---------------------
    """

    #: The metric of `validate` and of the test sets that chooses the best model; smaller is better.
    monitor: str

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch on each rank."""

    def steps_left(self, epoch: int, done: Done) -> int:
        """Batches of an epoch that are left where other numbers of ranks have begun it."""

    def train_batches(self, epoch: int, start: int, done: Done) -> Iterator[B]:
        """This rank's batches `start`, start + 1, ... of what is left of an epoch after `done`.

        A function of (seed, epoch, done, position) alone, of equal size on all ranks: with
        `training/order.py` that costs nothing, and every training resumes to the same bits.
        """

    def loss(self, model: nn.Module, batch: B) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms (detached) by name."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Metrics over the validation split; all ranks call it and all get the same."""

    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        """Figures of fixed samples while training, by name."""

    # --- the life of the data

    def statistics(self) -> Statistics:
        """Of the training split; stored with the model."""

    def prepare(self) -> None:
        """Make what training reads and is not there yet: rank 0 first, then the others."""

    def ready(self) -> None:
        """All is there: stage it, open it."""

    def check_model(self, model: nn.Module) -> None:
        """Raise ValueError where the model cannot take what it will be given."""

    def splits(self) -> Splits:
        """The user's own samples in each split; {} where the configuration alone makes them.

        Names as in batches. `train` is what weights are fitted to, `validation` what chooses the
        best; a run remembers both, goes on with no other samples, and tests them apart.
        """

    def notes(self, model: nn.Module) -> Sequence[str]:
        """What a person should know before this model is trained on these data, a line each."""

    # --- evaluation

    @property
    def varies(self) -> str:
        """What test sets differ in, one word: grid, family, viscosity."""

    @property
    def columns(self) -> Sequence[tuple[str, str]]:
        """(metric, heading) of the main table; of the first its 95th percentile is shown, too."""

    @property
    def contenders(self) -> Mapping[str, str]:
        """Prefix -> who it is, in the order of the table; '' is the model."""

    @property
    def alone(self) -> str:
        """Prefix of the contender that the model corrects, a baseline without its correction."""

    def test_sets(self) -> Sequence[TestSet[B, P]]: ...

    def predict(self, model: nn.Module, batch: B) -> P: ...

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        """What the report says beyond the main table, Markdown, and figures of all test sets by
        name.

        tables : test set -> metric -> statistic (`report.markdown.aggregate`).
        """


class Recipe(Protocol[B, P]):
    """A problem as configured, nothing opened: `Recipe(config)`, the whole resolved configuration.

    Raises ValueError where a group of the configuration belongs to another problem.
    """

    def open(self, place: Place) -> Problem[B, P]:
        """Find and check the data, build losses and metrics. Whatever is wrong is an error here."""

    def build_model(self, statistics: Statistics) -> nn.Module:
        """A `physicsnemo.Module`, weights at random."""

    def statistics_of(self, model: nn.Module) -> Statistics:
        """Those that a model was built with."""

    def for_evaluation(self, options: Config, model: nn.Module) -> Recipe[B, P]:
        """The recipe to test a model with; `options`: conf/evaluate.yaml."""

    def predictor(self, model: nn.Module) -> Any:
        """What a user holds: arrays in, arrays out. May also be `Refines` and `Certifies`."""


class Refines(Protocol):
    """A predictor that a solver can take farther."""

    def refine(self, guess: Any, tolerance: float) -> Any:
        """The solution to a relative residual of `tolerance`, from a guess."""


class Certifies(Protocol):
    """A predictor that can bound its error."""

    def certify(self, prediction: Any) -> Any:
        """A bound that the error of a prediction does not exceed."""


class Inspects(Protocol):
    """A problem with more to say of a batch than its loss: `python -m physics_hybrid inspect`."""

    @property
    def samples(self) -> Mapping[str, Any]:
        """Samples by split: each with a length and `rows(positions)`, a batch."""

    def inspect(self, model: nn.Module, batch: Any) -> dict[str, float]:
        """Statistics by name."""


@dataclass(frozen=True)
class Excerpt:
    """A recipe cut down to few samples, and how many times as long each part takes on all of them.

    statistics, prepare, validate : those of `Problem`. tested : making the test samples.
    samples : in a test set of the whole recipe, where the excerpt has fewer; None: as many.
    """

    recipe: Recipe[Any, Any]
    statistics: float = 1.0
    prepare: float = 1.0
    validate: float = 1.0
    tested: float = 1.0
    samples: int | None = None


class Excerpts(Protocol):
    """A recipe whose data take long to make: `python -m physics_hybrid check` asks for fewer."""

    def excerpt(self, samples: int, folder: Path) -> Excerpt:
        """At most so many samples of each kind, made in a folder of their own."""


class Widens(Protocol):
    """A recipe whose models may start from weights that see less of a body than they do."""

    def widened(
        self, weights: Mapping[str, Tensor], source: nn.Module, model: nn.Module
    ) -> Mapping[str, Tensor]:
        """The weights of `source` for `model`: the same function of what both see."""


def refuse_foreign(config: Config, group: str, known: set[str], problem: str) -> None:
    """Raise ValueError where a group of the configuration has keys that a problem does not know.

    It belongs to another problem then: conf stays flat, and `model=`, `data=`, `loss=` name files
    of all problems.
    """
    strange = sorted(set(config.get(group) or {}) - known)
    if strange:
        raise ValueError(
            f"problem={problem} does not know {group}.{strange[0]}: {group}=... names a file of"
            f" another problem, or one of another version; choose one of conf/{group} that is made"
            f" for {problem}"
        )


def refuse_options(options: Config, known: set[str], problem: str) -> None:
    """Raise ValueError where evaluate.py is asked for what a problem would leave without effect.

    options : conf/evaluate.yaml. known : of `resolutions`, `samples` and `split`.
    """
    given = [key for key in ("resolutions", "samples") if options.get(key) is not None]
    given += ["split"] if options.get("split", "all") != "all" else []
    for key in given:
        if key not in known:
            raise ValueError(
                f"problem={problem} does not know {key}={options[key]} of evaluate.py: leave it out"
            )
