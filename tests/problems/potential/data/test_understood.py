"""Files that are clear, though we would write them otherwise, are taken, and it is said how; what
is not clear is refused.

Every file is written plainly, as another program has it: `h5py` and `numpy` alone.
"""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest
import torch

from physics_hybrid.problem import Place
from physics_hybrid.problems.potential.data.checks import check
from physics_hybrid.problems.potential.data.collate import collate
from physics_hybrid.problems.potential.data.files import find
from physics_hybrid.problems.potential.data.loading import scan
from physics_hybrid.problems.potential.data.sample import Conventions, SampleError
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.losses import TERMS, PotentialLoss
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.physics.ends import Ends
from tests.conftest import composed, limb_distribution

CURRENT, H = 1e-3, 0.004


def as_usual(arrays, conventions=None):
    return check(arrays, "usual", conventions or Conventions())


def same(one, other):
    """All of two samples but what they are called and how they were read."""
    for field in dataclasses.fields(one):
        if field.name not in ("name", "notes", "phantom"):
            a, b = getattr(one, field.name), getattr(other, field.name)
            if a is None or b is None:
                assert a is b, field.name
            else:
                assert np.array_equal(a, b), field.name


def write_h5(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
        file.attrs.update(attributes)
    return path


def rows(arrays, count=2):
    return {key: np.stack([value] * count) for key, value in arrays.items()}


# --- a point and its current


def without_source(arrays, point, **more):
    point = {"source_point": np.array(point), "current": CURRENT}
    return {**{k: v for k, v in arrays.items() if k != "source"}, **point, **more}


def test_a_point_and_its_current_are_a_source(tmp_path, sample_arrays):
    """1 mA in the voxel that holds the point: 1e-3 / 0.004^3 A/m^3."""
    arrays = without_source(sample_arrays, [4.3 * H, 3.5 * H, 3.5 * H])
    np.savez(tmp_path / "a.npz", **arrays)
    sample = find(tmp_path / "a.npz")[0].read()
    assert np.argwhere(sample.source).tolist() == [[4, 3, 3]]
    assert sample.source[4, 3, 3] == pytest.approx(CURRENT / H**3)
    assert sample.current == pytest.approx(CURRENT)
    assert sample.source_point == pytest.approx([4.3 * H, 3.5 * H, 3.5 * H])
    assert "source is made of source_point and current" in sample.notes[0]


def test_a_point_in_indices_is_one_too(sample_arrays):
    arrays = without_source(sample_arrays, [2, 3, 4])
    sample = as_usual(arrays, Conventions("current", "index"))
    assert np.argwhere(sample.source).tolist() == [[2, 3, 4]]
    assert sample.current == pytest.approx(CURRENT)


def test_a_point_on_the_skin_belongs_to_the_tissue_below(sample_arrays):
    """sigma is 0 in the first voxels along W."""
    sample = as_usual(without_source(sample_arrays, [4.5 * H, 3.5 * H, 1.0 * H]))
    assert np.argwhere(sample.source).tolist() == [[4, 3, 1]]


def test_two_points_are_a_pair(sample_arrays):
    back = {"return_point": np.array([1.5, 3.5, 3.5]) * H}
    arrays = without_source(sample_arrays, [6.5 * H, 3.5 * H, 3.5 * H], **back)
    sample = as_usual(arrays, Conventions(ends=Ends("pair")))
    assert sample.source[6, 3, 3] == pytest.approx(CURRENT / H**3)
    assert sample.source[1, 3, 3] == pytest.approx(-CURRENT / H**3)
    assert sample.current == pytest.approx(CURRENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_point": np.array([4.5, 3.5, 0.5]) * H}, "'source_point'.*air"),
        ({"source_point": np.array([90.0, 3.5, 3.5]) * H}, "'source_point'"),
        ({"source_point": np.ones(2)}, "'source_point': must be three finite numbers"),
        ({"current": 0.0}, "'current': must be one number of amperes, and not 0"),
        ({"current": np.nan}, "'current': must be one number"),
        ({"current": np.ones(3)}, "'current': must be one number"),
    ],
)
def test_a_point_or_a_current_that_is_none_is_named(sample_arrays, change, message):
    arrays = without_source(sample_arrays, [4.5 * H, 3.5 * H, 3.5 * H], **change)
    with pytest.raises(SampleError, match=message):
        as_usual(arrays)


