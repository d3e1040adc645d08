r"""Solved samples: what one is, and how they are read from `.npz`, `.h5` and `.npy` and checked.

| format | content |
|---|---|
| `.npz` (one sample) | `sigma` (D,H,W[,3 or 6]) S/m, `source` (D,H,W) A/m^3, `u` (D,H,W) V, `spacing` (3,) m; optional `mask` (D,H,W), `source_point` (3,) m, `labels` (D,H,W), `ends` (and `beta`), with `ends` pair `return_point` (3,) m, `u_nodes` (D+1,H+1,W+1) V, `singularity` |
| `.h5` (many) | the same names with a leading sample axis; optional `phantom` (N,); `ends`, `beta` and `singularity` are attributes of the file |
| folder of `.npy` | `sigma.npy`, `source.npy`, `u.npy`, ... in one folder per sample |

Every sample is checked when it is read (`check`), and a broken one is an error that names file, key, index and
rule. Pickles are never loaded.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy import ndimage

from physics_hybrid.grid import Grid
from physics_hybrid.potential.bodies.limb import TISSUES
from physics_hybrid.potential.physics.conductor import ON_FACE, Conductor, Ends, outside_sphere
from physics_hybrid.potential.physics.elements.operator import bending, corners
from physics_hybrid.potential.physics.point_source import PointSource

SCHEMA_VERSION = 1
REQUIRED = ("sigma", "source", "u")
OPTIONAL = ("mask", "spacing", "source_point", "return_point", "labels", "u_nodes")
#: How the current leaves and how the truth treats the source: entries of an .npz or folder, attributes of an .h5.
ATTRIBUTES = ("ends", "beta", "singularity")
AXES = "sample, D (long axis, fibres), H, W[, component DD HH WW [DH DW HW]]"
UNITS = {
    "sigma": "S/m", "source": "A/m^3", "u": "V", "u_nodes": "V", "spacing": "m", "source_point": "m from the outer corner of voxel (0,0,0)",
    "return_point": "m from the outer corner of voxel (0,0,0)",
    "mask": "1 in tissue", "labels": "index into attribute tissues",
}
#: Relative L2 by which the means of u_nodes over voxel corners may differ from u. Curvature is a few per cent; another unit, order of axes or sample is more.
NODES_DIFFER = 0.1


class SampleError(ValueError):
    """A file or sample that breaks a rule. The message names file, key, index and rule."""

    def __init__(self, where: str, key: str | None, rule: str):
        super().__init__(f"{where}: {f'key {key!r}: ' if key else ''}{rule}")
        self.parts = (where, key, rule)

    def __reduce__(self):  # a reading process hands it to the training process
        return SampleError, self.parts


@dataclass(frozen=True)
class Sample:
    """One solved conductor, checked.

    sigma (C, D, H, W) S/m; source (D, H, W) A/m^3; u (D, H, W) V, 0 in air; mask (D, H, W) bool, True in tissue;
    spacing (3,) m; source_point (3,) m; labels (D, H, W) uint8 or None; phantom: what must not be split; name: where it is from;
    return_point (3,) m of the electrode of a pair that takes the current out (source is negative there), or None; nodes (D+1, H+1, W+1) V, the truth at voxel corners where trilinear finite elements made it, or None;
    singularity: how the truth treats the source, 'subtraction' or 'nodal'.
    """

    sigma: np.ndarray
    source: np.ndarray
    u: np.ndarray
    mask: np.ndarray
    spacing: np.ndarray
    source_point: np.ndarray
    labels: np.ndarray | None
    phantom: str
    name: str
    return_point: np.ndarray | None = None
    nodes: np.ndarray | None = None
    singularity: str = "subtraction"

    @property
    def shape(self) -> Grid:
        return self.source.shape

    @property
    def current(self) -> float:
        """Injected current, A."""
        source = self.source if self.return_point is None else self.source.clip(min=0)
        return float(source.sum(dtype=np.float64) * np.prod(self.spacing, dtype=np.float64))


@dataclass(frozen=True)
class Conventions:
    """How a user's files are to be read. source_units: 'density' (A/m^3) or 'current' (A per voxel);
    source_point: 'metres' or 'index'; ends: how the current leaves, where the files do not say."""

    source_units: str = "density"
    source_point: str = "metres"
    ends: Ends = Ends()

    def __post_init__(self):
        if self.source_units not in ("density", "current"):
            raise ValueError(f"data.source_units must be 'density' or 'current'; got {self.source_units!r}")
        if self.source_point not in ("metres", "index"):
            raise ValueError(f"data.source_point must be 'metres' or 'index'; got {self.source_point!r}")


def check(arrays: dict, where: str, conventions: Conventions = Conventions(), phantom: str | None = None) -> Sample:
    """Turn raw arrays into a `Sample`, or raise `SampleError` with the first rule that is broken."""

    def fail(key, rule):
        raise SampleError(where, key, rule)

    for key in REQUIRED:
        if key not in arrays:
            fail(key, f"is missing; a sample needs {', '.join(REQUIRED)}; this one has {', '.join(sorted(arrays)) or 'nothing'}")
    values = {}
    for key in (*REQUIRED, *OPTIONAL):
        if arrays.get(key) is None:
            continue
        value = np.asarray(arrays[key])
        if value.dtype.kind not in "fiub":
            fail(key, f"must hold real numbers; its type is {value.dtype}")
        values[key] = value
    source = values["source"].astype(np.float64)
    if source.ndim != 3:
        fail("source", f"must have shape (D, H, W); got {source.shape}")
    shape = source.shape
    if min(shape) < 2:
        fail("source", f"the grid {shape} needs at least 2 voxels along each axis")
    sigma = values["sigma"].astype(np.float32)
    if sigma.shape == shape:
        sigma = sigma[..., None]
    if sigma.ndim != 4 or sigma.shape[:3] != shape or sigma.shape[3] not in (1, 3, 6):
        fail("sigma", f"must have shape {shape} or {shape} + (3,) or (6,), as source; got {values['sigma'].shape}")
    if not np.isfinite(sigma).all():
        fail("sigma", f"must be finite; voxel {_first(~np.isfinite(sigma).all(axis=-1))} is not")
    negative = sigma[..., :3] < 0
    if negative.any():
        voxel = _first(negative)[:3]
        fail("sigma", f"must be >= 0 (S/m); voxel {voxel} holds {sigma[voxel].tolist()}")
    tissue = sigma[..., 0] > 0
    partly = np.any([(sigma[..., a] > 0) != tissue for a in range(min(3, sigma.shape[-1]))], axis=0)
    if partly.any():
        voxel = _first(partly)
        fail("sigma", f"a tensor must be 0 (air) or positive on its whole diagonal; voxel {voxel} holds {sigma[voxel].tolist()}")
    if sigma.shape[-1] == 6:
        DD, HH, WW, DH, DW, HW = np.moveaxis(sigma.astype(np.float64), -1, 0)
        matrix = np.stack([DD, DH, DW, DH, HH, HW, DW, HW, WW], axis=-1).reshape(*shape, 3, 3)
        smallest = np.linalg.eigvalsh(matrix)[..., 0]
        bad = smallest < -1e-6 * np.maximum(DD, 1e-30)
        if bad.any():
            fail("sigma", f"tensors must be positive semi-definite; voxel {_first(bad)} has eigenvalue {smallest[_first(bad)]:g}")
    if not tissue.any():
        fail("sigma", "is 0 everywhere: there is no tissue")

    if "spacing" in values:
        spacing = values["spacing"].astype(np.float64)
        if spacing.shape != (3,):
            fail("spacing", f"must have shape (3,): (dD, dH, dW) in metres; got {spacing.shape}")
        if not (np.isfinite(spacing).all() and (spacing > 0).all()):
            fail("spacing", f"must be positive and finite (m); got {spacing.tolist()}")
    else:
        spacing = 1.0 / (np.asarray(shape) - 1.0)

    if "mask" in values:
        mask = values["mask"].astype(bool)
        if mask.shape != shape:
            fail("mask", f"must have shape {shape}, as source; got {mask.shape}")
        if (mask != tissue).any():
            fail("mask", f"must be true exactly where sigma > 0; voxel {_first(mask != tissue)} differs")

    if not np.isfinite(source).all():
        fail("source", f"must be finite; voxel {_first(~np.isfinite(source))} is not")
    active = source != 0
    if not active.any():
        fail("source", "is 0 everywhere: one source is needed")
    if (active & ~tissue).any():
        fail("source", f"lies in air (sigma = 0) at voxel {_first(active & ~tissue)}: no current can flow from it")
    ends = _ends(arrays, conventions.ends, fail)
    signs = [part for part in (source > 0, source < 0) if part.any()]
    if ends.kind == "pair":
        if len(signs) != 2:
            fail("source", "has one sign: with ends=pair it holds two electrodes, positive where the current comes in and negative where it is taken out")
        if abs(source.sum()) > 1e-3 * np.abs(source).sum():
            fail("source", f"must sum to zero with ends=pair; {100 * abs(source.sum()) / np.abs(source).sum():.2g} % of the current is left over")
    elif len(signs) != 1:
        fail("source", "has both signs: solve one source at a time and superpose (or, for an electrode that takes all the current out, problem.ends=pair)")
    for part in signs:
        (around,) = ndimage.find_objects(part.view(np.uint8))
        _, count = ndimage.label(part[around], structure=np.ones((3, 3, 3)))
        if count != 1:
            fail("source", f"must be one connected source{' of each sign' if len(signs) == 2 else ''}; found {count}. Solve one source at a time and superpose")
    if conventions.source_units == "current":
        source = source / np.prod(spacing)

    u = values["u"].astype(np.float32)
    if u.shape != shape:
        fail("u", f"must have shape {shape}, as source; got {u.shape}")
    u = np.where(tissue, u, np.float32(0))
    if not np.isfinite(u).all():
        fail("u", f"must be finite in tissue; voxel {_first(~np.isfinite(u))} is not")
    if not u.any():
        fail("u", "is 0 everywhere in tissue: this is not a solution")

    def electrode(key: str, part: np.ndarray) -> np.ndarray:
        """Its position in metres: what the file says, held to the centre of mass of the source, or that centre."""
        centroid = np.average(np.argwhere(part) + 0.5, axis=0, weights=source[part]) * spacing
        point = centroid
        if key in values:
            point = values[key].astype(np.float64)
            if point.shape != (3,) or not np.isfinite(point).all():
                fail(key, f"must be three finite numbers; got {point.tolist()}")
            if conventions.source_point == "index":
                point = (point + 0.5) * spacing
            away = np.abs(point - centroid) / spacing
            if (away > 1.0).any():
                fail(key, (
                    f"{point.tolist()} m is {away.max():.1f} voxels from the centre of mass of source, {centroid.tolist()} m. It is metres "
                    "from the outer corner of voxel (0,0,0); set data.source_point=index where files hold voxel indices"
                ))
        near = tissue[tuple(slice(max(math.floor(x - ON_FACE), 0), max(math.floor(x + ON_FACE) + 1, 0)) for x in point / spacing)]
        if not near.size:
            fail(key, f"{point.tolist()} m is not inside the grid, {(spacing * shape).tolist()} m")
        if not near.any():  # on a face of tissue it may lie
            fail(key if key in values else "source", f"the centre of the source, {point.tolist()} m, lies in air (voxel {tuple(np.floor(point / spacing).astype(int).tolist())})")
        return point

    point = electrode("source_point", signs[0])
    return_point = electrode("return_point", signs[1]) if len(signs) == 2 else None
    labels = values.get("labels")
    if labels is not None:
        if labels.shape != shape:
            fail("labels", f"must have shape {shape}, as source; got {labels.shape}")
        if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
            fail("labels", f"must hold whole numbers; voxel {_first(labels != np.rint(labels))} does not")
        if labels.min() < 0 or labels.max() >= len(TISSUES):
            fail("labels", f"must be {', '.join(f'{i} {t}' for i, t in enumerate(TISSUES))}; found {labels.min()} to {labels.max()}. Leave labels out where yours mean something else")
        labels = labels.astype(np.uint8)
    sigma = np.ascontiguousarray(np.moveaxis(sigma, -1, 0))
    if phantom is None:
        phantom = hashlib.sha256(sigma.tobytes() + spacing.tobytes()).hexdigest()[:16]
    singularity = _word(arrays.get("singularity", "subtraction"))
    if singularity not in ("subtraction", "nodal"):
        fail("singularity", f"must be subtraction or nodal; got {singularity!r}")
    nodes = values.get("u_nodes")
    if nodes is not None:
        if nodes.shape != tuple(n + 1 for n in shape):
            fail("u_nodes", f"must have shape {tuple(n + 1 for n in shape)}, one more than source along each axis; got {nodes.shape}")
        if not np.isfinite(nodes).all():
            fail("u_nodes", f"must be finite; node {_first(~np.isfinite(nodes))} is not")
        if any(np.ptp(np.argwhere(part), axis=0).max() > 1 for part in signs):
            fail("u_nodes", "belongs to point electrodes, and source covers more than 2 voxels along an axis: the equation would be held to another source than the truth's. Leave u_nodes out")
        nodes = nodes.astype(np.float32)
    sample = Sample(sigma, source.astype(np.float32), u, tissue, spacing, point, labels, phantom, where, return_point, nodes, singularity)
    if nodes is not None and (differ := _nodes_differ(sample, ends)) > NODES_DIFFER:
        fail("u_nodes", f"must be u at the corners of voxels: beyond 3 voxels of the electrodes the means over the corners differ from u by {differ:.0%} (at most {NODES_DIFFER:.0%})")
    return sample


def _nodes_differ(sample: Sample, ends: Ends) -> float:
    """Relative L2 of the means of `nodes` over voxel corners against u, beyond 3 voxels of the electrodes.

    The centres of our own truth hold the closed form as it is there, not its mean: where the plain difference is large, `bending` is put right, too.
    """
    def one(value):
        return None if value is None else torch.from_numpy(np.asarray(value, dtype=np.float64))[None]
    u, spacing, electrodes = one(sample.u), one(sample.spacing), PointSource(one(sample.source_point), one(sample.current), one(sample.return_point))
    far = one(sample.mask) > 0
    for electrode in electrodes.electrodes:
        far = far & outside_sphere(electrode.point, sample.shape, spacing, 3.0)

    def by(apart: torch.Tensor) -> float:
        apart, size = apart[far], u[far]
        if ends.floating and len(apart):  # either is known up to a constant
            apart, size = apart - apart.mean(), size - size.mean()
        return float(apart.norm() / size.norm().clamp_min(1e-30))

    apart = corners(one(sample.nodes)).mean(dim=1) - u
    differ = by(apart)
    if differ > NODES_DIFFER and sample.singularity == "subtraction":
        try:
            differ = min(differ, by(apart + bending(Conductor(one(sample.sigma), spacing, ends), electrodes)))
        except ValueError:  # the problem has no solution: nothing can be put right
            pass
    return differ


def _word(value) -> str:
    value = np.asarray(value)
    value = value.item() if value.size == 1 else value.tolist()
    return value.decode() if isinstance(value, bytes) else str(value)


def _ends(arrays: dict, expected: Ends, fail) -> Ends:
    """How the current leaves: what the file says, which must be what is asked for, or what is asked for."""
    if arrays.get("ends") is None:
        return expected
    kind, beta = _word(arrays["ends"]), arrays.get("beta")
    try:
        ends = Ends(kind, None if beta is None else float(beta))
    except (ValueError, TypeError) as error:
        fail("ends", str(error))
    if ends.kind != expected.kind or not math.isclose(ends.beta or 0, expected.beta or 0, rel_tol=1e-5):
        def told(e):
            return e.kind + (f" with beta={e.beta:g}/m" if e.beta else "")
        fail("ends", f"is {told(ends)}, and the problem is {told(expected)}; train with problem.ends={ends.kind}" + (f" problem.beta={ends.beta:g}" if ends.beta else ""))
    return ends


def _first(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(flags)[0])


@dataclass(frozen=True)
class Address:
    """Where a sample lies: a file or folder, and the row for `.h5`."""

    path: Path
    row: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.row is None else f"{self.path}[{self.row}]"

    def read(self, conventions: Conventions = Conventions()) -> Sample:
        """Read and check. Raises SampleError."""
        if self.row is not None:
            with _open_h5(self.path) as file:
                arrays = {k: _read_row(file, k, self) for k in (*REQUIRED, *OPTIONAL) if k in file}
                arrays |= {k: file.attrs[k] for k in ATTRIBUTES if k in file.attrs}
                phantom = _word(_read_row(file, "phantom", self)) if "phantom" in file else None
            return check(arrays, str(self), conventions, phantom)
        if self.path.is_dir():
            arrays = {p.stem: _load(p, str(p)) for p in sorted(self.path.glob("*.npy")) if p.stem in (*REQUIRED, *OPTIONAL, *ATTRIBUTES)}
        else:
            arrays = _load(self.path, str(self.path))
        return check(arrays, str(self), conventions)


def _load(path: Path, where: str):
    """np.load without pickles; whatever is wrong with the file becomes a SampleError."""
    try:
        with open(path, "rb") as file:
            if file.read(4) not in (b"PK\x03\x04", b"\x93NUM"):
                raise SampleError(where, None, "is empty, truncated or not a NumPy file")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return {k: loaded[k] for k in loaded.files if k in (*REQUIRED, *OPTIONAL, *ATTRIBUTES)}
        if path.suffix == ".npz":
            raise SampleError(where, None, "is not an .npz archive")
        return loaded
    except SampleError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise SampleError(where, None, "holds Python objects (a pickle), which are never loaded: they could run code") from error
        raise SampleError(where, None, f"cannot be read ({error}): truncated or not a NumPy file") from error
    except Exception as error:  # zipfile, zlib and struct each have their own way to say 'truncated'
        raise SampleError(where, None, f"cannot be read ({type(error).__name__}: {error}): truncated or not a NumPy file") from error


def _open_h5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SampleError(str(path), None, f"cannot be opened as HDF5 ({error}): truncated or another format") from error


def _read_row(file: h5py.File, key: str, address: Address):
    try:
        return file[key][address.row]
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise SampleError(str(address), key, f"cannot be read ({error}): the file is damaged") from error


def h5_length(path: Path) -> int:
    """Number of samples in an .h5 file, after the checks that concern the whole file."""
    with _open_h5(path) as file:
        version = file.attrs.get("schema_version", SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            raise SampleError(str(path), None, f"has schema version {version}; this program reads up to {SCHEMA_VERSION}")
        for key in REQUIRED:
            if key not in file:
                raise SampleError(str(path), key, f"is missing; the file has {', '.join(sorted(file)) or 'nothing'}")
            if not isinstance(file[key], h5py.Dataset) or file[key].ndim < 4:
                raise SampleError(str(path), key, "must be a dataset with a leading sample axis: (N, D, H, W, ...)")
        lengths = {k: len(file[k]) for k in (*REQUIRED, *OPTIONAL, "phantom") if k in file}
        if len(set(lengths.values())) > 1:
            raise SampleError(str(path), None, f"keys differ in their number of samples: {lengths}")
        return lengths["u"]


def find(path: str | Path) -> list[Address]:
    """All samples under a file or folder, in a fixed order.

    Raises
    ------
    SampleError
        If the path does not exist, holds nothing that we read, or an .h5 file there is broken as a whole.
    """
    return [address for place in places(path) for address in expand(place)]


def expand(place: Path) -> list[Address]:
    """The samples of one file or folder: one for each row of an .h5 file. Raises SampleError."""
    if place.suffix in (".h5", ".hdf5"):
        return [Address(place, row) for row in range(h5_length(place))]
    return [Address(place)]


def places(path: str | Path) -> list[Path]:
    """Files and folders of samples under a path, none of them opened yet. Raises SampleError."""
    path = Path(path).expanduser()
    if not path.exists():
        raise SampleError(str(path), None, "does not exist (data.path)")
    if path.is_file() or (path / "sigma.npy").exists() or (path / "u.npy").exists():
        candidates = [path]
    else:
        candidates = sorted(p for p in path.iterdir() if p.suffix in (".npz", ".h5", ".hdf5") or (p.is_dir() and any(p.glob("*.npy"))))
    for candidate in candidates:
        if not (candidate.is_dir() or candidate.suffix in (".h5", ".hdf5", ".npz")):
            raise SampleError(str(candidate), None, "is not a format we read: .npz, .h5, or a folder with sigma.npy, source.npy, u.npy")
    if not candidates:
        raise SampleError(str(path), None, "holds no samples: looked for *.npz, *.h5 and folders of .npy (data.path)")
    return candidates


def split_by_phantom(phantoms: list[str], fractions: dict[str, float], seed: int) -> dict[str, list[int]]:
    """Indices of each split; all samples of a phantom fall into the same one. Deterministic from the seed.

    A split with a positive fraction gets at least one phantom while there are enough of them.
    """
    if any(f < 0 for f in fractions.values()) or not 0 < sum(fractions.values()) <= 1 + 1e-9:
        raise ValueError(f"data.splits must be fractions >= 0 that sum to at most 1; got {fractions}")
    unique = sorted(set(phantoms))
    order = np.random.default_rng(seed).permutation(len(unique))
    wanted = [name for name, share in fractions.items() if share > 0]
    counts = {name: int(fractions[name] * len(unique)) for name in wanted}
    for name in wanted:
        counts[name] = max(counts[name], 1)
    largest = max(wanted, key=lambda name: fractions[name])
    rest = round(sum(fractions.values()) * len(unique)) - sum(counts.values())
    counts[largest] = max(counts[largest] + rest, 1)
    if sum(counts.values()) > len(unique):
        raise ValueError(
            f"{len(unique)} phantom(s) cannot be split into {', '.join(wanted)}: each split needs its own "
            "(samples with the same sigma are one phantom). Bring more, or set fractions to 0 in data.splits"
        )
    out, start = {name: [] for name in fractions}, 0
    for name in wanted:
        chosen = {unique[i] for i in order[start : start + counts[name]]}
        out[name] = [i for i, p in enumerate(phantoms) if p in chosen]
        start += counts[name]
    return out
