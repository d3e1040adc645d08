"""The potential of electrodes in a body: from a segmentation to a field, no training.

    python -m physics_hybrid solve thigh.nii.gz --at 0.10 0.05 0.03 --out phi.nii.gz
        --figure phi.png

Volts at voxel centres, for each source. Two electrodes: --at and --returns; several sources: --at
again. Places are metres from the outer corner of the first voxel, in the order (D, H, W) with D the
axis nearest to inferior-superior, or with --frame world millimetres of the file's affine. All
options may stand in a YAML file too (--config FILE): at: [[0.10, 0.05, 0.03]].

Leaves with 0; 1 where a file, a body or a place is wrong, or the tolerance was not reached; 2 where
something was mistyped. What was wrong is one line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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
    two,
)

#: Those that say how a file of labels is read.
LABELS: dict[str, Shape] = {
    "tissues": WORD,
    "spacing": TRIPLE,
    "long_axis": WHOLE,
    "slices": two(int),
    "nan_is_air": SWITCH,
    "air_below": NUMBER,
    "keep_largest": SWITCH,
}
#: Those of a diffusion image, and what `ph.Tensors` calls them.
TENSORS = {
    "tensor_order": "order",
    "tensor_axes": "axes",
    "mapping": "mapping",
    "tensor_tissues": "tissues",
    "tensor_scale": "scale",
    "max_ratio": "max_ratio",
    "bad": "bad",
}
#: Those that say what the body is.
BODY: dict[str, Shape] = {
    **LABELS,
    "tensors": WORD,
    "tensor_order": WORD,
    "tensor_axes": WORD,
    "mapping": WORD,
    "tensor_tissues": WORDS,
    "tensor_scale": NUMBER,
    "max_ratio": NUMBER,
    "fibres": WORD,
    "fibre_tissues": WORDS,
    "bad": WORD,
}
SHAPES: dict[str, Shape] = {
    **BODY,
    "at": TRIPLES,
    "returns": TRIPLES,
    "patch": NUMBER,
    "frame": WORD,
    "current": NUMBERS,
    "ends": WORD,
    "beta": NUMBER,
    "start": WORD,
    "tolerance": NUMBER,
    "error": NUMBER,
    "certify": SWITCH,
    "engine": WORD,
    "model": WORD,
    "singularity": WORD,
    "probe": TRIPLES,
    "out": WORDS,
    "figure": WORD,
    "progress": SWITCH,
}


def main(arguments: list[str]) -> None:
    started("solve", __doc__, SHAPES, arguments, run)


def body_of(given: dict[str, Any]) -> Any:
    """The body that the options say, and what was understood of its files, printed.

    Raises UsageError where no file is named.
    """
    if given["file"] is None:
        raise UsageError("FILE is needed: a segmentation, such as thigh.nii.gz")
    body = read_body(given["file"], given)
    for note in body.notes:
        print(note)
    return body


def read_body(path: Any, given: dict[str, Any]) -> Any:
    """The body of a file that the options say. Raises ValueError, UsageError."""
    import physics_hybrid as ph

    return ph.read_labels(path, **reading(given))


def reading(given: dict[str, Any]) -> dict[str, Any]:
    """What `read_labels` takes, of the options. Raises ValueError, UsageError."""
    asked = {key: given[key] for key in LABELS}
    return {**asked, "tensors": _tensors(given), "fibres": _fibres(given)}


def _tensors(given: dict[str, Any]) -> Any:
    """The diffusion image that the options name, or None. Raises UsageError for half of one."""
    import physics_hybrid as ph

    if given["tensors"] is not None:
        asked = {name: given[key] for key, name in TENSORS.items()}
        return ph.Tensors(given["tensors"], **asked)
    for key, name in TENSORS.items():
        if name != "bad" and given[key] != getattr(ph.Tensors, name):
            raise UsageError(f"--{key.replace('_', '-')} needs --tensors FILE")
    return None


def _fibres(given: dict[str, Any]) -> Any:
    """How fibres run, or None. Raises UsageError for half of it."""
    import physics_hybrid as ph

    if given["fibres"] is not None:
        return ph.Fibres(given["fibres"], given["fibre_tissues"], given["bad"])
    if given["fibre_tissues"] is not None:
        raise UsageError("--fibre-tissues needs --fibres axis")
    if given["bad"] != ph.Fibres.bad and given["tensors"] is None:
        raise UsageError("--bad needs --tensors FILE or --fibres axis")
    return None


def electrodes(places: list[list[float]] | None, radius: float | None) -> Any:
    """Points, or patches of a radius; one alone where there is one."""
    if places is None:
        return None
    several = points_or_patches(places, radius)
    return several[0] if len(several) == 1 else several


def points_or_patches(places: list[list[float]], radius: float | None) -> list[Any]:
    """Places as they are, or patches of a radius round them."""
    import physics_hybrid as ph

    return [place if radius is None else ph.Patch(place, radius) for place in places]


def run(given: dict[str, Any]) -> None:
    """Read, solve, say, write."""
    import physics_hybrid as ph
    from physics_hybrid.problems.potential.door.formats import read_volts, writer_of

    need_a_source(given)
    check_asked(given, writer_of)
    body = body_of(given)
    start = given["start"]
    current = given["current"]
    field = ph.solve(
        body,
        electrodes(given["at"], given["patch"]),
        current[0] if len(current) == 1 else current,
        returns=electrodes(given["returns"], given["patch"]),
        start=None if start is None else read_volts(body, start),
        error=given["error"],
        certify=given["certify"],
        tolerance=given["tolerance"],
        engine=given["engine"],
        model=given["model"],
        frame=given["frame"],
        ends=given["ends"],
        beta=given["beta"],
        singularity=given["singularity"],
        progress=given["progress"],
    )
    print(body)
    print(f"engine: {field.engine} ({field.why}); ends: {field.ends.kind}")
    if field.iterations is not None:
        print(
            f"{field.iterations} iterations to a relative residual of {field.residual:.1e} in"
            f" {field.seconds:.1f} s"
        )
    for k, volts in enumerate(field.array()):
        source = f"source {k}: " if field.many else ""
        print(f"{source}{volts.min():.6g} to {volts.max():.6g} V at voxel centres")
    if given["certify"] or given["error"] is not None:
        print_bound(field)
    if given["probe"] is not None:
        print_probes(field, given["probe"])
    write_asked(field, given)


def need_a_source(given: dict[str, Any]) -> None:
    """Raises UsageError where no electrode is named."""
    if given["at"] is None:
        raise UsageError("--at X Y Z is needed: where the current comes in")


def check_asked(given: dict[str, Any], check: Callable[[Path], object], key: str = "out") -> None:
    """Of the files and the picture that are asked for, before an hour is spent: raises ValueError
    where one cannot be written.

    check : of a file of the option `key`.
    """
    from physics_hybrid.report.plots import check_picture

    for path in given[key] or ():
        check(Path(path))
    if given["figure"] is not None:
        check_picture(given["figure"])


def write_asked(found: Any, given: dict[str, Any], key: str = "out") -> None:
    """Write the files and the picture that are asked for of what was found, a line each."""
    for path in given[key] or ():
        print(f"written: {found.save(path)}")
    if given["figure"] is not None:
        print(f"written: {found.plot(given['figure'])}")


def print_bound(field: Any, refine: int = 1) -> None:
    """How wrong each source's field is at most, a line each; with `refine` > 1 at least, too."""
    bound = field.certify(refine)
    for k, relative in enumerate(bound.relative.tolist()):
        source = f"source {k}: " if field.many else ""
        print(
            f"{source}energy error at most {relative:.3g} of the energy beyond the electrode,"
            f" {float(bound.bound[k]):.3g} W^(1/2)"
            + ("" if bound.lower is None else f", and at least {float(bound.lower[k]):.3g} W^(1/2)")
        )


def print_probes(field: Any, probes: list[list[float]]) -> None:
    """The potential at places, a line each."""
    volts = field.at(probes).reshape(-1, len(probes))
    for k, place in enumerate(probes):
        shown = "  ".join(f"{v:.6g} V" for v in volts[:, k])
        print(f"at ({', '.join(f'{x:g}' for x in place)}): {shown}")
