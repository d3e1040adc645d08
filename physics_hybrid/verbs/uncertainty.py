"""What conductivities that are not known leave open of voltages, fields and lead fields.

    python -m physics_hybrid uncertainty thigh.nii.gz --at 0.10 0.05 0.03 --electrode 0.12 0.02 0.05
        --vary fat lognormal 0.05 0.3 --vary muscle uniform 0.9 1.5 --out spread.npz

Voltages of electrodes for a current: --at and --electrode. The field in a voxel: --at and --probe.
Lead fields: --electrode and --point, of dipoles with --moment. Mean, 95 % interval, the share of
each tissue, and what the reduced basis is off by at most. All options may stand in a YAML file too
(--config FILE): vary: [[fat, lognormal, 0.05, 0.3], [muscle, uniform, 0.9, 1.5]].

Leaves with 0; 1 where a file, a body, a place or a distribution is wrong; 2 where something was
mistyped. What was wrong is one line.
"""

from __future__ import annotations

from typing import Any

from physics_hybrid.kinds import UsageError
from physics_hybrid.options import (
    NUMBER,
    NUMBERS,
    SWITCH,
    TRIPLE,
    TRIPLES,
    WHOLE,
    WORD,
    WORDS,
    Shape,
    started,
)
from physics_hybrid.verbs.lead_field import electrodes_on, places_of, reference_of
from physics_hybrid.verbs.solve import BODY, body_of, check_asked, electrodes, write_asked

SHAPES: dict[str, Shape] = {
    **BODY,
    "vary": {**WORDS, "action": "append"},
    "cv": NUMBER,
    "at": TRIPLES,
    "returns": TRIPLES,
    "current": NUMBERS,
    "electrode": TRIPLES,
    "electrodes": WORD,
    "probe": TRIPLES,
    "what": WORD,
    "point": TRIPLES,
    "moment": TRIPLE,
    "nearest": SWITCH,
    "patch": NUMBER,
    "reference": WORDS,
    "frame": WORD,
    "ends": WORD,
    "beta": NUMBER,
    "singularity": WORD,
    "samples": WHOLE,
    "method": WORD,
    "tolerance": NUMBER,
    "seed": WHOLE,
    "out": WORDS,
    "figure": WORD,
    "progress": SWITCH,
}


def main(arguments: list[str]) -> None:
    started("uncertainty", __doc__, SHAPES, arguments, run)


def run(given: dict[str, Any]) -> None:
    """Read, sample, say, write."""
    import physics_hybrid as ph
    from physics_hybrid.problems.potential.door.uncertainty_files import writer_of

    places = places_of(given)
    _refuse_unused(given, _kind_of(given, places))
    distribution = distribution_of(given["vary"], given["cv"])
    check_asked(given, writer_of)
    body = body_of(given)
    quantity = _quantity(given, body, places)
    found = ph.uncertainty(
        body,
        distribution,
        quantity,
        samples=given["samples"],
        method=given["method"],
        tolerance=given["tolerance"],
        seed=given["seed"],
        progress=given["progress"],
    )
    print(body)
    print(found)
    print(_table(found))
    write_asked(found, given)


def _kind_of(given: dict[str, Any], places: list[list[float]]) -> str:
    """voltage, field or lead field. Raises UsageError where the options are for none."""
    if given["point"] is not None and given["at"] is None and places:
        return "lead field"
    if given["at"] is not None and given["point"] is None:
        if given["probe"] is not None and not places:
            return "field"
        if given["probe"] is None and places:
            return "voltage"
    raise UsageError(
        "--at and --electrode are needed (voltages), or --at and --probe (a field), or --electrode"
        " and --point (lead fields)"
    )


#: Of each quantity what has no meaning for it, and what that is where it is not given.
UNUSED: dict[str, dict[str, Any]] = {
    "voltage": {"moment": None, "what": "E"},
    "field": {"moment": None, "reference": ["ends"], "nearest": False},
    "lead field": {
        "returns": None,
        "current": [1.0e-3],
        "what": "E",
        "singularity": "subtraction",
    },
}


