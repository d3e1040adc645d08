"""What a person sees of the command line: overrides checked with a suggestion, errors in one line.

Light to import: `--help` and a typo must not wait for torch.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def _conf() -> Path:
    """The folder of the configuration: inside an installed package, beside it in a clone."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


#: Every choice: one folder a group, a comment for each key.
CONF = _conf()


class UsageError(ValueError):
    """Something on the command line is wrong; the message says what to type instead."""


#: What a value may be where the default is of a type, and how a person calls it.
ACCEPTED: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    list: ((list, str), "a list"),
    dict: ((dict,), "a group of keys"),
    str: ((str, int, float, list), "a word"),
}

#: Groups of keys that a word may stand for: a file that holds them, or 80/10/10.
WORDS_FOR_GROUPS = ("data.tissues", "data.splits")

#: Flags of Hydra that show something, or choose another configuration than ours.
FLAGS_OF_HYDRA = {
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--config-dir",
    "-cd",
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--info",
    "-c",
    "--cfg",
    "--shell-completion",
    "-sc",
}


def _keys(node: Any, prefix: str = "") -> dict[str, Any]:
    """`group.key: default` for all keys of a configuration, groups included."""
    keys: dict[str, Any] = {}
    if isinstance(node, dict):
        for key, value in node.items():
            keys[f"{prefix}{key}"] = value
            keys |= _keys(value, f"{prefix}{key}.")
    return keys


def check_overrides(folder: Path, name: str, arguments: list[str]) -> None:
    """Compose the configuration once ahead of Hydra: what is wrong gets an answer one can use.

    Raises
    ------
    UsageError
        Unknown key (with the nearest known one), unknown group or option, value of another type
        than the default.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = _parsed([a for a in arguments if not a.startswith("-")])
    groups = _groups(folder)
    choices = [o.input_line for o in overrides if o.key_or_group in groups]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
            config = compose(name, overrides=choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(str(error)) from error
    known = _keys(OmegaConf.to_container(config, resolve=False))
    for override in overrides:
        key = override.key_or_group
        if override.input_line in choices or _is_free(override):
            continue
        if key not in known:
            raise UsageError(_unknown(key, [*known], groups))
        if not override.is_sweep_override():
            if key in WORDS_FOR_GROUPS and isinstance(override.value(), str):
                continue
            _check_type(key, _default(key, known[key], config), override.value())


def _parsed(words: list[str]) -> list[Any]:
    """Hydra's overrides of key=value words."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    wrong = [w for w in words if "=" not in w and not w.startswith("~")]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is not an override: write key=value (python {Path(sys.argv[0]).name}"
            " --help lists the keys)"
        )
    try:
        overrides: list[Any] = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise UsageError(
            f"{error}. A value with brackets, commas or '=' that is one word, such as a path, needs"
            " quotes that the shell leaves: \"key='value'\""
        ) from error
    return overrides


def _groups(folder: Path) -> list[str]:
    """The groups of a configuration: its folders, Hydra's own left out."""
    folders = (p for p in folder.rglob("*") if p.is_dir() and "hydra" not in p.parts)
    return sorted(str(p.relative_to(folder)) for p in folders)


def _is_free(override: Any) -> bool:
    """Whether an override may name what the configuration does not have."""
    added = override.is_add() or override.is_force_add()
    return bool(added or override.is_delete() or override.key_or_group.startswith("hydra"))


def _unknown(key: str, known: list[str], groups: list[str]) -> str:
    """What to say of a key that is not there: those of the same last name, then those like it."""
    last = key.rsplit(".", 1)[-1]
    same = [k for k in known if k.rsplit(".", 1)[-1] == last]
    like = difflib.get_close_matches(key, [*known, *groups], n=2, cutoff=0.6)
    near = list(dict.fromkeys([*same, *like]))[:3]
    question = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"there is no key {key!r}{question} (python {Path(sys.argv[0]).name} --help)"


def _default(key: str, written: Any, config: Any) -> Any:
    """The default of a key: a reference is followed where it can be, such as to the run's name."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if _is_reference(written):
        # a value of its own kind, such as the time
        with contextlib.suppress(OmegaConfBaseException):
            return OmegaConf.select(config, key)
    return written


def _is_reference(default: Any) -> bool:
    return isinstance(default, str) and "${" in default


def _check_type(key: str, default: Any, value: Any) -> None:
    """Raise UsageError where a value is of another type than the default; null is of any."""
    if default is None or value is None or default == "???" or _is_reference(default):
        return
    if type(default) not in ACCEPTED:
        return
    types, name = ACCEPTED[type(default)]
    a_truth_for_a_number = isinstance(value, bool) and not isinstance(default, bool)
    if not isinstance(value, types) or a_truth_for_a_number:
        raise UsageError(f"{key}={value}: {name} is expected here (the default is {default})")


def run(main: Callable[[], object], folder: Path, name: str) -> None:
    """Check the command line, then hand over to a `hydra.main` function."""
    arguments = sys.argv[1:]
    try:
        flags = {a.split("=")[0] for a in arguments if a.startswith("-")}
        if not flags & FLAGS_OF_HYDRA:
            check_overrides(folder, name, arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    main()


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Errors that concern the user's input, files or machine become one line.

    PHYSICS_HYBRID_TRACEBACK=1 shows where they arose.
    """
    from hydra.errors import HydraException

    try:
        yield
    except (ValueError, OSError, RuntimeError, HydraException) as error:
        if os.environ.get("PHYSICS_HYBRID_TRACEBACK") or type(error).__module__.startswith("torch"):
            raise
        cause: BaseException = error
        # Hydra wraps what a constructor raises
        while isinstance(cause, HydraException) and cause.__cause__ is not None:
            cause = cause.__cause__
        print(f"error: {cause}", file=sys.stderr, flush=True)
        sys.exit(1)
