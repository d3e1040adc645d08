"""One body in float64: what the integrals of a certificate need of a conductor."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import Conductor, matrix
from physics_hybrid.problems.potential.physics.ends import Ends

#: Where the six components of a symmetric tensor stand: (a, b) of DD, HH, WW, DH, DW, HW.
AXES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))

#: Voxels handled at once: what fits into a fast memory.
SLAB = 32_000


@dataclass(frozen=True)
class Body:
    """sigma (C, D, H, W) in S/m, 0 in air; spacing (3,) in metres.

    Raises
    ------
    ValueError
        Where sigma of tissue is not positive definite.
    """

    sigma: Float[Tensor, "C D H W"]
    spacing: Float[Tensor, " 3"]
    ends: Ends

    def __post_init__(self) -> None:
        if len(self.sigma) == 1 or (len(self.sigma) < 6 and self._all_along_axes()):
            return
        smallest = torch.where(self.tissue, self.stiffest, 1.0)
        if not bool((smallest > 0).all()):
            index = tuple((smallest <= 0).nonzero()[0].tolist())
            raise ValueError(
                f"sigma of voxel {index} is not positive definite: "
                f"{self.sigma[:, index[0], index[1], index[2]].tolist()} S/m. "
                "A certificate needs tissue that conducts in every direction"
            )

    def _all_along_axes(self) -> bool:
        """Whether what conducts along D does across it, too."""
        along, *across = (int(torch.count_nonzero(sigma)) for sigma in self.sigma)
        return all(count == along for count in across)

    @classmethod
    def of(cls, conductor: Conductor, index: int = 0) -> "Body":
        """One body of a batch."""
        sigma, spacing = conductor.sigma[index].double(), conductor.spacing[index].double()
        if len(sigma) == 6:
            sigma = sigma * conductor.tissue[index]
            if not bool((sigma[3:] != 0).any()):
                sigma = sigma[:3]
        body = cls(sigma, spacing, conductor.ends)
        if len(conductor.sigma) == 1 and sigma.data_ptr() == conductor.sigma.data_ptr():
            body.__dict__["conductor"] = conductor  # checked already
        return body

    @cached_property
    def conductor(self) -> Conductor:
        """The same, as a batch of one."""
        return Conductor(self.sigma[None], self.spacing[None], self.ends)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid (D, H, W)."""
        d, h, w = self.sigma.shape[1:]
        return d, h, w

    @cached_property
    def tissue(self) -> Bool[Tensor, "D H W"]:
        """True where current can flow."""
        return self.sigma[0] > 0

    @cached_property
    def volume(self) -> float:
        """Of a voxel, m^3."""
        return float(self.spacing.prod())

    @cached_property
    def diagonal(self) -> list[Float[Tensor, "D H W"]]:
        """(sigma_DD, sigma_HH, sigma_WW), S/m."""
        return [self.sigma[min(axis, len(self.sigma) - 1)] for axis in range(3)]

    @cached_property
    def mean(self) -> Float[Tensor, "D H W"]:
        """Mean of the diagonal, S/m."""
        if len(self.sigma) == 1:
            return self.sigma[0]
        return (self.sigma[0] + self.sigma[1]).add_(self.sigma[2]).div_(3)

    @cached_property
    def shares(self) -> Float[Tensor, "nD nH nW"]:
        """One over the sum of `mean` over the voxels round a node; 0 in air."""
        return reciprocal(around(self.mean))

    @cached_property
    def stiffest(self) -> Float[Tensor, "D H W"]:
        """mu, the largest number with sigma >= mu diag(sigma): 1 unless a tensor is oblique."""
        if len(self.sigma) < 6:
            positive = (self.sigma > 0).all(dim=0)
            return positive.double()
        root = torch.where(self.sigma[:3] > 0, self.sigma[:3], 1.0).rsqrt()
        full = matrix(self.sigma.movedim(0, -1))
        scaled = full * root.movedim(0, -1)[..., None] * root.movedim(0, -1)[..., None, :]
        smallest = torch.linalg.eigvalsh(scaled)[..., 0]
        return torch.where((self.sigma[:3] > 0).all(dim=0), smallest * (1 - 1e-12), 0.0)

    @cached_property
    def resistivity(self) -> Float[Tensor, "C D H W"]:
        """sigma^-1, ohm m; 0 in air."""
        if len(self.sigma) < 6:
            return reciprocal(self.sigma)
        full = matrix(torch.where(self.tissue, self.sigma, _UNIT).movedim(0, -1))
        inverse = torch.linalg.inv(full)
        return torch.stack([inverse[..., a, b] for a, b in AXES]) * self.tissue

    @cached_property
    def drops(self) -> list[Float[Tensor, "D H W"]]:
        """h / (8 sigma) times `mean` along each axis, m: what a current over these is worth at
        nodes (`potential`)."""
        steps = (float(h) / 8 for h in self.spacing)
        rows = (self.resistivity[min(axis, len(self.sigma) - 1)] for axis in range(3))
        return [(rho * self.mean).mul_(step) for rho, step in zip(rows, steps, strict=True)]

    def at(self, voxels: Int[Tensor, "n 3"]) -> Float[Tensor, "n C"]:
        """sigma of voxels, S/m."""
        d, h, w = voxels.unbind(dim=1)
        return self.sigma[:, d, h, w].T

    def slab(self, planes: slice) -> "Body":
        """Some planes across D, with what is known of them."""
        return self.part((planes, slice(None), slice(None)))

    def part(self, there: tuple[slice, slice, slice]) -> "Body":
        """Some voxels, with what is known of them."""
        part = Body.__new__(Body)
        object.__setattr__(part, "sigma", self.sigma[(slice(None), *there)])
        object.__setattr__(part, "spacing", self.spacing)
        object.__setattr__(part, "ends", self.ends)
        part.__dict__["tissue"] = self.tissue[there]
        part.__dict__["resistivity"] = self.resistivity[(slice(None), *there)]
        part.__dict__["mean"] = self.mean[there]
        return part

    @property
    def exchange(self) -> float:
        """beta of the ends, 1/m."""
        return self.ends.exchange

    @property
    def robin(self) -> bool:
        """Whether the ends exchange current in proportion to their potential."""
        return 0 < self.exchange < math.inf


