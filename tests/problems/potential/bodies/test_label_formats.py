"""Label volumes as other programs write them: the same volume from each, and what is understood."""

import gzip
import struct
import sys

import h5py
import nibabel
import nrrd
import numpy as np
import pytest
import scipy.io

from physics_hybrid.problems.potential.bodies.body import Cut
from physics_hybrid.problems.potential.bodies.label_files import LabelVolume, read_labels, volumes
from physics_hybrid.problems.potential.bodies.segmentation import Segmentations
from physics_hybrid.problems.potential.bodies.tissue_table import read_table, with_air_below
from physics_hybrid.problems.potential.data.sample import SampleError

#: m, (D, H, W), and mm in the order of a scanner (H, W, D).
EDGES, STORED_MM = np.array([0.004, 0.003, 0.002]), np.array([3.0, 2.0, 4.0])


@pytest.fixture(scope="module")
def labels():
    """A bar of fat and muscle in air, (D, H, W); no two axes are alike."""
    body = np.zeros((12, 8, 9), dtype=np.uint8)
    body[:, 1:7, 2:8] = 2
    body[:, 2:6, 3:6] = 3
    return body


def stored(labels, dtype=np.int16):
    return labels.transpose(1, 2, 0).astype(dtype)


def write_mgz(path, labels):
    nibabel.save(nibabel.MGHImage(stored(labels, np.int32), np.diag([*STORED_MM, 1])), path)


def write_nifti(path, labels, dtype=np.int16):
    affine = np.diag([*STORED_MM, 1])
    nibabel.save(nibabel.Nifti1Image(stored(labels, dtype), affine), path)


def write_nifti_pair(path, labels):
    nibabel.save(nibabel.Nifti1Pair(stored(labels), np.diag([*STORED_MM, 1])), path)


def write_analyze(path, labels):
    """By hand: a header of 348 bytes, as programs of the nineties write it."""
    data = stored(labels, "<i2")
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *data.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, *STORED_MM, 0, 0, 0, 0)
    path.with_suffix(".hdr").write_bytes(header)
    path.with_suffix(".img").write_bytes(data.tobytes(order="F"))


def write_nrrd(path, labels, **header):
    header = {"space": "left-posterior-superior", "space directions": np.diag(STORED_MM)} | header
    nrrd.write(str(path), stored(labels), header)


def write_nrrd_by_hand(path, labels):
    """Metres, axes in another order, raw after gzip: as the format's page says, not by pynrrd."""
    turned = labels.transpose(1, 0, 2).astype("<u2")  # H, D, W; the first runs fastest
    head = (
        "NRRD0005\n# by hand\ntype: ushort\ndimension: 3\nspace: right-anterior-superior\n"
        f"sizes: {' '.join(map(str, turned.shape))}\n"
        "space directions: (0.003,0,0) (0,0,-0.004) (0,0.002,0)\n"
        'space units: "m" "m" "m"\nencoding: gzip\nendian: little\n\n'
    )
    path.write_bytes(head.encode() + gzip.compress(turned.tobytes(order="F")))


def write_slicer(path, labels):
    """3D Slicer's: one layer in front, and a name for each segment."""
    directions = np.vstack([np.full(3, np.nan), np.diag(STORED_MM)])
    header = {
        "space": "left-posterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": directions,
        "Segment0_Name": "fat",
        "Segment0_LabelValue": "2",
        "Segment1_Name": "muscle",
        "Segment1_LabelValue": "3",
    }
    nrrd.write(str(path), stored(labels)[None], header)


def write_npz(path, labels):
    np.savez(path.open("wb"), labels=labels, spacing=EDGES)


def write_old_mat(path, labels):
    scipy.io.savemat(path, {"seg": labels.astype(float), "spacing": EDGES, "by": "someone"})


