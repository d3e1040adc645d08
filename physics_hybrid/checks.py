"""Checks of configuration values: each has a name, and says what must be, and what was got.

`name` is how a user writes the setting, such as ``data.batch_size`` or ``--samples``. With `null`,
None is allowed, too. NaN passes no check. All raise ValueError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


def is_number(value: object) -> bool:
    """A real number of Python or NumPy; True and False are none."""
    import numpy as np  # checks of the command line do without

    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """A whole number of Python or NumPy; True and False are none."""
    import numpy as np

    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def at_least(least: float, name: str, value: float | None, *, null: bool = False) -> None:
    """``training.epochs must be at least 1; got 0``"""
    if null and value is None:
        return
    if value is None or not value >= least:
        raise ValueError(f"{name} must be {_or_null(null)}at least {least}; got {value}")


def not_negative(name: str, value: float | None, unit: str = "", *, null: bool = False) -> None:
    """``loss.exclude_radius must be >= 0 voxels; got -1``: the unit, if any, stands as given."""
    if null and value is None:
        return
    if value is None or not value >= 0:
        zero = f"0 {unit}".strip()
        raise ValueError(f"{name} must be {_or_null(null)}>= {zero}; got {value}")


def positive(name: str, value: float) -> None:
    """``training.learning_rate must be > 0; got 0``"""
    if not value > 0:
        raise ValueError(f"{name} must be > 0; got {value}")


def within(low: float, high: float, name: str, value: float, *, ends: str = "[]") -> None:
    """``data.source_margin must lie in [0, 0.5); got 0.5``: a round end does not belong to it."""
    above = value > low if ends[0] == "(" else value >= low
    below = value < high if ends[1] == ")" else value <= high
    if not (above and below):
        raise ValueError(f"{name} must lie in {ends[0]}{low}, {high}{ends[1]}; got {value}")


def one_of(choices: Collection[object], name: str, value: object, *, quoted: bool = False) -> None:
    """``training.precision must be float32, bf16 or fp16; got 'fp8'``: two choices or more."""
    if value in choices:
        return
    *others, last = map(repr if quoted else str, choices)
    raise ValueError(f"{name} must be {', '.join(others)} or {last}; got {value!r}")


def among(choices: Collection[str], name: str, value: object) -> None:
    """``model.composition must be one of a, b, c; got 'd'``: for a table that may grow."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def shares(name: str, values: Mapping[str, float]) -> None:
    """``data.splits must be fractions >= 0 that sum to at most 1; got {'train': 2.0}``

    They need not add up to 1, but to something.
    """
    total = sum(values.values())
    if any(share < 0 for share in values.values()) or not 0 < total <= 1 + 1e-9:
        raise ValueError(f"{name} must be fractions >= 0 that sum to at most 1; got {values}")


def _or_null(null: bool) -> str:
    return "null or " if null else ""
