"""The potential in tissue as a learning problem: the recipe, from the configuration.

The only file of this problem that reads the configuration; below, everything takes plain arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from physics_hybrid.checks import one_of
from physics_hybrid.grid import Grid, is_grid
from physics_hybrid.problem import Config, Excerpt, Place, Statistics, refuse_foreign
from physics_hybrid.problems.potential.data.protocol import Data
from physics_hybrid.problems.potential.data.splits import fractions_of
from physics_hybrid.problems.potential.learning import ALL, Potential, SigmaInput, TestPlan
from physics_hybrid.problems.potential.losses import TERMS, PotentialLoss
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.predictor import Predictor

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.bodies.segmentation import Segmentations
    from physics_hybrid.problems.potential.data.file_data import FileData
    from physics_hybrid.problems.potential.data.limb_data import LimbData

#: Keys of conf/problem, conf/loss and conf/model that are this problem's.
PROBLEM_KEYS = {"_target_", "ends", "beta", "coordinates"}
LOSS_KEYS = {*TERMS, "mask", "exclude_radius"}
MODEL_KEYS = {
    "backbone",
    "baseline",
    "composition",
    "geometry",
    "learning_rate",
    "sigma_input",
    "sigma_eps",
    "spacing_hidden",
    "evaluate_at",
    "statistics_samples",
}
DATA_KINDS = ("limbs", "files", "labels")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PotentialRecipe:
    """Implements `physics_hybrid.problem.Recipe`.

    config : the whole resolved configuration.
    split : of a user's files, the one that is tested.
    """

    config: Config
    split: str = "test"

    def __post_init__(self) -> None:
        for group, known in (("problem", PROBLEM_KEYS), ("loss", LOSS_KEYS), ("model", MODEL_KEYS)):
            refuse_foreign(self.config, group, known, "potential")
        kind = self.config["data"].get("kind")
        if kind not in DATA_KINDS:
            raise ValueError(
                f"problem=potential needs data.kind to be one of {', '.join(DATA_KINDS)}; "
                f"got {kind!r}: data=... names a file of another problem"
            )

    def open(self, place: Place) -> Potential:
        config = self.config
        data = build_data(config, place, self.split)
        data.check_ranks()
        tested = build_test_plan(config, data)
        data.check_loss(config["loss"]["mask"])
        return Potential(
            data=data,
            criterion=build_loss(config),
            metrics=build_metrics(config),
            place=place,
            tested=tested,
            sigma_input=build_sigma_input(config),
            coordinates=config["problem"]["coordinates"],
            ends=build_ends(config),
        )

    def build_model(self, statistics: Statistics) -> nn.Module:
        return build_model(self.config, statistics)

    def statistics_of(self, model: nn.Module) -> Statistics:
        """Of components that the model does not see and this configuration has: 0 and 1 S/m."""
        unseen = self.config["data"]["sigma_components"] - model.sigma_components
        return {
            name: getattr(model, name).flatten().tolist() + [value] * unseen
            for name, value in (("sigma_mean", 0.0), ("sigma_std", 1.0))
        }

    def widened(
        self, weights: Mapping[str, Tensor], source: nn.Module, model: nn.Module
    ) -> Mapping[str, Tensor]:
        """Weights of a network that sees diagonal tensors, for one that sees whole ones."""
        from physics_hybrid.problems.potential.hybrid import HybridWrapper, widened

        assert isinstance(source, HybridWrapper)
        assert isinstance(model, HybridWrapper)
        return widened(weights, source, model)

    def predictor(self, model: nn.Module) -> Predictor:
        return Predictor(model, build_ends(self.config), self.config["problem"]["coordinates"])

    def excerpt(self, samples: int, folder: Path) -> Excerpt:
        return _excerpt(self, samples, folder)

    def for_evaluation(self, options: Config, model: nn.Module) -> PotentialRecipe:
        """Data, grids and samples of conf/evaluate.yaml where it has any, else those of the run.

        Raises
        ------
        ValueError
            split is none that there is, or the model is of another problem.
        """
        if not hasattr(model, "sigma_components"):
            raise ValueError(
                f"{type(model).__name__} is no model of the potential: a model of another problem"
                " is evaluated by its run (checkpoint=runs/NAME), which knows its problem"
            )
        asked = options["split"]
        one_of(("all", *SPLITS), "split", asked)
        other = options.get("data")  # Hydra leaves the key out where no data=... was chosen
        data, evaluation = dict(self.config["data"]), dict(self.config["evaluation"])
        split = self.split
        if other:  # other data: their grids, all of their samples
            data = dict(other)
            evaluation["resolutions"] = None
            if other["kind"] == "files":
                evaluation["samples"] = ALL
                split = "test" if asked == "all" else asked
            if other["kind"] in ("files", "labels") and asked == "all":
                data["splits"] = {"train": 0.0, "validation": 0.0, "test": 1.0}
        for key in ("resolutions", "samples", "batch_size"):
            if options[key] is not None:
                evaluation[key] = options[key]
        data |= {"sigma_components": model.sigma_components, "batch_size": evaluation["batch_size"]}
        return PotentialRecipe({**self.config, "data": data, "evaluation": evaluation}, split)


def _excerpt(recipe: PotentialRecipe, samples: int, folder: Path) -> Excerpt:
    """Fewer limbs or bodies, solved in `folder`; files stay as they are.

    What the whole recipe would find in its own folder costs nothing there.
    """
    from physics_hybrid.problems.potential.data.limb_data import LimbData

    config = recipe.config
    data, model = dict(config["data"]), dict(config["model"])
    evaluation = dict(config["evaluation"])
    whole = build_data(config, Place(torch.device("cpu")), recipe.split)
    if not isinstance(whole, LimbData):
        return Excerpt(recipe)
    batches = 2 * evaluation["batch_size"]
    few = {
        "validation": min(whole.validation_samples, max(2, samples // 4)),
        "train": min(whole.train_samples or 0, samples),
        "test": min(evaluation["samples"], batches),
    }
    grids = build_test_plan(config, whole).grids
    missing = {
        "validation": whole.missing("validation", whole.grid, whole.validation_samples),
        "train": whole.missing("train", whole.grid, whole.train_samples or 0),
        "test": max((whole.missing("test", g, evaluation["samples"]) for g in grids), default=0),
    }
    statistics = model["statistics_samples"]
    model["statistics_samples"] = min(statistics, samples)
    data |= {"folder": str(folder), "validation_samples": few["validation"]}
    if whole.train_samples:
        data["train_samples"] = few["train"]
    tested = evaluation["samples"]
    evaluation["samples"] = few["test"]
    cut = {**config, "data": data, "model": model, "evaluation": evaluation}
    made = few["validation"] + few["train"]
    return Excerpt(
        recipe=PotentialRecipe(cut, recipe.split),
        statistics=statistics / model["statistics_samples"],
        prepare=(missing["validation"] + missing["train"]) / made,
        validate=whole.validation_samples / few["validation"],
        tested=missing["test"] / few["test"],
        samples=tested,
    )


def build_ends(config: Config) -> Ends:
    """problem.ends and, where it is robin, problem.beta (ValueError for what has no solution)."""
    kind = config["problem"]["ends"]
    return Ends(kind, config["problem"]["beta"] if kind == "robin" else None)


def build_data(config: Config, place: Place, split: str = "test") -> Data:
    """The data of a configuration, or one rank's share of it; of files, `split` is tested."""
    data = config["data"]
    common = {
        "rank": place.rank,
        "world_size": place.world_size,
        "batch_size": data["batch_size"],
        "seed": config["seed"],
        "device": place.device,
        "workers": place.workers,
        "sigma_components": data["sigma_components"],
    }
    if data["kind"] == "files":
        return _file_data(config, place, tested=split, **common)
    return _limb_data(config, place, **common)


