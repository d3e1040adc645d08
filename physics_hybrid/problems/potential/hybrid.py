r"""The hybrid: a baseline from physics, corrected by a network.

    multiplicative   phi = phi_a (1 + c)
    additive         phi = phi_a + U c
    direct           phi = U c                  (no baseline: to measure what the hybrid form is worth)

c is the network's output, U the mean of |phi_a| over tissue, a scale in volts. The network sees the
same inputs in all three. Nothing here knows where the baseline comes from.
"""

from __future__ import annotations

import torch
from physicsnemo.core.module import Module
from torch import Tensor

from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.geometry import SpacingModulation

COMPOSITIONS = ("multiplicative", "additive", "direct")

#: Channels beside geometry features and sigma: tissue, source, X Y Z, direction from the source
#: (3), log distance.
EXTRA_CHANNELS = 9


def source_moments(f: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
    """Current and centroid of a source density.

    f (B, D, H, W) in A/m^3, spacing (B, 3) in m -> current (B,) in A = sum f dV; centroid (B, 3) in
    m from the outer corner of voxel (0, 0, 0), the centre of mass of the non-zero voxels.
    """
    weight = f.double() if f.device.type != "mps" else f
    total = weight.sum(dim=(1, 2, 3))
    axes = []
    for axis in range(3):
        others = [a + 1 for a in range(3) if a != axis]
        position = torch.arange(f.shape[axis + 1], device=f.device, dtype=weight.dtype) + 0.5
        axes.append((weight.sum(dim=others) * position).sum(dim=1) / total)
    centroid = torch.stack(axes, dim=1) * spacing
    return (total * spacing.prod(dim=1)).to(f.dtype), centroid.to(f.dtype)


class HybridWrapper(Module):
    """phi_total from the channel stack, by baseline and network.

    Parameters
    ----------
    backbone : Module
        (B, C_in, D, H, W) -> (B, 1, D, H, W), C_in = `feature_channels(sigma_components,
        encoder.channels)`.
    encoder : Module
        GeometryEncoder, `sigma_components + 1` channels in.
    baseline : Module
        (sigma (B, C, D, H, W), centroid (B, 3), current (B,), spacing (B, 3)) -> phi_a (B, 1, D, H,
        W) in volts.
    composition : str
        multiplicative, additive or direct.
    sigma_components : int
        1, 3 or 6.
    sigma_input : str
        'log10': log10(sigma + sigma_eps) for scalar and diagonal parts; 'linear': as is.
    sigma_mean, sigma_std : list of float
        Statistics of the transformed sigma over the training split, one a component.
    spacing_hidden : int
        Hidden units of the spacing modulation.

    Forward
    -------
    x : Tensor (B, C + 4, D, H, W)
        sigma in S/m, source f in A/m^3, coordinates X, Y, Z in [-1, 1].
    spacing : Tensor (B, 3)
        Metres.

    Outputs
    -------
    Tensor (B, 1, D, H, W)
        phi_total in volts; 0 in air.

    Raises
    ------
    ValueError
        For a channel count or composition that does not fit.
    """

    def __init__(
        self,
        backbone: Module,
        encoder: Module,
        baseline: Module,
        composition: str = "multiplicative",
        sigma_components: int = 3,
        sigma_input: str = "log10",
        sigma_eps: float = 1e-3,
        sigma_mean: list[float] = [0.0, 0.0, 0.0],
        sigma_std: list[float] = [1.0, 1.0, 1.0],
        spacing_hidden: int = 16,
    ):
        super().__init__()
        if composition not in COMPOSITIONS:
            raise ValueError(
                f"model.composition must be one of {', '.join(COMPOSITIONS)}; got {composition!r}"
            )
        if sigma_input not in ("log10", "linear"):
            raise ValueError(f"model.sigma_input must be log10 or linear; got {sigma_input!r}")
        if len(sigma_mean) != sigma_components or len(sigma_std) != sigma_components:
            raise ValueError(
                f"sigma_mean and sigma_std need {sigma_components} values, one a component of sigma"
            )
        self.backbone, self.encoder, self.baseline = backbone, encoder, baseline
        self.composition, self.sigma_components = composition, sigma_components
        self.sigma_input, self.sigma_eps = sigma_input, sigma_eps

        def column(values):
            return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)

        self.register_buffer("sigma_mean", column(sigma_mean), persistent=False)
        self.register_buffer("sigma_std", column(sigma_std), persistent=False)
        self.modulation = SpacingModulation(
            feature_channels(sigma_components, encoder.channels), spacing_hidden
        )

    def forward(self, x: Tensor, spacing: Tensor) -> Tensor:
        features, phi_a, tissue = self.prepare(x, spacing)
        return self.compose(
            self.backbone(self.modulation(features, spacing)).float(), phi_a, tissue
        )

    def check_grid(self, grid: Grid) -> None:
        """Raise ValueError where the backbone or the baseline cannot take a grid."""
        for part in (self.backbone, self.baseline):
            part.check_grid(grid)

    def prepare(self, x: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the backbone sees (before modulation), the baseline in volts, and where there is
        tissue.
        """
        C = self.sigma_components
        if x.ndim != 5 or x.shape[1] != C + 4:
            raise ValueError(
                f"x must be (B, {C} + 4, D, H, W): sigma, source, X, Y, Z; got {tuple(x.shape)}"
            )
        sigma, f, coordinates = x[:, :C], x[:, C], x[:, C + 1 :]
        tissue = (sigma[:, :1] > 0).to(x.dtype)
        current, centroid = source_moments(f, spacing)
        with torch.no_grad():
            phi_a = self.baseline(sigma, centroid, current, spacing)
            features = torch.cat(
                [
                    tissue,
                    self._source(f, current, spacing),
                    coordinates,
                    *self._relative(f, centroid, spacing),
                ],
                dim=1,
            )
            normalised = torch.cat([self._sigma(sigma), tissue], dim=1)
        return (
            torch.cat([self.encoder(normalised), normalised[:, :C], features], dim=1),
            phi_a,
            tissue,
        )

    def compose(self, correction: Tensor, phi_a: Tensor, tissue: Tensor) -> Tensor:
        if self.composition == "multiplicative":
            return phi_a * (1 + correction) * tissue
        unit = (phi_a.abs() * tissue).sum(dim=(2, 3, 4), keepdim=True) / tissue.sum(
            dim=(2, 3, 4), keepdim=True
        )
        return ((phi_a if self.composition == "additive" else 0) + unit * correction) * tissue

    def _sigma(self, sigma: Tensor) -> Tensor:
        return (
            transform_sigma(sigma, self.sigma_input, self.sigma_eps) - self.sigma_mean
        ) / self.sigma_std

    def _source(self, f: Tensor, current: Tensor, spacing: Tensor) -> Tensor:
        """f over the mean density I / V of the box, in thousands: the same integral on every
        grid.
        """
        volume = spacing.prod(dim=1) * f[0].numel()
        return (f * (volume / current).view(-1, 1, 1, 1) / 1000)[:, None]

    def _relative(self, f: Tensor, centroid: Tensor, spacing: Tensor) -> list[Tensor]:
        """Unit vector from the source (3 channels) and log(|d| / L), L the geometric mean edge of
        the box.
        """
        grid = torch.tensor(f.shape[1:], device=f.device)
        axes = []
        for a in range(3):
            position = (torch.arange(f.shape[a + 1], device=f.device) + 0.5) * spacing[
                :, a, None
            ] - centroid[:, a, None]
            view = [len(f), 1, 1, 1]
            view[a + 1] = f.shape[a + 1]
            axes.append(position.view(view).expand(f.shape))
        d = torch.stack(axes, dim=1)
        length = torch.log(spacing * grid).mean(dim=1).exp().view(-1, 1, 1, 1, 1)
        smallest = spacing.min(dim=1).values.view(-1, 1, 1, 1, 1)
        r = torch.sqrt((d**2).sum(dim=1, keepdim=True) + (0.1 * smallest) ** 2)
        return [d / r, torch.log(r / length)]


def transform_sigma(sigma: Tensor, kind: str, eps: float) -> Tensor:
    """log10(sigma + eps) of the diagonal components (off-diagonal ones stay), or sigma as is."""
    if kind == "linear":
        return sigma
    return torch.cat([torch.log10(sigma[:, :3] + eps), sigma[:, 3:]], dim=1)


def feature_channels(sigma_components: int, geometry_channels: int) -> int:
    """Channels that `HybridWrapper` gives its backbone."""
    return geometry_channels + sigma_components + EXTRA_CHANNELS
