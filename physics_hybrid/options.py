"""Options of a verb that are keys of a YAML file, too: names, defaults and help are in conf.

    conf/body.yaml  <  conf/VERB.yaml  <  --config FILE  <  what is typed

The comment above a key is its help. Files are read as if they were typed, so that both are held to
the same and refused in the same words. Light to import.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from physics_hybrid.command_line import (
    CONF,
    leave_with_the_reader,
    readable_errors,
    readable_warnings,
)
from physics_hybrid.kinds import UsageError

#: How an option is added to a parser: its keywords there.
Shape = Mapping[str, Any]

#: One word, one number, a whole one; true or false.
WORD: Shape = {"type": str, "metavar": "WORD"}
NUMBER: Shape = {"type": float, "metavar": "NUMBER"}
WHOLE: Shape = {"type": int, "metavar": "N"}
SWITCH: Shape = {"action": argparse.BooleanOptionalAction}
#: One or more of them.
WORDS: Shape = {"type": str, "nargs": "+", "metavar": "WORD"}
NUMBERS: Shape = {"type": float, "nargs": "+", "metavar": "NUMBER"}
#: Three numbers, and three numbers again and again.
TRIPLE: Shape = {"type": float, "nargs": 3, "metavar": ("X", "Y", "Z")}
TRIPLES: Shape = {**TRIPLE, "action": "append"}


def two(kind: Callable[[str], Any]) -> Shape:
    """Two values of a kind."""
    return {"type": kind, "nargs": 2, "metavar": ("A", "B")}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in a line, and takes -1e-3 for a number."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help)")


Result = TypeVar("Result")


def started(
    verb: str,
    about: str,
    shapes: Mapping[str, Shape],
    words: list[str],
    work: Callable[[dict[str, Any]], Result],
) -> Result:
    """What a verb does with what was typed: errors and warnings are a line each. See `options`."""
    if {"-h", "--help"} & {*words}:
        leave_with_the_reader()
    with readable_errors(), readable_warnings():
        return work(options(verb, about, shapes, words))


def options(verb: str, about: str, shapes: Mapping[str, Shape], words: list[str]) -> dict[str, Any]:
    """The value of every key of a verb: as typed, else as in --config, else its default.

    about : the page that --help shows above the options. shapes : key -> shape; `file` comes first.

    Raises
    ------
    UsageError
        A word that is no option, a value of another kind; a file that cannot be read as YAML, or
        has keys that there are not.
    """
    defaults, help_of = keys_of(verb)
    program = f"python -m physics_hybrid {verb.replace('_', '-')}"
    parser = _Parser(
        prog=program,
        usage=f"{program} FILE [options]",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help=help_of["file"])
    for key, shape in shapes.items():
        parser.add_argument(_flag(key), help=_with_default(help_of[key], defaults[key]), **shape)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file with any of these keys"
    )
    typed = vars(parser.parse_args(words))
    read = typed.pop("config", None)
    written = {} if read is None else _of_file(parser, shapes, read, defaults)
    return {**_as_typed(parser, shapes, defaults), **written, **typed}


def keys_of(verb: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Defaults and help of every key of a verb: those of a body, and its own."""
    texts = [(CONF / f"{name}.yaml").read_text() for name in ("body", verb)]
    defaults = [yaml.safe_load(text) for text in texts]
    body, own = (_comments(text) for text in texts)
    return defaults[0] | defaults[1], body | own


def _comments(text: str) -> dict[str, str]:
    """The comment above each key of a flat YAML file."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in text.splitlines():
        key = re.match(r"([a-z_]+):", line)
        if key:
            found[key[1]] = " ".join(above)
            above = []
        elif not line:
            above = []
        else:
            above.append(line.removeprefix("#").strip())
    return found


def _with_default(comment: str, default: Any) -> str:
    """Help that says what holds where nothing is typed."""
    shown = "" if default is None else f" [{_word(default)}]"
    return f"{comment}{shown}".replace("%", "%%")


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _of_file(
    parser: _Parser, shapes: Mapping[str, Shape], path: Path, known: Mapping[str, Any]
) -> dict[str, Any]:
    """The keys of a YAML file as if they were typed."""
    try:
        values = yaml.safe_load(path.expanduser().read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UsageError(f"--config {path} cannot be read as YAML: {said}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {path}: `key: value` lines are expected; got {values!r}")
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise UsageError(f"--config {path} has the key {key!r}, which there is not{hint}")
    try:
        return _as_typed(parser, shapes, values)
    except UsageError as error:
        raise UsageError(f"--config {path}: {error}") from error


def _as_typed(
    parser: _Parser, shapes: Mapping[str, Shape], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Values as words, parsed; null stays None."""
    words: list[str] = []
    for key, value in values.items():
        if value is None or key == "file":
            continue
        flag = _flag(key)
        if (shapes[key] is SWITCH) != isinstance(value, bool):
            expected = "true or false" if shapes[key] is SWITCH else "no true or false"
            raise UsageError(f"{key}: {expected} is expected; got {value!r}")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list) and value and all(isinstance(v, list) for v in value):
            for row in value:
                words += [flag, *map(_word, row)]
        elif isinstance(value, list):
            words += [flag, *map(_word, value)]
        else:
            words += [flag, _word(value)]
    parsed = vars(parser.parse_args(words))
    if "file" in parsed:  # a value too many
        parser.error(f"unrecognized arguments: {parsed['file']}")
    if values.get("file") is not None:
        parsed["file"] = _word(values["file"])
    return {key: parsed.get(key) for key in values}


def _word(value: Any) -> str:
    return " ".join(map(_word, value)) if isinstance(value, list) else str(value)
