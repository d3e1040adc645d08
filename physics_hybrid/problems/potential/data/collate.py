"""Solved samples become a batch of tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.data.sample import Sample
from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.scene import Batch


def collate(samples: Sequence[Sample], sigma_components: int) -> Batch:
    """Stack samples of one grid into a float32 batch; labels only where all have them.

    Raises
    ------
    ValueError
        Where samples differ in grid, number of electrodes or kind of truth, or sigma needs more
        than `sigma_components`.
    """
    _alike(samples)
    return Batch(
        sigma=_stack([components(s.sigma, sigma_components, s.name) for s in samples]),
        source=_stack([s.source for s in samples]),
        u=_stack([s.u for s in samples]),
        spacing=_stack([s.spacing for s in samples]),
        source_point=_stack([s.source_point for s in samples]),
        current=_stack([s.current for s in samples]),
        labels=_stack_if_all([s.labels for s in samples], np.uint8),
        names=tuple(s.name for s in samples),
        return_point=_stack_if_all([s.return_point for s in samples], np.float32),
        nodes=_stack_if_all([s.nodes for s in samples], np.float32),
        singularity=samples[0].singularity,
        region=_regions(samples),
    )


def _regions(samples: Sequence[Sample]) -> Tensor | None:
    """Where losses and metrics count; None where that is all tissue of all samples."""
    if all(s.region is None for s in samples):
        return None
    masks = [s.mask if s.region is None else s.region for s in samples]
    return torch.from_numpy(np.stack(masks))


def _alike(samples: Sequence[Sample]) -> None:
    shapes = {s.shape for s in samples}
    if len(shapes) > 1:
        raise ValueError(f"samples of different grids cannot share a batch: {sorted(shapes)}")
    kinds: dict[str, Collection[object]] = {
        "finite elements and other truth": {s.nodes is None for s in samples},
        "nodal and subtracted sources": {s.singularity for s in samples},
        "samples of one electrode and of a pair": {s.return_point is None for s in samples},
    }
    for what, values in kinds.items():
        if len(values) > 1:
            raise ValueError(f"{what} cannot share a batch")


def _stack(values: Sequence[np.ndarray | float], dtype: type[np.generic] = np.float32) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(v, dtype=dtype) for v in values]))


def _stack_if_all(values: Sequence[np.ndarray | None], dtype: type[np.generic]) -> Tensor | None:
    """None where a sample has none."""
    there = [v for v in values if v is not None]
    return _stack(there, dtype) if len(there) == len(values) else None
