"""Voltages of electrodes for sources anywhere in a body: one solve an electrode, by reciprocity.

    python -m physics_hybrid lead-field thigh.nii.gz --electrode 0.10 0.02 0.05 --electrode 0.12
        0.02 0.05 --out lead.h5

V/A for 1 A that comes in at a voxel, for each electrode: (D, H, W, electrodes). Python looks up
between voxels, and has dipoles: ph.LeadField.load("lead.h5", body). All options may stand in a YAML
file too (--config FILE): electrode: [[0.10, 0.02, 0.05]].

Leaves with 0; 1 where a file, a body or a place is wrong, or the tolerance was not reached; 2 where
something was mistyped. What was wrong is one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from physics_hybrid.kinds import UsageError
from physics_hybrid.options import NUMBER, SWITCH, TRIPLES, WORD, WORDS, Shape, started
from physics_hybrid.verbs.solve import BODY, body_of, points_or_patches

SHAPES: dict[str, Shape] = {
    **BODY,
    "electrode": TRIPLES,
    "electrodes": WORD,
    "nearest": SWITCH,
    "patch": NUMBER,
    "reference": WORDS,
    "frame": WORD,
    "ends": WORD,
    "beta": NUMBER,
    "tolerance": NUMBER,
    "out": WORDS,
    "progress": SWITCH,
}


def main(arguments: list[str]) -> None:
    started("lead_field", __doc__, SHAPES, arguments, run)


def run(given: dict[str, Any]) -> None:
    """Read, solve, write."""
    import time

    import physics_hybrid as ph

    places = places_of(given)
    if not places:
        raise UsageError("--electrode X Y Z, or --electrodes FILE, is needed")
    if not given["out"]:
        raise UsageError("--out FILE is needed: .h5, .nii.gz or .nii")
    body = body_of(given)
    several = electrodes_on(body, places, given)
    began = time.monotonic()
    lead = ph.lead_field(
        body,
        several,
        reference_of(given["reference"]),
        tolerance=given["tolerance"],
        frame=given["frame"],
        ends=given["ends"],
        beta=given["beta"],
        progress=given["progress"],
    )
    print(lead)
    print(f"ends: {lead.ends.kind}; {time.monotonic() - began:.1f} s")
    for path in given["out"]:
        print(f"written: {lead.save(path)}")


def places_of(given: dict[str, Any]) -> list[list[float]]:
    """Of the electrodes that are typed, and those of a file after them. Raises as `listed`."""
    typed = list(given["electrode"] or ())
    return typed if given["electrodes"] is None else typed + listed(given["electrodes"])


def electrodes_on(body: Any, places: list[list[float]], given: dict[str, Any]) -> list[Any]:
    """Electrodes at places, or at the nearest ones of a body; points, or patches."""
    if given["nearest"] and places:
        places = body.nearest(places, given["frame"]).tolist()
    return points_or_patches(places, given["patch"])


def listed(path: str) -> list[list[float]]:
    """Places of a text file, three numbers a line. Raises ValueError, OSError."""
    rows = []
    for number, line in enumerate(Path(path).expanduser().read_text().splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 3:
            raise ValueError(f"{path}, line {number}: three numbers are expected; got {line!r}")
        rows.append(row)
    return rows


def reference_of(words: list[str]) -> Any:
    """A place, average, or None for the ends. Raises UsageError."""
    if words == ["average"]:
        return "average"
    if words == ["ends"]:
        return None
    try:
        place = [float(word) for word in words]
    except ValueError:
        place = []
    if len(place) != 3:
        raise UsageError(f"--reference takes three numbers, average or ends; got {' '.join(words)}")
    return place
