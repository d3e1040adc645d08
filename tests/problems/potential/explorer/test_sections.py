"""What is drawn is the field: rasters, lines, outlines and currents against the door's own."""

import itertools

import numpy as np
import pytest

import physics_hybrid as ph
from physics_hybrid.problems.potential.door.picture import SECTIONS
from physics_hybrid.problems.potential.explorer.sections import SHADES, Planes, Scale, outlines
from tests.problems.potential.explorer.conftest import block

#: Turned about its diagonal, and in the order of the grid.
TURNED = [(normal, across, up) for normal, up, across in SECTIONS]


def points_of(section, body, lines=None):
    """Places (P, 3) m of the raster's points, or of lines in the plane."""
    if lines is None:
        n, m = section.volts.shape
        rows = (np.arange(n) + 0.5) / n * body.extent[section.up]
        columns = (np.arange(m) + 0.5) / m * body.extent[section.across]
        lines = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    places = np.empty((len(lines), 3))
    places[:, section.normal] = section.cut
    places[:, [section.up, section.across]] = lines
    return places


@pytest.fixture(scope="module")
def fields(specimen):
    """Of one electrode, and of a pair."""
    body, at = specimen.original, specimen.first_place()
    back = body.nearest((0.1, 0.05, 0.0))
    return {
        "one": ph.solve(body, at, progress=False),
        "pair": ph.solve(body, at, returns=back, progress=False),
    }


@pytest.mark.parametrize("axes", [SECTIONS, TURNED])
@pytest.mark.parametrize("kind", ["one", "pair"])
def test_a_raster_is_what_the_field_says_between_voxels(specimen, fields, axes, kind):
    body, at, field = specimen.original, specimen.first_place(), fields[kind]
    cut = (at[0] + 0.003, at[1], at[2] - 0.001)
    for section in Planes(field).at(cut, axes):
        inside = section.shades.ravel() > 0
        assert inside.sum() > 200
        volts = field.at(points_of(section, body)[inside])
        np.testing.assert_allclose(section.volts.ravel()[inside], volts, rtol=1e-9, atol=1e-15)
        assert (section.volts[section.shades == 0] == 0).all()


def test_lines_of_equal_potential_lie_where_the_field_has_their_level():
    body = block()
    field = ph.solve(body, (0.028, 0.031, 0.019), ends="sink", progress=False)
    planes = Planes(field)
    least = planes.scale.levels[planes.scale.levels > 0].min()
    checked = 0
    for section in planes.at((0.024, 0.027, 0.022), SECTIONS):
        for line in section.equipotentials:
            volts = field.at(
                points_of(section, body, line[body.hold(points_of(section, body, line))])
            )
            off = np.abs(1e3 * volts[:, None] - planes.scale.levels)
            level = planes.scale.levels[off.sum(axis=0).argmin()]
            # a point of a raster lies 1/4 voxel from the next: lines are straight between them
            assert np.median(np.abs(1e3 * volts - level)) < 0.02 * max(abs(level), least)
            checked += 1
    assert checked > 5


def test_currents_of_a_section_are_those_of_the_field(specimen, fields):
    at, field = specimen.first_place(), fields["one"]
    voxel = (np.array(at) / specimen.original.spacing).astype(int)
    for axes, section in zip(TURNED, Planes(field).at(at, TURNED), strict=True):
        normal, up, across = axes
        shown = np.moveaxis(field.J, (normal, up, across), (0, 1, 2))[voxel[normal]]
        np.testing.assert_array_equal(section.J, shown[..., [up, across]])


def test_outlines_run_between_unlike_voxels_and_nowhere_else():
    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, (7, 9))
    spacing = np.array([0.004, 0.003])
    padded = np.pad(kinds, 1)
    expected = 0.0
    for (i, j), (a, b) in itertools.product(np.ndindex(8, 10), ((0, 1), (1, 0))):
        if padded[i, j] != padded[i + a, j + b]:
            expected += spacing[0] if b else spacing[1]
    pieces = outlines(kinds, spacing)
    found = sum(float(np.abs(np.diff(piece, axis=0)).sum()) for piece in pieces)
    assert found == pytest.approx(expected)
    assert all((np.diff(piece, axis=0) == 0).any() for piece in pieces)


def test_a_box_of_one_tissue_has_four_edges():
    pieces = outlines(np.ones((3, 5), dtype=int), np.array([0.002, 0.001]))
    corners = {tuple(place) for piece in pieces for place in piece.tolist()}
    assert len(pieces) == 4
    assert corners == {(0.0, 0.0), (0.006, 0.0), (0.0, 0.005), (0.006, 0.005)}


@pytest.mark.parametrize("kind", ["one", "pair"])
def test_colours_rise_with_the_potential(specimen, fields, kind):
    planes = Planes(fields[kind])
    section = planes.at(specimen.first_place(), SECTIONS)[1]
    inside = section.shades > 0
    order = np.argsort(section.volts[inside])
    assert (np.diff(section.shades[inside][order].astype(int)) >= 0).all()
    assert SHADES - 25 <= section.shades.max() <= SHADES
    scale = planes.scale
    assert (np.diff(scale.places(scale.levels)) > 0).all()
    assert scale.table().shape == (SHADES, 3)
    if (
        kind == "pair"
    ):  # one colour for a voltage and another for its negative, as far from the middle
        both = scale.places(scale.levels) + scale.places(-scale.levels)
        np.testing.assert_allclose(both, 1.0, atol=1e-12)


def test_levels_are_1_2_5_in_the_decades_that_are_shown():
    levels = Scale.of(np.geomspace(0.3, 40.0, 2000)).levels
    assert levels.tolist() == pytest.approx([0.5, 1, 2, 5, 10, 20])
