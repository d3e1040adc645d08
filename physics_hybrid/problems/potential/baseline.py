r"""Baselines as PhysicsNeMo modules, so that they are stored with the network they belong to.

isotropic     phi_a = I / (4 pi sigma_ref sqrt(|r - r_s|^2 + eps^2))
anisotropic   phi_a = I / (4 pi sqrt(det sigma) sqrt(d^T sigma^-1 d)),  softened alike
coarse_solve  phi_b = phi_a (phi_c / phi_a),  the ratio interpolated from a coarse grid that phi_c
              was solved on                                                         [V]
solve         phi_b, solved on the grid itself: for truths that are not this solver's     [V]
"""

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor

from physics_hybrid.checks import not_negative
from physics_hybrid.grid import Grid, name_of, per_sample
from physics_hybrid.problems.potential.physics.conductor import Conductor, offsets_from
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.point_source import potential
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.problems.potential.resample import tissue_mean, upsample


class PointSourceBaseline(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """Potential of the point source as if all tissue were one homogeneous, infinite medium.

    Parameters
    ----------
    kind : str
        'isotropic' (a tensor counts by the mean of its diagonal) or 'anisotropic'.
    sigma_ref : str or float
        'conductive_mean': mean over conductive voxels, air ignored; 'local': sigma at the source;
        or a number in S/m.
    softening : float
        eps in voxels (smallest edge).

    Forward
    -------
    sigma in S/m, point in m, current in A, spacing in m -> phi_a in V.
    """

    def __init__(
        self,
        kind: str = "isotropic",
        sigma_ref: str | float | int = "conductive_mean",
        softening: float | int = 0.1,
    ):
        super().__init__()
        if kind not in ("isotropic", "anisotropic"):
            raise ValueError(
                f"model.baseline.kind must be isotropic, anisotropic, coarse_solve or solve;"
                f" got {kind!r}"
            )
        if not _is_reference(sigma_ref):
            raise ValueError(
                "model.baseline.sigma_ref must be conductive_mean, local or a positive number"
                f" (S/m); got {sigma_ref!r}"
            )
        not_negative("model.baseline.softening", softening, "voxels")
        self.kind, self.sigma_ref, self.softening = kind, sigma_ref, softening

    def forward(
        self,
        sigma: Float[Tensor, "B C D H W"],
        point: Float[Tensor, "B 3"],
        current: Float[Tensor, " B"],
        spacing: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B 1 D H W"]:
        reference = self.reference(sigma, point, spacing)
        if self.kind == "isotropic":
            reference = reference[:, :3].mean(dim=1, keepdim=True)
        eps = self.softening * spacing.min(dim=1).values
        offsets = offsets_from(point, _grid_of(sigma), spacing)
        return potential(offsets, current, reference, softening=eps)[:, None]

    def check_grid(self, grid: Grid) -> None:
        """Any grid will do."""

    @property
    def remedy(self) -> str:
        """What to set where the baseline is far from the truth."""
        if self.sigma_ref == "local":
            return "model.baseline.kind=coarse_solve"
        return "model.baseline.sigma_ref=local, or model.baseline.kind=coarse_solve"

    def reference(
        self,
        sigma: Float[Tensor, "B C D H W"],
        point: Float[Tensor, "B 3"],
        spacing: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B C"]:
        """sigma_ref in S/m."""
        if self.sigma_ref == "conductive_mean":
            tissue = (sigma[:, :1] > 0).to(sigma.dtype)
            return sigma.sum(dim=(2, 3, 4)) / tissue.sum(dim=(2, 3, 4)).clamp_min(1)
        if self.sigma_ref == "local":
            body = Conductor(sigma, spacing)
            return body.sigma_at(body.in_tissue(point))
        value = torch.full_like(sigma[:, :, 0, 0, 0], float(self.sigma_ref))
        value[:, 3:] = 0
        return value


def _is_reference(value: object) -> bool:
    """Whether a value names a sigma_ref, or is one in S/m."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value > 0
    return value in ("conductive_mean", "local")


def _grid_of(field: Tensor) -> Grid:
    D, H, W = field.shape[-3:]
    return D, H, W


class CoarseSolveBaseline(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    r"""Potential of the same problem solved on a coarse grid, carried to the fine one as a smooth
    ratio.

        phi_b = phi_a * upsampled(phi_c / phi_a)
        phi_a = I / (4 pi sqrt(|r - r_s|^2 + eps^2)) times 1 m/S, on both grids

    phi_c: finite volumes with subtraction (`solve`, float32) for the mean conductivity
    over the tissue in each coarse voxel. On limbs that is as good as the multigrid's own coarse
    operator within a sixth of the error, better where no current passes the ends, and takes odd
    sides and tensors. phi_a is no part of the answer: it takes the pole out of what is
    interpolated.

    Where no current passes the ends (sink, pair), phi_c is known up to a constant: it is given the
    lowest phi_a in tissue as its own lowest value, so that a multiplicative correction meets no
    zero. One electrode of a pair is solved with ends=sink: the difference of two such potentials is
    that of the pair.

    Parameters
    ----------
    coarsen : int
        Voxels on the edge of a coarse one; a side that it does not divide has a coarse voxel more.
    ends, beta : str, float or None
        How the current leaves, see `Ends`.
    home : list of 3 int or None
        The grid that `coarsen` refers to, that of training: its coarse grid then serves every fine
        one, and the error that a network learns to correct stays the same. None: each grid has its
        own.
    softening : float
        eps in voxels (smallest edge).
    tolerance : float
        Relative residual of the coarse solution.

    Forward
    -------
    As `PointSourceBaseline`. No gradient flows through it.

    Raises
    ------
    ValueError
        From `check_grid` and forward: a coarse grid of fewer than 4 voxels along an axis; no tissue
        at an end that should carry the current away.
    """

    SMALLEST = 4

    def __init__(
        self,
        coarsen: int = 2,
        ends: str = "grounded",
        beta: float | int | None = None,
        home: list[int] | None = None,
        softening: float | int = 0.1,
        tolerance: float = 1e-3,
    ):
        super().__init__()
        if isinstance(coarsen, bool) or not isinstance(coarsen, int) or coarsen < 2:
            raise ValueError(
                f"model.baseline.coarsen must be a whole number of at least 2; got {coarsen!r}"
            )
        self.coarsen, self.home, self.tolerance = coarsen, home, tolerance
        self.ends = _of_one_electrode(ends, beta)
        self.pole = PointSourceBaseline(sigma_ref=1.0, softening=softening)

    @property
    def remedy(self) -> str:
        """What to set where the baseline is far from the truth."""
        return "a smaller model.baseline.coarsen"

    def coarse(self, grid: Grid) -> Grid:
        """The grid that serves another one."""
        D, H, W = (-(-n // self.coarsen) for n in self.home or grid)
        return D, H, W

    def check_grid(self, grid: Grid) -> None:
        """Raise ValueError where the coarse grid has too few voxels to hold a body."""
        coarse = self.coarse(grid)
        if min(coarse) < self.SMALLEST:
            home = tuple(self.home or grid)
            raise ValueError(
                f"model.baseline.coarsen={self.coarsen} makes {name_of(coarse)} voxels of the grid"
                f" {name_of(home)}, and coarse_solve needs at least {self.SMALLEST} along every"
                " axis: use a smaller model.baseline.coarsen, a finer grid, or"
                " model.baseline.kind=isotropic"
            )

    @torch.no_grad()
    def forward(
        self,
        sigma: Float[Tensor, "B C D H W"],
        point: Float[Tensor, "B 3"],
        current: Float[Tensor, " B"],
        spacing: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B 1 D H W"]:
        grid = _grid_of(sigma)
        self.check_grid(grid)
        coarse = self.coarse(grid)
        ratio = [n / c for n, c in zip(grid, coarse, strict=True)]
        wide = spacing * torch.tensor(ratio, device=spacing.device)
        with torch.autocast(sigma.device.type, enabled=False):
            body = Conductor(tissue_mean(sigma.float(), coarse), wide, self.ends)
            ampere = torch.ones_like(current)
            phi_a = self.pole(body.sigma, point, ampere, wide)[:, 0]
            phi_c = _solved(body, point, phi_a, self.tolerance)
            smooth = upsample(phi_c / phi_a, body.tissue, grid)[:, None]
            phi_b: Tensor = smooth * self.pole(sigma, point, current, spacing)
            return phi_b


class SolveBaseline(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
    """The problem solved on the grid itself, by finite volumes (`solve`, float32).

    For truths that are not this solver's, a user's finite elements on a mesh, say: the network then
    learns what separates the two. Where no current passes the ends, and for a pair, as
    `CoarseSolveBaseline`.

    Parameters
    ----------
    ends, beta : str, float or None
        How the current leaves, see `Ends`.
    tolerance : float
        Relative residual of the solution.

    Forward
    -------
    As `PointSourceBaseline`. No gradient flows through it.

    Raises
    ------
    ValueError
        From forward: no tissue at an end that should carry the current away.
    """

    remedy = "another solver for the truth, or more samples"

    def __init__(
        self, ends: str = "grounded", beta: float | int | None = None, tolerance: float = 1e-4
    ):
        super().__init__()
        self.tolerance = tolerance
        self.ends = _of_one_electrode(ends, beta)
        self.pole = PointSourceBaseline(sigma_ref=1.0)

    def check_grid(self, grid: Grid) -> None:
        """Any grid will do."""

    @torch.no_grad()
    def forward(
        self,
        sigma: Float[Tensor, "B C D H W"],
        point: Float[Tensor, "B 3"],
        current: Float[Tensor, " B"],
        spacing: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B 1 D H W"]:
        with torch.autocast(sigma.device.type, enabled=False):
            body = Conductor(sigma.float(), spacing, self.ends)
            phi_a = self.pole(body.sigma, point, torch.ones_like(current), spacing)[:, 0]
            phi = _solved(body, point, phi_a, self.tolerance)
            return (per_sample(current) * phi)[:, None]


def _of_one_electrode(ends: str, beta: float | int | None) -> Ends:
    """How the current of one electrode of a problem leaves: the difference of two potentials with
    ends=sink is that of a pair."""
    return Ends("sink") if ends == "pair" else Ends(ends, beta)


def _solved(
    body: Conductor,
    point: Float[Tensor, "B 3"],
    phi_a: Float[Tensor, "B D H W"],
    tolerance: float,
) -> Float[Tensor, "B D H W"]:
    """Potential of 1 A, V; where it is known up to a constant its lowest value is that of phi_a."""
    source = PointSource(point, torch.ones_like(point[:, 0]))
    # no warning: the network corrects what is wrong beside better tissue, too
    phi = solve(body, source, tolerance, torch.float32, warn=False).phi
    if body.ends.floating:
        phi = (phi - _lowest(phi, body) + _lowest(phi_a, body)) * body.tissue
    return phi


def _lowest(phi: Float[Tensor, "B D H W"], body: Conductor) -> Float[Tensor, "B 1 1 1"]:
    """The lowest potential in tissue."""
    return per_sample(torch.where(body.tissue, phi, torch.inf).amin(dim=(1, 2, 3)))


Baseline = PointSourceBaseline | CoarseSolveBaseline | SolveBaseline


def build_baseline(
    kind: str,
    ends: Ends,
    home: list[int] | None,
    sigma_ref: str | float | int = "conductive_mean",
    softening: float | int = 0.1,
    coarsen: int = 2,
) -> Baseline:
    """conf/model's `baseline`. home : the training grid, where there is one."""
    if kind == "coarse_solve":
        return CoarseSolveBaseline(coarsen, ends.kind, ends.beta, home, softening)
    if kind == "solve":
        return SolveBaseline(ends.kind, ends.beta)
    return PointSourceBaseline(kind, sigma_ref, softening)
