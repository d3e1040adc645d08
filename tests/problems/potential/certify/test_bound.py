"""Bounds hold: against finite elements on a finer grid, for right and for bad fields."""

import pytest
import torch
from torch import Tensor

from physics_hybrid.problems.potential.certify import certify, slopes
from physics_hybrid.problems.potential.certify.body import Body, split
from physics_hybrid.problems.potential.certify.certificate import Mismatch, one_of
from physics_hybrid.problems.potential.certify.current import Currents
from physics_hybrid.problems.potential.certify.interval import interval
from physics_hybrid.problems.potential.certify.shapes import prolonged
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.elements.solve import solve_elements
from physics_hybrid.problems.potential.physics.elements.weak_form import ElementOperator
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import solve
from tests.problems.potential.certify.scenes import ENDS, body, source

FINER = 3


def error_of(mismatch: Mismatch, fine: Conductor, truth: Tensor) -> float:
    """Energy norm of v less the finite-element field on the finer grid: no more than the error."""
    v = prolonged(mismatch.flux.nodes, FINER)
    for form in mismatch.flux.closed:
        v = form.finer(FINER).added_to(v)
    operator = ElementOperator.of(fine)
    away = torch.where(operator.in_tissue[0], truth - v, 0.0)
    return float((away * operator(away[None])[0]).sum()) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "components"), zip(ENDS, (1, 3, 6, 1), strict=True), ids=lambda value: str(value)
)
def test_bound_is_above_the_error_of_right_and_wrong_fields(ends: Ends, components: int) -> None:
    seed = components + 7 * len(ends.kind)
    conductor = body(seed, ends, components)
    place = source(seed, conductor)
    fine = split(conductor, FINER)
    truth = solve_elements(fine, place, tolerance=1e-6).nodes[0]
    phi = solve(conductor, place, warn=False).phi[0]
    elements = solve_elements(conductor, place).nodes[0]
    currents = Currents.of(Body.of(conductor))
    noise = phi.abs().mean() * torch.linspace(-1, 1, phi.numel(), dtype=torch.float64).cos()
    fields = [(phi, None), (1.2 * phi + noise.view_as(phi), None), (phi, elements)]
    for field, nodes in fields:
        found = Mismatch.of(currents, one_of(place, 0), field, nodes)
        error = error_of(found, fine, truth)
        assert error < found.bound < 4 * error


def test_relative_bound_of_a_uniform_block_falls_with_the_voxel() -> None:
    """Order 1 in the energy norm: half the voxel, half the bound."""
    bounds = []
    for n in (1, 2):
        sigma = torch.full((1, 1, 12 * n, 7 * n, 7 * n), 0.3, dtype=torch.float64)
        conductor = Conductor(sigma, torch.full((1, 3), 0.004 / n, dtype=torch.float64))
        place = PointSource(
            torch.tensor([[0.0234, 0.0151, 0.0127]], dtype=torch.float64),
            torch.tensor([1e-3], dtype=torch.float64),
        )
        # the same cut-off in metres
        bounds.append(float(certify(conductor, place, reach=2 * n).bound))
    assert 1.6 < bounds[0] / bounds[1] < 2.4


def test_what_no_current_makes_has_no_error() -> None:
    conductor = body(2, Ends("grounded"), 1)
    nothing = PointSource(source(2, conductor).point, torch.tensor([1e-30], dtype=torch.float64))
    found = certify(conductor, nothing, torch.zeros(1, *conductor.shape, dtype=torch.float64))
    assert float(found.bound) < 1e-25


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "on"), [("grounded", "skin"), ("sink", "voxels")])
def test_interval_holds_the_voltage_of_a_finer_grid(ends: str, on: str) -> None:
    conductor = body(11, Ends(ends), 1)
    place = source(12, conductor)
    patch = torch.zeros(conductor.shape, dtype=torch.bool)
    patch[1:3, 2:4, 4:] = True
    patch &= conductor.tissue[0]
    coarse = interval(conductor, place, patch, on=on)
    fine = interval(conductor, place, patch, on=on, refine=2)
    assert coarse.low < fine.middle < coarse.high
    assert fine.half_width < 0.5 * coarse.half_width
    wrong = interval(conductor, place, patch, on=on, phi=1.1 * solve(conductor, place).phi)
    assert wrong.low < fine.middle < wrong.high
    assert (wrong.value - fine.middle).abs() > 2 * (wrong.middle - fine.middle).abs()


