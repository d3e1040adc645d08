"""What brings the current in: point electrodes, or patches of many voxels on the skin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.door.arrays import is_tensor, numbers
from physics_hybrid.problems.potential.door.places import (
    in_metres,
    metres_per_unit,
    places,
    unit_of,
)
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.body import Body

#: Currents in A: squares of less or more are not numbers any more.
LEAST, MOST = 1e-60, 1e60


@dataclass(frozen=True)
class Patch:
    """An electrode of many voxels: those on the surface of the tissue within `radius` of `centre`,
    each with the same share of the current; its voltage is their mean.

    centre : (3,), on the skin or near it; radius : both in m, or mm where frame is "world".

    Raises
    ------
    ValueError
        Where it is used: no surface within the radius, or not a place.

    Source
    ------
    The shunt and contact impedance of a real electrode are not in it: those are the complete
    electrode model (Somersalo, Cheney and Isaacson, SIAM J. Appl. Math. 52 (1992) 1023).

    Examples
    --------
    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> body = ph.Body(np.full((16, 16, 16), 0.3), (0.004, 0.004, 0.004))
    >>> voxels = ph.Patch((0.032, 0.032, 0.0), radius=0.009).voxels(body)
    >>> len(voxels), set(voxels[:, 2].tolist())
    (16, {0})
    """

    centre: Any
    radius: float

    def voxels(self, body: Body, frame: str = "grid", name: str = "patch") -> np.ndarray:
        """The voxels that it covers. (n, 3)

        Raises
        ------
        ValueError
            No surface within the radius, or not a place.
        """
        given = numbers(self.centre, f"{name}.centre").detach()
        if tuple(given.shape) != (3,):
            raise ValueError(f"{name}.centre must be (3,); got {tuple(given.shape)}")
        size = numbers(self.radius, f"{name}.radius").detach()
        radius = float(size) * metres_per_unit(frame) if size.ndim == 0 else np.nan
        if not (np.isfinite(radius) and radius > 0):
            raise ValueError(f"{name}.radius must be > 0 {unit_of(frame)}; got {self.radius}")
        centre = in_metres(body, given[None].cpu(), frame, f"{name}.centre")[0].numpy()
        distance = np.linalg.norm((body.surface + 0.5) * body.spacing - centre, axis=1)
        covered: np.ndarray = body.surface[distance <= radius]
        if not len(covered):
            nearest = body.nearest_voxel(centre)
            raise ValueError(
                f"{name} of radius {self.radius:g} {unit_of(frame)} covers no voxel of the skin:"
                f" the nearest is {1e3 * distance.min():.3g} mm from its centre, at"
                f" {nearest.round(6).tolist()} m of the grid"
            )
        return covered


@dataclass(frozen=True)
class Deposit:
    """1 A spread over voxels, or what a voltage is the mean of: flat indices (n,), and shares (n,)
    that add up to 1; of a pair, to 0.
    """

    voxels: np.ndarray
    shares: np.ndarray

    def less(self, other: Deposit) -> Deposit:
        """What flows from here to there."""
        return Deposit(
            np.concatenate([self.voxels, other.voxels]),
            np.concatenate([self.shares, -other.shares]),
        )

    def within(self, box: Box) -> Deposit:
        """The same in voxels of a box."""
        index = np.unravel_index(self.voxels, box.shape)
        inside = tuple(i - a for i, a in zip(index, box.low, strict=True))
        return Deposit(np.ravel_multi_index(inside, box.size), self.shares)

    def density(self, conductor: Conductor) -> Float[Tensor, "D H W"]:
        """A/m^3 of 1 A."""
        density = conductor.spacing.new_zeros(conductor.tissue[0].numel())
        shares = torch.from_numpy(self.shares).to(density)
        density.index_add_(0, torch.from_numpy(self.voxels).to(density.device), shares)
        return density.reshape(conductor.shape) / conductor.voxel_volume[0]


@dataclass(frozen=True)
class Sources:
    """K electrodes, or pairs of them, in one body.

    points : (K, 3) m of the grid; None for patches.
    current : (K,) A.
    returns : (K, 3) m where second electrodes take the current out; None for none.
    deposits : of patches, where 1 A goes.
    many : whether they were given as many.
    """

    points: Float[Tensor, "K 3"] | None
    current: Float[Tensor, " K"]
    returns: Float[Tensor, "K 3"] | None
    deposits: tuple[Deposit, ...]
    many: bool

    def __len__(self) -> int:
        return len(self.current)

    @property
    def differentiable(self) -> bool:
        """Whether derivatives in them are asked for."""
        given = (self.points, self.current, self.returns)
        return any(g is not None and g.requires_grad for g in given)

    def part(self, conductor: Conductor, rows: slice) -> PointSource | Tensor:
        """Some of them as the physics takes them: points, or A/m^3 (k, D, H, W)."""
        if self.points is None:
            density = torch.stack([d.density(conductor) for d in self.deposits[rows]])
            return density * self.current[rows].reshape(-1, 1, 1, 1)
        returns = None if self.returns is None else self.returns[rows]
        return PointSource(self.points[rows], self.current[rows], returns)

    def within(self, box: Box, spacing: Tensor) -> Sources:
        """The same with places from the corner of a box. spacing : (3,) m."""
        corner = torch.tensor(box.low, dtype=spacing.dtype, device=spacing.device) * spacing
        return Sources(
            points=None if self.points is None else self.points - corner,
            current=self.current,
            returns=None if self.returns is None else self.returns - corner,
            deposits=tuple(deposit.within(box) for deposit in self.deposits),
            many=self.many,
        )

    def voxels(self, body: Body, k: int) -> np.ndarray:
        """Those that the electrodes of one source lie in, (n, 3)."""
        if self.points is None:
            return np.stack(np.unravel_index(self.deposits[k].voxels, body.shape), axis=1)
        several = [p[k : k + 1] for p in (self.points, self.returns) if p is not None]
        held = body.plain.in_tissue(torch.cat(several).detach())
        return body.plain.index_of(held)[0].cpu().numpy()

    def marks(self, k: int) -> list[tuple[np.ndarray, str]]:
        """Where the electrodes of one are, (3,) m, and their signs."""
        marks = []
        for points, sign in ((self.points, "+"), (self.returns, "_")):
            if points is not None:
                marks.append((points[k].detach().cpu().numpy(), sign))
        return marks


def sources_of(body: Body, at: Any, current: Any, returns: Any, frame: str) -> Sources:
    """Electrodes as a user gives them.

    Raises
    ------
    ValueError
        A wrong shape; places outside or in air; a current that is no finite number, or not one for
        each; pairs of which one is a patch and the other a point.
    """
    patched = _are_patches(at)
    if returns is not None and _are_patches(returns) != patched:
        raise ValueError("at and returns must both be points, or both patches")
    if patched:
        return _of_patches(body, at, current, returns, frame)
    points, many = places(body, at, frame, "at")
    amperes = _amperes(current, len(points)).to(points)
    back = None
    if returns is not None:
        back, _ = places(body, returns, frame, "returns")
        if len(back) not in (1, len(points)):
            raise ValueError(
                f"returns must hold one place, or one for each of {len(points)} sources; got"
                f" {len(back)}"
            )
        back = back.expand_as(points)
        same = (back == points).all(dim=1)
        if bool(same.any()):
            raise ValueError(
                f"at and returns are the same place for source {int(same.nonzero()[0])}: no current"
                " flows"
            )
    return Sources(points, amperes, back, (), many)


def _are_patches(given: Any) -> bool:
    """Whether electrodes are patches, not points."""
    first = given[0] if isinstance(given, (list, tuple)) and given else given
    return isinstance(first, Patch)


def _of_patches(body: Body, at: Any, current: Any, returns: Any, frame: str) -> Sources:
    many = not isinstance(at, Patch)
    patches = _listed(at)
    amperes = _amperes(current, len(patches)).to(body.sigma.device)
    deposits = [deposit_of(body, p, frame, "at") for p in patches]
    if returns is not None:
        back = _listed(returns)
        if len(back) not in (1, len(patches)):
            raise ValueError(
                f"returns must hold one patch, or one for each of {len(patches)}; got {len(back)}"
            )
        out = [deposit_of(body, p, frame, "returns") for p in back] * (len(patches) // len(back))
        for k, (d, o) in enumerate(zip(deposits, out, strict=True)):
            if np.array_equal(d.voxels, o.voxels):
                raise ValueError(
                    f"at and returns cover the same voxels for source {k}: no current flows"
                )
        deposits = [d.less(o) for d, o in zip(deposits, out, strict=True)]
    return Sources(None, amperes, None, tuple(deposits), many)


def _listed(given: Any) -> Sequence[Patch]:
    """One patch, or several, as a list. Raises ValueError where another thing is among them."""
    patches = [given] if isinstance(given, Patch) else list(given)
    if not all(isinstance(p, Patch) for p in patches):
        raise ValueError("electrodes must be all points, or all patches")
    return patches


def deposit_of(body: Body, patch: Patch, frame: str, name: str) -> Deposit:
    """1 A through a patch. Raises ValueError as `Patch.voxels`."""
    voxels = patch.voxels(body, frame, name)
    flat = np.ravel_multi_index(tuple(voxels.T), body.shape)
    return Deposit(flat, np.full(len(flat), 1 / len(flat)))


def _amperes(current: Any, count: int) -> Tensor:
    """Currents (K,) in A. Raises ValueError."""
    amperes = numbers(current, "current")
    if tuple(amperes.shape) not in ((), (count,), (1,)) or not bool(
        torch.isfinite(amperes.detach()).all()
    ):
        shown = amperes.tolist() if amperes.numel() < 9 else tuple(amperes.shape)
        raise ValueError(
            f"current must be one finite number of A, or one for each of {count} sources; got"
            f" {shown}"
        )
    sizes = amperes.detach().abs()
    beyond = (sizes > 0) & ((sizes < LEAST) | (sizes > MOST))
    if bool(beyond.any()):
        raise ValueError(
            f"current must be 0 or lie in {LEAST:g} to {MOST:g} A; got"
            f" {float(amperes.detach()[beyond].flatten()[0]):g}"
        )
    if amperes.ndim == 0:
        amperes = amperes[None]
    return amperes.expand(count)


def any_tensor(*given: Any) -> bool:
    """Whether a user works with tensors."""
    return any(is_tensor(value) for value in given)
