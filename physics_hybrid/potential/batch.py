"""Solved samples become a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from physics_hybrid.potential.data.sample import Sample
from physics_hybrid.potential.scene import Batch


def components(sigma: np.ndarray, wanted: int, where: str) -> np.ndarray:
    """sigma (C, D, H, W) with the `wanted` number of components (1, 3 or 6).

    Raises
    ------
    ValueError
        Where the tensor holds more than `wanted` components can say (data.sigma_components).
    """
    have = len(sigma)
    if have == wanted:
        return sigma
    if have < wanted:
        out = np.repeat(sigma, 3, axis=0) if have == 1 else sigma
        return out if wanted == 3 else np.concatenate([out, np.zeros_like(out)])
    off = sigma[3:] if have == 6 else sigma[:0]
    uneven = wanted == 1 and (np.ptp(sigma[:3], axis=0) > 0).any()
    if off.any() or uneven:
        raise ValueError(
            f"{where}: sigma has {have} components that {wanted} cannot represent; train with data.sigma_components={have if off.any() else 3}"
        )
    return sigma[:wanted]


def collate(samples: Sequence[Sample], sigma_components: int) -> Batch:
    """Stack samples of one grid into a float32 batch (ValueError where grids differ)."""
    shapes = {s.shape for s in samples}
    if len(shapes) > 1:
        raise ValueError(f"samples of different grids cannot share a batch: {sorted(shapes)}")
    for what, values in (("finite elements and other truth", {s.nodes is None for s in samples}), ("nodal and subtracted sources", {s.singularity for s in samples})):
        if len(values) > 1:
            raise ValueError(f"{what} cannot share a batch")
    paired = {s.return_point is not None for s in samples}
    if len(paired) > 1:
        raise ValueError("samples of one electrode and of a pair cannot share a batch")
    def stack(values):
        return torch.from_numpy(np.stack([np.asarray(v, dtype=np.float32) for v in values]))
    labels = [s.labels for s in samples]
    return Batch(
        sigma=stack([components(s.sigma, sigma_components, s.name) for s in samples]),
        source=stack([s.source for s in samples]),
        u=stack([s.u for s in samples]),
        spacing=stack([s.spacing for s in samples]),
        source_point=stack([s.source_point for s in samples]),
        current=stack([s.current for s in samples]),
        labels=None if any(label is None for label in labels) else torch.from_numpy(np.stack(labels)),
        names=tuple(s.name for s in samples),
        return_point=stack([s.return_point for s in samples]) if paired == {True} else None,
        nodes=None if samples[0].nodes is None else stack([s.nodes for s in samples]),
        singularity=samples[0].singularity,
    )
