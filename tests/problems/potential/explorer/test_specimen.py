"""Sliders, and which way up a body lies."""

import numpy as np
import pytest

from physics_hybrid.problems.potential.door.places import in_frame
from physics_hybrid.problems.potential.explorer.specimen import Specimen


def test_a_slider_scales_its_tissue_and_keeps_its_tensor(specimen):
    wanted = list(specimen.sigma)
    muscle = specimen.names.index("muscle")
    wanted[muscle] *= 3
    body = specimen.body(tuple(wanted))
    here = specimen.labels == specimen.tissues[muscle].label
    ratio = (body.sigma / specimen.original.sigma.where(specimen.original.sigma > 0, 1.0))[0]
    np.testing.assert_allclose(ratio[:, here], 3.0)
    others = specimen.original.tissue & ~here
    np.testing.assert_allclose(ratio[:, others], 1.0)
    assert (body.tissue == specimen.original.tissue).all()
    assert specimen.body(tuple(wanted)) is body
    assert specimen.body(specimen.sigma) is specimen.original


def test_a_segmentation_has_the_names_of_its_table(thigh):
    specimen = Specimen.read(str(thigh))
    assert specimen.names == ("fat", "muscle")
    assert sum(tissue.voxels for tissue in specimen.tissues) == specimen.original.tissue.sum()
    table = {
        "air": {"label": 0, "sigma": 0.0},
        "jelly": {"label": 2, "sigma": 0.1},
        "meat": {"label": 3, "sigma": [0.5, 0.1, 0.1]},
    }
    named = Specimen.read(str(thigh), tissues=table)
    assert named.names == ("jelly", "meat")
    assert named.tissues[1].sigma == (0.5, 0.1, 0.1)


def test_axes_are_those_of_the_world(thigh):
    specimen = Specimen.read(str(thigh))
    body, axes = specimen.original, specimen.axes()
    assert [axis.name for axis in axes] == ["S", "R", "A"]
    place = np.array([0.031, 0.013, 0.022])
    right, anterior, superior = in_frame(body, place[None], "world")[0]
    shown = [axis.origin + axis.sign * 1e3 * x for axis, x in zip(axes, place, strict=True)]
    assert shown == pytest.approx([superior, right, anterior])
    # D runs up, H to the left of the body, W forwards: right and anterior are at the left
    assert [axis.upside_down for axis in axes] == [False, True, False]
    assert [axis.mirrored for axis in axes] == [True, False, True]
    assert [(axis.low, axis.high) for axis in axes] == [("I", "S"), ("R", "L"), ("P", "A")]
    assert specimen.sections() == ((0, 2, 1), (2, 0, 1), (1, 0, 2))


def test_a_body_without_a_world_is_shown_in_mm_of_its_grid(specimen):
    assert [axis.name for axis in specimen.axes()] == ["D", "H", "W"]
    assert specimen.sections() == ((0, 1, 2), (1, 0, 2), (2, 0, 1))


def test_an_oblique_body_is_shown_in_mm_of_its_grid(specimen):
    import physics_hybrid as ph

    angle = np.radians(20)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = np.eye(4)
    affine[:3, :3] = turn * 4.0
    oblique = ph.Body(np.full((6, 6, 6), 0.3), (0.004,) * 3, affine)
    shown = Specimen(oblique, {1: "gel"}, "gel")
    assert [axis.name for axis in shown.axes()] == ["D", "H", "W"]
    assert shown.names == ("gel",)


def test_the_first_electrode_lies_in_tissue(specimen, thigh):
    for one in (specimen, Specimen.read(str(thigh))):
        assert one.original.in_tissue(np.array(one.first_place()))