def _file_data(config: Config, place: Place, **common: Any) -> FileData:
    """The samples of conf/data/files.yaml."""
    from physics_hybrid.problems.potential.data.file_data import FileData
    from physics_hybrid.problems.potential.data.sample import Conventions

    data = config["data"]
    if not data["path"]:
        raise ValueError(
            "data=files needs data.path=FILE_OR_FOLDER: .npz, .h5, or folders of .npy "
            "(see docs/your_data.md)"
        )
    conventions = Conventions(
        source_units=data["source_units"],
        source_point=data["source_point"],
        ends=build_ends(config),
        # runs of before these keys have none of them
        spacing=data.get("spacing"),
        air_below=data.get("air_below"),
        mask=data.get("mask", "tissue"),
        nan_is_air=data.get("nan_is_air", False),
    )
    return FileData(
        path=place.stage(data["path"]),
        splits=fractions_of(data["splits"]),
        conventions=conventions,
        on_error=data["on_error"],
        **common,
    )


def _limb_data(config: Config, place: Place, **common: Any) -> LimbData:
    """Limbs, or the bodies of label volumes."""
    from physics_hybrid.problems.potential.bodies.limb import LimbDistribution
    from physics_hybrid.problems.potential.data.limb_data import LimbData
    from physics_hybrid.problems.potential.data.stream import Bodies, Solver

    data = config["data"]
    grid = data["grid"]
    if data["kind"] == "labels":
        segmentations = _segmentations(config, report=place.rank == 0)
        grid = grid or segmentations.native_grid()
        limbs: Bodies = segmentations
    else:
        limbs = LimbDistribution.of(data["phantom"])
    return LimbData(
        limbs=limbs,
        solver=Solver(data["solver"], ends=build_ends(config), **data["solve"]),
        grid=tuple(grid or ()),
        folder=data["folder"],
        samples_per_epoch=data["samples_per_epoch"],
        validation_samples=data["validation_samples"],
        train_samples=data["train_samples"],
        solve_together=data["solve_together"],
        grids=data.get("grids") or (),
        **common,
    )


