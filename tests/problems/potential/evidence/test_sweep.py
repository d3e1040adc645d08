"""Bodies x electrodes: rows that are what the door says, whoever solves them and however often
they are killed; errors that are rows; one table.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread

import physics_hybrid as ph
from physics_hybrid.problems.potential.evidence import sweep as sweeping
from physics_hybrid.problems.potential.evidence.sweep_table import reciprocity
from physics_hybrid.training.order import share
from physics_hybrid.verbs.solve import read_body
from physics_hybrid.verbs.sweep import main
from tests.conftest import ROOT

#: A body of 40 mm, its first axis D (mm), and electrodes in it, m.
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
PLACES = [[0.014, 0.016, 0.018], [0.026, 0.018, 0.014]]


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """Three legs, one of them without tissue, and a file of electrodes beside each."""
    folder = tmp_path_factory.mktemp("legs")
    for number in range(3):
        labels = np.zeros((10, 9, 9), dtype=np.uint8)
        if number != 1:
            labels[:, 1:-1, 1:-1] = 2
            labels[:, 2:-2, 2 : 6 + number // 2] = 3
        nibabel.save(nibabel.Nifti1Image(labels, AFFINE), folder / f"leg{number}.nii.gz")
        lines = [", ".join(map(str, place)) for place in PLACES]
        (folder / f"leg{number}.csv").write_text("\n".join(lines) + "\n")
    return folder


def words(bodies, output, *more):
    pattern = str(bodies / "leg*.nii.gz")
    fixed = ["--long-axis", "0", "--electrodes", "{name}.csv", "--tolerance", "1e-8"]
    return [pattern, *fixed, "--output", str(output), *more]


def typed(capsys, *arguments):
    """Exit status, what was printed, what was complained of."""
    with pytest.raises(SystemExit) as left:
        main([*arguments])
    out, err = capsys.readouterr()
    return left.value.code, out, err


def rows(output):
    """All records, without what differs from run to run: seconds, and where it was."""
    kept = {}
    for path in sorted((output / "rows").iterdir()):
        record = json.loads(path.read_text())
        kept[path.name] = {
            k: v for k, v in record.items() if not k.endswith("seconds") and k != "about"
        }
    return kept


@pytest.fixture(scope="module")
def whole(bodies, tmp_path_factory):
    """A sweep in one go: its folder, and the exit status."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with pytest.raises(SystemExit) as left:
        main(words(bodies, output))
    return output, left.value.code


def test_a_row_is_what_the_door_says(bodies, whole):
    output, status = whole
    assert status == 1  # a body failed
    found = rows(output)
    assert len(found) == 6
    body = ph.read_labels(bodies / "leg2.nii.gz", long_axis=0)
    field = ph.solve(body, PLACES[1], 1.0, tolerance=1e-8, progress=False)
    row = found["leg2_001.json"]
    assert row["place"] == pytest.approx(PLACES[1])
    assert row["transfer"][1] is None
    assert row["transfer"][0] == pytest.approx(float(field.at(PLACES[0])), rel=1e-9)


def test_a_body_that_fails_is_rows_with_its_error_and_the_others_go_on(whole):
    found = rows(whole[0])
    for k in range(2):
        assert "holds air only" in found[f"leg1_00{k}.json"]["error"]
        assert found[f"leg0_00{k}.json"]["error"] is None
        assert found[f"leg2_00{k}.json"]["error"] is None


def test_the_table_has_a_line_a_row_and_sees_reciprocity(bodies, whole, capsys):
    output = whole[0]
    status, out, err = typed(capsys, *words(bodies, output, "--table"))
    assert status == 1
    assert "failed: leg1_000:" in err
    assert "| leg0 | 2 of 2 | 0 |" in out
    assert "| leg1 | 0 of 2 | 2 | - | - |" in out
    assert "4 of 6 rows in" in out
    with (output / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["body"] for line in lines] == [f"leg{n}" for n in range(3) for _ in range(2)]
    transfer = rows(output)["leg0_000.json"]["transfer"]
    assert float(lines[0]["ohm_1"]) == transfer[1]
    assert lines[0]["ohm_0"] == ""
    held = json.loads((output / "table.json").read_text())
    assert len(held["rows"]) == 6
    assert all(body["reciprocity"] < 0.05 for body in held["bodies"] if body["solved"])
    assert (output / "table.md").read_text().strip() in out
    assert imread(output / "table.png")[..., :3].std() > 0.02
    assert reciprocity(np.array([[np.nan, 2.0], [1.0, np.nan]])) == pytest.approx(0.5)
    assert reciprocity(np.array([[np.nan, 2.0], [np.nan, np.nan]])) is None


