"""What the page asks for: where the electrodes are, their current, what tissues conduct, and where
the sections cut. A message of the page is checked here, key by key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from physics_hybrid.checks import positive

Place = tuple[float, float, float]

#: What a message must have, and may have.
NEEDED = {"at", "returns", "current", "sigma", "cut"}
#: Letters of what was sent that an error repeats.
LONG = 80


class Refused(ValueError):
    """A message that asks for what cannot be. nearest : tissue that is meant perhaps, (3,) m."""

    def __init__(self, said: str, nearest: Place | None = None, electrode: str = "") -> None:
        super().__init__(said)
        self.nearest, self.electrode = nearest, electrode


@dataclass(frozen=True)
class Scene:
    """at : where the current comes in, m of the grid. returns : where it is taken out, or None.
    current : A. sigma : S/m along D, for each tissue. cut : the place in all three sections, m.
    """

    at: Place
    returns: Place | None
    current: float
    sigma: tuple[float, ...]
    cut: Place

    @classmethod
    def of(cls, message: object, tissues: tuple[str, ...]) -> Scene:
        """A scene that a message of the page describes.

        Raises
        ------
        Refused (a ValueError)
            No object; a key too many or too few; what is no finite number; a conductivity that is
            not > 0.
        """
        if not isinstance(message, Mapping):
            raise Refused(
                f"a scene must be an object with {_listed(NEEDED)}; got {_short(message)}"
            )
        keys = {*map(str, message)}
        if keys != NEEDED:
            wrong = f"lacks {_listed(NEEDED - keys)}" if NEEDED - keys else ""
            extra = f"has {_listed(keys - NEEDED)}, which there is not" if keys - NEEDED else ""
            raise Refused(f"the scene {' and '.join(filter(None, (wrong, extra)))}")
        returns = message["returns"]
        current = _number(message["current"], "the current")
        if current == 0:
            raise Refused("the current must not be 0: there would be no field to show")
        return cls(
            at=_place(message["at"], "the electrode"),
            returns=None if returns is None else _place(returns, "the return electrode"),
            current=current,
            sigma=_conductivities(message["sigma"], tissues),
            cut=_place(message["cut"], "the cross-hair"),
        )

    @property
    def solved_for(self) -> tuple[Any, ...]:
        """All that the field depends on."""
        return self.at, self.returns, self.current, self.sigma


def _listed(words: set[str]) -> str:
    return ", ".join(sorted(words))


def _number(value: object, name: str) -> float:
    """A finite number. Raises Refused."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        number = float(value) if plain else math.nan  # type: ignore[arg-type]
    except OverflowError:  # JSON has whole numbers of any length
        number = math.inf
    if not math.isfinite(number):
        raise Refused(f"{name} must be a finite number; got {_short(value)}")
    return number


def _short(value: object) -> str:
    """What was sent, no longer than a line."""
    text = repr(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def _place(value: object, name: str) -> Place:
    """Three finite numbers. Raises Refused."""
    if not isinstance(value, list) or len(value) != 3:
        raise Refused(f"{name} must be three numbers, m of the grid; got {_short(value)}")
    d, h, w = (_number(x, f"the place of {name}") for x in value)
    return d, h, w


def _conductivities(value: object, tissues: tuple[str, ...]) -> tuple[float, ...]:
    """One for each tissue, > 0. Raises Refused."""
    if not isinstance(value, list) or len(value) != len(tissues):
        raise Refused(
            f"sigma must be {len(tissues)} numbers in S/m, for {', '.join(tissues)}; got"
            f" {_short(value)}"
        )
    found = []
    for name, one in zip(tissues, value, strict=True):
        number = _number(one, f"the conductivity of {name}")
        try:
            positive(f"the conductivity of {name} (S/m)", number)
        except ValueError as error:
            raise Refused(str(error)) from error
        found.append(number)
    return tuple(found)
