"""A phi for the solver, and the same operator on a grid of half as many voxels along every side.

Coarse grids join 2 x 2 x 2 voxels (an odd side leaves one thin coarse voxel: any size works).
Between coarse voxels the conductance is the sum of the fine ones over half the distance, so that
every level is again a 7-point operator of the same family, with air, interfaces and grounded ends
inherited. What leaks to electrodes is summed, too, over twice the half voxel of tissue and the same
contact.

Memory is what a stencil waits for. Fields are taken as rows of voxels, in which a neighbour along
any axis lies at a fixed distance, and worked on in blocks that stay in a processor's cache: twice
as fast as whole fields after each other. A GPU takes them whole.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import Grid, pad
from physics_hybrid.problems.potential.physics.conductor import Faces
from physics_hybrid.problems.potential.physics.flux import FluxOperator, Leak, both_sides

#: Values of a field that are worked on together: half a megabyte in float32, and no fewer voxels of
#: each sample than the second number.
BLOCK, FEWEST = 2**17, 2**11


@dataclass(frozen=True)
class Haloed:
    """Fields (K, D, H, W) with a plane of zeros before and behind: every voxel has neighbours.

    rows : Tensor (K, H W + D H W + H W).
    """

    rows: Float[Tensor, "K row"]
    n: Grid

    @classmethod
    def empty(cls, count: int, n: Grid, like: Tensor) -> "Haloed":
        """To be filled; only the halo is zero."""
        D, H, W = n
        rows = like.new_empty(count, (D + 2) * H * W)
        rows[:, : H * W] = 0
        rows[:, -H * W :] = 0
        return cls(rows, n)

    @classmethod
    def of(cls, field: Float[Tensor, "K D H W"]) -> "Haloed":
        """A copy of a field."""
        D, H, W = field.shape[1:]
        haloed = cls.empty(len(field), (D, H, W), field)
        haloed.field.copy_(field)
        return haloed

    @property
    def inner(self) -> Float[Tensor, "K voxels"]:
        """The voxels of the fields."""
        D, H, W = self.n
        return self.rows[:, H * W : (D + 1) * H * W]

    @property
    def field(self) -> Float[Tensor, "K D H W"]:
        """The fields; the same memory."""
        return torch.unflatten(self.inner, 1, self.n)


class Stencil:
    """The operator's conductances as neighbour weights and a diagonal, applied in place.

    Algebraically `FluxOperator.__call__` (a test holds them equal); no gradient.

    conductance : three tensors (B, D+1, H, W), (B, D, H+1, W), (B, D, H, W+1)
        S/m^3 on the faces, as `FluxOperator` has them.
    leak : to electrodes at 0 V, or None.
    """

    def __init__(self, conductance: Faces, leak: Leak | None = None) -> None:
        d, h, w = conductance[0].shape[1:]
        self.n: Grid = (d - 1, h, w)
        self.conductance = conductance
        self.leak = leak
        self.diagonal = both_sides(conductance)
        if leak is not None:
            self.diagonal += leak.conductance
        tiny = torch.finfo(self.diagonal.dtype).tiny
        self.inverse = torch.where(self.diagonal > 0, 1 / self.diagonal.clamp_min(tiny), 0.0)
        #: How far the next voxel along each axis is in a row of voxels.
        self._shifts = (h * w, w, 1)
        self._to_next = [self._row(k, axis) for axis, k in enumerate(conductance)]
        self._diagonal, self._inverse = self.diagonal.flatten(1), self.inverse.flatten(1)

    @classmethod
    def of(cls, operator: FluxOperator, dtype: torch.dtype) -> "Stencil":
        """Of an operator, in a precision."""
        as_typed = operator.to(dtype)
        return cls(as_typed.conductance, as_typed.leak)

    def _row(self, faces: Float[Tensor, "B _ _ _"], axis: int) -> Float[Tensor, "B row"]:
        """Conductance from every voxel to the next along an axis, 0 from the last, behind a plane
        of zeros."""
        inner = faces.narrow(axis + 1, 1, self.n[axis] - 1)
        to_next = F.pad(inner, pad(axis, before=0, after=1)).flatten(1)
        return F.pad(to_next, (self.n[1] * self.n[2], 0))

    def __call__(self, phi: Float[Tensor, "K D H W"]) -> Float[Tensor, "K D H W"]:
        """A phi, A/m^3."""
        step, out = Haloed.of(phi), torch.empty_like(phi, memory_format=torch.contiguous_format)
        rows = out.flatten(1)
        for begin, end in self._blocks(len(phi)):
            block = rows[:, begin:end]
            torch.mul(self._diagonal[:, begin:end], step.inner[:, begin:end], out=block)
            self._add_neighbours(block, step, begin, end, -1.0)
        return out

    def subtract(self, residual: Float[Tensor, "K D H W"], step: Haloed) -> None:
        """residual -= A step."""
        rows = residual.view(len(residual), -1)
        for begin, end in self._blocks(len(residual)):
            self._subtract(rows[:, begin:end], step, begin, end)

    def advance(
        self,
        x: Float[Tensor, "K D H W"],
        residual: Float[Tensor, "K D H W"],
        step: Haloed,
        momentum: float,
        weight: float,
    ) -> Haloed:
        """residual -= A step, x += next; next = momentum step + weight D^-1 residual. The next."""
        following = Haloed.empty(len(x), self.n, x)
        rows, xs = residual.view(len(residual), -1), x.view(len(x), -1)
        for begin, end in self._blocks(len(x)):
            block, new = rows[:, begin:end], following.inner[:, begin:end]
            self._subtract(block, step, begin, end)
            torch.mul(step.inner[:, begin:end], momentum, out=new)
            new.addcmul_(self._inverse[:, begin:end], block, value=weight)
            xs[:, begin:end].add_(new)
        return following

    def _blocks(self, count: int) -> Iterator[tuple[int, int]]:
        """Ranges of voxels that are worked on together."""
        voxels = math.prod(self.n)
        size = max(BLOCK // count, FEWEST)
        if self.diagonal.device.type == "cuda":  # launches are what a GPU waits for
            size = voxels
        for begin in range(0, voxels, size):
            yield begin, min(begin + size, voxels)

    def _subtract(self, block: Tensor, step: Haloed, begin: int, end: int) -> None:
        """block -= A step for a range of voxels."""
        diagonal = self._diagonal[:, begin:end]
        block.addcmul_(diagonal, step.inner[:, begin:end], value=-1.0)
        self._add_neighbours(block, step, begin, end, 1.0)

    def _add_neighbours(
        self, block: Tensor, step: Haloed, begin: int, end: int, sign: float
    ) -> None:
        """block += sign sum of conductance times step in the neighbours."""
        halo = self.n[1] * self.n[2]
        first, last = halo + begin, halo + end
        for shift, to_next in zip(self._shifts, self._to_next, strict=True):
            to_last = to_next[:, first - shift : last - shift]
            block.addcmul_(to_last, step.rows[:, first - shift : last - shift], value=sign)
            after = step.rows[:, first + shift : last + shift]
            block.addcmul_(to_next[:, first:last], after, value=sign)

    def coarsen(self) -> "Stencil":
        """The operator on voxels twice as long, wide and high."""
        d, h, w = (_coarse_faces(k, axis) for axis, k in enumerate(self.conductance))
        return Stencil((d, h, w), None if self.leak is None else _coarse_leak(self.leak))


def _coarse_faces(conductance: Float[Tensor, "B _ _ _"], axis: int) -> Float[Tensor, "B _ _ _"]:
    """Conductance of the coarse faces normal to an axis, S/m^3."""
    last = conductance.shape[axis + 1] - 1
    kept = torch.tensor([*range(0, last, 2), last], device=conductance.device)
    k = conductance.index_select(axis + 1, kept)
    for other in range(3):
        if other != axis:
            k = pair_sum(k, other)
    # conductances are per volume (sigma / h^2): eight times the volume, half of the summed one
    return k / 16


def _coarse_leak(leak: Leak) -> Leak:
    """The leak on voxels twice as large: the tissue has twice the resistance, the contact not."""
    passed = leak.conductance / (1 + leak.inside)
    conductance = mean_of_eight(passed)
    tissue = mean_of_eight(passed * (2 * leak.inside / (1 + leak.inside)))
    return Leak(conductance, torch.where(conductance > 0, tissue / conductance, 0.0))


def mean_of_eight(field: Float[Tensor, "B D H W"]) -> Float[Tensor, "B _ _ _"]:
    """Mean over 2 x 2 x 2 voxels."""
    for axis in range(3):
        field = pair_sum(field, axis)
    return field / 8


def pair_sum(field: Float[Tensor, "B _ _ _"], axis: int) -> Float[Tensor, "B _ _ _"]:
    """Sums of two voxels after each other along an axis; of an odd number the last one is alone."""
    dim, n = axis + 1, field.shape[axis + 1]
    pairs = torch.unflatten(field.narrow(dim, 0, n - n % 2), dim, (-1, 2))
    sums: Tensor = pairs.select(dim + 1, 0) + pairs.select(dim + 1, 1)
    if n % 2:
        sums = torch.cat([sums, field.narrow(dim, n - 1, 1)], dim=dim)
    return sums
