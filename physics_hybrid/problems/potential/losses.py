r"""What a prediction is held to: data, field, equation, charge.

    L = w_mse MSE + w_gradient |E - E*|^2 + w_pde |residual|^2 + w_charge |D_total - S_total|^2

Each is a module, zero on truth, positive off it, and has a gradient there. The PDE and charge
losses use the operator and the subtraction that made the truth (`operator.py`): on a finite volume
solution they vanish to rounding, which central differences of sigma grad phi do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.physics.conductor import zero_mean
from physics_hybrid.problems.potential.physics.electrodes import nodal_source
from physics_hybrid.problems.potential.physics.elements.physics import ElementPhysics
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.multipoint import MultipointOperator, operator_of
from physics_hybrid.problems.potential.physics.subtraction import Subtraction
from physics_hybrid.problems.potential.scene import Batch

NORMALISATIONS = ("relative", "absolute")


def select(
    batch: Batch, where: str | list[str] = "conductive", exclude_radius: float = 3.0
) -> Tensor:
    """The voxels that count: True in the chosen tissues, outside a sphere of `exclude_radius`
    voxels round every electrode.

    where : 'conductive' (all tissue), 'muscle', or a list of names in `bodies.tissues.TISSUES`. (B,
        D, H, W)

    Raises
    ------
    ValueError
        Unknown tissue, or tissues asked of samples that carry no labels.
    """
    if where == "conductive":
        chosen = batch.tissue
    else:
        names = [where] if isinstance(where, str) else list(where)
        unknown = [n for n in names if n not in TISSUES[1:]]
        if unknown or not names:
            raise ValueError(
                f"loss.mask must be conductive or name tissues out of {', '.join(TISSUES[1:])}; got"
                f" {where!r}"
            )
        if batch.labels is None:
            raise ValueError(
                f"loss.mask={where} needs tissue labels, and {batch.names[0]} has none (key"
                " 'labels'); use loss.mask=conductive"
            )
        chosen = torch.isin(
            batch.labels,
            torch.tensor(
                [TISSUES.index(n) for n in names],
                device=batch.labels.device,
                dtype=batch.labels.dtype,
            ),
        )
    return chosen & batch.away(exclude_radius)


def _sum(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3))


def _ratio(error: Tensor, size: Tensor) -> Tensor:
    """error / size, and 0 for a sample that has nothing inside the mask. (B,)"""
    return torch.where(size > 0, error, 0.0) / torch.where(size > 0, size, 1.0)


class MaskedMSE(nn.Module):
    """Mean square error over the mask, mean over the batch.

    relative: |phi - phi*|^2 / |phi*|^2 in every sample; absolute: V^2, mean over voxels.
    Forward: phi, truth (B, D, H, W) in V, mask (B, D, H, W) bool -> scalar. Voxels outside the mask
    get exactly zero gradient.
    """

    def __init__(self, normalise: str = "relative"):
        super().__init__()
        if normalise not in NORMALISATIONS:
            raise ValueError(
                f"loss.mse.normalise must be one of {', '.join(NORMALISATIONS)}; got {normalise!r}"
            )
        self.normalise = normalise

    def forward(self, phi: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
        square = _sum(torch.where(mask, phi - truth, 0.0) ** 2)
        if self.normalise == "absolute":
            return (square / _sum(mask).clamp_min(1)).mean()
        return _ratio(square, _sum(torch.where(mask, truth, 0.0) ** 2)).mean()


class GradientLoss(nn.Module):
    """Square error of E = -grad phi over that of the truth, on the faces between two voxels of the
    mask.

    Differences are taken across faces and over the physical spacing: exact for a linear field, and
    one-sided by construction where tissue meets air. Forward: phi, truth (B, D, H, W) V, mask,
    spacing (B, 3) m -> scalar.
    """

    def forward(self, phi: Tensor, truth: Tensor, mask: Tensor, spacing: Tensor) -> Tensor:
        error, size = field_squares(phi, truth, mask, spacing)
        return _ratio(error, size).mean()


def field_squares(
    phi: Tensor, truth: Tensor, mask: Tensor, spacing: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of |E - E*|^2 and |E*|^2 over faces inside the mask, (V/m)^2. (B,), (B,)"""
    phi = torch.where(mask, phi, 0.0)
    truth = torch.where(mask, truth, 0.0)
    error = size = 0.0
    for axis in range(3):
        n = mask.shape[axis + 1] - 1
        both = mask.narrow(axis + 1, 0, n) & mask.narrow(axis + 1, 1, n)
        h = spacing[:, axis].view(-1, 1, 1, 1)
        E = torch.where(both, torch.diff(truth, dim=axis + 1), 0.0) / h
        error = error + _sum((torch.where(both, torch.diff(phi, dim=axis + 1), 0.0) / h - E) ** 2)
        size = size + _sum(E**2)
    return error, size


