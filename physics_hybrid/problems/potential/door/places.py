"""Places in a body: metres of its grid, or millimetres of the world of its file.

grid    metres from the outer corner of voxel (0, 0, 0), in the order (D, H, W)
world   millimetres, right, anterior, superior: where the affine puts the voxels

index = affine^-1 world,        metres = (index + 1/2) spacing
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.checks import one_of
from physics_hybrid.problems.potential.door.arrays import numbers

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.body import Body

FRAMES = ("grid", "world")


def unit_of(frame: str) -> str:
    """The unit of lengths in a frame."""
    return "m" if frame == "grid" else "mm"


def metres_per_unit(frame: str) -> float:
    """Metres in the unit of a frame."""
    return 1.0 if frame == "grid" else 1e-3


def in_metres(
    body: Body, points: Float[Tensor, "P 3"], frame: str, name: str
) -> Float[Tensor, "P 3"]:
    """Places of a frame as metres of the grid.

    Raises
    ------
    ValueError
        Another frame, or one that the body does not have; places that are not finite.
    """
    one_of(FRAMES, "frame", frame, quoted=True)
    if not bool(torch.isfinite(points.detach()).all()):
        raise ValueError(f"{name} must be finite; got {points.detach().tolist()[:4]}")
    if frame == "grid":
        return points
    inverse, spacing = _inverse(body), torch.from_numpy(body.spacing)
    inverse, spacing = inverse.to(points), spacing.to(points)
    return (points @ inverse[:3, :3].T + inverse[:3, 3] + 0.5) * spacing


def in_frame(body: Body, metres: np.ndarray, frame: str) -> np.ndarray:
    """Metres of the grid as places of a frame, (P, 3) -> (P, 3)."""
    if frame == "grid":
        return metres
    _inverse(body)
    assert body.affine is not None
    world: np.ndarray = (metres / body.spacing - 0.5) @ body.affine[:3, :3].T + body.affine[:3, 3]
    return world


def _inverse(body: Body) -> Tensor:
    if body.affine is None:
        raise ValueError(
            "frame='world' needs a body with an affine: ph.read_labels of a NIfTI file, or"
            " ph.Body(sigma, spacing, affine)"
        )
    return torch.from_numpy(np.linalg.inv(body.affine))


def places(body: Body, at: Any, frame: str, name: str) -> tuple[Float[Tensor, "K 3"], bool]:
    """Places in tissue, m of the grid, and whether they were given as many.

    Raises
    ------
    ValueError
        Another shape; a place outside the box or in air: named, with the nearest tissue.
    """
    given = numbers(at, name)
    if given.ndim not in (1, 2) or given.shape[-1] != 3 or not given.numel():
        raise ValueError(
            f"{name} must have shape (3,) or (K, 3), {unit_of(frame)}; got {tuple(given.shape)}"
        )
    many = given.ndim == 2
    rows = given.reshape(-1, 3)
    metres = in_metres(body, rows, frame, name).to(body.sigma.device)
    plain = metres.detach().cpu().numpy()
    fine = body.hold(plain)
    if not fine.all():
        k = int(np.flatnonzero(~fine)[0])
        label = f"{name}[{k}]" if many else name
        raise ValueError(_refused(body, plain[k], frame, label, rows[k].tolist()))
    return metres, many


def _refused(body: Body, point: np.ndarray, frame: str, name: str, given: list[float]) -> str:
    """What to say of a place, (3,) m, outside the box or in air."""
    shown = ", ".join(f"{x:.6g}" for x in given)
    said = f"{name} = ({shown}) {unit_of(frame)}"
    if not ((point >= 0) & (point <= body.extent)).all():
        box = " x ".join(f"{x:.4g}" for x in body.extent)
        return f"{said} lies outside the box of {box} m{_hint(body, point, frame, given)}"
    near = body.nearest_voxel(point)
    far = 1e3 * float(np.linalg.norm(near - point))
    place = ", ".join(f"{x:.6g}" for x in in_frame(body, near[None], frame)[0])
    return (
        f"{said} lies in air, where no current flows; the nearest tissue is {far:.3g} mm away, at"
        f" ({place}) {unit_of(frame)}: body.nearest(points) gives such places"
    )


def _hint(body: Body, point: np.ndarray, frame: str, given: list[float]) -> str:
    """What a place outside the box was perhaps meant to be."""

    def holds(place: np.ndarray) -> bool:
        return bool(((place >= 0) & (place <= body.extent)).all())

    if frame == "world":
        if holds(np.asarray(given)):
            return "; as metres of the grid it lies inside: frame='grid'?"
        return ""
    if body.affine is not None:
        world = in_metres(body, torch.tensor([given], dtype=torch.float64), "world", "at")[0]
        if holds(world.numpy()):
            return "; as millimetres of the world it lies inside: frame='world'?"
    whole = bool((point == point.round()).all())
    if holds(point / 1e3) and not whole:
        return "; are these millimetres? Metres are expected"
    if holds(point * body.spacing):
        return "; are these voxels? Metres are expected: (index + 0.5) * spacing"
    return ", in the order (D, H, W)"
