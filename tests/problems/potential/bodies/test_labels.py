"""Segmentations: read without loss, refused with a reason, resampled, solved."""

import dataclasses
import gc
import json
import math
import re
import weakref
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml

from physics_hybrid.problems.potential.bodies.body import Cut, fit
from physics_hybrid.problems.potential.bodies.label_files import LabelVolume, read_labels, volumes
from physics_hybrid.problems.potential.bodies.segmentation import Segmentations, Sources
from physics_hybrid.problems.potential.bodies.tissue_table import read_table
from physics_hybrid.problems.potential.bodies.tissues import BONE, FAT, MUSCLE
from physics_hybrid.problems.potential.data.generated import dataset_path
from physics_hybrid.problems.potential.data.limb_data import LimbData
from physics_hybrid.problems.potential.data.sample import SampleError
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from tests.conftest import ROOT

OPTIONS = yaml.safe_load((ROOT / "conf/data/labels.yaml").read_text())
TABLE = OPTIONS["tissues"]
SPACING = (0.004, 0.003, 0.002)


def limb(seed=0, grid=(24, 16, 16)):
    from tests.conftest import limb_distribution

    return limb_distribution().draw(seed, 0, 3).voxelise(grid).labels


def save(path, labels, spacing=SPACING, unit="mm", affine=None):
    """A NIfTI file of labels (D, H, W), stored as scanners do: long axis last."""
    stored = labels.transpose(1, 2, 0).astype(np.int16)
    if affine is None:
        affine = np.diag([*(np.array([spacing[1], spacing[2], spacing[0]]) * 1e3), 1])
    image = nibabel.Nifti1Image(stored, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def segmentations(
    labels=None,
    table=TABLE,
    copies=1,
    splits=OPTIONS["splits"],
    ends="grounded",
    cut=None,
    **sources,
):
    """Copies of a volume, or so many limbs; what is not named is of `Sources`."""
    files = []
    for i in range(copies):
        volume = limb(i) if labels is None else labels
        files.append(LabelVolume(volume, np.array(SPACING), f"{i}.npy", f"{i}"))
    return Segmentations(
        files, read_table(table), 0, splits, sources=Sources(**sources), ends=ends, cut=cut or Cut()
    )


def stream(bodies, grid=(24, 16, 16), **change):
    return LimbStream(bodies, grid, 0, "train", Solver(), torch.device("cpu"), **change)


def test_nifti_and_npy_hold_the_same_volume(tmp_path):
    labels = limb()
    np.save(tmp_path / "a.npy", labels)
    plain = read_labels(tmp_path / "a.npy", SPACING)
    for name in ("a.nii", "a.nii.gz"):
        volume = read_labels(save(tmp_path / name, labels))
        assert np.array_equal(volume.labels, plain.labels)
        assert volume.spacing == pytest.approx(SPACING, rel=1e-6)
    other = read_labels(tmp_path / "a.npy", SPACING, long_axis=2)
    assert other.labels.shape == (16, 24, 16)
    assert other.spacing == pytest.approx([0.002, 0.004, 0.003])
    assert np.array_equal(other.labels, labels.transpose(2, 0, 1))


def test_units_of_the_header(tmp_path):
    labels = limb()
    assert read_labels(
        save(tmp_path / "a.nii", labels, np.array(SPACING) * 1e-3, "meter")
    ).spacing == pytest.approx(SPACING, rel=1e-5)
    assert read_labels(
        save(tmp_path / "a.nii", labels, np.array(SPACING) * 1e3, "micron")
    ).spacing == pytest.approx(SPACING, rel=1e-5)
    assert read_labels(save(tmp_path / "a.nii", labels, unit="unknown")).spacing == pytest.approx(
        SPACING, rel=1e-5
    )
    with pytest.raises(SampleError, match="other units"):
        read_labels(save(tmp_path / "a.nii", labels, SPACING, "meter"))


def test_a_turned_volume_is_taken_in_its_own_axes_and_a_sheared_one_refused(tmp_path):
    from scipy.spatial.transform import Rotation

    labels = limb()
    scale = np.diag([3.0, 2.0, 4.0])
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [12, -20, 30], degrees=True).as_matrix() @ scale
    volume = read_labels(save(tmp_path / "a.nii", labels, affine=affine))
    assert np.array_equal(volume.labels, labels)
    assert volume.spacing == pytest.approx(SPACING, rel=1e-5)
    affine[:3, :3] = Rotation.from_euler("x", 45, degrees=True).as_matrix() @ scale
    leaning = save(tmp_path / "b.nii", labels, affine=affine)
    with pytest.raises(
        SampleError,
        match=r"b.nii: key 'affine'.*within 30 degrees of inferior-superior.*data.long_axis",
    ):
        read_labels(leaning)
    assert np.array_equal(read_labels(leaning, long_axis=2).labels, labels)
    affine[:3, :3] = scale
    affine[0, 2] = 1.0
    with pytest.raises(SampleError, match="sheared"):
        read_labels(save(tmp_path / "a.nii", labels, affine=affine))


