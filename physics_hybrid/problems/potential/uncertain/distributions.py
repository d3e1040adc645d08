"""What a conductivity may be: distributions of positive numbers, drawn by their quantiles.

    mu = F^-1(u),        u uniform in (0, 1)                                            [S/m]

All have a quantile function `at`, so that the same u give the same samples, whatever they are for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from scipy import special

from physics_hybrid.checks import is_number

#: The largest cv of a LogNormal, the least `within` of a Normal: beyond, there are no digits left.
WIDEST, NARROWEST = 1e3, 1e-3
#: Probabilities are kept so far from 0 and 1: no quantile is infinite.
EDGE = 1e-12


class Distribution(Protocol):
    """One conductivity, S/m."""

    def around(self, own: float) -> Distribution:
        """The same, about a conductivity in S/m where it has no centre of its own."""

    def at(self, u: np.ndarray) -> np.ndarray:
        """Quantiles, S/m, of probabilities of any shape."""

    @property
    def centre(self) -> float:
        """The mean, S/m: where local sensitivities are taken."""

    @property
    def sd(self) -> float:
        """Standard deviation, S/m."""


@dataclass(frozen=True)
class _AboutMean:
    """mean : S/m; None: the conductivity that the body has. cv : standard deviation over mean."""

    mean: float | None = None
    cv: float = 0.2

    def __post_init__(self) -> None:
        _positive(self, "mean", self.mean)
        _positive(self, "cv", self.cv)

    def around(self, own: float) -> Self:
        """See `Distribution`."""
        return self if self.mean is not None else replace(self, mean=own)

    @property
    def centre(self) -> float:
        """See `Distribution`."""
        if self.mean is None:
            raise ValueError(f"{self} has no mean without a body: give mean, S/m")
        return float(self.mean)


class _Bounded:
    """What lies between two conductivities: it is where it is, whatever the body has."""

    def around(self, own: float) -> Self:
        """See `Distribution`."""
        return self


@dataclass(frozen=True)
class LogNormal(_AboutMean):
    """A logarithm that is normal: cannot be negative, and the usual choice for a conductivity.

    mean : S/m; None: the conductivity that the body has. cv : standard deviation over mean.

    Raises
    ------
    ValueError
        A mean or a cv that is not positive and finite.

    Source
    ------
    Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions 1, 1994, ch. 14.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> fat = ph.LogNormal(0.05, cv=0.2)                                                # S/m
    >>> fat.at(0.5) < fat.centre == 0.05
    True
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cv > WIDEST:
            raise ValueError(f"LogNormal: cv must be <= {WIDEST:g}; got {self.cv!r}")

    def at(self, u: np.ndarray | float) -> np.ndarray:
        """See `Distribution`."""
        width = math.sqrt(math.log1p(self.cv**2))
        found: np.ndarray = self.centre * np.exp(width * special.ndtri(_inside(u)) - width**2 / 2)
        return found

    @property
    def sd(self) -> float:
        """See `Distribution`."""
        return self.cv * self.centre


@dataclass(frozen=True)
class Normal(_AboutMean):
    """A normal distribution cut off at `within` standard deviations, where it must be positive.

    mean : S/m; None: the conductivity that the body has. cv : standard deviation over mean, before
    it is cut off.

    Raises
    ------
    ValueError
        Values that are not positive and finite; conductivities below 0.

    Source
    ------
    Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions 1, 1994, ch. 13.10.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> ph.Normal(0.3, cv=0.1).at([0.0, 0.5, 1.0]).round(3).tolist()                    # S/m
    [0.21, 0.3, 0.39]
    """

    within: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "within", self.within)
        if self.within < NARROWEST:
            raise ValueError(f"Normal: within must be >= {NARROWEST:g}; got {self.within!r}")
        if self.cv * self.within >= 1:
            raise ValueError(
                f"{self} reaches {1 - self.cv * self.within:.3g} of its mean, and a conductivity is"
                f" positive: within < {1 / self.cv:.3g}, a smaller cv, or LogNormal"
            )

    def at(self, u: np.ndarray | float) -> np.ndarray:
        """See `Distribution`."""
        low = special.ndtr(-self.within)
        deviation = special.ndtri(low + _inside(u) * (1 - 2 * low))
        found: np.ndarray = self.centre * (1 + self.cv * deviation)
        return found

    @property
    def sd(self) -> float:
        """See `Distribution`."""
        density = math.exp(-(self.within**2) / 2) / math.sqrt(2 * math.pi)
        inside = 1 - 2 * special.ndtr(-self.within)
        return self.cv * self.centre * math.sqrt(1 - 2 * self.within * density / inside)


