"""Trajectories: generated ones and their cache, PDEBench's files and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from physics_hybrid.problems.burgers.data.generate import Generated, generated
from physics_hybrid.problems.burgers.data.pdebench import Layout, TrajectoryError, read
from physics_hybrid.reading import FileError
from tests.problems.burgers.files import write_pdebench

LAYOUT = Layout(cells=32, stride=5)


def test_a_set_is_made_once_and_named_by_all_that_decides_it(tmp_path):
    settings = Generated("test", 3, seed=0, nu=0.01, dt=0.1, frames=4, cells=32)
    made = generated(settings, tmp_path)
    path = settings.path(tmp_path)
    written = path.stat().st_mtime_ns
    again = generated(settings, tmp_path)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(made.u, again.u)
    assert made.u.shape == (3, 4, 32)
    assert made.contents() == again.contents()
    others = [Generated("test", 3, 1, 0.01, 0.1, 4, 32), Generated("train", 3, 0, 0.01, 0.1, 4, 32)]
    assert len({path, *(other.path(tmp_path) for other in others)}) == 3
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match=path.name):
        generated(settings, tmp_path)


def test_pdebench_is_read_reduced_and_split_as_there(tmp_path):
    path = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.001.hdf5")
    splits = read(path, LAYOUT, train=10, validation=4, test=128)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [10, 4, 2]
    test = splits["test"]
    assert test.names[0] == f"{path}[0]"
    assert test.u.shape == (2, 5, 32)
    assert test.dt == pytest.approx(0.05)
    assert test.nu.tolist() == pytest.approx([0.001] * 2)
    import h5py

    with h5py.File(path) as file:
        whole = file["tensor"][1, ::5]
    np.testing.assert_allclose(test.u[1], whole.reshape(5, 32, 2).mean(-1), rtol=1e-6)
    sampled = read(path, Layout(cells=32, stride=5, reduce="sample"), 1, 1, 1)["test"]
    np.testing.assert_array_equal(sampled.u[0], h5_first(path)[:, ::2])


def h5_first(path):
    import h5py

    with h5py.File(path) as file:
        return file["tensor"][0, ::5]


def test_the_viscosity_comes_from_the_attribute_the_name_or_the_user(tmp_path):
    named = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5")
    stored = write_pdebench(tmp_path / "mine.hdf5", nu=0.002)
    silent = write_pdebench(tmp_path / "silent.hdf5")
    assert read(named, LAYOUT, 1, 1, 1)["test"].nu.item() == pytest.approx(0.01)
    assert read(stored, LAYOUT, 1, 1, 1)["test"].nu.item() == pytest.approx(0.002)
    told = Layout(cells=32, stride=5, nu=0.004)
    assert read(silent, told, 1, 1, 1)["test"].nu.item() == pytest.approx(0.004)
    with pytest.raises(TrajectoryError, match=r"silent.hdf5: .* set data.nu"):
        read(silent, LAYOUT, 1, 1, 1)
    with pytest.raises(TrajectoryError, match=r"key 'Nu': is 0.002, and data.nu=0.004"):
        read(stored, told, 1, 1, 1)
    endless = write_pdebench(tmp_path / "endless.hdf5", nu=np.inf)
    with pytest.raises(TrajectoryError, match=r"key 'Nu': must be > 0 and finite; got inf"):
        read(endless, LAYOUT, 1, 1, 1)


def spoiled(arrays):
    u = arrays["tensor"].copy()
    u[1, 10, 3] = np.nan
    return {"tensor": u}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoiled, r"Nu0.001.hdf5\[1\]: key 'tensor': must be finite; frame 10, point 3 is nan"),
        (lambda a: {"tensor": a["tensor"][0]}, r"key 'tensor': must be \(samples, times, points\)"),
        (lambda a: {"tensor": a["tensor"][:, :10]}, "key 't-coordinate': has 22 times, and tensor"),
        (lambda a: {"t-coordinate": a["t-coordinate"][::-1].copy()}, "must increase; 0.21 is foll"),
        (
            lambda a: {"x-coordinate": a["x-coordinate"] ** 2},
            r"'x-coordinate': must be the centres",
        ),
        (lambda a: {"x-coordinate": a["x-coordinate"][:-1]}, "has 63 points, and tensor has 64"),
        (lambda a: {"tensor": a["tensor"][:5]}, "has 5 samples: the first tenth is tested"),
        (lambda a: {"tensor": a["tensor"].astype(int)}, "must hold numbers with a point"),
    ],
)
def test_a_broken_file_is_named_by_file_dataset_and_sample(tmp_path, change, message):
    path = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.001.hdf5", change=change)
    with pytest.raises(TrajectoryError, match=message):
        read(path, LAYOUT, train=10, validation=4, test=128)


def test_a_foreign_or_cut_file_is_one_line(tmp_path):
    path = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.001.hdf5")
    foreign = tmp_path / "foreign.hdf5"
    foreign.write_bytes(b"PK\x03\x04 no HDF5")
    with pytest.raises(TrajectoryError, match=r"foreign.hdf5: cannot be opened as HDF5"):
        read(foreign, LAYOUT, 1, 1, 1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrajectoryError, match=r"is truncated: 5000 of"):
        read(path, LAYOUT, 1, 1, 1)
    whole = write_pdebench(tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5")
    with pytest.raises(TrajectoryError, match=r"has 5 frames at data.stride=5, and 9 are needed"):
        read(whole, Layout(cells=32, stride=5, frames=9), 1, 1, 1)
    with pytest.raises(TrajectoryError, match=r"has 64 points, which do not make data.cells=48"):
        read(whole, Layout(cells=48, stride=5), 1, 1, 1)