def test_files_that_are_no_segmentation_are_refused_by_name(tmp_path):
    def refused(name, message, **options):
        with pytest.raises(SampleError, match=message) as error:
            read_labels(tmp_path / name, **options)
        assert name in str(error.value)

    np.save(tmp_path / "image.npy", limb() + 0.5)
    refused("image.npy", "whole numbers", spacing=SPACING)
    np.save(tmp_path / "flat.npy", limb()[0])
    refused("flat.npy", "three axes", spacing=SPACING)
    np.save(tmp_path / "a.npy", limb())
    refused("a.npy", r"data.spacing=\[")
    refused("a.npy", "positive", spacing=(0.004, 0, 0.002))
    refused("a.npy", r"positive numbers in metres \(data.spacing\); got", spacing=("a", 3, 3))
    refused("a.npy", "other units", spacing=(4, 3, 2))
    refused("a.npy", "long_axis", spacing=SPACING, long_axis=3)
    refused("a.npy", "long_axis", spacing=SPACING, long_axis=True)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    refused("objects.npy", "pickle", spacing=SPACING)
    save(tmp_path / "a.nii.gz", limb())
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-200])
    refused("cut.nii.gz", "is truncated")
    refused("none.nii", "data.path")
    nibabel.save(nibabel.Nifti1Image(limb()[0], np.eye(4)), tmp_path / "flat.nii")
    refused("flat.nii", "three axes")
    np.save(tmp_path / "large.npy", np.where(limb() > 0, 1e10, 0.0))
    refused("large.npy", r"below 2\^31; found 1e\+10", spacing=SPACING)
    (tmp_path / "a.mha").write_text("")
    refused("a.mha", "not a label volume")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SampleError, match="no label volume"):
        volumes(tmp_path / "empty")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"fat": {"label": 1, "sigma": -0.1}}, "data.tissues.fat.sigma must be positive"),
        ({"fat": {"label": 1, "sigma": [1, 2]}}, "1 value, 3"),
        ({"fat": {"label": 1, "sigma": [1, 1, 1, 2, 0, 0]}}, "positive definite"),
        ({"fat": {"label": 1.5, "sigma": 1}}, "whole number"),
        (
            {"fat": {"label": 1, "sigma": 1}, "skin": {"label": [2, 1], "sigma": 1}},
            "label 1 stands for both fat and skin",
        ),
        ({"fat": {"label": 1}}, "label: .., sigma: .."),
        ({"air": {"label": 0, "sigma": 0.1}}, "carries no current"),
        ({"air": {"label": 0, "sigma": 0}}, "beside air"),
    ],
)
def test_tissue_tables_that_make_no_sense(table, message):
    with pytest.raises(ValueError, match=message):
        read_table(table)


def test_unknown_labels_are_named_and_counted():
    labels = limb()
    labels[5, 8, 7:9] = 7
    with pytest.raises(SampleError, match=r"0.npy: key 'labels': .*7 \(2 voxels\)"):
        segmentations(labels)
    segmentations(labels, {**TABLE, "bone": {"label": [4, 7], "sigma": 0.02}})


