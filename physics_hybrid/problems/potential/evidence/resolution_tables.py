"""What was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from physics_hybrid.problems.potential.evidence.resolution_running import (
    BASELINE,
    DIRECT,
    HOME,
    UPSAMPLED,
)

#: What `over_seeds` says of one contender of one row on one grid.
Cell = dict[str, Any]
#: Cells by (trained on, used on, contender).
Cells = dict[tuple[str, str, str], Cell]


def index(result: dict[str, Any]) -> Cells:
    return {(c["trained"], c["grid"], c["who"]): c for c in result["cells"]}


def rows_of(result: dict[str, Any]) -> list[str]:
    """The rows of the matrix: what was trained on."""
    return list(dict.fromkeys(c["trained"] for c in result["cells"]))


def best_upsampling(cells: Cells, trained: str, grid: str) -> Cell | None:
    """The interpolation with the least error; None where there is nothing to interpolate from."""
    there = [cells[trained, grid, who] for who in UPSAMPLED if (trained, grid, who) in cells]
    return min(there, key=_error, default=None)


def parts(result: dict[str, Any], kind: str) -> list[str]:
    """Names of the bands (kind: wavelength) or of the shells (distance) that any cell has, long
    wavelengths and near shells first.
    """
    if kind == "wavelength":
        bands: list[str] = result["bands"]
        return bands
    keys = (key for cell in result["cells"] for key in cell if key.startswith(f"{kind}/"))
    names = dict.fromkeys(key.removeprefix(f"{kind}/") for key in keys)
    return sorted(names, key=_from)


def _from(shell: str) -> float:
    """20-40mm, 80mm+ -> where the shell begins, mm."""
    return float(shell.split("-")[0].rstrip("m+"))


def _error(cell: Cell) -> float:
    mean: float = cell["relative_l2"]["mean"]
    return mean


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def _number(value: dict[str, Any] | None) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    if value is None:
        return ""
    if value["std"] is None:
        return f"{value['mean']:.4f}"
    return f"{value['mean']:.4f} ± {value['std']:.4f}"


def _of(cell: Cell | None, key: str = "relative_l2") -> str:
    return _number(cell.get(key)) if cell else ""


def matrix_table(result: dict[str, Any]) -> str:
    """Train grid x evaluation grid: relative L2 of direct inference, and a sentence that says
    whether interpolation is beaten.
    """
    cells, trained, grids = index(result), rows_of(result), result["grids"]
    lines = [
        _line(["trained on", "seeds", *grids]),
        "|---|---|" + "---|" * len(grids),
    ]
    for row in trained:
        seeds = str(len(cells[row, grids[0], DIRECT]["relative_l2"]["seeds"]))
        direct = [_of(cells.get((row, grid, DIRECT))) for grid in grids]
        lines.append(_line([row, seeds, *direct]))
        best = [best_upsampling(cells, row, grid) for grid in grids]
        if any(best):
            lines.append(_line([f"{row}, best of 4 interpolations", seeds, *map(_of, best)]))
    baseline = [f"{_error(cells[trained[0], grid, BASELINE]):.4f}" for grid in grids]
    lines.append(f"| baseline alone | | {' | '.join(baseline)} |")
    verdict = _verdict(cells, trained, grids)
    return "\n".join(lines) + (f"\n\n{verdict}" if verdict else "")


def _verdict(cells: Cells, trained: list[str], grids: list[str]) -> str:
    """Whether direct inference beats interpolation; nothing where nothing was interpolated."""
    pairs = 0
    lost = []
    for row in trained:
        for grid in grids:
            best = best_upsampling(cells, row, grid)
            if best is None:
                continue
            pairs += 1
            if _error(cells[row, grid, DIRECT]) >= _error(best):
                lost.append(f"{row} on {grid}")
    if not pairs:
        return ""
    exceptions = f"; not for {', '.join(lost)}" if lost else ""
    return (
        "Direct inference on a finer grid beats all four interpolations from the training grid in"
        f" {pairs - len(lost)} of {pairs} cases{exceptions}."
    )


def report(result: dict[str, Any]) -> str:
    """resolution_matrix.md."""
    lines = [
        "# Resolution matrix",
        "",
        matrix_table(result),
        "",
        (
            f"Relative L2, mean over {result['samples']} unseen limbs (± standard deviation over"
            " seeds)."
        ),
        "",
        *_all_contenders(result),
        "",
        "## By wavelength (squares add up to the square of the relative L2)",
        "",
        *_by_part(result, "wavelength"),
        "",
        "## By distance from the source",
        "",
        *_by_part(result, "distance"),
        "",
        "## Where the numbers come from",
        "",
        *_sources(result),
    ]
    return "\n".join(lines) + "\n"


def _all_contenders(result: dict[str, Any]) -> Iterator[str]:
    cells, everyone = index(result), (DIRECT, HOME, *UPSAMPLED, BASELINE)
    heads = [
        *("trained on", "used on", "interpolated from"),
        *everyone,
        *("trained there", "direct, p95", "RDM", "MAG", "direct, s", "home, s"),
    ]
    yield "## All contenders"
    yield ""
    yield _line(heads)
    yield "|---" * len(heads) + "|"
    for row in rows_of(result):
        for grid in result["grids"]:
            here = {who: cells.get((row, grid, who)) for who in everyone}
            sources = [cell["from"] for who, cell in here.items() if who in UPSAMPLED and cell]
            there = cells.get((grid, grid, DIRECT)) if row != grid else None
            words = [
                *(row, grid, sources[0] if sources else ""),
                *(_of(cell) for cell in here.values()),
                _of(there),
                *(_of(here[DIRECT], key) for key in ("relative_l2_p95", "rdm", "mag", "seconds")),
                _of(here[HOME], "seconds"),
            ]
            yield _line(words)


def _by_part(result: dict[str, Any], kind: str) -> Iterator[str]:
    """Direct inference, the best interpolation and the baseline by wavelength or distance."""
    cells, names = index(result), parts(result, kind)
    yield _line(["trained on", "used on", "what", *names])
    yield "|---" * (3 + len(names)) + "|"
    for row in rows_of(result):
        for grid in result["grids"]:
            best = best_upsampling(cells, row, grid)
            for cell in (cells[row, grid, DIRECT], best, cells[row, grid, BASELINE]):
                if cell:
                    values = [_of(cell, f"{kind}/{name}") for name in names]
                    yield _line([row, grid, cell["who"], *values])


def _sources(result: dict[str, Any]) -> Iterator[str]:
    for run in result["runs"]:
        yield (
            f"- {run['run']}: trained on {', '.join(run['trained'])}, seed {run['seed']},"
            f" {run['parameters'] / 1e6:.2f} M parameters"
        )
    for key in ("commit", "hardware", "torch", "date"):
        yield f"- {key}: {result[key]}"
