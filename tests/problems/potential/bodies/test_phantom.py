"""Limbs: the same on every grid, solved and stored without loss, bit for bit."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from physics_hybrid.problems.potential.bodies.fibres import fibre_tensor
from physics_hybrid.problems.potential.bodies.tissues import AIR, BONE, FAT, MUSCLE, SKIN
from physics_hybrid.problems.potential.bodies.voxel_body import deposit, distinct
from physics_hybrid.problems.potential.data.files import find
from physics_hybrid.problems.potential.data.generated import dataset_path, generate
from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
from physics_hybrid.problems.potential.hybrid import source_moments
from tests.conftest import LIMBS, ROOT, limb_distribution
from tests.damage import fill_disk


def test_all_tissues_in_order_from_outside_in(limbs):
    """Along a ray from the outside to the axis: air, skin, fat, muscle (or bone), never back."""
    for number in range(10):
        limb = limbs.draw(0, 0, number)
        labels = limb.voxelise((12, 200, 200)).labels
        assert set(np.unique(labels)) == {AIR, SKIN, FAT, MUSCLE, BONE}
        ray = labels[6, 100]
        ray = np.minimum(ray[: len(ray) // 2], MUSCLE)
        assert (np.diff(ray.astype(int)) >= 0).all()


def test_tissue_volume_is_that_of_the_ellipse(limbs):
    limb = limbs.draw(0, 0, 4)
    fine = limb.voxelise((20, 300, 300))
    volume = (fine.labels != AIR).sum() * np.prod(fine.spacing)
    t = limb.taper
    exact = (
        np.pi * limb.axes[0] * limb.axes[1] * limb.extent[0] * (1 + t**2 / 12)
    )  # mean of (1 + t (x - 1/2))^2
    assert volume == pytest.approx(exact, rel=2e-3)


def test_a_limb_is_the_same_on_every_grid(limbs):
    for number in range(6):
        limb = limbs.draw(0, 2, number)
        coarse, fine = limb.voxelise((48, 24, 24)), limb.voxelise((96, 48, 48))
        shares = [[(v.labels == label).mean() for label in range(5)] for v in (coarse, fine)]
        assert np.abs(np.subtract(*shares)).max() < 0.02
        assert (np.abs(coarse.source_point - fine.source_point) <= 1.5 * coarse.spacing).all()


def test_the_key_decides_the_limb_and_splits_share_none(limbs):
    again = limb_distribution()
    assert (
        limbs.draw(0, 0, 7).voxelise((24, 12, 12)).sigma.tobytes()
        == again.draw(0, 0, 7).voxelise((24, 12, 12)).sigma.tobytes()
    )
    shapes = {
        limbs.draw(seed, split, number).axes
        for seed in (0, 1)
        for split in (0, 1, 2)
        for number in range(5)
    }
    assert len(shapes) == 30


def test_a_key_gives_the_limb_that_it_always_gave(limbs):
    limb = limbs.draw(0, 0, 7)
    assert limb.axes == pytest.approx((0.03669863751848944, 0.034674709938688174), rel=1e-12)
    assert limb.electrodes[0].point == pytest.approx(
        (0.10986271814453513, 0.0656580507932439, 0.03873944855145803), rel=1e-12
    )


def as_matrix(tensor):
    DD, HH, WW, DH, DW, HW = tensor
    return np.array([[DD, DH, DW], [DH, HH, HW], [DW, HW, WW]])


def test_fibre_tensor_by_hand():
    assert fibre_tensor(np.array([5.0, 1, 1]), 0, 1.0) == pytest.approx(
        [5, 1, 1, 0, 0, 0], abs=1e-15
    )
    assert fibre_tensor(np.array([5.0, 1, 1]), np.pi / 4, 0) == pytest.approx(
        [3, 3, 1, 2, 0, 0], abs=1e-14
    )
    assert fibre_tensor(np.array([5.0, 1, 1]), np.pi / 4, np.pi / 2) == pytest.approx(
        [3, 1, 3, 0, 2, 0], abs=1e-14
    )
    assert fibre_tensor(np.array([5.0, 1, 1]), np.pi / 2, np.pi / 4) == pytest.approx(
        [1, 3, 3, 0, 0, 2], abs=1e-14
    )


def test_pennate_fibres_keep_their_conductivities_and_turn_muscle_only(limbs):
    pennate = limb_distribution(pennation=(10.0, 25.0))
    directions = []
    for number in range(30):
        plain, limb = limbs.draw(0, 0, number), pennate.draw(0, 0, number)
        assert limb.electrodes == plain.electrodes
        assert limb.bones == plain.bones
        values, vectors = np.linalg.eigh(as_matrix(limb.sigma[MUSCLE]))
        assert values == pytest.approx(np.sort(plain.sigma[MUSCLE]), rel=1e-12)
        fibre = vectors[:, 2] * np.sign(vectors[0, 2])
        assert 10 <= np.degrees(np.arccos(fibre[0])) <= 25
        directions.append(np.degrees(np.arctan2(fibre[2], fibre[1])) % 360)
        others = [AIR, SKIN, FAT, BONE]
        assert np.array_equal(limb.sigma[others, :3], plain.sigma[others])
        assert not limb.sigma[others, 3:].any()
    assert set(np.array(directions) // 90) == {0, 1, 2, 3}  # to every side
    voxels = limb.voxelise((24, 12, 12))
    assert voxels.sigma.shape == (6, 24, 12, 12)
    assert np.array_equal(voxels.labels, plain.voxelise((24, 12, 12)).labels)


def test_oblique_limbs_need_six_components(stream):
    import dataclasses

    from physics_hybrid.problems.potential.data.limb_data import LimbData

    pennate = limb_distribution(pennation=(10.0, 25.0))
    with pytest.raises(ValueError, match="train with data.sigma_components=6"):
        dataclasses.replace(stream, limbs=pennate).batch([0])
    data = LimbData(
        pennate, Solver(), (24, 12, 12), 1, 0, torch.device("cpu"), "data", 1, 1, sigma_components=6
    )
    assert next(data.sigma_fields(1)).shape == (6, 24, 12, 12)


def test_sources_lie_in_their_tissue_with_their_current_and_centre(limbs):
    on_skin = 0
    for number in range(40):
        limb = limbs.draw(0, 0, number)
        voxels = limb.voxelise((48, 24, 24))
        active = np.argwhere(voxels.source > 0)
        tissues = {int(voxels.labels[tuple(i)]) for i in active}
        assert AIR not in tissues
        if limb.electrodes[0].tissue == MUSCLE:
            assert tissues == {MUSCLE}
        on_skin += limb.electrodes[0].tissue == SKIN
        current, centre = source_moments(
            torch.from_numpy(voxels.source)[None], torch.from_numpy(voxels.spacing)[None]
        )
        assert float(current) == pytest.approx(1e-3, rel=1e-9)
        assert np.abs(centre[0].numpy() - voxels.source_point).max() < 1e-9
    assert 0 < on_skin < 40


def test_deposit_conserves_current_and_position():
    spacing = np.array([0.004, 0.002, 0.003])
    for point in (np.array([0.0171, 0.0083, 0.0102]), np.array([0.018, 0.009, 0.0105])):
        voxels, values = deposit(point, spacing, 2e-3)
        assert values.sum() * spacing.prod() == pytest.approx(2e-3)
        assert (values @ (voxels + 0.5) / values.sum() * spacing) == pytest.approx(point, rel=1e-9)
    assert len(values) == 1  # the second point is a voxel centre


def test_two_bones_do_not_overlap():
    limbs = limb_distribution(bones=(2,))
    pairs = [limbs.draw(0, 0, n).bones for n in range(20)]
    assert any(len(p) == 2 for p in pairs)
    for pair in (p for p in pairs if len(p) == 2):
        (y, x, r, _), (v, u, q, _) = pair
        assert np.hypot(y - v, x - u) > r + q


def test_stream_solves_the_same_problem_whatever_it_is_batched_with(stream):
    together, alone = stream.batch([4, 5, 6]), stream.batch([5])
    assert float((together.u[1] - alone.u[0]).abs().max() / alone.u.abs().max()) < 1e-6
    assert torch.equal(together.sigma[1], alone.sigma[0])


def test_generation_is_bit_for_bit_and_resumes(tmp_path, stream):
    first = generate(tmp_path / "a.h5", stream, 9, progress=False)
    second = generate(tmp_path / "b.h5", stream, 9, progress=False)
    assert first.read_bytes() == second.read_bytes()
    # a run that died after the first part: its part is used, not solved again
    parts = tmp_path / "c.h5.parts"
    generate(tmp_path / "part.h5", stream, 4, progress=False)
    parts.mkdir()
    (tmp_path / "part.h5").rename(parts / "000000.h5")
    (parts / ".000004.h5.999").write_bytes(b"half a file")
    solved = []

    class Counting(LimbStream):
        def batch(self, numbers):
            solved.extend(numbers)
            return super().batch(numbers)

    again = Counting(*(getattr(stream, f) for f in stream.__dataclass_fields__))
    assert generate(tmp_path / "c.h5", again, 9, progress=False).read_bytes() == first.read_bytes()
    assert solved == [4, 5, 6, 7, 8]
    assert not parts.exists()


def test_solving_goes_on_from_the_parts_that_a_full_disk_has(tmp_path, stream, monkeypatch):
    """Parts of 4, 4 and 1 limbs: the last one is smaller than the disk, and the file is not."""
    whole = generate(tmp_path / "whole.h5", stream, 9, progress=False)
    with monkeypatch.context() as full:
        fill_disk(full, whole.stat().st_size * 2 // 3)
        with pytest.raises(OSError, match="a.h5 failed .No space left on device.; finished parts"):
            generate(tmp_path / "a.h5", stream, 9, progress=False)
    parts = tmp_path / "a.h5.parts"
    assert sorted(p.name for p in parts.iterdir()) == ["000000.h5", "000004.h5", "000008.h5"]
    flipped = bytearray((parts / "000004.h5").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    good = (parts / "000004.h5").read_bytes()
    (parts / "000004.h5").write_bytes(flipped)
    with pytest.raises(OSError, match="000004.h5.*Remove it: the next run solves it again"):
        generate(tmp_path / "a.h5", stream, 9, progress=False)
    (parts / "000004.h5").write_bytes(good)
    assert generate(tmp_path / "a.h5", stream, 9, progress=False).read_bytes() == whole.read_bytes()


def test_generated_files_pass_the_checks_that_users_files_must(tmp_path, stream):
    path = generate(tmp_path / "a.h5", stream, 3, progress=False)
    batch = stream.batch([2])
    sample = find(path)[2].read()
    assert np.array_equal(sample.u, batch.u[0].numpy())
    assert np.array_equal(sample.labels, batch.labels[0].numpy())
    assert sample.current == pytest.approx(1e-3, rel=1e-5)
    assert sample.phantom == "limb-0-train-2"


@pytest.mark.program
def test_generation_killed_in_the_middle_goes_on(tmp_path, stream):
    code = (
        "import sys, torch\nfrom tests.conftest import limb_distribution\n"
        "from physics_hybrid.problems.potential.data.generated import generate\n"
        "from physics_hybrid.problems.potential.data.stream import LimbStream, Solver\n"
        "from pathlib import Path\ntorch.set_num_threads(1)\n"
        "s = LimbStream("
        "limb_distribution(), (24, 12, 12), 0, 'train', Solver(), torch.device('cpu'))\n"
        "generate(Path(sys.argv[1]), s, 60, progress=False)\n"
    )
    path, parts = tmp_path / "cut.h5", tmp_path / "cut.h5.parts"
    cut = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while not list(parts.glob("0*.h5")) and cut.poll() is None:
        time.sleep(0.01)
    cut.send_signal(signal.SIGKILL)
    cut.wait()
    assert not path.exists()
    assert list(parts.glob("0*.h5"))
    generate(path, stream, 60, progress=False)
    whole = generate(tmp_path / "whole.h5", stream, 60, progress=False)
    assert path.read_bytes() == whole.read_bytes()


def test_other_settings_other_file(stream, limbs):
    import dataclasses

    other = dataclasses.replace(stream, solver=Solver(tolerance=1e-5))
    assert dataset_path("data", stream, 4) != dataset_path("data", other, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": {"skin": (1, 1, 1)}}, "lacks fat, muscle, bone"),
        ({"sigma": {**LIMBS["sigma"], "fat": (0.05, -1, 0.05)}}, "positive values"),
        ({"radius": (0.9, 0.5)}, "must not exceed"),
        ({"sigma_jitter": 1.5}, "sigma_jitter"),
        ({"pennation": (20, 10)}, "pennation"),
        ({"pennation": (0, 90)}, "pennation"),
        ({"fat": (0.002,)}, "fat must be two values"),
        ({"extent": (0.2, 0.1)}, "extent"),
        ({"current": 0.0}, "phantom.current"),
        ({"current": float("nan")}, "phantom.current"),
    ],
)
def test_limb_distribution_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        limb_distribution(**change)


def test_a_grid_too_coarse_for_a_limb_is_refused(limbs):
    with pytest.raises(ValueError, match="too coarse"):
        limb_distribution(fat=(0.03, 0.03)).draw(0, 0, 0).voxelise((4, 2, 2))


def test_a_coarse_grid_keeps_the_electrodes_of_every_pair_apart(limbs):
    """The second moves, in its own tissue; nobody's training ends at such a limb.

    Some limbs of the default distance have their electrodes closer than 3 voxels here.
    """
    moved = 0
    for number in range(60):
        limb = limb_distribution(pair_distance=0.03).draw(0, 0, number, electrodes=2)
        body = limb.voxelise((24, 12, 12))
        drawn = np.asarray(limb.electrodes[1].point)
        moved += not distinct(body.source_point, drawn, body.spacing)
        assert distinct(body.source_point, body.return_point, body.spacing)
        allowed = [MUSCLE] if limb.electrodes[1].tissue == MUSCLE else [SKIN, FAT, MUSCLE, BONE]
        assert body.labels[tuple((body.return_point / body.spacing).astype(int))] in allowed
        assert (np.abs(body.return_point - drawn) <= 4 * body.spacing).all()
    assert moved > 0
