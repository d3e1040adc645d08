"""Electrodes with a shape and a contact on a body: impedance matrix, transfer resistances, fields.

    python -m physics_hybrid electrodes thigh.nii.gz --disk 0.06 0.05 0.0 0.01 --disk 0.14 0.05 0.0
        0.01 --nearest --contact-impedance 0.02 --out Z.csv
    python -m physics_hybrid electrodes thigh.nii.gz --config montage.yaml --transfer 0 3 1 2
        --currents 1e-3 0 0 -1e-3 --field phi.nii.gz --figure phi.png

The complete electrode model. Places are metres from the outer corner of the first voxel, in the
order (D, H, W), or with --frame world millimetres of the file's affine; sizes are in the same unit.
All options may stand in a YAML file too (--config FILE): disk: [[0.06, 0.05, 0.0, 0.01]].

Leaves with 0; 1 where a file, a body or an electrode is wrong, or the tolerance was not reached; 2
where something was mistyped. What was wrong is one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from physics_hybrid.kinds import UsageError
from physics_hybrid.options import (
    NUMBER,
    NUMBERS,
    SWITCH,
    TRIPLES,
    WORD,
    WORDS,
    Shape,
    started,
)
from physics_hybrid.verbs.solve import BODY, body_of, check_asked, print_probes, write_asked

#: Rows of numbers, again and again.
DISKS: Shape = {"type": float, "nargs": 4, "metavar": ("X", "Y", "Z", "RADIUS"), "action": "append"}
RECTANGLES: Shape = {
    "type": float,
    "nargs": 5,
    "metavar": ("X", "Y", "Z", "SIDE", "SIDE"),
    "action": "append",
}
FOURS: Shape = {"type": int, "nargs": 4, "metavar": ("A", "B", "M", "N"), "action": "append"}
LABELS: Shape = {"type": int, "nargs": "+", "metavar": "N", "action": "extend"}

SHAPES: dict[str, Shape] = {
    **BODY,
    "disk": DISKS,
    "rectangle": RECTANGLES,
    "label": LABELS,
    "faces": {**WORDS, "action": "extend"},
    "nearest": SWITCH,
    "contact_impedance": NUMBERS,
    "frame": WORD,
    "currents": NUMBERS,
    "voltages": NUMBERS,
    "transfer": FOURS,
    "ends": WORD,
    "beta": NUMBER,
    "tolerance": NUMBER,
    "out": WORDS,
    "field": WORDS,
    "probe": TRIPLES,
    "figure": WORD,
    "progress": SWITCH,
}


def main(arguments: list[str]) -> None:
    started("electrodes", __doc__, SHAPES, arguments, run)


def run(given: dict[str, Any]) -> None:
    """Read, solve, say, write."""
    import physics_hybrid as ph
    from physics_hybrid.problems.potential.door.electrodes import check_suffix
    from physics_hybrid.problems.potential.door.formats import writer_of

    for path in given["out"] or ():
        check_suffix(path)  # before anything is solved
    check_asked(given, writer_of, "field")
    if not any(given[key] for key in ("disk", "rectangle", "label", "faces")):
        raise UsageError(
            "an electrode is needed: --disk X Y Z RADIUS, --rectangle, --label or --faces"
        )
    body = body_of(given)
    system = ph.electrodes(
        body,
        _electrodes(given, body),
        ends=given["ends"],
        beta=given["beta"],
        frame=given["frame"],
        tolerance=given["tolerance"],
        progress=given["progress"],
    )
    print(system)
    print(f"{system.seconds:.1f} s")
    for k, (electrode, area) in enumerate(zip(system.electrodes, system.areas, strict=True)):
        print(f"electrode {k}: {electrode}, {1e6 * area:.4g} mm^2")
    print("impedance, ohm:")
    for row in system.impedance:
        print("  ".join(f"{z:12.6g}" for z in row))
    for a, b, m, n in given["transfer"] or ():
        found = float(system.transfer((a, b), (m, n)))
        print(f"transfer resistance, current {a} to {b}, voltage {m} less {n}: {found:.8g} ohm")
    for path in given["out"] or ():
        print(f"written: {system.save(path)}")
    if any(given[key] is not None for key in ("field", "figure", "probe", "currents", "voltages")):
        _drive(system, given)


def _drive(system: Any, given: dict[str, Any]) -> None:
    """The field of a drive."""
    currents, voltages = given["currents"], given["voltages"]
    if currents is None and voltages is None:
        currents = [0.0] * len(system)
        currents[0] = 1e-3
        if len(system) > 1:
            currents[-1] = -1e-3
    if currents is not None and voltages is not None:
        held = [v == v for v in voltages]  # nan is not
        currents = [
            float("nan") if fixed and amperes == 0 else amperes
            for amperes, fixed in zip(currents, held, strict=False)
        ]
    field = system.solve(currents, voltages)
    for k, (volts, amperes) in enumerate(zip(field.voltages, field.currents, strict=True)):
        print(f"electrode {k}: {volts:.8g} V, {amperes:.10g} A delivered")
    print(f"delivered as asked for to {field.defect:.1e} of the largest current")
    if given["probe"] is not None:
        print_probes(field, given["probe"])
    write_asked(field, given, "field")


def _electrodes(given: dict[str, Any], body: Any) -> list[Any]:
    """All electrodes, in order. Raises UsageError for another number of impedances."""
    import physics_hybrid as ph

    def placed(row: list[float]) -> Any:
        """The centre of a disk or rectangle."""
        return body.nearest_skin(row[:3], given["frame"]) if given["nearest"] else row[:3]

    make = ph.Electrode
    makers: list[Any] = [
        *((make.disk, (placed(row), row[3])) for row in given["disk"] or ()),
        *((make.rectangle, (placed(row), row[3:])) for row in given["rectangle"] or ()),
        *((make.label, (number,)) for number in given["label"] or ()),
        *((make.faces, (listed_faces(path),)) for path in given["faces"] or ()),
    ]
    z = given["contact_impedance"] or [None]
    if len(z) not in (1, len(makers)):
        raise UsageError(
            f"--contact-impedance takes one number, or one for each of {len(makers)} electrodes;"
            f" got {len(z)}"
        )
    each = z * len(makers) if len(z) == 1 else z
    return [kind(*what, film) for (kind, what), film in zip(makers, each, strict=True)]


def listed_faces(path: str) -> list[tuple[int, int, int, str]]:
    """Faces of a text file, `d h w side` a line. Raises ValueError, OSError."""
    rows = []
    for number, line in enumerate(Path(path).expanduser().read_text().splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        if len(words) != 4 or not all(word.isdigit() for word in words[:3]):
            raise ValueError(f"{path}, line {number}: d h w side is expected; got {line!r}")
        d, h, w = map(int, words[:3])
        rows.append((d, h, w, words[3]))
    return rows