@pytest.mark.slow
def test_parts_are_the_whole(bodies, whole, tmp_path, capsys):
    """An array of four jobs, started in any order: the same records; the table is made last."""
    for part in (2, 0, 3, 1):
        typed(capsys, *words(bodies, tmp_path, "--part", str(part), "--parts", "4"))
        assert not (tmp_path / "table.md").exists()
    assert rows(tmp_path) == rows(whole[0])
    status, out, err = typed(capsys, *words(bodies, tmp_path, "--part", "4", "--parts", "4"))
    assert (status, out) == (1, "")
    assert "--part must be 0 to 3" in err
    for count in range(1, 12):
        parts = [share([*range(9)], part, count) for part in range(count)]
        assert sum(parts, []) == [*range(9)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.slow
def test_a_sweep_that_is_told_to_leave_goes_on_to_the_same_bits(
    bodies, whole, tmp_path, capsys, monkeypatch
):
    calls = []

    def read(path, given):
        calls.append(path)
        if len(calls) == 2:  # the first body is done
            os.kill(os.getpid(), signal.SIGUSR1)
        return read_body(path, given)

    monkeypatch.setattr("physics_hybrid.verbs.sweep.read_body", read)
    status, out, _ = typed(capsys, *words(bodies, tmp_path))
    assert status == sweeping.SAVED
    assert out.endswith("told to leave; the same command goes on\n")
    assert len(rows(tmp_path)) == 2
    assert not (tmp_path / "table.md").exists()
    monkeypatch.undo()
    (tmp_path / "rows" / "leg0_001.json").unlink()
    left = tmp_path / "rows" / ".123.leg2_000.json"  # of a process that was killed
    left.write_text('{"body": "le')
    _, out, _ = typed(capsys, *words(bodies, tmp_path))
    left.unlink()
    assert out.count("finished before") == 1
    assert rows(tmp_path) == rows(whole[0])


def test_rows_of_another_sweep_and_damaged_ones_are_refused(bodies, whole, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(whole[0], output)
    again = words(bodies, output)
    status, _, err = typed(capsys, *again, "--ends", "sink")
    assert status == 1
    assert 'begun with ends = "auto", and now it is "sink": use another --output' in err
    status, _, err = typed(capsys, *again, "--electrode", "0.02", "0.016", "0.016")
    assert "begun with electrode" in err
    before = rows(output)
    _, out, _ = typed(capsys, *again, "--retry")
    assert out.count("FAILED") == 2  # the body is as it was
    assert out.count("finished before") == 4
    assert rows(output) == before
    for damaged in ("{", "{}", "[1]"):
        (output / "rows" / "leg0_000.json").write_text(damaged)
        status, _, err = typed(capsys, *again)
        assert status == 1
        assert "leg0_000.json is damaged: delete it, and its row is solved again" in err
    for damaged in ("", "{}", "[]"):
        (output / "sweep.json").write_text(damaged)
        status, _, err = typed(capsys, *again)
        assert "sweep.json is damaged: delete it" in err


def test_rows_of_a_body_whose_file_is_another_now_are_named(bodies, whole, tmp_path, capsys):
    legs, output = tmp_path / "legs", tmp_path / "out"
    shutil.copytree(bodies, legs)
    shutil.copytree(whole[0], output)
    _, _, err = typed(capsys, *words(legs, output))
    assert "files changed" not in err
    shutil.copy(legs / "leg2.nii.gz", legs / "leg0.nii.gz")
    status, _, err = typed(capsys, *words(legs, output, "--parts", "2", "--part", "0"))
    assert status == 1
    assert "leg0: its files changed after rows of it were solved: delete" in err
    assert "leg2: its files" not in err


def test_options_of_files_are_refused_where_there_are_none(tmp_path, capsys):
    place = ["--electrode", "0.5", "0.5", "0.5", "--frame", "share", "--output", str(tmp_path)]
    status, _, err = typed(capsys, "--limbs", "1", *place, "--fibres", "axis")
    assert status == 1
    assert "--fibres says how a file is read, and --limbs has none" in err
    for half in (["--tensor-order", "fsl"], ["--mapping", "direct"], ["--bad", "isotropic"]):
        status, _, err = typed(capsys, "leg.nii.gz", *place, *half)
        assert status == 2
        assert f"{half[0]} needs --tensors FILE" in err


def test_bodies_and_electrodes_that_are_not_there_are_said(bodies, tmp_path, capsys):
    for arguments, said in [
        ([], "one of them"),
        ([str(bodies), "--limbs", "2"], "one of them"),
        ([str(tmp_path / "*.nii.gz"), "--electrode", "0", "0", "0"], "names no body"),
        ([str(bodies)], "--electrode X Y Z"),
        ([str(bodies), "--electrodes", "gone.csv"], "gone.csv"),
        (["--limbs", "2", "--electrode", "0", "0", "0", "--fields", ".png"], "must be one of"),
    ]:
        status, _, err = typed(capsys, *arguments, "--output", str(tmp_path / "x"))
        assert status == 1, arguments
        assert said in err
        assert err.count("\n") == 1
    status, _, err = typed(capsys, str(bodies), "--electrode", "0", "0", "0")
    assert "--output FOLDER is needed" in err
    shutil.copy(bodies / "leg0.nii.gz", tmp_path / "leg0.nii.gz")
    twice = tmp_path / "twice.txt"
    twice.write_text(f"# two\n{tmp_path / 'leg0.nii.gz'}\n{bodies / 'leg0.nii.gz'}\n")
    place = ["--electrode", "0.014", "0.016", "0.018"]
    status, _, err = typed(capsys, str(twice), *place, "--output", str(tmp_path / "x"))
    assert "would both be called leg0" in err


@pytest.mark.slow
def test_a_body_without_its_electrodes_is_a_row_until_they_come(bodies, tmp_path, capsys):
    legs = tmp_path / "legs"
    legs.mkdir()
    for name in ("leg0.nii.gz", "leg2.nii.gz", "leg0.csv"):
        shutil.copy(bodies / name, legs / name)
    output = tmp_path / "out"
    status, out, err = typed(capsys, *words(legs, output))
    assert status == 1
    assert "failed: leg2_000:" in err
    assert "leg2.csv" in err
    shutil.copy(bodies / "leg2.csv", legs / "leg2.csv")
    status, out, _ = typed(capsys, *words(legs, output, "--retry"))
    assert status == 0, out
    assert "4 of 4 rows" in out
    # another file under the same name is seen by the table
    (output / "rows" / "leg0_001.json").unlink()
    shutil.copy(legs / "leg2.nii.gz", legs / "leg0.nii.gz")
    status, out, err = typed(capsys, *words(legs, output))
    assert status == 1
    assert "leg0: its files changed between its rows" in err


@pytest.mark.slow
def test_limbs_pairs_patches_and_fields(tmp_path, capsys):
    limbs = ["--limbs", "2", "--seed", "5", "--grid", "16", "12", "12", "--frame", "share"]
    places = ["--electrode", "0.3", "0.5", "0", "--electrode", "0.6", "0.5", "0"]
    pair = ["--returns", "0.5", "0.5", "1", "--patch", "0.02", "--nearest", "--fields", ".npz"]
    pair += ["--tolerance", "1e-8"]
    status, out, err = typed(capsys, *limbs, *places, *pair, "--output", str(tmp_path))
    assert status == 0, err
    found = rows(tmp_path)
    assert [*found] == [f"limb-000{n}_00{k}.json" for n in (5, 6) for k in (0, 1)]
    row = found["limb-0005_000.json"]
    assert row["ends"] == "pair"
    assert row["transfer"][0] > row["transfer"][1]  # of a patch its own voltage is known
    limb = ph.Limb.random(5, (16, 12, 12))
    with np.load(tmp_path / "fields" / "limb-0005_000.npz") as stored:
        assert stored["phi"].shape == limb.shape
        patch = ph.Patch(row["place"], 0.02).voxels(limb)
        back = limb.nearest(np.array([0.5, 0.5, 1]) * limb.extent)
        out = ph.Patch(back, 0.02).voxels(limb)
        volts = [stored["phi"][tuple(voxels.T)].mean() for voxels in (patch, out)]
    assert volts[0] - volts[1] == pytest.approx(row["transfer"][0])
    held = json.loads((tmp_path / "table.json").read_text())
    assert all(body["reciprocity"] < 1e-5 for body in held["bodies"])


@pytest.mark.slow
def test_each_body_has_its_own_diffusion_image(bodies, tmp_path, capsys):
    """{name}_dti.nii.gz beside each, in the same pattern; one is missing, and is a row."""
    D = np.zeros((10, 9, 9, 6), dtype=np.float32) + [2e-3, 5e-4, 0, 1e-3, 0, 1e-3]
    for name in ("leg0", "leg2"):
        for suffix in (".nii.gz", ".csv"):
            shutil.copy(bodies / f"{name}{suffix}", tmp_path / f"{name}{suffix}")
    nibabel.save(nibabel.Nifti1Image(D, AFFINE), tmp_path / "leg0_dti.nii.gz")
    output = tmp_path / "out"
    image = ["--tensors", "{name}_dti.nii.gz", "--tensor-order", "fsl"]
    status, out, err = typed(capsys, *words(tmp_path, output, *image))
    assert status == 1
    found = rows(output)
    assert [*found] == [f"leg{n}_00{k}.json" for n in (0, 2) for k in (0, 1)]
    assert "leg2_dti.nii.gz" in found["leg2_000.json"]["error"]
    assert "tensors (fsl, along fsl)" in found["leg0_000.json"]["notes"][-1]
    asked = ph.Tensors(tmp_path / "leg0_dti.nii.gz", order="fsl")
    body = ph.read_labels(tmp_path / "leg0.nii.gz", long_axis=0, tensors=asked)
    field = ph.solve(body, PLACES[0], 1.0, tolerance=1e-8, progress=False)
    volts = float(field.at(PLACES[1]))
    assert found["leg0_000.json"]["transfer"][1] == pytest.approx(volts, rel=1e-9)


@pytest.mark.slow
@pytest.mark.program
@pytest.mark.cluster
def test_the_job_script_runs_a_part_of_the_array(bodies, whole, tmp_path, capsys):
    """pbs/sweep.pbs as PBS starts it, with this Python: two jobs of three, killed once."""
    home = tmp_path / "home [1]"
    shutil.copytree(ROOT / "pbs", home / "pbs")
    (home / "train.py").write_text("")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (home / "pbs" / "site.sh").write_text(f"export PATH='{python.parent}':$PATH\n")
    (home / "sweep.txt").write_text("\n".join(words(bodies, "out")) + "\n")
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PBS_O_WORKDIR": str(home),
        "PBS_JOBID": "48213[1].pbs01",
        "PBS_ARRAY_INDEX": "1",
        "PARTS": "3",
        "NCPUS": "1",
        "OVERRIDES": "@sweep.txt",
        "WALLTIME": "01:00:00",
    }
    done = subprocess.run(
        ["bash", home / "pbs" / "sweep.pbs"], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr  # this part is the body that fails
    assert "[2/2] leg1_001: FAILED" in done.stdout
    assert "sweep 48213_1 failed with exit status 1: not submitted again" in done.stderr
    for part in ("0", "2"):
        typed(capsys, *words(bodies, home / "out", "--part", part, "--parts", "3"))
    assert rows(home / "out") == rows(whole[0])
    assert not list(Path(home).glob(".nodes*"))
