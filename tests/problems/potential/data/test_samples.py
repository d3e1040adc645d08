"""Files in: good ones in every format, and every way of being broken gives an error that names
file, key and rule.
"""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.data.checks import check
from physics_hybrid.problems.potential.data.collate import collate
from physics_hybrid.problems.potential.data.files import Address, find
from physics_hybrid.problems.potential.data.generated import _datasets, generate
from physics_hybrid.problems.potential.data.sample import Conventions, SampleError
from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.data.splits import split_by_phantom
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.physics.ends import Ends
from tests.conftest import LIMBS, limb_distribution


def write_npz(folder, arrays, name="s.npz"):
    np.savez(folder / name, **arrays)
    return folder / name


def write_h5(folder, arrays, n=3, name="s.h5"):
    with h5py.File(folder / name, "w") as file:
        for key, value in arrays.items():
            file[key] = np.stack([value] * n)
    return folder / name


def write_npy(folder, arrays):
    (folder / "one").mkdir()
    for key, value in arrays.items():
        np.save(folder / "one" / f"{key}.npy", value)
    return folder


def test_all_formats_give_the_same_sample(tmp_path, sample_arrays):
    for sub in ("a", "b", "c"):
        (tmp_path / sub).mkdir()
    samples = [
        find(write_npz(tmp_path / "a", sample_arrays))[0].read(),
        find(write_h5(tmp_path / "b", sample_arrays))[1].read(),
        find(write_npy(tmp_path / "c", sample_arrays))[0].read(),
    ]
    for s in samples:
        assert s.shape == (8, 6, 6)
        assert s.current == pytest.approx(1e-3)
        assert s.phantom == samples[0].phantom
        assert np.array_equal(s.u, samples[0].u)
        assert np.array_equal(s.sigma, samples[0].sigma)
        assert (s.u[~s.mask] == 0).all()


@pytest.mark.parametrize("suffix", [".NPZ", ".H5", ".Hdf5"])
def test_the_case_of_a_suffix_does_not_matter(tmp_path, sample_arrays, suffix):
    write = write_npz if suffix == ".NPZ" else write_h5
    file = write(tmp_path, sample_arrays)
    file.rename(file.with_suffix(suffix))
    assert find(tmp_path)[0].read().current == pytest.approx(1e-3)
    assert find(file.with_suffix(suffix))[0].read().shape == (8, 6, 6)


def test_what_may_be_missing_is_derived(sample_arrays):
    for key in ("mask", "source_point"):
        del sample_arrays[key]
    s = check(sample_arrays, "x")
    assert s.source_point == pytest.approx([4.5 * 0.004, 3.5 * 0.004, 3.5 * 0.004])
    assert s.mask.sum() == 8 * 6 * 5


def test_conventions_of_other_programs(sample_arrays):
    sample_arrays["source"] = sample_arrays["source"] * 0.004**3
    sample_arrays["source_point"] = np.array([4, 3, 3])
    s = check(sample_arrays, "x", Conventions("current", "index"))
    assert s.current == pytest.approx(1e-3)
    assert s.source_point == pytest.approx([0.018, 0.014, 0.014])


def test_nan_in_air_is_nobodys_business(sample_arrays):
    sample_arrays["u"][:, :, 0] = np.nan
    assert np.isfinite(check(sample_arrays, "x").u).all()


def change(key, value):
    def apply(arrays):
        arrays[key] = value(arrays[key]) if callable(value) else value

    return apply


def voxel(key, index, value):
    def apply(arrays):
        arrays[key] = arrays[key].copy()
        arrays[key][index] = value

    return apply


def drop(key):
    return lambda arrays: arrays.pop(key)


def tensor(arrays):
    s = arrays["sigma"]
    arrays["sigma"] = np.stack([s, s, s, 2 * s, 0 * s, 0 * s], axis=-1)


