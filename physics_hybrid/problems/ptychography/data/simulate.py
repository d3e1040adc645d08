"""Simulated scans: a function of seed and number alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from physics_hybrid.checks import at_least, not_negative, positive
from physics_hybrid.problems.ptychography.data.scan import Scan
from physics_hybrid.problems.ptychography.physics import forward
from physics_hybrid.problems.ptychography.physics.objects import line_object
from physics_hybrid.problems.ptychography.physics.probe import disk_probe


@dataclass(frozen=True)
class Setting:
    """How scans are made. Lengths in pixels.

    frame : N. size : of the object. lines : on its canvas. set_phase : whether it has a phase.
    radius, edge, curvature : of the probe, see `disk_probe`. step, jitter : of the grid of
    positions, and the most that a position is off it. photons : of the brightest frame; None for no
    noise.

    Raises
    ------
    ValueError
        What cannot be meant, by key.
    """

    frame: int
    size: int
    lines: int
    set_phase: bool
    radius: float
    edge: float
    curvature: float
    step: int
    jitter: int
    photons: float | None

    def __post_init__(self) -> None:
        for name, least in (("frame", 8), ("lines", 1), ("step", 1)):
            at_least(least, f"data.{name}", getattr(self, name))
        at_least(self.frame + self.step, "data.size", self.size)
        not_negative("data.jitter", self.jitter)
        not_negative("data.edge", self.edge)
        positive("data.radius", self.radius)
        if self.photons is not None:
            positive("data.photons", self.photons)


def simulate(setting: Setting, name: str, key: tuple[int, ...]) -> Scan:
    """One scan of one random object.

    key : what everything random follows from, such as (seed, split, number).

    Examples
    --------
    >>> setting = Setting(16, 32, 20, True, 4, 1, 0, 4, 1, None)
    >>> simulate(setting, "one", (0, 0, 0)).amplitude.shape
    torch.Size([25, 16, 16])
    """
    rng = np.random.default_rng(list(key))
    whole = line_object(setting.size, setting.lines, rng, phase=setting.set_phase)
    probe = torch.from_numpy(
        disk_probe(
            setting.frame, float(setting.radius), float(setting.edge), float(setting.curvature)
        )
    )
    positions = torch.from_numpy(scan_positions(setting, rng))
    patch = forward.patches(torch.from_numpy(whole), positions, setting.frame)
    amplitudes = forward.amplitude(probe, patch).numpy()
    scale = forward.photon_scale(amplitudes, setting.photons or 1e9)
    if setting.photons is not None:
        amplitudes = forward.detected(amplitudes, scale, rng)
    return Scan(
        name=name,
        amplitude=torch.from_numpy(amplitudes).float(),
        probe=probe.to(torch.complex64),
        positions=positions,
        shape=whole.shape,
        photon_scale=scale,
        truth=torch.from_numpy(whole).to(torch.complex64),
    )


def scan_positions(setting: Setting, rng: np.random.Generator) -> NDArray[np.int64]:
    """A grid of corners, each moved by up to `jitter` pixels, inside the object: (frames, 2)."""
    last = setting.size - setting.frame
    line = np.arange(0, last + 1, setting.step)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    moved = grid + rng.integers(-setting.jitter, setting.jitter + 1, size=grid.shape)
    out: NDArray[np.int64] = np.clip(moved, 0, last)
    return out
