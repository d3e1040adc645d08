"""What is asked of uncertain conductivities, as loads and functionals of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.closed_form import at_places
from physics_hybrid.problems.potential.door.interpolation import Weights
from physics_hybrid.problems.potential.door.lead_field import Electrode
from physics_hybrid.problems.potential.door.sources import Deposit, Sources
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.multipoint import operator_of
from physics_hybrid.problems.potential.physics.subtraction import Subtraction
from physics_hybrid.problems.potential.uncertain.conductivities import Conductivities
from physics_hybrid.problems.potential.uncertain.load import ONE, Load, Offset
from physics_hybrid.problems.potential.uncertain.network import Network


@dataclass(frozen=True)
class Asked:
    """K loads, J functionals, what their values have beside; shape of an answer. across : whether
    the functionals come first in it."""

    loads: Sequence[Load]
    functionals: Sequence[Load]
    offsets: Sequence[Offset]
    shape: tuple[int, ...]
    across: bool = False

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """(..., K, J) as answers have it."""
        if self.across:
            values = np.swapaxes(values, -1, -2)
        return values.reshape(*values.shape[:-2], *self.shape)


@dataclass(frozen=True)
class Posed:
    """A body at the parameters mu, as the network sees it."""

    body: Body
    ends: Ends
    network: Network
    mu: np.ndarray

    @classmethod
    def of(cls, body: Body, ends: Ends, conductivities: Conductivities, mu: np.ndarray) -> Posed:
        """body : whatever it conducts; at the parameters mu it is another."""
        there = body.conducting(conductivities.sigma(mu))
        network = Network.of(conductivities, there.conductor(ends), mu)
        return cls(there, ends, network, mu)

    @property
    def conductor(self) -> Conductor:
        """With its ends."""
        return self.body.conductor(self.ends)

    def constant(self, deposit: Deposit) -> np.ndarray:
        """A deposit as the constant of a load, (n,); what flows in leaves evenly where nothing
        passes the ends.
        """
        field = np.zeros(int(np.prod(self.network.shape)))
        np.add.at(field, deposit.voxels, deposit.shares)
        values = field[self.network.voxel]
        if self.ends.floating:
            values = values - values.mean()
        return np.asarray(values)

    def components(self, axis: int, voxel: np.ndarray) -> tuple[int, float]:
        """Component and ratio along an axis of the tissue of a voxel (3,)."""
        of = self.network.conductivities
        tissue = of.index[tuple(voxel)]
        return int(of.component[tissue, axis]), float(of.ratio[tissue, axis])


def electrode_load(posed: Posed, electrode: Electrode, less: Deposit | None) -> Load:
    """The voltage of an electrode, and 1 A through it: less that of others."""
    over = electrode.over if less is None else electrode.over.less(less)
    return Load(posed.constant(over))


def mean_of(electrodes: Sequence[Electrode]) -> Deposit:
    """The mean over electrodes."""
    voxels = np.concatenate([e.over.voxels for e in electrodes])
    shares = np.concatenate([e.over.shares for e in electrodes])
    return Deposit(voxels, shares / len(electrodes))


def less_of(electrodes: Sequence[Electrode], reference: Electrode | str | None) -> Deposit | None:
    """What is taken off the voltages of electrodes."""
    if isinstance(reference, Electrode):
        return reference.over
    return mean_of(electrodes) if reference == "average" else None


# --- Sources --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClosedForm:
    """Of one source: its load, and what it is made of by component: fields of phi_inf in V
    (D, H, W), charges that give it anywhere, and S + Phi on the faces (faces,), A/m^2."""

    load: Load
    phi: dict[int, np.ndarray]
    charges: dict[int, list[PointSource]]
    density: dict[int, np.ndarray]


def deposited(posed: Posed, sources: Sources, k: int) -> Load:
    """A patch."""
    over, current = sources.deposits[k], float(sources.current[k])
    return Load(posed.constant(Deposit(over.voxels, current * over.shares)))


def in_one_voxel(posed: Posed, sources: Sources, k: int) -> Load:
    """A point whose current comes in in the voxel that holds it."""
    deposits = []
    for charge in _charges(sources, k):
        voxel = posed.conductor.voxel_of(posed.conductor.in_tissue(charge.point))[0].cpu().numpy()
        flat = np.ravel_multi_index(tuple(voxel[:, None]), posed.network.shape)
        deposits.append(Deposit(flat, charge.current.cpu().numpy()))
    voxels = np.concatenate([d.voxels for d in deposits])
    shares = np.concatenate([d.shares for d in deposits])
    return Load(posed.constant(Deposit(voxels, shares)))


def _charges(sources: Sources, k: int) -> list[PointSource]:
    """The electrodes of one source, each alone."""
    assert sources.points is not None
    current = sources.current[k : k + 1].detach()
    charges = [PointSource(sources.points[k : k + 1].detach(), current)]
    if sources.returns is not None:
        charges.append(PointSource(sources.returns[k : k + 1].detach(), -current))
    return charges


def subtracted(posed: Posed, sources: Sources, k: int) -> ClosedForm:
    """A point in closed form.

    Raises
    ------
    ValueError
        One in tissue whose parts vary apart: its closed form is in no fixed ratio.
    """
    network, conductor = posed.network, posed.conductor
    if posed.ends.kind == "pair":  # of two electrodes, each alone leaves evenly: together nothing
        conductor = posed.body.conductor("sink")
    operator = operator_of(conductor)
    theta = network.theta(torch.from_numpy(posed.mu)).numpy()[network.group]
    c = network.conductivities.components(torch.from_numpy(posed.mu)).numpy()
    constant = np.zeros(len(network.voxel))
    parts: dict[int, np.ndarray] = {}
    phi: dict[int, np.ndarray] = {}
    charges: dict[int, list[PointSource]] = {}
    density: dict[int, np.ndarray] = {}
    for charge in _charges(sources, k):
        component = _medium(posed, charge)
        known = Subtraction.of(conductor, operator, charge)
        both = network.gathered(known.known) + network.gathered(known.Phi)
        flux = network.density(both)
        rhs = known.rhs[0].cpu().numpy().reshape(-1)[network.voxel]
        constant += network.volume * rhs - network.D.T @ flux
        alpha = flux * c[component] / theta
        parts[component] = parts.get(component, 0.0) + alpha
        phi[component] = phi.get(component, 0.0) + known.phi_inf[0].cpu().numpy()
        density[component] = density.get(component, 0.0) + both
        charges.setdefault(component, []).append(charge)
    return ClosedForm(Load(constant, parts), phi, charges, density)


def _medium(posed: Posed, charge: PointSource) -> int:
    """The component that an electrode lies in. Raises ValueError as `subtracted`."""
    conductor = posed.conductor
    voxel = conductor.voxel_of(conductor.in_tissue(charge.point))[0].cpu().numpy()
    found = {posed.components(axis, voxel)[0] for axis in range(3)}
    if len(found) > 1:
        raise ValueError(
            f"the electrode at {charge.point[0].tolist()} m lies in tissue whose conductivities"
            " along and across vary apart, which its closed form does not follow: vary the tissue"
            " as a whole, or take singularity='nodal', or a ph.Patch"
        )
    return found.pop()


def voltage_offsets(
    posed: Posed,
    forms: Sequence[ClosedForm],
    electrodes: Sequence[Electrode],
    reference: Electrode | str | None,
) -> list[Offset]:
    """phi_inf at electrodes, less that at the reference: by component."""
    c = posed.network.conductivities.components(torch.from_numpy(posed.mu)).numpy()
    table: dict[int, np.ndarray] = {}
    for k, form in enumerate(forms):
        for component in form.phi:
            rows = table.setdefault(component, np.zeros((len(forms), len(electrodes))))
            volts = np.array([_closed(posed, form, component, e) for e in electrodes])
            if isinstance(reference, Electrode):
                volts -= _closed(posed, form, component, reference)
            elif reference == "average":
                volts -= volts.mean()
            elif posed.ends.floating:
                volts -= form.phi[component][posed.body.tissue].mean()
            rows[k] = volts * c[component]
    return [Offset(values, None, (component,)) for component, values in table.items()]


def _closed(posed: Posed, form: ClosedForm, component: int, electrode: Electrode) -> float:
    """phi_inf of the charges in one component at an electrode, V."""
    if electrode.point is None:
        voxels, shares = electrode.over.voxels, electrode.over.shares
        return float(form.phi[component].reshape(-1)[voxels] @ shares)
    place = torch.from_numpy(electrode.point)[None]
    volts = [at_places(posed.conductor, charge, place) for charge in form.charges[component]]
    return float(sum(v[0, 0] for v in volts))


# --- Fluxes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slopes:
    """Fluxes through both faces of voxels, along each axis: on the faces (faces,), by voxel."""

    network: Network

    def through(self, voxel: np.ndarray, axis: int) -> np.ndarray:
        """1/2 on both faces of a voxel (3,) normal to an axis."""
        size = list(self.network.shape)
        size[axis] += 1
        out = np.zeros(len(self.network.axis))
        for step in (0, 1):
            face = np.array(voxel)
            face[axis] += step
            flat = np.ravel_multi_index(tuple(face), tuple(size))
            out[(self.network.axis == axis) & (self.network.face == flat)] = 0.5
        return out

    def functional(self, half: np.ndarray) -> np.ndarray:
        """-1/2 sum h theta w du of faces, as alpha: the mean current density, A/m^2."""
        network = self.network
        scaled: np.ndarray = -half * network.edge * np.sqrt(network.weight / network.volume)
        return scaled


def flux_at(posed: Posed, voxel: np.ndarray, axis: int, electric: bool) -> Load:
    """J along an axis at a voxel (3,), or E = J / sigma, of the rest that is solved for."""
    slopes = Slopes(posed.network)
    alpha = slopes.functional(slopes.through(voxel, axis))
    component, ratio = posed.components(axis, voxel)
    none = np.zeros(len(posed.network.voxel))
    if electric:
        return Load(none, {component: alpha / ratio})
    return Load(none, {ONE: alpha})


def flux_offsets(
    posed: Posed, forms: Sequence[ClosedForm], voxels: np.ndarray, electric: bool
) -> list[Offset]:
    """What the closed form carries through the same faces: J = S + Phi, by group and component."""
    network = posed.network
    c = network.conductivities.components(torch.from_numpy(posed.mu)).numpy()
    theta = network.theta(torch.from_numpy(posed.mu)).numpy()
    slopes, group = Slopes(network), network.group
    table: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
    for number, voxel in enumerate(voxels):
        for axis in range(3):
            half = slopes.through(voxel, axis)
            (used,) = np.nonzero(half)
            own, ratio = posed.components(axis, voxel)
            for k, form in enumerate(forms):
                for component, density in form.density.items():
                    for f in used:
                        p = int(group[f])
                        over = (component, own) if electric else (component,)
                        rows = table.setdefault((p, over), np.zeros((len(forms), 3 * len(voxels))))
                        value = half[f] * density[f] * c[component] / theta[p]
                        rows[k, 3 * number + axis] += value / ratio if electric else value
    return [Offset(values, p, over) for (p, over), values in table.items()]


def dipole(posed: Posed, point: Tensor, moment: np.ndarray) -> Load:
    """p . grad of a potential at a place (3,) m of the grid, as `LeadField.dipoles` has it."""
    weights = Weights.at(posed.body.plain, point[None], alike=True)
    slopes = Slopes(posed.network)
    parts: dict[int, np.ndarray] = {}
    pairs = zip(weights.voxels[0].tolist(), weights.values[0].tolist(), strict=True)
    for flat, share in pairs:
        if share == 0:
            continue
        voxel = np.array(np.unravel_index(flat, posed.network.shape))
        for axis in range(3):
            component, ratio = posed.components(axis, voxel)
            alpha = -slopes.functional(slopes.through(voxel, axis)) * (moment[axis] * share / ratio)
            parts[component] = parts.get(component, 0.0) + alpha
    return Load(np.zeros(len(posed.network.voxel)), parts)