def test_islands_missing_ends_and_air_are_refused():
    labels = limb()
    island = labels.copy()
    island[10, 0, 0] = MUSCLE
    with pytest.raises(SampleError, match="2 pieces.*data.keep_largest=true"):
        segmentations(island)
    kept = segmentations(island, cut=Cut(keep_largest=True))
    assert "2 pieces" in kept.notes[0]
    assert not kept.bodies[0].on((24, 16, 16))[10, 0, 0]
    short = labels.copy()
    short[-3:] = 0
    with pytest.raises(SampleError, match="last has none.*data.slices"):
        segmentations(short)
    assert segmentations(short, cut=Cut(slices=[2, 21])).bodies[0].index.shape[0] == 19
    segmentations(short, ends="sink")  # a closed body needs no cut face
    for slices in ([5, 30], [3], 3, ["a", "b"], [0.5, 9]):
        with pytest.raises(SampleError, match="data.slices must be"):
            segmentations(short, cut=Cut(slices=slices))
    for current in (0.0, math.inf):
        with pytest.raises(ValueError, match="data.current"):
            segmentations(short, cut=Cut(slices=[2, 21]), current=current)
    with pytest.raises(SampleError, match="air only"):
        segmentations(np.zeros((4, 4, 4), int))


def test_cropping_keeps_the_tissue_and_its_place():
    labels = np.pad(limb(), ((0, 0), (9, 2), (0, 7)))
    body, _ = fit(segmentations_volume(labels), read_table(TABLE), cut=Cut(air=0.004))
    h, w = (np.flatnonzero(body.index.any(axis=a)) for a in ((0, 2), (0, 1)))
    assert h[0] == 2
    assert body.index.shape[1] - 1 - h[-1] == 2
    assert w[0] == 2
    assert body.index.shape[2] - 1 - w[-1] == 2
    point = np.array([12.5, 17.5, 8.5]) * SPACING
    assert body.row_at(point - body.origin) == labels[12, 17, 8] > 0
    assert (body.index > 0).sum() == (labels > 0).sum()


def segmentations_volume(labels):
    return LabelVolume(labels, np.array(SPACING), "v", "")


