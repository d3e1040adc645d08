"""A run remembers which samples it is trained on, goes on with no others, and tests them apart."""

import json

import numpy as np
import pytest
import torch

from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.run import splits
from physics_hybrid.run.folder import PLACES, changed
from physics_hybrid.run.train import train
from tests.conftest import composed

BEFORE = {
    "train": [("a/0.npz", "f0"), ("a/1.npz", "f1"), ("a/2.npz", "f2")],
    "validation": [("a/3.npz", "f3")],
    "test": [("a/4.npz", "f4")],
}


def test_what_is_remembered_is_recalled(tmp_path):
    assert splits.recall(tmp_path) is None
    splits.remember(tmp_path, BEFORE)
    assert splits.recall(tmp_path) == BEFORE
    (tmp_path / splits.FILE).write_text('{"train": [["a"')
    with pytest.raises(CheckpointError, match="splits.json is damaged"):
        splits.recall(tmp_path)
    (tmp_path / splits.FILE).write_text('{"train": 3}')
    with pytest.raises(CheckpointError, match="splits.json is damaged"):
        splits.recall(tmp_path)


def test_samples_are_known_by_content(tmp_path):
    moved = {k: [(f"b/{s}", f) for s, f in part] for k, part in BEFORE.items()}
    assert splits.hold(BEFORE, moved, tmp_path) is None
    turned = {**moved, "train": moved["train"][::-1]}
    assert "not to the same bits" in splits.hold(BEFORE, turned, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": BEFORE["train"][:2]}, ": gone: 2.npz. To"),
        ({"train": [*BEFORE["train"], ("a/9.npz", "f9")]}, ": new: 9.npz. To"),
        ({"train": [*BEFORE["train"][:2], ("a/2.npz", "g2")]}, ": gone: 2.npz; new: 2.npz. To"),
        ({"train": [*BEFORE["train"], ("a/copy.npz", "f2")]}, ": new: 2.npz, copy.npz. To"),
        (
            {"validation": BEFORE["test"], "test": BEFORE["validation"]},
            ": in another split: 4.npz, 3.npz. To",
        ),
        (
            {"train": BEFORE["train"][1:] + BEFORE["test"], "test": []},
            ": gone: 0.npz; in another split: 4.npz. To",
        ),
    ],
)
def test_other_samples_are_an_error_that_names_them(tmp_path, change, said):
    with pytest.raises(CheckpointError, match="begun with other samples") as error:
        splits.hold(BEFORE, {**BEFORE, **change}, tmp_path)
    assert said in str(error.value)


def test_files_that_are_known_by_content_may_lie_elsewhere():
    before = {"data": {"path": "a", "tissues": "t.yaml", "batch_size": 2}}
    now = {"data": {"path": "b", "tissues": "u.yaml", "batch_size": 2}}
    assert changed(before, now, free=PLACES) == {}
    assert len(changed(before, now)) == 2
    inline = {"data": {**before["data"], "tissues": {"muscle": {"label": 3}}}}
    assert changed(inline, before, free=PLACES) == {"data.tissues.muscle.label": (3, None)}


def test_many_samples_are_counted(tmp_path):
    many = {"train": [(f"{i}.npz", f"f{i}") for i in range(50)]}
    with pytest.raises(CheckpointError, match="5.npz and 44 more"):
        splits.hold(many, {"train": []}, tmp_path)


def test_used_samples_are_found_under_any_name_and_said():
    now = {"test": [("x/p", "f1"), ("x/q", "f4"), ("x/r", "f3"), ("x/s", "new")]}
    used = splits.used(BEFORE, now)
    assert used == {"x/p": "train", "x/r": "validation"}
    train_line, validation_line = splits.remarks(used, 4)
    assert "1 of 4 samples belong to the train split of this run" in train_line
    assert "..._train (p)" in train_line
    assert "..._validation (r)" in validation_line
    assert splits.remarks({}, 4) == []


def test_a_run_that_does_not_know_says_so_of_samples_that_are_the_users():
    from physics_hybrid.run.evaluate import _remarks

    (said,) = _remarks(None, BEFORE, {"a/4.npz"})
    assert "It is not known which samples this model was trained on" in said
    assert _remarks(None, {}, set()) == _remarks({}, {}, set()) == _remarks(BEFORE, {}, set()) == []
    assert _remarks({}, BEFORE, {"a/4.npz"}) == []  # trained on limbs that are drawn


