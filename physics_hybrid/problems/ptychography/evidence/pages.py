"""Tables of the pages on ptychography and on deep blocks, by `python -m physics_hybrid pages`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from physics_hybrid.problems.ptychography.learning import CONTENDERS
from physics_hybrid.problems.ptychography.metrics import AMPLITUDE, MISFIT, PHASE
from physics_hybrid.report.markdown import table
from physics_hybrid.report.pages import put

COLUMNS = (*AMPLITUDE, *PHASE, *MISFIT)


def seeds_table(runs: Sequence[Path]) -> str:
    """Means and standard deviations over runs of several seeds: a row for each contender, and where
    the numbers come from.

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
    of = f"Seed {seeds[0]}"
    if len(seeds) > 1:
        of = f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
    commits = ", ".join(sorted({about["commit"][:10] for about in found}))
    where = (
        f"{of}; {samples} unseen object{'s' if samples > 1 else ''} in all;"
        f" {first['parameters'] / 1e6:.2f} M parameters; {first['hardware']}, commit {commits}."
    )
    return "\n\n".join([table(["what", *(label for _, label in COLUMNS)], rows), where])


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1g}"


def seeds(folder: Path) -> str:
    """`seeds_table` of a run, or of all tested runs in a folder. Raises ValueError for none."""
    if (folder / "evaluation" / "metrics.json").exists():
        return seeds_table([folder])
    runs = sorted(path.parents[1] for path in folder.glob("*/evaluation/metrics.json"))
    if not runs:
        raise ValueError(f"{folder} is no tested run, and holds none")
    return seeds_table(runs)


def _written(name: str) -> Callable[[Path], str]:
    """What a verb wrote into its output folder."""

    def read(folder: Path) -> str:
        if not (folder / name).exists():
            raise ValueError(f"{folder} holds no {name}: give the output folder of the verb")
        return (folder / name).read_text()

    return read


#: Table -> its page, and what makes it of an output folder.
TABLES: dict[str, tuple[str, Callable[[Path], str]]] = {
    "ptychography": ("docs/ptychography.md", seeds),
    "activations": ("docs/stability.md", _written("activations.md")),
    "stability_rates": ("docs/stability.md", _written("study.md")),
    "stability": ("docs/stability.md", _written("study.md")),
    "stability_clipping": ("docs/stability.md", _written("study.md")),
    "stability_potential": ("docs/stability.md", _written("study.md")),
}


def fill_page(reports: Mapping[str, Path]) -> None:
    """Write each table to its page. Raises ValueError as they do."""
    for name, (page, make) in TABLES.items():
        if name in reports:
            put(page, name, make(reports[name]))
