"""States before and after the instability, and which of them train, choose and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.checks import among, shares
from physics_hybrid.problems.flavour.physics.fluxes import AT_REST, total

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class States:
    """Samples, and a batch of them. All but `density` are divided by N_tot before.

    before, after : (B, 6, 4).
    u : four-velocity of the fluid, (B, 4).
    density : N_tot in 1/cm^3, or 1 where nobody said, (B,), float64.
    names, families : of each sample.
    box : what somebody else's Box3D made of them, (B, 6, 4), or None.
    """

    before: Tensor
    after: Tensor
    u: Tensor
    density: Tensor
    names: tuple[str, ...]
    families: tuple[str, ...]
    box: Tensor | None = None

    @classmethod
    def of(
        cls,
        before: Tensor,
        after: Tensor,
        names: Sequence[str],
        families: Sequence[str],
        u: Tensor | None = None,
        box: Tensor | None = None,
    ) -> States:
        """From four-fluxes in any unit, float64."""
        scale = total(before)
        if u is None:
            u = before.new_tensor(AT_REST).expand(len(before), 4)
        return cls(
            before=(before / scale).float(),
            after=(after / scale).float(),
            u=u.float(),
            density=scale[:, 0, 0],
            names=tuple(names),
            families=tuple(families),
            box=None if box is None else (box / scale).float(),
        )

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, rows: Sequence[int]) -> States:
        """Some of the samples."""
        index = torch.as_tensor(list(rows), dtype=torch.long, device=self.before.device)
        return States(
            before=self.before[index],
            after=self.after[index],
            u=self.u[index],
            density=self.density[index],
            names=tuple(self.names[i] for i in rows),
            families=tuple(self.families[i] for i in rows),
            box=None if self.box is None else self.box[index],
        )

    def contents(self) -> list[tuple[str, str]]:
        """Name and fingerprint of each sample."""
        held = torch.cat([self.before, self.after], dim=1).cpu().numpy()
        prints = (hashlib.sha256(sample.tobytes()).hexdigest()[:16] for sample in held)
        return list(zip(self.names, prints, strict=True))

    def to(self, device: torch.device) -> States:
        return States(
            before=self.before.to(device),
            after=self.after.to(device),
            u=self.u.to(device),
            density=self.density.to(device),
            names=self.names,
            families=self.families,
            box=None if self.box is None else self.box.to(device),
        )


def split(
    families: Sequence[str], fractions: dict[str, float], hold_out: str | None, seed: int
) -> dict[str, list[int]]:
    """Samples of each split: at random, family by family; or one family held out.

    hold_out : a family that is tested and never seen; the others train and choose, in the ratio of
        their fractions.

    Raises
    ------
    ValueError
        Fractions that are none, a family that there is not, a split for training, choosing or
        testing that is empty.
    """
    shares("data.splits", fractions)
    if hold_out is not None:
        among(sorted(set(families)), "data.hold_out", hold_out)
    random = np.random.default_rng([seed, 1])
    out: dict[str, list[int]] = {name: [] for name in SPLITS}
    for family in sorted(set(families)):
        members = random.permutation([i for i, f in enumerate(families) if f == family]).tolist()
        if family == hold_out:
            out["test"] += members
            continue
        train, validation = (fractions.get(name, 0.0) for name in SPLITS[:2])
        test = 0.0 if hold_out is not None else fractions.get("test", 0.0)
        if hold_out is not None:
            train, validation = (share / (train + validation) for share in (train, validation))
        ends = np.round(np.cumsum([train, validation, test]) * len(members)).astype(int)
        for name, part in zip(SPLITS, np.split(np.array(members), ends[:-1]), strict=True):
            out[name] += part[: ends[-1]].tolist()
    return {name: sorted(rows) for name, rows in out.items()}
