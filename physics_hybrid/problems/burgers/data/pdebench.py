"""PDEBench's files of the one-dimensional Burgers equation (Takamoto et al. 2022).

    tensor         (n, T, N) float32: values at cell centres
    x-coordinate   (N,), even
    t-coordinate   (T,) or one longer, increasing
    Nu             attribute, or in the file's name: 1D_Burgers_Sols_Nu0.001.hdf5

Samples are read one by one, every `stride`-th frame; 1024 points become `cells` means, or (as in
published numbers) every fourth point, which loses up to 1.5e-3 of the mean. As in PDEBench, the
first tenth is the test split.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from physics_hybrid.checks import one_of
from physics_hybrid.problems.burgers.data.trajectories import SPLITS, Trajectories
from physics_hybrid.reading import Dataset, FileError, Group, open_h5, text_of

#: Share of a file that is tested.
TEST = 10
#: Steps of a coordinate may differ by this share.
EVEN = 1e-3


class TrajectoryError(FileError):
    """A file of trajectories that breaks a rule."""


@dataclass(frozen=True)
class Layout:
    """How a file is read.

    cells : that a trajectory is brought to.
    frames : that are kept of it, every `stride`-th; None: all.
    reduce : mean, or sample.
    nu : where neither attribute nor name say it.
    """

    cells: int
    stride: int
    frames: int | None = None
    reduce: str = "mean"
    nu: float | None = None

    def __post_init__(self) -> None:
        one_of(("mean", "sample"), "data.reduce", self.reduce)


def read(
    path: Path, layout: Layout, train: int, validation: int, test: int
) -> dict[str, Trajectories]:
    """Splits of a file: up to `test` of its first tenth; of the rest, the last `validation`
    validate, and up to `train` of the others train.

    Raises
    ------
    TrajectoryError
        The first rule that is broken: file, dataset, sample.
    """

    def chosen(tensor: Dataset) -> dict[str, list[int]]:
        return _split(tensor, train, validation, test)

    return _read(path, layout, chosen)


def read_whole(path: Path, layout: Layout, test: int | None) -> dict[str, Trajectories]:
    """The first `test` samples of a file (None: all) as each of the splits: nothing trains.

    Raises
    ------
    TrajectoryError
        The first rule that is broken: file, dataset, sample.
    """
    every = _read(path, layout, lambda tensor: {"test": list(range(len(tensor)))[:test]})["test"]
    return dict.fromkeys(SPLITS, every)


def _read(
    path: Path, layout: Layout, chosen: Callable[[Dataset], dict[str, list[int]]]
) -> dict[str, Trajectories]:
    """chosen : numbers of samples by split."""
    with open_h5(path, TrajectoryError) as file:
        tensor = _tensor(file)
        frames, points = tensor.shape[1:]
        dt = _frame_step(file, frames) * layout.stride
        _check_grid(file, points, layout)
        nu = _viscosity(file, path, layout)
        return {
            split: Trajectories(
                u=torch.from_numpy(_samples(tensor, rows, layout)),
                dt=dt,
                nu=torch.full((len(rows),), nu),
                names=tuple(f"{path}[{i}]" for i in rows),
            )
            for split, rows in chosen(tensor).items()
        }


def _tensor(file: Group) -> Dataset:
    tensor = file.dataset("tensor")
    if tensor.ndim != 3 or not len(tensor):
        raise tensor.error(f"must be (samples, times, points); its shape is {tensor.shape}")
    if not np.issubdtype(tensor.dtype, np.floating):
        raise tensor.error(f"must hold numbers with a point; it holds {tensor.dtype}")
    return tensor


def _coordinate(file: Group, key: str) -> NDArray[np.float64]:
    values = np.asarray(file.dataset(key)[()], dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise file.error(f"must be a list of numbers; its shape is {values.shape}", key)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise file.error(f"must be finite; entry {bad[0]} is {values[bad[0]]}", key)
    return values


def _frame_step(file: Group, frames: int) -> float:
    key = "t-coordinate"
    times = _coordinate(file, key)
    if len(times) not in (frames, frames + 1):
        raise file.error(f"has {len(times)} times, and tensor has {frames} frames", key)
    steps = np.diff(times[:frames])
    for i in np.flatnonzero(~(steps > 0))[:1].tolist():
        raise file.error(f"must increase; {times[i]:g} is followed by {times[i + 1]:g}", key)
    for i in np.flatnonzero(np.abs(steps - steps.mean()) > EVEN * steps.mean())[:1].tolist():
        rule = f"must be even; the step after frame {i} is {steps[i]:g}, the mean {steps.mean():g}"
        raise file.error(rule, key)
    return float(steps.mean())


def _check_grid(file: Group, points: int, layout: Layout) -> None:
    key = "x-coordinate"
    x = _coordinate(file, key)
    if len(x) != points:
        raise file.error(f"has {len(x)} points, and tensor has {points}", key)
    steps = np.diff(x)
    for i in np.flatnonzero(~(np.abs(steps - 1 / points) < EVEN / points))[:1].tolist():
        raise file.error(
            f"must be the centres of {points} even cells on (0, 1); the step after point {i} is"
            f" {steps[i]:g}, not {1 / points:g}",
            key,
        )
    if points % layout.cells:
        raise file.error(
            f"has {points} points, which do not make data.cells={layout.cells}: take a divisor", key
        )


def _viscosity(file: Group, path: Path, layout: Layout) -> float:
    stored = file.attribute("Nu")
    named = re.search(r"Nu(\d+(?:\.\d+)?(?:e-?\d+)?)", path.name)
    value: object = layout.nu
    if stored is not None:
        value = text_of(stored)
    elif named:
        value = named[1]
    if value is None:
        raise file.error(
            "does not say its viscosity: no attribute Nu, and no Nu0.001 in the name; set data.nu"
        )
    try:
        nu = float(str(value).strip("[]"))
    except ValueError:
        raise file.error(f"must be a number; got {value!r}", "Nu") from None
    if not 0 < nu < math.inf:
        raise file.error(f"must be > 0 and finite; got {nu:g}", "Nu")
    if layout.nu is not None and abs(nu - layout.nu) > 1e-6 * nu:
        raise file.error(f"is {nu:g}, and data.nu={layout.nu:g}: leave data.nu out", "Nu")
    return nu


def _split(tensor: Dataset, train: int, validation: int, test: int) -> dict[str, list[int]]:
    count = len(tensor)
    tested, rest = list(range(count // TEST)), list(range(count // TEST, count))
    if not tested or len(rest) <= validation:
        raise tensor.error(
            f"has {count} samples: the first tenth is tested, data.validation={validation} choose"
            " the best, and none is left for one of the splits; bring more, or set a smaller"
            " data.validation"
        )
    kept = len(rest) - validation
    return {"train": rest[:kept][:train], "validation": rest[kept:], "test": tested[:test]}


def _samples(tensor: Dataset, rows: list[int], layout: Layout) -> NDArray[np.float32]:
    frames = len(range(0, tensor.shape[1], layout.stride))
    wanted = frames if layout.frames is None else layout.frames
    if frames < max(wanted, 3):
        raise tensor.error(
            f"has {frames} frames at data.stride={layout.stride}, and {max(wanted, 3)} are needed"
        )
    u = np.empty((len(rows), wanted, layout.cells), np.float32)
    for k, i in enumerate(rows):
        values = np.asarray(tensor[i][:: layout.stride], dtype=np.float32)[:wanted]
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            frame, point = bad[0].tolist()
            raise TrajectoryError(
                f"{tensor.where}[{i}]",
                tensor.key,
                f"must be finite; frame {frame * layout.stride}, point {point} is"
                f" {values[frame, point]}",
            )
        u[k] = _reduced(values, layout)
    return u


def _reduced(values: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    blocks = values.reshape(len(values), layout.cells, -1)
    if layout.reduce == "sample":
        return blocks[:, :, 0]
    means: NDArray[np.float32] = blocks.mean(axis=2, dtype=np.float64).astype(np.float32)
    return means
