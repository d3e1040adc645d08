r"""The bound of the error of a field of electrodes with a shape and a contact.

**The truth** is the exact solution of the voxel problem of the complete electrode model: each face
f of an electrode l is a film of z_f ohm m^2, with the contact that the finite volumes have there (a
face that is covered in part is a film of larger z_f over all of it). For v and potentials V_l of
the electrodes

    |||v, V|||^2 = int sigma |grad v|^2 dV + sum_f int_f (V_l - v)^2 / z_f dS                    [W]

**The bound.** With any current q without divergence, none through skin but j_f into tissue through
the faces of electrodes, that add up to I_l where the current is given, the error is at most

    eta^2 = int (q + sigma grad v) . sigma^-1 (q + sigma grad v) dV
          + sum_f int_f z_f (j_f - (V_l - v) / z_f)^2 dS

(Prager and Synge 1947, for the films as for the body.) Where contact is perfect there is no second
term, and v is V_l on the whole faces that it has: its nodes are set to it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.certificate import Certificate, Mismatch
from physics_hybrid.problems.potential.certify.current import Currents, added
from physics_hybrid.problems.potential.certify.potential import from_centres
from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.contacts import Contacts
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

#: A share of a face so close to 1 is all of it.
WHOLE = 1e-9


@dataclass(frozen=True)
class Films:
    """The faces of electrodes, as the certificate needs them.

    area : (F,) of the whole faces, m^2. impedance : z_f, (F,) ohm m^2; 0 where contact is perfect.
    corners : (F, 4, 3) nodes of each.
    """

    contacts: Contacts
    area: Float[Tensor, " F"]
    impedance: Float[Tensor, " F"]
    corners: Tensor

    @classmethod
    def of(cls, body: Body, contacts: Contacts) -> "Films":
        """
        Raises
        ------
        ValueError
            Faces of perfect contact that are covered in part; faces inside tissue.
        """
        area = body.volume / body.spacing[contacts.axis]
        impedance = contacts.contact * area
        part = (impedance == 0) & (contacts.share < 1 - WHOLE)
        if bool(part.any()):
            raise ValueError(
                f"electrode {int(contacts.electrode[part][0])} has perfect contact, and covers"
                " voxel faces in part: no voxel problem has that; give it a contact impedance, or"
                " whole faces, for a certificate"
            )
        if contacts.inside_tissue(body.tissue):
            raise ValueError("electrodes between voxels of tissue have no certificate yet")
        corners = contacts.voxels[:, None].repeat(1, 4, 1)
        for number in range(4):
            for k, step in enumerate(divmod(number, 2)):
                other = (contacts.axis + 1 + k) % 3
                corners[:, number].scatter_add_(
                    1, other[:, None], torch.full_like(other[:, None], step)
                )
            corners[:, number].scatter_add_(1, contacts.axis[:, None], contacts.side[:, None])
        return cls(contacts, area, impedance, corners)

    def held(
        self, nodes: Float[Tensor, "nD nH nW"], volts: Float[Tensor, " L"]
    ) -> Float[Tensor, "nD nH nW"]:
        """nodes, V, with the potential of electrodes of perfect contact on their faces.

        Raises
        ------
        ValueError
            Two such electrodes that touch: between them a current is infinite.
        """
        perfect = self.impedance == 0
        places = self.corners[perfect].flatten(0, 1)
        owner = self.contacts.electrode[perfect].repeat_interleave(4)
        _, number = torch.unique(places, dim=0, return_inverse=True)
        if bool(((owner[:, None] != owner) & (number[:, None] == number)).any()):
            raise ValueError("two electrodes of perfect contact touch: no voxel problem has that")
        nodes = nodes.clone()
        nodes[tuple(places.unbind(dim=1))] = volts[owner]
        return nodes

    def mismatch(
        self,
        nodes: Float[Tensor, "nD nH nW"],
        volts: Float[Tensor, " L"],
        currents: Float[Tensor, " F"],
    ) -> Float[Tensor, " F"]:
        """int_f z (j - (V - v) / z)^2 dS, W; v is bilinear on a face."""
        z = torch.where(self.impedance > 0, self.impedance, 1.0)
        d, h, w = self.corners.unbind(dim=2)
        rest = volts[self.contacts.electrode][:, None] - nodes[d, h, w]
        rest = rest - (z * currents / self.area)[:, None]
        a, b, c, e = rest.unbind(dim=1)
        mean, first = (a + b + c + e) / 4, (c + e - a - b) / 4
        second, both = (b + e - a - c) / 4, (a + e - b - c) / 4
        square = mean**2 + first**2 / 3 + second**2 / 3 + both**2 / 9
        return torch.where(self.impedance > 0, self.area * square / z, 0.0)


def certify_electrodes(
    conductor: Conductor,
    contacts: Contacts,
    currents: Float[Tensor, "K F"],
    volts: Float[Tensor, "K L"],
    phi: Float[Tensor, "K D H W"],
) -> Certificate:
    """A guaranteed bound of the energy error of fields of electrodes. See the module.

    currents : A through every face. volts : of the electrodes. phi : V at voxel centres.

    Raises
    ------
    ValueError
        Perfect contacts that cover faces in part, or touch; electrodes inside tissue; tissue that
        does not conduct in every direction.
    """
    box = Box.of(conductor)
    inner, faces = box.conductor(conductor), contacts.within(box)
    body = Body.of(inner)
    films, of_body = Films.of(body, faces), Currents.of(body)
    rows = zip(currents, volts, box.within(phi), strict=True)
    found = [_one(of_body, films, *row) for row in rows]
    zeros = torch.zeros(len(found), dtype=torch.float64)
    return Certificate(
        bound=torch.tensor([bound for bound, _, _, _ in found], dtype=torch.float64),
        lower=None,
        energy=torch.tensor([energy for _, energy, _, _ in found], dtype=torch.float64),
        density=box.whole(torch.stack([density for _, _, density, _ in found])),
        oscillation=zeros,
        algebraic=torch.tensor([lost for _, _, _, lost in found], dtype=torch.float64),
        quadrature=zeros,
    )


def _one(
    of_body: Currents,
    films: Films,
    currents: Float[Tensor, " F"],
    volts: Float[Tensor, " L"],
    phi: Float[Tensor, "D H W"],
) -> tuple[float, float, Float[Tensor, "D H W"], float]:
    """Bound and energy norm, W^(1/2); the bound's density, W; the part of the tolerance."""
    body, contacts = of_body.body, films.contacts
    inflow = contacts.through_skin(currents, body.shape, body.spacing)
    density = contacts.on_grid(currents, body.shape)[None] / body.volume
    known = Subtraction.density(body.conductor, of_body.operator, density)
    as_it_is = added(of_body.of_field(known, phi), inflow)
    nodes = films.held(from_centres(body, phi, as_it_is, []), volts)
    found = Mismatch.of(of_body, density, phi, nodes=nodes, inflow=inflow)
    film = films.mismatch(found.flux.nodes, volts, currents)
    per_voxel = found.density.clamp_min(0) + contacts.on_grid(film, body.shape)
    bound = (found.bound**2 + float(film.sum())) ** 0.5
    heat = float((films.impedance * currents**2 / films.area).sum())
    return bound, (found.energy**2 + heat) ** 0.5, per_voxel, found.algebraic