def write_mat73(path, labels):
    """As MATLAB's save -v7.3: HDF5 behind 512 bytes, axes in reverse."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["labels"] = labels.T
        file["labels"].attrs["MATLAB_class"] = np.bytes_("uint8")
        file["spacing"] = EDGES[:, None]
        file["other"] = labels.T[:3]
        file.create_group("#refs#")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


WRITERS = {
    "A.NII.GZ": write_nifti,
    "a.MGZ": write_mgz,
    "a.mgz": write_mgz,
    "a.img": write_nifti_pair,
    "b.img": write_analyze,
    "b.hdr": write_analyze,
    "a.nrrd": write_nrrd,
    "b.nrrd": write_nrrd_by_hand,
    "a.seg.nrrd": write_slicer,
    "a.npz": write_npz,
    "A.MAT": write_old_mat,
    "b.mat": write_mat73,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_volume(tmp_path, labels, name):
    WRITERS[name](tmp_path / name, labels)
    volume = read_labels(tmp_path / name)
    assert np.array_equal(volume.labels, labels)
    assert volume.spacing == pytest.approx(EDGES)
    (found,) = volumes(tmp_path)  # an .hdr and its .img are one
    assert np.array_equal(found.labels, labels)
    assert found.checksum == volume.checksum


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.seg.nrrd", "a.seg.nrrd: segments 2 fat, 3 muscle"),
        ("A.MAT", "labels are 'seg', its first axis is D; spacing [0.004, 0.003, 0.002] m"),
        ("b.mat", "labels are 'labels'"),
        ("a.npz", "labels are 'labels'"),
        ("b.img", "no orientation: the third axis is up"),
    ],
)
def test_what_was_understood_is_said(tmp_path, labels, name, said):
    WRITERS[name](tmp_path / name, labels)
    volume = read_labels(tmp_path / name)
    assert said in "\n".join(volume.notes)
    table = read_table({"fat": {"label": 2, "sigma": 0.05}, "muscle": {"label": 3, "sigma": 0.3}})
    table[0] = type(table[0])("air", (0,), (0.0,))
    assert said in "\n".join(Segmentations([volume], table, 0, {"train": 1.0}).notes)


def test_the_header_of_a_pair_is_part_of_what_it_is(tmp_path, labels):
    write_analyze(tmp_path / "a.img", labels)
    before = read_labels(tmp_path / "a.img").checksum
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    struct.pack_into("<f", header, 80, 5.0)
    (tmp_path / "a.hdr").write_bytes(header)
    assert read_labels(tmp_path / "a.img").checksum != before


def test_files_that_hold_no_one_volume_are_refused_by_name(tmp_path, labels):
    def refused(name, message):
        with pytest.raises(SampleError, match=message) as error:
            read_labels(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)

    np.savez(tmp_path / "two.npz", a=labels, b=labels)
    refused("two.npz", r"'labels': is missing.* a \(12, 8, 9\), b \(12, 8, 9\)")
    scipy.io.savemat(tmp_path / "flat.mat", {"a": labels[0]})
    refused("flat.mat", r"'labels': is missing.* a \(8, 9\)")
    np.savez(tmp_path / "bare.npz", labels=labels)
    refused("bare.npz", r"not in this .npz file: give data.spacing")
    np.savez(tmp_path / "objects.npz", labels=np.array([{}]))
    refused("objects.npz", r"'labels': holds Python objects \(a pickle\)")
    layers = np.stack([stored(labels)] * 2)
    header = {"kinds": ["list", *["domain"] * 3], "space": "LPS"}
    header["space directions"] = np.vstack([np.full(3, np.nan), np.diag(STORED_MM)])
    nrrd.write(str(tmp_path / "layers.seg.nrrd"), layers, header)
    refused("layers.seg.nrrd", "2 layers of segments that overlap")
    write_nrrd(tmp_path / "inch.nrrd", labels, **{"space units": ["inch"] * 3})
    refused("inch.nrrd", "unit 'inch'")
    skewed = np.diag(STORED_MM)
    skewed[0, 1] = 1.0
    write_nrrd(tmp_path / "sheared.nrrd", labels, **{"space directions": skewed})
    refused("sheared.nrrd", "sheared")
    nrrd.write(str(tmp_path / "nowhere.nrrd"), stored(labels), {"spacings": STORED_MM})
    refused("nowhere.nrrd", "data.long_axis=0, 1 or 2")
    assert np.array_equal(read_labels(tmp_path / "nowhere.nrrd", long_axis=2).labels, labels)
    for name in ("a.nrrd", "b.mat", "a.mgz", "A.MAT"):
        WRITERS[name](tmp_path / name, labels)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        refused(name, "cannot be read|is truncated")
    nibabel.save(nibabel.Nifti1Pair(stored(labels), np.eye(4)), tmp_path / "lone.img")
    (tmp_path / "lone.hdr").unlink()
    refused("lone.img", "cannot be read")


@pytest.mark.parametrize("name", ["cubes.npz", "cubes.mat"])
def test_one_number_is_the_spacing_of_cubes_and_words_are_none(tmp_path, labels, name):
    path, write = tmp_path / name, {".npz": np.savez, ".mat": _savemat}[name[-4:]]
    write(path, labels=labels, spacing=np.array(0.004))
    assert read_labels(path).spacing.tolist() == [0.004] * 3
    write(path, labels=labels, spacing=np.array("4 mm"))
    with pytest.raises(SampleError, match=rf"{name}: key 'spacing': (must be numbers|is not in)"):
        read_labels(path)


def _savemat(path, **arrays):
    scipy.io.savemat(path, arrays)


def test_a_missing_pynrrd_says_what_to_install(tmp_path, labels, monkeypatch):
    write_nrrd(tmp_path / "a.nrrd", labels)
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(SampleError, match="a.nrrd: needs pynrrd.* pip install pynrrd"):
        read_labels(tmp_path / "a.nrrd")


# --- labels that are nearly whole, air that is NaN, tissue that is air


def test_labels_stored_with_a_scale_are_rounded_and_said(tmp_path, labels):
    """nibabel's own scale for get_fdata() saved as integers, and noise as of class maps."""
    affine = np.diag([*STORED_MM, 1])
    image = nibabel.Nifti1Image(stored(labels, float), affine, dtype=np.uint16)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    assert (nibabel.load(tmp_path / "scaled.nii.gz").get_fdata() % 1 != 0).any()
    noise = np.random.default_rng(0).uniform(-0.049, 0.049, labels.shape)
    write_nifti(tmp_path / "noisy.nii", labels + noise, np.float32)
    for name in ("scaled.nii.gz", "noisy.nii"):
        volume = read_labels(tmp_path / name)
        assert np.array_equal(volume.labels, labels)
        assert f"{name}: labels rounded to whole numbers" in volume.notes[0]
    write_nifti(tmp_path / "image.nii", labels + 0.06, np.float32)
    with pytest.raises(SampleError, match=r"whole numbers, within 0.05.*found [0-3]\.06"):
        read_labels(tmp_path / "image.nii")
    write_nifti(tmp_path / "whole.nii", labels, np.float32)
    assert read_labels(tmp_path / "whole.nii").notes == ()


