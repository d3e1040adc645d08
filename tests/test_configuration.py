"""What a key may hold, and what is said of words that do not fit."""

import shutil

import pytest
import yaml

from physics_hybrid import kinds
from physics_hybrid.configuration import check_overrides, composing, options_of, resolved
from physics_hybrid.evidence.bench import configuration
from physics_hybrid.kinds import Kind, UsageError
from tests.conftest import ROOT

CONF = ROOT / "conf"


def said(*words, name="config", folder=CONF) -> str:
    """What is said of words that are refused: one line."""
    with pytest.raises(UsageError) as refused:
        check_overrides(folder, name, [*words])
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("loss.exclude_radius=null", "a number"),
        ("training.weight_decay=[0.1]", "a number"),
        ("training.betas=[0.9,0.99,0.999]", "a list of 2 numbers"),
        ("training.betas=0.9", "a list of 2 numbers"),
        ("training.accumulate=null", "a whole number"),
        ("training.warmup_steps=2.5", "a whole number"),
        ("seed=true", "a whole number"),
        ("training.threads=all", "a whole number or null"),
        ("data.solve=null", "a group of keys"),
        ("data.train_samples=some", "a whole number or null"),
        ("data.phantom.bones=[1]", "a list of 2 whole numbers"),
        ("data.phantom.sigma.fat=0.05", "a list of 3 numbers"),
        ("data.phantom.sigma={fat: [0.05,x,0.05]}", "a list of 3 numbers"),
        ("data.grids=[48,24,24]", r"a list of grids such as [[48,24,24],[96,48,48]] or null"),
        ("evaluation.after_training=maybe", "true or false or null"),
        ("evaluation.distance_bins=near", "a list of numbers"),
        ("runs_folder=[a,b]", "one path"),
        ("run=[a,b]", "a word or null"),
        ("training.init_from=[runs/a,runs/b]", "one path or null"),
        ("training.precision=null", "a word"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_key_kind_and_value(word, expected):
    key, value = word.split("=", 1)
    message = said(word)
    assert f": {expected} is expected here" in message
    if not value.startswith("{"):
        assert message.startswith(f"{key}={value}: ")


def test_numbers_that_name_something_stay_as_they_are_typed():
    typed = ["run=1e3", "runs_folder=007", "training.init_from=1_0", "seed=7"]
    assert check_overrides(CONF, "config", typed) == [
        "run='1e3'",
        "runs_folder=007",
        "training.init_from='1_0'",
        "seed=7",
    ]
    config = configuration([*typed[:3], "data=files", "data.path=20240101"])
    assert (config["run"], config["runs_folder"]) == ("1e3", "007")
    assert config["training"]["init_from"] == "1_0"
    assert config["data"]["path"] == "20240101"
    words = ["checkpoint=2024", "output=nan", "reference=true", "samples=3"]
    assert check_overrides(CONF, "evaluate", words)[:3] == [
        "checkpoint='2024'",
        "output='nan'",
        "reference='true'",
    ]
    assert check_overrides(CONF, "config", ["-m", "run=1e3,x,2"])[1] == "run='1e3',x,'2'"
    assert check_overrides(CONF, "config", ["-m", "run=sort(2,1)"])[1] == "run=sort(2,1)"


def test_one_word_where_a_list_of_words_belongs_and_several_where_one_may_stand():
    config = configuration(["data=labels", "data.source_tissues=fat", "loss.mask=[muscle,fat]"])
    assert config["data"]["source_tissues"] == ["fat"]
    assert config["loss"]["mask"] == ["muscle", "fat"]
    assert configuration(["model.baseline.sigma_ref=0.3"])["model"]["baseline"]["sigma_ref"] == 0.3


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["data=labels", "data.tissues.muscel.label=[3]"], "data.tissues.muscle.label?"),
        (["data=labels", "data.tissues.bnoe.sigma=[1]"], "data.tissues.bone.sigma?"),
        (["training.cliping.mode=agc"], "training.clipping.mode?"),
        (["data.phantom.sigma.musle=[1,1,1]"], "data.phantom.sigma.muscle?"),
        (["training.clipping={treshold: 1}"], "training.clipping.threshold?"),
        (["batch_size=2"], "data.batch_size or evaluation.batch_size?"),
        (["model=fnoo"], "model=fnoo; there are burgers_"),
        (["model=_shared"], "there is no model=_shared"),
        (["data.splits={train: 1}"], "belongs to data=emu, data=files, data=flavour, data=labels"),
        (["data=files", "data.grid=[9,9,9]"], "data=generated, data=labels, data=stream"),
        (["+training.epochz=3"], "training.epochs?"),
        (["+unknown.key=1"], "no key 'unknown.key'"),
        (["++data.tissues.nerve={label: [5]}"], "no key 'data.tissues.nerve'"),
        (["~training.epochs"], "~training.epochs: this cannot be taken away"),
        (["~loss"], "~loss: this cannot be taken away"),
    ],
)
def test_an_unknown_key_gets_the_nearest(words, near):
    assert near in said(*words)


