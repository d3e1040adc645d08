"""Air round a body changes nothing, and is not solved for."""

import pytest
import torch
import torch.nn.functional as F

from physics_hybrid.problems.potential.physics.box import Box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import solve

SPACING = torch.tensor([[0.004, 0.003, 0.005]], dtype=torch.float64)


def body(ends, air=(0, 0)):
    torch.manual_seed(0)
    sigma = 0.1 + torch.rand(1, 3, 12, 8, 7, dtype=torch.float64)
    along = air if Ends(ends).floating else (0, 0)
    return Conductor(F.pad(sigma, (*air, *air, *along)), SPACING, ends)


@pytest.mark.parametrize("ends", ["grounded", "sink"])
def test_air_round_a_body_changes_nothing(ends):
    point = torch.tensor([[5.3, 3.6, 2.7]], dtype=torch.float64) * SPACING
    current = torch.tensor([1e-3], dtype=torch.float64)
    bare = solve(body(ends), PointSource(point, current), 1e-11).phi
    padded = body(ends, (3, 2))
    assert Box.of(padded).size == (12, 8, 7)
    low = torch.tensor(Box.of(padded).low, dtype=torch.float64)
    phi = solve(padded, PointSource(point + low * SPACING, current), 1e-11).phi
    assert torch.allclose(Box.of(padded).within(phi), bare, rtol=1e-9)
    assert torch.equal(phi[~padded.tissue], torch.zeros_like(phi[~padded.tissue]))


def test_an_electrode_outside_is_refused_in_coordinates_of_the_whole_grid():
    padded = body("grounded", (3, 2))
    point = torch.tensor([[0.02, 0.2, 0.02]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"0\.02, 0\.2, 0\.02"):
        solve(padded, PointSource(point, torch.ones(1, dtype=torch.float64)))


def test_derivatives_pass_the_box():
    padded = body("grounded", (3, 2))
    sigma = padded.sigma.clone().requires_grad_()
    point = (torch.tensor([[5.3, 6.6, 5.7]], dtype=torch.float64) * SPACING).requires_grad_()
    source = PointSource(point, torch.tensor([1e-3], dtype=torch.float64))
    phi = solve(Conductor(sigma, SPACING), source, 1e-10).phi
    by_sigma, by_point = torch.autograd.grad(phi.square().sum(), (sigma, point))
    assert float(by_point.abs().min()) > 0
    assert float(by_sigma.abs().amax()) > 0
    assert by_sigma.isfinite().all()
