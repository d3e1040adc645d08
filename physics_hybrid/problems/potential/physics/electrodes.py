"""Electrodes: the points where current enters and leaves, and what they are on a grid.

f = I / V  in the voxel that holds the electrode,  -I / V  at the returning one       [A/m^3]
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor


@dataclass(frozen=True)
class PointSource:
    """Point electrodes, one for each sample of a batch.

    point : Tensor (K, 3), metres from the outer corner of voxel (0, 0, 0).
    current : Tensor (K,), amperes.
    returns : Tensor (K, 3) or None
        Where a second electrode takes the current out again (ends: pair), metres.

    Raises
    ------
    ValueError
        For a wrong shape; a point or a current that is not finite.
    """

    point: Float[Tensor, "K 3"]
    current: Float[Tensor, " K"]
    returns: Float[Tensor, "K 3"] | None = None

    def __post_init__(self) -> None:
        points = self.point.ndim == 2 and self.point.shape[1] == 3
        if not points or self.current.shape != self.point.shape[:1]:
            raise ValueError(
                "a source needs point (B, 3) and current (B,); "
                f"got {tuple(self.point.shape)} and {tuple(self.current.shape)}"
            )
        if self.returns is not None and self.returns.shape != self.point.shape:
            raise ValueError(
                f"the returning electrodes need shape {tuple(self.point.shape)}, as point; "
                f"got {tuple(self.returns.shape)}"
            )
        if not bool(torch.isfinite(self.point).all() & torch.isfinite(self.current).all()):
            raise ValueError("source point (m) and current (A) must be finite")

    def to(self, dtype: torch.dtype) -> "PointSource":
        """The same electrodes in another precision."""
        returns = None if self.returns is None else self.returns.to(dtype)
        return PointSource(self.point.to(dtype), self.current.to(dtype), returns)

    @property
    def electrodes(self) -> "list[PointSource]":
        """The one electrode, or the two of a pair with currents of opposite sign."""
        if self.returns is None:
            return [self]
        return [PointSource(self.point, self.current), PointSource(self.returns, -self.current)]


def check_source(conductor: Conductor, source: PointSource) -> None:
    """Raise ValueError as `check_number`, and for an electrode outside the grid or in air."""
    check_number(conductor, source)
    for electrode in source.electrodes:
        conductor.sigma_at(conductor.in_tissue(electrode.point))  # refuses air


def check_number(conductor: Conductor, source: PointSource) -> None:
    """Raise ValueError for several conductors with another number of sources; the second electrode
    of a pair missing, or not asked for."""
    bodies, count = len(conductor.sigma), len(source.point)
    if bodies not in (1, count):
        raise ValueError(
            f"{bodies} conductors and {count} sources: give one source for each conductor, "
            "or many sources for one"
        )
    paired = source.returns is not None
    if paired != (conductor.ends.kind == "pair"):
        have = "a second electrode" if paired else "one electrode"
        raise ValueError(
            f"ends={conductor.ends.kind} with {have}: ends=pair needs a returning electrode, "
            "and no other ends takes one"
        )


def nodal_source(conductor: Conductor, source: PointSource) -> Float[Tensor, "K D H W"]:
    """The source as a current density in the one voxel that holds it: I / V there, A/m^3; -I / V at
    the returning electrode.

    Raises
    ------
    ValueError
        From `check_source`.
    """
    check_source(conductor, source)
    count, current = len(source.point), source.current
    f = torch.zeros(count, *conductor.shape, dtype=current.dtype, device=current.device)
    rows = torch.arange(count, device=f.device)
    volume = conductor.voxel_volume.to(f)
    for electrode in source.electrodes:
        point = conductor.in_tissue(electrode.point)
        d, h, w = conductor.voxel_of(point).unbind(dim=1)
        f.index_put_((rows, d, h, w), electrode.current / volume, accumulate=True)
    return f
