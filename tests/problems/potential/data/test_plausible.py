"""What numbers mean: units that are others, boxes of no body, air that is called something."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from physics_hybrid.problems.potential.data.checks import check
from physics_hybrid.problems.potential.data.file_data import FileData
from physics_hybrid.problems.potential.data.loading import scan
from physics_hybrid.problems.potential.data.plausible import nearly_air, wrong_scale
from physics_hybrid.problems.potential.data.sample import Conventions, SampleError


def arrays_of(batch, i):
    """A solved limb as a user's file has it."""
    return {
        "sigma": np.moveaxis(batch.sigma[i].numpy(), 0, -1),
        "source": batch.source[i].numpy(),
        "u": batch.u[i].numpy(),
        "spacing": batch.spacing[i].numpy(),
        "source_point": batch.source_point[i].numpy(),
    }


@pytest.fixture
def solved(batch):
    return arrays_of(batch, 0)


def scaled(arrays, **factors):
    return {key: value * factors.get(key, 1) for key, value in arrays.items()}


def scan_one(folder, arrays, **conventions):
    np.savez(folder / "one.npz", **arrays)
    return scan(str(folder), Conventions(**conventions), 3)


def test_limbs_of_our_own_are_in_their_units(batch):
    for i in range(len(batch)):
        assert wrong_scale(check(arrays_of(batch, i), "x")) is None


UNITS = {
    "millivolts": ({"u": 1e3}, {}, "u in millivolts"),
    "microvolts": ({"u": 1e6}, {}, "u in microvolts"),
    "millisiemens": ({"sigma": 1e3}, {}, "sigma in mS/m"),
    "siemens a centimetre": ({"sigma": 1e-2}, {}, "sigma in S/cm"),
    "milliamperes": ({"source": 1e3}, {}, "source in milliamperes"),
    "centimetres": ({"spacing": 1e2, "source_point": 1e2, "sigma": 1}, {}, "box of"),
    "density taken for current": ({}, {"source_units": "current"}, "data.source_units=density"),
    "no unit that has a name": ({"u": 3e8}, {}, "V are expected"),
}


@pytest.mark.parametrize("case", UNITS)
def test_other_units_are_refused_and_named(tmp_path, solved, case):
    factors, conventions, likely = UNITS[case]
    with pytest.raises(SampleError, match=likely) as error:
        scan_one(tmp_path, scaled(solved, **factors), **conventions)
    assert "one.npz" in str(error.value)


def test_amperes_a_voxel_are_named_with_the_key_that_reads_them(tmp_path, solved):
    amperes = scaled(solved, source=np.prod(solved["spacing"]))
    with pytest.raises(SampleError, match=r"Likely: source in amperes a voxel \(data.source_units"):
        scan_one(tmp_path, amperes)
    assert len(scan_one(tmp_path, amperes, source_units="current")) == 1


@pytest.mark.parametrize("size", [1.0, 1e3])
@pytest.mark.parametrize("key", ["u", "source"])
def test_the_other_sign_is_refused(tmp_path, solved, key, size):
    """Of the potential, or of the current: and not where both have it, an electrode that sinks."""
    with pytest.raises(SampleError, match="key 'u': has the other sign than source"):
        scan_one(tmp_path, scaled(solved, **{key: -size}))
    assert len(scan_one(tmp_path, scaled(solved, u=-1.0, source=-1.0))) == 1


def test_millimetres_of_a_small_body_are_seen_by_their_current(tmp_path, solved):
    """Its box of 4 m could be one: the current cannot."""
    small = scaled(solved, spacing=0.01, source_point=0.01, source=1e6, u=1e2)
    assert len(scan_one(tmp_path, small)) == 1
    in_mm = scaled(small, spacing=1e3, source_point=1e3)
    with pytest.raises(SampleError, match="lengths in millimetres"):
        scan_one(tmp_path, in_mm)


def test_metal_and_rounding_are_no_unit(batch):
    """Truth at a contrast of 1e7, stored in half precision, is told no lies."""
    from physics_hybrid.problems.potential.physics.solve import solve

    one = next(iter(batch.split(1)))
    sigma = one.sigma.double().clone()
    d, h, w = np.argwhere(one.source[0].numpy() > 0)[0]
    sigma[0, :, d - 4 : d + 4, h + 1, w] = 1e6
    one = dataclasses.replace(one, sigma=sigma)
    phi = solve(one.conductor("grounded"), one.point_source(), 1e-8).phi
    arrays = arrays_of(dataclasses.replace(one, u=phi.half()), 0)
    assert wrong_scale(check(arrays, "x")) is None


@pytest.mark.parametrize("edge", [1e-5, 1.5, 1e3])
def test_a_box_of_no_body_is_refused(sample_arrays, edge):
    sample_arrays |= {"spacing": np.full(3, edge), "source_point": np.array([4.5, 3.5, 3.5]) * edge}
    with pytest.raises(SampleError, match="key 'spacing': .* makes a box of .* other units"):
        check(sample_arrays, "x")


