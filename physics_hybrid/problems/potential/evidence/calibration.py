"""What a shipped model is likely to be wrong by: errors of limbs it has not seen, and what those it
was trained on look like. Kept in its limb.json (`experience.Experience`).

Calibration limbs are of the test split, after those of its evaluation; features of the bodies that
trained it are of the training split, others' of the validation split.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.data.stream import SPLITS, LimbStream
from physics_hybrid.problems.potential.evidence.ship import limbs_of, predicted
from physics_hybrid.problems.potential.experience import Experience, edge, features
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.predictor import NAME, Predictor
from physics_hybrid.writing import write_text


def streams(model: Predictor, grids: Sequence[Grid], split: str) -> list[LimbStream]:
    """The limbs of a shipped model's recipe, a stream for each grid."""
    stream = limbs_of(model, model.about["pinned"], split)
    return [dataclasses.replace(stream, grid=grid) for grid in grids]


def drawn(model: Predictor, grids: Sequence[Grid], split: str, count: int) -> Tensor:
    """Features of limbs of a split, on each of the grids in turn. (count, F)"""
    rows = []
    turns = itertools.cycle(streams(model, grids, split))
    for number, stream in zip(range(count), turns, strict=False):
        body = stream.limbs.draw(stream.seed, SPLITS[split], number).voxelise(stream.grid)
        sigma = torch.from_numpy(body.sigma.copy())[None]
        spacing = torch.from_numpy(body.spacing)[None]
        point = torch.from_numpy(body.source_point)[None]
        rows.append(features(Conductor(sigma, spacing, model.ends), point))
    return torch.cat(rows)


def errors(
    model: Predictor, grids: Sequence[Grid], first: int, count: int
) -> Iterator[tuple[float, float]]:
    """Relative L2 of test limbs from number `first` on, and the edge of their voxels in m."""
    recipe = model.about["pinned"]
    metrics = Metrics(recipe["exclude_radius"], ends=model.ends)
    turns = itertools.cycle(streams(model, grids, "test"))
    for number, stream in zip(range(first, first + count), turns, strict=False):
        batch = stream.batch([number])
        phi = predicted(model, batch, model.network.sigma_components)
        body = Conductor(batch.sigma, batch.spacing, model.ends)
        yield metrics(phi[None], batch)[0]["relative_l2"], edge(body)


def _tested(about: Mapping[str, Any]) -> list[Grid]:
    """The grids of a model's tests that are not finer than the pinned one along any axis."""
    pinned = tuple(about["pinned"]["grid"])
    grids = [tuple(map(int, name.split("x"))) for name in about["samples"]]
    coarse = [grid for grid in grids if all(n <= m for n, m in zip(grid, pinned, strict=True))]
    return coarse or [pinned]  # type: ignore[return-value]


def calibrate(folder: Path, grids: Sequence[Grid] | None, count: int) -> Experience:
    """Write `calibration` into limb.json of a shipped model.

    grids : taken in turn; None: those of its tests that are not finer than the pinned one.
    count : calibration limbs; as many features are kept back, and three times as many of training.

    Raises
    ------
    FileNotFoundError
        No model is shipped there.
    ValueError
        Too few limbs; a model shipped before its limb.json said which limbs it knows.
    """
    model = Predictor.load(folder)
    about = dict(model.about)
    missing = [key for key in ("pinned", "samples") if key not in about]
    if missing:
        raise ValueError(
            f"{folder}/{NAME}.json does not say {' and '.join(missing)}, the limbs that it was"
            " trained and tested on: python -m physics_hybrid ship RUN_FOLDER writes one that does"
        )
    grids = grids or _tested(about)
    first = max(about["samples"].values())
    training = drawn(model, grids, "train", 3 * count)
    kept_back = drawn(model, grids, "validation", count)
    found, edges = zip(*errors(model, grids, first, count), strict=True)
    experience = Experience.of(found, edges, training, kept_back)
    said = {"split": "test", "first": first, "grids": [name_of(grid) for grid in grids]}
    about["calibration"] = {**said, **experience.written()}
    write_text(folder / f"{NAME}.json", json.dumps(about, indent=1) + "\n")
    return experience
