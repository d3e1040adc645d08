"""The rules of a sample, one function a key: `check` turns raw arrays into a `Sample`.

`where` is the file, and the row in it. A rule that fails raises `SampleError` with file, key, index
and rule; the first one that fails is told.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.data.nodes import NODES_DIFFER, nodes_differ
from physics_hybrid.problems.potential.data.plausible import cleared, wrong_box
from physics_hybrid.problems.potential.data.sample import (
    OPTIONAL,
    OURS,
    REQUIRED,
    Conventions,
    Sample,
    SampleError,
)
from physics_hybrid.problems.potential.data.understood import (
    given_current,
    grid_of,
    in_metres,
    point_density,
    understood,
)
from physics_hybrid.problems.potential.physics.conductor import ON_FACE
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.reading import text_of

#: How far a current that is given may be from that of the source.
SAME_CURRENT = 0.01
#: Share of its current that a pair may leave over, by rounding.
UNBALANCED = 1e-3
#: How far below 0 an eigenvalue of sigma may lie, over sigma along D, by rounding.
INDEFINITE = 1e-6
#: Voxels between a given electrode and the centre of mass of its source, at most.
OFF_CENTRE = 1.0
#: Digits by which the spacings of one body agree, whatever precision a file has.
DIGITS = 6
#: Keys of the positions of the electrode, or of the two of a pair.
POSITIONS = ("source_point", "return_point")


def check(
    arrays: Mapping[str, Any],
    where: str,
    conventions: Conventions = OURS,
    phantom: str | None = None,
    notes: Sequence[str] = (),
) -> Sample:
    """Turn raw arrays into a `Sample`, or raise `SampleError` with the first rule that is broken.

    arrays : what a file holds, see `sample`.
    phantom : what must not be split; None: samples of the same sigma and spacing.
    notes : what was understood already, when the file was read.
    """
    values, further = understood(_numbers(arrays, where), conventions, where)
    _required(values, arrays, where)
    notes = [*notes, *further]
    shape = _density(values["source"], where).shape if "source" in values else grid_of(values)
    sigma = _sigma(values["sigma"], shape or values["u"].shape, where)
    sigma = _cleared(sigma, conventions, where)
    tissue = sigma[..., 0] > 0
    spacing = _spacing(values.get("spacing", conventions.spacing), tissue.shape, where)
    region = _mask(values.get("mask"), tissue, conventions, where)
    if "source" in values:
        source = values["source"].astype(np.float64)
        if conventions.source_units == "current":
            source = source / np.prod(spacing)
    else:
        source = point_density(values, sigma, spacing, conventions, where)
        notes.append("source is made of source_point and current: I / V in the voxel that holds it")
    _source(source, tissue, where)
    ends = _ends(arrays, conventions.ends, where)
    electrodes = _electrodes(source, ends, where)
    if "current" in values and "source" in values:
        _same_current(given_current(values, where), source * electrodes[0], spacing, where)
    u = _u(values["u"], tissue, where)
    points = []
    for key, electrode in zip(POSITIONS, electrodes, strict=False):  # the second of a pair only
        centre = _centre_of_mass(source, electrode, spacing)
        point = _position(values.get(key), key, centre, spacing, conventions, where)
        _in_tissue(point, key, key in values, tissue, spacing, where)
        points.append(point)
    labels = _labels(values.get("labels"), arrays.get("tissues"), source.shape, where)
    sigma = np.ascontiguousarray(np.moveaxis(sigma, -1, 0))
    singularity = _singularity(arrays.get("singularity", "subtraction"), where)
    nodes = _u_nodes(values.get("u_nodes"), electrodes, source.shape, where)
    if region is not None:
        notes.append("mask is a region: losses and metrics count in it alone (data.mask)")
    sample = Sample(
        sigma=sigma,
        source=source.astype(np.float32),
        u=u,
        mask=tissue,
        spacing=spacing,
        source_point=points[0],
        labels=labels,
        phantom=_phantom_of(sigma, spacing) if phantom is None else phantom,
        name=where,
        return_point=points[1] if len(points) == 2 else None,
        nodes=nodes,
        singularity=singularity,
        region=region,
        notes=tuple(notes),
    )
    _nodes_and_centres(sample, ends, where)
    return sample


def _numbers(arrays: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """The arrays that are there, each of real numbers."""
    values = {}
    for key in (*REQUIRED, *OPTIONAL):
        if arrays.get(key) is None:
            continue
        value = np.asarray(arrays[key])
        if value.dtype.kind not in "fiub":
            raise SampleError(where, key, f"must hold real numbers; its type is {value.dtype}")
        values[key] = value
    return values


def _required(values: Mapping[str, np.ndarray], arrays: Mapping[str, Any], where: str) -> None:
    """None that is required is missing; a point and its current are a source."""
    point = "source_point" in values and "current" in values
    for key in REQUIRED:
        if key in values or (key == "source" and point):
            continue
        needed, held = ", ".join(REQUIRED), ", ".join(sorted(arrays)) or "nothing"
        instead = ", or source_point and current" if key == "source" else ""
        rule = f"is missing; a sample needs {needed}{instead}; this one has {held}"
        raise SampleError(where, key, rule)


def _density(source: np.ndarray, where: str) -> np.ndarray:
    """`source` in float64: it decides the grid (D, H, W). What it holds comes later, `_source`."""
    if source.ndim != 3:
        raise SampleError(where, "source", f"must have shape (D, H, W); got {source.shape}")
    if min(source.shape) < 2:
        rule = f"the grid {source.shape} needs at least 2 voxels along each axis"
        raise SampleError(where, "source", rule)
    return source.astype(np.float64)


def _sigma(given: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """(D, H, W, C) float32 with C = 1, 3 or 6: 0 in air, positive semi-definite in tissue, S/m."""
    sigma = given.astype(np.float32)
    if sigma.shape == shape:
        sigma = sigma[..., None]
    if sigma.ndim != 4 or sigma.shape[:3] != shape or sigma.shape[3] not in (1, 3, 6):
        rule = f"must have shape {shape} or {shape} + (3,) or (6,), as source; got {given.shape}"
        raise SampleError(where, "sigma", rule)
    finite = np.isfinite(sigma)
    if not finite.all():
        rule = f"must be finite; voxel {_first(~finite)[:3]} is not"
        if np.isnan(sigma).any():
            rule += ". Where NaN means air: data.nan_is_air=true"
        raise SampleError(where, "sigma", rule)
    diagonal = sigma[..., :3]
    negative = diagonal < 0
    if negative.any():
        voxel = _first(negative)[:3]
        rule = f"must be >= 0 (S/m); voxel {voxel} holds {sigma[voxel].tolist()}"
        raise SampleError(where, "sigma", rule)
    tissue = sigma[..., 0] > 0
    partly = (diagonal > 0) != tissue[..., None]
    if partly.any():
        voxel = _first(partly)[:3]
        raise SampleError(
            where,
            "sigma",
            "a tensor must be 0 (air) or positive on its whole diagonal; "
            f"voxel {voxel} holds {sigma[voxel].tolist()}",
        )
    if sigma.shape[-1] == 6:
        _semi_definite(sigma, where)
    if not tissue.any():
        raise SampleError(where, "sigma", "is 0 everywhere: there is no tissue")
    return sigma


def _semi_definite(sigma: np.ndarray, where: str) -> None:
    """Tensors (D, H, W, 6) have no negative eigenvalue, beyond rounding."""
    DD, HH, WW, DH, DW, HW = np.moveaxis(sigma.astype(np.float64), -1, 0)
    rows = np.stack([DD, DH, DW, DH, HH, HW, DW, HW, WW], axis=-1)
    smallest = np.linalg.eigvalsh(rows.reshape(*DD.shape, 3, 3))[..., 0]
    bad = smallest < -INDEFINITE * np.maximum(DD, 1e-30)
    if bad.any():
        voxel = _first(bad)
        raise SampleError(
            where,
            "sigma",
            "tensors must be positive semi-definite; "
            f"voxel {voxel} has eigenvalue {smallest[voxel]:g}",
        )


def _cleared(sigma: np.ndarray, conventions: Conventions, where: str) -> np.ndarray:
    """sigma with 0 in what the user calls air."""
    sigma = cleared(sigma, conventions.air_below)
    if not sigma.any():
        rule = f"is below {conventions.air_below:g} S/m everywhere (data.air_below): all is air"
        raise SampleError(where, "sigma", rule)
    return sigma


def _spacing(given: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """(3,) m, of a box that a body may have."""
    if given is None:
        rule = (
            "is missing: the edges of a voxel in metres, (dD, dH, dW); where all files have the "
            "same, data.spacing=[.., .., ..] will do"
        )
        raise SampleError(where, "spacing", rule)
    spacing = np.asarray(given, dtype=np.float64)
    if spacing.shape != (3,):
        rule = f"must have shape (3,): (dD, dH, dW) in metres; got {spacing.shape}"
        raise SampleError(where, "spacing", rule)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        rule = f"must be positive and finite (m); got {spacing.tolist()}"
        raise SampleError(where, "spacing", rule)
    wrong = wrong_box(spacing, shape)
    if wrong:
        raise SampleError(where, "spacing", f"{wrong} Metres are expected")
    return spacing


def _mask(
    given: np.ndarray | None, tissue: np.ndarray, conventions: Conventions, where: str
) -> np.ndarray | None:
    """(D, H, W) bool, where losses and metrics count; None where that is all tissue."""
    if given is None:
        return None
    mask: np.ndarray = given.astype(bool)
    if mask.shape != tissue.shape:
        rule = f"must have shape {tissue.shape}, as source; got {mask.shape}"
        raise SampleError(where, "mask", rule)
    if conventions.mask == "region":
        if not (mask & tissue).any():
            raise SampleError(where, "mask", "has no tissue in it (data.mask=region)")
        region: np.ndarray = mask & tissue
        return region
    differs = mask != tissue
    if differs.any():
        rule = (
            f"must be true exactly where sigma > 0; voxel {_first(differs)} differs. "
            "Where it is a region of interest: data.mask=region"
        )
        raise SampleError(where, "mask", rule)
    return None


def _source(source: np.ndarray, tissue: np.ndarray, where: str) -> None:
    """There is a source, and it lies in tissue."""
    finite = np.isfinite(source)
    if not finite.all():
        raise SampleError(where, "source", f"must be finite; voxel {_first(~finite)} is not")
    active = source != 0
    if not active.any():
        raise SampleError(where, "source", "is 0 everywhere: one source is needed")
    in_air = active & ~tissue
    if in_air.any():
        raise SampleError(
            where,
            "source",
            f"lies in air (sigma = 0) at voxel {_first(in_air)}: no current can flow from it",
        )


def _same_current(given: float, density: np.ndarray, spacing: np.ndarray, where: str) -> None:
    """A current in A beside a source (D, H, W) in A/m^3 is that of the source."""
    injected = float(density.sum() * np.prod(spacing))
    if not math.isclose(given, injected, rel_tol=SAME_CURRENT):
        raise SampleError(
            where,
            "current",
            f"is {given:.4g} A, and source injects {injected:.4g} A (its sum times the volume of a"
            f" voxel, {np.prod(spacing):.4g} m^3): one of source, current and spacing is in other"
            " units (data.source_units=current: source holds amperes), or leave `current` out",
        )


def _ends(arrays: Mapping[str, Any], expected: Ends, where: str) -> Ends:
    """How the current leaves: what the file says, which must be what is asked for.

    A file that does not say has what is asked for.
    """
    if arrays.get("ends") is None:
        return expected
    kind, beta = text_of(arrays["ends"]), arrays.get("beta")
    try:
        ends = Ends(kind, None if beta is None else float(beta))
    except (ValueError, TypeError) as error:
        raise SampleError(where, "ends", str(error)) from error
    same_beta = math.isclose(ends.beta or 0, expected.beta or 0, rel_tol=1e-5)
    if ends.kind != expected.kind or not same_beta:
        beta_option = f" problem.beta={ends.beta:g}" if ends.beta else ""
        raise SampleError(
            where,
            "ends",
            f"is {_told(ends)}, and the problem is {_told(expected)}; "
            f"train with problem.ends={ends.kind}{beta_option}",
        )
    return ends


def _told(ends: Ends) -> str:
    return f"{ends.kind} with beta={ends.beta:g}/m" if ends.beta else ends.kind


def _electrodes(source: np.ndarray, ends: Ends, where: str) -> list[np.ndarray]:
    """The voxels of each electrode, (D, H, W) bool: one in one piece, or the two of a pair."""
    electrodes = [part for part in (source > 0, source < 0) if part.any()]
    paired = len(electrodes) == 2
    if ends.kind == "pair":
        if not paired:
            raise SampleError(
                where,
                "source",
                "has one sign: with ends=pair it holds two electrodes, positive where the current "
                "comes in and negative where it is taken out",
            )
        _balanced(source, where)
    elif paired:
        raise SampleError(
            where,
            "source",
            "has both signs: solve one source at a time and superpose (or, for an electrode that "
            "takes all the current out, problem.ends=pair)",
        )
    for electrode in electrodes:
        (around,) = ndimage.find_objects(electrode.view(np.uint8))
        _, count = ndimage.label(electrode[around], structure=np.ones((3, 3, 3)))
        if count != 1:
            each = " of each sign" if paired else ""
            raise SampleError(
                where,
                "source",
                f"must be one connected source{each}; found {count}. "
                "Solve one source at a time and superpose",
            )
    return electrodes


def _balanced(source: np.ndarray, where: str) -> None:
    """A pair takes out what it brings in."""
    left, whole = abs(source.sum()), np.abs(source).sum()
    if left > UNBALANCED * whole:
        share = 100 * left / whole
        rule = f"must sum to zero with ends=pair; {share:.2g} % of the current is left over"
        raise SampleError(where, "source", rule)


def _u(given: np.ndarray, tissue: np.ndarray, where: str) -> np.ndarray:
    """(D, H, W) float32, V: finite in tissue, and 0 in air whatever the file has there."""
    u = given.astype(np.float32)
    if u.shape != tissue.shape:
        rule = f"must have shape {tissue.shape}, as source; got {u.shape}"
        raise SampleError(where, "u", rule)
    u = np.where(tissue, u, np.float32(0))
    finite = np.isfinite(u)
    if not finite.all():
        raise SampleError(where, "u", f"must be finite in tissue; voxel {_first(~finite)} is not")
    if not u.any():
        raise SampleError(where, "u", "is 0 everywhere in tissue: this is not a solution")
    return u


def _centre_of_mass(source: np.ndarray, electrode: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Of an electrode, (3,) m."""
    voxels = np.argwhere(electrode) + 0.5
    return np.asarray(np.average(voxels, axis=0, weights=source[electrode]) * spacing)