@dataclass(frozen=True)
class Physics:
    """The discrete problem of a batch, shared by the PDE and the charge loss."""

    operator: FluxOperator | MultipointOperator
    subtraction: Subtraction
    ends: Ends

    @classmethod
    def of(
        cls, batch: Batch, ends: Ends | str, dtype: torch.dtype | None = None
    ) -> Physics | ElementPhysics:
        """The problem that made the truth: by finite elements where the batch has their nodes.
        Built in float64 (float32 on MPS) and rounded to `dtype` (default: that of batch.u). Volumes
        take a source that covers more voxels than a point does (`Batch.spread`), or was
        nodal, as it lies on the grid, nothing of it in closed form; elements take every source for
        a point, in its centre of mass.
        """
        if batch.nodes is not None:
            return ElementPhysics.of(
                batch.conductor(ends),
                batch.point_source(),
                dtype or batch.u.dtype,
                batch.singularity,
            )
        conductor = batch.conductor(ends)
        build = torch.float32 if batch.u.device.type == "mps" else torch.float64
        operator = operator_of(conductor, build)
        if batch.singularity == "nodal":
            known = Subtraction.density(
                conductor, operator, nodal_source(conductor, batch.point_source())
            )
        else:
            known = Subtraction.of(conductor, operator, batch.point_source())
        spread = batch.spread
        if bool(spread.any()):
            known = Subtraction.density(conductor, operator, batch.source).where(spread, known)
        dtype = dtype or batch.u.dtype
        return cls(operator.to(dtype), known.to(dtype), conductor.ends)

    def pde(
        self, phi: Tensor, batch: Batch, sigma_threshold: float, exclude_radius: float
    ) -> Tensor:
        """See `PDELoss`. (B,)"""
        A = self.operator
        mask = (
            (batch.sigma[:, :3].mean(dim=1) > sigma_threshold)
            & (A.diagonal > 0)
            & batch.away(exclude_radius + A.REACH)
        )
        residual = self.subtraction.residual(A, torch.where(batch.tissue, phi, 0.0))
        volts = torch.where(mask, residual / A.diagonal.clamp_min(torch.finfo(phi.dtype).tiny), 0.0)
        truth = zero_mean(batch.u, mask) if self.ends.floating else torch.where(mask, batch.u, 0.0)
        return _ratio(_sum(volts**2), _sum(truth.to(phi.dtype) ** 2))

    def charge(self, phi: Tensor, batch: Batch, surfaces: list[Tensor]) -> Tensor:
        """See `ChargeLoss`; surfaces: their insides, (B, D, H, W) bool. (B,)"""
        J = self.subtraction.current_density(self.operator, torch.where(batch.tissue, phi, 0.0))
        spacing, injected = self.operator.spacing, self.subtraction.injected
        volume = spacing.prod(dim=1)
        defects = [
            outflow(J, inside.to(phi.dtype), spacing)
            - _sum(torch.where(inside, injected, 0.0)) * volume
            for inside in surfaces
        ]
        return (torch.stack(defects) / batch.current.to(phi)).pow(2).mean(dim=0)


def outflow(J, inside: Tensor, spacing: Tensor) -> Tensor:
    """Current in A out of the voxels marked 1, face by face: only faces where the mark changes
    count. (B,)
    """
    total = 0.0
    volume = spacing.prod(dim=1)
    for axis, j in enumerate(J):
        widths = [0] * 6
        widths[2 * (2 - axis)] = widths[2 * (2 - axis) + 1] = 1
        step = torch.diff(nn.functional.pad(inside, widths), dim=axis + 1)
        total = total - _sum(j * step) * volume / spacing[:, axis]
    return total


class PDELoss(nn.Module):
    """Relative residual of -div(sigma grad phi) = f in the subtraction form, Jacobi-scaled to
    volts.

        sum (r_i / a_ii)^2 / sum phi*_i^2,    r = A (phi - phi_inf) - rhs,

    over tissue with mean diagonal sigma > `sigma_threshold` (S/m), so far from the electrodes that
    no voxel within `exclude_radius` voxels of them gets a gradient. r_i / a_ii is what one Jacobi
    sweep would change: the loss has the scale of a relative MSE. phi* is the truth of the batch,
    and gives the scale only.
    """

    def __init__(self, sigma_threshold: float = 0.0, exclude_radius: float = 3.0):
        super().__init__()
        self.sigma_threshold, self.exclude_radius = sigma_threshold, exclude_radius

    def forward(self, phi: Tensor, batch: Batch, physics: Physics | ElementPhysics) -> Tensor:
        return self.per_sample(phi, batch, physics).mean()

    def per_sample(self, phi: Tensor, batch: Batch, physics: Physics | ElementPhysics) -> Tensor:
        return physics.pde(phi, batch, self.sigma_threshold, self.exclude_radius)


