"""Latents of trajectories on disk. A cache belongs to the weights and the data that it was made
from: the key of both is in it, and another one is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.problems.burgers.data.trajectories import Trajectories
from physics_hybrid.reading import open_h5
from physics_hybrid.writing import STORED, create_h5

#: Frames that are encoded together.
TOGETHER = 2048


def key_of(encoder: nn.Module, known: Trajectories) -> str:
    """Of all weights, and of the content of all trajectories."""
    digest = hashlib.sha256()
    for name, weight in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    for name, content in known.contents():
        digest.update(f"{name} {content}".encode())
    return digest.hexdigest()


def latents(autoencoder: nn.Module, known: Trajectories, path: Path) -> Tensor:
    """z of all frames, (n, T, L, D): from the file, which is made first where it is not there.

    Raises
    ------
    FileError
        The file is damaged, or was made with other weights or from other trajectories.
    OSError
        It cannot be written.
    """
    key = key_of(autoencoder, known)
    if not path.exists():
        z = encoded(autoencoder, known.u)
        with create_h5(path) as file:
            file.create_dataset("z", data=z.cpu().numpy(), **STORED)
            file.attrs["key"] = np.bytes_(key)
    with open_h5(path) as file:
        stored = file.attribute("key")
        if stored is None or bytes(stored).decode() != key:
            raise file.error(
                "was made with another encoder, or from other trajectories: delete it, it is made"
                " again"
            )
        z = torch.from_numpy(file.dataset("z")[()])
    return z.to(known.u.device)


@torch.no_grad()
def encoded(autoencoder: nn.Module, u: Tensor) -> Tensor:
    """z of all frames (n, T, N) -> (n, T, L, D)."""
    encode = autoencoder.encode
    assert callable(encode)
    flat = u.flatten(0, 1)
    parts = [encode(flat[k : k + TOGETHER]) for k in range(0, len(flat), TOGETHER)]
    z = torch.cat(parts)
    return z.reshape(*u.shape[:2], *z.shape[1:])