def test_spacing_comes_from_the_file_or_from_the_user_and_is_never_invented(sample_arrays):
    given = Conventions(spacing=[0.002, 0.004, 0.004])
    assert check(sample_arrays, "x", given).spacing == pytest.approx([0.004] * 3)  # the file says
    del sample_arrays["spacing"], sample_arrays["source_point"]
    with pytest.raises(SampleError, match=r"key 'spacing': is missing: .* data.spacing=\["):
        check(sample_arrays, "x")
    assert check(sample_arrays, "x", given).spacing == pytest.approx([0.002, 0.004, 0.004])
    with pytest.raises(ValueError, match="data.spacing must be null or three edges"):
        Conventions(spacing=[0.004])


@pytest.mark.parametrize("air", [1e-6, 1e-8, 3e-12])
def test_air_as_a_tiny_number_is_told_and_taken_as_air_where_the_user_says(
    tmp_path, sample_arrays, capsys, air
):
    sigma = np.where(sample_arrays["sigma"] > 0, sample_arrays["sigma"], air)
    tiny = {**sample_arrays, "sigma": sigma}
    del tiny["mask"]
    low = nearly_air(check(tiny, "x").sigma)
    assert low.lowest == pytest.approx(air)
    assert low.share == pytest.approx(1 / 6)
    for i in range(3):  # bodies that differ
        np.savez(tmp_path / f"{i}.npz", **scaled(tiny, sigma=1 + 0.1 * i))
    FileData(str(tmp_path), 1, 0, torch.device("cpu"), {"train": 1.0})
    said = capsys.readouterr().err
    assert f"sigma goes down to {air:.3g} S/m in 17% of the box (3 of 3 samples" in said
    assert f"data.air_below={10 * air:.0e}" in said

    cut = Conventions(air_below=10 * air)
    cleared, zero = check(tiny, "x", cut), check(sample_arrays, "x")
    assert np.array_equal(cleared.mask, zero.mask)
    assert np.array_equal(cleared.sigma, zero.sigma)
    assert nearly_air(cleared.sigma) is None
    FileData(str(tmp_path), 1, 0, torch.device("cpu"), {"train": 1.0}, cut)
    assert "air" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_sample_is_known_however_it_is_read(tmp_path, solved, batch):
    tiny = {**solved, "sigma": np.where(solved["sigma"] > 0, solved["sigma"], 1e-8)}
    (one,) = scan_one(tmp_path, tiny)
    (cut,) = scan_one(tmp_path, tiny, air_below=1e-7)
    amperes = scaled(tiny, source=np.prod(tiny["spacing"]))
    (read,) = scan_one(tmp_path, amperes, source_units="current")
    assert one.fingerprint == cut.fingerprint == read.fingerprint
    (other,) = scan_one(tmp_path, arrays_of(batch, 1))
    (scale,) = scan_one(tmp_path, scaled(tiny, u=1.001))
    assert len({one.fingerprint, other.fingerprint, scale.fingerprint}) == 3


def test_air_below_that_leaves_nothing_or_is_nothing_is_refused(sample_arrays):
    with pytest.raises(SampleError, match="below 2 S/m everywhere"):
        check(sample_arrays, "x", Conventions(air_below=2.0))
    with pytest.raises(ValueError, match="data.air_below must be > 0"):
        Conventions(air_below=0.0)


@pytest.fixture(scope="module")
def predictor():
    """Untrained: it is its baseline."""
    from physics_hybrid.models.fno import ResidualFNO
    from physics_hybrid.problems.potential.baseline import PointSourceBaseline
    from physics_hybrid.problems.potential.geometry import GeometryEncoder
    from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels
    from physics_hybrid.problems.potential.predictor import Predictor

    backbone = ResidualFNO(feature_channels(3, 4), 1, width=4, depth=1, modes=[2, 2, 2])
    return Predictor(HybridWrapper(backbone, GeometryEncoder(4, 4, 1, 1), PointSourceBaseline()))


def test_the_door_says_the_same(predictor):
    sigma, point = np.full((16, 8, 8), 0.3), np.array([0.034, 0.018, 0.018])
    sigma[:, :, 0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        phi = predictor.predict(sigma, [0.004] * 3, point, 1e-3)
    with pytest.raises(ValueError, match="spacing .* makes a box of 64 m.* other units"):
        predictor.predict(sigma, [4.0] * 3, point * 1e3, 1e-3)
    sigma[:, :, 0] = 1e-9
    with pytest.warns(UserWarning, match=r"down to 1e-09 S/m in 12% of the box.*air_below=1e-08"):
        other = predictor.predict(sigma, [0.004] * 3, point, 1e-3)
    assert other[5, 4, 4] != pytest.approx(phi[5, 4, 4], rel=0.05)
    assert np.array_equal(predictor.predict(sigma, [0.004] * 3, point, 1e-3, air_below=1e-8), phi)
    with pytest.raises(ValueError, match="air_below must be > 0"):
        predictor.predict(sigma, [0.004] * 3, point, 1e-3, air_below=-1.0)
