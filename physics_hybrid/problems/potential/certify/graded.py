r"""Smaller voxels where they are needed, on a grid without hanging nodes.

Along axis a voxel i is cut into n_a[i] planes, through the whole body. With s_a = 1 / n_a[i] and xi
the lengths in which all parts are as long as voxels were, dx_a = s_a d xi_a, and

    int sigma_ab d_a v d_b v dV = int sigma'_ab d'_a v d'_b v d xi,
    sigma'_ab = sigma_ab s_D s_H s_W / (s_a s_b)

So the same problem, with the same energies, currents through faces and potentials, is one of equal
voxels whose sigma is a tensor where they were not cut alike, and needs no other solver and no other
proof. Where all axes are cut alike sigma' is sigma / n: round an electrode they should be, as far
as its closed form reaches. (Coordinates that turn a medium into an anisotropic one: Kohn and
Vogelius, SIAM-AMS Proc. 14 (1984) 113.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import AXES
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends


@dataclass(frozen=True)
class Graded:
    """parts : along each axis, how many each voxel is cut into."""

    parts: tuple[Int[Tensor, " D"], Int[Tensor, " H"], Int[Tensor, " W"]]

    @property
    def voxels(self) -> int:
        """How many there are after it."""
        d, h, w = (int(n.sum()) for n in self.parts)
        return d * h * w

    @property
    def steps(self) -> list[Float[Tensor, " n"]]:
        """s of every part along each axis: its length in that of a voxel."""
        return [(1 / n.double()).repeat_interleave(n) for n in self.parts]

    def cut(self, field: Shaped[Tensor, "*n D H W"]) -> Shaped[Tensor, "*n _ _ _"]:
        """The value of every voxel in all of its parts."""
        for axis, n in enumerate(self.parts):
            field = field.repeat_interleave(n, dim=axis - 3)
        return field

    def gathered(self, parts: Float[Tensor, "_ _ _"]) -> Float[Tensor, "D H W"]:
        """Sum over the parts of every voxel."""
        for axis, n in enumerate(self.parts):
            shape = list(parts.shape)
            shape[axis] = len(n)
            owner = torch.arange(len(n)).repeat_interleave(n)
            parts = torch.zeros(shape, dtype=parts.dtype).index_add_(axis, owner, parts)
        return parts

    def conductor(self, conductor: Conductor) -> Conductor:
        """One body, in xi. Robin ends need voxels there that are cut alike along D."""
        sigma, s = self.cut(conductor.sigma[0]), across(self.steps)
        whole = s[0] * s[1] * s[2]
        if len(sigma) == 1:
            sigma = sigma.expand(3, -1, -1, -1)
        pairs = zip(sigma, AXES[: len(sigma)], strict=True)
        sigma = torch.stack([one * (whole / (s[a] * s[b])) for one, (a, b) in pairs])
        ends = conductor.ends
        if ends.beta is not None:
            ends = Ends(ends.kind, float(ends.beta) / int(self.parts[0][0]))
        return Conductor(sigma[None], conductor.spacing, ends)

    def source(self, source: PointSource, spacing: Float[Tensor, "1 3"]) -> PointSource:
        """Electrodes, in xi."""
        returns = source.returns
        return PointSource(
            self._moved(source.point, spacing),
            source.current,
            None if returns is None else self._moved(returns, spacing),
        )

    def _moved(self, point: Float[Tensor, "K 3"], spacing: Float[Tensor, "1 3"]) -> Tensor:
        """Places in metres, in xi."""
        out = []
        for x, n in zip((point / spacing).T, self.parts, strict=True):
            i = x.floor().long().clamp(0, len(n) - 1)
            out.append((n.cumsum(0) - n)[i] + (x - i) * n[i])
        return torch.stack(out, dim=1) * spacing


def across(lines: list[Float[Tensor, " n"]]) -> list[Float[Tensor, "_ _ _"]]:
    """Values along each axis, to meet those along the others."""
    d, h, w = lines
    return [d[:, None, None], h[:, None], w]
