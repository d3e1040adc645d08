"""Splits of samples: whatever belongs to one phantom stays together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from physics_hybrid.checks import shares

#: In the order in which 80/10/10 names them.
NAMES = ("train", "validation", "test")


def fractions_of(given: Mapping[str, float] | str) -> dict[str, float]:
    """data.splits as fractions of 1: percentages are those that sum to 100, and 80/10/10 (80/20:
    no test split) is a word for them.

    Raises
    ------
    ValueError
        For a word that is none, and for numbers that are no shares.
    """
    if isinstance(given, str):
        given = _parts(given)
    total = sum(given.values())
    if math.isclose(total, 100.0, rel_tol=1e-6):
        given = {name: share / 100.0 for name, share in given.items()}
    shares("data.splits", given)
    return dict(given)


def _parts(word: str) -> dict[str, float]:
    """The shares that 80/10/10 names."""
    parts = word.split("/")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= len(NAMES):
        rule = "{train: 0.8, validation: 0.1, test: 0.1}, or 80/10/10"
        raise ValueError(f"data.splits must be shares such as {rule}; got {word!r}")
    return dict(zip(NAMES, numbers, strict=False))


def split_by_phantom(
    phantoms: list[str], fractions: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Indices of each split; all samples of a phantom fall into the same one.

    Deterministic from the seed. A split with a positive fraction gets at least one phantom while
    there are enough of them.

    Raises
    ------
    ValueError
        For fractions that are none, and where there are fewer phantoms than splits.
    """
    shares("data.splits", fractions)
    unique = sorted(set(phantoms))
    counts = _counts(len(unique), fractions)
    order = np.random.default_rng(seed).permutation(len(unique))
    out: dict[str, list[int]] = {name: [] for name in fractions}
    start = 0
    for name, count in counts.items():
        chosen = {unique[i] for i in order[start : start + count]}
        out[name] = [i for i, phantom in enumerate(phantoms) if phantom in chosen]
        start += count
    return out


def _counts(phantoms: int, fractions: dict[str, float]) -> dict[str, int]:
    """How many phantoms each split with a positive fraction gets."""
    wanted = [name for name, share in fractions.items() if share > 0]
    counts = {name: max(int(fractions[name] * phantoms), 1) for name in wanted}
    largest = max(wanted, key=lambda name: fractions[name])
    rest = round(sum(fractions.values()) * phantoms) - sum(counts.values())
    counts[largest] = max(counts[largest] + rest, 1)
    if sum(counts.values()) > phantoms:
        raise ValueError(
            f"{phantoms} phantom(s) cannot be split into {', '.join(wanted)}: each split needs its "
            "own (samples with the same sigma are one phantom). Bring more, or set fractions to 0 "
            "in data.splits"
        )
    return counts
