"""Words of a command line become a configuration; what is wrong in them gets an answer one can use.

They are checked ahead of Hydra: keys, options of groups, and what each key may hold (`kinds.py`).
Light to import.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from physics_hybrid.kinds import ANYTHING, Kind, UsageError, flat, kinds_of, taken, written

#: The flags that run several jobs, over values with commas.
MULTIRUN = {"-m", "--multirun"}


def check_overrides(folder: Path, name: str, arguments: list[str]) -> list[str]:
    """The arguments, checked; a number that names a folder is quoted as it was typed.

    Raises
    ------
    UsageError
        Unknown key (with the nearest known one), unknown group or option, value of another kind
        than the key takes, several values without --multirun.
    """
    words = [a for a in arguments if not a.startswith("-")]
    overrides = dict(zip(words, _parsed(words), strict=True))
    groups = options_of(folder, name)
    chosen = [o for o in overrides.values() if o.key_or_group in groups and not _is_free(o)]
    for override in chosen:
        for option in _values(override):
            _check_option(override.key_or_group, option, groups[override.key_or_group])
    if not MULTIRUN & {*arguments}:
        _refuse_sweeps(overrides, groups)
    known: dict[str, Kind] = {}
    for choices in _combinations(chosen):
        known = {**kinds(folder, name, choices), **known}
    checked = {}
    for word, override in overrides.items():
        if override in chosen:
            continue
        if _is_free(override):
            _check_free(override, known, groups)
            continue
        key = override.key_or_group
        if key not in known:
            _refuse_of_another_option(folder, key, groups)
            raise UsageError(_unknown(key, [*known], groups))
        checked[word] = _as_typed(word, override, known)
    return [checked.get(argument, argument) for argument in arguments]


def swept(arguments: list[str]) -> set[str]:
    """The keys and groups that have several values, one for each job."""
    overrides = _parsed([a for a in arguments if not a.startswith("-")])
    return {o.key_or_group for o in overrides if o.is_sweep_override()}


def resolved(folder: Path, name: str, config: Any, overrides: Iterable[str]) -> dict[str, Any]:
    """A composed configuration as plain values, each as its key takes it.

    overrides : those that it was composed with.

    Raises
    ------
    UsageError
        A value is missing, refers to something that is not there, or is of another kind.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    know_times()
    try:
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UsageError(_unresolved(error)) from error
    groups = options_of(folder, name)
    choices = [word for word in overrides if word.split("=")[0] in groups]
    return dict(taken(values, kinds(folder, name, tuple(choices))))


def know_times() -> None:
    """`${times:5,${model.learning_rate}}` is five times that: a study of many rates needs it."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("times", _times, replace=True)


def _times(factor: float, value: float) -> float:
    return factor * value


@functools.cache
def kinds(folder: Path, name: str, choices: tuple[str, ...]) -> dict[str, Kind]:
    """What each key may hold where these options of groups are chosen.

    Raises
    ------
    UsageError
        The choices make no configuration, or an experiment sets a key that there is not.
    """
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with composing(folder):
            config = compose(name, overrides=[*choices], return_hydra_config=True)
            made_of = dict(OmegaConf.select(config, "hydra.runtime.choices"))
            experiment = made_of.pop("experiment", None)
            plain = config
            if experiment:
                options = [
                    f"{group}={option}"
                    for group, option in made_of.items()
                    if option is not None and not group.startswith("hydra")
                ]
                plain = compose(name, overrides=[*options, "~experiment"])
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(" ".join(str(error).split())) from error
    exceptions = yaml.safe_load((folder / "kinds.yaml").read_text())
    known = kinds_of(_defaults(plain), exceptions)
    if experiment:
        _check_experiment(folder, experiment, _defaults(config), known)
    return known


@contextlib.contextmanager
def composing(folder: Path) -> Iterator[None]:
    """Hydra composes from a folder here: inside one of its own programs, too."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    know_times()
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def options_of(folder: Path, name: str) -> dict[str, list[str]]:
    """The groups that a program chooses from, and their options; those with _ are parts of others.

    name : of its configuration: config, evaluate.
    """
    entries: list[Any] = yaml.safe_load((folder / f"{name}.yaml").read_text())["defaults"]
    groups = [key for entry in entries if isinstance(entry, dict) for key in entry]
    return {
        group: sorted(p.stem for p in (folder / group).glob("[!_]*.yaml"))
        for group in groups
        if not group.startswith("override ")
    }