BROKEN = {
    "no sigma": (drop("sigma"), "sigma", "is missing"),
    "no source": (drop("source"), "source", "is missing"),
    "no u": (drop("u"), "u", "is missing"),
    "negative sigma": (voxel("sigma", (1, 2, 3), -0.1), "sigma", r"voxel \(1, 2, 3\)"),
    "nan sigma": (voxel("sigma", (1, 2, 3), np.nan), "sigma", "must be finite"),
    "infinite sigma": (voxel("sigma", (1, 2, 3), np.inf), "sigma", "must be finite"),
    "two components": (
        change("sigma", lambda s: np.stack([s, s], axis=-1)),
        "sigma",
        "must have shape",
    ),
    "sigma of another grid": (change("sigma", lambda s: s[:-1]), "sigma", "must have shape"),
    "indefinite tensor": (tensor, "sigma", "positive semi-definite"),
    "tensor with a zero on its diagonal": (
        change("sigma", lambda s: np.stack([s, 0 * s, s], axis=-1)),
        "sigma",
        "whole diagonal",
    ),
    "all air": (change("sigma", lambda s: 0 * s), "sigma", "no tissue"),
    "complex sigma": (change("sigma", lambda s: s + 1j), "sigma", "real numbers"),
    "flat source": (change("source", lambda s: s[0]), "source", "must have shape"),
    "source in air": (voxel("source", (4, 3, 0), 1.0), "source", "lies in air"),
    "two sources": (voxel("source", (1, 1, 1), 1.0), "source", "found 2"),
    "no source current": (change("source", lambda s: 0 * s), "source", "0 everywhere"),
    "nan source": (voxel("source", (4, 3, 3), np.nan), "source", "must be finite"),
    "dipole": (voxel("source", (4, 3, 4), -1.0), "source", "both signs"),
    "zero spacing": (change("spacing", np.array([0.004, 0.0, 0.004])), "spacing", "positive"),
    "negative spacing": (change("spacing", np.array([0.004, -1, 0.004])), "spacing", "positive"),
    "two spacings": (change("spacing", np.array([0.004, 0.004])), "spacing", r"shape \(3,\)"),
    "nan in the truth": (voxel("u", (2, 2, 2), np.nan), "u", "finite in tissue"),
    "truth of another grid": (change("u", lambda u: u[:, :, 1:]), "u", "must have shape"),
    "empty truth": (change("u", lambda u: 0 * u), "u", "not a solution"),
    "mask that disagrees": (change("mask", lambda m: ~m), "mask", "exactly where sigma > 0"),
    "mask of another grid": (change("mask", lambda m: m[1:]), "mask", "must have shape"),
    "source point elsewhere": (
        change("source_point", np.array([0.03, 0.002, 0.002])),
        "source_point",
        "voxels from the centre",
    ),
    "source point in indices": (
        change("source_point", np.array([4.0, 3.0, 3.0])),
        "source_point",
        "data.source_point=index",
    ),
    "source point in air": (
        lambda a: (
            drop("mask")(a),
            voxel("sigma", (3, 3, 3), 0.0)(a),
            change("source_point", np.array([3.9, 3.5, 3.5]) * 0.004)(a),
        ),
        "source_point",
        "lies in air",
    ),
    "ring electrode round air": (
        lambda a: (
            drop("mask")(a),
            drop("source_point")(a),
            voxel("sigma", (4, 3, 3), 0.0)(a),
            voxel("source", (4, 3, 3), 0.0)(a),
            *(voxel("source", i, 1.0)(a) for i in ((4, 2, 3), (4, 4, 3), (4, 3, 2), (4, 3, 4))),
        ),
        "source",
        "lies in air",
    ),
    "labels of another program": (
        change("labels", np.full((8, 6, 6), 12)),
        "labels",
        "0 air, 1 skin",
    ),
    "labels between two": (change("labels", np.full((8, 6, 6), 1.5)), "labels", "whole numbers"),
    "labels that are no numbers": (
        change("labels", np.full((8, 6, 6), np.nan)),
        "labels",
        "whole numbers",
    ),
    "a current that is not the source's": (change("current", np.array(2e-3)), "current", "injects"),
    "a current in milliamperes": (change("current", np.array(1.0)), "current", "other units"),
    "labels of another grid": (change("labels", np.zeros((2, 2, 2))), "labels", "must have shape"),
}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("ends", ["sink", "pair"], "ends"),
        ("beta", [1.0, 2.0], "ends"),
        ("beta", "five", "ends"),
        ("singularity", ["nodal", "nodal"], "singularity"),
    ],
    ids=range(4),
)
def test_attributes_that_are_not_one_word_or_number_are_named(sample_arrays, key, value, named):
    arrays = {**sample_arrays, "ends": "robin", "beta": 5.0}
    check(arrays, "x", Conventions(ends=Ends("robin", 5.0)))
    with pytest.raises(SampleError, match=f"key '{named}'"):
        check({**arrays, key: np.array(value)}, "x", Conventions(ends=Ends("robin", 5.0)))


