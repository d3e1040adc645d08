"""How wrong a field is at most: certificates, intervals; voxels that are split until it is right.

The truth is the exact solution of the voxel problem (`certify`).
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.certify import Certificate, Interval
from physics_hybrid.problems.potential.certify import certify as certify_fields
from physics_hybrid.problems.potential.certify import interval as interval_of
from physics_hybrid.problems.potential.certify.body import split_field
from physics_hybrid.problems.potential.certify.certificate import check_parts
from physics_hybrid.problems.potential.certify.closed_form import REACH
from physics_hybrid.problems.potential.certify.interval import MOST
from physics_hybrid.problems.potential.door.arrays import Array
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.equations import require_memory
from physics_hybrid.problems.potential.door.sources import Patch
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.field import Field

#: Into how many parts along each axis voxels are split at most.
FINEST = 4
#: The bound has stopped falling where a split leaves more than this share of it. It falls to two
#: thirds at the second split, three quarters at the third, as one over the split.
FALLING = 0.9
#: Bytes that a certificate or an interval takes for each voxel of the box round the tissue, with
#: those that it is split into: 1170 were measured, of oblique tensors 3600.
CERTIFY_BYTES, OBLIQUE_BYTES = 1250, 3700
#: Share of a bound that the solver's tolerance may have before it is made tighter.
ALGEBRAIC = 0.1


def certificate(field: Field, refine: int, sharp: bool = True) -> Certificate:
    """A guaranteed bound of the energy error of every source of a field. In voxels that have been
    split the closed form reaches as far as it did before. sharp : as in `certify`.

    Raises
    ------
    ValueError
        Patches; tissue that does not conduct in every direction; more memory than there is.
    """
    require_memory_to_certify(field, refine)
    with torch.no_grad():
        volts = field.volts.detach().double().cpu()
        reach = field.split * REACH
        return certify_fields(
            _plain(field), _electrodes(field), volts, reach=reach, sharp=sharp, refine=refine
        )


def interval(
    field: Field,
    patch: Patch,
    against: Patch | None,
    on: str,
    refine: int,
    frame: str,
    to: float | None = None,
) -> Interval:
    """What the mean voltage over a patch, less that over another, lies in for certain, V.

    refine : every voxel is split into refine^3, and the problem solved anew; 1: as it is.
    to : half-width wanted, as a share of the voltage, for which as many voxels may be made as there
        is memory for, `MOST` times as many as there are at most.
    """
    free = require_memory_to_certify(field, refine)
    marked = [_marked(field.body, p, frame) for p in (patch, against) if p is not None]
    with torch.no_grad():
        found = interval_of(
            _plain(field),
            _electrodes(field),
            marked[0],
            marked[1] if len(marked) > 1 else None,
            on=on,
            phi=field.volts.detach().double().cpu() if refine == 1 else None,
            refine=refine,
            to=to,
            most=min(MOST, free / _bytes(field)),
        )
    if to is not None:
        _warn_of_width(found, to)
    return found


def _warn_of_width(found: Interval, to: float) -> None:
    """Say where as many voxels as may be made were not enough for the half-width wanted."""
    middle = found.middle.abs()
    wide = found.half_width - to * middle
    k = int(wide.argmax())
    if wide[k] > 1e-9 * middle[k]:
        reached = f"{float(found.half_width[k]):.2g} V of {float(found.middle[k]):.2g} V"
        warnings.warn(
            f"to={to:g} was not reached: the half-width is {reached} on as many voxels as may be"
            " made; the interval holds",
            stacklevel=4,
        )


def require_memory_to_certify(field: Field, refine: int) -> int:
    """Bytes that are free.

    Raises ValueError for another number of parts, or more voxels than there is memory for.
    """
    check_parts(refine)
    voxels = math.prod(Box.of(field.conductor).size) * int(refine) ** 3
    return require_memory(voxels, _bytes(field) * int(refine) ** 3, "certify")


def _bytes(field: Field) -> float:
    """That a certificate takes on the voxels that there are."""
    each = OBLIQUE_BYTES if field.conductor.oblique else CERTIFY_BYTES
    return math.prod(Box.of(field.conductor).size) * each


def _plain(field: Field) -> Conductor:
    """The conductor of a field without derivatives, where certificates are made: on the CPU."""
    plain = field.body.plain
    return Conductor(plain.sigma.cpu(), plain.spacing.cpu(), field.ends)


def _electrodes(field: Field) -> PointSource:
    """The electrodes of a field. Raises ValueError for patches."""
    sources = field.sources
    if sources.points is None:
        raise ValueError("certificates are of point electrodes: patches have none yet")
    returns = None if sources.returns is None else sources.returns.detach().cpu()
    return PointSource(sources.points.detach().cpu(), sources.current.detach().cpu(), returns)


def _marked(body: Body, patch: Any, frame: str) -> Tensor:
    """The voxels of a patch, as a mask. (D, H, W)"""
    if not isinstance(patch, Patch):
        raise ValueError(f"an interval is of a ph.Patch(centre, radius); got {patch!r}")
    marked = np.zeros(body.shape, dtype=bool)
    marked[tuple(patch.voxels(body, frame).T)] = True
    return torch.from_numpy(marked)


def split(body: Body, factor: int) -> Body:
    """The same body on voxels that are `factor` times smaller along each axis; derivatives in a
    tensor are kept.
    """
    fine = split_field(body.sigma[0], factor).movedim(0, -1)
    sigma: Array = fine if body.of_tensor else fine.detach().cpu().numpy()
    affine, labels = body.affine, body.labels
    if affine is not None:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3].sum(axis=1) * (0.5 / factor - 0.5)
        affine[:3, :3] /= factor
    if labels is not None:
        labels = split_field(torch.from_numpy(labels), factor).numpy()
    return Body(sigma, body.spacing / factor, affine, labels=labels, order=body.order)
