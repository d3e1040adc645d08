"""Scans, and the frames that a network is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from physics_hybrid.problems.ptychography.physics import forward


@dataclass(frozen=True)
class Scan:
    """What was measured of one object.

    name : of the scan.
    amplitude : of each frame, zero frequency in the middle.
    positions : first corner of each frame in the object, pixels.
    shape : of the object.
    photon_scale : s; (s A)^2 are photons.
    truth : the object, where it is known.
    """

    name: str
    amplitude: Float[Tensor, "frames N N"]
    probe: Complex[Tensor, "N N"]
    positions: Int[Tensor, "frames 2"]
    shape: tuple[int, int]
    photon_scale: float
    truth: Complex[Tensor, "H W"] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def __len__(self) -> int:
        """A scan is tested as one."""
        return 1

    def to(self, device: torch.device) -> Scan:
        truth = None if self.truth is None else self.truth.to(device)
        return replace(
            self,
            amplitude=self.amplitude.to(device),
            probe=self.probe.to(device),
            positions=self.positions.to(device),
            truth=truth,
        )

    def expected(self, found: Complex[Tensor, "H W"]) -> Float[Tensor, "frames N N"]:
        """Amplitudes that an object would give."""
        return forward.amplitude(
            self.probe, forward.patches(found, self.positions, len(self.probe))
        )

    def frames(self) -> Frames:
        """All of them, named after the scan."""
        names = tuple(f"{self.name}[{i}]" for i in range(len(self.amplitude)))
        return Frames(self.amplitude, self.photon_scale, names)


@dataclass(frozen=True)
class Frames:
    """Frames that go through the network together.

    amplitude : zero frequency in the middle. photon_scale : s; (s A)^2 are photons.
    """

    amplitude: Float[Tensor, "B N N"]
    photon_scale: float
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, chosen: Sequence[int]) -> Frames:
        names = tuple(self.names[i] for i in chosen)
        return Frames(self.amplitude[list(chosen)], self.photon_scale, names)

    def contents(self) -> list[tuple[str, str]]:
        """Name and fingerprint of each."""
        images = self.amplitude.cpu().numpy()
        prints = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images]
        return list(zip(self.names, prints, strict=True))


def together(parts: Sequence[Frames]) -> Frames:
    """The frames of several scans of the same probe and light."""
    amplitude = torch.cat([part.amplitude for part in parts])
    names = tuple(name for part in parts for name in part.names)
    return Frames(amplitude, parts[0].photon_scale, names)