@pytest.mark.parametrize("write", [write_npz, write_h5, write_npy], ids=["npz", "h5", "npy"])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_samples_are_named(tmp_path, sample_arrays, case, write):
    damage, key, rule = BROKEN[case]
    damage(sample_arrays)
    path = write(tmp_path, sample_arrays)
    with pytest.raises(SampleError) as caught:
        [address.read() for address in find(path)]
    message = str(caught.value)
    assert str(tmp_path) in message
    assert f"'{key}'" in message
    import re

    # an .h5 file whose key has lost its sample axis is refused as a whole, in its own words
    assert re.search(rule, message) or "leading sample axis" in message


def test_broken_files_are_named(tmp_path, sample_arrays):
    good = write_npz(tmp_path, sample_arrays).read_bytes()
    h5 = write_h5(tmp_path, sample_arrays).read_bytes()
    cases = {
        "cut.npz": good[: len(good) // 2],
        "empty.npz": b"",
        "text.npz": b"sigma = 1",
        "cut.h5": h5[: len(h5) // 2],
        "empty.h5": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SampleError, match=name):
            find(tmp_path / name)[0].read()


def test_an_npz_cut_anywhere_is_refused_or_whole(tmp_path, sample_arrays):
    good = write_npz(tmp_path, sample_arrays).read_bytes()
    for cut in np.random.default_rng(0).integers(0, len(good), 20):
        (tmp_path / "cut.npz").write_bytes(good[:cut])
        with pytest.raises(SampleError, match="cut.npz"):
            find(tmp_path / "cut.npz")[0].read()


def test_pickles_are_never_loaded(tmp_path, sample_arrays):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    np.savez(tmp_path / "trap.npz", **{**sample_arrays, "u": np.array([Trap()], dtype=object)})
    with pytest.raises(SampleError, match="pickle"):
        find(tmp_path / "trap.npz")[0].read()


def test_h5_files_are_checked_as_a_whole(tmp_path, sample_arrays):
    path = write_h5(tmp_path, sample_arrays)
    with h5py.File(path, "a") as file:
        del file["u"]
        file["u"] = np.zeros((2, 8, 6, 6))
    with pytest.raises(SampleError, match="differ in their number of samples"):
        find(path)
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(SampleError, match="schema version 99"):
        find(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere", "does not exist"),
        (lambda p: p, "holds no samples"),
        (lambda p: (p / "a.csv").write_text("1") and p / "a.csv", "not a format"),
    ],
)
def test_places_without_samples(tmp_path, make, message):
    with pytest.raises(SampleError, match=message):
        find(make(tmp_path))


def test_splits_keep_phantoms_together():
    phantoms = [f"p{i % 10}" for i in range(50)]
    parts = split_by_phantom(phantoms, {"train": 0.6, "validation": 0.2, "test": 0.2}, 0)
    sets = [{phantoms[i] for i in rows} for rows in parts.values()]
    assert [len(s) for s in sets] == [6, 2, 2]
    assert not (sets[0] & sets[1])
    assert not (sets[0] & sets[2])
    assert not (sets[1] & sets[2])
    assert sorted(i for rows in parts.values() for i in rows) == list(range(50))
    assert parts == split_by_phantom(phantoms, {"train": 0.6, "validation": 0.2, "test": 0.2}, 0)
    assert parts != split_by_phantom(phantoms, {"train": 0.6, "validation": 0.2, "test": 0.2}, 1)


def test_too_few_phantoms_to_split():
    with pytest.raises(ValueError, match="cannot be split"):
        split_by_phantom(["a", "a", "b"], {"train": 0.8, "validation": 0.1, "test": 0.1}, 0)
    assert split_by_phantom(["a"] * 3, {"train": 0.0, "validation": 0.0, "test": 1.0}, 0)[
        "test"
    ] == [0, 1, 2]


def test_same_sigma_is_the_same_phantom(tmp_path, sample_arrays):
    a = check(sample_arrays, "x")
    moved = dict(
        sample_arrays,
        source=np.roll(sample_arrays["source"], 1, axis=0),
        source_point=np.array([5.5, 3.5, 3.5]) * 0.004,
    )
    assert check(moved, "y").phantom == a.phantom
    sample_arrays["sigma"] = sample_arrays["sigma"] * 1.01
    assert check(sample_arrays, "z").phantom != a.phantom


def test_components_expand_and_refuse():
    scalar = np.full((1, 2, 2, 2), 0.3)
    assert components(scalar, 3, "x").shape[0] == 3
    assert components(scalar, 6, "x")[3:].any() == 0
    diagonal = np.array([1.0, 0.2, 0.2]).reshape(3, 1, 1, 1) * np.ones((3, 2, 2, 2))
    with pytest.raises(ValueError, match="data.sigma_components=3"):
        components(diagonal, 1, "x")
    oblique = np.concatenate([diagonal, 0.1 * diagonal])
    with pytest.raises(ValueError, match="data.sigma_components=6"):
        components(oblique, 3, "x")
    grids = [SimpleNamespace(shape=(2, 2, 2)), SimpleNamespace(shape=(3, 2, 2))]
    with pytest.raises(ValueError, match="different grids"):
        collate(grids, 3)


def test_address_names_the_row(tmp_path):
    assert str(Address(tmp_path / "a.h5", 4)).endswith("a.h5[4]")


def test_a_sample_on_the_edge_of_the_grid_is_inside(sample_arrays):
    sample_arrays["source_point"] = np.array([4.5, 3.5, 3.5]) * 0.004 + np.array([0.003, 0, 0])
    assert check(sample_arrays, "x").source_point[0] == pytest.approx(0.021)
    sample_arrays["source"] = np.roll(sample_arrays["source"], 3, axis=0)
    sample_arrays["source_point"] = np.array([8 * 0.004, 3.5 * 0.004, 3.5 * 0.004])
    assert check(sample_arrays, "x").source_point[0] == 0.032  # on the face itself
    sample_arrays["source_point"][0] += 0.0005
    with pytest.raises(SampleError, match="not inside the grid"):
        check(sample_arrays, "x")


def test_an_electrode_on_the_skin_is_in_tissue(sample_arrays):
    """On a face between tissue and air, from either side; half a voxel above it is air."""
    for name in ("sigma", "mask", "u"):
        sample_arrays[name][:, 4:] = 0
    point = np.array([4.5, 4, 3.5]) * 0.004
    for h, fits in ((point[1], True), (point[1] + 1e-8, True), (point[1] + 0.0019, False)):
        sample_arrays["source_point"] = np.array([point[0], h, point[2]])
        if fits:
            assert check(sample_arrays, "x").source_point[1] == h
        else:
            with pytest.raises(SampleError, match="source_point.*lies in air"):
                check(sample_arrays, "x")


#: Another program's list: an order of its own, and tissues that we do not have.
OTHER_TISSUES = ("air", "bone", "nerve", "muscle", "skin", "blood", "fat")


def labelled(arrays):
    """The arrays with all our tissues and air, and what the labels mean to us."""
    ours = np.random.default_rng(1).integers(0, len(TISSUES), (8, 6, 6))
    theirs = np.array([OTHER_TISSUES.index(name) for name in TISSUES])[ours]
    return {**arrays, "labels": theirs}, ours.astype(np.uint8)


def write_named(write, folder, arrays, tissues):
    """A file of that format with names of tissues: an .h5 has them as an attribute, in JSON."""
    if write is not write_h5:
        return write(folder, {**arrays, "tissues": np.array(tissues)})
    path = write_h5(folder, arrays)
    with h5py.File(path, "a") as file:
        file.attrs["tissues"] = json.dumps(tissues)
    return path


@pytest.mark.parametrize("write", [write_npz, write_h5, write_npy], ids=["npz", "h5", "npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_labels_are_read_by_the_names_of_their_tissues(tmp_path, sample_arrays, write, dtype):
    arrays, ours = labelled(sample_arrays)
    arrays["labels"] = arrays["labels"].astype(dtype)
    for address in find(write_named(write, tmp_path, arrays, OTHER_TISSUES)):
        labels = address.read().labels
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, ours)


@pytest.mark.parametrize("write", [write_npz, write_h5, write_npy], ids=["npz", "h5", "npy"])
def test_a_tissue_that_is_unknown_may_be_named_but_not_occur(tmp_path, sample_arrays, write):
    arrays, _ = labelled(sample_arrays)
    arrays["labels"][4, 4, 4] = OTHER_TISSUES.index("nerve")
    address = find(write_named(write, tmp_path, arrays, OTHER_TISSUES))[0]
    with pytest.raises(SampleError, match="key 'labels': holds 2 'nerve', and this program knows"):
        address.read()


@pytest.mark.parametrize(
    "tissues",
    [
        TISSUES,
        np.array(TISSUES, dtype="S"),
        json.dumps(TISSUES),
        None,
    ],
    ids=["names", "bytes", "JSON", "none"],
)
def test_our_own_list_and_none_change_nothing(sample_arrays, tissues):
    _, ours = labelled(sample_arrays)
    arrays = {**sample_arrays, "labels": ours, "tissues": tissues}
    assert np.array_equal(check(arrays, "x").labels, ours)


def test_a_tissue_inserted_in_the_middle_relabels_nothing(tmp_path, sample_arrays, monkeypatch):
    """A file of today, read by a program that has one tissue more."""
    _, ours = labelled(sample_arrays)
    path = write_named(write_h5, tmp_path, {**sample_arrays, "labels": ours}, TISSUES)
    more = (*TISSUES[:2], "nerve", *TISSUES[2:])
    monkeypatch.setattr("physics_hybrid.problems.potential.data.checks.TISSUES", more)
    labels = find(path)[0].read().labels
    assert [more[i] for i in labels.ravel()] == [TISSUES[i] for i in ours.ravel()]


def test_files_that_we_write_name_their_tissues(tmp_path):
    limbs, device = limb_distribution(), torch.device("cpu")
    stream = LimbStream(limbs, (16, 12, 12), 1, "train", Solver(), device)
    path = generate(tmp_path / "limbs.h5", stream, 1, progress=False)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["tissues"]) == list(TISSUES)
        stored = file["labels"][0]
    assert np.array_equal(find(path)[0].read().labels, stored)


@pytest.mark.parametrize(
    "tissues",
    [
        "skin, fat",
        json.dumps({"skin": 1}),
        json.dumps([1, 2]),
        "[]",
        "3",
        np.arange(5),
        np.full((2, 2), "fat"),
        b"\xff",
    ],
    ids=range(8),
)
def test_names_of_tissues_that_are_no_names_are_refused(sample_arrays, tissues):
    _, ours = labelled(sample_arrays)
    named = {**sample_arrays, "tissues": tissues}
    assert check(named, "x").labels is None  # nothing counts them
    with pytest.raises(SampleError, match="x: key 'tissues': must be names"):
        check({**named, "labels": ours}, "x")


@pytest.mark.parametrize("label", [-1, len(OTHER_TISSUES)])
def test_labels_beyond_the_names_of_the_file_are_refused(sample_arrays, label):
    arrays, _ = labelled(sample_arrays)
    arrays["labels"][1, 1, 1] = label
    with pytest.raises(SampleError, match="must be 0 air, 1 bone, 2 nerve, .*, 6 fat; found"):
        check({**arrays, "tissues": OTHER_TISSUES}, "x")


def test_skipping_covers_whole_files_too(tmp_path, sample_arrays, capsys):
    from physics_hybrid.problems.potential.data.loading import scan

    write_h5(tmp_path, sample_arrays, n=2, name="good.h5")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "good.h5").read_bytes()[:1000])
    write_h5(tmp_path, {k: v for k, v in sample_arrays.items() if k != "u"}, name="no_u.h5")
    write_npz(tmp_path, {**sample_arrays, "spacing": np.zeros(3)})
    assert len(scan(str(tmp_path), Conventions(), 3, "skip")) == 2
    report = capsys.readouterr().err
    assert all(
        name in report for name in ("cut.h5", "no_u.h5", "s.npz", "3 skipped, 2 samples left")
    )
    with pytest.raises(SampleError, match="cut.h5"):
        scan(str(tmp_path), Conventions(), 3)
    (tmp_path / "good.h5").unlink()
    with pytest.raises(SampleError, match="no sample is left"):
        scan(str(tmp_path), Conventions(), 3, "skip")