def _position(
    given: np.ndarray | None,
    key: str,
    centre: np.ndarray,
    spacing: np.ndarray,
    conventions: Conventions,
    where: str,
) -> np.ndarray:
    """Of an electrode, (3,) m: what the file says, held to the centre of mass, or that centre."""
    if given is None:
        return centre
    point = in_metres(given, key, spacing, conventions, where)
    away = np.abs(point - centre) / spacing
    if (away > OFF_CENTRE).any():
        raise SampleError(
            where,
            key,
            f"{point.tolist()} m is {away.max():.1f} voxels from the centre of mass of source, "
            f"{centre.tolist()} m. It is metres from the outer corner of voxel (0,0,0); "
            "set data.source_point=index where files hold voxel indices",
        )
    return point


def _in_tissue(
    point: np.ndarray,
    key: str,
    given: bool,
    tissue: np.ndarray,
    spacing: np.ndarray,
    where: str,
) -> None:
    """An electrode lies in tissue, or on a face of it.

    given : whether the file says where it lies; else `source` is to blame.
    """
    near = tissue[tuple(_voxels_at(x) for x in point / spacing)]
    if not near.size:
        size = (spacing * tissue.shape).tolist()
        rule = f"{point.tolist()} m is not inside the grid, {size} m"
        raise SampleError(where, key, rule)
    if not near.any():
        voxel = tuple(np.floor(point / spacing).astype(int).tolist())
        raise SampleError(
            where,
            key if given else "source",
            f"the centre of the source, {point.tolist()} m, lies in air (voxel {voxel})",
        )


