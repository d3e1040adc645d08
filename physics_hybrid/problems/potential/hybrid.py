r"""The hybrid: a baseline from physics, corrected by a network.

    multiplicative   phi = phi_a (1 + c)
    additive         phi = phi_a + U c
    direct           phi = U c         (no baseline: to measure what the hybrid form is worth)

c is the network's output, U the mean of |phi_a| over tissue, a scale in volts. The network sees the
same inputs in all three. Nothing here knows where the baseline comes from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor

from physics_hybrid.checks import among, one_of
from physics_hybrid.grid import Grid, others, per_sample
from physics_hybrid.problems.potential.geometry import SpacingModulation
from physics_hybrid.problems.potential.physics.conductor import offsets_from

COMPOSITIONS = ("multiplicative", "additive", "direct")

#: Channels beside geometry features and sigma: tissue, source, X Y Z, direction from the source
#: (3), log distance.
EXTRA_CHANNELS = 9


def source_moments(
    f: Float[Tensor, "B D H W"], spacing: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B 3"]]:
    """Current and centroid of a source density.

    f in A/m^3, spacing in m -> current in A = sum f dV; centroid in m from the outer corner of
    voxel (0, 0, 0), the centre of mass of the non-zero voxels.
    """
    weight = f.double() if f.device.type != "mps" else f
    total = weight.sum(dim=(1, 2, 3))
    axes = []
    for axis in range(3):
        position = torch.arange(f.shape[axis + 1], device=f.device, dtype=weight.dtype) + 0.5
        axes.append((weight.sum(dim=others(axis)) * position).sum(dim=1) / total)
    centroid = torch.stack(axes, dim=1) * spacing
    return (total * spacing.prod(dim=1)).to(f.dtype), centroid.to(f.dtype)


@dataclass(frozen=True)
class _Asked:
    """What a channel stack says: sigma in S/m, the source density f in A/m^3, X Y Z; and of the
    source its current in A and its centroid in m."""

    sigma: Float[Tensor, "B C D H W"]
    f: Float[Tensor, "B D H W"]
    coordinates: Float[Tensor, "B 3 D H W"]
    current: Float[Tensor, " B"]
    centroid: Float[Tensor, "B 3"]

    @property
    def tissue(self) -> Float[Tensor, "B 1 D H W"]:
        """1 where there is tissue."""
        return (self.sigma[:, :1] > 0).to(self.sigma.dtype)


class HybridWrapper(Module):  # type: ignore[misc]  # PhysicsNeMo has no types
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
    home : list of 3 int or None
        On finer grids than this one, that of training, the correction is taken from this grid
        (`Surrogate`), so that a network costs the same on every grid. None: from each grid itself.

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
        sigma_mean: Sequence[float] = (0.0, 0.0, 0.0),
        sigma_std: Sequence[float] = (1.0, 1.0, 1.0),
        spacing_hidden: int = 16,
        home: Sequence[int] | None = None,
    ):
        super().__init__()
        among(COMPOSITIONS, "model.composition", composition)
        one_of(("log10", "linear"), "model.sigma_input", sigma_input)
        if len(sigma_mean) != sigma_components or len(sigma_std) != sigma_components:
            raise ValueError(
                f"sigma_mean and sigma_std need {sigma_components} values, one a component of sigma"
            )
        self.backbone, self.encoder, self.baseline = backbone, encoder, baseline
        self.composition, self.sigma_components = composition, sigma_components
        self.home = None if home is None else tuple(home)
        self.sigma_input, self.sigma_eps = sigma_input, sigma_eps
        self.register_buffer("sigma_mean", _column(sigma_mean), persistent=False)
        self.register_buffer("sigma_std", _column(sigma_std), persistent=False)
        channels = feature_channels(sigma_components, encoder.channels)
        self.modulation = SpacingModulation(channels, spacing_hidden)

    def forward(
        self, x: Float[Tensor, "..."], spacing: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "B 1 D H W"]:
        asked = self._asked(x, spacing)
        correction = self._correction(asked, spacing)
        with torch.no_grad():
            phi_a = self.baseline(asked.sigma, asked.centroid, asked.current, spacing)
        return self.compose(correction, phi_a, asked.tissue)

    def correction(
        self, x: Float[Tensor, "..."], spacing: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "B 1 D H W"]:
        """c, what the network adds to the baseline, on the grid of x."""
        return self._correction(self._asked(x, spacing), spacing)

    def _correction(
        self, asked: "_Asked", spacing: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "B 1 D H W"]:
        features = self.modulation(self._features(asked, spacing), spacing)
        c: Tensor = self.backbone(features).float()
        return c

    def check_grid(self, grid: Grid) -> None:
        """Raise ValueError where the backbone or the baseline cannot take a grid."""
        self.backbone.check_grid(self.home_of(grid))
        self.baseline.check_grid(grid)

    def home_of(self, grid: Grid) -> Grid:
        """The grid that the correction is taken from: `home` for finer ones, else the grid."""
        if self.home is None or any(n < m for n, m in zip(grid, self.home, strict=True)):
            return grid
        D, H, W = self.home
        return D, H, W

    def features(
        self, x: Float[Tensor, "..."], spacing: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "B features D H W"]:
        """What the backbone sees, before modulation."""
        return self._features(self._asked(x, spacing), spacing)

    def _features(
        self, asked: "_Asked", spacing: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "B features D H W"]:
        tissue = asked.tissue
        with torch.no_grad():
            source = self._source(asked.f, asked.current, spacing)
            relative = self._relative(asked.f, asked.centroid, spacing)
            normalised = self._sigma(asked.sigma)
        geometry = self.encoder(torch.cat([normalised, tissue], dim=1))
        parts = [geometry, normalised, tissue, source, asked.coordinates, *relative]
        return torch.cat(parts, dim=1)

    def _asked(self, x: Float[Tensor, "..."], spacing: Float[Tensor, "B 3"]) -> "_Asked":
        """The channel stack, taken apart."""
        C = self.sigma_components
        if x.ndim != 5 or x.shape[1] != C + 4:
            raise ValueError(
                f"x must be (B, {C} + 4, D, H, W): sigma, source, X, Y, Z; got {tuple(x.shape)}"
            )
        current, centroid = source_moments(x[:, C], spacing)
        return _Asked(x[:, :C], x[:, C], x[:, C + 1 :], current, centroid)

    def compose(
        self,
        correction: Float[Tensor, "B 1 D H W"],
        phi_a: Float[Tensor, "B 1 D H W"],
        tissue: Float[Tensor, "B 1 D H W"],
    ) -> Float[Tensor, "B 1 D H W"]:
        """phi_total in volts."""
        if self.composition == "multiplicative":
            return phi_a * (1 + correction) * tissue
        total = (phi_a.abs() * tissue).sum(dim=(2, 3, 4), keepdim=True)
        unit = total / tissue.sum(dim=(2, 3, 4), keepdim=True)
        phi = unit * correction
        if self.composition == "additive":
            phi = phi_a + phi
        return phi * tissue

    def _sigma(self, sigma: Float[Tensor, "B C D H W"]) -> Float[Tensor, "B C D H W"]:
        values = transform_sigma(sigma, self.sigma_input, self.sigma_eps)
        normalised: Tensor = (values - self.sigma_mean) / self.sigma_std
        return normalised

    def _source(
        self,
        f: Float[Tensor, "B D H W"],
        current: Float[Tensor, " B"],
        spacing: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B 1 D H W"]:
        """f over the mean density I / V of the box, in thousands: the same integral on every
        grid.
        """
        volume = spacing.prod(dim=1) * f[0].numel()
        return (f * per_sample(volume / current) / 1000)[:, None]

    def _relative(
        self,
        f: Float[Tensor, "B D H W"],
        centroid: Float[Tensor, "B 3"],
        spacing: Float[Tensor, "B 3"],
    ) -> list[Float[Tensor, "B _ D H W"]]:
        """Unit vector from the source (3 channels) and log(|d| / L), L the geometric mean edge of
        the box.
        """
        D, H, W = f.shape[1:]
        offsets = offsets_from(centroid, (D, H, W), spacing)
        d = torch.stack([offset.expand(f.shape) for offset in offsets], dim=1)
        box = spacing * torch.tensor((D, H, W), device=f.device)
        length = per_sample(torch.log(box).mean(dim=1).exp())[:, None]
        smallest = per_sample(spacing.min(dim=1).values)[:, None]
        r = torch.sqrt((d**2).sum(dim=1, keepdim=True) + (0.1 * smallest) ** 2)
        return [d / r, torch.log(r / length)]


def _column(values: Sequence[float]) -> Float[Tensor, "1 C 1 1 1"]:
    """A value for each component of sigma."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)


