"""Voxels cut where an interval's width comes from: the same problem, held to exact solutions."""

import numpy as np
import pytest
import torch

from physics_hybrid.problems.potential.certify.body import AXES, Body, split
from physics_hybrid.problems.potential.certify.certificate import Mismatch
from physics_hybrid.problems.potential.certify.current import Currents
from physics_hybrid.problems.potential.certify.flux import Flux, inner
from physics_hybrid.problems.potential.certify.focus import STEEPEST, Focus
from physics_hybrid.problems.potential.certify.graded import Graded
from physics_hybrid.problems.potential.certify.interval import interval
from physics_hybrid.problems.potential.certify.patch import Functional
from physics_hybrid.problems.potential.exact.box import layered_box
from physics_hybrid.problems.potential.physics.conductor import Conductor
from physics_hybrid.problems.potential.physics.electrodes import PointSource
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.physics.solve import solve
from tests.problems.potential.certify.scenes import ENDS, GRID, body, source

H = 0.002
SHAPE = (14, 9, 8)
#: Muscle, whose fibres lie along D, below two voxels of fat.
MUSCLE, FAT, SKIN_OF_MUSCLE = (0.6, 0.2, 0.2), (0.04, 0.04, 0.04), 7


def layers(ends: Ends) -> Conductor:
    sigma = torch.tensor(MUSCLE, dtype=torch.float64).view(1, 3, 1, 1, 1).repeat(1, 1, *SHAPE)
    sigma[:, :, :, SKIN_OF_MUSCLE:] = FAT[0]
    return Conductor(sigma, torch.full((1, 3), H, dtype=torch.float64), ends)