def test_tables_grow_and_shrink_and_constructors_take_what_they_know():
    words = ["data=labels", "+data.tissues.nerve={label: [5], sigma: [0.3]}", "~data.tissues.bone"]
    words += ["+model.backbone.padding=2", "++training.epochs=3", "~experiment"]
    assert check_overrides(CONF, "config", words) == words


def test_several_values_are_for_several_jobs():
    for word in ("model=fno,unet", "experiment=quickstart,longer", "training.epochs=1,2"):
        assert "add --multirun" in said(word)
    # a key of any of the options
    words = ["-m", "model=fno,unet", "model.backbone.levels=2", "training.epochs=1,2"]
    assert check_overrides(CONF, "config", words) == words
    assert "training.epochs=two" in said("-m", "training.epochs=1,two")
    assert "there is no model=unett" in said("-m", "model=fno,unett")


def test_a_value_that_refers_to_nothing_is_said_by_key(monkeypatch):
    monkeypatch.delenv("NO_SUCH_DISK", raising=False)
    with pytest.raises(UsageError) as refused:
        configuration(["data.stage_to=${oc.env:NO_SUCH_DISK}"])
    assert str(refused.value).startswith("data.stage_to: the variable NO_SUCH_DISK that")
    assert "\n" not in str(refused.value)
    with composing(CONF):
        from hydra import compose

        evaluate = compose("evaluate")
    with pytest.raises(UsageError, match=r"^checkpoint=\.\.\. is needed"):
        resolved(CONF, "evaluate", evaluate, [])


def test_files_of_experiments_are_held_to_the_same(tmp_path):
    conf = shutil.copytree(CONF, tmp_path / "conf")

    def written(text):
        name = f"mine{len(list((conf / 'experiment').iterdir()))}"
        (conf / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}\n")
        return f"experiment={name}"

    unknown = written("training: {epochss: 3}")
    assert "no key 'training.epochss'; did you mean training.epochs?" in said(unknown, folder=conf)
    with composing(conf):
        from hydra import compose

        words = [written("training: {betas: [0.9]}")]
        with pytest.raises(UsageError, match=r"training.betas=\[0.9\]: a list of 2 numbers"):
            resolved(conf, "config", compose("config", words), words)
        words = [written("training: {init_from: 20240101}")]
        config = resolved(conf, "config", compose("config", words), words)
        assert config["training"]["init_from"] == "20240101"


@pytest.mark.slow
def test_every_default_is_of_a_known_kind():
    """A default that says nothing (null) is in conf/kinds.yaml, and nothing is there that is not in
    conf.
    """
    from physics_hybrid.configuration import kinds as kinds_of

    exceptions, known = yaml.safe_load((CONF / "kinds.yaml").read_text()), {}
    for group in ("data", "model", "problem", "loss", "evaluation", "tracker"):
        for option in options_of(CONF, "config")[group]:
            known |= kinds_of(CONF, "config", (f"{group}={option}",))
    known |= kinds_of(CONF, "evaluate", ())
    unsaid = [
        key
        for key, kind in known.items()
        if kind.names in (("null",), ("anything",)) and not key.endswith("_target_")
    ]
    assert [key for key in unsaid if not key.startswith("data.tissues.")] == []
    assert {key.removesuffix(".*") for key in exceptions} <= set(known)


@pytest.mark.parametrize(
    ("default", "good", "bad"),
    [
        (True, [False], [0, 1, None, "x"]),
        (3, [0, -1], [True, 2.0, None, "3", [3]]),
        (0.5, [1, 2.0], [True, None, "x", [1]]),
        ([1, 2], [[3, 4]], [[1], [1, 2.5], [True, 2], None, 5]),
        ([0.1, 2], [[3, 4.5]], [[1], ["a", "b"], None]),
        (["a"], [[], ["b", "c"], "b"], [[1], None, 5]),
        ({"a": 1}, [{}], [None, 5, "x", []]),
        ("word", ["x", 5, 1.5, True], [None, ["x"], {}]),
    ],
)
def test_the_default_says_what_is_taken(default, good, bad):
    kind = kinds.of_default(default)
    for value in good:
        kind.taken("key", value)
    for value in bad:
        with pytest.raises(UsageError, match="^key="):
            kind.taken("key", value)


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'an integer' is none of"):
        kinds.declared("an integer", "training.threads", None)
    assert kinds.declared(["a list of 4 numbers", None], "it", None) == Kind(
        ("a list of 4 numbers", "null")
    )
