"""What h5py, zipfile, gzip and torch say of a damaged file becomes one clear error, and what we
write shows every flipped bit.
"""

import gc
import os
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from physics_hybrid.reading import FILTERS, FileError, open_h5, read_npz, text_of
from physics_hybrid.writing import STORED, create_h5, write_text, written
from tests import damage
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder for the whole files: what one is made of, the next need not make again."""
    return tmp_path_factory.mktemp("whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", damage.kinds())
def test_a_damaged_file_is_refused_clearly_or_has_the_right_values(whole, kind):
    make, read, clear = damage.kinds()[kind]
    outcomes = damage.damaged(make(whole), read, clear, 300, seed=1)
    assert not damage.wrong(kind, outcomes), outcomes
    assert outcomes.total() == 300


def test_the_damage_is_found_by_what_it_is_held_to():
    """The fuzz test can fail: another value, another error, an error without the file."""

    def outcome(path, read):
        return damage.ends(path, read, {"u": np.ones(3)}, FileError)

    from pathlib import Path

    path = Path("a.h5")

    def raises(error):
        def read(_):
            raise error

        return read

    assert outcome(path, lambda _: {"u": np.ones(3)}) == "right"
    assert outcome(path, lambda _: {"u": np.array([1, 1, 2.0])}) == "changed"
    assert outcome(path, lambda _: {}) == "changed"
    assert outcome(path, raises(KeyError("u"))).startswith("trace: KeyError")
    assert outcome(path, raises(FileError("b.h5", "u", "is wrong"))).startswith("unclear")
    assert outcome(path, raises(FileError("a.h5", "u", "is wrong"))) == "refused"
    assert damage.wrong(".h5", {"changed": 1, "refused": 2}) == ["changed"]


def store(path, **arrays):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return path


def refusal(path, read=lambda file: file.dataset("u")[:]):
    with pytest.raises(FileError) as caught, open_h5(path) as file:
        read(file)
    said = str(caught.value)
    assert path.name in said
    assert "\n" not in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said
    return said


def test_a_missing_filter_is_named_and_is_no_damage(tmp_path, monkeypatch):
    """Numbers that nobody registered: hdf5plugin may be here, and brings the known ones."""
    monkeypatch.setitem(FILTERS, 40001, "bitshuffle")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for code in (40001, 40002):
            data = file.create_dataset(
                str(code), (2, 4), "f8", chunks=(1, 4), compression=code, allow_unknown_filter=True
            )
            data.id.write_direct_chunk((0, 0), bytes(32))
    said = refusal(tmp_path / "a.h5", lambda file: file.dataset("40001")[0])
    assert "key '40001': is compressed with bitshuffle (HDF5 filter 40001)" in said
    assert "pip install hdf5plugin" in said
    assert "not damaged" in said
    assert "HDF5 filter 40002" in refusal(tmp_path / "a.h5", lambda file: file.dataset("40002"))


def test_a_link_that_leads_nowhere_is_told_from_a_key_that_is_not_there(tmp_path):
    path = store(tmp_path / "a.h5", sigma=np.ones(3))
    with h5py.File(path, "a") as file:
        file["u"] = h5py.ExternalLink("moved.h5", "/phi")
        file["mask"] = h5py.SoftLink("/old/mask")
    assert "key 'u': is a link to /phi in the file moved.h5" in refusal(path)
    assert "link to /old/mask" in refusal(path, lambda file: file.dataset("mask"))
    assert "'v': is missing; the file has mask, sigma, u" in refusal(
        path, lambda file: file.dataset("v")
    )
    store(tmp_path / "moved.h5", phi=np.arange(3.0))
    with open_h5(path) as file:
        assert file.dataset("u")[:].tolist() == [0, 1, 2]


def test_a_virtual_dataset_without_its_files_is_refused_and_not_zero(tmp_path):
    store(tmp_path / "part.h5", u=np.arange(4.0))
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "part.h5", "u", (4,))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("u", layout)
    with open_h5(tmp_path / "all.h5") as file:
        assert file.dataset("u")[:].tolist() == [0, 1, 2, 3]
    (tmp_path / "part.h5").unlink()
    assert "part.h5, which is not there" in refusal(tmp_path / "all.h5")


def test_cut_foreign_absent_and_forbidden_files_are_told_apart(tmp_path, monkeypatch):
    path = store(tmp_path / "a.h5", u=np.ones(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert f"truncated: {len(whole) - 7} of {len(whole)} bytes" in refusal(path)
    path.write_bytes(b"phi,x,y")
    assert "another format" in refusal(path)
    path.unlink()
    assert "does not exist" in refusal(path)
    path.mkdir()
    assert "is a folder" in refusal(path)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", forbidden)
    said = refusal(path)
    assert "may not be read (permission denied)" in said
    assert "truncated" not in said


def test_a_file_that_another_program_writes_is_read_without_a_lock(tmp_path):
    """In another process: a lock of this one would be our own."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = np.arange(3.0)
        file.flush()
        code = (
            "import sys\nfrom pathlib import Path\nfrom physics_hybrid.reading import open_h5\n"
            "with open_h5(Path(sys.argv[1])) as file: print(file.dataset('u')[2])\n"
        )

        def read(**environment):
            command = [sys.executable, "-c", code, str(tmp_path / "a.h5")]
            return subprocess.run(
                command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
            )

        assert read().stdout == "2.0\n"
        said = read(HDF5_USE_FILE_LOCKING="TRUE").stderr
    assert "cannot be locked" in said.splitlines()[-1]
    assert "set HDF5_USE_FILE_LOCKING=FALSE" in said.splitlines()[-1]


