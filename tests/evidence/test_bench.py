"""The measuring scripts measure what they say, at a size of seconds; nothing here is held to a time."""

import json

import pytest

from physics_hybrid.evidence import peak_memory
from physics_hybrid.evidence.bench import bench
from physics_hybrid.problems.potential.evidence import step_overhead
from physics_hybrid.problems.potential.evidence.pages import fill, results

SMALL = ["data.grid=[16,12,12]", "model.backbone.modes=[3,3,3]", "model.backbone.width=8", "training.device=cpu", "training.threads=1"]


def test_overhead_compares_the_whole_step_with_the_bare_backbone_on_the_same_features():
    result = step_overhead.measure(SMALL, repeats=3)
    assert result["ratio"] == pytest.approx(result["whole_step_s"] / result["bare_step_s"])
    assert result["batch"] == [2, 16, 12, 12]
    assert result["backbone"].endswith("ResidualFNO")


def test_bench_trains_the_configured_model():
    b = bench([*SMALL, "model.composition=direct", "training.learning_rate=0.02"])
    assert b.trainer.model.composition == "direct"
    assert b.trainer.settings.learning_rate == 0.02
    first = b.trainer.step([b.batch])["loss"]
    for _ in range(60):
        last = b.trainer.step([b.batch])["loss"]
    assert last < 0.7 * first  # the step that is measured is one that learns


def test_peak_memory_of_a_step_grows_with_the_grid():
    small = peak_memory.one_step(SMALL)["peak_GB"]
    large = peak_memory.one_step([*SMALL, "data.grid=[96,48,48]"])["peak_GB"]
    assert large > small + 0.05


def test_readme_is_filled_from_the_files_of_a_run(tmp_path):
    (tmp_path / "evaluation").mkdir()
    statistics = {"mean": 0.1234567, "p95": 0.2}
    table = dict.fromkeys(("relative_l2", "rdm", "mag", "field_error", "charge_defect"), statistics)
    about = {"samples": {"48x24x24": 24}, "seed": 0, "hardware": "a CPU", "parameters": 5_300_000, "commit": "a" * 40, "torch": "2", "date": "2026-01-01", "checkpoint": "runs/x"}
    (tmp_path / "evaluation" / "metrics.json").write_text(json.dumps({**about, "48x24x24": table}))
    (tmp_path / "log.jsonl").write_text(json.dumps({"seconds": 300.0}) + "\n")
    text = fill("a\n<!-- results -->\nold\n<!-- /results -->\nb\n", "results", results(tmp_path))
    assert "| 48x24x24 | hybrid network | 0.123457 |" in text
    assert "24 unseen limbs" in text
    assert "5.0 min" in text
    assert "old" not in text
    assert text.startswith("a\n")
    assert text.endswith("b\n")
    with pytest.raises(ValueError, match="no place"):
        fill("nothing", "results", "x")


def test_readme_has_a_place_for_all_that_is_filled_in():
    from physics_hybrid.problems.potential.evidence.pages import ROOT

    text = (ROOT / "README.md").read_text()
    for name in ("results", "overhead", "memory", "shipped", "validation", "rates", "scaling", "matrix", "benchmark"):
        fill(text, name, "x")
