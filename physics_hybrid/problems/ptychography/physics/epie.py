"""ePIE, the classical way back from far fields to the object, with the probe known.

    psi = P O_j,  psi' = F^-1[A_j F[psi] / |F[psi]|],  O_j <- O_j + a P* / max |P|^2 (psi' - psi)

Maiden and Rodenburg, Ultramicroscopy 109 (2009) 1256, eqs. 3 to 6. Frames that do not overlap are
updated together: that is the same as one after the other, and ePIE takes them in any order.
"""

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from physics_hybrid.problems.ptychography.physics.forward import far_field, near_field, windows


def epie(
    measured: Float[Tensor, "frames N N"],
    probe: Complex[Tensor, "N N"],
    positions: Int[Tensor, "frames 2"],
    shape: tuple[int, int],
    iterations: int = 200,
    step: float = 1.0,
    seed: int = 0,
) -> Complex[Tensor, "H W"]:
    """The object after some iterations, each through all frames, from an object of 1.

    Parameters
    ----------
    measured : Tensor
        Amplitudes, zero frequency in the middle.
    probe, positions, shape : Tensor, Tensor, (int, int)
        Of the scan and of the object.
    iterations, step, seed : int, float, int
        How often each frame is taken, a, and the order.
    """
    found = torch.ones(shape, dtype=probe.dtype, device=probe.device)
    update = step * probe.conj() / probe.abs().square().max()
    rng = np.random.default_rng(seed)
    sets = [torch.tensor(rows, device=probe.device) for rows in apart(positions, len(probe))]
    places = [windows(positions[rows], len(probe)) for rows in sets]
    for _ in range(iterations):
        for number in rng.permutation(len(sets)):
            rows, columns = places[number]
            patch = found[rows, columns]
            wave = far_field(probe * patch)
            held = measured[sets[number]] * torch.sgn(wave)
            found[rows, columns] = patch + update * near_field(held - wave)
    return found


def apart(positions: Int[Tensor, "frames 2"], size: int) -> list[list[int]]:
    """Frames in as few sets as come easily, those of a set without an overlap."""
    corners = positions.cpu().numpy()
    near = (np.abs(corners[:, None] - corners[None]) < size).all(axis=2)
    members: list[list[int]] = []
    for frame in range(len(corners)):
        free = (rows for rows in members if not near[frame, rows].any())
        rows = next(free, None)
        if rows is None:
            members.append([frame])
        else:
            rows.append(frame)
    return members
