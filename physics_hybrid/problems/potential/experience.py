r"""What a shipped network is likely to be wrong by: errors of bodies that it was not trained on.

Statistics, no bound (`certify.conformal` has the theorem): of bodies and electrodes drawn as those
of its training, a share `coverage` or more has at most the error `likely(coverage)`. `unlike` says
of which bodies that cannot be said: voxels of another size, or features that lie farther out than
those of all but 1 % of such bodies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from physics_hybrid.problems.potential.certify.conformal import Calibration, Likeness
from physics_hybrid.problems.potential.physics.conductor import Conductor

#: What a body and an electrode in it are compared by. Lengths and conductivities by logarithms.
FEATURES = (
    "size of the cross-section",
    "change of the cross-section along D",
    "shape of the cross-section",
    "length along D",
    "mean conductivity",
    "spread of the conductivity",
    "ratio of conductivities along and across D",
    "conductivity at the electrode",
    "depth of the electrode",
    "distance of the electrode from the ends",
)
#: Voxels may be so many times larger or smaller than those of the calibration.
EDGES = 1.25


@dataclass(frozen=True)
class Experience:
    """calibration : relative L2 errors of phi. likeness : of `features`. edges : smallest and
    largest edge of a voxel that the errors are of, m (`edge`).
    """

    calibration: Calibration
    likeness: Likeness
    edges: tuple[float, float]

    @classmethod
    def of(
        cls,
        errors: Sequence[float],
        edges: Sequence[float],
        training: Float[Tensor, "m F"],
        kept_back: Float[Tensor, "n F"],
    ) -> Experience:
        """errors, edges : of the calibration bodies. training, kept_back : features of the bodies
        trained on, and of others.

        Raises
        ------
        ValueError
            As `Calibration.of` and `Likeness.of`.
        """
        calibration = Calibration.of(torch.tensor(errors))
        return cls(calibration, Likeness.of(training, kept_back), (min(edges), max(edges)))

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Experience:
        """What `written` gave."""
        mean, whiten, distances, errors = (
            torch.tensor(facts[key], dtype=torch.float64)
            for key in ("mean", "whiten", "distances", "errors")
        )
        low, high = facts["edges"]
        return cls(Calibration(errors), Likeness(mean, whiten, distances), (low, high))

    def written(self) -> dict[str, Any]:
        """For JSON."""
        like = self.likeness
        tensors = {"mean": like.mean, "whiten": like.whiten, "distances": like.distances}
        tensors["errors"] = self.calibration.errors
        return {
            "features": list(FEATURES),
            "edges": list(self.edges),
            **{key: value.tolist() for key, value in tensors.items()},
        }

    def likely(self, coverage: float = 0.9) -> float:
        """Relative L2 that a share `coverage` of such bodies has at most; infinite where there are
        too few to say. Raises ValueError for a coverage that is not between 0 and 1.
        """
        return self.calibration.bound(coverage)

    def unlike(self, body: Conductor, points: Float[Tensor, "K 3"]) -> list[str]:
        """Why nothing can be said of each of K electrodes; "" where something can."""
        here, (low, high) = edge(body), self.edges
        if not low / EDGES <= here <= high * EDGES:
            said = f"its voxels have edges of {1e3 * here:.2g} mm, and those of {1e3 * low:.2g} to"
            return [f"{said} {1e3 * high:.2g} mm are known"] * len(points)
        found = features(body, points)
        out = self.likeness.unlike(found).tolist()
        return [self._farthest(one) if far else "" for one, far in zip(found, out, strict=True)]

    def _farthest(self, found: Float[Tensor, " F"]) -> str:
        """The feature that adds most to the distance of Mahalanobis.

        distance^2 = x . S^-1 x, and x_i (S^-1 x)_i is the share of feature i.
        """
        away = found - self.likeness.mean
        share = away * (self.likeness.whiten @ (self.likeness.whiten.T @ away))
        name = FEATURES[int(share.argmax())]
        return f"it lies farther out than 99 of 100 of them, most by the {name}"


def edge(body: Conductor) -> float:
    """Geometric mean of the edges of a voxel, m."""
    return float(body.spacing[0].double().log().mean().exp())


def features(body: Conductor, points: Float[Tensor, "K 3"]) -> Float[Tensor, "K F"]:
    """`FEATURES` of K electrodes (m) in one body. Mirrored along H or W, or with these two axes
    exchanged, a body has the same.

    Raises
    ------
    ValueError
        A point outside of the grid.
    """
    sigma, tissue = body.sigma[0].double(), body.tissue[0]
    spacing = body.spacing[0].double()
    along, *across = sigma[:3].expand(3, *tissue.shape).clamp_min(1e-300).log()
    mean = (along + across[0] + across[1]) / 3
    planes = tissue.any(dim=2).any(dim=1).nonzero()[:, 0]
    first, last = int(planes[0]), int(planes[-1]) + 1
    area = tissue.sum(dim=(1, 2)).double()[first:last] * spacing[1] * spacing[2]
    whole = [
        float(area.mean().log()),
        float(area.std(correction=0) / area.mean()),
        _shape(tissue, spacing),
        math.log((last - first) * float(spacing[0])),
        float(mean[tissue].mean()),
        float(mean[tissue].std(correction=0)),
        float((along - (across[0] + across[1]) / 2)[tissue].mean()),
    ]
    depths = _depth(tissue, spacing)
    found = []
    for d, h, w in body.voxel_of(points.to(body.spacing)).tolist():
        place = (d + 0.5 - first) / (last - first)
        own = [float(mean[d, h, w]), math.log(max(depths[d, h, w], 1e-9)), min(place, 1 - place)]
        found.append(whole + own)
    return torch.tensor(found, dtype=torch.float64)


def _shape(tissue: Tensor, spacing: Tensor) -> float:
    """Longest over shortest radius of inertia of all tissue across D, a logarithm."""
    places = tissue.nonzero()[:, 1:].double() * spacing[1:]
    variances = torch.linalg.eigvalsh(torch.cov(places.T, correction=0))
    finest = (spacing[1:].min() ** 2) / 12
    low, high = (variances + finest).tolist()
    return 0.5 * math.log(high / low)


def _depth(tissue: Tensor, spacing: Tensor) -> np.ndarray:
    """Distance of voxels from air, m; the first and last plane along D are cuts, no skin."""
    padded = np.pad(tissue.cpu().numpy(), ((0, 0), (1, 1), (1, 1)))
    depth: np.ndarray = distance_transform_edt(padded, sampling=spacing.tolist())
    return depth[:, 1:-1, 1:-1]