def test_only_what_was_tested_is_said_to_be_used():
    """The other splits of the run's own data were opened, too, and not tested."""
    from physics_hybrid.run.evaluate import _remarks

    tested = {name for name, _ in BEFORE["test"]}
    assert _remarks(BEFORE, BEFORE, tested) == []
    everything = {"train": [], "test": [sample for part in BEFORE.values() for sample in part]}
    assert _remarks(BEFORE, everything, tested) == []  # samples=1
    (said,) = _remarks(BEFORE, BEFORE, {BEFORE["train"][0][0]})  # split=train
    assert said.startswith("1 of 1 samples belong to the train split")


def test_samples_that_are_drawn_from_a_body_of_the_run_are_said_to_be():
    """They have names of their own, and no rows apart: one body may serve all splits."""
    from physics_hybrid.run.evaluate import _remarks

    body = [("thigh.nii.gz", "f")]
    for now in ({"train": [], "test": body}, {"train": body, "test": body}):
        (said,) = _remarks({"train": body}, now, {"limbs.h5[0]", "limbs.h5[1]"})
        assert said.startswith("Samples are drawn from what the train split of this run")
        assert "thigh.nii.gz" in said
        assert "rows" not in said
    other = {"train": body, "test": [("calf.nii.gz", "g")]}
    assert _remarks(other, other, {"limbs.h5[0]"}) == []


# --- with the flagship


@pytest.fixture
def folder(tmp_path, limbs):
    """Eight solved limbs in files of their own."""
    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver

    place = tmp_path / "mine"
    place.mkdir()
    batch = LimbStream(limbs, (12, 10, 10), 9, "train", Solver(), torch.device("cpu")).batch(
        range(8)
    )
    for i in range(8):
        np.savez(
            place / f"s{i}.npz",
            sigma=np.moveaxis(batch.sigma[i].numpy(), 0, -1),
            source=batch.source[i].numpy(),
            u=batch.u[i].numpy(),
            spacing=batch.spacing[i].numpy(),
        )
    return place


@pytest.mark.slow
def test_a_run_on_files_goes_on_with_its_samples_and_tests_them_apart(
    folder, tmp_path, monkeypatch, capsys, typed, blank_pictures
):
    def go_on(path, *overrides):
        words = [f"data.path={path}", "training.epochs=1", *overrides]
        return train(composed(tmp_path, "a", words, ("files", "fno")))

    quiet = ["evaluation.after_training=false"]
    run = go_on(folder, *quiet)
    held = json.loads((run / splits.FILE).read_text())
    parts = {part: [name.rsplit("/", 1)[1] for name, _ in held[part]] for part in held}
    assert {part: len(names) for part, names in parts.items()} == {
        "train": 6,
        "validation": 1,
        "test": 1,
    }

    # moved, and named relatively
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "moved")
    capsys.readouterr()
    assert go_on("moved", *quiet) == run
    assert "training is complete already" in capsys.readouterr().out

    # the same samples, all of them: what the run has used is apart
    done = typed("evaluate", f"checkpoint={run}", "data=files", "data.path=moved", "output=all")
    metrics = json.loads((tmp_path / "all/metrics.json").read_text())
    assert metrics["samples"] == {"12x10x10": 1, "12x10x10_train": 6, "12x10x10_validation": 1}
    assert metrics["12x10x10"]["relative_l2"] != metrics["12x10x10_train"]["relative_l2"]
    report = (tmp_path / "all/report.md").read_text()
    for text in (done.stdout, report):
        assert "6 of 8 samples belong to the train split of this run" in text
        assert ", ".join(parts["train"]) in text
        assert "| 12x10x10_train | hybrid network |" in text

    # a run that does not know its samples knows its data by their place
    (run / splits.FILE).rename(tmp_path / "kept.json")
    with pytest.raises(CheckpointError, match="data.path"):
        go_on("elsewhere")
    (tmp_path / "kept.json").rename(run / splits.FILE)

    # files renamed, then taken away
    moved, gone = tmp_path / "moved", parts["train"][0]
    (moved / gone).rename(moved / "zz.npz")
    go_on("moved", *quiet)
    assert "files have other names" in capsys.readouterr().err
    (moved / "zz.npz").unlink()
    with pytest.raises(CheckpointError, match=f"other samples: gone: {gone}"):
        go_on("moved", *quiet)


def test_a_run_without_a_test_split_trains_and_says_so(
    folder, tmp_path, capsys, typed, blank_pictures
):
    words = [f"data.path={folder}", "training.epochs=1", "data.splits=80/20"]
    run = train(composed(tmp_path, "a", words, ("files", "fno")))
    out = capsys.readouterr().out
    assert "there is no test split: nothing is tested" in out
    held = splits.recall(run)
    assert [len(held[part]) for part in ("train", "validation", "test")] == [7, 1, 0]
    assert not (run / "evaluation").exists()
    failed = typed("evaluate", f"checkpoint={run}", expect=1)
    assert "its data leave nothing to test" in failed.stderr