@pytest.mark.parametrize("ends", ["grounded", "sink"])
def test_node_values_are_held_to_the_centres(ends):
    """What finite elements stored is taken; another unit, order of axes or sample is not, nor an
    electrode that is no point.
    """
    solver = Solver("finite_element", ends=Ends(ends))
    batch = LimbStream(
        limb_distribution(), (16, 12, 12), 1, "train", solver, torch.device("cpu")
    ).batch(range(2))
    one, other = (
        {key: values[i] for key, values in _datasets(batch).items()} | {"ends": ends}
        for i in range(2)
    )

    def read(**change):
        return check(one | change, "a.npz", Conventions(ends=Ends(ends)))

    assert read().nodes.shape == (17, 13, 13)
    if ends == "sink":
        assert read(u=one["u"] + 7.0).nodes is not None  # a constant means nothing
    for wrong in (
        1e3 * one["u_nodes"],
        one["u_nodes"].swapaxes(1, 2),
        one["u_nodes"][::-1],
        other["u_nodes"],
    ):
        with pytest.raises(SampleError, match="a.npz: key 'u_nodes'.*differ"):
            read(u_nodes=wrong)
    wide = one["mask"] * np.float32(1)
    wide[:5] = wide[11:] = 0
    moved = {"source": wide, "source_point": None}
    assert (
        check(
            {k: v for k, v in (one | moved).items() if k != "u_nodes"},
            "a",
            Conventions(ends=Ends(ends)),
        ).nodes
        is None
    )
    with pytest.raises(SampleError, match="u_nodes.*point electrodes"):
        read(**moved)