@dataclass(frozen=True)
class Uniform(_Bounded):
    """Anything between two conductivities, S/m.

    Raises
    ------
    ValueError
        Not 0 < low < high.

    Source
    ------
    Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions 2, 1995, ch. 26.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> ph.Uniform(0.01, 0.03).at(0.25).round(6).item()                                 # S/m
    0.015
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _positive(self, "low", self.low)
        _number(self, "high", self.high)
        _ordered(self, self.low < self.high < math.inf, "low < high")

    def at(self, u: np.ndarray | float) -> np.ndarray:
        """See `Distribution`."""
        return self.low + _inside(u) * (self.high - self.low)

    @property
    def centre(self) -> float:
        """See `Distribution`."""
        return (self.low + self.high) / 2

    @property
    def sd(self) -> float:
        """See `Distribution`."""
        return (self.high - self.low) / math.sqrt(12)


@dataclass(frozen=True)
class Triangular(_Bounded):
    """Between two conductivities, most likely at a third, S/m.

    Raises
    ------
    ValueError
        Not 0 < low <= mode <= high, or low = high.

    Source
    ------
    Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions 2, 1995, ch. 26.9.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> bone = ph.Triangular(0.01, 0.02, 0.06)                                          # S/m
    >>> round(bone.centre, 6), bone.at(0.2).round(6).item()
    (0.03, 0.02)
    """

    low: float
    mode: float
    high: float

    def __post_init__(self) -> None:
        _positive(self, "low", self.low)
        _number(self, "mode", self.mode)
        _number(self, "high", self.high)
        rises = self.low <= self.mode <= self.high < math.inf and self.low < self.high
        _ordered(self, rises, "low <= mode <= high")

    def at(self, u: np.ndarray | float) -> np.ndarray:
        """See `Distribution`."""
        share = _inside(u)
        width, rise = self.high - self.low, self.mode - self.low
        left = self.low + np.sqrt(share * width * rise)
        right = self.high - np.sqrt((1 - share) * width * (self.high - self.mode))
        return np.where(share * width < rise, left, right)

    @property
    def centre(self) -> float:
        """See `Distribution`."""
        return (self.low + self.mode + self.high) / 3

    @property
    def sd(self) -> float:
        """See `Distribution`."""
        a, m, b = self.low, self.mode, self.high
        return math.sqrt((a * a + m * m + b * b - a * m - a * b - m * b) / 18)


#: What a command line calls them.
KINDS = {"lognormal": LogNormal, "normal": Normal, "uniform": Uniform, "triangular": Triangular}


def _inside(u: np.ndarray | float) -> np.ndarray:
    """Probabilities off the two ends."""
    inside: np.ndarray = np.clip(np.asarray(u, dtype=float), EDGE, 1 - EDGE)
    return inside


def _positive(of: object, name: str, value: float | None) -> None:
    """Raises ValueError for a number that is not positive and finite; None passes as a mean."""
    if value is None and name == "mean":
        return
    if not is_number(value) or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
        unit = " S/m" if name in ("mean", "low") else ""
        raise ValueError(f"{type(of).__name__}: {name} must be > 0{unit}, finite; got {value!r}")


def _number(of: object, name: str, value: object) -> None:
    """Raises ValueError for what is no number."""
    if not is_number(value):
        raise ValueError(f"{type(of).__name__}: {name} must be a number, S/m; got {value!r}")


def _ordered(of: object, ordered: bool, rule: str) -> None:
    """Raises ValueError where bounds are in another order."""
    if not ordered:
        raise ValueError(f"{of} must have {rule}, S/m, finite")