def test_a_source_that_is_missing_is_told_what_would_do(sample_arrays):
    del sample_arrays["source"]
    with pytest.raises(SampleError, match="sigma, source, u, or source_point and current"):
        as_usual(sample_arrays)


# --- u


def test_u_at_the_corners_of_voxels_is_averaged(tmp_path, sample_arrays):
    """A field that is linear in each coordinate has the mean of its corners in the centre."""
    d, h, w = np.meshgrid(*[np.arange(n + 1.0) for n in (8, 6, 6)], indexing="ij")
    sample_arrays["u"] = 1 + 0.5 * d - 0.2 * h + 0.1 * w + 0.01 * d * h * w
    sample_arrays["u"][:, :, 0][::2] = np.nan  # corners that only air has, and that tissue has not
    write_h5(tmp_path / "a.h5", rows(sample_arrays))
    sample = find(tmp_path / "a.h5")[1].read()
    d, h, w = d[:-1, :-1, :-1] + 0.5, h[:-1, :-1, :-1] + 0.5, w[:-1, :-1, :-1] + 0.5
    expected = 1 + 0.5 * d - 0.2 * h + 0.1 * w + 0.01 * d * h * w
    assert sample.u[sample.mask] == pytest.approx(expected[sample.mask], rel=1e-6)
    assert sample.nodes is None  # who averaged has not said that trilinear elements made it
    assert "voxel corners" in sample.notes[0]


def test_phi_is_u(tmp_path, sample_arrays):
    usual = as_usual(sample_arrays)
    sample_arrays["phi"] = sample_arrays.pop("u")
    np.savez(tmp_path / "a.npz", **sample_arrays)
    write_h5(tmp_path / "b.h5", rows(sample_arrays))
    (tmp_path / "c").mkdir()
    for key, value in sample_arrays.items():
        np.save(tmp_path / "c" / f"{key}.npy", value)
    for address in find(tmp_path):
        sample = address.read()
        same(sample, usual)
        assert sample.notes == ("phi is taken for u",)
    sample_arrays["u"] = sample_arrays["phi"] + 1
    assert np.array_equal(as_usual(sample_arrays).u[usual.mask], (usual.u + 1)[usual.mask])


# --- spacing


@pytest.mark.parametrize(
    ("stored", "attributes"),
    [
        (np.float64(H), {}),
        (np.array([H]), {}),
        (np.full(3, H), {}),
        (np.full((5, 1), H), {}),
        (np.full(5, H), {}),
        (None, {"spacing": H}),
        (None, {"spacing": [H, H, H]}),
    ],
    ids=[
        "number",
        "one",
        "three",
        "one a sample",
        "number a sample",
        "attribute",
        "attribute of 3",
    ],
)
def test_one_spacing_may_stand_for_a_whole_file(tmp_path, sample_arrays, stored, attributes):
    usual = as_usual(sample_arrays)
    arrays = {k: v for k, v in sample_arrays.items() if k != "spacing"}
    arrays = rows(arrays, 5) | ({} if stored is None else {"spacing": stored})
    for address in find(write_h5(tmp_path / "a.h5", arrays, **attributes)):
        same(address.read(), usual)


def test_one_number_is_the_edge_of_a_cube_in_any_format(tmp_path, sample_arrays):
    usual = as_usual(sample_arrays)
    sample_arrays["spacing"] = np.float32(H)
    np.savez(tmp_path / "a.npz", **sample_arrays)
    sample = find(tmp_path / "a.npz")[0].read()
    assert sample.spacing == pytest.approx(np.full(3, H))
    assert sample.phantom == usual.phantom
    assert "edge of a voxel" in sample.notes[0]