def transform_sigma(
    sigma: Float[Tensor, "B C D H W"], kind: str, eps: float
) -> Float[Tensor, "B C D H W"]:
    """log10(sigma + eps) of the diagonal components (off-diagonal ones stay), or sigma as is."""
    if kind == "linear":
        return sigma
    return torch.cat([torch.log10(sigma[:, :3] + eps), sigma[:, 3:]], dim=1)


def feature_channels(sigma_components: int, geometry_channels: int) -> int:
    """Channels that `HybridWrapper` gives its backbone."""
    return geometry_channels + sigma_components + EXTRA_CHANNELS


def widened(
    weights: Mapping[str, Tensor], source: HybridWrapper, model: HybridWrapper
) -> dict[str, Tensor]:
    """Weights of a network that sees diagonal tensors (3 components), for one that sees whole ones.

    Off-diagonal components count nothing at first: on bodies without any, `model` is `source`.
    Where the two see as much, or differ in more, the weights stay as they are.
    """
    out = dict(weights)
    diagonal, whole = source.sigma_components, model.sigma_components
    if (diagonal, whole) != (3, 6):
        return out
    for name, wanted in model.state_dict().items():
        given = out.get(name)
        if given is None or given.ndim != wanted.ndim:
            continue
        more = [n - m for n, m in zip(wanted.shape, given.shape, strict=True)]
        if sorted(more) != [0] * (given.ndim - 1) + [whole - diagonal]:
            continue
        axis = more.index(whole - diagonal)
        # the encoder is given sigma first, all others the channels of the encoder before it
        place = diagonal if name.startswith("encoder.") else model.encoder.channels + diagonal
        before, after = given.tensor_split([place], dim=axis)
        none = torch.zeros_like(given.narrow(axis, 0, whole - diagonal))
        out[name] = torch.cat([before, none, after], dim=axis)
    return out
