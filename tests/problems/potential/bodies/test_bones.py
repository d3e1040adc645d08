"""Real bones: the shape of the map, kept wherever it is put, inside the limb."""

import dataclasses
import tomllib

import numpy as np
import pytest
from scipy import ndimage

from physics_hybrid.problems.potential.bodies.bones import FIBULA, MAP, TIBIA, shank
from physics_hybrid.problems.potential.bodies.tissues import AIR, BONE, FAT, MUSCLE, SKIN
from tests.conftest import ROOT, limb_distribution


@pytest.fixture(scope="module")
def shanks():
    return limb_distribution(bone_shape="tibia_fibula")


@pytest.mark.slow
def test_the_map_holds_both_bones_whole():
    with np.load(MAP, allow_pickle=False) as file:
        labels, spacing = file["labels"], float(file["spacing"])
    for label, volume in ((TIBIA, 255.26e-6), (FIBULA, 47.21e-6)):  # of the surfaces, m^3
        assert (labels == label).sum() * spacing**3 == pytest.approx(volume, rel=3e-3)
        assert ndimage.label(labels == label)[1] == 1
    knee, ankle = (((labels == TIBIA).sum(axis=(1, 2)))[i] for i in (-20, 20))
    assert knee > 2 * ankle

    def centre(label):
        return np.argwhere(labels == label).mean(axis=0)

    assert (centre(FIBULA)[1:] > centre(TIBIA)[1:] + 5).all()  # behind, and on the outer side
    index = np.indices(labels.shape).reshape(3, -1)
    assert np.array_equal(shank().distance_at(*((index + 0.5) * spacing)) < 0, labels.ravel() > 0)


def test_the_map_is_small_licensed_and_installed():
    assert MAP.stat().st_size < 300e3
    note = (MAP.parent / "README.md").read_text()
    assert "Mozilla Public License" in note
    assert "gias2" in note
    assert "python -m physics_hybrid.problems.potential.bodies.bones" in note
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    packaged = tools["setuptools"]["package-data"]["physics_hybrid.problems.potential.bodies"]
    bodies = ROOT / "physics_hybrid/problems/potential/bodies"
    assert MAP in {path for pattern in packaged for path in bodies.glob(pattern)}


def test_points_of_the_map_are_bone_where_the_limb_puts_them(shanks):
    """Both ways of the same map: the outline goes into the limb, `inside` comes back."""
    kinds = set()
    for number in range(30):
        limb = shanks.draw(0, 0, number)
        d, y, x = limb.bones.outline(limb.extent[0]).T
        assert len(d) > 200
        assert limb.bones.inside(d, y, x).all()
        kinds.add((limb.bones.mirrored, limb.bones.axial > 0))
        low, high = sorted(limb.bones.start + np.array([0, limb.extent[0]]) / limb.bones.axial)
        assert 0.1 * shank().length < low < high < 0.87 * shank().length
    assert len(kinds) == 4


@pytest.mark.slow
def test_bones_lie_in_muscle_and_fat_next_to_the_skin_but_never_in_it(shanks):
    for number in range(6):
        limb = shanks.draw(0, 0, number)
        voxels = limb.voxelise((40, 200, 200))
        bone = voxels.labels == BONE
        assert bone.any(axis=(1, 2)).all()
        around = ndimage.binary_dilation(bone, structure=np.ones((1, 3, 3)))
        assert not np.isin(voxels.labels[around], (AIR, SKIN)).any()
        d, h, w = np.meshgrid(
            *((np.arange(n) + 0.5) * s for n, s in zip(bone.shape, voxels.spacing, strict=True)),
            indexing="ij",
            sparse=True,
        )
        y, x = limb.section(h, w)
        assert np.array_equal(limb.bones.inside(d, y, x), bone)  # nothing was cut off
        near_fat = ndimage.distance_transform_edt(~(voxels.labels == FAT), sampling=voxels.spacing)[
            bone
        ].min()
        assert near_fat < 0.008


def test_a_size_that_does_not_fit_is_thinned():
    thick = limb_distribution(bone_shape="tibia_fibula", bone_scale=(2.0, 2.0))
    for number in range(5):
        limb = thick.draw(0, 0, number)
        assert limb.bones.scale < 1.9
        assert abs(limb.bones.axial) == pytest.approx(2.0)
        labels = limb.voxelise((24, 60, 60)).labels
        assert {AIR, SKIN, FAT, MUSCLE, BONE} == set(np.unique(labels))


@pytest.mark.slow
def test_the_same_key_the_same_limb_on_every_grid_and_nothing_but_the_bones_differs(shanks, limbs):
    for number in range(3):
        limb, plain = shanks.draw(0, 2, number), limbs.draw(0, 2, number)
        assert limb.bones == shanks.draw(0, 2, number).bones
        same = ("extent", "axes", "angle", "taper", "skin", "fat", "current")
        assert all(getattr(limb, name) == getattr(plain, name) for name in same)
        assert np.array_equal(limb.sigma, plain.sigma)
        assert limb.electrodes[0].tissue == plain.electrodes[0].tissue
        coarse, fine = limb.voxelise((48, 24, 24)), limb.voxelise((192, 96, 96))
        assert abs((coarse.labels == BONE).mean() - (fine.labels == BONE).mean()) < 0.004
        volume = [
            (v.labels == BONE).sum() * v.spacing.prod()
            for v in (fine, limb.voxelise((211, 117, 105)))
        ]
        assert volume[0] == pytest.approx(volume[1], rel=0.01)


def test_limbs_with_real_bones_are_solved(stream, shanks):
    batch = dataclasses.replace(stream, limbs=shanks).batch([0, 1])
    assert bool((batch.u[batch.tissue] > 0).all())
    assert bool((batch.labels == BONE).any())


@pytest.mark.parametrize(
    "change", [{"bone_shape": "femur"}, {"bone_scale": (1.0, 0.5)}, {"bone_scale": (0.0, 0.5)}]
)
def test_bone_options_refuse(change):
    with pytest.raises(ValueError, match=f"data.phantom.{next(iter(change))}"):
        limb_distribution(**change)