def _segmentations(config: Config, report: bool) -> Segmentations:
    """The label volumes of conf/data/labels.yaml; what a user should know about them goes to
    standard error.
    """
    from physics_hybrid.problems.potential.bodies.body import Cut
    from physics_hybrid.problems.potential.bodies.label_files import volumes
    from physics_hybrid.problems.potential.bodies.segmentation import Segmentations, Sources
    from physics_hybrid.problems.potential.bodies.tissue_table import read_table, with_air_below

    data = config["data"]
    if not data["path"]:
        raise ValueError(
            "data=labels needs data.path=FILE_OR_FOLDER: label volumes such as .nii.gz, .nrrd or "
            ".npy (see docs/your_data.md)"
        )
    tissues = with_air_below(read_table(_table(data["tissues"])), data.get("air_below"))
    wanted = data["source_tissues"]
    sources = Sources(
        positions=data["sources"],
        tissues=[wanted] if isinstance(wanted, str) else wanted,
        margin=data["source_margin"],
        pair_distance=data["pair_distance"],
        current=data["current"],
    )
    air = tissues[0].labels or (0,)
    nan = air[0] if data.get("nan_is_air") else None
    bodies = Segmentations(
        volumes(data["path"], data["spacing"], data["long_axis"], nan),
        tissues,
        seed=config["seed"],
        splits=fractions_of(data["splits"]),
        sources=sources,
        ends=config["problem"]["ends"],
        cut=Cut(slices=data["slices"], air=data["air"], keep_largest=data["keep_largest"]),
    )
    if report:
        for note in bodies.notes:
            print(note, file=sys.stderr, flush=True)
    return bodies