def gauss(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in metres and weights over voxels [first, last)."""
    x, w = np.polynomial.legendre.leggauss(6)
    return (first + (last - first) * (x + 1) / 2) * H, w / 2


@pytest.mark.exact
@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ends.kind)
@pytest.mark.parametrize(
    ("height", "on"),
    [(4.6, "voxels"), (7.45, "voxels"), (4.6, "skin")],
    ids=["in muscle", "in fat beside muscle", "on skin"],
)
def test_a_narrow_interval_holds_the_exact_voltage_in_layers(
    ends: Ends, height: float, on: str
) -> None:
    conductor = layers(ends)
    place = (4.3 * H, height * H, 3.6 * H)
    back = (11.4 * H, 4.3 * H, 2.7 * H) if ends.kind == "pair" else None
    electrodes = PointSource(
        torch.tensor([place], dtype=torch.float64),
        torch.tensor([1e-3], dtype=torch.float64),
        None if back is None else torch.tensor([back], dtype=torch.float64),
    )
    patch = torch.zeros(SHAPE, dtype=torch.bool)
    patch[8:10, 0:2, 4:7] = True
    (d, one), (h, two), (w, three) = gauss(8, 10), gauss(0, 2), gauss(4, 7)
    if on == "skin":
        h, two = np.zeros(1), np.ones(1)
    volts = layered_box(
        d,
        h,
        w,
        lengths=(SHAPE[0] * H, SHAPE[1] * H, SHAPE[2] * H),
        interfaces=[SKIN_OF_MUSCLE * H],
        sigma=np.array([MUSCLE, FAT]),
        source=place,
        current=1e-3,
        modes=(120, 80),
        ends=ends,
        returns=back,
    )
    exact = float(np.einsum("dhw,d,h,w", volts, one, two, three))
    wide = interval(conductor, electrodes, patch, on=on)
    to = 0.25 * float(wide.half_width / wide.middle.abs())
    narrow = interval(conductor, electrodes, patch, on=on, to=to, most=20)
    assert wide.low < exact < wide.high
    assert narrow.low < exact < narrow.high
    # all that a sink may have is every voxel cut alike, here into 8
    assert narrow.half_width < (0.5 if ends.kind == "sink" else 0.26) * wide.half_width
    assert narrow.value == wide.value  # that of the field that was given


@pytest.mark.parametrize("components", [1, 3, 6])
@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ends.kind)
def test_cut_alike_everywhere_it_is_the_split_problem(components: int, ends: Ends) -> None:
    conductor = body(3 + components, ends, components)
    place = source(5, conductor)
    graded = Graded(tuple(torch.full((n,), 2) for n in GRID))
    cut = graded.conductor(conductor)
    phi = solve(cut, graded.source(place, conductor.spacing), tolerance=1e-10, warn=False).phi
    fine = solve(split(conductor, 2), place, tolerance=1e-10, warn=False).phi
    assert torch.allclose(phi, fine, rtol=1e-6, atol=1e-7 * float(fine.abs().max()))
    ones = torch.ones(graded.voxels).view(cut.shape).double()
    assert bool((graded.gathered(ones) == 8).all())


@pytest.mark.parametrize("components", [1, 3, 6])
def test_a_linear_potential_has_its_energy_and_means_on_every_graded_grid(components: int) -> None:
    conductor = body(1, Ends("grounded"), components, air=False)
    graded = Graded(tuple(torch.tensor([1 + (i * i + n) % 4 for i in range(n)]) for n in GRID))
    cut = Body.of(graded.conductor(conductor))
    g = [3.0, -1.0, 2.0]
    places = []
    for s, slope, h in zip(graded.steps, g, conductor.spacing[0], strict=True):
        places.append(torch.cat([s.new_zeros(1), s.cumsum(0)]) * h * slope)
    d, h, w = places
    nothing = [torch.zeros(cut.shape, dtype=torch.float64)] * 3
    linear = Flux(cut, d[:, None, None] + h[:, None] + w, nothing, nothing)
    energy = graded.gathered(inner(cut, linear, linear)[0])
    sigma = Body.of(conductor).sigma
    pairs = AXES if len(sigma) == 6 else AXES[:3]
    if len(sigma) == 1:
        sigma = sigma.expand(3, -1, -1, -1)
    power = sum(s * g[a] * g[b] * (1 + (a != b)) for s, (a, b) in zip(sigma, pairs, strict=True))
    assert torch.allclose(energy, power * float(conductor.spacing.prod()), rtol=1e-12)
    patch = torch.zeros(GRID, dtype=torch.bool)
    patch[2:5, 0:2, 1:3] = True
    for on, middle in (("voxels", (3.5, 1.0, 2.0)), ("skin", (3.5, 0.0, 2.0))):
        L = Functional.of(cut, [graded.cut(patch)], on, graded.steps)
        there = zip(g, middle, conductor.spacing[0].tolist(), strict=True)
        assert L(linear)[0] == pytest.approx(sum(slope * x * h for slope, x, h in there), rel=1e-12)


def test_voxels_are_cut_where_the_width_comes_from() -> None:
    conductor = Conductor(
        torch.full((1, 1, 40, 24, 24), 0.3, dtype=torch.float64),
        torch.full((1, 3), H, dtype=torch.float64),
    )
    point = torch.tensor([[10.5, 10.5, 10.5]], dtype=torch.float64) * H
    here = torch.zeros(conductor.shape, dtype=torch.bool)
    here[10, 10, 10] = True
    patch = torch.zeros(conductor.shape, dtype=torch.bool)
    patch[30:32, 20:22, 20:22] = True
    focus = Focus.of(conductor, PointSource(point, torch.ones(1, dtype=torch.float64)), [patch])
    flat = torch.ones(conductor.shape, dtype=torch.float64)
    there = focus.finer(flat + 1e9 * patch, flat + 1e9 * patch, 0.1, 10**9)
    assert max(there.levels[0]) == 1
    assert there.levels[1][0] == 4
    assert there.levels[1][-1] == 1
    parts = there.graded.parts
    assert all(int(n[30 if axis == 0 else 20]) == 4 for axis, n in enumerate(parts))
    both = focus.finer(flat + 1e9 * here, flat + 1e9 * patch, 0.1, 10**9)
    assert min(both.levels[0][0], both.levels[1][0]) >= 2
    for n in both.graded.parts:
        assert bool((n[1:] <= STEEPEST * n[:-1]).all())
        assert bool((n[:-1] <= STEEPEST * n[1:]).all())
    assert both.reach(both.graded, 12) >= 8  # alike on all sides of the electrode
    limit = 3 * patch.numel()
    assert patch.numel() < focus.finer(flat, flat, 1e-6, limit).graded.voxels <= limit


def test_a_bent_potential_goes_on_smoothly_where_the_closed_form_ends() -> None:
    """The mismatch falls with the distance: it was a thousand times as large at the edge of the
    window when shares were taken to be linear along edges."""
    n, reach = 25, 2
    conductor = Conductor(
        torch.full((1, 1, n, n, n), 0.3, dtype=torch.float64),
        torch.full((1, 3), H, dtype=torch.float64),
    )
    place = PointSource(
        torch.full((1, 3), 12.4 * H, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    )
    phi = solve(conductor, place).phi[0]
    found = Mismatch.of(Currents.of(Body.of(conductor)), place, phi, reach=reach, curved=True)
    window = found.flux.closed[0].window
    away = (torch.stack(torch.meshgrid(*[torch.arange(n)] * 3, indexing="ij")) - 12).abs().amax(0)
    edge = window[1][0] - 13
    mean = [float(found.density[away == edge + i].mean()) for i in range(-2, 4)]
    assert mean == sorted(mean, reverse=True)


@pytest.mark.parametrize(("to", "refine"), [(0.0, 1), (-1.0, 1), (0.01, 2)])
def test_a_width_is_a_share_of_the_voltage_and_splits_by_itself(to: float, refine: int) -> None:
    conductor = layers(Ends("grounded"))
    place = PointSource(torch.full((1, 3), 5 * H), torch.ones(1))
    patch = conductor.tissue[0] & False
    patch[0, 0, 0] = True
    with pytest.raises(ValueError, match="to is a half-width as a share|without refine"):
        interval(conductor, place, patch, to=to, refine=refine)