def options_page(folder: Path, name: str) -> str:
    """`options_of`, a line a group, for --help."""
    groups = options_of(folder, name)
    return "\n".join(f"{group}: {', '.join(options)}" for group, options in groups.items())


def _parsed(words: list[str]) -> list[Any]:
    """Hydra's overrides of key=value words."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    wrong = [w for w in words if "=" not in w and not w.startswith("~")]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is not an override: write key=value ({program()} --help lists the keys)"
        )
    try:
        overrides: list[Any] = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise UsageError(
            f"{' '.join(str(error).split())}. A value with brackets, commas or '=' that is one"
            " word, such as a path, needs quotes that the shell leaves: \"key='value'\""
        ) from error
    return overrides


def _is_free(override: Any) -> bool:
    """Whether an override may name what the configuration does not have."""
    added = override.is_add() or override.is_force_add()
    return bool(added or override.is_delete() or override.key_or_group.startswith("hydra"))


def _check_free(override: Any, known: Mapping[str, Kind], groups: Collection[str]) -> None:
    """Raise UsageError where a key is added that nothing reads, or one is taken away that is read.

    What may grow: a table, and what goes to a constructor (_target_), which knows its own keys.
    """
    key = override.key_or_group
    if key.startswith("hydra") or _in_table(key, known):
        return
    if override.is_delete():
        if key != "experiment":
            raise UsageError(
                f"~{key}: this cannot be taken away, only a row of a table such as"
                " ~data.tissues.bone, or ~experiment"
            )
    elif key not in {*known, *groups} and f"{key.rpartition('.')[0]}._target_" not in known:
        raise UsageError(_unknown(key, [*known], groups))


def _refuse_sweeps(overrides: Mapping[str, Any], groups: Collection[str]) -> None:
    for word, override in overrides.items():
        if override.is_sweep_override():
            key, text = word.split("=", 1)
            otherwise = f" ({key}=[{text}] is a list, \"{key}='{text}'\" one word)"
            raise UsageError(
                f"{word}: one value is expected here; add --multirun to run a job with each"
                f"{'' if key in groups else otherwise}"
            )


def _values(override: Any) -> list[Any]:
    """The value of an override, or all those that a sweep lists."""
    from hydra.core.override_parser.types import ChoiceSweep

    value = override.value()
    if not isinstance(value, ChoiceSweep):
        return [] if override.is_sweep_override() else [value]
    return [getattr(item, "text", item) for item in value.list]


def _check_option(group: str, option: Any, options: list[str]) -> None:
    if isinstance(option, list) or str(option) in options:
        return
    near = difflib.get_close_matches(str(option), options, n=1, cutoff=0.5)
    question = f"; did you mean {near[0]}?" if near and option is not None else ""
    raise UsageError(
        f"there is no {group}={written(option)}; there are {', '.join(options)}{question}"
    )


def _combinations(chosen: list[Any]) -> Iterator[tuple[str, ...]]:
    """The choices with the first option of each group, then each of the others in its place."""
    first = [f"{o.key_or_group}={o.input_line.split('=', 1)[1]}" for o in chosen]
    several = {}
    for i, override in enumerate(chosen):
        if override.is_sweep_override():
            several[i] = [f"{override.key_or_group}={option}" for option in _values(override)]
            first[i] = several[i][0]
    yield tuple(first)
    for i, words in several.items():
        for word in words[1:]:
            yield (*first[:i], word, *first[i + 1 :])


def _unknown(key: str, known: list[str], groups: Iterable[str]) -> str:
    """What to say of a key that is not there: the nearest by all of its parts."""

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, key, other).ratio()

    last = key.rsplit(".", 1)[-1]
    same = sorted((k for k in known if k.rsplit(".", 1)[-1] == last), key=likeness, reverse=True)
    near = same[:3]
    if "." in key or not same:  # it was meant to be whole
        candidates = sorted([*known, *groups], key=likeness, reverse=True)
        best = likeness(candidates[0])
        near = [k for k in candidates[:3] if likeness(k) > max(0.6, best - 0.03)] or same[:1]
    question = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    return f"there is no key {key!r}{question} ({program()} --help)"


def _as_typed(word: str, override: Any, known: Mapping[str, Kind]) -> str:
    """The word of an override whose values are of the right kind; `run=1e3` becomes `run='1e3'`."""
    key, text = override.key_or_group, word.split("=", 1)[1]
    values = _values(override)
    pieces = text.split(",") if override.is_sweep_override() else [text]
    names_a_folder = [_check(key, value, known) for value in values]
    by_function = "(" in text  # sort(1,2): what it gives is taken in `resolved`
    if not any(names_a_folder) or by_function or len(pieces) != len(values):
        return word
    quoted = [
        f"'{piece}'" if number else piece
        for piece, number in zip(pieces, names_a_folder, strict=True)
    ]
    return f"{key}={','.join(quoted)}"


def _check(key: str, value: Any, known: Mapping[str, Kind]) -> bool:
    """Whether a value is a number (or true, false) where its key takes a word: it stands for
    itself. Raises UsageError where it, or what is below it, is of another kind.
    """
    if _is_reference(value):
        return False
    accepted = known[key].taken(key, value)
    for name, part in flat(value, f"{key}.").items():
        if name in known:
            _check(name, part, known)
        elif not _in_table(name, known):
            raise UsageError(_unknown(name, [*known], []))
    return isinstance(accepted, str) and not isinstance(value, str)


def _in_table(name: str, known: Mapping[str, Kind]) -> bool:
    """Whether a key lies below one that takes any keys."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        table = ".".join(parts[:end]) + "."
        below = [kind.names == (ANYTHING,) for key, kind in known.items() if key.startswith(table)]
        if below and all(below):
            return True
    return False


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and "${" in value


