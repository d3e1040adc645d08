"""The current of a certificate conserves charge, in the weak sense and to rounding."""

import dataclasses
from itertools import permutations

import numpy as np
import pytest
import torch

from physics_hybrid.problems.potential.certify import rules
from physics_hybrid.problems.potential.certify.body import Body
from physics_hybrid.problems.potential.certify.certificate import Mismatch, one_of
from physics_hybrid.problems.potential.certify.closed_form import ClosedForm
from physics_hybrid.problems.potential.certify.current import Currents, Drive
from physics_hybrid.problems.potential.certify.flux import Flux, inner
from physics_hybrid.problems.potential.certify.patch import Functional
from physics_hybrid.problems.potential.certify.repair import Runs
from physics_hybrid.problems.potential.certify.rules import Points
from physics_hybrid.problems.potential.certify.shapes import bent, trilinear
from physics_hybrid.problems.potential.physics.conductor import matrix
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.flux import FluxOperator
from physics_hybrid.problems.potential.physics.solve import solve
from physics_hybrid.problems.potential.physics.subtraction import Subtraction
from tests.problems.potential.certify.scenes import ENDS, body, source


@pytest.mark.parametrize(
    ("ends", "components"), zip(ENDS, (1, 6, 1, 6), strict=True), ids=lambda value: str(value)
)
def test_weak_divergence_of_the_current_is_the_source(ends: Ends, components: int) -> None:
    """int q . grad w dV = -f(w) + int_ends q . n w dS + osc(w) for every trilinear w: so with robin
    ends p = q + sigma grad v stands for a(phi - v, w)."""
    conductor = body(3, ends, components)
    place = source(5, conductor)
    phi = solve(conductor, place, warn=False).phi[0]
    mismatch = Mismatch.of(Currents.of(Body.of(conductor)), one_of(place, 0), phi)
    one = mismatch.body
    random = torch.Generator().manual_seed(0)
    w = torch.randn(*(n + 1 for n in one.shape), dtype=torch.float64, generator=random)
    w[[0, -1]] *= ends.kind != "grounded"
    c = [torch.randn(shape, dtype=torch.float64, generator=random) for shape in _edges(one.shape)]
    c[1][[0, -1]] = c[2][[0, -1]] = 0.0
    flux = mismatch.flux
    bare = dataclasses.replace(flux, sign=0.0)
    test = dataclasses.replace(
        flux,
        nodes=w,
        low=[torch.zeros_like(q) for q in flux.low],
        high=[torch.zeros_like(q) for q in flux.high],
        closed=[],
        corrections=[],
        slopes={},
        edges=c,
    )
    product, doubt = inner(one, bare, test)  # int q . grad w - int_ends q . n w
    injected = 0.0
    for electrode in place.electrodes:
        at = electrode.point / conductor.spacing
        voxel = at.floor().long()
        injected += float(electrode.current * _value(w, c, voxel, at - voxel))
    if ends.kind == "sink":
        mean = Functional(one, one.tissue / one.tissue.sum() / one.volume, _no_skin(one))(test)[0]
        injected -= 1e-3 * mean
    waves, unsure = mismatch.oscillation.moment(w, c)
    assert float(product.sum()) == pytest.approx(waves - injected, abs=3 * (doubt + unsure) + 1e-12)
    assert doubt + unsure < 0.05 * float(w.abs().max()) * 1e-3


