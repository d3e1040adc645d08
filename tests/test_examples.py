"""Examples in docstrings run, and the user's door has one on every function."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import physics_hybrid
from tests.conftest import ROOT


def with_examples() -> list[str]:
    """Modules that show how they are used."""
    found = []
    for path in sorted(Path(ROOT / "physics_hybrid").rglob("*.py")):
        if "\n    >>> " in path.read_text():
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append(name.removesuffix(".__init__"))
    return found


def door() -> dict[str, object]:
    """What a user meets who never trains, by name."""
    from physics_hybrid.problems.potential.predictor import Predictor

    functions = {name: getattr(physics_hybrid, name) for name in physics_hybrid.__all__}
    methods = {"Predictor": Predictor, "load": Predictor.load, "predict": Predictor.predict}
    return functions | methods | {"random": physics_hybrid.Limb.random}


@pytest.mark.parametrize("name", with_examples())
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "name", [*physics_hybrid.__all__, "Predictor", "load", "predict", "random"]
)
def test_the_door_says_shapes_units_errors_and_source_and_shows_an_example(name):
    text = inspect.getdoc(door()[name])
    for part in ("Raises\n------", "Source\n------", "Examples\n--------", ">>> "):
        assert part in text, part


def test_nothing_at_the_door_is_left_out():
    own = {
        n
        for n, f in vars(physics_hybrid).items()
        if inspect.isfunction(f) and f.__module__ == "physics_hybrid" and not n.startswith("__")
    }
    assert own | {*physics_hybrid._DOOR} == {*physics_hybrid.__all__} <= {*door()}
    with pytest.raises(AttributeError, match="has no attribute 'solv'"):
        physics_hybrid.solv  # noqa: B018


def test_the_package_is_light_until_something_is_asked_of_it():
    asked = (
        "import sys, physics_hybrid; print({'torch', 'numpy', 'scipy', 'h5py'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_readme_works_pasted_line_by_line(tmp_path, monkeypatch):
    """Its block "Use it": fields without a training."""
    text = (ROOT / "README.md").read_text().split("## Use it", 1)[1]
    block = re.search(r"\n\n((?:    .*\n)+)", text)[1]
    monkeypatch.chdir(tmp_path)
    lines, names = [line.strip() for line in block.splitlines()], {}
    assert lines[0] == "import physics_hybrid as ph"
    for line in lines:
        exec(line, names)
    assert (tmp_path / "phi.png").exists()
    assert (tmp_path / "phi.nii.gz").exists()
