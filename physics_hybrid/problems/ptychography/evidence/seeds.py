"""The table of the page: means and standard deviations over runs of several seeds.

    python -m physics_hybrid.problems.ptychography.evidence.seeds docs/ptychography.md RUN RUN RUN

puts it between <!-- ptychography --> and <!-- /ptychography -->.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from physics_hybrid.problems.ptychography.learning import CONTENDERS
from physics_hybrid.problems.ptychography.metrics import AMPLITUDE, MISFIT, PHASE
from physics_hybrid.report.markdown import table
from physics_hybrid.writing import write_text

COLUMNS = (*AMPLITUDE, *PHASE, *MISFIT)
NAME = "ptychography"


def seeds_table(runs: Sequence[Path]) -> str:
    """Markdown: a row for each contender, and where the numbers come from.

    Raises
    ------
    ValueError
        Two runs have the same seed.
    """
    found = [json.loads((run / "evaluation" / "metrics.json").read_text()) for run in runs]
    seeds = [about["seed"] for about in found]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"runs must have a seed of their own each; got {seeds}")
    tested = [next(iter(about["samples"])) for about in found]
    rows = []
    for prefix, who in CONTENDERS.items():
        keys = [prefix + key for key, _ in COLUMNS]
        tables = [about[name] for about, name in zip(found, tested, strict=True)]
        values = [[table_of.get(key) for key in keys] for table_of in tables]
        if None not in values[0]:
            columns = zip(*values, strict=True)
            rows.append([who, *(_spread([v["mean"] for v in column]) for column in columns)])
    first = found[0]
    samples = sum(about["samples"][name] for about, name in zip(found, tested, strict=True))
    where = (
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}, {samples} unseen"
        f" objects in all; {first['parameters'] / 1e6:.2f} M parameters; {first['hardware']},"
        f" commit {first['commit'][:10]}."
    )
    return "\n\n".join([table(["what", *(label for _, label in COLUMNS)], rows), where])


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1g}"


def put(page: Path, content: str, name: str = NAME) -> None:
    """Replace what stands between the markers of a page. Raises ValueError where it has none."""
    text = page.read_text()
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{page} has no place for {name!r}: <!-- {name} --> ... <!-- /{name} -->")
    write_text(page, pattern.sub(lambda m: m[1] + content.rstrip() + "\n" + m[2], text))


def main(words: Sequence[str]) -> None:
    page, *runs = map(Path, words)
    content = seeds_table(runs)
    put(page, content)
    print(content)


if __name__ == "__main__":
    main(sys.argv[1:])
