"""The table of tissues of a segmentation: which labels stand for each, and what it conducts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from physics_hybrid.checks import positive
from physics_hybrid.problems.potential.bodies.fibres import matrices

#: Of no tissue of the table (which has fewer).
NONE = 255


@dataclass(frozen=True)
class Tissue:
    """One row of the table.

    name : of the tissue.
    labels : of the file that stand for it.
    sigma : (1, 3 or 6,) in S/m, 0 for air.
    """

    name: str
    labels: tuple[int, ...]
    sigma: tuple[float, ...]


def read_table(table: dict[str, Any]) -> list[Tissue]:
    """`{name: {label: 3 or [3, 4], sigma: S/m (1, 3 or 6 values)}}` as tissues; air first.

    Raises
    ------
    ValueError
        A label that is not a whole number or is given twice; a tensor that is not positive
        definite; a table without tissue.
    """
    tissues: list[Tissue] = []
    owner: dict[int, str] = {}
    for name, entry in table.items():
        where = f"data.tissues.{name}"
        if not isinstance(entry, dict) or set(entry) != {"label", "sigma"}:
            raise ValueError(f"{where} must be {{label: .., sigma: ..}}; got {entry}")
        labels = _labels(entry["label"], where)
        for label in labels:
            if label in owner:
                raise ValueError(
                    f"label {label} stands for both {owner[label]} and {name} in data.tissues"
                )
            owner[label] = name
        tissues.append(Tissue(name, labels, _sigma(entry["sigma"], where, air=name == "air")))
    tissues.sort(key=lambda t: t.name != "air")
    if not tissues or tissues[0].name != "air":
        tissues.insert(0, Tissue("air", (), (0.0,)))
    if not 2 <= len(tissues) <= NONE:
        raise ValueError(
            f"data.tissues must name 1 to {NONE - 1} tissues beside air; got {len(tissues) - 1}"
        )
    return tissues


def with_air_below(tissues: list[Tissue], air_below: float | None) -> list[Tissue]:
    """The table with what conducts less than `air_below` (S/m, along D) as air, its first row.

    Raises ValueError for a conductivity that is none, and where no tissue is left.
    """
    if air_below is None:
        return tissues
    positive("data.air_below", air_below)
    air, *others = tissues
    kept = [t for t in others if t.sigma[0] >= air_below]
    if not kept:
        raise ValueError(f"data.air_below={air_below:g} S/m leaves no tissue of data.tissues")
    labels = [label for t in others if t not in kept for label in t.labels]
    return [Tissue("air", (*air.labels, *labels), air.sigma), *kept]


def _several(value: Any) -> tuple[Any, ...]:
    """A list, or one value, as a tuple."""
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return (value,)


def _labels(value: Any, where: str) -> tuple[int, ...]:
    """Labels of one tissue. Raises ValueError where they are not whole numbers."""
    labels = _several(value)
    if not labels or not all(isinstance(n, int) and not isinstance(n, bool) for n in labels):
        raise ValueError(f"{where}.label must be a whole number or a list of them; got {value}")
    return labels


def _sigma(value: Any, where: str, air: bool) -> tuple[float, ...]:
    """Conductivity of one tissue, S/m. Raises ValueError where it has none, or air has one."""
    sigma = _several(value)
    numbers = all(isinstance(v, (int, float)) and math.isfinite(v) for v in sigma)
    if not numbers or len(sigma) not in (1, 3, 6):
        raise ValueError(
            f"{where}.sigma must be 1 value, 3 (DD, HH, WW) or 6 (DD, HH, WW, DH, DW, HW) "
            f"in S/m; got {value}"
        )
    if air and any(sigma):
        raise ValueError(f"{where}.sigma must be 0: air carries no current; got {value}")
    if not air and np.linalg.eigvalsh(_matrix(sigma)).min() <= 0:
        raise ValueError(
            f"{where}.sigma must be positive (a tensor: positive definite); got {value}. "
            "What carries no current belongs to air"
        )
    return tuple(float(v) for v in sigma)


def components(sigma: tuple[float, ...], count: int) -> np.ndarray:
    """A conductivity given with as many components or fewer, S/m. (count,)

    One value stands for three on the diagonal, and what is off the diagonal is 0.
    """
    values = np.asarray(sigma)
    if len(sigma) == 1 and count > 1:
        values = np.repeat(values, 3)
    return np.concatenate([values, np.zeros(count - len(values))])


def conductivities(tissues: list[Tissue]) -> np.ndarray:
    """The rows of a table, S/m, with as many components as the richest tissue has. (rows, C)"""
    count = max(len(t.sigma) for t in tissues)
    return np.stack([components(t.sigma, count) for t in tissues])


def _matrix(sigma: tuple[float, ...]) -> np.ndarray:
    """The tensor of a conductivity, S/m. (3, 3)"""
    return matrices(components(sigma, 6))
