"""Truth at voxel corners (`u_nodes`): held to `u` at voxel centres."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.data.sample import Sample
from physics_hybrid.problems.potential.physics.conductor import Conductor, outside_sphere
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.nodes import corners
from physics_hybrid.problems.potential.physics.elements.source import bending
from physics_hybrid.problems.potential.physics.ends import Ends

#: Relative L2 by which the means of u_nodes over voxel corners may differ from u. Curvature is a
#: few per cent; another unit, order of axes or sample is more.
NODES_DIFFER = 0.1
#: Voxels round an electrode that do not count: there u is no mean of its corners.
CLOSE = 3.0


def nodes_differ(sample: Sample, ends: Ends) -> float:
    """Relative L2 of the means of `nodes` over voxel corners against u, away from the electrodes.

    The centres of our own truth hold the closed form as it is there, not its mean: where the plain
    difference is large, `bending` is put right, too.
    """
    u, spacing = _batch_of_one(sample.u), _batch_of_one(sample.spacing)
    electrodes = _electrodes(sample)
    far = _batch_of_one(sample.mask) > 0
    for electrode in electrodes.electrodes:
        far = far & outside_sphere(electrode.point, sample.shape, spacing, CLOSE)

    apart = corners(_batch_of_one(sample.nodes)).mean(dim=1) - u
    differ = _relative(apart[far], u[far], ends)
    if differ > NODES_DIFFER and sample.singularity == "subtraction":
        with suppress(ValueError):  # the problem has no solution: nothing can be put right
            conductor = Conductor(_batch_of_one(sample.sigma), spacing, ends)
            mended = apart + bending(conductor, electrodes)
            differ = min(differ, _relative(mended[far], u[far], ends))
    return differ


def _electrodes(sample: Sample) -> PointSource:
    back = sample.return_point
    return PointSource(
        _batch_of_one(sample.source_point),
        _batch_of_one(sample.current),
        None if back is None else _batch_of_one(back),
    )


def _relative(apart: Tensor, size: Tensor, ends: Ends) -> float:
    """|apart| / |size| of voxels (N,); without their means where either has a free constant."""
    if ends.floating and len(apart):
        apart, size = apart - apart.mean(), size - size.mean()
    return float(apart.norm() / size.norm().clamp_min(1e-30))


def _batch_of_one(value: object) -> Tensor:
    return torch.from_numpy(np.asarray(value, dtype=np.float64))[None]
