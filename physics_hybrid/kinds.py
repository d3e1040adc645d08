"""What a key of the configuration may hold: a kind has a name that a person reads.

The kind is that of the default in conf/: `epochs: 10` takes a whole number, `betas: [0.9, 0.99]` a
list of 2 numbers. Where a default does not say it (null), or several kinds will do, conf/kinds.yaml
does.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Nothing is known of what a key may hold.
ANYTHING = "anything"

#: What is written in conf/kinds.yaml, and here.
NAMES = (
    ANYTHING,
    "null",
    "true or false",
    "a whole number",
    "a number",
    "a word",
    "one path",
    "a list",
    "a list of words",
    "a list of numbers",
    "a list of whole numbers",
    "a list of grids",
    "a group of keys",
)


class UsageError(ValueError):
    """Something that was typed is wrong; the message says what to type instead."""


@dataclass(frozen=True)
class Kind:
    """names : any of these; a list of numbers may have its length, 'a list of 3 numbers'.

    default : shown in errors.
    """

    names: tuple[str, ...]
    default: Any = None

    def holds(self, value: object) -> bool:
        """Whether a value is of the kind as it is."""
        return any(_is(name, value) for name in self.names)

    def taken(self, key: str, value: Any) -> Any:
        """The value as the key takes it: a number as the name of a folder, a word as a list of one.

        Raises
        ------
        UsageError
            It is of another kind.
        """
        if self.holds(value):
            return value
        scalar = isinstance(value, (str, bool, int, float))
        if scalar and not isinstance(value, str) and {"a word", "one path"} & {*self.names}:
            return written(value)
        if isinstance(value, str) and "a list of words" in self.names:
            return [value]
        expected = " or ".join(self.names).replace("grids", "grids such as [[48,24,24],[96,48,48]]")
        shown = self.default is not None and not isinstance(self.default, dict)
        default = f" (the default is {written(self.default)})" if shown else ""
        raise UsageError(f"{key}={written(value)}: {expected} is expected here{default}")


def of_default(default: Any) -> Kind:
    """The kind that a default shows."""
    return Kind((_name_of(default),), default)


def declared(names: object, key: str, default: Any) -> Kind:
    """The kind that conf/kinds.yaml writes down: a name, or a list of names; and null where that is
    the default.

    Raises
    ------
    ValueError
        It is none of `NAMES`.
    """
    several = names if isinstance(names, list) else [names]
    texts = ["null" if name is None else str(name) for name in several]
    for text in texts:
        if re.sub(r"\d+ ", "", text) not in NAMES:
            raise ValueError(f"conf/kinds.yaml: {key}: {text!r} is none of {', '.join(NAMES)}")
    if default is None and not {"null", ANYTHING} & {*texts}:
        texts.append("null")
    return Kind(tuple(texts), default)


def kinds_of(defaults: Mapping[str, Any], exceptions: Mapping[str, Any]) -> dict[str, Kind]:
    """The kind of each key.

    defaults : key -> default, groups included. exceptions : conf/kinds.yaml; a key may end with .*
        for all that is below.
    """
    kinds = {key: of_default(default) for key, default in defaults.items()}
    for pattern, names in exceptions.items():
        for key in fnmatch.filter(kinds, pattern):
            kinds[key] = declared(names, pattern, defaults[key])
    return kinds


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """`group.key: value` for all keys of a configuration, groups included."""
    keys: dict[str, Any] = {}
    if isinstance(node, dict):
        for key, value in node.items():
            keys[f"{prefix}{key}"] = value
            keys |= flat(value, f"{prefix}{key}.")
    return keys


def taken(config: Any, kinds: Mapping[str, Kind], prefix: str = "") -> Any:
    """A configuration with every value as its key takes it. Raises UsageError."""
    if not isinstance(config, dict):
        return config
    values = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        accepted = kinds[name].taken(name, value) if name in kinds else value
        values[key] = taken(accepted, kinds, f"{name}.")
    return values


def written(value: Any) -> str:
    """A value as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(written, value))}]"
    return str(value)


def _name_of(default: Any) -> str:
    if isinstance(default, list):
        return _list_name(default)
    for name in ("true or false", "a whole number", "a number", "a group of keys"):
        if _is(name, default):
            return name
    reference = isinstance(default, str) and ("${" in default or default == "???")
    return "a word" if isinstance(default, str) and not reference else ANYTHING


def _list_name(default: list[Any]) -> str:
    if default and all(_is("a whole number", value) for value in default):
        return f"a list of {len(default)} whole numbers"
    if default and all(_is("a number", value) for value in default):
        return f"a list of {len(default)} numbers"
    if default and all(isinstance(value, str) for value in default):
        return "a list of words"
    return "a list"


def _is(name: str, value: object) -> bool:
    """Whether a value is of the kind with this name."""
    if name == ANYTHING:
        return True
    if name.startswith("a list of "):
        return _is_list(name.removeprefix("a list of "), value)
    if name == "a number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "a whole number":
        return isinstance(value, int) and not isinstance(value, bool)
    classes: dict[str, type | tuple[type, ...]] = {
        "null": type(None),
        "true or false": bool,
        "a word": str,
        "one path": str,
        "a list": list,
        "a group of keys": dict,
    }
    return isinstance(value, classes[name])


def _is_list(of: str, value: object) -> bool:
    """of : 'numbers', '3 whole numbers', 'words', 'grids'."""
    if not isinstance(value, list):
        return False
    if of == "grids":
        return bool(value) and all(_is_list("3 whole numbers", grid) for grid in value)
    length, _, what = of.partition(" ") if of[0].isdigit() else ("", "", of)
    if length and len(value) != int(length):
        return False
    one = {"words": "a word", "numbers": "a number", "whole numbers": "a whole number"}[what]
    return all(_is(one, item) for item in value)
