"""What is written is opened where users work, and is the same there."""

import re

import h5py
import nibabel
import numpy as np
import pytest

import physics_hybrid as ph

#: A file whose third axis is up, its first from right to left; D, H, W are its 2, 0, 1.
AFFINE = np.array([[-5.0, 0, 0, 40], [0, 3.0, 0, -20], [0, 0, 4.0, -10], [0, 0, 0, 1]])
WORLD = [23.0, -4.0, 6.0]


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    labels = np.zeros((9, 10, 8), dtype=np.uint8)
    labels[1:-1, 1:-1] = 2
    labels[2:-2, 2:-3] = 3
    path = tmp_path_factory.mktemp("labels") / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), path)
    body = ph.read_labels(path)
    return ph.solve(body, WORLD, frame="world", tolerance=1e-9)


def vti(path):
    """Origin, spacing, directions, and the cell data (x, y, z[, components]) of a .vti: read by the
    words of the format, not by what wrote it.
    """
    content = path.read_bytes()
    head, raw = content.split(b'<AppendedData encoding="raw">', 1)
    raw = raw[raw.index(b"_") + 1 :]
    text = head.decode()
    numbers = {
        name: np.array(re.search(rf'{name}="([^"]*)"', text)[1].split(), dtype=float)
        for name in ("Origin", "Spacing", "Direction", "WholeExtent")
    }
    size = (numbers["WholeExtent"][1::2] - numbers["WholeExtent"][::2]).astype(int)
    arrays = {}
    for tag in re.findall(r"<DataArray [^>]*>", text):
        said = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        start = int(said["offset"])
        length = int.from_bytes(raw[start : start + 8], "little")
        kind = {"Float32": "<f4", "Int32": "<i4"}[said["type"]]
        values = np.frombuffer(raw[start + 8 : start + 8 + length], kind)
        parts = int(said.get("NumberOfComponents", 1))
        turned = values.reshape(*size[::-1], parts).transpose(2, 1, 0, 3)
        arrays[said["Name"]] = turned[..., 0] if parts == 1 else turned
    return numbers, arrays


def test_positions_in_the_world_are_those_of_the_affine(field):
    index = np.linalg.inv(AFFINE) @ [*WORLD, 1.0]
    metres = (index[[2, 0, 1]] + 0.5) * [0.004, 0.005, 0.003]
    there = ph.solve(field.body, metres, tolerance=1e-9)
    assert np.allclose(there.phi, field.phi, atol=1e-10)
    assert field.at([20.0, -2.0, 8.0]) == pytest.approx(there.at([20.0, -2.0, 8.0], "world"))
    back = field.body.nearest([[100.0, -4.0, 6.0]], "world")
    assert back[0, 0] < 40 + 2.5
    field.at(back)


def test_nifti_has_the_affine_and_the_axes_of_the_input(field, tmp_path):
    image = nibabel.load(field.save(tmp_path / "phi.nii.gz"))
    assert np.allclose(image.affine, AFFINE)
    assert image.header.get_xyzt_units()[0] == "mm"
    data = image.get_fdata()
    assert np.allclose(data, field.phi.transpose(1, 2, 0), rtol=1e-6)
    # the voxel of the electrode holds the largest value
    voxel = np.unravel_index(data.argmax(), data.shape)
    assert np.abs(AFFINE @ [*voxel, 1] - [*WORLD, 1]).max() < 3
    many = ph.solve(field.body, [WORLD, WORLD], [1e-3, 2e-3], frame="world")
    several = nibabel.load(many.save(tmp_path / "many.nii")).get_fdata()
    assert several.shape == (9, 10, 8, 2)
    assert np.allclose(several[..., 1], 2 * several[..., 0], rtol=1e-5)


def test_vti_lies_in_the_world_with_vectors_along_its_axes(field, tmp_path):
    said, arrays = vti(field.save(tmp_path / "phi.vti"))
    directions = said["Direction"].reshape(3, 3)
    assert np.allclose(directions * said["Spacing"], AFFINE[:3, :3])
    assert np.allclose(said["Origin"], (AFFINE @ [-0.5, -0.5, -0.5, 1])[:3])
    assert np.allclose(arrays["phi [V]"], field.phi.transpose(1, 2, 0), rtol=1e-6)
    assert np.array_equal(arrays["label"], field.body.labels.transpose(1, 2, 0))
    # x of the world runs against the first axis of the file, which is H
    E = arrays["E [V per m]"]
    for axis, (along, sign) in enumerate([(1, -1), (2, 1), (0, 1)]):
        expected = sign * field.E[..., along].transpose(1, 2, 0)
        assert np.allclose(E[..., axis], expected, rtol=1e-5, atol=1e-6)
    grid = ph.Body(np.full((4, 5, 6), 0.3), (0.004, 0.005, 0.003))
    plain = ph.solve(grid, (0.008, 0.01, 0.009), ends="sink")
    said, arrays = vti(plain.save(tmp_path / "plain.vti"))
    assert np.array_equal(said["Spacing"], [0.004, 0.005, 0.003])
    assert not said["Origin"].any()
    assert np.allclose(arrays["phi [V]"], plain.phi.astype(np.float32))
    # without a world, and with turned axes: x, y, z are D, H, W in m
    np.save(tmp_path / "turned.npy", np.full((5, 6, 4), 3, dtype=np.uint8))
    body = ph.read_labels(tmp_path / "turned.npy", spacing=(0.005, 0.003, 0.004), long_axis=2)
    assert body.spacing.tolist() == [0.004, 0.005, 0.003]
    turned = ph.solve(body, (0.008, 0.01, 0.009), ends="sink")
    said, arrays = vti(turned.save(tmp_path / "turned.vti"))
    steps = said["Direction"].reshape(3, 3) * said["Spacing"]
    assert np.allclose(steps, [[0, 0, 0.004], [0.005, 0, 0], [0, 0.003, 0]])
    assert np.allclose(arrays["phi [V]"], turned.phi.transpose(1, 2, 0), rtol=1e-6)


