r"""The analytical baseline as a PhysicsNeMo module, so that it is stored with the network it belongs to.

    isotropic     phi_a = I / (4 pi sigma_ref sqrt(|r - r_s|^2 + eps^2))
    anisotropic   phi_a = I / (4 pi sqrt(det sigma) sqrt(d^T sigma^-1 d)),  softened alike             [V]
"""

from __future__ import annotations

import torch
from physicsnemo.core.module import Module
from torch import Tensor

from physics_hybrid.potential.conductor import offsets_from
from physics_hybrid.potential.point_source import potential


class PointSourceBaseline(Module):
    """Potential of the point source as if all tissue were one homogeneous, infinite medium.

    Parameters
    ----------
    kind : str
        'isotropic' (a tensor counts by the mean of its diagonal) or 'anisotropic'.
    sigma_ref : str or float
        'conductive_mean': mean over conductive voxels, air ignored; 'local': sigma at the source; or a number in S/m.
    softening : float
        eps in voxels (smallest edge).

    Forward
    -------
    sigma (B, C, D, H, W) S/m, point (B, 3) m, current (B,) A, spacing (B, 3) m -> phi_a (B, 1, D, H, W) V.
    """

    def __init__(self, kind: str = "isotropic", sigma_ref: str | float = "conductive_mean", softening: float = 0.1):
        super().__init__()
        if kind not in ("isotropic", "anisotropic"):
            raise ValueError(f"model.baseline.kind must be isotropic or anisotropic; got {kind!r}")
        number = isinstance(sigma_ref, (int, float)) and not isinstance(sigma_ref, bool)
        if not (sigma_ref in ("conductive_mean", "local") or (number and sigma_ref > 0)):
            raise ValueError(f"model.baseline.sigma_ref must be conductive_mean, local or a positive number (S/m); got {sigma_ref!r}")
        if softening < 0:
            raise ValueError(f"model.baseline.softening must be >= 0 voxels; got {softening}")
        self.kind, self.sigma_ref, self.softening = kind, sigma_ref, softening

    def forward(self, sigma: Tensor, point: Tensor, current: Tensor, spacing: Tensor) -> Tensor:
        reference = self.reference(sigma, point, spacing)
        if self.kind == "isotropic":
            reference = reference[:, :3].mean(dim=1, keepdim=True)
        eps = self.softening * spacing.min(dim=1).values
        return potential(offsets_from(point, tuple(sigma.shape[2:]), spacing), current, reference, softening=eps)[:, None]

    def reference(self, sigma: Tensor, point: Tensor, spacing: Tensor) -> Tensor:
        """sigma_ref (B, C) in S/m."""
        if self.sigma_ref == "conductive_mean":
            tissue = (sigma[:, :1] > 0).to(sigma.dtype)
            return sigma.sum(dim=(2, 3, 4)) / tissue.sum(dim=(2, 3, 4)).clamp_min(1)
        if self.sigma_ref == "local":
            size = torch.tensor(sigma.shape[2:], device=sigma.device)
            index = torch.minimum((point / spacing).floor().long().clamp_min(0), size - 1)
            return sigma[torch.arange(len(index), device=sigma.device), :, index[:, 0], index[:, 1], index[:, 2]]
        value = torch.full_like(sigma[:, :, 0, 0, 0], float(self.sigma_ref))
        value[:, 3:] = 0
        return value
