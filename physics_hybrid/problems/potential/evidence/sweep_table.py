"""The table of a sweep: a line a row in table.csv, a line a body in table.md, both in table.json;
in table.png all voltages by body and distance.

reciprocity    max |R_ij - R_ji| / max |R_ij|  over the electrodes of a body                     [1]

R_ij, V/A, is the voltage at electrode j for 1 A through electrode i, and symmetric in any passive
body (Helmholtz 1853): what is left of the difference is the error of the solves and of looking up
between voxels, seen without knowing the truth. Patches feed and read the same voxels: there it is
the tolerance. With a second electrode that all share (`returns`) voltages of patches are against
it; those of points, against the mean over tissue, are not symmetric, and nothing is said of them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from physics_hybrid.problems.potential.evidence.sweep import Subject, Sweep
from physics_hybrid.report.markdown import table as markdown_table
from physics_hybrid.report.plots import pyplot, save, spared
from physics_hybrid.writing import write_text

COLUMNS = (
    "body",
    "electrode",
    "D_m",
    "H_m",
    "W_m",
    "moved_m",
    "ends",
    "iterations",
    "residual",
    "seconds",
    "processor_seconds",
    "error",
)
HEADS = ("body", "rows", "failed", "largest, ohm", "reciprocity", "processor s", "said")
MISSING = "is not there yet"
#: Letters of what was said in a cell of table.md.
LONG = 120


def write_table(sweep: Sweep) -> tuple[str, list[str]]:
    """Write table.csv, table.json and table.md to OUTPUT; the latter, and a line for each row that
    failed or is not there.

    Raises ValueError for a damaged record.
    """
    by_body = {subject: _records(sweep, subject) for subject in sweep.subjects}
    wrong = [line for subject, records in by_body.items() for line in _wrong(subject, records)]
    bodies = [_summary(sweep, subject, records) for subject, records in by_body.items()]
    records = [r for found in by_body.values() for r in found if r is not None]
    write_text(sweep.output / "table.csv", _csv(sweep, records))
    contents = {"settings": sweep.settings(), "bodies": bodies, "rows": records}
    write_text(sweep.output / "table.json", json.dumps(contents, indent=1) + "\n")
    text = _markdown(bodies, records)
    write_text(sweep.output / "table.md", text + "\n")
    with spared("table.png"):
        draw(by_body.values(), sweep.output / "table.png")
    return text, wrong


def _records(sweep: Sweep, subject: Subject) -> list[dict[str, Any] | None]:
    return [sweep.read(row) for row in subject.rows]


def _wrong(subject: Subject, records: Sequence[dict[str, Any] | None]) -> list[str]:
    """What keeps the rows of a body from being whole."""
    lines = []
    for k, record in enumerate(records):
        said = MISSING if record is None else record["error"]
        if said is not None:
            lines.append(f"{subject.name}_{k:03d}: {said}")
    if _changed(records):
        lines.append(f"{subject.name}: {CHANGED}")
    return lines


CHANGED = "its files changed between its rows: delete them, and start again"


def _changed(records: Sequence[dict[str, Any] | None]) -> bool:
    """Whether rows of a body were solved of different files."""
    digests = {r.get("digest") for r in records if r is not None and r["error"] is None}
    return len(digests) > 1


def _summary(
    sweep: Sweep, subject: Subject, records: Sequence[dict[str, Any] | None]
) -> dict[str, Any]:
    """A body in a line."""
    there = [r for r in records if r is not None]
    solved = [r for r in there if r["error"] is None]
    transfer = _matrix(solved, len(records))
    known = np.abs(transfer[np.isfinite(transfer)])
    said = next((r["error"] for r in there if r["error"] is not None), None)
    if _changed(records):
        said = CHANGED
    elif said is None:
        warned = dict.fromkeys(text for record in solved for text in record["warnings"])
        said = "; ".join(f"warning: {text}" for text in warned) or None
    return {
        "body": subject.name,
        "rows": len(records),
        "solved": len(solved),
        "failed": len(there) - len(solved),
        "largest_ohm": float(known.max()) if known.size else None,
        "reciprocity": reciprocity(transfer) if sweep.reciprocal else None,
        "processor_seconds": round(sum(r["processor_seconds"] for r in there), 3),
        "said": said,
    }


def _matrix(solved: Sequence[dict[str, Any]], count: int) -> np.ndarray:
    """R_ij, V/A; NaN where it is not known. (count, count)"""
    found = np.full((count, count), np.nan)
    for record in solved:
        found[record["electrode"]] = [np.nan if v is None else v for v in record["transfer"]]
    return found


def reciprocity(transfer: np.ndarray) -> float | None:
    """max |R_ij - R_ji| / max |R_ij|; None where no pair is known both ways. (n, n)"""
    difference = np.abs(transfer - transfer.T)
    both = np.isfinite(difference) & ~np.eye(len(transfer), dtype=bool)
    if not both.any():
        return None
    largest = np.abs(transfer[both]).max()
    return float(difference[both].max() / largest) if largest > 0 else None


def _csv(sweep: Sweep, records: Sequence[dict[str, Any]]) -> str:
    """A line a row, and volts for 1 A at each electrode."""
    most = max(len(subject.electrodes) for subject in sweep.subjects)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*COLUMNS, *(f"ohm_{k}" for k in range(most))])
    for record in records:
        place = record.get("place") or [None] * 3
        known = {**record, **dict(zip(("D_m", "H_m", "W_m"), place, strict=True))}
        known["moved_m"] = record.get("moved")
        transfer = list(record.get("transfer") or ())
        cells = [known.get(column) for column in COLUMNS] + transfer
        out.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def _markdown(bodies: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> str:
    """A line a body, and what was computed where."""
    lines = [
        [
            body["body"],
            f"{body['solved']} of {body['rows']}",
            body["failed"],
            _number(body["largest_ohm"], "{:.4g}"),
            _number(body["reciprocity"], "{:.1e}"),
            f"{body['processor_seconds']:.1f}",
            _short(body["said"] or ""),
        ]
        for body in bodies
    ]
    about = {json.dumps(r["about"], sort_keys=True): r["about"] for r in records}
    where = sorted({f"{a['hardware']}, commit {a['commit'][:10]}" for a in about.values()})
    total = sum(body["processor_seconds"] for body in bodies)
    solved, rows = (sum(body[key] for body in bodies) for key in ("solved", "rows"))
    closing = f"{solved} of {rows} rows in {total:.1f} s of one processor; {'; '.join(where)}."
    return f"{markdown_table(HEADS, lines)}\n\n{closing}"


def _short(text: str) -> str:
    """What was said of a body, as long as a cell; table.json has all of it."""
    text = text.replace("|", "/")
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def draw(bodies: Iterable[Sequence[dict[str, Any] | None]], path: Path) -> None:
    """|R_ij| of every pair of electrodes, body by body, coloured by their distance; bodies with
    failed rows are marked below.
    """
    points, failed = [], []
    for number, records in enumerate(bodies):
        there = [record for record in records if record is not None]
        solved = {r["electrode"]: r for r in there if r["error"] is None}
        if len(solved) < len(there):
            failed.append(number)
        for k, record in solved.items():
            for other in solved.keys() - {k}:
                volts = record["transfer"][other]
                apart = np.subtract(record["place"], solved[other]["place"])
                if volts:
                    points.append((number, abs(volts), 1e3 * float(np.linalg.norm(apart))))
    if not points:
        return
    x, y, distance = np.array(points).T
    figure, axis = pyplot().subplots(figsize=(8, 3.6), layout="constrained")
    shown = axis.scatter(x, y, c=distance, s=14, cmap="viridis_r")
    axis.set(
        yscale="log", xlabel="body", ylabel="|voltage| at one electrode\nfor 1 A at another (Ω)"
    )
    if failed:
        axis.plot(failed, [y.min() / 2] * len(failed), "rx", label="rows failed")
        axis.legend()
    figure.colorbar(shown, label="distance (mm)")
    save(figure, path)