def _table(given: dict[str, Any] | str) -> dict[str, Any]:
    """The table of data.tissues: as it stands, or from the YAML file that it names.

    Raises ValueError for a file that holds no table.
    """
    if not isinstance(given, str):
        return given
    from omegaconf import OmegaConf

    where = f"data.tissues={given}"
    try:
        table = OmegaConf.to_container(OmegaConf.load(Path(given).expanduser()), resolve=True)
    except OSError as error:
        raise ValueError(f"{where} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # YAML's errors and OmegaConf's have no common name
        said = " ".join(str(error).split())
        raise ValueError(f"{where} is no YAML file of tissues ({said})") from error
    if isinstance(table, dict) and set(table) == {"tissues"}:  # with the heading of labels.yaml
        table = table["tissues"]
    if not isinstance(table, dict) or not table:
        form = "name: {label: [3], sigma: [0.3]}"
        raise ValueError(f"{where} must hold a line for each tissue, {form}")
    return {str(name): entry for name, entry in table.items()}


def build_test_plan(config: Config, data: Data) -> TestPlan:
    """What is tested: the grids of evaluation.resolutions, or those that the data name.

    Raises
    ------
    ValueError
        Anything but a list of three sizes; a number of samples below 1; files without test samples
        there.
    """
    evaluation = config["evaluation"]
    wanted = evaluation["resolutions"]
    if wanted is not None and not _are_grids(wanted):
        raise ValueError(
            "evaluation.resolutions must be a list of grids such as [[48,24,24],[96,48,48]]; got"
            f" {wanted}"
        )
    samples, batch_size = evaluation["samples"], evaluation["batch_size"]
    if not isinstance(samples, int) or samples < 1 or batch_size < 1:
        raise ValueError(
            f"evaluation.samples and batch_size must be at least 1; got {samples} and {batch_size}"
        )
    grids: list[Grid] = [(D, H, W) for D, H, W in wanted or data.default_grids()]
    data.check_tested(grids)
    return TestPlan(grids, samples, batch_size)


def _are_grids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_grid, value))


def build_sigma_input(config: Config) -> SigmaInput:
    model = config["model"]
    return SigmaInput(model["sigma_input"], model["sigma_eps"], model["statistics_samples"])


def build_loss(config: Config) -> PotentialLoss:
    loss = config["loss"]
    return PotentialLoss(
        {name: loss[name]["weight"] for name in TERMS},
        mask=loss["mask"],
        exclude_radius=loss["exclude_radius"],
        normalise=loss["mse"]["normalise"],
        sigma_threshold=loss["pde"]["sigma_threshold"],
        boxes=loss["charge"]["boxes"],
        ends=build_ends(config),
    )


def build_metrics(config: Config) -> Metrics:
    evaluation = config["evaluation"]
    return Metrics(
        exclude_radius=evaluation["exclude_radius"],
        distance_bins=tuple(evaluation["distance_bins"]),
        boxes=evaluation["charge_boxes"],
        ends=build_ends(config),
    )


def build_model(config: Config, statistics: Statistics) -> nn.Module:
    """HybridWrapper of the configuration, with the statistics of the training split."""
    from hydra.utils import instantiate

    from physics_hybrid.problems.potential.baseline import build_baseline
    from physics_hybrid.problems.potential.geometry import GeometryEncoder
    from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels

    model = config["model"]
    components = config["data"]["sigma_components"]
    one_of((1, 3, 6), "data.sigma_components", components)
    encoder = GeometryEncoder(components + 1, **model["geometry"])
    home = config["data"].get("grid")
    baseline = build_baseline(ends=build_ends(config), home=home, **model["baseline"])
    channels = feature_channels(components, encoder.channels)
    backbone = instantiate(model["backbone"], in_channels=channels, out_channels=1, _convert_="all")
    return HybridWrapper(
        backbone,
        encoder,
        baseline,
        composition=model["composition"],
        sigma_components=components,
        sigma_input=model["sigma_input"],
        sigma_eps=model["sigma_eps"],
        spacing_hidden=model["spacing_hidden"],
        # runs of before have no such key
        home=_home(model.get("evaluate_at", "native"), home),
        **statistics,
    )


def _home(evaluate_at: str, grid: list[int] | None) -> list[int] | None:
    """The grid that corrections are taken from on finer ones; None: each grid its own.

    Raises
    ------
    ValueError
        Another word; home without a training grid.
    """
    one_of(("native", "home"), "model.evaluate_at", evaluate_at)
    if evaluate_at == "native":
        return None
    if grid is None:
        raise ValueError("model.evaluate_at=home needs the grid of training: set data.grid")
    return grid
