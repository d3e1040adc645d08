r"""Point electrodes in finite elements: in closed form, or as a functional on the nodes.

Closed form: phi = phi_inf + phi_c, see `subtraction`. What quadrature misses of I (1e-5 or so) goes
in at the electrode itself, so that the right-hand side carries exactly I.

Nodal: I N_i(r_s), the right-hand side of the weak form as it stands.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.grid import along, per_sample
from physics_hybrid.problems.potential.physics.conductor import Conductor, face_positions, matrix
from physics_hybrid.problems.potential.physics.electrodes import PointSource, nodal_source
from physics_hybrid.problems.potential.physics.elements.hexahedron import CORNERS
from physics_hybrid.problems.potential.physics.elements.nodes import corners, voxels_round_nodes
from physics_hybrid.problems.potential.physics.elements.subtraction import subtraction_load
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator
from physics_hybrid.problems.potential.physics.image import with_image
from physics_hybrid.problems.potential.physics.point_source import infinite_medium, potential

#: The closed form belongs to the best conductor so near the electrode, in voxels: just inside a
#: poor one its own is far larger than phi. (In bone, 0.1 voxels from muscle, 6 % against 0.9 %
#: beyond 3 voxels. Finite volumes lose more than they gain by this, and so do elements from the
#: centre of a voxel of skin.)
BETTER_WITHIN = 0.49


@dataclass(frozen=True)
class ElementSource:
    """What is known about the sources of a batch before anything is solved.

    All of B conductors, or K sources for one. Nodes are (K, D+1, H+1, W+1).

    phi_inf
        Closed-form part at nodes, volts; 0 where there is no tissue, and everywhere for a nodal
        source.
    centres
        The same at voxel centres.
    load
        Right-hand side, amperes: its sum is the current injected, less what leaves evenly (ends:
        sink). Only its values at free nodes mean something.
    """

    phi_inf: Float[Tensor, "K nD nH nW"]
    centres: Float[Tensor, "K nD-1 nH-1 nW-1"]
    load: Float[Tensor, "K nD nH nW"]

    @classmethod
    def of(
        cls,
        conductor: Conductor,
        operator: ElementOperator,
        source: PointSource,
        singularity: str = "subtraction",
    ) -> "ElementSource":
        """Point electrodes: in closed form (`subtraction`), or as I N_i(r_s) (`nodal`).

        sigma_inf is that of the best conductor within `BETTER_WITHIN` voxels of the electrode.

        Raises
        ------
        ValueError
            Where an electrode lies outside the grid or in air, the second electrode of a pair is
            missing, or not asked for; where sigma at the electrode is no positive definite tensor;
            for another `singularity`.
        """
        if singularity not in ("subtraction", "nodal"):
            raise ValueError(f"singularity must be 'subtraction' or 'nodal'; got {singularity!r}")
        source = source.to(operator.spacing.dtype)
        nodal_source(conductor, source)  # refuses what has no solution
        if singularity == "nodal":
            load = _nodal_load(conductor, source)
            phi_inf, centres = torch.zeros_like(load), load.new_zeros(len(load), *conductor.shape)
        else:
            phi_inf, centres, load = _closed_forms(conductor, operator, source)
        if operator.ends.kind == "sink":
            share = voxels_round_nodes(operator.tissue.to(load.dtype))
            whole = share.sum(dim=(1, 2, 3), keepdim=True)
            load = load - per_sample(source.current) * share / whole
        return cls(phi_inf, centres, load)

    def to(self, dtype: torch.dtype) -> "ElementSource":
        return ElementSource(self.phi_inf.to(dtype), self.centres.to(dtype), self.load.to(dtype))

    def residual(
        self, operator: ElementOperator, nodes: Float[Tensor, "K nD nH nW"]
    ) -> Float[Tensor, "K nD nH nW"]:
        """a(phi - phi_inf, N_i) + exchange(phi) - load, A, at free nodes and 0 elsewhere.

        Zero where phi (nodes, volts) is the solution. Its sum over the nodes of any box is the
        current that leaves the box, less the current injected in it.
        """
        r = operator.stiffness(nodes - self.phi_inf) + operator.exchange(nodes) - self.load
        return torch.where(operator.free, r, 0.0)

    def at_centres(self, nodes: Float[Tensor, "K nD nH nW"]) -> Float[Tensor, "K nD-1 nH-1 nW-1"]:
        """Values at voxel centres, volts.

        The mean of phi - phi_inf over the eight nodes, plus phi_inf there.
        """
        return corners(nodes - self.phi_inf).mean(dim=1) + self.centres


def bending(conductor: Conductor, source: PointSource) -> Float[Tensor, "K D H W"]:
    """phi_inf at voxel centres less the mean of its values at their nodes, V.

    What `ElementSource.at_centres` adds to the mean of the nodes. Large where the medium at an
    electrode conducts far less than the rest: phi_inf is then far larger than phi.
    """
    operator = ElementOperator.of(conductor)
    out = operator.spacing.new_zeros(())
    for electrode in source.to(operator.spacing.dtype).electrodes:
        charges, sigma_inf = with_image(conductor, electrode, BETTER_WITHIN)
        for charge in charges:
            centres = _at_centres(operator, charge, sigma_inf)
            mean = corners(_at_nodes(operator, charge, sigma_inf)).mean(dim=1)
            out = out + (centres - mean) * operator.tissue
    return out


def _closed_forms(
    conductor: Conductor, operator: ElementOperator, source: PointSource
) -> tuple[Tensor, Tensor, Tensor]:
    """phi_inf at nodes and at centres (V), and the load (A), of all electrodes and images."""
    zero = operator.spacing.new_zeros(())
    phi_inf, centres, load = zero, zero, zero
    for electrode in source.electrodes:
        charges, sigma_inf = with_image(conductor, electrode, BETTER_WITHIN)
        _require_positive_definite(sigma_inf)
        at_electrode = _trilinear(conductor, charges[0].point, electrode.point)
        for charge in charges:
            part = subtraction_load(operator, charge, sigma_inf) * operator.in_tissue
            if charge is charges[0]:
                missed = charge.current - part.sum(dim=(1, 2, 3))
                part = part + per_sample(missed) * at_electrode
            load = load + part
            phi_inf = phi_inf + _at_nodes(operator, charge, sigma_inf)
            centres = centres + _at_centres(operator, charge, sigma_inf) * operator.tissue
    return phi_inf, centres, load


def _nodal_load(conductor: Conductor, source: PointSource) -> Tensor:
    """I N_i(r_s) of all electrodes, A. (K, D+1, H+1, W+1)"""
    load = source.current.new_zeros(())
    for electrode in source.electrodes:
        charges, _ = with_image(conductor, electrode, BETTER_WITHIN)
        at_electrode = _trilinear(conductor, charges[0].point, electrode.point)
        load = load + at_electrode * per_sample(electrode.current)
    return load


def _require_positive_definite(sigma_inf: Tensor) -> None:
    if bool((torch.linalg.eigvalsh(matrix(sigma_inf).cpu()) <= 0).any()):
        raise ValueError(
            "sigma at an electrode must be a positive definite tensor (DD, HH, WW, DH, DW, HW); "
            f"got {sigma_inf.tolist()} S/m"
        )


def _trilinear(conductor: Conductor, held: Tensor, point: Tensor) -> Tensor:
    """N_i(r_s) at all nodes. (K, D+1, H+1, W+1)

    r_s = point (K, 3), metres, in the voxel that holds `held`, or on its face.
    """
    index = conductor.voxel_of(held)
    fraction = point / conductor.spacing.to(point) - index
    out = point.new_zeros(len(point), *(n + 1 for n in conductor.shape))
    rows = torch.arange(len(out), device=out.device)
    for corner in CORNERS:
        step = torch.tensor(corner, device=out.device)
        shares = torch.where(step == 1, fraction, 1 - fraction)
        out[(rows, *(index + step).unbind(dim=1))] = shares.prod(dim=1)
    return out


def _at_nodes(operator: ElementOperator, source: PointSource, sigma_inf: Tensor) -> Tensor:
    """phi_inf at the nodes in tissue, V. (K, D+1, H+1, W+1)

    Within 0.1 voxel of the electrode it is the value there, as in `infinite_medium`.
    """
    offsets = []
    for axis, size in enumerate(operator.sigma.shape[2:]):
        faces = face_positions(size, operator.spacing[:, axis])
        offsets.append(along(faces - source.point[:, axis, None], axis))
    clamp = 0.1 * operator.spacing.min(dim=1).values
    return potential(offsets, source.current, sigma_inf, clamp=clamp) * operator.in_tissue


def _at_centres(operator: ElementOperator, source: PointSource, sigma_inf: Tensor) -> Tensor:
    """phi_inf at voxel centres, V. (K, D, H, W)"""
    spacing = operator.spacing.expand(len(source.point), 3)
    D, H, W = operator.sigma.shape[2:]
    return infinite_medium((D, H, W), spacing, source, sigma_inf)
