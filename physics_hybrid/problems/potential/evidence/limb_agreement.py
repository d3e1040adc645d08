"""Both solvers on limbs of the generator, for which no exact solution is known.

How far two independent discretisations of the same voxels are apart, and how far each is from what
both tend to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics_hybrid.evidence.bench import configuration
from physics_hybrid.grid import Grid, name_of
from physics_hybrid.problems.potential.bodies.limb import Limb, LimbDistribution
from physics_hybrid.problems.potential.bodies.voxel_body import VoxelBody
from physics_hybrid.problems.potential.evidence.solvers import Solver
from physics_hybrid.problems.potential.metrics import topography
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource

#: From coarse to fine.
GRIDS: tuple[Grid, ...] = ((48, 24, 24), (96, 48, 48))
QUICK_GRIDS: tuple[Grid, ...] = ((24, 12, 12), (48, 24, 24))

#: Voxels from a source beyond which solutions are compared; and from other tissue beyond which a
#: source is far.
FAR = 3

#: Limbs of a quick look, and those whose converged solution is made.
QUICK_LIMBS = 2
CONVERGED_LIMBS = 5

#: What stands beside the two solvers where they are compared with the converged solution.
MEAN = "mean of both"
DOUBT = "the reference itself: half of what its two solutions differ by"


@dataclass(frozen=True)
class Fibres:
    """Limbs whose muscle fibres lie alike.

    pennation : degrees from the D axis.
    count : of limbs.
    """

    name: str
    pennation: tuple[float, float]
    count: int


STRAIGHT = Fibres("along D", (0.0, 0.0), 16)
PENNATE = Fibres("pennate, 10 to 25 degrees", (10.0, 25.0), 8)


@dataclass(frozen=True)
class OnGrid:
    """A limb on a grid, as both solvers are given it."""

    body: VoxelBody

    @property
    def conductor(self) -> Conductor:
        return Conductor(_batch_of_one(self.body.sigma), _batch_of_one(self.body.spacing))

    @property
    def source(self) -> PointSource:
        return PointSource(_batch_of_one(self.body.source_point), _batch_of_one(self.body.current))

    @property
    def source_in_voxels(self) -> np.ndarray:
        """Where the source is, from the outer corner of voxel (0, 0, 0). (3,)"""
        place: np.ndarray = self.body.source_point / self.body.spacing
        return place

    @property
    def away(self) -> np.ndarray:
        """Voxels from each centre to the source. (D, H, W)"""
        centres = np.indices(self.body.index.shape) + 0.5
        offset = centres - self.source_in_voxels[:, None, None, None]
        away: np.ndarray = np.sqrt((offset**2).sum(axis=0))
        return away

    @property
    def compared(self) -> Bool[Tensor, "1 D H W"]:
        """Tissue far from the source."""
        return torch.from_numpy((self.body.index > 0) & (self.away > FAR))[None]

    @property
    def source_from_interface(self) -> float:
        """Voxels from the source to the nearest centre in other tissue, or air."""
        index = self.body.index
        home = index[tuple(self.source_in_voxels.astype(int))]
        return float(self.away[index != home].min())


def _batch_of_one(values: np.ndarray | float) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=float))[None]


def agreement(solvers: Mapping[str, Solver], quick: bool) -> list[dict[str, Any]]:
    """Both solvers on limbs of the generator, straight and pennate: RDM and MAG of the one against
    the other, over tissue beyond 3 voxels of the source, and how many voxels of the finer grid the
    source is away from the nearest other tissue. Of the first limbs with fibres along D also
    `from_converged`, all grids split down to half the finer one's voxels.
    """
    phantom = configuration([])["data"]["phantom"]
    grids = QUICK_GRIDS if quick else GRIDS
    rows = []
    for fibres in (STRAIGHT, PENNATE):
        limbs = LimbDistribution.of({**phantom, "pennation": fibres.pennation})
        for number in range(QUICK_LIMBS if quick else fibres.count):
            converge = fibres is STRAIGHT and number < CONVERGED_LIMBS
            row = compare(limbs.draw(0, 0, number), grids, solvers, converge)
            rows.append({"fibres": fibres.name, "limb": number, **row})
    return rows


def compare(
    limb: Limb, grids: Sequence[Grid], solvers: Mapping[str, Solver], converge: bool
) -> dict[str, Any]:
    """One limb on grids from coarse to fine; with `from_converged` where it is asked for."""
    one, other = solvers.values()
    finest = 2 * grids[-1][0]
    row: dict[str, Any] = {"grid": [name_of(grid) for grid in grids], "rdm": [], "mag": []}
    for grid in grids:
        placed = OnGrid(limb.voxelise(grid))
        conductor, source, where = placed.conductor, placed.source, placed.compared
        phis = one(conductor, source), other(conductor, source)
        for name, value in apart(*phis, where).items():
            row[name].append(value)
        if converge:
            converged = from_converged(
                solvers=solvers,
                phis=phis,
                conductor=conductor,
                source=source,
                where=where,
                into=finest // grid[0],
            )
            row.setdefault("from_converged", []).append(converged)
    row["source_from_interface_voxels"] = placed.source_from_interface
    return row


def apart(
    phi: Float[Tensor, "1 D H W"],
    reference: Float[Tensor, "1 D H W"],
    where: Bool[Tensor, "1 D H W"],
) -> dict[str, float]:
    """RDM and MAG of one solution against another."""
    return {name: float(value) for name, value in topography(phi, reference, where).items()}


def split(conductor: Conductor, into: int) -> Conductor:
    """The same conductor, every voxel cut into into x into x into."""
    sigma = conductor.sigma
    for axis in (2, 3, 4):
        sigma = sigma.repeat_interleave(into, axis)
    return Conductor(sigma, conductor.spacing / into, conductor.ends)


def from_converged(
    solvers: Mapping[str, Solver],
    phis: Sequence[Float[Tensor, "1 D H W"]],
    conductor: Conductor,
    source: PointSource,
    where: Bool[Tensor, "1 D H W"],
    into: int,
) -> dict[str, dict[str, float]]:
    """RDM and MAG of either solver's phi, and of their mean, against the converged solution of the
    same voxels, and what that is uncertain by.

    The voxels are split, so that staircases stay what they are, and both solve them; the reference
    is the mean of the two, averaged back: either of them alone would favour itself. Finite elements
    minimise the power over potentials (Dirichlet); harmonic means minimise it over fluxes that
    conserve the charge (Thomson: lowest-order mixed elements with the trapezoidal rule). One
    conducts too well, the other too badly, and the mean has the smallest guaranteed error, half of
    their difference (Prager and Synge, Quart. Appl. Math. 5 (1947) 241). That is proved of the
    power of the whole field: of phi beyond some voxels of a source it is a reason, not a proof, and
    this measures what comes of it.
    """
    finer = split(conductor, into)
    a, b = (
        torch.nn.functional.avg_pool3d(solver(finer, source), into) for solver in solvers.values()
    )
    reference = (a + b) / 2
    one, other = phis
    contenders = dict(zip((*solvers, MEAN), (one, other, (one + other) / 2), strict=True))
    out = {name: apart(phi, reference, where) for name, phi in contenders.items()}
    whole = apart(a, b, where)
    return {**out, DOUBT: {"rdm": whole["rdm"] / 2, "mag": (1 + whole["mag"]) / 2}}


def agreement_demands(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is missed: of limbs with fibres along D whose source is 3 voxels or more from other
    tissue, the median has RDM and |MAG - 1| of at most 0.01 at 2 mm, smaller than at 4 mm. Nearer
    sources and pennate fibres are listed, and held to nothing.
    """
    straight = [row for row in rows if row["fibres"] == STRAIGHT.name]
    chosen = [row for row in straight if row["source_from_interface_voxels"] >= FAR]
    differences = {
        "RDM": np.array([row["rdm"] for row in chosen]),
        "|MAG - 1|": np.abs(np.array([row["mag"] for row in chosen]) - 1),
    }
    missed = []
    for name, values in differences.items():
        coarse, fine = np.median(values, axis=0)
        if not (fine <= 0.01 and fine < coarse):
            missed.append(
                f"limbs: {name} of the median limb is {fine:.4f} at 2 mm and {coarse:.4f} at 4 mm,"
                " where at most 0.01 and falling is demanded"
            )
    return missed
