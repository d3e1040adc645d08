r"""What a prediction is held to: data, field, equation, charge.

    L = w_mse MSE + w_gradient |E - E*|^2 + w_pde |residual|^2 + w_charge |D_total - S_total|^2

Each is a module, zero on truth, positive off it, and has a gradient there. The PDE and charge
losses use the operator and the subtraction that made the truth (`physics/`): on a finite volume
solution they vanish to rounding, which central differences of sigma grad phi do not.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from physics_hybrid.checks import among, not_negative
from physics_hybrid.grid import along, pad, per_sample
from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.physics.conductor import Conductor, Faces, zero_mean
from physics_hybrid.problems.potential.physics.electrodes import nodal_source
from physics_hybrid.problems.potential.physics.elements.physics import ElementPhysics
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.multipoint import Operator, operator_of
from physics_hybrid.problems.potential.physics.subtraction import Subtraction
from physics_hybrid.problems.potential.scene import Batch

#: What a loss may be made of.
TERMS = ("mse", "gradient", "pde", "charge")
NORMALISATIONS = ("relative", "absolute")


def select(
    batch: Batch, where: str | Sequence[str] = "conductive", exclude_radius: float | int = 3.0
) -> Bool[Tensor, "B D H W"]:
    """The voxels that count: True in the chosen tissues and the region of the batch, outside a
    sphere of `exclude_radius` voxels round every electrode.

    where : 'conductive' (all tissue), 'muscle', or a list of names in `bodies.tissues.TISSUES`.

    Raises
    ------
    ValueError
        Unknown tissue, or tissues asked of samples that carry no labels.
    """
    chosen = batch.tissue if where == "conductive" else _labelled(batch, where)
    if batch.region is not None:
        chosen = chosen & batch.region
    return chosen & batch.away(exclude_radius)


def _labelled(batch: Batch, where: str | Sequence[str]) -> Bool[Tensor, "B D H W"]:
    """True in the tissues of these names."""
    names = [where] if isinstance(where, str) else list(where)
    unknown = [name for name in names if name not in TISSUES[1:]]
    if unknown or not names:
        raise ValueError(
            f"loss.mask must be conductive or name tissues out of {', '.join(TISSUES[1:])}; got"
            f" {where!r}"
        )
    labels = batch.labels
    if labels is None:
        raise ValueError(
            f"loss.mask={where} needs tissue labels, and {batch.names[0]} has none (key"
            " 'labels'); use loss.mask=conductive"
        )
    wanted = [TISSUES.index(name) for name in names]
    return torch.isin(labels, torch.tensor(wanted, device=labels.device, dtype=labels.dtype))


def _sum(values: Shaped[Tensor, "B _ _ _"]) -> Shaped[Tensor, " B"]:
    return values.sum(dim=(1, 2, 3))


def _ratio(error: Float[Tensor, " B"], size: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """error / size, and 0 for a sample that has nothing inside the mask."""
    return torch.where(size > 0, error, 0.0) / torch.where(size > 0, size, 1.0)


class MaskedMSE(nn.Module):
    """Mean square error over the mask, mean over the batch.

    relative: |phi - phi*|^2 / |phi*|^2 in every sample; absolute: V^2, mean over voxels.
    Forward: phi, truth in V -> scalar. Voxels outside the mask get exactly zero gradient.
    """

    def __init__(self, normalise: str = "relative"):
        super().__init__()
        among(NORMALISATIONS, "loss.mse.normalise", normalise)
        self.normalise = normalise

    def forward(
        self,
        phi: Float[Tensor, "B D H W"],
        truth: Float[Tensor, "B D H W"],
        mask: Bool[Tensor, "B D H W"],
    ) -> Float[Tensor, ""]:
        square = _sum(torch.where(mask, phi - truth, 0.0) ** 2)
        if self.normalise == "absolute":
            return (square / _sum(mask).clamp_min(1)).mean()
        return _ratio(square, _sum(torch.where(mask, truth, 0.0) ** 2)).mean()


class GradientLoss(nn.Module):
    """Square error of E = -grad phi over that of the truth, on the faces between two voxels of the
    mask.

    Differences are taken across faces and over the physical spacing: exact for a linear field, and
    one-sided by construction where tissue meets air. Forward: phi, truth in V, spacing in m ->
    scalar.
    """

    def forward(
        self,
        phi: Float[Tensor, "B D H W"],
        truth: Float[Tensor, "B D H W"],
        mask: Bool[Tensor, "B D H W"],
        spacing: Float[Tensor, "B 3"],
    ) -> Float[Tensor, ""]:
        error, size = field_squares(phi, truth, mask, spacing)
        return _ratio(error, size).mean()


def field_squares(
    phi: Float[Tensor, "B D H W"],
    truth: Float[Tensor, "B D H W"],
    mask: Bool[Tensor, "B D H W"],
    spacing: Float[Tensor, "B 3"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Sums of |E - E*|^2 and |E*|^2 over faces inside the mask, (V/m)^2."""
    phi = torch.where(mask, phi, 0.0)
    truth = torch.where(mask, truth, 0.0)
    error, size = phi.new_zeros(len(phi)), truth.new_zeros(len(truth))
    for axis in range(3):
        inner = mask.shape[axis + 1] - 1
        both = mask.narrow(axis + 1, 0, inner) & mask.narrow(axis + 1, 1, inner)
        h = per_sample(spacing[:, axis])
        E = torch.where(both, torch.diff(phi, dim=axis + 1), 0.0) / h
        E_true = torch.where(both, torch.diff(truth, dim=axis + 1), 0.0) / h
        error = error + _sum((E - E_true) ** 2)
        size = size + _sum(E_true**2)
    return error, size