class ChargeLoss(nn.Module):
    """Gauss's law: the current that leaves a closed surface equals the current injected inside.

        mean over surfaces of ((D - S) / I)^2,   D = sum over the surface of J . n dA,   S = the current injected inside

    for the whole conductor, where D is what flows out through its grounded or Robin ends and S = I,
    and for `boxes` nested voxel boxes round the source, evenly spaced between it and the far end.
    Air faces carry no current. Where no current passes the ends (sink, pair) the whole conductor
    says nothing, D and S being zero for every field, and is left out; S of a box is less what
    leaves evenly in it (sink), or what the second electrode takes out in it (pair). Fluxes are
    those of `Subtraction`, whose closed form passes exactly I through every surface: on truth the
    loss is zero to the solver's tolerance.
    """

    def __init__(self, boxes: int = 3):
        super().__init__()
        if boxes < 0:
            raise ValueError(f"loss.charge.boxes must be >= 0; got {boxes}")
        self.boxes = boxes

    def forward(self, phi: Tensor, batch: Batch, physics: Physics | ElementPhysics) -> Tensor:
        return self.per_sample(phi, batch, physics).mean()

    def per_sample(self, phi: Tensor, batch: Batch, physics: Physics | ElementPhysics) -> Tensor:
        surfaces = self.surfaces(batch)[1 if physics.ends.floating else 0 :]
        if not surfaces:
            raise ValueError(
                f"ends={physics.ends.kind} lets no current through the surface of the conductor:"
                " the charge loss needs loss.charge.boxes of at least 1"
            )
        return physics.charge(phi, batch, surfaces)

    def surfaces(self, batch: Batch) -> list[Tensor]:
        """Insides of the surfaces, (B, D, H, W) bool: the whole grid, then boxes from small to
        large.
        """
        whole = torch.ones_like(batch.tissue)
        centre = (batch.source_point / batch.spacing).floor()
        away = None
        for axis in range(3):
            view = [len(batch), 1, 1, 1]
            view[axis + 1] = -1
            steps = (
                (torch.arange(batch.shape[axis], device=centre.device) - centre[:, axis, None])
                .abs()
                .view(view)
            )
            away = steps if away is None else torch.maximum(away, steps)
        reach = torch.maximum(centre[:, 0], batch.shape[0] - 1 - centre[:, 0])
        boxes = [
            torch.floor(reach * j / (self.boxes + 1)).clamp_min(1) for j in range(1, self.boxes + 1)
        ]
        return [whole, *(away <= half.view(-1, 1, 1, 1) for half in boxes)]


class PotentialLoss(nn.Module):
    """The weighted sum. A term with weight 0 is not computed.

    Forward: phi (B, D, H, W) V, batch -> (total, {name: unweighted term}).
    """

    def __init__(
        self,
        weights: dict[str, float],
        mask: str | list[str] = "conductive",
        exclude_radius: float = 3.0,
        normalise: str = "relative",
        sigma_threshold: float = 0.0,
        boxes: int = 3,
        ends: Ends | str = "grounded",
    ):
        super().__init__()
        negative = {k: w for k, w in weights.items() if w < 0}
        if negative:
            raise ValueError(f"loss weights must be >= 0; got {negative}")
        if not any(weights.values()):
            raise ValueError("all loss weights are 0: nothing to train on")
        if exclude_radius < 0:
            raise ValueError(f"loss.exclude_radius must be >= 0 voxels; got {exclude_radius}")
        self.weights, self.mask, self.exclude_radius, self.ends = (
            dict(weights),
            mask,
            exclude_radius,
            Ends.of(ends),
        )
        if weights.get("charge") and self.ends.floating and boxes < 1:
            raise ValueError(
                f"ends={self.ends.kind} lets no current through the surface of the conductor: the"
                " charge loss needs loss.charge.boxes of at least 1"
            )
        self.mse = MaskedMSE(normalise)
        self.gradient = GradientLoss()
        self.pde = PDELoss(sigma_threshold, exclude_radius)
        self.charge = ChargeLoss(boxes)

    def forward(self, phi: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        on = {name for name, weight in self.weights.items() if weight > 0}
        terms: dict[str, Tensor] = {}
        if on & {"mse", "gradient"}:
            mask = select(batch, self.mask, self.exclude_radius)
        if "mse" in on:  # where phi is known up to a constant, a constant is no error
            centred = (
                (lambda field: zero_mean(field, mask))
                if self.ends.floating
                else (lambda field: field)
            )
            terms["mse"] = self.mse(centred(phi), centred(batch.u), mask)
        if "gradient" in on:
            terms["gradient"] = self.gradient(phi, batch.u, mask, batch.spacing)
        if on & {"pde", "charge"}:
            physics = Physics.of(batch, self.ends, phi.dtype)
            if "pde" in on:
                terms["pde"] = self.pde(phi, batch, physics)
            if "charge" in on:
                terms["charge"] = self.charge(phi, batch, physics)
        total = sum(self.weights[name] * term for name, term in terms.items())
        return total, {name: term.detach() for name, term in terms.items()}
