"""python -m physics_hybrid VERB: every verb is listed, found again by its old name, and light to
import.
"""

import importlib
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FILES = (ROOT / "physics_hybrid" / "verbs").glob("[!_]*.py")
VERBS = sorted(path.stem.replace("_", "-") for path in FILES)

#: Imports every verb, and then asks for help where it is words alone.
LIGHT = """
import importlib, sys
from physics_hybrid.__main__ import known
modules = {verb: importlib.import_module(module) for verb, module in known().items()}
assert all(callable(module.main) for module in modules.values())
assert "torch" not in sys.modules
for verb in sys.argv[1:]:
    try:
        modules[verb].main(["--help"])
    except SystemExit as left:
        assert not left.code
    assert "torch" not in sys.modules, verb
"""

#: Their help needs neither a configuration nor a solver. (torchrun's own is torch's.)
WORDS_ALONE = (
    "bench",
    "chain",
    "check",
    "activations",
    "data-rates",
    "inspect",
    "pages",
    "peak-memory",
    "plot",
    "resolution-matrix",
    "runs",
    "scaling",
    "ship",
    "step-overhead",
    "study",
)


def python(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


def test_every_verb_is_listed_with_a_line():
    done = python("-m", "physics_hybrid")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [verb for verb, _ in lines] == VERBS
    assert {"train", "evaluate", "resolution-matrix"} <= set(VERBS)


def test_an_unknown_verb_gets_a_suggestion():
    done = python("-m", "physics_hybrid", "resolution_matrix")
    assert done.returncode == 2
    assert "there is no verb 'resolution_matrix'; did you mean resolution-matrix?" in done.stderr


@pytest.mark.parametrize(("old", "verb"), [("scaling", "scaling"), ("readme", "pages")])
def test_an_old_name_hands_on(old, verb):
    done = python("-m", f"physics_hybrid.{old}", "--help")
    assert done.returncode == 0, done.stderr
    note = f"NOTE: python -m physics_hybrid.{old} is now python -m physics_hybrid {verb}\n"
    assert done.stderr == note
    assert f"usage: python -m physics_hybrid {verb} " in done.stdout


def test_verbs_and_their_help_need_no_torch():
    done = python("-c", LIGHT, *WORDS_ALONE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(WORDS_ALONE)


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("data_rates", ["--grids", "garbage"], "48x24x24,96x48x48; got garbage"),
        ("benchmark", ["--grids", "48x24"], "48x24x24,96x48x48; got 48x24"),
        ("bench", ["--limbs", "0"], "error: --limbs must be at least 1; got 0"),
        ("benchmark", ["--grid", "1x2x3"], "48x24x24,96x48x48; got 1x2x3"),
        ("data_rates", ["--samples", "0"], "error: --samples must be at least 1; got 0"),
        ("peak_memory", ["training.epoch=3"], "error: there is no key 'training.epoch'; did you"),
        ("scaling", ["training.epochs=many"], "error: training.epochs=many: a whole number is"),
        ("pages", ["--rates", "/nowhere/rates.json"], "error: "),
    ],
)
def test_what_was_mistyped_is_one_line(verb, words, message, capsys):
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"physics_hybrid.verbs.{verb}").main(words)
    assert left.value.code in (1, 2)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last