@dataclass(frozen=True)
class Physics:
    """The discrete problem of a batch, shared by the PDE and the charge loss."""

    operator: Operator
    subtraction: Subtraction
    ends: Ends

    @classmethod
    def of(
        cls, batch: Batch, ends: Ends | str, dtype: torch.dtype | None = None
    ) -> "Physics | ElementPhysics":
        """The problem that made the truth: by finite elements where the batch has their nodes.
        Built in float64 (float32 on MPS) and rounded to `dtype` (default: that of batch.u). Volumes
        take a source that covers more voxels than a point does (`Batch.spread`), or was
        nodal, as it lies on the grid, nothing of it in closed form; elements take every source for
        a point, in its centre of mass.
        """
        dtype = dtype or batch.u.dtype
        conductor = batch.conductor(ends)
        if batch.nodes is not None:
            return ElementPhysics.of(conductor, batch.point_source(), dtype, batch.singularity)
        operator = operator_of(conductor, widest(batch.u.device))
        known = _known(batch, conductor, operator)
        return cls(operator.to(dtype), known.to(dtype), conductor.ends)

    def pde(
        self,
        phi: Float[Tensor, "B D H W"],
        batch: Batch,
        sigma_threshold: float | int,
        exclude_radius: float | int,
    ) -> Float[Tensor, " B"]:
        """See `PDELoss`."""
        A = self.operator
        conducts = batch.sigma[:, :3].mean(dim=1) > sigma_threshold
        counts = conducts & batch.counted & (A.diagonal > 0)
        mask = counts & batch.away(exclude_radius + A.REACH)
        residual = self.subtraction.residual(A, torch.where(batch.tissue, phi, 0.0))
        smallest = torch.finfo(phi.dtype).tiny
        volts = torch.where(mask, residual / A.diagonal.clamp_min(smallest), 0.0)
        truth = zero_mean(batch.u, mask) if self.ends.floating else torch.where(mask, batch.u, 0.0)
        return _ratio(_sum(volts**2), _sum(truth.to(phi.dtype) ** 2))

    def charge(
        self,
        phi: Float[Tensor, "B D H W"],
        batch: Batch,
        surfaces: Sequence[Bool[Tensor, "B D H W"]],
    ) -> Float[Tensor, " B"]:
        """See `ChargeLoss`; surfaces: their insides."""
        J = self.subtraction.current_density(self.operator, torch.where(batch.tissue, phi, 0.0))
        spacing, injected = self.operator.spacing, self.subtraction.injected
        volume = spacing.prod(dim=1)
        defects = []
        for inside in surfaces:
            out = outflow(J, inside.to(phi.dtype), spacing)
            comes_in = _sum(torch.where(inside, injected, 0.0)) * volume
            defects.append(out - comes_in)
        return (torch.stack(defects) / batch.current.to(phi)).pow(2).mean(dim=0)