def test_error_lies_between_the_bounds_of_a_finer_grid() -> None:
    conductor = body(5, Ends("grounded"), 1)
    place = source(6, conductor)
    fine = split(conductor, FINER)
    truth = solve_elements(fine, place, tolerance=1e-6).nodes[0]
    phi = 1.1 * solve(conductor, place, warn=False).phi
    found = certify(conductor, place, phi, refine=2)
    mismatch = Mismatch.of(Currents.of(Body.of(conductor)), one_of(place, 0), phi[0])
    error = error_of(mismatch, fine, truth)
    assert found.lower is not None
    assert 0.8 * error < found.lower < 1.06 * error  # the finer grid misses a part of the error
    assert error < found.bound < min(mismatch.bound, 1.3 * error)


def test_many_sources_of_one_body_are_certified_as_one_by_one() -> None:
    conductor = body(4, Ends("grounded"), 3)
    one, other = source(1, conductor), source(2, conductor)
    both = PointSource(torch.cat([one.point, other.point]), torch.cat([one.current, other.current]))
    together = certify(conductor, both)
    assert together.bound[1] == pytest.approx(float(certify(conductor, other).bound), rel=1e-6)
    assert together.density.shape == (2, *conductor.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda phi: phi[:, :-1], "need phi of shape"),
        (lambda phi: phi * float("nan"), "must be finite"),
    ],
)
def test_what_is_no_field_is_refused(change, message) -> None:
    conductor = body(4, Ends("grounded"), 1)
    phi = torch.zeros(1, *conductor.shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        certify(conductor, source(1, conductor), change(phi))


def test_an_electrode_on_skin_or_on_a_face_has_a_bound() -> None:
    """Taken a little inside, where the closed form is no good picture: finite, and large."""
    sigma = torch.full((1, 1, 5, 4, 4), 0.3, dtype=torch.float64)
    conductor = Conductor(sigma, torch.full((1, 3), 0.003, dtype=torch.float64))
    current = torch.tensor([1e-3], dtype=torch.float64)
    deep = PointSource(torch.tensor([[0.0075, 0.0045, 0.0045]], dtype=torch.float64), current)
    on_face = PointSource(torch.tensor([[0.006, 0.006, 0.006]], dtype=torch.float64), current)
    on_skin = PointSource(torch.tensor([[0.0075, 0.0, 0.0045]], dtype=torch.float64), current)
    in_the_middle, between, outside = (
        float(certify(conductor, place).bound) for place in (deep, on_face, on_skin)
    )
    assert between < 2 * in_the_middle  # of one tissue: nothing happens at the face
    assert 100 * in_the_middle < outside < float("inf")


@pytest.mark.parametrize("ends", ENDS, ids=lambda value: str(value))
def test_slopes_chosen_together_leave_hardly_more_than_the_least(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    conductor = body(8, ends, 6 if ends.kind == "pair" else 3)
    place = source(3, conductor)
    phi = solve(conductor, place, warn=False).phi[0]
    currents = Currents.of(Body.of(conductor))

    def left(steps: int) -> float:
        """|sigma^-1/2 (q + sigma grad v)| after so many steps."""
        monkeypatch.setattr(slopes, "STEPS", steps)
        return Mismatch.of(currents, one_of(place, 0), phi).plain

    together, alone, least = left(slopes.STEPS), left(0), left(60)
    assert together < 0.98 * alone
    assert least * (1 - 1e-9) < together < 1.01 * least


def test_a_few_planes_at_a_time_are_as_good_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    conductor = body(9, Ends("grounded"), 3)
    place = source(9, conductor)
    patch = torch.zeros(conductor.shape, dtype=torch.bool)
    patch[5:7, 2:4, 1:3] = True
    patch &= conductor.tissue[0]
    phi = solve(conductor, place, warn=False).phi
    whole, between = certify(conductor, place, phi), interval(conductor, place, patch, phi=phi)
    monkeypatch.setattr("physics_hybrid.problems.potential.certify.body.SLAB", 70)
    monkeypatch.setattr("physics_hybrid.problems.potential.certify.rules.BATCH", 10)
    parts, apart = certify(conductor, place, phi), interval(conductor, place, patch, phi=phi)
    assert torch.allclose(parts.density, whole.density, rtol=1e-10)
    assert apart.low == pytest.approx(between.low, rel=1e-10)
    assert apart.high == pytest.approx(between.high, rel=1e-10)
