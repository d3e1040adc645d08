"""What a person sees of the command line: overrides checked with a suggestion, errors in one line.

Light to import: `--help` and a typo must not wait for torch.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
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


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict):
        return {
            k: v
            for key, value in node.items()
            for k, v in {f"{prefix}{key}": value, **_leaves(value, f"{prefix}{key}.")}.items()
        }
    return {}


def check_overrides(folder: Path, name: str, arguments: list[str]) -> None:
    """Compose the configuration once ahead of Hydra, so that a wrong key, group or type gets an
    answer a person can use.

    Raises
    ------
    UsageError
        Unknown key (with the nearest known one), unknown group or option, value of another type
        than the default.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    words = [a for a in arguments if not a.startswith("-")]
    wrong = [w for w in words if "=" not in w and not w.startswith("~")]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is not an override: write key=value (python {Path(sys.argv[0]).name}"
            " --help lists the keys)"
        )
    try:
        overrides = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise UsageError(
            f"{error}. A value with brackets, commas or '=' that is one word, such as a path, needs"
            " quotes that the shell leaves: \"key='value'\""
        ) from error
    groups = sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_dir() and "hydra" not in p.parts
    )
    is_group = {o.input_line: o.key_or_group in groups for o in overrides}
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
            config = compose(
                name, overrides=[o.input_line for o in overrides if is_group[o.input_line]]
            )
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(str(error)) from error
    known = _leaves(OmegaConf.to_container(config, resolve=False))
    for o in overrides:
        key = o.key_or_group
        if (
            is_group[o.input_line]
            or key.startswith("hydra")
            or o.is_add()
            or o.is_force_add()
            or o.is_delete()
        ):
            continue
        if key not in known:
            near = difflib.get_close_matches(key, [*known, *groups], n=2, cutoff=0.6)
            tail = [k for k in known if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
            near = list(dict.fromkeys([*tail, *near]))[:3]
            raise UsageError(
                f"there is no key {key!r}"
                + (f"; did you mean {' or '.join(near)}?" if near else "")
                + f" (python {Path(sys.argv[0]).name} --help)"
            )
        if not o.is_sweep_override():
            default = known[key]
            if isinstance(default, str) and "${" in default:
                # a value of its own kind, such as the time
                with contextlib.suppress(OmegaConfBaseException):
                    default = OmegaConf.select(config, key)
            _check_type(key, default, o.value())


def _check_type(key: str, default: Any, value: Any) -> None:
    if (
        default is None
        or value is None
        or isinstance(default, str)
        and ("${" in default or default == "???")
    ):
        return
    accepted = {
        bool: (bool,),
        int: (int,),
        float: (int, float),
        list: (list, str),
        dict: (dict,),
        str: (str, int, float, list),
    }
    for kind, types in accepted.items():
        if type(default) is kind:
            names = {
                bool: "true or false",
                int: "a whole number",
                float: "a number",
                list: "a list",
                dict: "a group of keys",
                str: "a word",
            }
            if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
                raise UsageError(
                    f"{key}={value}: {names[kind]} is expected here (the default is {default})"
                )
            return


def run(main, folder: Path, name: str) -> None:
    """Check the command line, then hand over to a `hydra.main` function."""
    arguments = sys.argv[1:]
    try:
        flags = {a.split("=")[0] for a in arguments if a.startswith("-")}
        if not flags & {
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
        }:
            check_overrides(folder, name, arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    main()


@contextlib.contextmanager
def readable_errors():
    """Errors that concern the user's input, files or machine become one line;
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