def widest(device: torch.device) -> torch.dtype:
    """The most precise numbers that a device has: Apple's MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _known(batch: Batch, conductor: Conductor, operator: Operator) -> Subtraction:
    """What the truth of a batch takes in closed form: all, or nothing."""
    source = batch.point_source()
    if batch.singularity == "nodal":
        density = nodal_source(conductor, source)
        known = Subtraction.density(conductor, operator, density)
    else:
        known = Subtraction.of(conductor, operator, source)
    spread = batch.spread
    if bool(spread.any()):
        known = Subtraction.density(conductor, operator, batch.source).where(spread, known)
    return known


def outflow(
    J: Faces, inside: Float[Tensor, "K D H W"], spacing: Float[Tensor, "K 3"]
) -> Float[Tensor, " K"]:
    """Current in A out of the voxels marked 1, face by face: only faces where the mark changes
    count.
    """
    total = inside.new_zeros(len(inside))
    volume = spacing.prod(dim=1)
    for axis, j in enumerate(J):
        step = torch.diff(F.pad(inside, pad(axis)), dim=axis + 1)
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

    def __init__(self, sigma_threshold: float | int = 0.0, exclude_radius: float | int = 3.0):
        super().__init__()
        self.sigma_threshold, self.exclude_radius = sigma_threshold, exclude_radius

    def forward(
        self, phi: Float[Tensor, "B D H W"], batch: Batch, physics: Physics | ElementPhysics
    ) -> Float[Tensor, ""]:
        return self.per_sample(phi, batch, physics).mean()

    def per_sample(
        self, phi: Float[Tensor, "B D H W"], batch: Batch, physics: Physics | ElementPhysics
    ) -> Float[Tensor, " B"]:
        return physics.pde(phi, batch, self.sigma_threshold, self.exclude_radius)


class ChargeLoss(nn.Module):
    """Gauss's law: the current that leaves a closed surface equals the current injected inside.

        mean over surfaces of ((D - S) / I)^2
        D = sum over the surface of J . n dA
        S = the current injected inside

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
        not_negative("loss.charge.boxes", boxes)
        self.boxes = boxes

    def forward(
        self, phi: Float[Tensor, "B D H W"], batch: Batch, physics: Physics | ElementPhysics
    ) -> Float[Tensor, ""]:
        return self.per_sample(phi, batch, physics).mean()

    def per_sample(
        self, phi: Float[Tensor, "B D H W"], batch: Batch, physics: Physics | ElementPhysics
    ) -> Float[Tensor, " B"]:
        surfaces = self.surfaces(batch)[1 if physics.ends.floating else 0 :]
        if not surfaces:
            raise _no_surface(physics.ends)
        return physics.charge(phi, batch, surfaces)

    def surfaces(self, batch: Batch) -> list[Bool[Tensor, "B D H W"]]:
        """Insides of the surfaces: the whole grid, then boxes from small to large."""
        centre = (batch.source_point / batch.spacing).floor()
        steps = []
        for axis, size in enumerate(batch.shape):
            number = torch.arange(size, device=centre.device)
            steps.append(along((number - centre[:, axis, None]).abs(), axis))
        away = functools.reduce(torch.maximum, steps)
        reach = torch.maximum(centre[:, 0], batch.shape[0] - 1 - centre[:, 0])
        insides = [torch.ones_like(batch.tissue)]
        for j in range(1, self.boxes + 1):
            half = torch.floor(reach * j / (self.boxes + 1)).clamp_min(1)
            insides.append(away <= per_sample(half))
        return insides


def _no_surface(ends: Ends) -> ValueError:
    return ValueError(
        f"ends={ends.kind} lets no current through the surface of the conductor: "
        "the charge loss needs loss.charge.boxes of at least 1"
    )


class PotentialLoss(nn.Module):
    """The weighted sum. A term with weight 0 is not computed.

    Forward: phi (B, D, H, W) V, batch -> (total, {name: unweighted term}).
    """

    def __init__(
        self,
        weights: Mapping[str, float | int],
        mask: str | Sequence[str] = "conductive",
        exclude_radius: float | int = 3.0,
        normalise: str = "relative",
        sigma_threshold: float | int = 0.0,
        boxes: int = 3,
        ends: Ends | str = "grounded",
    ):
        super().__init__()
        negative = {name: weight for name, weight in weights.items() if weight < 0}
        if negative:
            raise ValueError(f"loss weights must be >= 0; got {negative}")
        if not any(weights.values()):
            raise ValueError("all loss weights are 0: nothing to train on")
        not_negative("loss.exclude_radius", exclude_radius, "voxels")
        self.weights, self.ends = dict(weights), Ends.of(ends)
        self.mask, self.exclude_radius = mask, exclude_radius
        if weights.get("charge") and self.ends.floating and boxes < 1:
            raise _no_surface(self.ends)
        self.mse = MaskedMSE(normalise)
        self.gradient = GradientLoss()
        self.pde = PDELoss(sigma_threshold, exclude_radius)
        self.charge = ChargeLoss(boxes)

    def forward(
        self, phi: Float[Tensor, "B D H W"], batch: Batch
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        terms: dict[str, Tensor] = {}
        if self._any_of(("mse", "gradient")):
            mask = select(batch, self.mask, self.exclude_radius)
            terms |= self._of_data(phi, batch, mask)
        if self._any_of(("pde", "charge")):
            physics = Physics.of(batch, self.ends, phi.dtype)
            terms |= self._of_physics(phi, batch, physics)
        total = phi.new_zeros(())
        for name, term in terms.items():
            total = total + self.weights[name] * term
        return total, {name: term.detach() for name, term in terms.items()}

    def _any_of(self, names: Iterable[str]) -> bool:
        """Whether a term of these names has a weight."""
        return any(self.weights.get(name, 0) > 0 for name in names)

    def _of_data(
        self, phi: Float[Tensor, "B D H W"], batch: Batch, mask: Bool[Tensor, "B D H W"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms that compare with the truth."""
        terms = {}
        if self._any_of(["mse"]):
            guess, truth = phi, batch.u
            if self.ends.floating:  # phi is known up to a constant: a constant is no error
                guess, truth = zero_mean(guess, mask), zero_mean(truth, mask)
            terms["mse"] = self.mse(guess, truth, mask)
        if self._any_of(["gradient"]):
            terms["gradient"] = self.gradient(phi, batch.u, mask, batch.spacing)
        return terms

    def _of_physics(
        self, phi: Float[Tensor, "B D H W"], batch: Batch, physics: Physics | ElementPhysics
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms that ask whether phi obeys the equations."""
        terms = {}
        if self._any_of(["pde"]):
            terms["pde"] = self.pde(phi, batch, physics)
        if self._any_of(["charge"]):
            terms["charge"] = self.charge(phi, batch, physics)
        return terms
