"""Scenes and what they get; what is refused costs nothing."""

import base64
import io
import math

import numpy as np
import pytest

import physics_hybrid as ph
from physics_hybrid.problems.potential.explorer.scene import Refused
from tests.problems.potential.explorer.conftest import TOLERANCE

DOUBLE = 2.0


def millivolts(answer):
    return [
        np.frombuffer(base64.b64decode(section["millivolts"]), "<f4")
        for section in answer["sections"]
    ]


def test_an_answer_is_the_field_of_the_door(explorer, scene):
    answer = explorer.field(scene)
    field = ph.solve(
        explorer.specimen.original, scene["at"], 1e-3, tolerance=TOLERANCE, progress=False
    )
    assert answer["numbers"]["engine"] == "solver"
    assert answer["numbers"]["residual"] <= TOLERANCE
    assert answer["numbers"]["highest"] == pytest.approx(1e3 * field.phi.max())
    voxel = tuple(answer["here"]["voxel"])
    assert answer["here"]["millivolts"] == pytest.approx(1e3 * field.phi[voxel])
    assert answer["here"]["J"] == pytest.approx(np.linalg.norm(field.J[voxel]))
    bound = explorer.bound(scene)
    assert bound["relative"] == pytest.approx(float(field.certify(sharp=False).relative[0]))
    # the cheap one and the sharp one are kept apart
    assert bound["relative"] > float(field.bound)


def test_twice_the_current_is_twice_the_field(explorer, scene):
    once = explorer.field(scene)
    twice = explorer.field({**scene, "current": DOUBLE * scene["current"]})
    for one, two in zip(millivolts(once), millivolts(twice), strict=True):
        np.testing.assert_allclose(two, DOUBLE * one, rtol=1e-5)


def test_twice_the_conductivity_everywhere_is_half_the_field(explorer, scene):
    once = explorer.field(scene)
    better = explorer.field({**scene, "sigma": [DOUBLE * s for s in scene["sigma"]]})
    for one, two in zip(millivolts(once), millivolts(better), strict=True):
        np.testing.assert_allclose(two, one / DOUBLE, rtol=1e-5)


def test_electrodes_that_change_places_turn_the_field_round(explorer, scene):
    body = explorer.specimen.original
    back = body.nearest((0.1, 0.05, 0.0)).tolist()
    there = explorer.field({**scene, "returns": back})
    again = explorer.field({**scene, "at": back, "returns": scene["at"]})
    assert there["numbers"]["ends"] == "pair"
    for one, two in zip(millivolts(there), millivolts(again), strict=True):
        np.testing.assert_allclose(two, -one, atol=1e-5 * np.abs(one).max())


def test_a_section_elsewhere_solves_nothing_anew(explorer, scene, monkeypatch):
    explorer.field(scene)
    monkeypatch.setattr(
        "physics_hybrid.problems.potential.explorer.answers.solve", lambda *_, **__: 1 / 0
    )
    moved = [x + 0.004 for x in scene["cut"]]
    answer = explorer.field({**scene, "cut": moved})
    assert answer["seconds"]["solve"] == 0
    with pytest.raises(ZeroDivisionError):
        explorer.field({**scene, "current": 5e-3})


@pytest.mark.parametrize("kind", [".npz", ".nii.gz", ".vti"])
def test_a_file_is_the_field(explorer, scene, kind):
    name, content = explorer.export({"scene": scene, "kind": kind})
    assert name == f"potential{kind}"
    field = ph.solve(explorer.specimen.original, scene["at"], tolerance=TOLERANCE, progress=False)
    if kind == ".npz":
        np.testing.assert_allclose(np.load(io.BytesIO(content))["phi"], field.phi, rtol=1e-12)
    elif kind == ".nii.gz":
        import gzip

        import nibabel

        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
        np.testing.assert_allclose(image.get_fdata(), field.phi, rtol=1e-6, atol=1e-12)
    else:
        assert content.startswith(b'<?xml version="1.0"?>')


WRONG = {
    "no object": ([1], "must be an object"),
    "a key too many": ({"colour": 1}, "has colour, which there is not"),
    "a place of two": ({"at": [0.1, 0.1]}, "the electrode must be three numbers"),
    "a word": ({"at": [0.1, 0.1, "x"]}, "must be a finite number; got 'x'"),
    "no number": ({"at": [0.1, math.nan, 0.1]}, "must be a finite number; got nan"),
    "true": ({"current": True}, "the current must be a finite number"),
    "a whole number of 400 digits": ({"current": 10**400}, "current must be a finite number"),
    "a current that overflows": ({"current": 1e300}, "must be 0 or lie in 1e-60 to 1e[+]60 A"),
    "a current that vanishes": ({"current": 1e-300}, "must be 0 or lie in 1e-60 to 1e[+]60 A"),
    "no current": ({"current": 0}, "must not be 0"),
    "too few": ({"sigma": [1.0]}, "numbers in S/m, for skin, fat"),
    "negative": ({"sigma": "negative"}, r"fat \(S/m\) must be > 0; got -1.0"),
    "zero": ({"sigma": "zero"}, r"fat \(S/m\) must be > 0; got 0.0"),
    "infinite": ({"sigma": "infinite"}, "fat must be a finite number; got inf"),
    "in air": ({"at": [0.1, 0.001, 0.001]}, "electrode would lie in air"),
    "insulating": ({"sigma": "insulating"}, "cannot be solved in double precision"),
    "at the end of the world": ({"at": [1e300, 0.0, 0.0]}, "electrode would lie outside"),
    "outside": ({"returns": [9.0, 0.05, 0.05]}, "return electrode would lie outside"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_lost(explorer, scene, name):
    change, said = WRONG[name]
    before = explorer.field(scene)
    if isinstance(change, dict):
        change = {**scene, **change}
        if isinstance(change["sigma"], str):
            value = {"negative": -1.0, "zero": 0.0, "insulating": 1e-16, "infinite": math.inf}[
                change["sigma"]
            ]
            change["sigma"] = [scene["sigma"][0], value, *scene["sigma"][2:]]
    with pytest.raises(ValueError, match=said) as refused:
        explorer.field(change)
    if name in ("in air", "outside", "at the end of the world"):
        assert isinstance(refused.value, Refused)
        assert explorer.specimen.original.in_tissue(np.array(refused.value.nearest))
    after = explorer.field(scene)
    assert after["seconds"]["solve"] == 0
    for one, two in zip(millivolts(before), millivolts(after), strict=True):
        np.testing.assert_array_equal(one, two)


def test_both_electrodes_in_one_place_are_refused(explorer, scene):
    with pytest.raises(ValueError, match="the same place"):
        explorer.field({**scene, "returns": scene["at"]})


def test_a_scene_that_lacks_a_key_is_refused(explorer, scene):
    del scene["cut"]
    with pytest.raises(Refused, match="lacks cut"):
        explorer.bound(scene)


def test_a_file_of_another_kind_is_refused(explorer, scene):
    for kind in (".exe", "../../x.npz", None, [".npz"]):
        with pytest.raises(Refused, match="kind of a file"):
            explorer.export({"scene": scene, "kind": kind})