def test_resampling_takes_the_majority_and_nothing_away_from_a_finer_grid():
    bodies = segmentations()
    body = bodies.bodies[0]
    assert np.array_equal(body.on(body.index.shape), body.index)
    twice = body.on(tuple(2 * n for n in body.index.shape))
    assert np.array_equal(twice, body.index.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    half = body.on(tuple(n // 2 for n in body.index.shape))
    blocks = body.index.reshape(12, 2, 8, 2, 8, 2).transpose(0, 2, 4, 1, 3, 5).reshape(12, 8, 8, 8)
    counts = np.stack([(blocks == row).sum(-1) for row in range(5)])
    assert np.array_equal(half > 0, counts[0] <= 4)  # half of a voxel is enough
    assert np.array_equal(half, np.where(half > 0, 1 + counts[1:].argmax(0), 0))
    fine = segmentations(limb(0, (48, 48, 48))).bodies[0]
    odd = fine.on((31, 33, 29))
    for row in range(5):
        assert (odd == row).mean() == pytest.approx((fine.index == row).mean(), abs=0.01)
    thin = np.zeros((8, 16, 16), int)
    thin[:, 2, 2:14] = thin[:, 3:13, 2] = thin[:, 3:13, 13] = MUSCLE
    with pytest.raises(SampleError, match="finer"):
        segmentations(thin).bodies[0].on((8, 4, 4))


def test_what_bodies_keep_goes_with_them():
    """Results are computed once, and no cache outlives the bodies they belong to."""
    bodies = segmentations()
    body = bodies.bodies[0]
    assert body.on((12, 8, 8)) is body.on((12, 8, 8))
    assert bodies._candidates(body, "train") is bodies._candidates(body, "train")
    gone = [weakref.ref(body), weakref.ref(bodies)]
    del bodies, body
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_limb_as_labels_is_solved_like_the_limb(limbs):
    """The same voxels with the same source have the same potential, whichever way they came in."""
    drawn = limbs.draw(0, 0, 3)
    voxels = drawn.voxelise((24, 16, 16))
    table = {
        **TABLE,
        **{
            t: {"label": i, "sigma": drawn.sigma[i].tolist()}
            for i, t in enumerate(("skin", "fat", "muscle", "bone"), 1)
        },
    }
    volume = LabelVolume(voxels.labels, voxels.spacing, "limb", "")
    bodies = Segmentations(
        [volume],
        read_table(table),
        0,
        {"train": 1.0},
        sources=Sources(positions=[voxels.source_point.tolist()]),
    )
    mine, theirs = (
        stream(bodies).batch([0]),
        LimbStream(limbs, (24, 16, 16), 0, "train", Solver(), torch.device("cpu")).batch([3]),
    )
    assert torch.equal(mine.labels, theirs.labels)
    assert torch.equal(mine.sigma, theirs.sigma)
    assert torch.equal(mine.source, theirs.source)
    assert float((mine.u - theirs.u).abs().max() / theirs.u.max()) < 1e-6


def test_one_volume_splits_its_sources_and_says_so():
    bodies = segmentations()
    assert any("share the phantom" in note for note in bodies.notes)
    body = bodies.bodies[0]
    voxels = {}
    for split in range(3):
        drawn = [bodies.draw(0, split, n).points[0] for n in range(200)]
        assert all(bodies.table[body.row_at(p)].name == "muscle" for p in drawn)
        assert all(0.15 < p[0] / body.extent[0] < 0.85 for p in drawn)
        voxels[split] = {tuple((p // body.spacing).astype(int)) for p in drawn}
    assert not (voxels[0] & voxels[1])
    assert not (voxels[0] & voxels[2])
    assert not (voxels[1] & voxels[2])
    assert np.array_equal(bodies.draw(0, 0, 5).points, segmentations().draw(0, 0, 5).points)


def test_several_volumes_are_split_as_wholes():
    bodies = segmentations(copies=5, splits={"train": 0.6, "validation": 0.2, "test": 0.2})
    assert not bodies.notes
    seen = {
        split: {bodies.phantom(0, split, n) for n in range(20)}
        for split in ("train", "validation", "test")
    }
    assert [len(s) for s in seen.values()] == [3, 1, 1]
    assert len(set.union(*seen.values())) == 5


def test_listed_sources_are_used_once_and_shared_out():
    points = [[0.040 + 0.004 * i, 0.024, 0.016] for i in range(6)]
    labels = np.full((24, 16, 16), MUSCLE)
    bodies = segmentations(
        labels, positions=points, splits={"train": 0.5, "validation": 0.25, "test": 0.25}
    )
    used = {
        split: {tuple(bodies.draw(0, i, n).points[0].round(6)) for n in range(10)}
        for i, split in enumerate(("train", "validation", "test"))
    }
    assert [bodies.available(s) for s in used] == [len(u) for u in used.values()] == [4, 1, 1]
    assert np.array(sorted(set.union(*used.values()))) == pytest.approx(np.array(points))
    with pytest.raises(ValueError, match="lists 2"):
        segmentations(labels, positions=points[:2])
    with pytest.raises(
        SampleError, match=r"\[0.0, 0.0, 0.5\] m \(data.sources\) lies in air or outside"
    ):
        segmentations(labels, positions=[[0, 0, 0.5]])
    with pytest.raises(ValueError, match="data.source_tissues must name"):
        segmentations(labels, tissues=["nerve"])


def test_sources_sit_where_the_grid_can_hold_them_with_all_their_current():
    bodies = segmentations(tissues=["skin", "muscle"])
    for grid in ((24, 16, 16), (12, 8, 8), (40, 30, 30)):
        for number in range(30):
            drawn = bodies.draw(0, 0, number)
            voxels = drawn.voxelise(grid)
            sigma = {tuple(voxels.sigma[:, *i]) for i in np.argwhere(voxels.source > 0)}
            assert len(sigma) == 1
            assert min(*sigma) > 0
            assert voxels.source.sum() * voxels.spacing.prod() == pytest.approx(1e-3)
            assert (
                np.abs(voxels.source_point - drawn.points[0])
                <= 2.5 * np.maximum(voxels.spacing, drawn.body.spacing)
            ).all()


def test_tensors_of_the_table_reach_the_batch_and_names_reach_the_metrics():
    table = {
        "muscle": {"label": 3, "sigma": [1.0, 0.8, 0.3, 0.2, 0.0, 0.0]},
        "marrow": {"label": 4, "sigma": 0.05},
        "fat": {"label": [1, 2], "sigma": 0.05},
        "air": {"label": 0, "sigma": 0},
    }
    bodies = segmentations(table=table)
    voxels = bodies.draw(0, 0, 0).voxelise((24, 16, 16))
    assert voxels.sigma.shape[0] == 6
    assert bodies.oblique
    assert set(np.unique(voxels.labels)) == {0, FAT, MUSCLE}
    assert bodies.tissues == ("muscle", "fat")
    assert (
        pytest.approx(np.tile([1.0, 0.8, 0.3, 0.2, 0, 0], ((voxels.labels == MUSCLE).sum(), 1)))
        == voxels.sigma[:, voxels.labels == MUSCLE].T
    )
    with pytest.raises(ValueError, match="data.sigma_components=6"):
        stream(bodies).batch([0])
    data = LimbData(bodies, Solver(), (24, 16, 16), 1, 0, torch.device("cpu"), "data", 1, 1)
    with pytest.raises(ValueError, match="names no bone"):
        data.check_loss(["bone"])
    scalar = segmentations(
        table={
            **{
                t: {"label": i, "sigma": 0.1 * i}
                for i, t in enumerate(("a", "b", "muscle", "c"), 1)
            },
            "air": {"label": 0, "sigma": 0},
        }
    )
    assert stream(scalar).batch([0]).sigma.shape[1] == 3
    assert stream(scalar, sigma_components=1).batch([0]).sigma.shape[1] == 1
    assert BONE not in scalar.draw(0, 0, 0).voxelise((24, 16, 16)).labels


def test_other_content_other_dataset():
    base = segmentations()
    names = [
        dataset_path("data", stream(b), 4)
        for b in (
            base,
            segmentations(labels=limb(1)),
            segmentations(table={**TABLE, "fat": {"label": 2, "sigma": 0.06}}),
            segmentations(cut=Cut(air=0.004)),
            segmentations(margin=0.2),
            segmentations(positions=[[0.04, 0.024, 0.016]] * 3),
        )
    ]
    changed = segmentations()
    changed.bodies[0] = dataclasses.replace(changed.bodies[0], checksum="other")
    assert dataset_path("data", stream(segmentations()), 4) == names[0]
    assert len({n.name for n in names}) >= 5


@pytest.mark.slow
def test_train_and_evaluate_on_a_segmentation(typed, tmp_path, blank_pictures):
    path = save(tmp_path / "shank.nii.gz", limb())
    done = typed("train", "data=labels", f"data.path={path}", "training.epochs=1")
    assert "share the phantom" in done.stderr
    folder = done.stdout.strip().splitlines()[-1]
    metrics = json.loads((Path(folder) / "evaluation/metrics.json").read_text())
    assert metrics["16x12x12"]["relative_l2_muscle"]["mean"] > 0
    assert "32x24x24" in metrics
    again = typed(
        "evaluate",
        f"checkpoint={folder}",
        "data=labels",
        f"data.path={path}",
        "data.grid=[20,12,12]",
        "resolutions=[[20,12,12]]",
        f"data.folder={tmp_path}/d",
        f"output={tmp_path}/e",
    )
    assert re.search(r"\| 20x12x12 \| hybrid", again.stdout)
    assert "share the phantom" not in again.stderr


def test_a_segmentation_that_does_not_fit_its_table_stops_training_in_one_line(refused, tmp_path):
    path = save(tmp_path / "shank.nii.gz", limb())
    assert "4 (" in refused(
        ["data=labels", f"data.path={path}", "~data.tissues.bone"], ("limbs", "fno")
    )
    assert "data.path=FILE_OR_FOLDER" in refused(["data=labels"], ("limbs", "fno"))


def test_the_readmes_overrides_of_the_table_are_accepted():
    from physics_hybrid.configuration import check_overrides

    words = [
        "data.tissues.muscle.label=[3,7]",
        "data.tissues.fat.sigma=[0.05,0.04,0.04]",
        "+data.tissues.nerve={label: [5], sigma: [0.3]}",
        "~data.tissues.bone",
    ]
    check_overrides(
        ROOT / "conf",
        "config",
        [
            "data=labels",
            "data.grid=null",
            "data.spacing=[0.001,0.001,0.002]",
            "data.slices=[3,90]",
            *words,
        ],
    )