def test_nan_is_air_on_request(tmp_path, labels):
    outside = np.where(labels > 0, labels, np.nan)
    write_nifti(tmp_path / "a.nii", outside, np.float32)
    share = f"{(labels == 0).mean():.0%}"
    with pytest.raises(SampleError, match=f"NaN in {share}.* data.nan_is_air=true"):
        read_labels(tmp_path / "a.nii")
    volume = read_labels(tmp_path / "a.nii", nan=7)
    assert np.array_equal(volume.labels, np.where(labels > 0, labels, 7))
    assert f"NaN in {share} of the voxels taken as air, label 7" in volume.notes[0]


TABLE = {
    "air": {"label": 0, "sigma": 0},
    "rind": {"label": 1, "sigma": 1e-7},
    "fat": {"label": 2, "sigma": [0.05, 0.04, 0.04]},
    "muscle": {"label": 3, "sigma": 0.3},
}


def test_tissue_that_hardly_conducts_is_told_and_is_air_on_request(labels):
    framed = np.where(labels > 0, labels, 1)
    volume = LabelVolume(framed, EDGES, "a.npy", "a")
    said = "\n".join(Segmentations([volume], read_table(TABLE), 0, {"train": 1.0}).notes)
    assert f"a.npy: sigma goes down to 1e-07 S/m in {(labels == 0).mean():.0%} of the box" in said
    assert "data.air_below=1e-06" in said
    table = with_air_below(read_table(TABLE), 1e-6)
    assert [t.name for t in table] == ["air", "fat", "muscle"]
    assert table[0].labels == (0, 1)
    bodies = Segmentations([volume], table, 0, {"train": 1.0}, cut=Cut())
    assert not bodies.notes
    assert np.array_equal(bodies.bodies[0].index > 0, labels > 0)
    with pytest.raises(ValueError, match="data.air_below=2 S/m leaves no tissue"):
        with_air_below(read_table(TABLE), 2.0)
    with pytest.raises(ValueError, match="data.air_below must be > 0"):
        with_air_below(read_table(TABLE), -1.0)
