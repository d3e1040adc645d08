"""How wrong a field is at most: a guaranteed bound, and an interval for an electrode's voltage.

    python -m physics_hybrid certify thigh.nii.gz --at 0.10 0.05 0.03 --field phi.nii.gz
    python -m physics_hybrid certify thigh.nii.gz --at 0.10 0.05 0.03 --read 0.12 0.02 0.05
        --radius 0.01 --to 0.01

Of any field, whatever has made it: against the exact solution of the voxel problem, in the energy
norm. Without --field the solver's is judged. All options may stand in a YAML file too (--config
FILE).

Leaves with 0; 1 where a file, a body or a place is wrong; 2 where something was mistyped. What was
wrong is one line.
"""

from __future__ import annotations

from typing import Any

from physics_hybrid.checks import one_of
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
from physics_hybrid.verbs.solve import BODY, body_of, electrodes, need_a_source, print_bound

SHAPES: dict[str, Shape] = {
    **BODY,
    "at": TRIPLES,
    "returns": TRIPLES,
    "frame": WORD,
    "current": NUMBERS,
    "ends": WORD,
    "beta": NUMBER,
    "tolerance": NUMBER,
    "field": WORD,
    "read": TRIPLE,
    "radius": NUMBER,
    "against": TRIPLE,
    "read_on": WORD,
    "to": NUMBER,
    "refine": WHOLE,
    "out": WORDS,
    "progress": SWITCH,
}


def main(arguments: list[str]) -> None:
    started("certify", __doc__, SHAPES, arguments, run)


def run(given: dict[str, Any]) -> None:
    """Read, judge, say, write."""
    import physics_hybrid as ph
    from physics_hybrid.problems.potential.door.formats import check_nifti, read_volts, write_nifti
    from physics_hybrid.problems.potential.door.solving import given_field

    need_a_source(given)
    if given["read"] is not None and given["radius"] is None:
        raise UsageError("--read needs --radius: an electrode is a patch")
    if given["against"] is not None and given["read"] is None:
        raise UsageError("--against needs --read: what its voltage is taken off from")
    if given["to"] is not None and given["read"] is None:
        raise UsageError("--to needs --read: the voltage whose interval is to be narrow")
    one_of(("voxels", "skin"), "--read-on", given["read_on"])
    for path in given["out"] or ():
        check_nifti(path)
    body = body_of(given)
    current = given["current"]
    asked = {key: given[key] for key in ("tolerance", "frame", "ends", "beta", "progress")}
    places = {"at": electrodes(given["at"], None), "returns": electrodes(given["returns"], None)}
    amperes = current[0] if len(current) == 1 else current
    if given["field"] is None:
        field = ph.solve(body, current=amperes, **places, **asked)
    else:
        volts = read_volts(body, given["field"])
        field = given_field(body, volts, current=amperes, **places, **asked)
    bound = field.certify(given["refine"])
    print(body)
    print(f"{field.engine}: {field.why}; ends: {field.ends.kind}")
    print_bound(field, given["refine"])
    if given["read"] is not None:
        against = given["against"]
        low, high = field.interval(
            ph.Patch(given["read"], given["radius"]),
            None if against is None else ph.Patch(against, given["radius"]),
            on=given["read_on"],
            to=given["to"],
            refine=1 if given["to"] is not None else given["refine"],
        )
        lows, highs = (volts if field.many else [volts] for volts in (low, high))
        for k, (least, most) in enumerate(zip(lows, highs, strict=True)):
            source = f"source {k}: " if field.many else ""
            print(f"{source}voltage: {least:.6g} to {most:.6g} V, for certain")
    for path in given["out"] or ():
        density = bound.density.movedim(0, -1).numpy()
        write_nifti(body, density if field.many else density[..., 0], path, "error, W a voxel")
        print(f"written: {path}")