def _voxels_at(x: float) -> slice:
    """The voxel that holds x (counted in voxels), or both that meet in a face."""
    first, last = math.floor(x - ON_FACE), math.floor(x + ON_FACE)
    return slice(max(first, 0), max(last + 1, 0))


def _labels(
    labels: np.ndarray | None, tissues: Any, shape: tuple[int, ...], where: str
) -> np.ndarray | None:
    """(D, H, W) uint8, indices into our tissues.

    tissues : what the file calls its labels, see `_names`; None: they are ours.
    """
    if labels is None:
        return None
    if labels.shape != shape:
        rule = f"must have shape {shape}, as source; got {labels.shape}"
        raise SampleError(where, "labels", rule)
    if labels.dtype.kind == "f":
        broken = labels != np.rint(labels)
        if broken.any():
            rule = f"must hold whole numbers; voxel {_first(broken)} does not"
            raise SampleError(where, "labels", rule)
    names = TISSUES if tissues is None else _names(tissues, where)
    if labels.min() < 0 or labels.max() >= len(names):
        known = ", ".join(f"{i} {name}" for i, name in enumerate(names))
        raise SampleError(
            where,
            "labels",
            f"must be {known}; found {labels.min()} to {labels.max()}. "
            "Leave labels out where yours mean something else",
        )
    return labels.astype(np.uint8) if names == TISSUES else _ours(labels, names, where)


