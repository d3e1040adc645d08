"""A run's configuration, kept under a name: conf/experiment/NAME.yaml.

A run holds its configuration resolved. Which options of the groups it was made of is found again:
of each group the option whose keys, and then whose values, are nearest; what is left to differ is
written down. What comes out is composed, and held against the run, before it gets its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from physics_hybrid.configuration import composing, kinds, options_of
from physics_hybrid.kinds import UsageError, flat, written
from physics_hybrid.run.ledger import Run
from physics_hybrid.writing import write_text

#: Groups and keys that say where a run lies, and what watches it.
LEFT_OUT = ("run", "runs_folder", "tracker")
CONFIG = "config"


def promote(run: Run, name: str, conf: Path, against: Run | None = None) -> Path:
    """Write conf/experiment/NAME.yaml; `train.py experiment=NAME` trains the same configuration.

    Raises
    ------
    UsageError
        A name that is taken or none, a run that is not evaluated, or one that is worse than
        `against`.
    ValueError
        A configuration that conf/ cannot express (of another version): names the keys.
    """
    path = conf / "experiment" / f"{name}.yaml"
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise UsageError(f"{name!r} is no name of an experiment: letters, digits, _ and -")
    if path.exists():
        raise UsageError(f"there is an experiment {name} already ({path}): choose another name")
    if run.state != "finished":
        why = f" ({run.why})" if run.why else ""
        raise UsageError(
            f"{run.name} is {run.state}{why}: only a run that is trained and tested is promoted"
        )
    if run.value is None or not math.isfinite(run.value):
        raise UsageError(f"the {run.monitor} of {run.name} on {run.tested} is no number")
    if against is not None:
        _refuse_worse(run, against)
    wanted = _kept(run.config)
    choices = {g: o for g, o in _choices(run.config, conf).items() if g not in LEFT_OUT}
    plain = _composed(conf, [f"{group}={option}" for group, option in choices.items()])
    changes = {k: v for k, v in _leaves(wanted).items() if k not in plain or plain[k] != v}
    defaults = _defaults(conf)
    others = {group: o for group, o in choices.items() if defaults.get(group) != o}
    write_text(path, _text(run, others, changes))
    try:
        _hold(conf, name, _leaves(wanted), run)
    except BaseException:
        path.unlink()
        raise
    return path


def _refuse_worse(run: Run, against: Run) -> None:
    """Raise UsageError where the main metric is larger than that of another run, or cannot be
    held against it.
    """
    other = against.mean(run.tested, run.monitor)
    if run.value is None or other is None:
        raise UsageError(
            f"{against.name} has no {run.monitor} on {run.tested}: they cannot be held against each"
            " other"
        )
    if run.value > other:
        raise UsageError(
            f"{run.name} is worse than {against.name}: {run.monitor} on {run.tested} is"
            f" {run.value:.6g}, and {other:.6g} there"
        )


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in LEFT_OUT}


def _leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """`group.key: value`; tables that are empty, too."""
    return {k: v for k, v in flat(dict(config)).items() if not isinstance(v, dict) or not v}


def _choices(config: Mapping[str, Any], conf: Path) -> dict[str, str]:
    """Group -> the option that a resolved configuration is nearest to."""
    found = {}
    for group, options in options_of(conf, CONFIG).items():
        if group == "experiment" or group not in config:
            continue
        part = _leaves(config[group] or {})
        known = {option: _leaves(_option(conf / group / f"{option}.yaml")) for option in options}
        found[group] = min(known, key=lambda option: _distance(part, known[option]))
    return found


def _distance(part: Mapping[str, Any], option: Mapping[str, Any]) -> tuple[int, int]:
    """How many keys are in one alone, and how many have other values."""
    common = part.keys() & option.keys()
    other = [k for k in common if part[k] != option[k] and "${" not in str(option[k])]
    return len(part.keys() ^ option.keys()), len(other)


def _option(path: Path) -> dict[str, Any]:
    """The file of an option, with those that it is made of."""
    content: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    merged: dict[str, Any] = {}
    for entry in content.pop("defaults", ()):
        beside = path.with_name(f"{entry}.yaml")
        if beside.exists():
            merged = _merged(merged, _option(beside))
    return _merged(merged, content)


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        out[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return out


def _defaults(conf: Path) -> dict[str, str]:
    """Group -> the option of config.yaml."""
    entries = yaml.safe_load((conf / f"{CONFIG}.yaml").read_text())["defaults"]
    return {k: v for entry in entries if isinstance(entry, dict) for k, v in entry.items()}


def _composed(conf: Path, words: list[str], experiment: str | None = None) -> dict[str, Any]:
    """Leaves of conf/ with these choices, and an experiment or none."""
    from hydra import compose
    from omegaconf import OmegaConf

    last = "~experiment" if experiment is None else f"experiment={experiment}"
    with composing(conf):
        config = compose(CONFIG, overrides=[*words, last])
        values: Any = OmegaConf.to_container(config, resolve=True)
    return _leaves(_kept(values))


def _text(run: Run, choices: Mapping[str, str], changes: Mapping[str, Any]) -> str:
    """The file: a head that says where it comes from, choices of groups, keys."""
    parts = ["# @package _global_", *_head(run)]
    if choices:
        parts.append("defaults:")
        parts += [f"  - override /{group}: {option}" for group, option in choices.items()]
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        *groups, last = key.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return "\n".join([*parts, *_lines(nested)]) + "\n"


def _lines(node: Mapping[str, Any], margin: str = "") -> Iterator[str]:
    """YAML as conf/ is written: a key a line, lists inside of it."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield f"{margin}{_inline(key)}:"
            yield from _lines(value, margin + "  ")
        else:
            yield f"{margin}{_inline(key)}: {_inline(value)}"


def _inline(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def _head(run: Run) -> list[str]:
    alone = "" if run.baseline is None else f" (baseline alone {run.baseline:.6g})"
    about = run.metrics
    date = f", {about['date']}" if "date" in about else ""
    return [
        f"# Promoted from the run {run.name}, commit {run.commit or 'unknown'}{date}:",
        f"# {run.monitor} {run.value:.6g} on {run.tested}{alone}, seed {run.seed}.",
    ]


def _hold(conf: Path, name: str, wanted: Mapping[str, Any], run: Run) -> None:
    """Raise ValueError where train.py would refuse the experiment, or compose another configuration
    than the run's.
    """
    kinds(conf, CONFIG, (f"experiment={name}",))  # keys that nothing reads are refused
    got = _composed(conf, [], name)
    missing = object()
    keys = [k for k in {**wanted, **got} if wanted.get(k, missing) != got.get(k, missing)]
    if keys:
        shown = "; ".join(
            f"{k}: {written(wanted.get(k))} in the run, {written(got.get(k))} in conf/"
            for k in keys[:4]
        )
        raise ValueError(
            f"conf/ cannot say what {run.name} was trained with ({shown}): it is of another"
            " version, or a row of a table was taken away. Nothing was written"
        )