def _refuse_unused(given: dict[str, Any], kind: str) -> None:
    """Raises UsageError for an option that would be passed over."""
    for key, left in UNUSED[kind].items():
        if given[key] != left:
            raise UsageError(f"--{key} says nothing of a {kind}: leave it out")


def _quantity(given: dict[str, Any], body: Any, places: list[list[float]]) -> Any:
    """What is asked."""
    import physics_hybrid as ph

    several = electrodes_on(body, places, given)
    how = {key: given[key] for key in ("frame", "ends", "beta")}
    reference = reference_of(given["reference"])
    kind = _kind_of(given, places)
    if kind == "lead field":
        points, moments = given["point"], given["moment"]
        return ph.LeadFieldAt(several, points, moments, reference, **how)
    current = given["current"]
    driven = {
        "at": electrodes(given["at"], given["patch"]),
        "returns": electrodes(given["returns"], given["patch"]),
        "current": current[0] if len(current) == 1 else current,
        "singularity": given["singularity"],
    }
    if kind == "field":
        return ph.FieldAt(points=given["probe"], what=given["what"], **driven, **how)
    return ph.Voltage(electrodes=several, reference=reference, **driven, **how)


def distribution_of(vary: list[list[str]] | None, cv: float | None) -> Any:
    """What --vary and --cv say. Raises UsageError, ValueError."""
    from physics_hybrid.problems.potential.uncertain.distributions import KINDS

    if not vary:
        if cv is None:
            raise UsageError("--vary TISSUE KIND NUMBERS, or --cv NUMBER, is needed")
        return cv
    if cv is not None:
        raise UsageError("--vary names tissues, and --cv stands for all: one of them")
    found: dict[str, Any] = {}
    for tissue, *words in vary:
        kind, *numbers = words or [""]
        if kind not in KINDS:
            raise UsageError(f"--vary {tissue}: {', '.join(KINDS)} is expected; got {kind!r}")
        try:
            values = [None if number == "own" else float(number) for number in numbers]
        except ValueError:
            values = []
        if tissue in found:
            raise UsageError(f"--vary {tissue}: given twice")
        if len(values) != TAKES[kind]:
            raise UsageError(f"--vary {tissue} {kind} takes {NUMBERS_OF[kind]}; got {numbers}")
        found[tissue] = KINDS[kind](*values)
    return found


#: The numbers of a distribution on the command line.
NUMBERS_OF = {
    "lognormal": "MEAN CV (MEAN may be `own`: what the table says)",
    "normal": "MEAN CV (MEAN may be `own`: what the table says)",
    "uniform": "LOW HIGH",
    "triangular": "LOW MODE HIGH",
}
TAKES = {"lognormal": 2, "normal": 2, "uniform": 2, "triangular": 3}


def _table(found: Any) -> str:
    """A line a value."""
    import numpy as np

    low, high = (edge.ravel() for edge in found.interval(0.95))
    mean = found.mean.ravel()
    reduced = found.method == "reduced"
    heads = ["value", f"mean ({found.unit})", "95% from", "to"]
    heads += [*(f"S({name})" for name in found.names), "off by at most"] if reduced else []
    rows = [heads]
    sobol = found.sobol.reshape(len(found.names), -1) if reduced else None
    most = found.bound.reshape(len(found.bound), -1).max(axis=0) if reduced else None
    for k, value in enumerate(mean):
        where = np.unravel_index(k, found.samples.shape[1:])
        row = [",".join(map(str, where)) or "-", f"{value:.6g}", f"{low[k]:.6g}", f"{high[k]:.6g}"]
        if sobol is not None and most is not None:
            row += [*(f"{share:.3f}" for share in sobol[:, k]), f"{most[k]:.1e}"]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)