def test_a_shape_that_is_not_stored_is_refused_before_it_fills_the_memory(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("u", (10**9, 1000), "f8", chunks=(1, 1000))
    said = refusal(tmp_path / "a.h5")
    assert "claims 8e+03 GB, and 0 bytes are stored" in said


def test_texts_of_other_encodings_are_read():
    name = "Müller"
    for stored in (name, name.encode(), name.encode("latin-1"), np.bytes_(name.encode("latin-1"))):
        assert text_of(stored) == name
    assert text_of(name.encode("latin-1").decode("utf-8", "surrogateescape")) == name
    assert str(FileError("a\udcfc.h5", None, "is\nwrong")) == "a\\udcfc.h5: is wrong"


def test_an_npz_whose_header_hides_rows_or_arrays_is_refused(tmp_path):
    """`numpy.load` reads what the header says, and never comes to the checksum."""
    path = tmp_path / "a.npz"
    np.savez(path, u=np.arange(12e3).reshape(6, 2000), spacing=np.ones(3))
    good = path.read_bytes()
    path.write_bytes(good.replace(b"(6, 2000)", b"(1, 2000)"))
    assert np.load(path)["u"].shape == (1, 2000)
    with pytest.raises(FileError, match=r"a.npz: key 'u': is damaged: a checksum"):
        read_npz(path, ("u",))
    at = good.rindex(b"spacing.npy")
    path.write_bytes(good[:at] + b"spacinh" + good[at + 7 :])
    assert set(np.load(path).files) == {"u", "spacinh"}
    with pytest.raises(FileError, match="a.npz.*differ"):
        read_npz(path, ("u", "spacing"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 500, 2000, 20_000])
def test_a_full_disk_leaves_no_half_of_an_h5_and_hdf5_closes(tmp_path, monkeypatch, size, capfd):
    damage.fill_disk(monkeypatch, size)

    def write():
        with create_h5(tmp_path / "a.h5") as file:
            for key in "abc":
                values = np.random.default_rng(0).random((4, 1000))
                data = file.create_dataset(key, values.shape, "f8", chunks=(1, 1000), **STORED)
                data[...] = values

    with pytest.raises(OSError, match="writing .*a.h5 failed .No space left on device"):
        write()
    assert not os.listdir(tmp_path)
    gc.collect()  # HDF5 has let go of all that it could not write
    assert capfd.readouterr().err == ""


def test_a_full_disk_leaves_the_report_that_was_there(tmp_path):
    write_text(tmp_path / "report.md", "old")

    def write():
        with written(tmp_path / "report.md") as temporary:
            assert temporary.suffix == ".md"  # what decides the format of a picture
            temporary.write_text("half of a n")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="writing .*report.md failed .No space left on device"):
        write()
    assert (tmp_path / "report.md").read_text() == "old"
    assert os.listdir(tmp_path) == ["report.md"]


def test_a_full_disk_costs_no_picture_that_was_there_and_leaves_no_half(tmp_path, monkeypatch):
    from physics_hybrid.report.plots import pyplot, save

    figure = pyplot().figure()
    figure.add_subplot().plot([1, 2])
    path = save(figure, tmp_path / "a.png")
    good = path.read_bytes()
    assert good.startswith(b"\x89PNG")

    def half(self, file, **_):
        file.write_bytes(good[: len(good) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(figure), "savefig", half)
    with pytest.raises(OSError, match="writing .*a.png failed .No space left on device"):
        save(figure, path)
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["a.png"]


def test_an_evaluation_on_a_full_disk_names_the_file(tmp_path, monkeypatch):
    from physics_hybrid.run.evaluate import Evaluation, write

    one = dict.fromkeys(("mean", "median", "p95", "max"), 1.0)
    metrics = dict.fromkeys(("relative_l2", "seconds", "peak_memory_MB"), one)
    rows = [{"grid": "8x8x8", "relative_l2": 1.0}]
    columns, contenders = [("relative_l2", "relative L2")], {"": "network"}
    result = Evaluation({}, columns, contenders, "grid", {"8x8x8": metrics}, rows)
    write(result, tmp_path / "whole")
    assert sorted(os.listdir(tmp_path / "whole")) == ["metrics.json", "report.md", "samples.csv"]
    replace = os.replace

    def full(source, target):
        if target.name == "samples.csv":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="writing .*samples.csv failed .No space left on device"):
        write(result, tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["metrics.json"]