def test_vti_is_what_vtk_reads(field, tmp_path):
    vtk = pytest.importorskip("vtkmodules.vtkIOXML")
    from vtkmodules.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkXMLImageDataReader()
    reader.SetFileName(str(field.save(tmp_path / "phi.vti")))
    reader.Update()
    image = reader.GetOutput()
    assert image.GetCellData().GetNumberOfArrays() == 5
    phi = vtk_to_numpy(image.GetCellData().GetArray("phi [V]"))
    assert np.allclose(phi.reshape(8, 10, 9), field.phi.transpose(0, 2, 1), rtol=1e-6)
    # the cell that holds the electrode is the one of the largest potential
    index = [0.0, 0.0, 0.0]
    image.TransformPhysicalPointToContinuousIndex(WORLD, index)
    d, h, w = (int(i) for i in np.floor(index))
    assert phi.reshape(8, 10, 9)[w, h, d] == phi.max()


def test_arrays_are_stored_with_what_they_belong_to(field, tmp_path):
    assert np.array_equal(np.load(field.save(tmp_path / "phi.npy")), field.phi)
    with np.load(field.save(tmp_path / "phi.npz")) as stored:
        assert np.array_equal(stored["phi"], field.phi)
        again = ph.Body(stored["sigma"], stored["spacing"], stored["affine"])
        back = ph.solve(again, stored["points"][0], stored["current"][0], tolerance=1e-9)
        assert np.allclose(back.phi, field.phi, atol=1e-12)
    with h5py.File(field.save(tmp_path / "phi.h5")) as file:
        assert np.array_equal(file["phi"], field.phi)
        assert file["phi"].attrs["unit"] == b"V"
        assert file["phi"].fletcher32
        assert file.attrs["ends"] == b"grounded"
    with pytest.raises(ValueError, match=r"fields are written as \.nii\.gz"):
        field.save(tmp_path / "phi.txt")


def test_a_figure_is_drawn_of_points_patches_and_pairs(closed, tmp_path):
    from matplotlib.image import imread

    a, b = closed.nearest([[0.02, 0.0, 0.02], [0.03, 0.07, 0.03]])
    pair = ph.solve(closed, a, returns=b)
    patch = ph.solve(closed, ph.Patch(a, 0.008))
    assert imread(pair.plot(tmp_path / "pair.png"))[..., :3].std() > 0.05
    assert len(patch.plot().axes) == 4
    with pytest.raises(ValueError, match="source must lie in 0"):
        pair.plot(source=1)


def test_mne_reads_the_lead_field(field, tmp_path):
    mne = pytest.importorskip("mne")
    electrodes = field.body.nearest([[100.0, 0, 0], [-100.0, 0, 5], [20, 100.0, 9]], "world")
    lead = ph.lead_field(field.body, electrodes, "average", frame="world")
    points = [[22.0, -4.0, 5.0], [18.0, -2.0, 9.0]]
    forward = lead.to_mne(points, ["a", "b", "c"])
    mne.write_forward_solution(tmp_path / "lead-fwd.fif", forward, verbose="error")
    back = mne.read_forward_solution(tmp_path / "lead-fwd.fif", verbose="error")
    assert back["sol"]["data"].shape == (3, 6)
    assert np.allclose(back["source_rr"], np.array(points) * 1e-3, atol=1e-7)
    for axis in range(3):
        volts = lead.dipoles(points, np.eye(3)[axis])
        assert np.allclose(back["sol"]["data"][:, axis::3].T, volts, rtol=1e-4)
    picked = mne.pick_channels_forward(back, ["a", "c"], verbose="error")
    assert picked["sol"]["row_names"] == ["a", "c"]
    with pytest.raises(ValueError, match="3 different ones"):
        lead.to_mne(points, ["a", "a", "b"])
