"""Networks that learn what Box3D leaves out.

    F' = F + D_Box3D + lambda D_net

Both take four-fluxes and the velocity of the fluid, and work in its frame and on F / N_tot:
products of densities in CGS overflow float32. `lambda` is the largest step <= 1 that ends physical.

FlavourMLP         27 invariants -> 24 components of D_net: the classical design, kept as control
FlavourEquivariant 27 invariants -> scalars; vectors are made of the fluxes themselves

        dN_a     = s d_a,                    the same d_a for nu and nubar, sum_a d_a = 0
        dF_a     = s sum_b C_ab F_b,         columns of C sum to zero within nu and within nubar

        s        = |D_Box3D|  r / (r + half_open)  trust,        r = I_small / I_large

b runs over the six fluxes and the two that Box3D moves. s is a gate that vanishes with the
crossing, and far from what was trained on: trust is 1 where no feature lies more than `trusted`
standard deviations from its mean, and falls with the eighth power beyond. Number and lepton number
of each flavour are kept, and the map turns and moves with the axes, whatever the weights.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from physicsnemo.core.module import Module
from torch import Tensor, nn

from physics_hybrid.problems.flavour.physics.box3d import Conversion, convert
from physics_hybrid.problems.flavour.physics.fluxes import (
    AT_REST,
    SWAP,
    boost,
    invariants,
    physical_share,
    reversed_velocity,
    swapped_invariants,
    total,
)
from physics_hybrid.problems.flavour.physics.sphere import Quadrature, quadrature

INVARIANTS = 27
#: What Box3D says of a state, besides: I+, I-, their ratio, the size and flux of its increment.
OF_BOX3D = 6
#: How fast trust is lost with the distance from the training states.
STEEP = 8


class ResidualMLP(nn.Module):
    """inputs -> width, `depth` blocks x + W silu(norm(V x)), -> outputs that start at zero."""

    def __init__(
        self, inputs: int, outputs: int, width: int, depth: int, dropout: float, batch_norm: bool
    ):
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width) if batch_norm else nn.Identity(),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(width, width),
            )
            for _ in range(depth)
        )
        self.leave = nn.Linear(width, outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Float[Tensor, "B inputs"]) -> Float[Tensor, "B outputs"]:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.leave(nn.functional.silu(x))
        return out


class Closure(Module):  # type: ignore[misc]
    """What both networks share: the frame of the fluid, Box3D, the guard.

    quadrature : kind, polar, azimuth, order; see `physics.sphere`.
    guard : whether increments of the network end before they are unphysical.
    mean, std : of the features over the training split.
    target_scale : of the increments, as a share of N_tot.
    """

    def __init__(
        self,
        quadrature: dict[str, object],
        guard: bool,
        mean: Sequence[float],
        std: Sequence[float],
        target_scale: float,
    ):
        super().__init__()
        self.settings = dict(quadrature)
        self.guard, self.target_scale = guard, target_scale
        self.rule = _rule(self.settings)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.mean: Tensor
        self.std: Tensor

    def increment(self, F: Float[Tensor, "B 6 4"], found: Conversion) -> Float[Tensor, "B 6 4"]:
        """D_net of states at rest, divided by N_tot."""
        raise NotImplementedError

    def forward(
        self, F: Float[Tensor, "B 6 4"], u: Float[Tensor, "B 4"] | None = None
    ) -> Float[Tensor, "B 6 4"]:
        """States after, in the unit of F; u the four-velocity of the fluid over c."""
        return self._apply_to(F, u, corrected=True)

    def box3d(
        self, F: Float[Tensor, "B 6 4"], u: Float[Tensor, "B 4"] | None = None
    ) -> Float[Tensor, "B 6 4"]:
        """Box3D alone, in the frame of the fluid."""
        return self._apply_to(F, u, corrected=False)

    def _apply_to(
        self, F: Float[Tensor, "B 6 4"], u: Float[Tensor, "B 4"] | None, corrected: bool
    ) -> Float[Tensor, "B 6 4"]:
        scale = total(F)
        # float64 but for the network: near |F| = N the guard loses digits
        unit = (F / scale).double()
        u = None if u is None else u.double()
        rest = unit @ boost(u).transpose(1, 2) if u is not None else unit
        own = total(rest)
        rest = rest / own
        found = convert(rest, self.rule)
        change = found.increment
        if corrected:
            step = self.increment(rest, found)
            if self.guard:
                step = step * physical_share((rest + change).detach(), step.detach())
            change = change + step
        change = change * own
        if u is not None:
            change = change @ boost(reversed_velocity(u)).transpose(1, 2)
        return F + change.to(F) * scale

    def normalised(self, features: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        return ((features - self.mean) / self.std).to(self.mean)


def _rule(settings: dict[str, object]) -> Quadrature:
    return quadrature(**settings)  # type: ignore[arg-type]


def features(F: Float[Tensor, "B 6 4"], found: Conversion) -> Float[Tensor, "B 33"]:
    """27 invariants of states at rest, and what Box3D says of them."""
    u = F.new_tensor(AT_REST).expand(len(F), 4)
    moved = found.increment[:, (0, 3)]
    of_box3d = [
        found.plus,
        found.minus,
        found.crossing,
        moved[:, 0, 3],
        moved[:, 0, :3].norm(dim=-1),
        moved[:, 1, :3].norm(dim=-1),
    ]
    return torch.cat([invariants(F, u), torch.stack(of_box3d, dim=1)], dim=1)


class FlavourMLP(Closure):
    """The control: neither number, lepton number nor the axes mean anything to it."""

    def __init__(
        self,
        quadrature: dict[str, object],
        guard: bool,
        mean: Sequence[float],
        std: Sequence[float],
        target_scale: float,
        width: int = 128,
        depth: int = 3,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ):
        super().__init__(quadrature, guard, mean, std, target_scale)
        self.network = ResidualMLP(INVARIANTS, 24, width, depth, dropout, batch_norm)

    def increment(self, F: Float[Tensor, "B 6 4"], found: Conversion) -> Float[Tensor, "B 6 4"]:
        inputs = self.normalised(features(F, found))[:, :INVARIANTS]
        out: Tensor = self.network(inputs).reshape(-1, 6, 4)
        return self.target_scale * out.to(F)


class FlavourEquivariant(Closure):
    """Keeps the conservation laws and turns with the axes, whatever its weights."""

    def __init__(
        self,
        quadrature: dict[str, object],
        guard: bool,
        mean: Sequence[float],
        std: Sequence[float],
        target_scale: float,
        width: int = 128,
        depth: int = 3,
        dropout: float = 0.0,
        batch_norm: bool = False,
        half_open: float = 0.2,
        trusted: float = 3.0,
    ):
        super().__init__(quadrature, guard, mean, std, target_scale)
        self.half_open, self.trusted = half_open, trusted
        inputs = INVARIANTS + OF_BOX3D
        self.network = ResidualMLP(inputs, 3 + 6 * 8, width, depth, dropout, batch_norm)
        swap = [*swapped_invariants(), *range(INVARIANTS, inputs)]
        self.register_buffer("swap", torch.tensor(swap), persistent=False)
        self.swap: Tensor

    def scalars(
        self, inputs: Float[Tensor, "B 33"]
    ) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 6 8"]]:
        """d and C, the same where mu and tau change places."""
        d, C = torch.split(self.network(inputs), [3, 48], dim=1)
        other_d, other_C = torch.split(self.network(inputs[:, self.swap]), [3, 48], dim=1)
        C, other_C = C.reshape(-1, 6, 8), other_C.reshape(-1, 6, 8)
        d = d + other_d[:, SWAP[:3]]
        C = C + other_C[:, SWAP][:, :, (*SWAP, 6, 7)]
        return 0.5 * d, 0.5 * C

    def trust(self, inputs: Float[Tensor, "B 33"]) -> Float[Tensor, " B"]:
        """1 among states like those of the training, to 0 far from them."""
        farthest = torch.maximum(inputs.abs(), inputs[:, self.swap].abs()).amax(dim=1)
        return (self.trusted / farthest.clamp_min(self.trusted)) ** STEEP

    def increment(self, F: Float[Tensor, "B 6 4"], found: Conversion) -> Float[Tensor, "B 6 4"]:
        inputs = self.normalised(features(F, found))
        d, C = self.scalars(inputs.clamp(-self.trusted, self.trusted))
        d, C = d.to(F), C.to(F)
        d = d - d.mean(dim=1, keepdim=True)
        C = C.reshape(-1, 2, 3, 8)
        C = (C - C.mean(dim=2, keepdim=True)).reshape(-1, 6, 8)
        moved = found.increment[:, (0, 3)]
        size = found.size[:, None]
        unit = moved[..., :3] / size[..., None].clamp_min(1e-12)
        vectors = torch.cat([F[..., :3], unit], dim=1)
        open_ = found.crossing / (found.crossing + self.half_open) * self.trust(inputs)
        gate = size * open_[:, None]
        number = (gate * d).repeat(1, 2)[..., None]
        flux = gate[..., None] * (C @ vectors)
        return torch.cat([flux, number], dim=-1)
