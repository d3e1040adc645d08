"""The measuring scripts measure what they say, at a size of seconds; nothing here is held to a
time.
"""

import json
import re

import pytest

from physics_hybrid.evidence import peak_memory
from physics_hybrid.evidence.bench import bench
from physics_hybrid.problems.burgers.evidence import pages as burgers
from physics_hybrid.problems.flavour.evidence import pages as flavour
from physics_hybrid.problems.potential.evidence import step_overhead
from physics_hybrid.problems.potential.evidence.pages import (
    PAGES,
    ROOT,
    linked,
    put,
    results,
    shipped,
)
from physics_hybrid.problems.ptychography.evidence import pages as ptychography
from physics_hybrid.report.pages import fill

SMALL = [
    "data.grid=[16,12,12]",
    "model.backbone.modes=[3,3,3]",
    "model.backbone.width=8",
    "training.device=cpu",
    "training.threads=1",
]


def test_overhead_compares_the_whole_step_with_the_bare_backbone_on_the_same_features():
    result = step_overhead.measure(SMALL, repeats=3)
    assert result["ratio"] == pytest.approx(result["whole_step_s"] / result["bare_step_s"])
    assert result["batch"] == [1, 16, 12, 12]
    assert result["backbone"].endswith("ResidualFNO")


@pytest.mark.slow
def test_bench_trains_the_configured_model():
    b = bench([*SMALL, "model.composition=direct", "training.learning_rate=0.02"])
    assert b.trainer.model.composition == "direct"
    assert b.trainer.settings.learning_rate == 0.02
    first = b.trainer.step([b.batch])["loss"]
    for _ in range(60):
        last = b.trainer.step([b.batch])["loss"]
    assert last < 0.7 * first  # the step that is measured is one that learns


@pytest.mark.slow
def test_peak_memory_of_a_step_grows_with_the_grid():
    small = peak_memory.one_step(SMALL)["peak_GB"]
    large = peak_memory.one_step([*SMALL, "data.grid=[96,48,48]"])["peak_GB"]
    assert large > small + 0.05


def test_readme_is_filled_from_the_files_of_a_run(tmp_path):
    (tmp_path / "evaluation").mkdir()
    statistics = {"mean": 0.1234567, "p95": 0.2}
    table = dict.fromkeys(("relative_l2", "rdm", "mag", "field_error", "charge_defect"), statistics)
    about = {
        "samples": {"48x24x24": 24},
        "seed": 0,
        "hardware": "a CPU",
        "parameters": 5_300_000,
        "commit": "a" * 40,
        "torch": "2",
        "date": "2026-01-01",
        "checkpoint": "runs/x",
    }
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


def test_the_table_of_the_shipped_model_says_where_it_was_trained_and_where_it_was_tested():
    """Often two machines."""
    tested = {"hardware": "a CPU", "commit": "b" * 40, "torch": "2", "date": "2026-01-02"}
    metrics = dict.fromkeys(("relative_l2", "rdm", "mag", "field_error", "charge_defect"))
    about = {
        **tested,
        "trained": {**tested, "hardware": "a GPU", "commit": "a" * 40, "date": "2026-01-01"},
        "training_seconds": 300.0,
        "samples": {"48x24x24": 24},
        "seed": 0,
        "parameters": 1_900_000,
        "bytes": 8_000_000,
        "metrics": {"0": {"48x24x24": dict.fromkeys(metrics, {"mean": 0.1, "p95": 0.2})}},
    }
    text = shipped(about)
    assert "for 5 min on a GPU, commit aaaaaaaaaa" in text
    assert "24 limbs at 48x24x24, a CPU, commit bbbbbbbbbb" in text


def pages():
    """README.md and the pages of docs/, by their place."""
    return {
        p.relative_to(ROOT).as_posix(): p
        for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    }


def test_every_table_has_one_place_and_no_place_is_forgotten():
    places = {}
    for page, path in pages().items():
        text = path.read_text()
        for name in re.findall(r"^<!-- (\w+) -->$", text, re.MULTILINE):
            assert name not in places, f"{name} is on {places.get(name)} and on {page}"
            assert "\nx\n" in fill(text, name, "x")
            places[name] = page
    known = {
        **PAGES,
        **dict.fromkeys(flavour.TABLES, flavour.PAGE),
        **dict.fromkeys(burgers.TABLES, burgers.PAGE),
        **{name: page for name, (page, _) in ptychography.TABLES.items()},
    }
    assert places == known


def test_a_table_goes_to_its_page_and_to_no_other(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in {*PAGES.values()}:
        (tmp_path / page).write_text(
            "".join(f"<!-- {n} -->\nold\n<!-- /{n} -->\n" for n, p in PAGES.items() if p == page)
        )
    before = {page: (tmp_path / page).read_text() for page in PAGES.values()}
    put("rates", "new", tmp_path)
    changed = [page for page, text in before.items() if (tmp_path / page).read_text() != text]
    assert set(changed) == {"docs/truth.md"}
    assert (tmp_path / "docs/truth.md").read_text() == before["docs/truth.md"].replace(
        "<!-- rates -->\nold", "<!-- rates -->\nnew"
    )
    (tmp_path / "docs/truth.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"docs/truth\.md has no place for 'rates'"):
        put("rates", "new", tmp_path)


def test_a_picture_is_linked_from_where_its_page_lies(monkeypatch):
    assert linked("a.png", "benchmark") == "a.png"
    assert linked("a.png", "results") == "docs/a.png"
    monkeypatch.setitem(PAGES, "benchmark", "docs/more/benchmark.md")
    assert linked("a.png", "benchmark") == "../a.png"


def headings(text):
    """As mkdocs and code hosts make them into anchors."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(p for p in pages() if p != "README.md")],
)
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    for link in links:
        place, _, anchor = link.partition("#")
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in headings(target.read_text()), f"{page} links to {link}"
