"""Homes that cannot be written, and figures that cannot be drawn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from physics_hybrid import caches
from physics_hybrid.report.plots import spared
from tests import test_seam
from tests.conftest import ROOT


@pytest.fixture
def surrounded(monkeypatch, tmp_path):
    """Only the variables that are given, and a temporary folder of our own."""

    def call(**variables):
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", *caches.CACHES):
            monkeypatch.setenv(name, "")  # put back at the end, whatever is set until then
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(caches.tempfile, "gettempdir", lambda: str(tmp_path))
        caches.find_room()
        return {name: os.environ.get(name) for name in caches.CACHES}

    return call


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_a_home_that_can_be_written_is_left_alone(surrounded, tmp_path, capsys):
    assert set(surrounded(HOME=tmp_path).values()) == {None}
    assert set(surrounded(HOME=tmp_path / "not" / "yet").values()) == {None}
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.iterdir())  # nothing is made where nothing is needed


def test_else_caches_lie_in_a_temporary_folder_and_the_variables_are_said(
    surrounded, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("")
    room = str(tmp_path / f"physics_hybrid-{os.getuid()}")
    both = {"WARP_CACHE_PATH": room, "MPLCONFIGDIR": room}
    assert surrounded(HOME=tmp_path / "file") == both
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in (*both, room):
        assert word in said
    assert Path(room).stat().st_mode & 0o777 == 0o700
    # one that a user has set himself, and can use, stays
    mine = tmp_path / "mine"
    assert surrounded(HOME=tmp_path / "file", WARP_CACHE_PATH=mine)["WARP_CACHE_PATH"] == str(mine)
    assert surrounded(HOME=tmp_path / "file", XDG_CACHE_HOME=mine)["WARP_CACHE_PATH"] is None
    assert surrounded(HOME=tmp_path, MPLCONFIGDIR=tmp_path / "file/x")["MPLCONFIGDIR"] == room
    monkeypatch.setattr(caches.Path, "home", no_home)
    assert set(surrounded().values()) == {None}
    assert os.environ["HOME"] == room  # for all that lies below it
    assert "(HOME chooses another place)" in capsys.readouterr().err


def test_a_folder_that_is_not_ours_is_not_used(surrounded, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"physics_hybrid-{os.getuid()}").symlink_to(tmp_path / "theirs")
    room = Path(surrounded(HOME=tmp_path / "file")["WARP_CACHE_PATH"])
    assert room.resolve() != tmp_path / "theirs"


DRAW = """
import sys
from pathlib import Path
from physics_hybrid.report.plots import pyplot, save
save(pyplot().figure(), Path(sys.argv[1]))
print(pyplot().get_backend())
"""


def test_a_notebooks_backend_does_not_keep_a_program_from_drawing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(tmp_path / "x.png")],
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "module://nobody.has_this"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().lower() == "agg"
    assert (tmp_path / "x.png").stat().st_size > 0


def test_figures_that_fail_cost_no_report(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("Key backend: no such thing\nand more")

    monkeypatch.setattr("physics_hybrid.run.train.training_curve", fail)
    monkeypatch.setattr(test_seam.Amplitudes, "picture", fail)
    monkeypatch.setattr(test_seam.Pendulum, "summary", fail)
    test_seam.train_here(tmp_path, "run=r", "training.epochs=1")
    metrics = json.loads((tmp_path / "runs/r/evaluation/metrics.json").read_text())
    assert metrics["small"]["relative_error"]["mean"] > 0
    assert "| large |" in (tmp_path / "runs/r/evaluation/report.md").read_text()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert len(warnings) == 4
    assert warnings[0] == "WARNING: no training curve: Key backend: no such thing"


def test_only_errors_are_spared():
    with pytest.raises(SystemExit), spared("picture"):
        raise SystemExit(143)