def _edges(shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The grids of edges along each axis."""
    return [tuple(n + (a != axis) for a, n in enumerate(shape)) for axis in range(3)]


def _value(
    nodes: torch.Tensor, edges: list[torch.Tensor], voxels: torch.Tensor, xi: torch.Tensor
) -> torch.Tensor:
    """Of a function from nodes and edges at one place of each voxel."""
    places = list(xi[..., None].unbind(dim=1))
    points = Points(voxels, places, places)
    return (trilinear(nodes, points) + bent(edges, points)).flatten()


def _no_skin(one: Body) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """0 on all faces."""
    shapes = [tuple(n + (a == axis) for a, n in enumerate(one.shape)) for axis in range(3)]
    d, h, w = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    return d, h, w


def test_waves_of_a_bent_potential_integrate_as_points_do() -> None:
    one = Body.of(body(2, Ends("grounded"), 6))
    random = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        """Random values."""
        return torch.randn(*shape, dtype=torch.float64, generator=random)

    nodes, edges = some(*(n + 1 for n in one.shape)), [some(*shape) for shape in _edges(one.shape)]
    low, high = ([some(*one.shape) for _ in range(3)] for _ in range(2))
    slopes = {ab: (some(*one.shape), some(*one.shape)) for ab in permutations(range(3), 2)}
    flux = Flux(one, nodes, low, high, slopes=slopes, edges=edges)
    density, _ = inner(one, flux, flux)
    orders = rules.Orders(plain=4, graded=1)
    (points,) = rules.box_points([], one.tissue.nonzero(), one.spacing, orders)
    p = torch.stack(flux.at(points), dim=-1)
    inverse = torch.linalg.inv(matrix(one.at(points.voxels)))
    square = torch.einsum("npqra,nab,npqrb->npqr", p, inverse, p)
    assert torch.allclose(density[one.tissue], one.volume * points.mean(square), rtol=1e-10)


@pytest.mark.parametrize("ends", ENDS, ids=lambda value: str(value))
def test_currents_of_electrodes_are_those_of_the_subtraction(ends: Ends) -> None:
    conductor = body(6, ends, 3)
    place = source(6, conductor)
    phi = solve(conductor, place, warn=False).phi[0]
    one = Body.of(conductor)
    currents = Currents.of(one)
    operator = FluxOperator.of(conductor)
    closed = [ClosedForm.of(conductor, electrode) for electrode in place.electrodes]
    known = Subtraction.of(conductor, operator, place)
    found = currents.of_points(operator, closed, phi)
    for mine, theirs in zip(found, currents.of_field(known, phi), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))
    injected = Drive.of_points(one, closed).injected
    assert torch.allclose(injected * one.tissue, known.injected * one.tissue, rtol=1e-12)


def test_smoothed_squares_are_those_of_a_rule_with_a_point_less() -> None:
    """Of polynomials that the finer rule resolves, the coarser one sees all but the highest."""
    fine, coarse = (rules.gauss(points) for points in (4, 3))
    smoother = rules.smoother(4, 1)
    for order in range(4):
        values = [x**order + 0.3 * x for x, _ in (fine, coarse)]
        smooth = (values[0] * fine[1].sqrt()) @ smoother
        assert float((smooth**2).sum()) == pytest.approx(float((coarse[1] * values[1] ** 2).sum()))


@pytest.mark.parametrize("open_ends", [True, False])
def test_what_was_lost_is_carried_off_exactly(open_ends: bool) -> None:
    random = np.random.default_rng(0)
    tissue = random.random((9, 7, 6)) < 0.7
    tissue = _reaching(tissue, ends=open_ends)
    lost = np.where(tissue, random.standard_normal(tissue.shape), 0.0)
    if not open_ends:
        lost -= lost.sum() / tissue.sum() * tissue
    d, h, w = Runs.of(tissue, open_ends).carry(lost, 1.0)
    net = np.diff(d, axis=0) + np.diff(h, axis=1) + np.diff(w, axis=2)
    assert np.abs(net - lost).max() < 1e-11
    assert np.all(h[:, 1:-1][~(tissue[:, 1:] & tissue[:, :-1])] == 0)
    assert np.all(w[:, :, 1:-1][~(tissue[:, :, 1:] & tissue[:, :, :-1])] == 0)
    assert np.all(d[1:-1][~(tissue[1:] & tissue[:-1])] == 0)
    assert np.all(h[:, [0, -1]] == 0)
    assert np.all(w[:, :, [0, -1]] == 0)
    if not open_ends:
        assert np.all(d[[0, -1]] == 0)


def _reaching(tissue: np.ndarray, ends: bool) -> np.ndarray:
    """The pieces that touch an end, or the largest piece."""
    from scipy import ndimage

    pieces, count = ndimage.label(tissue)
    if ends:
        return np.isin(pieces, np.setdiff1d(pieces[[0, -1]], [0]))
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])


def test_a_piece_without_a_way_out_is_refused() -> None:
    tissue = np.zeros((6, 3, 3), bool)
    tissue[2:4, 1, 1] = True
    lost = np.where(tissue, 1.0, 0.0)
    with pytest.raises(ValueError, match="reaches no end"):
        Runs.of(tissue, True).carry(lost, 1.0)