def _defaults(config: Any) -> dict[str, Any]:
    """`group.key: default`; a reference is followed where it can be."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values: Any = OmegaConf.to_container(config, resolve=False)
    values.pop("hydra", None)
    defaults = flat(values)
    for key, value in defaults.items():
        if _is_reference(value):
            # one of the environment, say, that is not set here
            with contextlib.suppress(OmegaConfBaseException):
                defaults[key] = OmegaConf.select(config, key)
    return defaults


def _check_experiment(
    folder: Path, name: str, config: Mapping[str, Any], known: Mapping[str, Kind]
) -> None:
    """Raise UsageError where an experiment has keys that are in no option of their group.

    One that the chosen option lacks is another's, and is not read: `data.grid` with data=files.
    """
    for key in config:
        if key not in known and not _in_table(key, known) and not _options_with(folder, key):
            raise UsageError(f"experiment={name}: {_unknown(key, [*known], [])}")


def _options_with(folder: Path, key: str) -> list[str]:
    """The options of a group whose files have a key, as they are typed: data=labels."""
    group = key.split(".")[0]
    files = sorted((folder / group).glob("[!_]*.yaml"))
    return [f"{group}={path.stem}" for path in files if key in _keys_of(path)]


def _keys_of(path: Path) -> set[str]:
    """The keys of an option, `data.grid`, with those of the options that it is made of."""
    content = yaml.safe_load(path.read_text())
    keys = {*flat(content, f"{path.parent.name}.")}
    for entry in content.get("defaults", ()):
        other = path.with_name(f"{entry}.yaml")
        if other.exists():
            keys |= _keys_of(other)
    return keys


def _refuse_of_another_option(folder: Path, key: str, groups: Mapping[str, list[str]]) -> None:
    """Raise UsageError for a key that another option of its group has."""
    options = _options_with(folder, key) if key.split(".")[0] in groups else []
    if options:
        raise UsageError(
            f"there is no key {key!r} with these choices of groups: it belongs to"
            f" {', '.join(options)}"
        )


def _unresolved(error: Any) -> str:
    """What OmegaConf says of a value that cannot be had, in a line."""
    first = str(error).splitlines()[0]
    key = getattr(error, "full_key", None) or getattr(error, "key", None) or ""
    if first.startswith("Missing mandatory value"):
        return f"{key}=... is needed ({program()} --help)"
    if "Environment variable" in first:
        name = first.split("'")[1]
        return f"{key}: the variable {name} that it refers to is not set here: set it, or the key"
    return f"{key}: {first}"


def program() -> str:
    """How the program was started, as it is typed: python train.py, say."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("python ") else f"python {name}"
