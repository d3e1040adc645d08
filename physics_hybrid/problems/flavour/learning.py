"""The flavour closure as a learning problem, opened: states, loss and metrics, what is tested.

`problem.py` makes one from the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from physics_hybrid.problem import Place, Row, Splits, Statistics
from physics_hybrid.problems.flavour.data.states import States
from physics_hybrid.problems.flavour.losses import FlavourLoss
from physics_hybrid.problems.flavour.metrics import COLUMNS, Metrics, equipartition
from physics_hybrid.problems.flavour.physics.box3d import convert
from physics_hybrid.problems.flavour.physics.sphere import Quadrature
from physics_hybrid.report.markdown import table
from physics_hybrid.training.order import Done, Stored

if TYPE_CHECKING:
    from physics_hybrid.problems.flavour.networks import Closure

#: Rows of the table, by prefix; '' is the model, and has its own name.
RIVALS = {
    "unchanged_": "no change",
    "equipartition_": "equipartition",
    "baseline_": "Box3D alone",
    "file_": "Box3D of the file",
    "control_": "MLP (control)",
    "reference_": "reference",
}
#: The test set of all families.
EVERYTHING = "all"


@dataclass(frozen=True)
class Family:
    """Test samples of one family, or all. Implements `physics_hybrid.problem.TestSet`."""

    problem: Flavour
    name: str
    states: States
    batch_size: int

    def __len__(self) -> int:
        return len(self.states)

    def batches(self) -> Iterator[States]:
        for first in range(0, len(self), self.batch_size):
            yield self.states.rows(range(first, min(first + self.batch_size, len(self))))

    def rivals(
        self, model: nn.Module, batch: States, reference: nn.Module | None
    ) -> dict[str, Tensor]:
        closure = cast("Closure", model)
        out = {
            "unchanged_": batch.before,
            "equipartition_": equipartition(batch.before),
            "baseline_": closure.box3d(batch.before, batch.u),
        }
        if batch.box is not None:
            out["file_"] = batch.box
        control = self.problem.control()
        if control is not None:
            out["control_"] = control(batch.before, batch.u)
        if reference is not None:
            out["reference_"] = reference(batch.before, batch.u)
        return out

    def measure(self, predictions: Mapping[str, Tensor], batch: States) -> dict[str, list[Row]]:
        if self.name == EVERYTHING:
            crossing = convert(batch.before, self.problem.rule).crossing
            errors = {k: self.problem.metrics.error(F, batch) for k, F in predictions.items()}
            self.problem.depths.append((crossing, errors))
        return {who: self.problem.metrics(F, batch) for who, F in predictions.items()}

    def picture(self, model: nn.Module, index: int, row: Row, folder: Path) -> Path:
        """Angular distributions of the sample of median error."""
        from physics_hybrid.problems.flavour import figures

        sample = self.states.rows([index])
        title = (
            f"median test sample of {self.name}: error {row['error']:.2g}, "
            f"Box3D alone {row['baseline_error']:.2g}"
        )
        predicted = self.problem.predict(model, sample)
        return figures.angles(sample, predicted, folder / f"angles_{self.name}.png", title)


@dataclass
class Flavour:
    """Implements `physics_hybrid.problem.Problem`.

    samples : states that train, choose and test.
    order : in which they train.
    rule : directions of Box3D.
    own : whether the samples are a user's, and not those inside the package.
    target_scale : of the increments, or None: from the states.
    train_control : makes the control from the training states, or None for no such row.
    model_name : who the model is, in the table.
    """

    samples: dict[str, States]
    order: Stored | None
    seed: int
    criterion: FlavourLoss
    metrics: Metrics
    rule: Quadrature
    place: Place
    batch_size: int
    own: bool = False
    target_scale: float | None = None
    train_control: Callable[[States], nn.Module] | None = None
    model_name: str = "closure"
    monitor: str = "error"
    varies: str = "family"
    alone: str = "baseline_"
    columns: Sequence[tuple[str, str]] = COLUMNS
    #: Depth of the crossing and errors by contender of what was tested, for the figure.
    depths: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    _control: list[nn.Module] = field(default_factory=list)

    @property
    def contenders(self) -> Mapping[str, str]:
        return {**RIVALS, "": self.model_name}

    # --- training

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_left(0, ())

    def steps_left(self, epoch: int, done: Done) -> int:
        return len(self._order().batches((self.seed, epoch), done))

    def train_batches(self, epoch: int, start: int, done: Done = ()) -> Iterator[States]:
        for rows in self._order().batches((self.seed, epoch), done)[start:]:
            yield self.samples["train"].rows(rows)

    def _order(self) -> Stored:
        if self.order is None:
            raise ValueError("there is no state to train on: data.splits.train is 0")
        return self.order

    def predict(self, model: nn.Module, batch: States) -> Tensor:
        out: Tensor = model(batch.before, batch.u)
        return out

    def loss(self, model: nn.Module, batch: States) -> tuple[Tensor, dict[str, Tensor]]:
        F = self.predict(model, batch)
        return self.criterion(F.float(), batch.after, batch.before)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Means over the validation split; so few numbers that every rank makes all of them."""
        batch = self.samples["validation"]
        F = self.predict(model, batch)
        terms = self.criterion.terms(F.float(), batch.after, batch.before)
        mean = float(self.metrics.error(F, batch).mean())
        return {"error": mean, **{name: float(term) for name, term in terms.items()}}

    @torch.no_grad()
    def draw(self, model: nn.Module, folder: Path, tag: str) -> dict[str, Path]:
        from physics_hybrid.problems.flavour import figures

        model.eval()
        batch = self.samples["validation"]
        path = folder / f"{tag}_validation.png"
        F, alone = self.predict(model, batch), cast("Closure", model).box3d(batch.before, batch.u)
        title = f"{len(batch)} states of the validation split"
        return {"figures/validation": figures.against_truth(batch, F, alone, path, title)}

    # --- the life of the data

    def statistics(self) -> Statistics:
        return feature_statistics(self.samples["train"], self.rule, self.target_scale)

    def prepare(self) -> None: ...

    def ready(self) -> None: ...

    def check_model(self, model: nn.Module) -> None:
        if not hasattr(model, "box3d"):
            raise ValueError(f"{type(model).__name__} is no closure: choose model=flavour_...")

    def splits(self) -> Splits:
        if not self.own:
            return {}
        return {name: states.contents() for name, states in self.samples.items()}

    def notes(self, model: nn.Module) -> list[str]:
        """None: Box3D is of the size of the truth by its laws."""
        return []

    # --- evaluation

    def control(self) -> nn.Module | None:
        """The control, trained when it is first asked for."""
        if self.train_control is None:
            return None
        if not self._control:
            self._control.append(self.train_control(self.samples["train"]))
        return self._control[0]

    def test_sets(self) -> list[Family]:
        """All families together, then each. Raises ValueError where no sample is tested."""
        tested = self.samples["test"]
        if not len(tested):
            raise ValueError("there is no state to test: data.splits.test is 0")
        names = sorted(set(tested.families))
        self.depths.clear()
        sets = [Family(self, EVERYTHING, tested, self.batch_size)]
        if len(names) > 1:
            for name in names:
                rows = [i for i, family in enumerate(tested.families) if family == name]
                sets.append(Family(self, name, tested.rows(rows), self.batch_size))
        return sets

    def summary(self, tables: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Path]]:
        """Each contender's error over that of Box3D, by family."""
        who = {prefix: name for prefix, name in self.contenders.items() if prefix != "unchanged_"}
        rows = []
        for name, metrics in tables.items():
            alone = metrics["baseline_error"]["mean"]
            ratios = [_ratio(metrics, prefix, alone) for prefix in who]
            rows.append([name, *ratios])
        there = [i for i, _ in enumerate(who) if any(row[i + 1] for row in rows)]
        heads = ["family", *(list(who.values())[i] for i in there)]
        lines = [[row[0], *(row[i + 1] or "-" for i in there)] for row in rows]
        text = "\n\n".join(["## Error over that of Box3D", table(heads, lines)])
        return text, self._figures(folder)

    def _figures(self, folder: Path) -> dict[str, Path]:
        from physics_hybrid.problems.flavour import figures

        crossing = torch.cat([depth for depth, _ in self.depths])
        if not (crossing > 0).any():
            return {}
        errors = {}
        for prefix in ("baseline_", "control_", ""):
            if all(prefix in errors_of for _, errors_of in self.depths):
                parts = [errors_of[prefix] for _, errors_of in self.depths]
                errors[self.contenders[prefix]] = torch.cat(parts)
        path = folder / "errors_by_crossing.png"
        return {"errors_by_crossing": figures.by_depth(crossing, errors, path)}

    def inspect(self, model: nn.Module, batch: States) -> dict[str, float]:
        """Flux factors |F| / N of truth and prediction. Implements `problem.Inspects`."""
        out = {}
        kinds = {
            "before": batch.before,
            "true": batch.after,
            "predicted": self.predict(model, batch),
        }
        for name, F in kinds.items():
            factor = F[..., :3].norm(dim=-1) / F[..., 3].clamp_min(1e-12)
            out[f"flux factor, {name}, mean"] = float(factor.mean())
            out[f"flux factor, {name}, p99"] = float(factor.flatten().quantile(0.99))
            out[f"flux factor, {name}, max"] = float(factor.max())
        return out


def feature_statistics(train: States, rule: Quadrature, target_scale: float | None) -> Statistics:
    """Mean and standard deviation of the features, and the scale of the target.

    A state counts as much as Box3D changes it and its crossing is deep: what has no crossing says
    nothing of the correction.
    """
    from physics_hybrid.problems.flavour.networks import features

    found = convert(train.before, rule)
    values = features(train.before, found).double()
    weight = (found.size * found.crossing).double()[:, None] + 1e-12
    weight = weight / weight.sum()
    mean = (weight * values).sum(dim=0)
    std = (weight * (values - mean) ** 2).sum(dim=0).sqrt()
    if target_scale is None:
        target_scale = float(train.after.double().abs().flatten().quantile(0.99))
    return {
        "mean": mean.tolist(),
        "std": std.clamp_min(1e-6).tolist(),
        "target_scale": target_scale,
    }


def _ratio(metrics: Mapping[str, Any], prefix: str, alone: float) -> str:
    if f"{prefix}error" not in metrics:
        return ""
    return f"{metrics[f'{prefix}error']['mean'] / max(alone, 1e-12):.3f}"
