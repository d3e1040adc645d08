"""Studies: definitions that can run with equal budgets, resumption, failures, and numbers that are
what the runs say.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from physics_hybrid.configuration import know_times
from physics_hybrid.evidence.study import Cell, Study, prepare, run
from physics_hybrid.evidence.study_report import METRICS, collect, markdown, report, summarise
from physics_hybrid.problems.potential.evidence.pages import PAGES, worth
from physics_hybrid.report.pages import fill
from tests.conftest import ROOT

NAMES = sorted(p.stem for p in (ROOT / "conf" / "study").glob("*.yaml"))


def crossed(cells: list[Cell]) -> list[Cell]:
    """Every arm and every amount once: composing all of their pairs takes minutes."""
    return [c for c in cells if c.arm == cells[0].arm or c.samples == cells[0].samples]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_composes_and_all_make_the_same_number_of_steps(name):
    """Those of Burgers, of a hundred samples and of rivals, the same seconds: networks cost what
    they cost."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    study = Study.read(name)
    know_times()
    steps = set()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        for cell in crossed(study.cells(Path("a folder [1]"), seeds=study.seeds[:1])):
            config = OmegaConf.to_container(
                compose("config", overrides=["run=x", *cell.overrides]), resolve=True
            )
            data = config["data"]
            if "train_samples" not in data:  # a stored set: an epoch is all of it
                steps.add(config["training"]["epochs"])
                continue
            steps.add(
                config["training"]["epochs"]
                * -(-(data["train_samples"] or data["samples_per_epoch"]) // data["batch_size"])
            )
            assert config["runs_folder"] == "a folder [1]"
            assert config["seed"] == study.seeds[0]
    assert len(steps) == 1 or name in ("burgers", "hundred_samples", "rivals")
    assert len({c.name for c in study.cells(Path("x"))}) == len(study.seeds) * len(
        study.samples
    ) * len(study.arms)


def test_the_study_of_the_hybrid_has_the_arms_that_were_asked_for():
    words = " ".join(" ".join(v) for v in Study.read("hybrid_value").arms.values())
    for word in (
        "composition=direct",
        "composition=additive",
        "kind=anisotropic",
        "kind=coarse_solve",
        "coarsen=4",
        "pde.weight=0.1",
        "charge.weight=0.1",
        "gradient.weight=0",
    ):
        assert word in words
    assert len(Study.read("hybrid_value").cells(Path("x"))) - 1 == int(
        (ROOT / "pbs" / "study.pbs").read_text().split("#PBS -J 0-")[1].split()[0]
    )


def write_run(cell: Cell, output: Path, error: float, steps: int = 10) -> None:
    """What train.py leaves, as far as a study reads it."""
    folder = output / cell.name
    (folder / "evaluation").mkdir(parents=True)
    table = {m: {"mean": error} for m in METRICS}
    about = {"parameters": 1000, "commit": "a" * 40, "hardware": "a CPU", "samples": {"8x8x8": 3}}
    (folder / "evaluation" / "metrics.json").write_text(
        json.dumps({**about, "8x8x8": table, "16x16x16": table})
    )
    (folder / "log.jsonl").write_text(json.dumps({"step": steps, "seconds": 2.0}) + "\n")
    data = {"samples_per_epoch": 20, "train_samples": None if cell.samples == "streamed" else 4}
    (folder / "config.yaml").write_text(yaml.safe_dump({"training": {"epochs": 1}, "data": data}))


@pytest.fixture
def tiny():
    return Study.read("hybrid_value_tiny")


def test_finished_cells_are_skipped_failures_do_not_stop_the_others_and_a_saved_one_does(
    tiny, tmp_path, capsys
):
    cells = tiny.cells(tmp_path)
    asked = []

    def launch(cell, output):
        asked.append(cell.name)
        if cell == cells[1]:
            (output / "cells" / f"{cell.name}.log").write_text("epoch 1\nerror: no such grid\n")
            return 1
        if cell == cells[3]:
            return 85
        write_run(cell, output, 0.1)
        return 0

    with pytest.raises(SystemExit) as left:
        run(cells, tmp_path, launch)
    assert left.value.code == 85
    assert asked == [c.name for c in cells]
    asked.clear()
    failures = run(cells[:3], tmp_path, launch)
    assert asked == [cells[1].name]
    assert len(failures) == 1
    assert "exit status 1: error: no such grid" in failures[0]
    assert str(tmp_path) in failures[0]
    assert "finished before" in capsys.readouterr().out
    assert "Not finished: 2 of 4 runs" in report(cells, tiny, tmp_path)
    with pytest.raises(ValueError, match="other overrides .* another --output"):
        run(tiny.cells(tmp_path, extra=["training.epochs=3"]), tmp_path, launch)


def test_means_spreads_and_paired_ratios(tiny, tmp_path):
    errors = {
        ("direct", 0): 0.4,
        ("direct", 1): 0.2,
        ("multiplicative, coarse 1/2", 0): 0.1,
        ("multiplicative, coarse 1/2", 1): 0.1,
    }
    cells = tiny.cells(tmp_path, seeds=[0, 1])
    for cell in cells:
        write_run(cell, tmp_path, errors[cell.arm, cell.seed])
    rows = collect(cells, tmp_path)
    summary = summarise(rows, tiny)
    direct, hybrid = summary[:2]
    assert direct["grids"]["8x8x8"]["relative_l2"] == pytest.approx(
        {"mean": 0.3, "std": 0.1 * 2**0.5, "count": 2}
    )
    # 1/4 and 1/2, seed by seed
    assert hybrid["grids"]["8x8x8"]["ratio"] == pytest.approx(
        {"mean": 0.375, "std": 0.125 * 2**0.5, "count": 2}
    )
    assert [s["distinct_samples"] for s in summary] == [4, 4, 20, 20]
    table = report(cells, tiny, tmp_path)
    assert "| 4 | direct | 0.3 ± 0.1 |" in table
    assert "10 optimiser steps each" in table
    assert "3 unseen limbs" in table
    assert (tmp_path / "study.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "study.json").read_text())["missing"] == []
    (tmp_path / "docs").mkdir()
    page = fill("<!-- study -->\nold\n<!-- /study -->\n", "study", worth(tmp_path, tmp_path))
    assert table in page
    assert "old" not in page
    assert "](hybrid_value_tiny.png)" in page
    assert (tmp_path / "docs/hybrid_value_tiny.png").exists()
    rows[0]["steps"] = 11
    assert "unequal budgets: 10, 11" in markdown(summarise(rows, tiny), rows, tiny)


def test_baselines_alone_have_lines_of_their_own_and_may_be_the_reference(tiny, tmp_path):
    study = dataclasses.replace(tiny, alone={"direct": "closed form"}, reference="closed form")
    cells = study.cells(tmp_path)
    for cell in cells:
        write_run(cell, tmp_path, 0.1)
        path = tmp_path / cell.name / "evaluation" / "metrics.json"
        about = json.loads(path.read_text())
        about["8x8x8"]["baseline_relative_l2"] = {"mean": 0.4}
        path.write_text(json.dumps(about))
    text = report(cells, study, tmp_path)
    assert "| 4 | closed form | 0.4 | 0.1 | 1 | 1 |" in text
    assert "| 4 | direct | 0.1 | 0.1 | 0.25 | 1 |" in text
    assert "10 optimiser steps each" in text


def test_runs_of_any_problem_are_compared_by_what_they_are_monitored_by(tiny, tmp_path):
    cells = tiny.cells(tmp_path)
    for cell in cells:
        write_run(cell, tmp_path, 0.1)
        path = tmp_path / cell.name / "evaluation" / "metrics.json"
        table = {"seconds": {"mean": 1.0}, "crps": {"mean": 0.2}, "baseline_crps": {"mean": 0.4}}
        about = {k: v for k, v in json.loads(path.read_text()).items() if k[0] not in "18"}
        path.write_text(json.dumps({**about, "monitor": "crps", "nu 0.001": table}))
    text = report(cells, tiny, tmp_path)
    assert "| crps, nu 0.001 | over direct, nu 0.001 | baseline alone, nu 0.001 |" in text
    assert "| 4 | direct | 0.2 | 1 | 0.4 |" in text


def command(*words):
    return [sys.executable, "-m", "physics_hybrid", "study", *map(str, words)]


@pytest.mark.program
def test_one_cell_by_its_number_as_a_user_types_it(tiny, tmp_path):
    """In a folder whose name Hydra would read as a list; then the report from what is there."""
    output = tmp_path / "out of [7]"
    words = (
        "hybrid_value_tiny",
        f"data.folder={tmp_path / 'data'}",
        "evaluation.resolutions=[[16,12,12]]",
        "--output",
        output,
    )
    done = subprocess.run(
        command(*words, "--array-index", 3), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (
        done.stdout + done.stderr + "".join(p.read_text() for p in output.glob("cells/*.log"))
    )
    cell = tiny.cells(output)[3]
    assert (output / cell.name / "best").exists()
    assert (
        yaml.safe_load((output / cell.name / "config.yaml").read_text())["model"]["baseline"][
            "kind"
        ]
        == "coarse_solve"
    )
    (row,) = collect(tiny.cells(output), output)
    assert row["arm"] == cell.arm
    assert row["steps"] == 8
    assert row["distinct_samples"] == 8
    alone = row["grids"]["16x12x12"]
    assert 0 < alone["relative_l2"] < 0.3
    assert alone["baseline_relative_l2"] < 0.3
    assert "Not finished: 3 of 4 runs" in report(tiny.cells(output), tiny, output)


@pytest.mark.slow
def test_a_real_failure_is_reported_and_a_job_script_gets_the_overrides(tmp_path):
    bad = tmp_path / "bad.yaml"
    shutil.copy(ROOT / "conf/study/hybrid_value_tiny.yaml", bad)
    bad.write_text(bad.read_text().replace("model.composition=direct", "model.compositoin=direct"))
    done = subprocess.run(
        command(bad, "--output", tmp_path / "o", "--array-index", 0),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "direct_4_seed0: exit status 2" in done.stderr
    assert "did you mean" in done.stderr
    study = Study.read(str(bad))
    path = prepare(study.cells(tmp_path / "o")[2], tmp_path / "o")
    assert path.name == "direct_streamed_seed0.txt"
    assert "model.compositoin=direct" in path.read_text().splitlines()


@pytest.mark.parametrize("name", ["study", "hundred_samples"])
def test_there_is_a_place_for_it(name):
    fill((ROOT / PAGES[name]).read_text(), name, "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("arms: {}", "has the keys"),
        (None, "hybrid_value_tiny"),
        (
            yaml.safe_dump(
                {
                    "common": [],
                    "seeds": [0],
                    "samples": {"a": []},
                    "arms": {"x": []},
                    "reference": "y",
                    "panels": {},
                }
            ),
            "name y",
        ),
        (
            yaml.safe_dump(
                {
                    "common": [],
                    "seeds": [0],
                    "samples": {"a": []},
                    "arms": {"x y": [], "x, y": []},
                    "reference": "x y",
                    "panels": {},
                }
            ),
            "share a folder",
        ),
    ],
)
def test_a_study_that_is_none_says_what_to_write(tmp_path, content, message):
    if content:
        (tmp_path / "s.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        Study.read(str(tmp_path / "s.yaml") if content else "nothing")