def _names(tissues: Any, where: str) -> tuple[str, ...]:
    """Of the tissues of a file, which labels count: strings (N,), or one text, a JSON list."""
    stored = np.asarray(tissues)
    try:
        if stored.ndim == 0:
            names = json.loads(text_of(stored))
        else:
            names = [n.decode() if isinstance(n, bytes) else n for n in stored.tolist()]
    except ValueError:  # no JSON, or no text at all
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        rule = f"must be names, an array of strings or a JSON list of them; got {tissues!r}"
        raise SampleError(where, "tissues", rule)
    return tuple(names)


def _ours(labels: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
    """Labels that count `names` as labels that count our tissues, by name."""
    index = labels.astype(np.intp)
    for label in np.flatnonzero(np.bincount(index.ravel())).tolist():
        if names[label] not in TISSUES:
            raise SampleError(
                where,
                "labels",
                f"holds {label} {names[label]!r}, and this program knows {', '.join(TISSUES)}. "
                "Leave labels out where yours mean something else",
            )
    ours = [TISSUES.index(name) if name in TISSUES else 0 for name in names]  # 0: occurs nowhere
    return np.array(ours, dtype=np.uint8)[index]


def _phantom_of(sigma: np.ndarray, spacing: np.ndarray) -> str:
    """The same for samples of the same sigma and spacing, in single or double precision."""
    rounded = np.array([float(f"{edge:.{DIGITS}g}") for edge in spacing])
    return hashlib.sha256(sigma.tobytes() + rounded.tobytes()).hexdigest()[:16]


def _singularity(given: Any, where: str) -> str:
    singularity = text_of(given)
    if singularity not in ("subtraction", "nodal"):
        rule = f"must be subtraction or nodal; got {singularity!r}"
        raise SampleError(where, "singularity", rule)
    return singularity


def _u_nodes(
    nodes: np.ndarray | None,
    electrodes: Sequence[np.ndarray],
    shape: tuple[int, ...],
    where: str,
) -> np.ndarray | None:
    """(D+1, H+1, W+1) float32, V. What they are held to comes later, `_nodes_and_centres`."""
    if nodes is None:
        return None
    expected = tuple(n + 1 for n in shape)
    if nodes.shape != expected:
        raise SampleError(
            where,
            "u_nodes",
            f"must have shape {expected}, one more than source along each axis; got {nodes.shape}",
        )
    finite = np.isfinite(nodes)
    if not finite.all():
        raise SampleError(where, "u_nodes", f"must be finite; node {_first(~finite)} is not")
    if any(np.ptp(np.argwhere(electrode), axis=0).max() > 1 for electrode in electrodes):
        raise SampleError(
            where,
            "u_nodes",
            "belongs to point electrodes, and source covers more than 2 voxels along an axis: the "
            "equation would be held to another source than the truth's. Leave u_nodes out",
        )
    return nodes.astype(np.float32)


def _nodes_and_centres(sample: Sample, ends: Ends, where: str) -> None:
    """`u_nodes` and `u` are one solution."""
    if sample.nodes is None:
        return
    differ = nodes_differ(sample, ends)
    if differ > NODES_DIFFER:
        raise SampleError(
            where,
            "u_nodes",
            "must be u at the corners of voxels: beyond 3 voxels of the electrodes the means over "
            f"the corners differ from u by {differ:.0%} (at most {NODES_DIFFER:.0%})",
        )


def _first(flags: np.ndarray) -> tuple[int, ...]:
    """The index of the first flag that is set."""
    return tuple(int(i) for i in np.argwhere(flags)[0])
