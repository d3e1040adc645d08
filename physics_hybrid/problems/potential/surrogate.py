"""A network and a scene make a potential.

Networks see one electrode at a time: of a pair, two predictions are subtracted. The sum of both
electrodes' potentials has a surface of zeros, where a multiplicative correction would have a pole.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.resample import mean, tissue_mean, upsample
from physics_hybrid.problems.potential.scene import Scene


def coordinates(grid: Grid, kind: str, device: torch.device) -> Float[Tensor, "3 D H W"]:
    """X, Y, Z in [-1, 1] on a grid, indexing 'ij'.

    kind : cell, centres at (2 i + 1) / N - 1, which line grids of different resolution up; or node,
        linspace(-1, 1, N).

    Raises
    ------
    ValueError
        Another kind.
    """
    if kind == "cell":
        axes = [(2 * torch.arange(n, device=device) + 1) / n - 1 for n in grid]
    elif kind == "node":
        axes = [torch.linspace(-1, 1, n, device=device) for n in grid]
    else:
        raise ValueError(f"problem.coordinates must be cell or node; got {kind!r}")
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def one_electrode_each(scene: Scene) -> list[Float[Tensor, "B D H W"]]:
    """The source of every electrode of the samples, A/m^3: of a pair first the one that brings the
    current in, then the one that takes it out, both positive."""
    if scene.return_point is None:
        return [scene.source]
    return [scene.source.clamp_min(0), (-scene.source).clamp_min(0)]


def model_inputs(
    scene: Scene, kind: str = "cell", sources: list[Float[Tensor, "B D H W"]] | None = None
) -> Float[Tensor, "rows channels D H W"]:
    """The stack of C + 4 channels: sigma in S/m, source in A/m^3, X, Y, Z (see `coordinates` for
    `kind`).

    A pair gives 2 B rows of one electrode each, first those that bring the current in, then those
    that take it out, all with a positive source.

    sources : of each electrode, where they are known better than from the scene's.
    """
    grid = coordinates(scene.shape, kind, scene.sigma.device).expand(len(scene), -1, -1, -1, -1)
    if sources is None:
        sources = one_electrode_each(scene)
    return torch.cat([torch.cat([scene.sigma, f[:, None], grid], dim=1) for f in sources])


def superpose(
    phi: Float[Tensor, "rows D H W"], scene: Scene, ends: Ends
) -> Float[Tensor, "B D H W"]:
    """One potential a sample, of one a row of `model_inputs`.

    Zero mean over tissue where no current passes the ends.
    """
    if scene.return_point is not None:
        phi = phi[: len(scene)] - phi[len(scene) :]
    return zero_mean(phi, scene.tissue) if ends.floating else phi


def baseline_potential(baseline: nn.Module, scene: Scene, ends: Ends) -> Float[Tensor, "B D H W"]:
    """phi of a baseline alone (`baseline.py`), V; 0 in air."""
    parts = []
    for point in scene.electrodes:
        phi = baseline(scene.sigma, point, scene.current, scene.spacing)
        parts.append(phi[:, 0] * scene.tissue)
    return superpose(torch.cat(parts), scene, ends)


def on_coarser(scene: Scene, grid: Grid) -> Scene:
    """The same bodies and electrodes on a coarser grid over the same box: mean conductivity of the
    tissue in each voxel, and the same current."""
    sides = [n / m for n, m in zip(scene.shape, grid, strict=True)]
    return Scene(
        sigma=tissue_mean(scene.sigma, grid),
        source=mean(scene.source, grid),
        spacing=scene.spacing * torch.tensor(sides).to(scene.spacing),
        source_point=scene.source_point,
        current=scene.current,
        names=scene.names,
        return_point=scene.return_point,
    )


@dataclass(frozen=True)
class Surrogate:
    """A network as a solver: `Surrogate(network, ends)(scene)` is phi (B, D, H, W) in V.

    network : a `HybridWrapper`.
    ends : how the current leaves.
    coordinates : channels that the network sees, cell or node.
    """

    network: Any
    ends: Ends = Ends()
    coordinates: str = "cell"

    def __call__(self, scene: Scene) -> Float[Tensor, "B D H W"]:
        if not self.network.training:  # it is trained on the grids that it is given
            home = self.network.home_of(scene.shape)
            if home != scene.shape:
                return superpose(self._from_home(scene, home), scene, self.ends)
        inputs = model_inputs(scene, self.coordinates)
        spacing = scene.spacing.repeat(len(inputs) // len(scene), 1)
        return superpose(self.network(inputs, spacing)[:, 0], scene, self.ends)

    def _from_home(self, scene: Scene, home: Grid) -> Float[Tensor, "rows D H W"]:
        """phi of every electrode: the correction from a coarser grid, interpolated within the
        tissue, on the baseline of this one."""
        small = on_coarser(scene, home)
        # each on its own: those of a pair may meet in one coarse voxel
        sources = [mean(f, home) for f in one_electrode_each(scene)]
        inputs = model_inputs(small, self.coordinates, sources)
        count = len(sources)
        c = self.network.correction(inputs, small.spacing.repeat(count, 1))[:, 0]
        c = upsample(c, small.tissue.repeat(count, 1, 1, 1), scene.shape)
        baseline = cast(nn.Module, self.network.baseline)
        rows = []
        for point, part in zip(scene.electrodes, c.chunk(count), strict=True):
            phi_a = baseline(scene.sigma, point, scene.current, scene.spacing)
            tissue = scene.tissue[:, None].to(phi_a.dtype)
            rows.append(self.network.compose(part[:, None], phi_a, tissue)[:, 0])
        return torch.cat(rows)

    def baseline(self, scene: Scene) -> Float[Tensor, "B D H W"]:
        """What the network corrects."""
        return baseline_potential(cast(nn.Module, self.network.baseline), scene, self.ends)
