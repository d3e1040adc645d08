"""Splits of samples: whatever belongs to one phantom stays together."""

from __future__ import annotations

import numpy as np

from physics_hybrid.checks import shares


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
