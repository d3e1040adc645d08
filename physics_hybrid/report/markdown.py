"""Tables in Markdown, and the statistics that stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

STATISTICS = ("mean", "std", "median", "p95", "max")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def aggregate(rows: Sequence[Mapping[str, object]]) -> dict[str, dict[str, float]]:
    """mean, std, median, p95 and max of every number over the samples that have it."""
    import numpy as np  # tables alone do not wait for it

    names = dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float))
    out = {}
    for name in names:
        v = np.array([row[name] for row in rows if name in row])
        values = (v.mean(), v.std(), np.median(v), np.percentile(v, 95), v.max())
        out[name] = dict(zip(STATISTICS, map(float, values), strict=True))
    return out


def metrics_table(
    tables: Mapping[str, dict[str, dict[str, float]]],
    columns: Sequence[tuple[str, str]],
    contenders: Mapping[str, str],
    varies: str,
) -> str:
    """Mean of the main metrics, and the 95th percentile of the first, a row for each test set and
    contender.
    """
    first, heading = columns[0]
    heads = [varies, "what", *(label for _, label in columns), f"{heading}, p95"]
    rows = []
    for name, metrics in tables.items():
        for prefix, who in contenders.items():
            if prefix + first in metrics:
                values = [metrics[prefix + key]["mean"] for key, _ in columns]
                values.append(metrics[prefix + first]["p95"])
                rows.append([name, who, *(f"{v:.6g}" for v in values)])
    return table(heads, rows)