def test_what_is_understood_is_said_once_and_not_for_each_sample(tmp_path, sample_arrays, capsys):
    arrays = rows({k: v for k, v in sample_arrays.items() if k != "spacing"}, 4)
    write_h5(tmp_path / "a.h5", {**arrays, "spacing": H})
    assert len(scan(str(tmp_path), Conventions(), 3)) == 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("data: one spacing is taken for all samples of the file (4 of 4")
    assert "a.h5[0]" in said[0]


# --- sigma


def tensors(arrays):
    """(D, H, W, 6) of fibres that lie askew."""
    six = np.array([0.4, 0.2, 0.2, 0.05, 0.02, -0.01], dtype=np.float32)
    return (arrays["sigma"] > 0)[..., None] * six


@pytest.mark.parametrize("count", [1, 3, 6])
def test_components_may_come_first(tmp_path, sample_arrays, count):
    sample_arrays["sigma"] = tensors(sample_arrays)[..., :count]
    usual = as_usual(sample_arrays)
    sample_arrays["sigma"] = np.moveaxis(sample_arrays["sigma"], -1, 0)
    sample = find(write_h5(tmp_path / "a.h5", rows(sample_arrays)))[0].read()
    same(sample, usual)
    assert "first axis of sigma" in sample.notes[0]


@pytest.mark.parametrize("first", [False, True])
def test_whole_tensors_are_taken(sample_arrays, first):
    usual = as_usual({**sample_arrays, "sigma": tensors(sample_arrays)})
    DD, HH, WW, DH, DW, HW = np.moveaxis(tensors(sample_arrays), -1, 0)
    whole = np.stack([DD, DH, DW, DH, HH, HW, DW, HW, WW], axis=-1).reshape(8, 6, 6, 3, 3)
    given = np.moveaxis(whole, (3, 4), (0, 1)) if first else whole
    same(as_usual({**sample_arrays, "sigma": given}), usual)
    diagonal = whole * np.eye(3, dtype=np.float32)
    assert as_usual({**sample_arrays, "sigma": diagonal}).sigma.shape == (3, 8, 6, 6)
    whole[2, 3, 4, 0, 1] += 0.1
    with pytest.raises(SampleError, match=r"'sigma': tensors must be symmetric; voxel \(2, 3, 4\)"):
        as_usual({**sample_arrays, "sigma": whole})


def test_a_grid_that_fits_both_ways_keeps_its_components_last(sample_arrays):
    """(3, 3, 3, 3) is read as it always was."""
    arrays = {
        "sigma": np.random.default_rng(0).uniform(0.1, 1, (3, 3, 3, 3)),
        "source": np.zeros((3, 3, 3)),
        "u": np.ones((3, 3, 3)),
        "spacing": H,
    }
    arrays["source"][1, 1, 1] = 1
    sample = as_usual(arrays)
    assert np.allclose(sample.sigma, np.moveaxis(arrays["sigma"], -1, 0))


# --- NaN as air


def test_nan_is_air_on_request_alone(sample_arrays):
    usual = as_usual(sample_arrays)
    air = sample_arrays["sigma"] == 0
    for key in ("sigma", "u", "source"):
        sample_arrays[key] = np.where(air, np.nan, sample_arrays[key])
    sample_arrays["labels"] = np.where(air, np.nan, 3.0)
    with pytest.raises(SampleError, match=r"'sigma': must be finite.*data.nan_is_air=true"):
        as_usual(
            {k: v for k, v in sample_arrays.items() if k != "source"} | {"source": usual.source}
        )
    sample = as_usual(sample_arrays, Conventions(nan_is_air=True))
    assert np.array_equal(sample.labels, 3 * ~air)
    same(dataclasses.replace(sample, labels=None), usual)
    sample_arrays["source"][0, 0, 0] = 1.0
    with pytest.raises(SampleError, match=r"'source': lies in air .* \(0, 0, 0\)"):
        as_usual(sample_arrays, Conventions(nan_is_air=True))