@pytest.mark.parametrize("ends", ["grounded", "pair"])
def test_node_values_belong_to_the_centres_of_an_electrode_on_dry_skin(ends):
    """In skin of 2e-4 S/m the closed form is far larger than phi, and bends: the means over corners
    differ from u by 40 % and more, as they should.
    """
    dry = limb_distribution(
        source_on_skin=1.0, pair_distance=0.06, sigma={**LIMBS["sigma"], "skin": [2e-4] * 3}
    )
    batch = LimbStream(
        dry,
        (24, 16, 16),
        0,
        "validation",
        Solver("finite_element", ends=Ends(ends)),
        torch.device("cpu"),
    ).batch([0, 3])
    for i in range(2):
        one = {key: values[i] for key, values in _datasets(batch).items()} | {"ends": ends}
        assert check(one, "a.npz", Conventions(ends=Ends(ends))).nodes is not None
        for wrong in (1e3 * one["u_nodes"], one["u_nodes"].swapaxes(1, 2), one["u_nodes"][::-1]):
            with pytest.raises(SampleError, match="a.npz: key 'u_nodes'.*differ"):
                check(one | {"u_nodes": wrong}, "a.npz", Conventions(ends=Ends(ends)))


def test_what_readers_send_between_processes_survives_pickling(sample_arrays):
    """Loaders under `spawn` (macOS, Windows) pickle data sets, batches and errors."""
    import pickle

    sample = check(sample_arrays, "x")
    batch = pickle.loads(pickle.dumps(collate([sample], 3)))
    assert batch.names == ("x",)
    assert batch.labels is None
    error = pickle.loads(pickle.dumps(SampleError("file", "u", "is wrong")))
    assert str(error) == str(SampleError("file", "u", "is wrong"))
    from physics_hybrid.problems.potential.data.loading import Batches

    assert len(pickle.loads(pickle.dumps(Batches([[Address("a")]], Conventions(), 3)))) == 1


def test_a_current_beside_the_source_may_say_the_same(sample_arrays):
    injected = sample_arrays["source"].sum() * np.prod(sample_arrays["spacing"])
    sample = check({**sample_arrays, "current": np.array(1.001 * injected)}, "a", Conventions())
    assert sample.current == pytest.approx(injected, rel=1e-6)
