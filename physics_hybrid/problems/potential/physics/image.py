r"""What the closed form of an electrode is made of: its charge, its medium, its mirror image.

Behind a grounded end the image -I makes phi_inf 0 on that end. In a tensor medium it lies at

    r_image = r - 2 d sigma_inf n / (n . sigma_inf n)

d the distance from the end and n its normal: to every point of the end both have the same
d^T sigma_inf^-1 d. (Jackson, Classical Electrodynamics, 1998, sec. 2.1, with lengths measured by
sigma_inf^-1)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.physics.conductor import ON_FACE, Conductor, matrix
from physics_hybrid.problems.potential.physics.electrodes import PointSource

#: Voxels from a grounded end within which the closed form of an electrode has its mirror image,
#: too. Farther away the grid does as well without.
MIRRORED = 3.0


def with_image(
    conductor: Conductor, source: PointSource, reach: float = 0.0
) -> tuple[list[PointSource], Float[Tensor, "K C"]]:
    """The charges of one electrode for each sample, and the medium sigma_inf in S/m: the electrode,
    and where one is within `MIRRORED` voxels of a grounded end its mirror image behind that end; of
    others the image carries no current.

    sigma_inf is that of the voxel that holds the electrode, or of the best conductor within `reach`
    voxels of it (`Conductor.best_near`).

    Raises
    ------
    ValueError
        An electrode outside the grid or in air.
    """
    electrode = PointSource(conductor.in_tissue(source.point), source.current)
    if reach:
        sigma_inf = conductor.best_near(electrode.point, reach)
    else:
        sigma_inf = conductor.sigma_at(electrode.point)
    sigma_inf = sigma_inf.to(electrode.point)
    step, first = conductor.spacing.to(electrode.point)[:, 0], electrode.point[:, 0]
    last = conductor.shape[0] * step - first
    near = torch.minimum(first, last) < MIRRORED * step
    if conductor.ends.kind != "grounded" or not bool(near.any()):
        return [electrode], sigma_inf
    inside = torch.maximum(first, ON_FACE * step)  # an electrode on the end; its image is outside
    away = torch.where(first <= last, inside, -last)
    conormal = matrix(sigma_inf)[:, 0] / sigma_inf[:, :1]
    place = electrode.point - 2 * away[:, None] * conormal
    image = PointSource(place, torch.where(near, -electrode.current, 0.0))
    return [electrode, image], sigma_inf