def slabs(shape: tuple[int, int, int]) -> Iterator[slice]:
    """Planes across D, as many at a time as fit into a fast memory."""
    size = max(1, SLAB // (shape[1] * shape[2]))
    for start in range(0, shape[0], size):
        yield slice(start, min(start + size, shape[0]))


def gathered(
    low: Float[Tensor, "_ _ _"], axis: int, high: Float[Tensor, "_ _ _"] | None = None
) -> Float[Tensor, "_ _ _"]:
    """At every place between voxels along an axis: what the voxel above it has on its lower side,
    and the one below it on its upper side; the same where `high` is None."""
    high, n = low if high is None else high, low.shape[axis]
    inner = low.narrow(axis, 1, n - 1) + high.narrow(axis, 0, n - 1)
    return torch.cat([low.narrow(axis, 0, 1), inner, high.narrow(axis, n - 1, 1)], dim=axis)


def reciprocal(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """1 / values; 0 where they are 0."""
    square = (values * values).clamp_min_(torch.finfo(values.dtype).tiny)
    return torch.div(values, square, out=square)


def around(values: Float[Tensor, "D H W"]) -> Float[Tensor, "nD nH nW"]:
    """Sum over the voxels round every node."""
    for axis in range(3):
        values = gathered(values, axis)
    return values


def split(conductor: Conductor, factor: int) -> Conductor:
    """The same body on voxels that are `factor` times smaller along each axis."""
    sigma = split_field(conductor.sigma, factor)
    return Conductor(sigma, conductor.spacing / factor, conductor.ends)


def split_field(field: Tensor, factor: int) -> Tensor:
    """Every voxel of (..., D, H, W) as factor^3 alike."""
    for axis in (-1, -2, -3):
        field = field.repeat_interleave(factor, dim=axis)
    return field


_UNIT = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64).view(6, 1, 1, 1)
