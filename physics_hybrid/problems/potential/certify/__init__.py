r"""How wrong a potential is at most: guaranteed bounds, whatever made the field.

**The truth** is the exact solution of the voxel problem, not of a discrete one. In tissue (a union
of voxels, sigma a positive definite constant or tensor in each), with electrodes I_e at x_e,

    div J = sum I_e delta(x - x_e) - (ends: sink) I / |tissue|,     J = -sigma grad phi   [A/m^3]

J . n = 0 on skin and sealed ends, phi = 0 on grounded ends, J . n = gamma phi with gamma = beta
sigma_DD on robin ends. Electrodes on a face between voxels are where `Conductor.in_tissue` moves
them, 2e-4 voxels into the better conductor.

**The field** that is judged is a continuous v: w + sum theta_e phi_e, w trilinear from nodes and
phi_e the closed form of an electrode near it (`closed_form`); from values at voxel centres it is
made by `potential`. phi - v has finite energy, and the error is

    |||phi - v|||^2 = int sigma |grad(phi - v)|^2 dV + int_robin gamma (phi - v)^2 dS            [W]

**The bound** (Prager and Synge 1947). For any current q with div q = div J, none through the skin
and of no condition on grounded ends, and any w in H^1 that is 0 on grounded ends,

    a(phi - v, w) = -int p . grad w dV + int_robin p_R w dS,
    p = q + sigma grad v,     p_R = q . n - gamma v,

so that |||phi - v|||^2 <= int p . sigma^-1 p dV + int_robin p_R^2 / gamma dS, with equality for
q = J. Here q = face currents of finite volumes as a Raviart-Thomas field, J_e and what is left of
it on faces (`closed_form`, `oscillation`), and slopes across faces (`slopes`). What the closed form
leaves on skin, g_r, meets w with explicit constants: to |p| of the voxel behind a face comes C
|g_r|.

    eta^2 = sum over voxels of (|p|_K + sum over its faces of C |g_r|_F)^2 + robin ends

Vohralik, Numer. Math. 111 (2008) 121, has the same parts: diffusive flux, oscillation.

**What else is counted.** A solver's tolerance leaves f - div J not 0: it is carried off exactly
along tissue (`repair`), a current that belongs to q, so that no algebraic term is left. Integrals
over voxels without closed form are exact sums of squares. Those with it are by quadrature; what the
highest waves that it resolves have of the integral is added to eta^2 (of the product of two fields,
by how much a coarser rule differs): an estimate, the one place where the bound trusts smoothness.
Rounding of float64 is covered by 1e-12 of the energies of q.

**Two sides** (`certify(..., refine=2)`): the currents of a solution on smaller voxels make eta of
the same v close to the error, and w = (its potential) - v gives a(phi - v, w) / |||w||| <= error.

**Goals** (`interval`): the voltage of an electrode lies within eta eta* / 2 of a computed value.

**Statistics** (`conformal`) is something else: an interval that holds for a share of bodies like
those it was calibrated on, and a warning for bodies unlike them. It guarantees nothing of one body.
"""

from physics_hybrid.problems.potential.certify.certificate import Certificate, certify
from physics_hybrid.problems.potential.certify.conformal import Calibration, Likeness
from physics_hybrid.problems.potential.certify.interval import Interval, interval

__all__ = ["Calibration", "Certificate", "Interval", "Likeness", "certify", "interval"]