def test_a_tensor_that_is_nan_in_part_is_no_air(sample_arrays):
    sigma = np.stack([sample_arrays["sigma"]] * 3, axis=-1)
    sigma[2, 2, 2, 1] = np.nan
    with pytest.raises(SampleError, match=r"must be finite; voxel \(2, 2, 2\)"):
        as_usual({**sample_arrays, "sigma": sigma}, Conventions(nan_is_air=True))


# --- folders and groups


def test_what_macos_leaves_beside_files_is_no_sample(tmp_path, sample_arrays):
    np.savez(tmp_path / "a.npz", **sample_arrays)
    (tmp_path / "._a.npz").write_bytes(b"\0\5\26\7Mac OS X")
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "b").mkdir()
    for key, value in sample_arrays.items():
        np.save(tmp_path / "b" / f"{key}.npy", value)
        (tmp_path / "b" / f"._{key}.npy").write_bytes(b"\0\5\26\7Mac OS X")
    assert [a.path.name for a in find(tmp_path)] == ["a.npz", "b"]
    assert all(a.read().current for a in find(tmp_path))


def body(arrays, number):
    return {**arrays, "sigma": arrays["sigma"] * np.float32(1 + 0.1 * number)}


def subjects(folder, arrays, names):
    """Two samples a folder, of bodies that all differ."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        np.savez(folder / name / "run-1.npz", **body(arrays, 2 * number))
        np.savez(folder / name / "run-2.npz", **body(arrays, 2 * number + 1))
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["sub-01", "sub-02", "sub-03"],
        ["sub-01/ses-1", "sub-02/ses-1", "sub-03/ses-1"],
        ["derivatives/P1/fem", "derivatives/P2/fem", "derivatives/P3/fem"],
        ["train/anna", "train/bert", "test/carl"],
    ],
)
def test_a_folder_a_subject_keeps_its_samples_together(tmp_path, sample_arrays, names, capsys):
    entries = scan(str(subjects(tmp_path, sample_arrays, names)), Conventions(), 3)
    assert len(entries) == 6
    phantoms = [entry.phantom for entry in entries]
    assert len(set(phantoms)) == 3
    assert phantoms[::2] == phantoms[1::2]
    assert "folders are taken for 3 subjects" in capsys.readouterr().err


def test_sessions_of_one_subject_are_one(tmp_path, sample_arrays):
    folder = subjects(tmp_path, sample_arrays, ["sub-01/ses-1", "sub-01/ses-2"])
    assert {address.subject for address in find(folder)} == {"sub-01"}


def test_folders_of_splits_are_no_subjects(tmp_path, sample_arrays):
    folder = subjects(tmp_path, sample_arrays, ["train", "val", "Test"])
    assert {address.subject for address in find(folder)} == {""}
    assert len({address.read().phantom for address in find(folder)}) == 6


def test_a_folder_with_samples_of_its_own_is_not_searched_further(tmp_path, sample_arrays):
    np.savez(tmp_path / "a.npz", **sample_arrays)
    subjects(tmp_path, sample_arrays, ["old"])
    assert [address.path.name for address in find(tmp_path)] == ["a.npz"]


def test_a_group_a_sample(tmp_path, sample_arrays):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["spacing"] = H
        file["about/author"] = "someone"
        for number, name in enumerate(("left", "right")):
            group = file.create_group(name)
            for key, value in body(sample_arrays, number).items():
                if key != "spacing":
                    group[key] = value
            group.attrs["ends"] = "grounded"
        file["right"].attrs["phantom"] = "Müller"
    left, right = find(tmp_path / "a.h5")
    assert str(left).endswith("a.h5[left]")
    same(left.read(), as_usual(sample_arrays))
    assert right.read().sigma.max() == pytest.approx(0.33)
    assert right.read().phantom == "Müller"
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["left"].attrs["ends"] = "sink"
        del file["right/u"]
    with pytest.raises(SampleError, match=r"a.h5\[left\]: key 'ends'"):
        left.read()
    with pytest.raises(SampleError, match=r"a.h5\[right\]: key 'u': is missing"):
        right.read()


# --- a region of interest


def test_a_mask_may_be_a_region(tmp_path, sample_arrays):
    region = np.zeros((8, 6, 6), dtype=np.uint8)
    region[:3] = 1
    sample_arrays["mask"] = region
    with pytest.raises(SampleError, match=r"'mask'.*data.mask=region"):
        as_usual(sample_arrays)
    sample = as_usual(sample_arrays, Conventions(mask="region"))
    assert np.array_equal(sample.mask, sample_arrays["sigma"] > 0)  # current flows there
    assert np.array_equal(sample.region, (region > 0) & sample.mask)
    sample_arrays["mask"] = region * (sample_arrays["sigma"] == 0)
    with pytest.raises(SampleError, match="no tissue in it"):
        as_usual(sample_arrays, Conventions(mask="region"))
    with pytest.raises(ValueError, match="data.mask must be 'tissue' or 'region'"):
        Conventions(mask="roi")


def test_a_batch_has_the_regions_of_those_that_have_one(sample_arrays):
    whole = as_usual(sample_arrays)
    assert collate([whole, whole], 3).region is None
    sample_arrays["mask"] = np.arange(8)[:, None, None] < 4 * np.ones((8, 6, 6))
    part = as_usual(sample_arrays, Conventions(mask="region"))
    regions = collate([whole, part], 3).region
    assert torch.equal(regions[0], torch.from_numpy(whole.mask))
    assert torch.equal(regions[1], torch.from_numpy(part.region))
    assert collate([whole, part], 3).split(1)[1].region.sum() == part.region.sum()


@pytest.mark.parametrize("kind", ["finite_volume", "finite_element"])
def test_losses_and_metrics_count_in_the_region_alone(kind):
    """An error outside, three voxels from it and more, is none; the same inside is one."""
    stream = LimbStream(
        limb_distribution(), (24, 12, 12), 0, "train", Solver(kind), torch.device("cpu")
    )
    batch = stream.batch(range(1))
    region = torch.zeros_like(batch.tissue)
    region[:, 14:20] = True
    batch = dataclasses.replace(batch, region=region)
    criterion = PotentialLoss(dict.fromkeys(TERMS, 1.0), exclude_radius=1.0)
    metrics = Metrics(exclude_radius=1.0)
    wrong = dict.fromkeys(("inside", "outside"), batch.u)
    for name, rows in (("inside", slice(15, 19)), ("outside", slice(8, 11))):
        noise = torch.zeros_like(batch.u)
        noise[:, rows] = 0.1 * torch.randn(noise[:, rows].shape, generator=torch.manual_seed(0))
        wrong[name] = (batch.u + noise * batch.u.abs()) * batch.tissue
    losses = {name: criterion(phi, batch)[1] for name, phi in wrong.items()}
    least = criterion(batch.u, batch)[1]
    for name in ("mse", "gradient", "pde"):
        assert float(losses["outside"][name]) == pytest.approx(float(least[name]), abs=1e-9)
        assert float(losses["inside"][name]) > 100 * max(float(least[name]), 1e-9)
    physics = metrics.physics(batch)
    measured = {name: metrics(phi, batch, physics)[0] for name, phi in wrong.items()}
    right = metrics(batch.u, batch, physics)[0]
    for name in ("relative_l2", "rdm", "field_error", "pde_residual"):
        assert measured["outside"][name] == pytest.approx(right[name], abs=1e-7)
        assert measured["inside"][name] > right[name] + 1e-3
    everywhere = dataclasses.replace(batch, region=None)
    assert metrics(wrong["outside"], everywhere, physics)[0]["relative_l2"] > 1e-3


def test_the_configuration_says_what_mask_and_nan_are(tmp_path, sample_arrays):
    """Runs of before these keys have neither: they are read as they were."""
    from physics_hybrid.problems.potential.problem import build_data

    sample_arrays["mask"] = np.arange(8)[:, None, None] < 6 * np.ones((8, 6, 6))
    sample_arrays["sigma"] = np.where(sample_arrays["sigma"] > 0, sample_arrays["sigma"], np.nan)
    for number in range(4):
        np.savez(tmp_path / f"{number}.npz", **body(sample_arrays, number))
    words = ["data=files", f"data.path={tmp_path}", "data.mask=region", "data.nan_is_air=true"]
    words.append("data.splits={train: 0.5, validation: 0.25, test: 0.25}")
    config = composed(tmp_path, "run", words, ("fno",))
    batch = build_data(config, Place(torch.device("cpu"))).sample_train()
    assert batch.region.sum() == 6 * 6 * 5
    for key in ("mask", "nan_is_air"):
        del config["data"][key]
    with pytest.raises(SampleError, match="nan_is_air"):
        build_data(config, Place(torch.device("cpu")))


# --- one body, several precisions


def test_a_body_in_single_and_double_precision_is_one_phantom(tmp_path, sample_arrays):
    """As is one whose spacing was computed: 8 mm / 1000 in single precision is another number."""
    edges = [
        np.full(3, 0.008),
        np.full(3, 0.008, dtype=np.float32),
        np.full(3, 8, dtype=np.float32) * np.float32(0.001),
        np.full(3, 0.8) / 100,
        np.float64(0.008),
    ]
    sigma = sample_arrays["sigma"].astype(np.float64)
    for number, edge in enumerate(edges):
        sample_arrays["sigma"] = sigma.astype(np.float32 if number % 2 else np.float64)
        sample_arrays["source_point"] = np.array([4.5, 3.5, 3.5]) * 0.008
        np.savez(tmp_path / f"{number}.npz", **{**sample_arrays, "spacing": edge})
    assert len({address.read().phantom for address in find(tmp_path)}) == 1
    np.savez(tmp_path / "other.npz", **{**sample_arrays, "spacing": np.full(3, 0.00801)})
    assert len({address.read().phantom for address in find(tmp_path)}) == 2


# --- what an .h5 may hold


def test_words_and_names_of_other_programs_are_read_or_refused_by_key(tmp_path, sample_arrays):
    names = np.array(["Müller".encode("latin-1"), b"p2"])
    path = write_h5(
        tmp_path / "a.h5", {**rows(sample_arrays), "phantom": names}, schema_version="1.0"
    )
    assert [address.read().phantom for address in find(path)] == ["Müller", "p2"]
    shutil.copy(path, tmp_path / "b.h5")
    for version, message in (("two", "must be a number; got 'two'"), (7.5, "version 7.5")):
        with h5py.File(tmp_path / "b.h5", "a") as file:
            file.attrs["schema_version"] = version
        with pytest.raises(SampleError, match=message):
            find(tmp_path / "b.h5")


def test_files_that_cannot_be_read_are_skipped_where_that_is_asked(tmp_path, sample_arrays, capsys):
    arrays = rows(sample_arrays)
    write_h5(tmp_path / "good.h5", arrays)
    for name, wrong in {
        "link": {"u": h5py.ExternalLink("moved.h5", "/u")},
        "text": {"spacing": np.array([b"4 mm", b"4 mm"])},
        "number": {"u": 1.0},
    }.items():
        write_h5(tmp_path / f"{name}.h5", {**arrays, **wrong})
    write_h5(tmp_path / "version.h5", arrays, schema_version="new")
    assert len(scan(str(tmp_path), Conventions(), 3, "skip")) == 2
    said = capsys.readouterr().err
    for name in ("link", "text", "number", "version"):
        assert f"{name}.h5" in said
